//! What several tests need: the network of the examples, and packets in a few words.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network, Node};
use sunwire_policy::packet::{Outcome, Packet};
use sunwire_policy::term::Resolved;
use sunwire_policy::{evaluate, parse, resolve};

/// Network `shop` with `web1`, `client1` and `db1`.
pub(crate) fn shop() -> Environment {
    let endpoint = |name: &str, number: u32| Endpoint {
        name: name.to_owned(),
        number,
        network: "shop".to_owned(),
        addresses: vec![address(number, true), address(number, false)],
        mac: [2, 0, 0, 0, 0, number as u8],
        labels: BTreeMap::from([("role".to_owned(), name[..name.len() - 1].to_owned())]),
    };
    Environment {
        networks: vec![Network {
            name: "shop".to_owned(),
            vni: 100,
            subnets: vec![
                ("10.20.0.0".parse().expect("an address"), 16),
                ("fd00:20::".parse().expect("an address"), 64),
            ],
            ..Network::default()
        }],
        endpoints: vec![
            endpoint("web1", 1),
            endpoint("client1", 2),
            endpoint("db1", 3),
        ],
        nodes: vec![Node {
            name: "aws-1".to_owned(),
            number: 1,
        }],
    }
}

/// The address of the endpoint with this number.
pub(crate) fn address(number: u32, v4: bool) -> IpAddr {
    match v4 {
        true => IpAddr::from([10, 20, 0, number as u8]),
        false => IpAddr::from([0xfd00, 0x20, 0, 0, 0, 0, 0, number as u16]),
    }
}

pub(crate) const WEB: u32 = 1;
pub(crate) const CLIENT: u32 = 2;
pub(crate) const DB: u32 = 3;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// A packet from one endpoint to another.
pub(crate) fn packet(
    from: u32,
    to: u32,
    v4: bool,
    protocol: u8,
    src_port: u16,
    dst_port: u16,
) -> Packet {
    Packet {
        src: address(from, v4).into(),
        dst: address(to, v4).into(),
        port: from,
        node: 1,
        eth_type: if v4 { 0x0800 } else { 0x86dd },
        protocol,
        src_port,
        dst_port,
        eth_src: 0x0200_0000_0000 + u64::from(from),
        eth_dst: 0x0200_0000_0000 + u64::from(to),
        ..Packet::default()
    }
}

/// A policy that has to be right.
pub(crate) fn policy(text: &str) -> Resolved {
    let (document, diagnostics) = parse(text);
    assert!(
        diagnostics.iter().all(|d| !d.is_error()),
        "{}",
        render_all(&diagnostics, text)
    );
    resolve(&document, &shop()).unwrap_or_else(|d| panic!("{}", render_all(&d, text)))
}

/// What the bare policy `text` makes of a packet.
pub(crate) fn outcome(text: &str, packet: &Packet) -> Outcome {
    evaluate(&policy(text), packet).expect("few packets")
}

/// The packets that come out.
pub(crate) fn out(text: &str, packet: &Packet) -> Vec<Packet> {
    outcome(text, packet).copies.into_keys().collect()
}

/// The label of the decision.
pub(crate) fn label(text: &str, packet: &Packet) -> String {
    let policy = policy(text);
    let outcome = evaluate(&policy, packet).expect("few packets");
    policy.label(outcome.label(), outcome.copies.is_empty())
}
