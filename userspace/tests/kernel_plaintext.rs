//! A network that is encrypted nowhere: its packets travel in the clear where others are encrypted or
//! stay, and nothing of that concerns the others.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::{collections::BTreeMap, net::Ipv6Addr};

use fixture::{
    devices::UNDERLAY,
    node::{TestNode, VTEP},
    wire::{OTHER_PORT, Transport, Tunnel, outer_checksum},
};
use packets::world::{
    self, AWAY_3, DB, DB_2, GOING_7, SHOP, TWIN, TWIN_WEB, WEB, WEB_1, from_node, node_mac,
    to_node, v4, v6, vtep,
};
use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};
use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_userspace::state::{Desired, Node};

const UDP: Transport = Transport::Udp(5000, 6000);
/// The device of nobody stands for the one that encrypts.
const ENCRYPTS: &str = "ep6";

/// Everything is to be encrypted, but for network `shop`; no node has announced a key yet.
fn desired() -> Desired {
    let mut desired = world::desired();
    desired.encryption = EncryptionMode::Always;
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    shop.encryption = NetworkEncryption::Never;
    desired
}

fn announce_keys(desired: &mut Desired) {
    for (number, node) in &mut desired.nodes {
        node.public_keys = vec![PublicKey([*number as u8; 32])];
    }
}

fn start(test: &str, desired: &Desired) -> Option<TestNode> {
    let mut node = world::start(test)?;
    node.encrypt_by(ENCRYPTS);
    node.dataplane().attach_tunnel(ENCRYPTS).unwrap();
    node.apply(desired).unwrap();
    Some(node)
}

fn dropped(reason: DropReason) -> BTreeMap<DropReason, u64> {
    BTreeMap::from([(reason, 1)])
}

#[test]
fn kernel_a_network_that_is_encrypted_nowhere_goes_in_the_clear_and_no_other() {
    let test = "kernel_a_network_that_is_encrypted_nowhere_goes_in_the_clear_and_no_other";
    let mut desired = desired();
    let Some(mut node) = start(test, &desired) else {
        return;
    };
    for has_keys in [false, true] {
        if has_keys {
            announce_keys(&mut desired);
            node.apply(&desired).unwrap();
        }
        for make in [v4, v6] {
            let inner = make(WEB_1, AWAY_3, UDP).bytes();
            // The second one by what is remembered of the first.
            for _ in 0..2 {
                let fate = node.send(WEB, &inner);
                let expected = [(UNDERLAY.to_owned(), to_node(2, SHOP, &inner))];
                assert_eq!(fate.out, expected, "{fate:?}");
            }
            // The same packet of another network, to another node.
            let fate = node.send(TWIN_WEB, &inner);
            if has_keys {
                let [(device, frame)] = &fate.out[..] else {
                    panic!("{fate:?}");
                };
                assert_eq!(device, ENCRYPTS);
                assert_eq!(frame[30..34], vtep(3).octets());
            } else {
                assert_eq!(fate.drops, dropped(DropReason::NoTunnel), "{fate:?}");
            }
        }
    }
    // As the cloud has it again.
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    shop.encryption = NetworkEncryption::Default;
    node.apply(&desired).unwrap();
    let fate = node.send(WEB, &v4(WEB_1, AWAY_3, UDP).bytes());
    assert_eq!(fate.out[0].0, ENCRYPTS, "{fate:?}");
}

#[test]
fn kernel_a_network_that_is_encrypted_nowhere_comes_in_the_clear_and_no_other() {
    let test = "kernel_a_network_that_is_encrypted_nowhere_comes_in_the_clear_and_no_other";
    let mut desired = desired();
    announce_keys(&mut desired);
    let Some(mut node) = start(test, &desired) else {
        return;
    };
    for make in [v4, v6] {
        let inner = make(AWAY_3, DB_2, UDP).bytes();
        // In the clear by looking and by what is remembered, and as it was sent before nodes had heard.
        for device in [UNDERLAY, UNDERLAY, ENCRYPTS] {
            let fate = node.send(device, &from_node(2, SHOP).wrap(&inner));
            let expected = [(DB.to_owned(), inner.clone())];
            assert_eq!(fate.out, expected, "by {device}: {fate:?}");
        }
        let of_twin = from_node(3, TWIN).wrap(&inner);
        let fate = node.send(UNDERLAY, &of_twin);
        assert_eq!(fate.drops, dropped(DropReason::Unencrypted), "{fate:?}");
        // What has moved goes on as it came.
        let inner = make(AWAY_3, GOING_7, UDP).bytes();
        let fate = node.send(UNDERLAY, &from_node(2, SHOP).wrap(&inner));
        let [(device, frame)] = &fate.out[..] else {
            panic!("{fate:?}");
        };
        assert_eq!((device.as_str(), &frame[50..]), (UNDERLAY, &inner[..]));
    }
    // As the cloud has it again: nothing that is remembered lets it in.
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    shop.encryption = NetworkEncryption::Default;
    node.apply(&desired).unwrap();
    let inner = v4(AWAY_3, DB_2, UDP).bytes();
    let fate = node.send(UNDERLAY, &from_node(2, SHOP).wrap(&inner));
    assert_eq!(fate.drops, dropped(DropReason::Unencrypted), "{fate:?}");
}

#[test]
fn kernel_a_network_that_is_encrypted_nowhere_keeps_its_port_and_its_checksums() {
    let test = "kernel_a_network_that_is_encrypted_nowhere_keeps_its_port_and_its_checksums";
    let mut desired = desired();
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    (shop.port, shop.checksum) = (OTHER_PORT, true);
    let Some(mut node) = start(test, &desired) else {
        return;
    };
    node.hold_port(OTHER_PORT);
    node.write_checksums();
    node.apply(&desired).unwrap();
    let inner = v4(WEB_1, AWAY_3, UDP).bytes();
    for _ in 0..2 {
        let fate = node.send(WEB, &inner);
        let [(device, frame)] = &fate.out[..] else {
            panic!("{fate:?}");
        };
        assert_eq!(device, UNDERLAY);
        assert_eq!(frame[36..38], OTHER_PORT.to_be_bytes());
        assert_ne!(outer_checksum(frame), 0);
        assert_eq!(frame[50..], inner);
    }
}

#[test]
fn kernel_a_network_that_is_encrypted_nowhere_goes_over_ipv6_too() {
    let test = "kernel_a_network_that_is_encrypted_nowhere_goes_over_ipv6_too";
    let vtep = |number| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number);
    let mut desired = desired();
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep(1));
    let other = desired.nodes.get_mut(&2).unwrap();
    (other.address, other.address_v6) = (Node::called(2), Some(vtep(2)));
    let Some(mut node) = start(test, &world::desired()) else {
        return;
    };
    node.at_addresses(Some(VTEP), Some(vtep(1)));
    node.resolve(vtep(2), node_mac(2));
    node.apply(&desired).unwrap();
    let tunnel = |from: u16, to: u16| Tunnel {
        src: vtep(from).into(),
        dst: vtep(to).into(),
        ..from_node(2, SHOP)
    };
    let sent = Tunnel {
        eth_src: from_node(2, SHOP).eth_dst,
        eth_dst: node_mac(2),
        ..tunnel(1, 2)
    };
    for make in [v4, v6] {
        let inner = make(WEB_1, AWAY_3, UDP).bytes();
        let fate = node.send(WEB, &inner);
        let expected = [(UNDERLAY.to_owned(), sent.wrap(&inner))];
        assert_eq!(fate.out, expected, "{fate:?}");
        let inner = make(AWAY_3, DB_2, UDP).bytes();
        for _ in 0..2 {
            let fate = node.send(UNDERLAY, &tunnel(2, 1).wrap(&inner));
            assert_eq!(fate.out, [(DB.to_owned(), inner.clone())], "{fate:?}");
        }
    }
}
