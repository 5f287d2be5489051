//! Tests in the language: names resolved, packets made.

use std::net::IpAddr;

use super::{Resolver, Scope};
use crate::address::{Address, AddressSet};
use crate::ast::{Expected, Test, TestCase, Value, Word};
use crate::claim::{Expectation, Group, PacketCase, PacketTest};
use crate::diagnostic::{Code, Span};
use crate::field::{Field, Subject};
use crate::packet::Packet;

/// Packets that one case may stand for.
const MAX_PACKETS: usize = 10_000;

impl<'d> Resolver<'d> {
    pub(super) fn test_block(&mut self, test: &'d Test, span: Span) {
        let cases: Vec<_> = test.cases.iter().map(|case| self.test_case(case)).collect();
        if let Some(cases) = cases.into_iter().collect() {
            self.tests.push(PacketTest {
                name: test.name.clone(),
                span,
                cases,
            });
        }
    }

    fn test_case(&mut self, case: &'d TestCase) -> Option<PacketCase> {
        let (from, to) = (self.group(&case.from), self.group(&case.to));
        let mut template = Packet::default();
        let mut complete = self.protocol(case, &mut template).is_some();
        for (subject, value) in &case.fields {
            complete &= self.set_field(&mut template, *subject, value).is_some();
        }
        let expected = match &case.expected {
            Expected::Drop(label) => Some(Expectation::Drop(label.clone())),
            Expected::Forward(None, label) => Some(Expectation::Forward(None, label.clone())),
            Expected::Forward(Some(to), label) => {
                let group = self.group(to);
                group.map(|group| Expectation::Forward(Some(group.members), label.clone()))
            }
        };
        let (from, to) = (from?, to?);
        if !complete {
            return None;
        }
        let packets = packets(&from, &to, &template);
        if packets.is_empty() {
            self.sink
                .report(
                    Code::WrongKind,
                    case.span,
                    format!(
                        "no packet goes from `{}` to `{}`: they have no addresses of one family",
                        from.name, to.name
                    ),
                )
                .hint("write endpoints, sets of them, or `internet`");
            return None;
        }
        if packets.len() > MAX_PACKETS {
            self.sink
                .report(
                    Code::ValueOutOfRange,
                    case.span,
                    format!("this case stands for more than {MAX_PACKETS} packets"),
                )
                .hint("prove it with `assert reach(…)` or `assert isolated(…)`");
            return None;
        }
        Some(PacketCase {
            packets,
            expected: expected?,
            span: case.span,
        })
    }

    /// Protocol and destination port; an ICMP packet is an echo request.
    fn protocol(&mut self, case: &'d TestCase, packet: &mut Packet) -> Option<()> {
        let (protocol, port) = match case.protocol {
            None => (0, 0),
            Some(Word::Udp | Word::Dns) => (
                17,
                if case.protocol == Some(Word::Dns) {
                    53
                } else {
                    0
                },
            ),
            Some(Word::Icmp | Word::Icmp4) => (1, 0),
            Some(Word::Icmp6) => (58, 0),
            Some(Word::Http) => (6, 80),
            Some(Word::Https) => (6, 443),
            Some(Word::Ssh) => (6, 22),
            Some(_) => (6, 0),
        };
        if case.protocol == Some(Word::Arp) {
            packet.eth_type = 0x0806;
            return Some(());
        }
        packet.protocol = protocol;
        packet.dst_port = port;
        if matches!(protocol, 6 | 17) {
            // Clients send from an ephemeral port (RFC 6056).
            packet.src_port = 49_152;
        }
        match &case.port {
            Some(port) => {
                let number = self.one_number(Field::DestinationPort, port, &Scope::default())?;
                packet.dst_port = number as u16;
            }
            None => return Some(()),
        }
        if !matches!(protocol, 6 | 17) {
            self.sink
                .report(Code::WrongKind, case.span, "only TCP and UDP have ports")
                .hint("write `tcp 80` or `udp 53`");
            return None;
        }
        Some(())
    }

    fn set_field(&mut self, packet: &mut Packet, subject: Subject, value: &'d Value) -> Option<()> {
        let field = subject.field();
        if matches!(field, Field::Source | Field::Destination) {
            let address = self.one_address(subject, value, &Scope::default())?;
            packet.set_address(field, address.into());
        } else {
            let number = self.one_number(field, value, &Scope::default())?;
            packet.set_number(field, number);
        }
        Some(())
    }
}

/// A packet from every sender to every receiver, for each family that both have.
fn packets(from: &Group, to: &Group, template: &Packet) -> Vec<Packet> {
    let mut out = Vec::new();
    for (port, eth_src, source) in senders(from) {
        for (eth_dst, destination) in receivers(to) {
            if source.is_ipv4() != destination.is_ipv4() {
                continue;
            }
            let mut packet = *template;
            if template.port == 0 {
                packet.port = port;
            }
            packet.eth_src = eth_src;
            packet.eth_dst = eth_dst;
            if packet.eth_type == 0x0806 {
                packet.protocol = 0;
            } else {
                packet.eth_type = if source.is_ipv4() { 0x0800 } else { 0x86dd };
                if template.src == Address::None {
                    packet.src = source.into();
                }
                if template.dst == Address::None {
                    packet.dst = destination.into();
                }
                packet.protocol = match packet.protocol {
                    1 if source.is_ipv6() => 58,
                    other => other,
                };
                if packet.icmp_type == 0 {
                    packet.icmp_type = match packet.protocol {
                        1 => 8,
                        58 => 128,
                        _ => 0,
                    };
                }
            }
            out.push(packet);
            if out.len() > MAX_PACKETS {
                return out;
            }
        }
    }
    out
}

/// Port, MAC address and address of every sender.
fn senders(group: &Group) -> Vec<(u32, u64, IpAddr)> {
    let inside = group.members.iter().flat_map(|member| {
        let addresses = member.addresses.iter();
        addresses.map(|address| (member.number, member.mac, *address))
    });
    let outside = group.outside.iter().flat_map(strangers);
    inside
        .chain(outside.map(|address| (0, 0, address)))
        .collect()
}

/// MAC address and address of every receiver.
fn receivers(group: &Group) -> Vec<(u64, IpAddr)> {
    let inside = group.members.iter().flat_map(|member| {
        let addresses = member.addresses.iter();
        addresses.map(|address| (member.mac, *address))
    });
    let outside = group.outside.iter().flat_map(strangers);
    let elsewhere = group.unowned.iter().copied().chain(outside);
    inside
        .chain(elsewhere.map(|address| (0, address)))
        .collect()
}

/// An address of each family outside the network: the first of those for documentation (RFC 5737,
/// RFC 3849) and for benchmarks (RFC 2544) that is.
fn strangers(outside: &AddressSet) -> Vec<IpAddr> {
    let candidates: [&[&str]; 2] = [
        &["203.0.113.1", "198.51.100.1", "192.0.2.1", "198.18.0.1"],
        &["2001:db8::1", "2001:db8:ffff::1", "3fff::1"],
    ];
    let family = |texts: &[&str]| {
        texts
            .iter()
            .filter_map(|text| text.parse::<IpAddr>().ok())
            .find(|address| outside.contains((*address).into()))
    };
    candidates
        .iter()
        .filter_map(|texts| family(texts))
        .collect()
}
