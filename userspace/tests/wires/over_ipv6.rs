//! Wires to a node that has an IPv6 address alone, and on from there to one that has none.

use std::net::Ipv6Addr;

use sunwire_dataplane_common::{drop_reason::DropReason, wire::FRAME_BYTES_MIN};
use sunwire_userspace::state::{Desired, Node};

use crate::{
    BROADCAST, LONG, VNI, check_drop, desired,
    fixture::{
        devices::UNDERLAY,
        node::{TestNode, VTEP},
        shrunk::out_of_ipv6,
        wire::{Tunnel, ethernet_frame},
    },
    frames, mac, node_mac, start, tunnelled, untagged,
};

fn vtep_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)
}

/// Node 2 has IPv6 alone, this one both, node 3 IPv4 alone.
fn over_ipv6() -> Desired {
    let mut desired = desired();
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep_v6(1));
    let other = desired.nodes.get_mut(&2).unwrap();
    other.address = Node::called(2);
    other.address_v6 = Some(vtep_v6(2));
    desired
}

fn start_over_ipv6(test: &str) -> Option<TestNode> {
    let mut node = start(test)?;
    node.at_addresses(Some(VTEP), Some(vtep_v6(1)));
    node.resolve(vtep_v6(2), node_mac(2));
    node.apply(&over_ipv6()).unwrap();
    Some(node)
}

/// As [`tunnelled`], over IPv6.
fn tunnelled_v6((from, to): (u32, u32), from_b: bool, hops: u8, inner: &[u8]) -> Vec<u8> {
    let bits = 0x08 | if from_b { 0x10 } else { 0 };
    let mut frame = Tunnel {
        eth_src: node_mac(from),
        eth_dst: node_mac(to),
        src: vtep_v6(from).into(),
        dst: vtep_v6(to).into(),
        vni: VNI,
        hops: hops | bits,
    }
    .wrap(inner);
    frame[63..66].copy_from_slice(&LONG.to_be_bytes()[1..]);
    frame
}

#[test]
fn kernel_every_frame_of_a_wire_goes_over_ipv6_unchanged() {
    let Some(mut node) = start_over_ipv6("kernel_every_frame_of_a_wire_goes_over_ipv6_unchanged")
    else {
        return;
    };
    for (name, frame) in frames() {
        let fate = node.send("ep1", &frame);
        let expected = tunnelled_v6((1, 2), false, 0, &frame);
        assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)], "{name}");
        assert!(fate.drops.is_empty(), "{name}: {fate:?}");
        let fate = node.send(UNDERLAY, &tunnelled_v6((2, 1), true, 0, &frame));
        let expected = ("ep1".to_owned(), out_of_ipv6(&untagged(&frame)));
        assert_eq!(fate.out, [expected], "{name}: {fate:?}");
        assert!(fate.drops.is_empty(), "{name}: {fate:?}");
    }
    // As over IPv4, one that is shorter than the least is filled up.
    let short = ethernet_frame(mac(1), BROADCAST, 0x88b5, &[7; 3]);
    let mut filled = short.clone();
    filled.resize(FRAME_BYTES_MIN as usize, 0);
    let fate = node.send("ep1", &short);
    let expected = tunnelled_v6((1, 2), false, 0, &filled);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)]);
    // Over IPv4 it does not come from there.
    let strange = tunnelled((2, 1), LONG, true, 0, &filled);
    check_drop(&mut node, UNDERLAY, &strange, DropReason::UnknownPeer);
}

#[test]
fn kernel_a_wire_follows_its_end_from_one_family_to_the_other() {
    let test = "kernel_a_wire_follows_its_end_from_one_family_to_the_other";
    let Some(mut node) = start_over_ipv6(test) else {
        return;
    };
    // The near end has moved from here to node 3, which has no IPv6 address, and the far one is at
    // node 2; then the other way round.
    let moved = |far: u32, near: u32| {
        let mut desired = over_ipv6();
        desired.endpoints.get_mut(&2).unwrap().node = far;
        let end = desired.endpoints.get_mut(&1).unwrap();
        (end.node, end.other, end.device) = (near, 1, "gone".to_owned());
        desired
    };
    assert!(node.dataplane().release(1).unwrap());
    node.apply(&moved(2, 3)).unwrap();
    for (name, frame) in frames() {
        let fate = node.send(UNDERLAY, &tunnelled_v6((2, 1), true, 0, &frame));
        // Its tag is beside it while the kernel shrinks it.
        let tag = &frame[12..][..frame.len() - untagged(&frame).len()];
        let shed = out_of_ipv6(&untagged(&frame));
        let shed = [&shed[..12], tag, &shed[12..]].concat();
        let onward = tunnelled((1, 3), LONG, true, 1, &shed);
        assert_eq!(
            fate.out,
            [(UNDERLAY.to_owned(), onward)],
            "{name}: {fate:?}"
        );
    }
    node.apply(&moved(3, 2)).unwrap();
    for (name, frame) in frames() {
        let fate = node.send(UNDERLAY, &tunnelled((3, 1), LONG, true, 0, &frame));
        let onward = tunnelled_v6((1, 2), true, 1, &frame);
        assert_eq!(
            fate.out,
            [(UNDERLAY.to_owned(), onward)],
            "{name}: {fate:?}"
        );
    }
    // Within the family it goes on as it is.
    node.apply(&moved(2, 2)).unwrap();
    let frame = frames().remove(3).1;
    let fate = node.send(UNDERLAY, &tunnelled_v6((2, 1), true, 0, &frame));
    let onward = tunnelled_v6((1, 2), true, 1, &frame);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), onward)], "{fate:?}");
}
