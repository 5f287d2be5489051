//! Frames with tags and super-packets into and out of TAPs.

use sunwire_dataplane_common::headers::{ETHER_QINQ, ETHER_VLAN};
use sunwire_userspace::maps::Capacity;

use crate::{
    LONG, desired,
    fixture::{
        devices::UNDERLAY,
        node::TestNode,
        tap::{Packet, Tap},
        wire::{Frame, Transport},
    },
    frames, mac, node_mac, tunnelled, vtep, with_tag,
};

/// The world of [`start`] with TAPs in the place of the devices of endpoints 1, 3 and 4.
fn start_with_taps(test: &str) -> Option<(TestNode, Vec<Tap>)> {
    let mut node = TestNode::new(test, 0, Capacity::default())?;
    let mut taps = Vec::new();
    for device in ["ep1", "ep2", "ep3"] {
        taps.push(Tap::new(test, device, true)?);
    }
    node.devices.refresh();
    node.resolve(vtep(2), node_mac(2));
    node.apply(&desired()).expect("it fits");
    Some((node, taps))
}

#[test]
fn kernel_tags_come_out_as_they_went_in() {
    let Some((mut node, mut taps)) = start_with_taps("kernel_tags_come_out_as_they_went_in") else {
        return;
    };
    for (name, frame) in frames() {
        let packet = Packet::plain(frame.clone());
        node.handle(|_| taps[1].send(&packet));
        let here = taps[2].received();
        assert_eq!(here, std::slice::from_ref(&packet), "{name}, on this node");
        let fate = node.handle(|_| taps[0].send(&packet));
        let expected = tunnelled((1, 2), LONG, false, 0, &frame);
        assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)], "{name}");
        node.send(UNDERLAY, &tunnelled((2, 1), LONG, true, 0, &frame));
        assert_eq!(taps[0].received(), [packet], "{name}, from the other node");
    }
}

#[test]
fn kernel_super_packets_stay_whole_behind_tags() {
    let test = "kernel_super_packets_stay_whole_behind_tags";
    let Some((mut node, mut taps)) = start_with_taps(test) else {
        return;
    };
    let packet = Frame {
        eth_src: mac(1),
        eth_dst: mac(2),
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        dscp: 0,
        transport: Transport::Tcp(5000, 6000),
        payload: 4000,
    }
    .bytes();
    let tagged = with_tag(&packet, ETHER_VLAN, 7);
    let twice = with_tag(&tagged, ETHER_QINQ, 8);
    for frame in [packet, tagged, twice] {
        let whole = Packet::whole(frame, 1000);
        node.handle(|_| taps[1].send(&whole));
        assert_eq!(taps[2].received(), std::slice::from_ref(&whole));
        let fate = node.handle(|_| taps[0].send(&whole));
        let [(device, wrapped)] = &fate.out[..] else {
            panic!("{fate:?}");
        };
        assert_eq!(device, UNDERLAY);
        assert_eq!(wrapped[50..], whole.frame);
    }
}
