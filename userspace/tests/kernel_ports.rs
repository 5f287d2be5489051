//! A network with a UDP port of its own: its packets go to that port, all else stays as it is.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::net::Ipv6Addr;

use fixture::{
    devices::UNDERLAY,
    node::{TestNode, VTEP},
    wire::{OTHER_PORT, Transport, Tunnel},
};
use packets::world::{
    self, AWAY_3, DB, DB_2, GOING_7, SHOP, WEB, WEB_1, from_node, node_mac, to_node, v4, v6,
};
use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};
use sunwire_userspace::state::{Desired, Node};

const UDP: Transport = Transport::Udp(5000, 6000);

fn desired() -> Desired {
    let mut desired = world::desired();
    desired.networks.get_mut(&SHOP).unwrap().port = OTHER_PORT;
    desired
}

fn start(test: &str) -> Option<TestNode> {
    let mut node = world::start(test)?;
    node.hold_port(OTHER_PORT);
    node.apply(&desired()).unwrap();
    Some(node)
}

/// A tunnelled frame, to another port.
fn to_port(port: u16, mut frame: Vec<u8>) -> Vec<u8> {
    let at = if frame[12] == 8 { 36 } else { 56 };
    frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
    frame
}

#[test]
fn kernel_packets_of_a_network_go_to_its_port() {
    let Some(mut node) = start("kernel_packets_of_a_network_go_to_its_port") else {
        return;
    };
    for make in [v4, v6] {
        for transport in [UDP, Transport::Tcp(5000, 6000)] {
            let inner = make(WEB_1, AWAY_3, transport).bytes();
            // The second one by what is remembered of the first.
            for _ in 0..2 {
                let fate = node.send(WEB, &inner);
                let expected = to_port(OTHER_PORT, to_node(2, SHOP, &inner));
                assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)], "{fate:?}");
            }
        }
    }
    // What has moved goes on to the port that it came by.
    let inner = v4(AWAY_3, GOING_7, UDP).bytes();
    let fate = node.send(
        UNDERLAY,
        &to_port(OTHER_PORT, from_node(2, SHOP).wrap(&inner)),
    );
    let [(device, frame)] = &fate.out[..] else {
        panic!("{fate:?}");
    };
    assert_eq!(device, UNDERLAY);
    assert_eq!(frame[36..38], OTHER_PORT.to_be_bytes());
    // Without a port of its own everything is as it was.
    node.apply(&world::desired()).unwrap();
    let inner = v4(WEB_1, AWAY_3, UDP).bytes();
    let fate = node.send(WEB, &inner);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), to_node(2, SHOP, &inner))]);
}

#[test]
fn kernel_packets_to_a_port_that_the_node_holds_come_in_and_to_no_other() {
    let test = "kernel_packets_to_a_port_that_the_node_holds_come_in_and_to_no_other";
    let Some(mut node) = start(test) else { return };
    for make in [v4, v6] {
        let inner = make(AWAY_3, DB_2, UDP).bytes();
        let wrapped = from_node(2, SHOP).wrap(&inner);
        for port in [OTHER_PORT, 4789] {
            let fate = node.send(UNDERLAY, &to_port(port, wrapped.clone()));
            assert_eq!(
                fate.out,
                [(DB.to_owned(), inner.clone())],
                "{port}: {fate:?}"
            );
        }
        for port in [0, 4791] {
            let fate = node.send(UNDERLAY, &to_port(port, wrapped.clone()));
            assert_eq!(fate.out, [], "{port}: it is the stack's");
            assert!(fate.drops.is_empty(), "{port}: {fate:?}");
        }
    }
}

#[test]
fn kernel_the_port_of_a_network_is_its_port_over_ipv6_too() {
    let test = "kernel_the_port_of_a_network_is_its_port_over_ipv6_too";
    let Some(mut node) = start(test) else { return };
    let vtep = |number| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
    node.at_addresses(Some(VTEP), Some(vtep(1)));
    node.resolve(vtep(2), node_mac(2));
    let mut desired = desired();
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep(1));
    let other = desired.nodes.get_mut(&2).unwrap();
    (other.address, other.address_v6) = (Node::called(2), Some(vtep(2)));
    node.apply(&desired).unwrap();
    let inner = v4(WEB_1, AWAY_3, UDP).bytes();
    let fate = node.send(WEB, &inner);
    let sent = Tunnel {
        src: vtep(1).into(),
        dst: vtep(2).into(),
        eth_src: from_node(2, SHOP).eth_dst,
        eth_dst: node_mac(2),
        ..from_node(2, SHOP)
    };
    let expected = to_port(OTHER_PORT, sent.wrap(&inner));
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)], "{fate:?}");
    let inner = v4(AWAY_3, DB_2, UDP).bytes();
    let received = Tunnel {
        src: vtep(2).into(),
        dst: vtep(1).into(),
        ..from_node(2, SHOP)
    };
    let fate = node.send(UNDERLAY, &to_port(OTHER_PORT, received.wrap(&inner)));
    assert_eq!(fate.out, [(DB.to_owned(), inner)], "{fate:?}");
}

#[test]
fn kernel_what_is_encrypted_has_the_usual_port_within_its_tunnel() {
    let test = "kernel_what_is_encrypted_has_the_usual_port_within_its_tunnel";
    let Some(mut node) = start(test) else { return };
    node.encrypt_by("ep6");
    node.dataplane().attach_tunnel("ep6").unwrap();
    for always in [true, false] {
        let mut desired = desired();
        if always {
            desired.encryption = EncryptionMode::Always;
        } else {
            desired.networks.get_mut(&SHOP).unwrap().encryption = NetworkEncryption::Required;
        }
        for (number, node) in &mut desired.nodes {
            node.public_keys = vec![PublicKey([*number as u8; 32])];
        }
        node.apply(&desired).unwrap();
        let fate = node.send(WEB, &v4(WEB_1, AWAY_3, UDP).bytes());
        let [(device, frame)] = &fate.out[..] else {
            panic!("{fate:?}");
        };
        assert_eq!(device, "ep6");
        assert_eq!(frame[36..38], 4789_u16.to_be_bytes());
    }
}
