//! What the names in a policy mean: from the controller, from a lab's topology, or, when there is
//! neither, from the text itself.
//!
//! A text alone says which networks there are. Names that nothing defines are then taken to be
//! endpoints or nodes, as long as that makes the text whole, and are listed, so that nobody takes
//! such a check for more than it is. So are endpoints that a text names by number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use anyhow::bail;
use sunwire_api::Cidr;
use sunwire_api::client::Client;
use sunwire_lab::topology::CONTROLLER;
use sunwire_policy::ast::{Document, ItemKind, Value, ValueKind};
use sunwire_policy::diagnostic::{Code, Diagnostic};
use sunwire_policy::environment::{Endpoint, Environment, Network, Node};
use sunwire_policy::field::{Field, Subject};
use sunwire_policy::{parse, resolve};

use super::NamesFrom;
use crate::lab;
use crate::output;
use crate::rest::Connection;

/// The network of a text that names none.
const UNNAMED: &str = "default";
/// Subnets of a network whose text does not say any: those for documentation (RFC 5737, RFC 3849).
const SUBNETS: [&str; 2] = ["192.0.2.0/24", "2001:db8::/64"];

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
    /// Of a topology when one is named, else of the controller when one is, else of the text.
    pub(super) fn find(
        connection: &Connection,
        names: &NamesFrom,
        text: &str,
    ) -> anyhow::Result<Self> {
        let environment = match &names.topology {
            Some(file) => of_topology(file)?,
            None if connection.is_named() => connection.run(of_controller)?,
            None => return Ok(of_text(text)),
        };
        Ok(Surroundings {
            environment,
            assumed: Vec::new(),
            is_known: true,
        })
    }
}

fn of_controller(client: &Client) -> anyhow::Result<Environment> {
    let networks = client.networks()?.into_iter().map(|network| Network {
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
            labels: BTreeMap::new(),
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

fn of_text(text: &str) -> Surroundings {
    let (document, _) = parse(text);
    let network = network_of(&document);
    let mut assumed = Assumed {
        network: network.name.clone(),
        subnets: network.subnets.clone(),
        environment: Environment {
            networks: vec![network],
            ..Environment::default()
        },
    };
    for number in numbers_in(text) {
        assumed.add_endpoint(&format!("endpoint-{number}"), number);
    }
    let defined: BTreeSet<&str> = document.items.iter().filter_map(name_of).collect();
    let findings = loop {
        let Err(findings) = resolve(&document, &assumed.environment) else {
            break Vec::new();
        };
        let unknown: BTreeSet<&str> = findings
            .iter()
            .filter(|finding| finding.code == Code::UnknownName)
            .filter_map(|finding| named_at(text, finding))
            .filter(|name| !defined.contains(name))
            .collect();
        let mut progress = false;
        for name in unknown {
            progress |= assumed.add(name);
        }
        if !progress {
            break findings;
        }
    };
    // What did not help is taken back, so that the compiler says what is really wrong.
    let wrong: BTreeSet<&str> = findings.iter().filter_map(|f| named_at(text, f)).collect();
    assumed.forget(&wrong);
    let endpoints = assumed.environment.endpoints.iter().map(|endpoint| {
        let addresses = output::list(&endpoint.addresses);
        format!("{} ({addresses})", endpoint.name)
    });
    let nodes = assumed.environment.nodes.iter().map(|n| n.name.clone());
    Surroundings {
        assumed: endpoints.chain(nodes).collect(),
        environment: assumed.environment,
        is_known: false,
    }
}

/// Numbers that the text assigns to the field `port`. A comment may hold one too many, which does
/// no harm.
fn numbers_in(text: &str) -> BTreeSet<u32> {
    let word = |c: char| c.is_alphanumeric();
    let assigned = |(at, operator): (usize, &str)| {
        let (before, after) = (&text[..at], &text[at + operator.len()..]);
        let name = before.trim_end().rsplit(|c| !word(c)).next()?;
        let value = after.trim_start().split(|c| !word(c)).next()?;
        let is_port = Subject::named(name) == Some(Subject::Field(Field::Port));
        value.parse().ok().filter(|number| is_port && *number > 0)
    };
    text.match_indices(":=").filter_map(assigned).collect()
}

struct Assumed {
    network: String,
    subnets: Vec<(IpAddr, u8)>,
    environment: Environment,
}

impl Assumed {
    /// Makes the name an endpoint's, or when it is that already, a node's. Whether it did either.
    fn add(&mut self, name: &str) -> bool {
        let environment = &mut self.environment;
        if environment.endpoints.iter().all(|e| e.name != name) {
            let taken = environment.endpoints.iter().map(|e| e.number).max();
            let number = taken.unwrap_or(0).saturating_add(1);
            self.add_endpoint(name, number);
            return true;
        }
        if environment.nodes.iter().all(|n| n.name != name) {
            environment.nodes.push(Node {
                name: name.to_owned(),
                number: environment.nodes.len() as u32 + 1,
            });
            return true;
        }
        false
    }

    fn add_endpoint(&mut self, name: &str, number: u32) {
        let [a, b, c, d] = number.to_be_bytes();
        // The first host address is the gateway's.
        let nth = self.environment.endpoints.len() as u32 + 2;
        let addresses = self.subnets.iter().map(|(first, _)| offset(*first, nth));
        self.environment.endpoints.push(Endpoint {
            name: name.to_owned(),
            number,
            network: self.network.clone(),
            addresses: addresses.collect(),
            mac: [2, 0, a, b, c, d],
            labels: BTreeMap::new(),
        });
    }

    fn forget(&mut self, names: &BTreeSet<&str>) {
        let environment = &mut self.environment;
        let kept = |name: &String| !names.contains(name.as_str());
        environment.endpoints.retain(|e| kept(&e.name));
        environment.nodes.retain(|n| kept(&n.name));
    }
}

fn offset(address: IpAddr, by: u32) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(v4.to_bits().wrapping_add(by).into()),
        IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add(by.into()).into()),
    }
}

fn name_of(item: &sunwire_policy::ast::Item) -> Option<&str> {
    match &item.kind {
        ItemKind::Set { name, .. } | ItemKind::Policy { name, .. } => Some(&name.text),
        ItemKind::Let(definition) => Some(&definition.name.text),
        ItemKind::Network { .. } => None,
    }
}

fn network_of(document: &Document) -> Network {
    let found = document.items.iter().find_map(|item| match &item.kind {
        ItemKind::Network { name, subnets } => Some((&name.text, subnets)),
        _ => None,
    });
    let documentation = || {
        let cidrs = SUBNETS.iter().map(|text| text.parse::<Cidr>());
        cidrs
            .map(|cidr| cidr.expect("the list holds subnets"))
            .map(|cidr| (cidr.address(), cidr.prefix()))
            .collect()
    };
    match found {
        Some((name, Some(subnets))) => Network {
            name: name.clone(),
            vni: 1,
            subnets: subnets.iter().filter_map(prefix).collect(),
        },
        Some((name, None)) => Network {
            name: name.clone(),
            vni: 1,
            subnets: documentation(),
        },
        None => Network {
            name: UNNAMED.to_owned(),
            vni: 1,
            subnets: documentation(),
        },
    }
}

fn prefix(value: &Value) -> Option<(IpAddr, u8)> {
    match value.kind {
        ValueKind::Prefix(address, length) => Some((address, length)),
        _ => None,
    }
}

/// The name that a finding is about.
fn named_at<'t>(text: &'t str, finding: &Diagnostic) -> Option<&'t str> {
    let span = finding.span.start as usize..finding.span.end as usize;
    let name = text.get(span)?.trim_matches('"');
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}
