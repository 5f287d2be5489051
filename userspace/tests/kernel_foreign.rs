//! Beside plain VXLAN peers: what a node without an agent sends through the kernel's own VXLAN is
//! decided about as if the endpoint were here, and what is asked through the tunnel is answered.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::{collections::BTreeMap, net::IpAddr, net::Ipv6Addr};

use fixture::{
    desired::Policy,
    devices::UNDERLAY,
    node::{Fate, TestNode, VTEP},
    wire::{Arp, Frame, Neighbour, Transport, Tunnel},
};
use packets::world::{
    self, AWAY_3, DB, DB_2, FOREIGN_15, FOREIGN_16, GATEWAY, GATEWAY_MAC, NOBODY_99, SHOP, TWIN,
    WEB, WEB_1, Who, from_node, node_mac, port, to_node, v4, v6, vtep,
};
use sunwire_api::NetworkEncryption;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow_key::Field,
    tables::{Copied, set},
    vxlan::OUTER_BYTES,
};
use sunwire_userspace::netlink;

const UDP: Transport = Transport::Udp(5000, 6000);
/// The device that holds the tunnel's port.
const PORT_DEVICE: &str = "sw-tunnel";

fn start(test: &str) -> Option<TestNode> {
    let mut node = world::start(test)?;
    let underlay = node.ifindex(UNDERLAY);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let address = handle.address().add(underlay, IpAddr::V4(VTEP), 24);
        address.execute().await.unwrap();
        let mut neighbour = handle.neighbours().add(underlay, IpAddr::V4(vtep(6)));
        neighbour = neighbour.link_layer_address(&node_mac(6));
        neighbour.execute().await.unwrap();
        netlink::hold_tunnel_port(&handle, PORT_DEVICE, 4789)
            .await
            .unwrap();
    });
    node.dataplane().attach_foreign(4789, PORT_DEVICE).unwrap();
    Some(node)
}

fn send(node: &mut TestNode, inner: &[u8]) -> Fate {
    node.send(UNDERLAY, &from_node(6, SHOP).wrap(inner))
}

/// What went back through the tunnel; the kernel's outer headers are not looked at but for where to.
fn back(fate: &Fate) -> Vec<u8> {
    let [(device, frame)] = &fate.out[..] else {
        panic!("one frame goes back: {fate:?}");
    };
    assert_eq!(device, UNDERLAY);
    assert_eq!(frame[..6], node_mac(6));
    assert_eq!(frame[26..30], VTEP.octets());
    assert_eq!(frame[30..34], vtep(6).octets());
    // The VNI and, as everything toward other implementations, no hops.
    let [.., a, b, c] = SHOP.to_be_bytes();
    assert_eq!(frame[42..50], [8, 0, 0, 0, a, b, c, 0]);
    frame[OUTER_BYTES..].to_vec()
}

#[test]
fn kernel_a_foreign_peers_packets_are_decided_where_they_arrive() {
    let test = "kernel_a_foreign_peers_packets_are_decided_where_they_arrive";
    let Some(mut node) = start(test) else { return };
    for make in [v4, v6] {
        let inner = make(FOREIGN_15, DB_2, UDP).bytes();
        // The second one by what is remembered of the first.
        for _ in 0..2 {
            let fate = send(&mut node, &inner);
            assert_eq!(fate.out, [(DB.to_owned(), inner.clone())], "{fate:?}");
            assert_eq!(fate.drops, BTreeMap::new());
            let label = (SHOP, "forward".to_owned());
            assert_eq!(fate.labels.get(&label), Some(&1), "{fate:?}");
        }
        let denied = make(FOREIGN_15, DB_2, Transport::Tcp(5000, port::DENIED));
        let fate = send(&mut node, &denied.bytes());
        assert_eq!(fate.out, []);
        assert_eq!(fate.drops, BTreeMap::from([(DropReason::Policy, 1)]));
    }
}

#[test]
fn kernel_a_foreign_peers_packets_are_written_and_copied_as_the_policy_says() {
    let test = "kernel_a_foreign_peers_packets_are_written_and_copied_as_the_policy_says";
    let Some(mut node) = start(test) else { return };
    let to = |dst_port| v4(FOREIGN_15, WEB_1, Transport::Udp(5000, dst_port));
    let copied = send(&mut node, &to(port::TWO_COPIES).bytes());
    let devices: Vec<&str> = copied
        .out
        .iter()
        .map(|(device, _)| device.as_str())
        .collect();
    assert_eq!(devices, [DB, UNDERLAY], "{copied:?}");
    let written = send(&mut node, &to(port::SETS_DST_PORT).bytes());
    let expected = Frame {
        transport: Transport::Udp(5000, world::NEW_DST_PORT),
        ..to(0)
    };
    assert_eq!(written.out, [(WEB.to_owned(), expected.bytes())]);
    assert_eq!(written.drops, BTreeMap::new());
}

#[test]
fn kernel_a_foreign_peer_reaches_endpoints_of_other_nodes_through_this_one() {
    let test = "kernel_a_foreign_peer_reaches_endpoints_of_other_nodes_through_this_one";
    let Some(mut node) = start(test) else { return };
    let inner = v4(FOREIGN_15, AWAY_3, UDP).bytes();
    let fate = send(&mut node, &inner);
    let onward = to_node(2, SHOP, &inner);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), onward)], "{fate:?}");
}

#[test]
fn kernel_endpoints_reach_a_foreign_peer_without_hops() {
    let test = "kernel_endpoints_reach_a_foreign_peer_without_hops";
    let Some(mut node) = start(test) else { return };
    let inner = v4(WEB_1, FOREIGN_15, UDP).bytes();
    let fate = node.send(WEB, &inner);
    assert_eq!(back(&fate), inner);
    let asks = Arp {
        eth_src: WEB_1.mac(),
        eth_dst: [0xff; 6],
        operation: 1,
        sender: (WEB_1.mac(), WEB_1.v4()),
        target: ([0; 6], FOREIGN_15.v4()),
    };
    let fate = node.send(WEB, &asks.bytes());
    let [(device, answer)] = &fate.out[..] else {
        panic!("{fate:?}");
    };
    assert_eq!(
        (device.as_str(), &answer[6..12]),
        (WEB, &FOREIGN_15.mac()[..])
    );
}

#[test]
fn kernel_a_foreign_peer_says_only_what_its_endpoints_may() {
    let test = "kernel_a_foreign_peer_says_only_what_its_endpoints_may";
    let Some(mut node) = start(test) else { return };
    let good = v4(FOREIGN_15, DB_2, UDP);
    let another_address = Frame {
        src: FOREIGN_16.v4().into(),
        ..good
    };
    let cases = [
        (v4(AWAY_3, DB_2, UDP), SHOP, DropReason::SourceNotThere),
        (v4(WEB_1, DB_2, UDP), SHOP, DropReason::SourceNotThere),
        (v4(NOBODY_99, DB_2, UDP), SHOP, DropReason::SourceNotThere),
        (another_address, SHOP, DropReason::SpoofedSource),
        (good, TWIN, DropReason::SourceNotThere),
        (good, 999, DropReason::UnknownNetwork),
        (v4(FOREIGN_15, NOBODY_99, UDP), SHOP, DropReason::NoOwner),
    ];
    for (inner, vni, reason) in cases {
        let fate = node.send(UNDERLAY, &from_node(6, vni).wrap(&inner.bytes()));
        assert_eq!(fate.out, [], "{reason:?}");
        assert_eq!(fate.drops, BTreeMap::from([(reason, 1)]));
    }
    // Another node's tunnel is not this way in.
    let stranger = Tunnel {
        src: IpAddr::from([192, 0, 2, 99]),
        ..from_node(6, SHOP)
    };
    let fate = node.send(UNDERLAY, &stranger.wrap(&good.bytes()));
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::UnknownPeer, 1)]));
}

#[test]
fn kernel_outer_checksums_of_a_foreign_peer_are_looked_at() {
    let test = "kernel_outer_checksums_of_a_foreign_peer_are_looked_at";
    let Some(mut node) = start(test) else { return };
    let inner = v4(FOREIGN_15, DB_2, UDP).bytes();
    let mut frame = from_node(6, SHOP).wrap(&inner);
    let (source, destination) = (vtep(6).octets(), VTEP.octets());
    let header = etherparse::UdpHeader::from_slice(&frame[34..]).unwrap().0;
    let sum = header.calc_checksum_ipv4_raw(source, destination, &frame[42..]);
    frame[40..42].copy_from_slice(&sum.unwrap().to_be_bytes());
    assert_eq!(node.send(UNDERLAY, &frame).out, [(DB.to_owned(), inner)]);
    frame[41] ^= 1;
    let fate = node.send(UNDERLAY, &frame);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], BTreeMap::new()),
        "the kernel's to drop"
    );
}

fn asks(target: Who) -> Vec<u8> {
    let arp = Arp {
        eth_src: FOREIGN_15.mac(),
        eth_dst: [0xff; 6],
        operation: 1,
        sender: (FOREIGN_15.mac(), FOREIGN_15.v4()),
        target: ([0; 6], target.v4()),
    };
    arp.bytes()
}

fn solicits(target: Who) -> Vec<u8> {
    let [.., a, b, c] = target.v6().octets();
    let (high, low) = (0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let question = Neighbour {
        eth_src: FOREIGN_15.mac(),
        eth_dst: [0x33, 0x33, 0xff, a, b, c],
        src: FOREIGN_15.v6(),
        dst: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, high, low),
        kind: 135,
        flags: 0,
        target: target.v6(),
        option: Some((1, FOREIGN_15.mac())),
    };
    question.bytes()
}

#[test]
fn kernel_who_has_an_address_is_answered_through_the_tunnel() {
    let test = "kernel_who_has_an_address_is_answered_through_the_tunnel";
    let Some(mut node) = start(test) else { return };
    for (target, mac) in [
        (DB_2, DB_2.mac()),
        (AWAY_3, AWAY_3.mac()),
        (GATEWAY, GATEWAY_MAC),
    ] {
        let answer = Arp {
            eth_src: mac,
            eth_dst: FOREIGN_15.mac(),
            operation: 2,
            sender: (mac, target.v4()),
            target: (FOREIGN_15.mac(), FOREIGN_15.v4()),
        };
        assert_eq!(back(&send(&mut node, &asks(target))), answer.bytes());
        let answer = Neighbour {
            eth_src: mac,
            eth_dst: FOREIGN_15.mac(),
            src: target.v6(),
            dst: FOREIGN_15.v6(),
            kind: 136,
            flags: 0x60,
            target: target.v6(),
            option: Some((2, mac)),
        };
        assert_eq!(back(&send(&mut node, &solicits(target))), answer.bytes());
    }
    // Who is beside it answers itself: an answer from here would draw its packets here.
    for question in [asks(FOREIGN_16), solicits(FOREIGN_16)] {
        let fate = send(&mut node, &question);
        assert_eq!((fate.out, fate.drops), (vec![], BTreeMap::new()));
    }
    let fate = send(&mut node, &asks(NOBODY_99));
    assert_eq!(
        fate.drops,
        BTreeMap::from([(DropReason::NeighbourUnknown, 1)])
    );
}

#[test]
fn kernel_the_gateway_answers_a_ping_of_a_foreign_peer() {
    let test = "kernel_the_gateway_answers_a_ping_of_a_foreign_peer";
    let Some(mut node) = start(test) else { return };
    let to_gateway = |make: fn(Who, Who, Transport) -> Frame, kind| Frame {
        eth_dst: GATEWAY_MAC,
        ..make(FOREIGN_15, GATEWAY, Transport::Icmp(kind, 0))
    };
    let answer = back(&send(&mut node, &to_gateway(v4, 8).bytes()));
    assert_eq!(answer[..6], FOREIGN_15.mac());
    assert_eq!((answer[23], answer[34]), (1, 0), "an echo reply");
}

#[test]
fn kernel_a_peer_that_is_foreign_no_more_is_not_heard() {
    let test = "kernel_a_peer_that_is_foreign_no_more_is_not_heard";
    let Some(mut node) = start(test) else { return };
    let inner = v4(FOREIGN_15, DB_2, UDP).bytes();
    assert_eq!(send(&mut node, &inner).out.len(), 1);
    let mut desired = world::desired();
    desired.endpoints.remove(&FOREIGN_15.0);
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &inner);
    assert_eq!(
        fate.drops,
        BTreeMap::from([(DropReason::SourceNotThere, 1)])
    );
    desired.nodes.remove(&6);
    desired.endpoints.remove(&FOREIGN_16.0);
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &inner);
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::UnknownPeer, 1)]));
    // One that has to be encrypted.
    let mut desired = world::desired();
    desired.nodes.get_mut(&6).unwrap().cloud = "abroad".to_owned();
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &inner);
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::Unencrypted, 1)]));
    let fate = node.send(WEB, &v4(WEB_1, FOREIGN_15, UDP).bytes());
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::NoTunnel, 1)]));
    // Of a network that is encrypted nowhere it is heard, and reached.
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    shop.encryption = NetworkEncryption::Never;
    node.apply(&desired).unwrap();
    assert_eq!(send(&mut node, &inner).out.len(), 1);
    let fate = node.send(WEB, &v4(WEB_1, FOREIGN_15, UDP).bytes());
    assert_eq!(fate.out.len(), 1, "{fate:?}");
    let shop = desired.networks.get_mut(&SHOP).unwrap();
    shop.encryption = NetworkEncryption::Default;
    desired.nodes.get_mut(&6).unwrap().plaintext = true;
    node.apply(&desired).unwrap();
    assert_eq!(send(&mut node, &inner).out.len(), 1);
}

#[test]
fn kernel_what_was_sent_to_a_foreign_peer_makes_its_packets_replies() {
    let test = "kernel_what_was_sent_to_a_foreign_peer_makes_its_packets_replies";
    let Some(mut node) = start(test) else { return };
    let mut desired = world::desired();
    let mut policy = Policy::new(SHOP, "stateful");
    let (reply, denied) = (
        policy.leaf("reply", &[world::owner()]),
        policy.leaf("new", &[]),
    );
    let asks = policy.leaf("asks", &[world::owner()]);
    let new = policy.test("port", Field::DestinationPort, &[(8000, asks)], denied);
    let root = policy.test("state", Field::Connection, &[(1, reply)], new);
    policy.install(root, &mut desired);
    node.apply(&desired).unwrap();
    for make in [v4, v6] {
        let reply = make(FOREIGN_15, DB_2, Transport::Udp(8000, 5000)).bytes();
        let fate = send(&mut node, &reply);
        assert_eq!(fate.drops, BTreeMap::from([(DropReason::Policy, 1)]));
        let asks = make(DB_2, FOREIGN_15, Transport::Udp(5000, 8000)).bytes();
        assert_eq!(back(&node.send(DB, &asks)), asks);
        // The second one by what is remembered of the first.
        for _ in 0..2 {
            let fate = send(&mut node, &reply);
            assert_eq!(fate.out, [(DB.to_owned(), reply.clone())]);
            let label = (SHOP, "reply".to_owned());
            assert_eq!(fate.labels.get(&label), Some(&1), "{fate:?}");
        }
        let other = make(FOREIGN_16, DB_2, Transport::Udp(8000, 5000)).bytes();
        let fate = send(&mut node, &other);
        assert_eq!(fate.drops, BTreeMap::from([(DropReason::Policy, 1)]));
    }
}

#[test]
fn kernel_what_a_policy_translates_of_a_foreign_peer_is_dropped_and_counted() {
    let test = "kernel_what_a_policy_translates_of_a_foreign_peer_is_dropped_and_counted";
    let Some(mut node) = start(test) else { return };
    let mut desired = world::desired();
    let mut policy = Policy::new(SHOP, "translates");
    let to_db = Copied {
        set: set::TRANSLATE | set::IP4_DST,
        ip4_dst: u32::from_ne_bytes(DB_2.v4().octets()),
        ..world::owner()
    };
    let root = policy.leaf("to db", &[to_db]);
    policy.install(root, &mut desired);
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &v4(FOREIGN_15, NOBODY_99, UDP).bytes());
    assert_eq!(fate.out, []);
    assert_eq!(
        fate.drops,
        BTreeMap::from([(DropReason::NotTranslatable, 1)])
    );
    // The same of an endpoint here.
    let fate = node.send(WEB, &v4(WEB_1, NOBODY_99, UDP).bytes());
    assert_eq!(fate.out.len(), 1, "{fate:?}");
}
