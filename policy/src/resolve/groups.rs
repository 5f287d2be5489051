//! Who sends and receives, in assertions and tests: values as groups of endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::addresses::View;
use super::{Resolver, Scope};
use crate::address::{AddressSet, Family, Prefix, number};
use crate::ast::{Value, ValueKind};
use crate::claim::{Group, Member};
use crate::diagnostic::Code;
use crate::environment::Endpoint;

impl<'d> Resolver<'d> {
    /// The group that a value means: its endpoints, and the Internet when that belongs to it.
    pub(super) fn group(&mut self, value: &'d Value) -> Option<Group> {
        let name = value.to_string();
        if self.has_no_subnet() {
            // What an endpoint without addresses sends and gets is not known to the questions.
            self.sink
                .report(
                    Code::NotSupported,
                    value.span,
                    "who reaches whom cannot be asserted in a network without subnet",
                )
                .hint("tests (`test \"...\" { ... }`) and comparisons (`assert p <= q`) can be");
            return None;
        }
        if let Some(other) = self.other_network(value) {
            let endpoints = self.environment.endpoints.iter();
            let members = endpoints
                .filter(|e| e.network == other)
                .map(member)
                .collect();
            let mut group = group_of(name, members, Vec::new(), None);
            group.is_apart = self.peer(other).is_none();
            return Some(group);
        }
        let before = self.sink.error_count();
        let addresses = self.addresses(value, &Scope::default(), View::Both);
        if self.sink.error_count() != before {
            return None;
        }
        let network = self.network?;
        let listed = Covered::new(&addresses.listed.prefixes);
        let endpoints = self.environment.endpoints.iter();
        let members: Vec<Member> = endpoints
            .filter(|e| e.network == network.name || network.peers.contains(&e.network))
            .filter_map(|endpoint| {
                let mut member = member(endpoint);
                member.addresses.retain(|address| listed.contains(*address));
                (!member.addresses.is_empty()).then_some(member)
            })
            .collect();
        let outside = addresses.internet.then(|| AddressSet {
            identity: format!("internet of {:?}", network.name),
            prefixes: self.inside(network),
            complement: true,
            ..AddressSet::default()
        });
        let owned: BTreeSet<IpAddr> = members.iter().flat_map(|m| m.addresses.clone()).collect();
        let hosts = addresses.listed.prefixes.iter();
        let unowned = hosts
            .filter(|prefix| prefix.length == prefix.family.bits())
            .map(|prefix| prefix.family.address(prefix.first))
            .filter(|address| !owned.contains(address))
            .collect();
        Some(group_of(name, members, unowned, outside))
    }

    /// The network that a bare name means, when it is not the policy's own.
    fn other_network(&self, value: &Value) -> Option<&'d str> {
        let ValueKind::Name(name) = &value.kind else {
            return None;
        };
        let own = self.network.is_some_and(|n| n.name == *name);
        if own || self.sets.contains_key(name.as_str()) {
            return None;
        }
        let networks = &self.environment.networks;
        let named_so = self.environment.endpoints.iter().any(|e| e.name == *name);
        let found = networks.iter().find(|n| n.name == *name)?;
        (!named_so).then_some(&found.name)
    }
}

pub(super) fn member(endpoint: &Endpoint) -> Member {
    Member {
        name: endpoint.name.clone(),
        number: endpoint.number,
        addresses: endpoint.addresses.clone(),
        mac: endpoint.mac_number(),
    }
}

fn group_of(
    name: String,
    members: Vec<Member>,
    unowned: Vec<IpAddr>,
    outside: Option<AddressSet>,
) -> Group {
    let hosts = members.iter().flat_map(|m| &m.addresses);
    let prefixes: BTreeSet<Prefix> = hosts.map(|address| Prefix::new(*address, 128)).collect();
    Group {
        addresses: AddressSet {
            identity: format!("members of {name:?}"),
            prefixes: prefixes.into_iter().collect(),
            ..AddressSet::default()
        },
        name,
        members,
        unowned,
        outside,
        is_apart: false,
    }
}

/// The addresses that prefixes cover, for quick look-ups.
struct Covered(Vec<(Family, u128, u128)>);

impl Covered {
    fn new(prefixes: &[Prefix]) -> Self {
        let mut ranges: Vec<_> = prefixes
            .iter()
            .map(|p| (p.family, p.first, p.last()))
            .collect();
        ranges.sort_unstable();
        // Prefixes nest or are apart: those inside another are dropped.
        let mut kept: Vec<(Family, u128, u128)> = Vec::new();
        for (family, first, last) in ranges {
            match kept.last() {
                Some((of, _, end)) if *of == family && last <= *end => {}
                _ => kept.push((family, first, last)),
            }
        }
        Covered(kept)
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (family, number) = number(address);
        let behind = self
            .0
            .partition_point(|(of, first, _)| (*of, *first) <= (family, number));
        behind.checked_sub(1).is_some_and(|at| {
            let (of, _, last) = self.0[at];
            of == family && number <= last
        })
    }
}
