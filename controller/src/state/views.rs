//! The state as clients see it. Nodes are missing: what is known of their agents is not agreed,
//! and lives with the streams.

use sunwire_api::{
    Endpoint, EndpointSpec, EndpointState, EndpointStatus, Name, Network, NetworkSpec,
    NetworkStatus, Policy, PolicyHistory, PolicyRevision, PolicySpec, PolicyStatus,
};

use super::networks::GATEWAY_MAC;
use super::{EndpointRecord, State};
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
            },
            status: NetworkStatus {
                gateways: network.gateways().collect(),
                gateway_mac: GATEWAY_MAC,
                endpoints: u32::try_from(endpoints.count()).expect("endpoints have 32-bit numbers"),
                policy: self
                    .programs
                    .get(name)
                    .map(|program| program.policy.clone()),
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
        let program = &self.programs[&policy.network];
        Ok(Policy {
            name: name.clone(),
            spec: PolicySpec {
                text: policy.text().to_owned(),
            },
            status: PolicyStatus {
                network: policy.network.clone(),
                vni: self.network(&policy.network)?.vni,
                tables_revision: policy.tables_revision,
                table_nodes: program.tables.nodes.len() as u64,
                leaves: program.tables.leaves.len() as u64,
                address_prefixes: program.tables.classes.len() as u64,
                warnings: program.warnings.clone(),
            },
            revision: policy.revision,
        })
    }

    /// The texts that a policy had.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn policy_history(&self, name: &Name) -> Result<PolicyHistory, Refusal> {
        let history = self.policy(name)?.history.iter();
        Ok(PolicyHistory {
            items: history
                .map(|item| PolicyRevision {
                    revision: item.revision,
                    text: item.text.clone(),
                    rolled_back_to: item.rolled_back_to,
                })
                .collect(),
        })
    }
}
