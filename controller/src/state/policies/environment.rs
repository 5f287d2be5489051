//! What names in a policy's text can mean: the state as the compiler sees it.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_api::{Name, NetworkEnforcement};
use sunwire_policy::environment::{self, Environment};

use crate::state::{EndpointRecord, NodeRecord, Source, State};

/// A change whose meaning for policies is asked before it is made.
pub(in crate::state) enum Change<'a> {
    /// The endpoint is so, or gone.
    Endpoint(&'a Name, Option<&'a EndpointRecord>),
    /// The node is so, or gone.
    Node(&'a Name, Option<&'a NodeRecord>),
    /// The two networks are peered, or no more.
    Peering(&'a Name, &'a Name, bool),
    /// These nodes decide about the network's packets.
    Enforcement(&'a Name, NetworkEnforcement),
    /// The policy has this text, for this network if that can be told, or is gone.
    Text(&'a Name, Option<(Option<Name>, &'a Source)>),
}

impl Change<'_> {
    /// The peers of a network after the change.
    fn peers(&self, network: &Name, peers: &BTreeSet<Name>) -> BTreeSet<Name> {
        let mut peers = peers.clone();
        if let Change::Peering(one, other, peered) = self {
            for (one, other) in [(one, other), (other, one)] {
                if *one != network {
                    continue;
                }
                match peered {
                    true => peers.insert((*other).clone()),
                    false => peers.remove(*other),
                };
            }
        }
        peers
    }
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
            let peers = match change {
                Some(change) => change.peers(name, &network.peers),
                None => network.peers.clone(),
            };
            // Texts matter to peers alone: without any, a change of one is none of the environment.
            let text = match peers.is_empty() {
                true => None,
                false => self.text_after(name, change),
            };
            let enforce = match change {
                Some(Change::Enforcement(one, enforce)) if *one == name => *enforce,
                _ => network.enforce,
            };
            environment::Network {
                enforced: enforce == NetworkEnforcement::Both,
                name: name.to_string(),
                vni: network.vni.get(),
                subnets: subnets
                    .map(|subnet| (subnet.address(), subnet.prefix()))
                    .collect(),
                peers: peers.iter().map(Name::to_string).collect(),
                policy: text.map(|text| text.as_str().into()),
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

impl State {
    /// The text that governs a network after a change.
    fn text_after<'a>(&'a self, network: &Name, change: Option<&Change<'a>>) -> Option<&'a Source> {
        let changed = match change {
            Some(Change::Text(name, text)) => Some((*name, text.as_ref())),
            _ => None,
        };
        if let Some((_, Some((Some(governed), text)))) = &changed
            && governed == network
        {
            return Some(text);
        }
        let others = self.policies.iter();
        let mut others = others.filter(|(name, _)| changed.as_ref().is_none_or(|(c, _)| c != name));
        let found = others.find(|(_, policy)| policy.network == *network);
        found.map(|(_, policy)| policy.text())
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
