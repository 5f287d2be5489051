//! Products of values in the words of the policies.

use std::collections::{BTreeMap, HashMap};

use super::{MAX_NAMED, Range, Translation};
use crate::address::Address;
use crate::environment::{Endpoint, Environment};
use crate::field::Field;
use crate::show::show_number;
use crate::term::Resolved;
use crate::verify::cubes::Cube;
use crate::verify::program::{Domain, Kind, Node, Value};

/// Names of sets of addresses.
pub(super) struct Names {
    /// By the ranges of a set: its name, the shortest that there is.
    sets: HashMap<Vec<Range>, String>,
    /// By single address: the endpoint that has it.
    hosts: BTreeMap<Value, String>,
    /// By the numbers of endpoints: the name of the set that has just these.
    groups: HashMap<Vec<u32>, String>,
}

impl Names {
    /// The names that the sets of policies have.
    pub(super) fn new<'p>(
        to: &mut Translation,
        policies: impl Iterator<Item = &'p Resolved>,
    ) -> Self {
        let mut names = Names {
            sets: HashMap::new(),
            hosts: BTreeMap::new(),
            groups: HashMap::new(),
        };
        for policy in policies {
            for set in &policy.sets {
                let Some(name) = name_of(&set.identity) else {
                    continue;
                };
                let node = to.address(Field::Source, set);
                let ranges = match to.program.node(node) {
                    Node::Test(_, set) => to.program.set(*set).to_vec(),
                    _ => continue,
                };
                for family in [None, Some(Kind::V4), Some(Kind::V6)] {
                    let mut part = ranges.clone();
                    part.retain(|(first, _)| family.is_none_or(|kind| first.kind == kind));
                    if !part.is_empty() {
                        names.add(part, name.clone());
                    }
                }
            }
        }
        names
    }

    fn add(&mut self, ranges: Vec<Range>, name: String) {
        let known = self.sets.entry(ranges).or_insert_with(|| name.clone());
        if (name.len(), &name) < (known.len(), known) {
            *known = name;
        }
    }

    /// The names of the endpoints of a network, and of the groups that they are in.
    pub(super) fn endpoints(&mut self, environment: &Environment, network: &str) {
        let own = environment
            .endpoints
            .iter()
            .filter(|e| e.network == network);
        let own: Vec<&Endpoint> = own.collect();
        for endpoint in &own {
            for address in &endpoint.addresses {
                let value = Value::address(Address::from(*address));
                self.hosts.insert(value, endpoint.name.clone());
            }
        }
        for (ranges, name) in &self.sets {
            let inside = own.iter().filter(|e| {
                let mut addresses = e.addresses.iter();
                addresses.any(|address| super::within(ranges, *address))
            });
            let mut numbers: Vec<u32> = inside.map(|e| e.number).collect();
            numbers.sort_unstable();
            let known = self.groups.entry(numbers).or_insert_with(|| name.clone());
            if (name.len(), name) < (known.len(), known) {
                known.clone_from(name);
            }
        }
    }

    /// A product in words: the fields that it restricts.
    pub(super) fn describe(&self, to: &Translation, cube: &Cube) -> String {
        let mut words = Vec::new();
        let mut ports = Vec::new();
        let mut protocol = None;
        for (id, ranges) in &cube.fields {
            let Some(field) = to.packet_field(*id) else {
                continue;
            };
            match field {
                Field::Source => words.push(format!("from {}", self.addresses(ranges))),
                Field::Destination => words.push(format!("to {}", self.addresses(ranges))),
                Field::Protocol => protocol = Some(protocols(ranges)),
                Field::SourcePort => ports.push(format!("src port {}", numbers(field, ranges))),
                Field::DestinationPort => {
                    ports.push(format!("dst port {}", numbers(field, ranges)));
                }
                _ => ports.push(format!("{} {}", field.name(), numbers(field, ranges))),
            }
        }
        let all: Vec<String> = protocol.into_iter().chain(words).chain(ports).collect();
        match all.is_empty() {
            true => "every packet".to_owned(),
            false => all.join(", "),
        }
    }

    fn addresses(&self, ranges: &[Range]) -> String {
        if let Some(name) = self.sets.get(ranges) {
            return name.clone();
        }
        let rest = Domain::Address.complement(ranges);
        if let Some(name) = self.sets.get(&rest) {
            return format!("outside {name}");
        }
        let hosts: Option<Vec<&str>> = ranges
            .iter()
            .map(|(first, last)| {
                let host = self.hosts.get(first).filter(|_| first == last)?;
                Some(host.as_str())
            })
            .collect();
        if let Some(mut hosts) = hosts {
            hosts.dedup();
            return shortened(&hosts);
        }
        let shown = Domain::Address.show_ranges(ranges);
        let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
        shortened(&shown)
    }

    /// Endpoints by the name of a set that has just these, or by their own.
    pub(super) fn group(&self, endpoints: &[&Endpoint]) -> String {
        let mut numbers: Vec<u32> = endpoints.iter().map(|e| e.number).collect();
        numbers.sort_unstable();
        if let Some(name) = self.groups.get(&numbers) {
            return name.clone();
        }
        let mut names: Vec<&str> = endpoints.iter().map(|e| e.name.as_str()).collect();
        names.sort_unstable();
        shortened(&names)
    }
}

/// The first few of many.
fn shortened(all: &[&str]) -> String {
    match all.len() {
        0..=MAX_NAMED => all.join(", "),
        count => format!(
            "{} and {} more",
            all[..MAX_NAMED].join(", "),
            count - MAX_NAMED
        ),
    }
}

/// The name in the identity of a set, when it has one that people wrote.
fn name_of(identity: &str) -> Option<String> {
    for (prefix, name) in [
        ("set ", None),
        ("endpoint ", None),
        ("network ", None),
        ("internet of ", Some("internet")),
    ] {
        if let Some(rest) = identity.strip_prefix(prefix) {
            return Some(name.map_or_else(|| rest.trim_matches('"').to_owned(), str::to_owned));
        }
    }
    let plain = !identity.starts_with(['{', 'V']) && !identity.contains(" of ");
    plain.then(|| identity.to_owned())
}

fn protocols(ranges: &[Range]) -> String {
    match ranges {
        [(first, last)] if first == last => match first.number {
            6 => "tcp".to_owned(),
            17 => "udp".to_owned(),
            1 => "icmp4".to_owned(),
            58 => "icmp6".to_owned(),
            number => format!("protocol {number}"),
        },
        _ => format!("protocol {}", numbers(Field::Protocol, ranges)),
    }
}

fn numbers(field: Field, ranges: &[Range]) -> String {
    let show = |value: Value| show_number(field, value.number as u64);
    let shown: Vec<String> = ranges
        .iter()
        .map(|(first, last)| {
            if first == last {
                show(*first)
            } else {
                format!("{}-{}", show(*first), show(*last))
            }
        })
        .collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    shortened(&shown)
}
