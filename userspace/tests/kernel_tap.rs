//! Endpoints behind TAPs: what a virtual machine's monitor writes goes where a workload's packets
//! go, super-packets stay whole on every way, and it reads what is for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::collections::BTreeMap;

use fixture::{
    devices::UNDERLAY,
    node::{Fate, TestNode},
    tap::{self, Packet, Tap},
    wire::{self, Frame, Transport},
};
use packets::world::{self, AWAY_3, DB, DB_2, GATEWAY, SHOP, WEB, WEB_1, Who};
use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_userspace::{dataplane::Attachment, maps::Capacity};

/// Payload of a segment and of a whole super-packet.
const SEGMENT: u16 = 1000;
const WHOLE: usize = 4 * SEGMENT as usize;

type Make = fn(Who, Who, Transport) -> Frame;
const FAMILIES: [Make; 2] = [world::v4, world::v6];

/// A node in the world of the packet tests where `db` is behind a TAP and `web` behind the first of
/// `veths`, or a TAP too.
fn start(test: &str, veths: usize, takes_whole: bool) -> Option<(TestNode, Vec<Tap>)> {
    let mut node = TestNode::new(test, veths, Capacity::default())?;
    let names = if veths == 0 { &[WEB, DB][..] } else { &[DB] };
    let mut taps = Vec::new();
    for name in names {
        taps.push(Tap::new(test, name, takes_whole)?);
    }
    node.devices.refresh();
    node.resolve(world::vtep(2), world::node_mac(2));
    let attachments = node.apply(&world::desired()).unwrap();
    let is_attached = |who: Who| matches!(attachments[&who.0], Attachment::Attached { .. });
    assert!(is_attached(WEB_1) && is_attached(DB_2), "{attachments:?}");
    Some((node, taps))
}

fn tcp(make: Make, from: Who, to: Who, payload: usize) -> Vec<u8> {
    let transport = Transport::Tcp(5000, 8000);
    let frame = Frame {
        payload,
        ..make(from, to, transport)
    };
    frame.bytes()
}

/// Sends a packet into a TAP and waits until it has been handled.
fn send(node: &mut TestNode, tap: &mut Tap, packet: &Packet) -> Fate {
    node.handle(|_| tap.send(packet))
}

#[test]
fn a_super_packet_goes_whole_from_one_tap_to_another() {
    let test = "a_super_packet_goes_whole_from_one_tap_to_another";
    let Some((mut node, mut taps)) = start(test, 0, true) else {
        return;
    };
    for make in FAMILIES {
        for (from, to) in [(WEB_1, DB_2), (DB_2, WEB_1)] {
            let packet = Packet::whole(tcp(make, from, to, WHOLE), SEGMENT);
            let fate = send(&mut node, &mut taps[from.0 as usize - 1], &packet);
            assert_eq!(fate.drops, BTreeMap::new());
            assert_eq!(taps[to.0 as usize - 1].received(), [packet]);
        }
    }
    // What was whole on its way counts as the packets it stands for.
    let fate = send(
        &mut node,
        &mut taps[0],
        &Packet::whole(tcp(world::v4, WEB_1, DB_2, WHOLE), SEGMENT),
    );
    assert_eq!(fate.labels.values().sum::<u64>(), 4, "{fate:?}");
}

#[test]
fn a_super_packet_is_cut_for_an_owner_that_takes_none() {
    let test = "a_super_packet_is_cut_for_an_owner_that_takes_none";
    let Some((mut node, mut taps)) = start(test, 0, false) else {
        return;
    };
    for make in FAMILIES {
        let packet = Packet::whole(tcp(make, WEB_1, DB_2, WHOLE), SEGMENT);
        send(&mut node, &mut taps[0], &packet);
        let received = taps[1].received();
        assert_eq!(received.len(), 4);
        for packet in &received {
            assert!(!packet.unfinished && packet.gso_size == 0);
            wire::assert_valid(&packet.frame);
        }
    }
}

#[test]
fn a_super_packet_of_a_tap_goes_whole_into_the_tunnel() {
    let test = "a_super_packet_of_a_tap_goes_whole_into_the_tunnel";
    let Some((mut node, mut taps)) = start(test, 0, true) else {
        return;
    };
    for make in FAMILIES {
        let packet = Packet::whole(tcp(make, DB_2, AWAY_3, WHOLE), SEGMENT);
        let fate = send(&mut node, &mut taps[1], &packet);
        let [(device, frame)] = &fate.out[..] else {
            panic!("one frame goes out: {fate:?}");
        };
        assert_eq!(device, UNDERLAY);
        assert_eq!(
            frame[50..],
            packet.frame,
            "as it was, behind the outer headers"
        );
    }
}

#[test]
fn packets_reach_a_tap_from_a_veth_and_from_the_tunnel() {
    let test = "packets_reach_a_tap_from_a_veth_and_from_the_tunnel";
    let Some((mut node, mut taps)) = start(test, 1, true) else {
        return;
    };
    let mut arrives = |node: &mut TestNode, device: &str, frame: &[u8], inner: &[u8]| {
        let fate = node.send(device, frame);
        assert_eq!(fate.drops, BTreeMap::new());
        assert_eq!(taps[0].received(), [Packet::plain(inner.to_vec())]);
    };
    for _agent in 0..2 {
        for make in FAMILIES {
            let inner = tcp(make, WEB_1, DB_2, 33);
            arrives(&mut node, WEB, &inner, &inner);
            let inner = tcp(make, AWAY_3, DB_2, 33);
            let outer = world::from_node(2, SHOP).wrap(&inner);
            arrives(&mut node, UNDERLAY, &outer, &inner);
        }
        // A new agent still knows what the device is.
        node.stop_agent();
        node.start_agent();
        node.apply(&world::desired()).unwrap();
    }
}

#[test]
fn a_tap_says_nothing_for_others_and_is_answered_by_the_gateway() {
    let test = "a_tap_says_nothing_for_others";
    let Some((mut node, mut taps)) = start(test, 1, true) else {
        return;
    };
    let forged = Packet::whole(tcp(world::v4, WEB_1, AWAY_3, WHOLE), SEGMENT);
    let fate = send(&mut node, &mut taps[0], &forged);
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::SpoofedSource, 4)]));
    assert!(fate.out.is_empty());

    let question = wire::Arp {
        eth_src: DB_2.mac(),
        eth_dst: [0xff; 6],
        operation: 1,
        sender: (DB_2.mac(), DB_2.v4()),
        target: ([0; 6], GATEWAY.v4()),
    };
    send(&mut node, &mut taps[0], &Packet::plain(question.bytes()));
    assert_eq!(taps[0].received().len(), 1, "the gateway's answer");
}

#[test]
fn a_tun_device_is_refused_by_name() {
    let test = "a_tun_device_is_refused_by_name";
    let Some(mut node) = TestNode::new(test, 1, Capacity::default()) else {
        return;
    };
    let Some(_tun) = tap::tun(test, DB) else {
        return;
    };
    node.devices.refresh();
    let attachments = node.apply(&world::desired()).unwrap();
    let Attachment::Failed(why) = &attachments[&DB_2.0] else {
        panic!("{attachments:?}");
    };
    assert!(
        why.contains("device ep2 carries no Ethernet frames"),
        "{why}"
    );
}
