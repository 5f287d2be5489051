//! What the names in a policy mean: from the controller, from a lab's topology, or, when there is
//! neither, from the text itself.
//!
//! What a text alone says is read in [`assumed`](super::assumed).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use sunwire_api::client::Client;
use sunwire_api::{Cidr, Name, NetworkEnforcement, Policy};
use sunwire_lab::topology::CONTROLLER;
use sunwire_policy::environment::{Endpoint, Environment, Network, Node};

use super::NamesFrom;
use super::assumed;
use crate::lab;
use crate::rest::Connection;

/// What names mean, and how well that is known.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// What names mean.
    pub(super) environment: Environment,
    /// What was assumed to exist: names, with the addresses that they were given.
    pub(super) assumed: Vec<String>,
    /// Whether the endpoints are all there are: who owns an address can then be told.
    pub(super) is_known: bool,
}

impl Surroundings {
    /// Of a topology when one is named, else of the controller when one is, else of the texts; names
    /// mean the same in all of them.
    pub(super) fn find(
        connection: &Connection,
        names: &NamesFrom,
        texts: &[&str],
    ) -> anyhow::Result<Self> {
        let environment = match &names.topology {
            Some(file) => of_topology(file)?,
            None if connection.is_named() => connection.run(of_controller)?,
            None => {
                let (environment, assumed) = assumed::by(texts);
                return Ok(Surroundings {
                    environment,
                    assumed,
                    is_known: false,
                });
            }
        };
        Ok(Surroundings {
            environment,
            assumed: Vec::new(),
            is_known: true,
        })
    }

    /// Lists on standard error what was assumed, so that nobody takes an answer for more than it is.
    pub(super) fn tell_assumed(&self) {
        if !self.assumed.is_empty() {
            let assumed = self.assumed.join(", ");
            eprintln!("assumed to exist, as neither --topology nor --server says it: {assumed}");
        }
    }
}

fn of_controller(client: &Client) -> anyhow::Result<Environment> {
    let networks = client.networks()?;
    // Texts of policies matter where packets cross from one network to another.
    let policies = match networks.iter().all(|network| network.spec.peers.is_empty()) {
        true => Vec::new(),
        false => client.policies()?,
    };
    let text = |name: &Name| {
        let governs = |policy: &&Policy| policy.status.network == *name;
        let policy = policies.iter().find(governs)?;
        Some(Arc::from(policy.spec.text.as_str()))
    };
    let networks = networks.into_iter().map(|network| Network {
        peers: network.spec.peers.iter().map(Name::to_string).collect(),
        enforced: network.spec.enforce == NetworkEnforcement::Both,
        policy: match network.spec.peers.is_empty() {
            true => None,
            false => text(&network.name),
        },
        name: network.name.to_string(),
        vni: network.spec.vni.get(),
        subnets: network
            .spec
            .subnets
            .iter()
            .map(|subnet| (subnet.address(), subnet.prefix()))
            .collect(),
    });
    let endpoints = client.endpoints()?.into_iter().map(|endpoint| Endpoint {
        name: endpoint.name.to_string(),
        number: endpoint.status.number,
        network: endpoint.spec.network.to_string(),
        addresses: endpoint.spec.addresses,
        mac: endpoint.spec.mac.0,
        labels: endpoint.spec.labels,
    });
    let nodes = client.nodes()?.into_iter().map(|node| Node {
        name: node.name.to_string(),
        number: node.status.number,
    });
    Ok(Environment {
        networks: networks.collect(),
        endpoints: endpoints.collect(),
        nodes: nodes.collect(),
    })
}

fn of_topology(file: &Path) -> anyhow::Result<Environment> {
    let topology = lab::topology(file)?;
    let mut networks: BTreeMap<&str, BTreeSet<Cidr>> = BTreeMap::new();
    let mut endpoints = Vec::new();
    for (workload, number) in topology.workloads().iter().zip(1..) {
        let subnets = networks.entry(&workload.network).or_default();
        for address in &workload.addresses {
            subnets.extend(Cidr::containing(address.ip, address.prefix_length));
        }
        endpoints.push(Endpoint {
            name: workload.name.clone(),
            number,
            network: workload.network.clone(),
            addresses: workload
                .addresses
                .iter()
                .map(|address| address.ip)
                .collect(),
            mac: workload.effective_mac().0,
            labels: workload.labels.clone(),
        });
    }
    if networks.is_empty() {
        bail!("{} has no workloads, and so no networks", file.display());
    }
    let networks = networks.into_iter().zip(1..);
    let agents = topology
        .nodes()
        .iter()
        .filter(|node| node.name != CONTROLLER);
    Ok(Environment {
        networks: networks
            .map(|((name, subnets), vni)| Network {
                name: name.to_owned(),
                vni,
                subnets: subnets.iter().map(|s| (s.address(), s.prefix())).collect(),
                ..Network::default()
            })
            .collect(),
        endpoints,
        nodes: agents
            .zip(1..)
            .map(|(node, number)| Node {
                name: node.name.clone(),
                number,
            })
            .collect(),
    })
}
