//! Packets as people write them, in messages.

use crate::address::Address;
use crate::field::{Connection, Field, OWNER};
use crate::packet::Packet;

/// A packet on one line: protocol, addresses with ports, and other fields that are not zero.
///
/// ```
/// use std::net::IpAddr;
/// use sunwire_policy::packet::Packet;
/// use sunwire_policy::show::show_packet;
///
/// let packet = Packet {
///     src: "10.20.0.1".parse::<IpAddr>().unwrap().into(),
///     dst: "10.20.0.2".parse::<IpAddr>().unwrap().into(),
///     eth_type: 0x0800,
///     protocol: 6,
///     src_port: 49152,
///     dst_port: 22,
///     ..Packet::default()
/// };
/// assert_eq!(show_packet(&packet), "tcp 10.20.0.1:49152 -> 10.20.0.2:22");
/// ```
#[must_use]
pub fn show_packet(packet: &Packet) -> String {
    let mut out = match (packet.eth_type, packet.protocol) {
        (0x0800 | 0x86dd, 6) => "tcp".to_owned(),
        (0x0800 | 0x86dd, 17) => "udp".to_owned(),
        (0x0800, 1) => format!("icmp type {} code {}", packet.icmp_type, packet.icmp_code),
        (0x86dd, 58) => format!("icmp6 type {} code {}", packet.icmp_type, packet.icmp_code),
        (0x0800 | 0x86dd, protocol) => format!("ip protocol {protocol}"),
        (0x0806, _) => "arp".to_owned(),
        (ether_type, _) => format!("frame of type {ether_type:#06x}"),
    };
    if packet.src != Address::None || packet.dst != Address::None {
        let source = end(packet.src, packet.src_port, packet.protocol);
        let destination = end(packet.dst, packet.dst_port, packet.protocol);
        out.push_str(&format!(" {source} -> {destination}"));
    } else {
        let (source, destination) = (mac(packet.eth_src), mac(packet.eth_dst));
        out.push_str(&format!(" {source} -> {destination}"));
    }
    let shown = [Field::Dscp, Field::Node, Field::VlanId, Field::VlanPriority];
    for field in shown {
        let value = packet.number(field);
        if value != 0 {
            out.push_str(&format!(", {} {value}", field.name()));
        }
    }
    let state = Connection::ALL
        .iter()
        .find(|(_, c)| *c as u8 == packet.connection && *c != Connection::New);
    if let Some((name, _)) = state {
        out.push_str(&format!(", of an {name} connection"));
    }
    out
}

/// The fields of a copy that differ from the packet, other than where it is.
#[must_use]
pub fn show_changes(packet: &Packet, copy: &Packet) -> String {
    let mut changes = Vec::new();
    for field in Field::ALL {
        match field {
            Field::Port => {}
            Field::Source | Field::Destination => {
                if packet.address(field) != copy.address(field) {
                    changes.push(format!("{} {}", field.name(), address(copy.address(field))));
                }
            }
            _ if packet.number(field) == copy.number(field) => {}
            Field::EthSource | Field::EthDestination => {
                changes.push(format!("{} {}", field.name(), mac(copy.number(field))));
            }
            _ => changes.push(format!("{} {}", field.name(), copy.number(field))),
        }
    }
    changes.join(", ")
}

fn end(at: Address, port: u16, protocol: u8) -> String {
    let ported = matches!(protocol, 6 | 17);
    match at {
        Address::V6(v6) if ported => format!("[{v6}]:{port}"),
        _ if ported => format!("{}:{port}", address(at)),
        _ => address(at),
    }
}

fn address(address: Address) -> String {
    match address {
        Address::None => "none".to_owned(),
        Address::V4(v4) => v4.to_string(),
        Address::V6(v6) => v6.to_string(),
    }
}

fn mac(number: u64) -> String {
    let bytes: Vec<String> = number.to_be_bytes()[2..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    bytes.join(":")
}

/// The value of a numeric field as people write it.
#[must_use]
pub fn show_number(field: Field, value: u64) -> String {
    match field {
        Field::EthSource | Field::EthDestination => mac(value),
        Field::EtherType => format!("{value:#06x}"),
        Field::Port if value == OWNER => "owner".to_owned(),
        Field::Connection => Connection::ALL
            .iter()
            .find(|(_, c)| *c as u64 == value)
            .map_or_else(|| value.to_string(), |(name, _)| (*name).to_owned()),
        _ => value.to_string(),
    }
}
