//! The replicated state: `apply(proposal) -> effects`, and nothing else changes it.
//!
//! Pure and deterministic: no clock, no I/O, no randomness, so that every copy that applies the
//! same entries is the same. A refused proposal changes nothing; an accepted one raises the
//! revision by one and becomes a log entry. Compiled policies are part of the state but not of its
//! stored form: they follow from the texts and are made anew on [`State::restore`]. What compiler
//! and prover found of an entry stands in it, so that applying it again asks neither.

mod addresses;
mod encryption;
mod endpoints;
mod enforcement;
mod idempotency;
mod moves;
mod networks;
mod nodes;
mod peering;
mod policies;
mod source;
mod views;
mod wires;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sunwire_api::{Name, NetworkPatch, ProblemCode, Vni};

pub use encryption::EncryptionRecord;
pub use endpoints::EndpointRecord;
pub(crate) use networks::GATEWAY_MAC;
pub use networks::NetworkRecord;
use nodes::Announced;
pub use nodes::NodeRecord;
pub use policies::{
    Fallback, PolicyRecord, Program, Staged, StagedText, TextRevision, UnconfirmedText,
};
use policies::{Findings, How};
pub(crate) use policies::{check, invalid};
pub use source::Source;
pub use wires::WireRecord;

use crate::command::{Command, Entry, Precondition, Proposal};
use crate::effects::Effects;
use crate::examine::{Examiner, Prepared};
use crate::refusal::Refusal;

/// Everything that is agreed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    revision: u64,
    last_node_number: u32,
    last_endpoint_number: u32,
    last_vni: u32,
    #[serde(default)]
    last_wire_number: u32,
    nodes: BTreeMap<Name, NodeRecord>,
    networks: BTreeMap<Name, NetworkRecord>,
    endpoints: BTreeMap<Name, EndpointRecord>,
    #[serde(default)]
    wires: BTreeMap<Name, WireRecord>,
    policies: BTreeMap<Name, PolicyRecord>,
    #[serde(default)]
    encryption: EncryptionRecord,
    /// By network.
    #[serde(skip)]
    programs: BTreeMap<Name, Program>,
    /// Why this version's compiler refuses a text in force, by policy.
    #[serde(skip)]
    refused: BTreeMap<Name, Findings>,
    /// Candidates, by network.
    #[serde(skip)]
    staged: BTreeMap<Name, Staged>,
    /// Why the compiler refuses a candidate now, by policy.
    #[serde(skip)]
    staged_refused: BTreeMap<Name, Findings>,
    replies: idempotency::Replies,
}

impl State {
    /// Applies a proposal.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn apply(&mut self, proposal: &Proposal) -> Result<Effects, Refusal> {
        self.decide(proposal, &mut Examiner::Here(&mut Prepared::default()))
    }

    /// Examines the policies that a proposal concerns, as applying it now would: to be done where
    /// nobody waits for it. Changes nothing but its own copy of the state.
    #[must_use]
    pub fn prepare(mut self, proposal: &Proposal) -> Prepared {
        let mut prepared = Prepared::default();
        // Whether it is refused is decided when it is applied.
        let _ = self.decide(proposal, &mut Examiner::Here(&mut prepared));
        prepared
    }

    /// Whether deciding about a proposal compiles a policy.
    #[must_use]
    pub fn examines(&self, proposal: &Proposal) -> bool {
        match &proposal.command {
            Command::PutPolicy { .. }
            | Command::ApplyStaged { .. }
            | Command::RollbackPolicy { .. }
            | Command::RevertPolicy { .. }
            | Command::StagePolicy { .. } => true,
            Command::CreateNode(_)
            | Command::CreateEndpoint(_)
            | Command::UpdateEndpoint { .. }
            | Command::DeleteEndpoint { .. }
            | Command::DeleteNode { .. } => !self.policies.is_empty(),
            Command::RegisterNode { name, .. } => {
                !self.policies.is_empty() && !self.nodes.contains_key(name)
            }
            Command::PeerNetworks { .. }
            | Command::UnpeerNetworks { .. }
            | Command::EnforceNetwork { .. } => !self.policies.is_empty(),
            Command::DeletePolicy { name } => self.policies.get(name).is_some_and(|policy| {
                let mut networks = policy.networks();
                networks.any(|network| {
                    let record = self.networks.get(network);
                    record.is_some_and(|record| !record.peers.is_empty())
                })
            }),
            Command::CreateNetwork(_)
            | Command::UpdateNetwork { .. }
            | Command::DeleteNetwork { .. }
            | Command::ConnectWire(_)
            | Command::DisconnectWire { .. }
            | Command::BeginMove { .. }
            | Command::AbortMove { .. }
            | Command::FinishMove { .. }
            | Command::ReportEndpoint { .. }
            | Command::ConfirmPolicy { .. }
            | Command::UnstagePolicy { .. }
            | Command::SetNodeKeys { .. }
            | Command::SetEncryption { .. } => false,
        }
    }

    /// Applies a proposal with examinations that were made beforehand.
    ///
    /// # Errors
    /// Why it is refused, or [`Refusal::Stale`] when others are needed; nothing has changed then.
    pub fn apply_prepared(
        &mut self,
        proposal: &Proposal,
        prepared: &Prepared,
    ) -> Result<Effects, Refusal> {
        self.decide(proposal, &mut Examiner::Beforehand(prepared))
    }

    /// Applies an entry of the log. Programs are as before: [`State::restore`] makes them.
    ///
    /// # Errors
    /// Why this version refuses it; nothing has changed then.
    pub fn replay(&mut self, entry: &Entry) -> Result<Effects, Refusal> {
        match &entry.outcome {
            Some(outcome) => self.decide(&entry.proposal, &mut Examiner::Recorded(outcome)),
            None => self.decide(&entry.proposal, &mut Examiner::Lenient),
        }
    }

    fn decide(
        &mut self,
        proposal: &Proposal,
        examiner: &mut Examiner<'_>,
    ) -> Result<Effects, Refusal> {
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
        let force = proposal.force;
        let how = |note, confirm_by_unix_ms| How {
            note,
            confirm_by_unix_ms,
            force,
        };
        match &proposal.command {
            Command::RegisterNode {
                name,
                location,
                underlay_address,
                underlay_address_v6,
                public_keys,
                tunnel_port,
            } => {
                let announced = Announced {
                    location: location.clone(),
                    underlay_address: *underlay_address,
                    underlay_address_v6: *underlay_address_v6,
                    public_keys: public_keys.clone(),
                    tunnel_port: *tunnel_port,
                };
                self.register_node(name, announced, examiner, &mut effects)
            }
            Command::CreateNode(create) => self.create_node(create, force, examiner, &mut effects),
            Command::SetNodeKeys { name, public_keys } => {
                self.set_node_keys(name, public_keys, &mut effects)
            }
            Command::SetEncryption { mode } => self.set_encryption(*mode, &mut effects),
            Command::DeleteNode { name } => self.delete_node(name, force, examiner, &mut effects),
            Command::CreateNetwork(create) => self.create_network(create, &mut effects),
            Command::UpdateNetwork {
                name,
                outbound,
                checksum,
                encryption,
            } => {
                let patch = NetworkPatch {
                    outbound: outbound.clone(),
                    checksum: *checksum,
                    encryption: *encryption,
                };
                self.update_network(name, &patch, &mut effects)
            }
            Command::DeleteNetwork { name } => self.delete_network(name, &mut effects),
            Command::PeerNetworks { name, peer } => {
                self.peer_networks(name, peer, force, examiner, &mut effects)
            }
            Command::UnpeerNetworks { name, peer } => {
                self.unpeer_networks(name, peer, force, examiner, &mut effects)
            }
            Command::EnforceNetwork { name, enforce } => {
                self.enforce_network(name, *enforce, examiner, &mut effects)
            }
            Command::CreateEndpoint(create) => {
                self.create_endpoint(create, force, examiner, &mut effects)
            }
            Command::UpdateEndpoint { name, labels } => {
                self.update_endpoint(name, labels, force, examiner, &mut effects)
            }
            Command::DeleteEndpoint { name } => {
                self.delete_endpoint(name, force, examiner, &mut effects)
            }
            Command::ConnectWire(create) => self.connect_wire(create, &mut effects),
            Command::DisconnectWire { name } => self.disconnect_wire(name, &mut effects),
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
            Command::PutPolicy {
                name,
                text,
                note,
                confirm_by_unix_ms,
            } => {
                let how = how(note, *confirm_by_unix_ms);
                self.put_policy(name, text, &how, examiner, &mut effects)
            }
            Command::ApplyStaged {
                name,
                note,
                confirm_by_unix_ms,
            } => {
                let how = how(note, *confirm_by_unix_ms);
                self.apply_staged(name, &how, examiner, &mut effects)
            }
            Command::RollbackPolicy {
                name,
                to,
                note,
                confirm_by_unix_ms,
            } => {
                let how = how(note, *confirm_by_unix_ms);
                self.rollback_policy(name, *to, &how, examiner, &mut effects)
            }
            Command::ConfirmPolicy { name } => self.confirm_policy(name, &mut effects),
            Command::RevertPolicy {
                name,
                text_revision,
                note,
            } => self.revert_policy(name, *text_revision, note, examiner, &mut effects),
            Command::StagePolicy { name, text } => {
                self.stage_policy(name, text, examiner, &mut effects)
            }
            Command::UnstagePolicy { name } => self.unstage_policy(name, &mut effects),
            Command::DeletePolicy { name } => {
                self.delete_policy(name, force, examiner, &mut effects)
            }
        }?;
        self.revision = revision;
        if let Some(key) = &proposal.key {
            self.replies.remember(key.clone(), revision);
        }
        Ok(effects)
    }

    /// Makes whole again what was read back: compiles every policy. One that this version's
    /// compiler refuses is out of force, until its text is replaced.
    #[must_use]
    pub fn restore(mut self) -> State {
        self.compile_all();
        self
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

    /// Wires by name.
    #[must_use]
    pub fn wires(&self) -> &BTreeMap<Name, WireRecord> {
        &self.wires
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

    /// Compiled candidates by the name of their network.
    #[must_use]
    pub fn staged(&self) -> &BTreeMap<Name, Staged> {
        &self.staged
    }

    /// When the next text that waits to be confirmed is put back: the policy, the revision of that
    /// text, and milliseconds of Unix time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(&Name, u64, u64)> {
        let waiting = self.policies.iter().filter_map(|(name, policy)| {
            let deadline = policy.unconfirmed.as_ref()?.deadline_unix_ms;
            Some((name, policy.present().revision, deadline))
        });
        waiting.min_by_key(|(_, _, deadline)| *deadline)
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
            Command::DeleteNetwork { name }
            | Command::UpdateNetwork { name, .. }
            | Command::PeerNetworks { name, .. }
            | Command::UnpeerNetworks { name, .. }
            | Command::EnforceNetwork { name, .. } => {
                (name, self.networks.get(name).map(|n| n.revision))
            }
            Command::DisconnectWire { name } => (name, self.wires.get(name).map(|w| w.revision)),
            Command::UpdateEndpoint { name, .. }
            | Command::DeleteEndpoint { name }
            | Command::BeginMove { endpoint: name, .. }
            | Command::AbortMove { endpoint: name } => {
                (name, self.endpoints.get(name).map(|e| e.revision))
            }
            Command::PutPolicy { name, .. }
            | Command::ApplyStaged { name, .. }
            | Command::RollbackPolicy { name, .. }
            | Command::ConfirmPolicy { name }
            | Command::StagePolicy { name, .. }
            | Command::UnstagePolicy { name }
            | Command::DeletePolicy { name } => (name, self.policies.get(name).map(|p| p.revision)),
            Command::SetEncryption { .. } => {
                return self.check_encryption_precondition(proposal);
            }
            Command::RegisterNode { .. }
            | Command::CreateNode(_)
            | Command::SetNodeKeys { .. }
            | Command::CreateNetwork(_)
            | Command::CreateEndpoint(_)
            | Command::ConnectWire(_)
            | Command::FinishMove { .. }
            | Command::ReportEndpoint { .. }
            | Command::RevertPolicy { .. } => return Ok(()),
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
