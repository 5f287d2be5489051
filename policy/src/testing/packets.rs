//! Random packets: such as can exist on a wire, and arbitrary records of fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use crate::address::Address;
use crate::environment::{Endpoint, Environment};
use crate::packet::Packet;

/// Ports that policies test and their neighbours, and a few others.
pub(super) const PORTS: [u16; 12] = [0, 22, 53, 79, 80, 81, 443, 1023, 1024, 5432, 7000, 65535];
/// DSCP values of the pool.
pub(super) const DSCPS: [u8; 4] = [0, 10, 20, 63];

/// Packets as endpoints of `network` send them: IPv4 and IPv6 with TCP, UDP, ICMP or another
/// protocol from the endpoint's own addresses, and frames of other EtherTypes.
///
/// # Panics
/// When the network has no endpoint with an address.
pub fn packets(environment: &Environment, network: &str) -> impl Strategy<Value = Packet> + use<> {
    let senders: Vec<Endpoint> = environment
        .endpoints
        .iter()
        .filter(|e| e.network == network && !e.addresses.is_empty())
        .cloned()
        .collect();
    assert!(
        !senders.is_empty(),
        "network {network} has no endpoint with an address"
    );
    let nodes: Vec<u32> = environment
        .nodes
        .iter()
        .map(|n| n.number)
        .chain([1])
        .collect();
    let receivers = senders.clone();
    (
        select(senders),
        select(receivers),
        select(nodes),
        0..20u8,
        any::<[u8; 4]>(),
        ports(),
        ports(),
    )
        .prop_map(
            |(sender, receiver, node, shape, random, src_port, dst_port)| {
                let mut packet = Packet {
                    port: sender.number,
                    node,
                    eth_src: sender.mac_number(),
                    eth_dst: if random[0] < 32 {
                        0xffff_ffff_ffff
                    } else {
                        receiver.mac_number()
                    },
                    ..Packet::default()
                };
                if shape == 0 {
                    packet.eth_type = [0x0806, 0x88cc, 0x88b5][usize::from(random[1] % 3)];
                    return packet;
                }
                let source = sender.addresses[usize::from(random[1]) % sender.addresses.len()];
                let known = receiver
                    .addresses
                    .iter()
                    .find(|a| a.is_ipv4() == source.is_ipv4());
                packet.src = source.into();
                packet.dst = match (known, random[2] % 4) {
                    (Some(known), 1..) => (*known).into(),
                    _ => elsewhere(source, random[3]).into(),
                };
                packet.eth_type = if source.is_ipv4() { 0x0800 } else { 0x86dd };
                packet.dscp = DSCPS[usize::from(random[3]) % DSCPS.len()];
                match shape {
                    1..=9 => packet.protocol = 6,
                    10..=14 => packet.protocol = 17,
                    15..=17 => {
                        packet.protocol = if source.is_ipv4() { 1 } else { 58 };
                        packet.icmp_type = [0, 8, 3, 128, 129][usize::from(random[0] % 5)];
                        packet.icmp_code = random[1] % 2;
                    }
                    _ => packet.protocol = 47,
                }
                if matches!(packet.protocol, 6 | 17) {
                    packet.src_port = src_port;
                    packet.dst_port = dst_port;
                }
                packet
            },
        )
}

/// Arbitrary records of fields from small pools, also such that no wire carries: what the laws of
/// the language have to hold for.
pub fn records(environment: &Environment, network: &str) -> impl Strategy<Value = Packet> + use<> {
    let addresses: Vec<Address> = environment
        .endpoints
        .iter()
        .filter(|e| e.network == network)
        .flat_map(|e| e.addresses.iter().copied().map(Address::from))
        .chain([
            Address::None,
            elsewhere(Ipv4Addr::UNSPECIFIED.into(), 7).into(),
        ])
        .collect();
    let wire = packets(environment, network);
    (
        wire,
        select(addresses.clone()),
        select(addresses),
        select(&DSCPS[..]),
        ports(),
        0..4u8,
    )
        .prop_map(|(mut packet, src, dst, dscp, port, protocol)| {
            packet.src = src;
            packet.dst = dst;
            packet.dscp = dscp;
            packet.src_port = port;
            packet.protocol = [6, 17, 1, 58][usize::from(protocol)];
            // What is set before the policy goes with the rest: its values are few.
            packet.connection = (port % 3) as u8;
            packet.bucket = u32::from(port.wrapping_mul(40_503)) % crate::field::bucket::SLOTS;
            packet.token = (port >> 4) as u8 & 1;
            packet
        })
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![9 => select(&PORTS[..]), 1 => any::<u16>()]
}

/// An address outside of the test network, or at its edge.
fn elsewhere(like: IpAddr, random: u8) -> IpAddr {
    let index = usize::from(random);
    if like.is_ipv4() {
        let pool = [
            [8, 8, 8, 8],
            [10, 20, 255, 255],
            [10, 21, 0, 0],
            [203, 0, 113, 10],
        ];
        Ipv4Addr::from(pool[index % pool.len()]).into()
    } else {
        let pool: [u128; 3] = [
            0x2001_0db8 << 96 | 1,
            0xfd00_0014 << 96 | 0xffff,
            0xfd00_0014_0000_0001 << 64,
        ];
        Ipv6Addr::from(pool[index % pool.len()]).into()
    }
}
