//! What names in a policy's text can mean: the state as the compiler sees it.

use std::collections::BTreeMap;

use sunwire_api::Name;
use sunwire_policy::environment::{self, Environment};

use crate::state::{EndpointRecord, NodeRecord, State};

/// A change whose meaning for policies is asked before it is made.
pub(in crate::state) enum Change<'a> {
    /// The endpoint is so, or gone.
    Endpoint(&'a Name, Option<&'a EndpointRecord>),
    /// The node is so, or gone.
    Node(&'a Name, Option<&'a NodeRecord>),
}

impl State {
    /// What names in a text can mean.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment_after(None)
    }

    /// What names in a text can mean after a change, if there is one.
    pub(super) fn environment_after(&self, change: Option<&Change<'_>>) -> Environment {
        let networks = self.networks.iter().map(|(name, network)| {
            let subnets = network.subnets.iter();
            environment::Network {
                name: name.to_string(),
                vni: network.vni.get(),
                subnets: subnets
                    .map(|subnet| (subnet.address(), subnet.prefix()))
                    .collect(),
                peers: Vec::new(),
                policy: None,
            }
        });
        let changed_endpoint = match change {
            Some(Change::Endpoint(name, record)) => Some((*name, *record)),
            _ => None,
        };
        let changed_node = match change {
            Some(Change::Node(name, record)) => Some((*name, *record)),
            _ => None,
        };
        let endpoints = with_change(&self.endpoints, changed_endpoint);
        let nodes = with_change(&self.nodes, changed_node);
        Environment {
            networks: networks.collect(),
            endpoints: endpoints
                .map(|(name, endpoint)| environment::Endpoint {
                    name: name.to_string(),
                    number: endpoint.number,
                    network: endpoint.network.to_string(),
                    addresses: endpoint.addresses.clone(),
                    mac: endpoint.mac.0,
                    labels: endpoint.labels.clone(),
                })
                .collect(),
            nodes: nodes
                .map(|(name, node)| environment::Node {
                    name: name.to_string(),
                    number: node.number,
                })
                .collect(),
        }
    }
}

/// The records, with one of them so, or gone.
fn with_change<'a, T>(
    records: &'a BTreeMap<Name, T>,
    change: Option<(&'a Name, Option<&'a T>)>,
) -> impl Iterator<Item = (&'a Name, &'a T)> {
    let changed = change.map(|(name, _)| name);
    let unchanged = records
        .iter()
        .filter(move |(name, _)| changed != Some(*name));
    let now = change.and_then(|(name, record)| record.map(|record| (name, record)));
    unchanged.chain(now)
}
