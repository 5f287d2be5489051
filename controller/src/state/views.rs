//! The state as clients see it. Nodes are missing: what is known of their agents is not agreed,
//! and lives with the streams.

use sunwire_api::{
    Endpoint, EndpointSpec, EndpointState, EndpointStatus, Name, Network, NetworkSpec,
    NetworkStatus, Policy, PolicyRevision, PolicySpec, PolicyState, PolicyStatus, StagedPolicy,
    StagedSummary, Unconfirmed,
};
use sunwire_policy::tables::FlowTables;

use super::networks::GATEWAY_MAC;
use super::{EndpointRecord, State, TextRevision};
use crate::command::Condition;
use crate::refusal::Refusal;

impl EndpointRecord {
    /// How the endpoint is.
    #[must_use]
    pub fn state(&self) -> EndpointState {
        match (&self.moving_to, self.condition) {
            (Some(_), _) => EndpointState::Moving,
            (None, Condition::Absent) => EndpointState::Pending,
            (None, Condition::Attached) => EndpointState::Attached,
            (None, Condition::Failed) => EndpointState::Failed,
        }
    }
}

impl State {
    /// A network.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn network_view(&self, name: &Name) -> Result<Network, Refusal> {
        let network = self.network(name)?;
        let endpoints = self.endpoints.values();
        let endpoints = endpoints.filter(|endpoint| endpoint.network == *name);
        Ok(Network {
            name: name.clone(),
            spec: NetworkSpec {
                vni: network.vni,
                subnets: network.subnets.clone(),
                mtu: network.mtu,
                encryption: network.encryption,
                relay: network.relay,
                enforce: network.enforce,
                vxlan_port: network.vxlan_port,
                checksum: network.checksum,
                peers: network.peers.iter().cloned().collect(),
                outbound: network.outbound.clone(),
            },
            status: NetworkStatus {
                gateways: network.gateways().collect(),
                gateway_mac: GATEWAY_MAC,
                endpoints: u32::try_from(endpoints.count()).expect("endpoints have 32-bit numbers"),
                policy: self.governor(name).cloned(),
            },
            revision: network.revision,
        })
    }

    /// An endpoint.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn endpoint_view(&self, name: &Name) -> Result<Endpoint, Refusal> {
        let endpoint = self.endpoint(name)?;
        Ok(Endpoint {
            name: name.clone(),
            spec: EndpointSpec {
                network: endpoint.network.clone(),
                device: endpoint.device.clone(),
                addresses: endpoint.addresses.clone(),
                mac: endpoint.mac,
                labels: endpoint.labels.clone(),
            },
            status: EndpointStatus {
                number: endpoint.number,
                state: endpoint.state(),
                node: endpoint.node.clone(),
                moving_to: endpoint.moving_to.clone(),
                epoch: endpoint.epoch,
                detail: endpoint.detail.clone(),
            },
            revision: endpoint.revision,
        })
    }

    /// A policy.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn policy_view(&self, name: &Name) -> Result<Policy, Refusal> {
        let policy = self.policy(name)?;
        let program = self.programs.get(&policy.network);
        let refused = self.refused.get(name).map(|findings| &findings.0);
        let size = |size: fn(&FlowTables) -> usize| {
            program.map_or(0, |program| size(&program.tables) as u64)
        };
        let warnings = program.map(|program| &program.warnings);
        let state = match (program, policy.violations.is_empty()) {
            (None, _) => PolicyState::Refused,
            (Some(_), true) => PolicyState::InForce,
            (Some(_), false) => PolicyState::Violated,
        };
        Ok(Policy {
            name: name.clone(),
            spec: PolicySpec {
                text: policy.text().as_str().to_owned(),
            },
            status: PolicyStatus {
                network: policy.network.clone(),
                vni: self.network(&policy.network)?.vni,
                state,
                text_revision: policy.present().revision,
                text_hash: policy.text().hash(),
                tables_revision: policy.tables_revision,
                table_nodes: size(|tables| tables.nodes.len()),
                leaves: size(|tables| tables.leaves.len()),
                address_prefixes: size(|tables| tables.classes.len()),
                warnings: warnings.or(refused).cloned().unwrap_or_default(),
                violations: policy.violations.clone(),
                unconfirmed: policy.unconfirmed.as_ref().map(|unconfirmed| Unconfirmed {
                    deadline_unix_ms: unconfirmed.deadline_unix_ms,
                    fallback_revision: unconfirmed.fallback.as_ref().map(|text| text.revision),
                }),
                staged: policy.staged.as_ref().map(|staged| StagedSummary {
                    revision: staged.revision,
                    text_hash: staged.text.hash(),
                }),
            },
            revision: policy.revision,
        })
    }

    /// A policy's candidate, without what agents have counted.
    ///
    /// # Errors
    /// There is no policy of this name, or it has no candidate.
    pub fn staged_view(&self, name: &Name) -> Result<StagedPolicy, Refusal> {
        let candidate = self.staged_text(name)?;
        let program = self.staged.get(&self.policy(name)?.network);
        let warnings = match program {
            Some(program) => Some(&program.warnings),
            None => self.staged_refused.get(name).map(|findings| &findings.0),
        };
        Ok(StagedPolicy {
            revision: candidate.revision,
            text: candidate.text.as_str().to_owned(),
            text_hash: candidate.text.hash(),
            tables_revision: candidate.tables_revision,
            compiles: program.is_some(),
            warnings: warnings.cloned().unwrap_or_default(),
            audit: Vec::new(),
            reporting_nodes: Vec::new(),
            refusing_nodes: Vec::new(),
        })
    }

    /// A text that a policy had.
    ///
    /// # Errors
    /// There is no policy of this name, or it does not keep this revision.
    pub fn policy_revision_view(
        &self,
        name: &Name,
        revision: u64,
    ) -> Result<PolicyRevision, Refusal> {
        self.policy_text(name, revision).map(revision_view)
    }

    /// The texts that a policy had after a revision: so many, and whether there are more.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn policy_history(
        &self,
        name: &Name,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<PolicyRevision>, bool), Refusal> {
        let history = self.policy(name)?.history.iter();
        let mut rest = history.filter(|item| item.revision > after);
        let items = rest.by_ref().take(limit).map(revision_view).collect();
        Ok((items, rest.next().is_some()))
    }
}

fn revision_view(item: &TextRevision) -> PolicyRevision {
    PolicyRevision {
        revision: item.revision,
        text: item.text.as_str().to_owned(),
        text_hash: item.text.hash(),
        reason: item.reason(),
        rolled_back_to: item.rolled_back_to,
        at_unix_ms: item.note.at_unix_ms,
        author: item.note.author.clone(),
        comment: item.note.comment.clone(),
    }
}
