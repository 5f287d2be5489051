//! The packets that a claim speaks of: what networks carry, who sends it, who gets it.

use std::collections::BTreeSet;

use super::translate::Translation;
use crate::address::{AddressSet, Prefix};
use crate::claim::Group;
use crate::field::{Connection, Field, OWNER};
use crate::term::{Pred, Resolved};
use crate::verify::program::{Domain, FieldId, Kind, NodeId, Value};

const IPV4: u64 = 0x0800;
const IPV6: u64 = 0x86dd;

/// Packets as networks carry them: fields that their headers lack are zero, both addresses are of
/// the family that the EtherType says, and there is no VLAN tag.
pub(crate) fn well_formed(to: &mut Translation) -> NodeId {
    let tags =
        [Field::VlanId, Field::VlanPriority, Field::Translated].map(|field| to.equals(field, 0));
    let family = |to: &mut Translation, ether_type, kind| {
        [
            to.equals(Field::EtherType, ether_type),
            to.kind(Field::Source, kind),
            to.kind(Field::Destination, kind),
        ]
    };
    let v4 = family(to, IPV4, Kind::V4);
    let v4 = to.program.sequence(v4);
    let v6 = family(to, IPV6, Kind::V6);
    let v6 = to.program.sequence(v6);
    let ip = to.program.union([v4, v6]);
    let zero = |to: &mut Translation, fields: &[Field]| {
        let tests: Vec<NodeId> = fields.iter().map(|field| to.equals(*field, 0)).collect();
        to.program.sequence(tests)
    };
    let no_icmp = zero(to, &[Field::IcmpType, Field::IcmpCode]);
    let no_ports = zero(to, &[Field::SourcePort, Field::DestinationPort]);
    let ported = to.number(Field::Protocol, &[(6, 6), (17, 17)]);
    let icmp = to.number(Field::Protocol, &[(1, 1), (58, 58)]);
    let neither = to.program.sequence([no_icmp, no_ports]);
    let transport = to
        .program
        .conditional([(ported, no_icmp), (icmp, no_ports)], neither);
    let ip = to.program.sequence([ip, transport]);
    let ether_types = to.number(Field::EtherType, &[(IPV4, IPV4), (IPV6, IPV6)]);
    let other = [
        to.program.not(ether_types),
        to.kind(Field::Source, Kind::Nothing),
        to.kind(Field::Destination, Kind::Nothing),
        zero(to, &[Field::Protocol, Field::Dscp]),
        neither,
    ];
    let other = to.program.sequence(other);
    let frame = to.program.union([ip, other]);
    let parts: Vec<NodeId> = tags.into_iter().chain([frame]).collect();
    to.program.sequence(parts)
}

/// First packets of connections, that rate limits admit.
pub(crate) fn initiating(to: &mut Translation) -> NodeId {
    let new = to.equals(Field::Connection, Connection::New as u64);
    let admitted = to.equals(Field::Token, 1);
    to.program.sequence([new, admitted])
}

/// What a part of a policy sends somewhere. Where the policy looks at where a packet entered, that
/// is everything that comes out.
pub(crate) fn sent(to: &mut Translation, policy: &Resolved, part: NodeId) -> NodeId {
    if tests_port(policy) {
        return part;
    }
    // What stays where it entered is not sent.
    let nowhere = to.assign(Field::Port, 0);
    let still = to.equals(Field::Port, 0);
    let somewhere = to.program.not(still);
    to.program.sequence([nowhere, part, somewhere])
}

/// Whether the policy looks at where a packet entered.
fn tests_port(policy: &Resolved) -> bool {
    // No text names the greatest number: what tests that looks at packets on their way between
    // networks.
    let on_entry = |ranges: &[(u64, u64)]| ranges.last().is_none_or(|(_, last)| *last != OWNER);
    let on_port = |predicate: &Pred| match predicate {
        Pred::Number(Field::Port, ranges) => on_entry(ranges),
        _ => false,
    };
    policy.predicates.iter().any(on_port)
}

/// Who sends, and who gets what is sent.
pub(super) struct Ends {
    /// Where a packet entered, for endpoints that send and receive: what comes out where it came
    /// in was not sent.
    entry: FieldId,
    /// Endpoints on both sides.
    both: BTreeSet<u32>,
    /// Senders are told apart by their port, as the policy does.
    exact: bool,
}

impl Ends {
    pub(super) fn new(to: &mut Translation, policy: &Resolved, from: &Group, at: &Group) -> Self {
        let entry = to.program.field("entry", Domain::Number { max: OWNER });
        let both: BTreeSet<u32> = from
            .numbers()
            .intersection(&at.numbers())
            .copied()
            .collect();
        Ends {
            entry,
            exact: tests_port(policy) || !both.is_empty(),
            both,
        }
    }

    /// What the members of a group send: packets from their own addresses, where they are. Packets
    /// from the Internet enter at no endpoint.
    pub(super) fn sent(&self, to: &mut Translation, group: &Group) -> NodeId {
        if group.is_apart {
            // What it sends comes before another policy.
            return to.program.drop();
        }
        let mut arms = Vec::new();
        if self.exact {
            for member in &group.members {
                let addresses = hosts(member.addresses.iter().copied());
                let port = to.equals(Field::Port, member.number.into());
                let source = self.source(to, &addresses);
                let entry = match self.both.contains(&member.number) {
                    true => member.number.into(),
                    false => 0,
                };
                let entry = to.program.assign(self.entry, Value::number(entry));
                arms.push(to.program.sequence([port, source, entry]));
            }
        } else if !group.members.is_empty() {
            let numbers: Vec<(u64, u64)> = group
                .members
                .iter()
                .map(|m| (m.number.into(), m.number.into()))
                .collect();
            let port = to.number(Field::Port, &numbers);
            let source = self.source(to, &group.addresses);
            let entry = to.program.assign(self.entry, Value::number(0));
            arms.push(to.program.sequence([port, source, entry]));
        }
        if let Some(outside) = &group.outside {
            let nowhere = to.equals(Field::Port, 0);
            let source = to.address(Field::Source, outside);
            let entry = to.program.assign(self.entry, Value::number(0));
            arms.push(to.program.sequence([nowhere, source, entry]));
        }
        to.program.union(arms)
    }

    /// From one of these addresses, or without any: frames that are no IP packets.
    fn source(&self, to: &mut Translation, addresses: &AddressSet) -> NodeId {
        let own = to.address(Field::Source, addresses);
        let none = to.kind(Field::Source, Kind::Nothing);
        to.program.union([own, none])
    }

    /// Packets to an address of a group, not from that address itself.
    pub(super) fn addressed(&self, to: &mut Translation, group: &Group) -> NodeId {
        let inside = to.address(Field::Destination, &group.addresses);
        let outside = match &group.outside {
            Some(outside) => to.address(Field::Destination, outside),
            None => to.program.drop(),
        };
        let there = to.program.union([inside, outside]);
        let mut parts = vec![there];
        let shared = group.members.iter();
        for member in shared.filter(|m| self.both.contains(&m.number)) {
            let hosts = hosts(member.addresses.iter().copied());
            let source = to.address(Field::Source, &hosts);
            let destination = to.address(Field::Destination, &hosts);
            let itself = to.program.sequence([source, destination]);
            parts.push(to.program.not(itself));
        }
        to.program.sequence(parts)
    }

    /// What has been sent to a member of a group: to the owner of an address of it, or to it by
    /// name, elsewhere than it entered.
    pub(super) fn delivered(&self, to: &mut Translation, group: &Group) -> NodeId {
        if group.is_apart {
            return to.program.drop();
        }
        let owner = to.equals(Field::Port, OWNER);
        let addressed = to.address(Field::Destination, &group.addresses);
        let mut arms = vec![to.program.sequence([owner, addressed])];
        // Without an address, the owner is whose MAC address it is.
        let none = to.kind(Field::Destination, Kind::Nothing);
        let macs: Vec<(u64, u64)> = group.members.iter().map(|m| (m.mac, m.mac)).collect();
        let mac = to.number(Field::EthDestination, &macs);
        arms.push(to.program.sequence([owner, none, mac]));
        if let Some(outside) = &group.outside {
            let addressed = to.address(Field::Destination, outside);
            arms.push(to.program.sequence([owner, addressed]));
        }
        let numbers = group.numbers();
        let from_elsewhere = to.program.test_value(self.entry, Value::number(0));
        let there = ports(to, numbers.iter().copied());
        arms.push(to.program.sequence([from_elsewhere, there]));
        for member in &self.both {
            let entered = to
                .program
                .test_value(self.entry, Value::number((*member).into()));
            let others = ports(to, numbers.iter().copied().filter(|n| n != member));
            arms.push(to.program.sequence([entered, others]));
        }
        to.program.union(arms)
    }
}

/// `port in numbers`.
pub(super) fn ports(to: &mut Translation, numbers: impl Iterator<Item = u32>) -> NodeId {
    let ranges: Vec<(u64, u64)> = numbers.map(|n| (n.into(), n.into())).collect();
    to.number(Field::Port, &ranges)
}

/// A set of single addresses.
pub(super) fn hosts(addresses: impl Iterator<Item = std::net::IpAddr>) -> AddressSet {
    AddressSet {
        prefixes: addresses.map(|a| Prefix::new(a, 128)).collect(),
        ..AddressSet::default()
    }
}
