//! The replicated state: `apply(proposal) -> effects`, and nothing else changes it.
//!
//! Pure and deterministic: no clock, no I/O, no randomness, so that every copy that applies the
//! same entries is the same. A refused proposal changes nothing; an accepted one raises the
//! revision by one and becomes a log entry. Compiled policies are part of the state but not of its
//! stored form: they follow from the texts and are made anew on [`State::restore`].

mod addresses;
mod endpoints;
mod idempotency;
mod moves;
mod networks;
mod nodes;
mod policies;
mod views;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sunwire_api::{Name, ProblemCode, Vni};

pub use endpoints::EndpointRecord;
pub(crate) use networks::GATEWAY_MAC;
pub use networks::NetworkRecord;
pub use nodes::NodeRecord;
pub(crate) use policies::check;
pub use policies::{PolicyRecord, Program, TextRevision};

use crate::command::{Command, Precondition, Proposal};
use crate::effects::Effects;
use crate::refusal::Refusal;

/// Everything that is agreed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    revision: u64,
    last_node_number: u32,
    last_endpoint_number: u32,
    last_vni: u32,
    nodes: BTreeMap<Name, NodeRecord>,
    networks: BTreeMap<Name, NetworkRecord>,
    endpoints: BTreeMap<Name, EndpointRecord>,
    policies: BTreeMap<Name, PolicyRecord>,
    /// By network.
    #[serde(skip)]
    programs: BTreeMap<Name, Program>,
    replies: idempotency::Replies,
}

/// A stored state that this version cannot take up.
#[derive(Debug, thiserror::Error)]
#[error("the stored policy {policy} does not compile with this version: {detail}")]
pub struct RestoreError {
    /// The policy.
    pub policy: Name,
    /// The first finding of the compiler.
    pub detail: String,
}

impl State {
    /// Applies a proposal.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn apply(&mut self, proposal: &Proposal) -> Result<Effects, Refusal> {
        if let Some(key) = &proposal.key
            && let Some(revision) = self.replies.recall(key)?
        {
            return Ok(Effects {
                revision,
                repeated: true,
                ..Effects::default()
            });
        }
        self.check_precondition(proposal)?;
        let revision = self.revision + 1;
        let mut effects = Effects {
            revision,
            ..Effects::default()
        };
        match &proposal.command {
            Command::RegisterNode {
                name,
                location,
                underlay_address,
            } => self.register_node(name, location, *underlay_address, &mut effects),
            Command::DeleteNode { name } => self.delete_node(name, &mut effects),
            Command::CreateNetwork(create) => self.create_network(create, &mut effects),
            Command::DeleteNetwork { name } => self.delete_network(name, &mut effects),
            Command::CreateEndpoint(create) => self.create_endpoint(create, &mut effects),
            Command::UpdateEndpoint { name, labels } => {
                self.update_endpoint(name, labels, &mut effects)
            }
            Command::DeleteEndpoint { name } => self.delete_endpoint(name, &mut effects),
            Command::BeginMove { endpoint, node } => self.begin_move(endpoint, node, &mut effects),
            Command::AbortMove { endpoint } => self.abort_move(endpoint, &mut effects),
            Command::FinishMove {
                endpoint,
                node,
                epoch,
            } => self.finish_move(endpoint, node, *epoch, &mut effects),
            Command::ReportEndpoint {
                endpoint,
                node,
                epoch,
                condition,
                detail,
            } => self.report_endpoint(endpoint, node, *epoch, *condition, detail, revision),
            Command::PutPolicy { name, text } => self.put_policy(name, text, &mut effects),
            Command::RollbackPolicy { name, to } => self.rollback_policy(name, *to, &mut effects),
            Command::DeletePolicy { name } => self.delete_policy(name, &mut effects),
        }?;
        self.revision = revision;
        if let Some(key) = &proposal.key {
            self.replies.remember(key.clone(), revision);
        }
        Ok(effects)
    }

    /// Makes whole again what was read back: compiles every policy.
    ///
    /// # Errors
    /// A policy that does not compile.
    pub fn restore(mut self) -> Result<State, RestoreError> {
        self.compile_all()?;
        Ok(self)
    }

    /// Revision of the last accepted proposal; 0 at first.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Nodes by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<Name, NodeRecord> {
        &self.nodes
    }

    /// Networks by name.
    #[must_use]
    pub fn networks(&self) -> &BTreeMap<Name, NetworkRecord> {
        &self.networks
    }

    /// Endpoints by name.
    #[must_use]
    pub fn endpoints(&self) -> &BTreeMap<Name, EndpointRecord> {
        &self.endpoints
    }

    /// Policies by name.
    #[must_use]
    pub fn policies(&self) -> &BTreeMap<Name, PolicyRecord> {
        &self.policies
    }

    /// Compiled policies by the name of their network.
    #[must_use]
    pub fn programs(&self) -> &BTreeMap<Name, Program> {
        &self.programs
    }

    /// Name of the network with this VNI.
    #[must_use]
    pub fn network_of(&self, vni: Vni) -> Option<&Name> {
        let mut found = self
            .networks
            .iter()
            .filter(|(_, network)| network.vni == vni);
        found.next().map(|(name, _)| name)
    }

    /// Checks what the client demands of the resource that it changes. Only the controller's own
    /// commands, and those that create under a new name, go without.
    fn check_precondition(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let (name, existing) = match &proposal.command {
            Command::DeleteNode { name } => (name, self.nodes.get(name).map(|n| n.revision)),
            Command::DeleteNetwork { name } => (name, self.networks.get(name).map(|n| n.revision)),
            Command::UpdateEndpoint { name, .. }
            | Command::DeleteEndpoint { name }
            | Command::BeginMove { endpoint: name, .. }
            | Command::AbortMove { endpoint: name } => {
                (name, self.endpoints.get(name).map(|e| e.revision))
            }
            Command::PutPolicy { name, .. }
            | Command::RollbackPolicy { name, .. }
            | Command::DeletePolicy { name } => (name, self.policies.get(name).map(|p| p.revision)),
            Command::RegisterNode { .. }
            | Command::CreateNetwork(_)
            | Command::CreateEndpoint(_)
            | Command::FinishMove { .. }
            | Command::ReportEndpoint { .. } => return Ok(()),
        };
        let stale = |detail| Err(Refusal::new(ProblemCode::StaleRevision, detail));
        match (proposal.precondition, existing) {
            (Precondition::None, Some(_)) if proposal.key.is_none() => Err(Refusal::new(
                ProblemCode::PreconditionRequired,
                format!(
                    "{name} exists: send If-Match with its ETag (or * for whatever it is now), or \
                     an Idempotency-Key"
                ),
            )),
            (Precondition::Revision(asked), Some(existing)) if asked != existing => stale(format!(
                "{name} is at revision {existing}, not at {asked}: get it again, and decide again"
            )),
            (Precondition::Absent, Some(existing)) => stale(format!(
                "{name} exists, at revision {existing}: send its ETag in If-Match to change it"
            )),
            // Commands that need the resource to exist say so better themselves.
            (Precondition::Revision(_) | Precondition::Any, None)
                if matches!(proposal.command, Command::PutPolicy { .. }) =>
            {
                stale(format!(
                    "{name} does not exist: send no If-Match to create it"
                ))
            }
            _ => Ok(()),
        }
    }
}
