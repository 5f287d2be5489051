//! Wires: what goes into one end comes out of the other, whatever it is, and nothing else does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod wires {
    mod by_kernel;
    mod checksum;
    mod over_ipv6;
    mod taps;
}

use std::net::{Ipv4Addr, Ipv6Addr};

use fixture::{
    desired::{Policy, endpoint, network, node},
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{TestNode, VTEP},
    test_run::{Action, Metadata},
    wire::{Arp, Frame, OTHER_PORT, Transport, Tunnel, ethernet_frame, with_fixed_tunnel_port},
};
use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow_key::Field,
    headers::{ETHER_ARP, ETHER_QINQ, ETHER_VLAN},
    tables::{Copied, OUT_GROUP, OUT_OWNER},
    wire::FRAME_BYTES_MIN,
};
use sunwire_userspace::{
    groups::sets,
    maps::Capacity,
    state::{Desired, Endpoint, Network},
    wires::{Wire, WireTotal},
};

const VNI: u32 = 0x0a_0b_0c;
const MTU: u32 = 1400;
const BROADCAST: [u8; 6] = [0xff; 6];
/// LLDP's (IEEE 802.1AB), which bridges do not forward.
const NEAREST_BRIDGE: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0x0e];
/// Between endpoint 1 here and 2 at node 2.
const LONG: u32 = 0x12_34_56;
/// Between endpoint 3 and 4, both here.
const SHORT: u32 = 7;

fn mac(number: u32) -> [u8; 6] {
    [2, 0x73, 0, 0, 0, number as u8]
}

fn vtep(number: u32) -> Ipv4Addr {
    match number {
        1 => VTEP,
        _ => Ipv4Addr::new(192, 0, 2, number as u8),
    }
}

fn node_mac(number: u32) -> [u8; 6] {
    match number {
        1 => UNDERLAY_MAC,
        _ => [2, 0, 0, 0, 0xff, number as u8],
    }
}

/// A network without subnet.
fn cables() -> Network {
    let (v4, v6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    Network {
        prefix_v4: 0,
        prefix_v6: 0,
        ..network("cables", MTU, v4, v6, mac(254))
    }
}

/// Nodes 1 to 3; endpoints 1, 3, 4, 5 and 6 here, 2 and 7 at node 2, 8 at node 3. The endpoints
/// from 5 on are in no wire: their policy floods what is for all, and forwards the rest.
fn desired() -> Desired {
    let mut desired = Desired::default();
    for number in 1..=3 {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
    }
    desired.networks.insert(VNI, cables());
    for (number, device, at) in [
        (1, 1, 1),
        (2, 99, 2),
        (3, 2, 1),
        (4, 3, 1),
        (5, 4, 1),
        (6, 5, 1),
        (7, 99, 2),
        (8, 99, 3),
    ] {
        let endpoint = endpoint((VNI, number), device, mac(number), (None, None), at);
        desired.endpoints.insert(number, endpoint);
    }
    desired.wires.insert(LONG, wire("long", [1, 2]));
    desired.wires.insert(SHORT, wire("short", [4, 3]));
    let mut policy = Policy::new(VNI, "cables");
    let to = |out| Copied {
        out,
        ..Copied::default()
    };
    let flood = policy.leaf("flood", &[to(OUT_GROUP)]);
    let forward = policy.leaf("forward", &[to(OUT_OWNER)]);
    // The last 4 bytes of the broadcast address.
    let root = policy.test("to all", Field::EthDstLow, &[(0xffff_ffff, flood)], forward);
    policy.install(root, &mut desired);
    let leaf = desired.leaves.get_mut(&flood).unwrap();
    leaf.members = vec![members().into()];
    desired
}

/// Whom the policy floods to: ends of wires among them.
fn members() -> Vec<u32> {
    (1..=8).collect()
}

fn wire(name: &str, ends: [u32; 2]) -> Wire {
    Wire {
        name: name.to_owned(),
        vni: VNI,
        ends,
    }
}

fn start(test: &str) -> Option<TestNode> {
    let mut node = TestNode::new(test, 5, Capacity::default())?;
    for number in [2, 3] {
        node.resolve(vtep(number), node_mac(number));
    }
    node.apply(&desired()).expect("it fits");
    Some(node)
}

/// A tunnel of a wire, as it goes from one node to another.
fn tunnelled((from, to): (u32, u32), wire: u32, from_b: bool, hops: u8, inner: &[u8]) -> Vec<u8> {
    let bits = 0x08 | if from_b { 0x10 } else { 0 };
    let mut frame = Tunnel {
        eth_src: node_mac(from),
        eth_dst: node_mac(to),
        src: vtep(from).into(),
        dst: vtep(to).into(),
        vni: VNI,
        hops: hops | bits,
    }
    .wrap(inner);
    frame[43..46].copy_from_slice(&wire.to_be_bytes()[1..]);
    frame
}

fn with_tag(frame: &[u8], ether_type: u16, identifier: u16) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(ether_type.to_be_bytes());
    tagged.extend(identifier.to_be_bytes());
    tagged.extend(&frame[12..]);
    tagged
}

/// Frames of every kind, none with the addresses of an endpoint.
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let (stranger, other) = ([2, 9, 9, 9, 9, 1], [2, 9, 9, 9, 9, 2]);
    let ip = |v6: bool, payload| {
        let packet = |src: &str, dst: &str| Frame {
            eth_src: stranger,
            eth_dst: other,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            dscp: 46,
            transport: Transport::Udp(68, 67),
            payload,
        };
        match v6 {
            false => packet("0.0.0.0", "255.255.255.255").bytes(),
            true => packet("fe80::1", "ff02::1:2").bytes(),
        }
    };
    let arp = Arp {
        eth_src: stranger,
        eth_dst: BROADCAST,
        operation: 1,
        sender: (stranger, Ipv4Addr::new(10, 0, 0, 1)),
        target: ([0; 6], Ipv4Addr::new(10, 0, 0, 2)),
    }
    .bytes();
    let mut malformed = ip(false, 40);
    malformed[14] = 0x61;
    let mut largest = ip(false, MTU as usize - 28);
    largest[6..12].copy_from_slice(&BROADCAST);
    vec![
        ("ARP to all", arp.clone()),
        (
            "LLDP",
            ethernet_frame(stranger, NEAREST_BRIDGE, 0x88cc, &[3; 50]),
        ),
        ("a length in the place of an EtherType", {
            ethernet_frame(stranger, NEAREST_BRIDGE, 38, &[0x42; 38])
        }),
        ("IPv4 between strangers", ip(false, 100)),
        ("IPv6 between strangers", ip(true, 100)),
        ("IPv4 that is none", malformed),
        ("as much as fits", largest.clone()),
        ("a tagged ARP", with_tag(&arp, ETHER_VLAN, 0x6064)),
        ("tagged IPv4", with_tag(&ip(false, 64), ETHER_VLAN, 7)),
        ("tagged IPv6", with_tag(&ip(true, 64), ETHER_VLAN, 7)),
        ("as much as fits, tagged", with_tag(&largest, ETHER_VLAN, 7)),
        (
            "two tags",
            with_tag(&with_tag(&ip(false, 64), ETHER_VLAN, 7), ETHER_QINQ, 8),
        ),
    ]
}

/// What a packet socket sees of a frame: the kernel has taken its outermost tag off.
fn untagged(frame: &[u8]) -> Vec<u8> {
    match u16::from_be_bytes([frame[12], frame[13]]) {
        ETHER_VLAN | ETHER_QINQ => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}

fn counted(node: &mut TestNode) -> Vec<WireTotal> {
    let mut wires = node.dataplane().totals().unwrap().wires;
    wires.sort_by_key(|wire| (wire.number, wire.from_b));
    wires
}

#[test]
fn kernel_every_frame_goes_to_the_other_node_unchanged() {
    let Some(mut node) = start("kernel_every_frame_goes_to_the_other_node_unchanged") else {
        return;
    };
    let (mut packets, mut bytes) = (0, 0);
    for (name, frame) in frames() {
        let expected = tunnelled((1, 2), LONG, false, 0, &frame);
        let ran = node.test_run("ep1", &frame);
        assert_eq!(ran.action, Action::Redirect, "{name}: {:?}", ran.fate);
        assert_eq!(ran.frame, expected, "{name}");
        let fate = node.send("ep1", &frame);
        assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)], "{name}");
        assert!(
            fate.drops.is_empty() && fate.asked.is_empty(),
            "{name}: {fate:?}"
        );
        assert!(fate.labels.is_empty(), "{name}: policy was asked");
        packets += 2;
        // What the kernel has taken off is no part of the packet any more.
        bytes += (frame.len() + untagged(&frame).len()) as u64;
    }
    let wires = counted(&mut node);
    let of = |number, from_b| {
        wires
            .iter()
            .find(|w| w.number == number && w.from_b == from_b)
    };
    let long = of(LONG, false).unwrap().total;
    assert_eq!((long.packets, long.bytes), (packets, bytes));
    assert_eq!(of(LONG, true).unwrap().total.packets, 0);
    assert_eq!(of(SHORT, false).unwrap().total.packets, 0);
}

#[test]
fn kernel_every_frame_of_the_other_node_comes_out_unchanged() {
    let Some(mut node) = start("kernel_every_frame_of_the_other_node_comes_out_unchanged") else {
        return;
    };
    for (name, frame) in frames() {
        let fate = node.send(UNDERLAY, &tunnelled((2, 1), LONG, true, 0, &frame));
        assert_eq!(
            fate.out,
            [("ep1".to_owned(), untagged(&frame))],
            "{name}: {fate:?}"
        );
        assert!(fate.drops.is_empty(), "{name}: {fate:?}");
    }
}

#[test]
fn kernel_every_frame_goes_to_the_other_end_on_the_same_node() {
    let Some(mut node) = start("kernel_every_frame_goes_to_the_other_end_on_the_same_node") else {
        return;
    };
    for (name, frame) in frames() {
        for (from, to) in [("ep2", "ep3"), ("ep3", "ep2")] {
            let fate = node.send(from, &frame);
            assert_eq!(
                fate.out,
                [(to.to_owned(), untagged(&frame))],
                "{name}: {fate:?}"
            );
            assert!(fate.drops.is_empty(), "{name}: {fate:?}");
        }
    }
    let totals = counted(&mut node);
    let all = frames().len() as u64;
    let short = totals.iter().filter(|wire| wire.number == SHORT);
    let packets: Vec<_> = short.map(|wire| wire.total.packets).collect();
    assert_eq!(packets, [all, all]);
}

#[test]
fn kernel_frames_of_wires_go_to_the_port_of_their_network() {
    let Some(mut node) = start("kernel_frames_of_wires_go_to_the_port_of_their_network") else {
        return;
    };
    let mut state = desired();
    state.networks.get_mut(&VNI).unwrap().port = OTHER_PORT;
    node.hold_port(OTHER_PORT);
    node.apply(&state).unwrap();
    let to_port = |mut frame: Vec<u8>| {
        frame[36..38].copy_from_slice(&OTHER_PORT.to_be_bytes());
        frame
    };
    let frame = frames().remove(3).1;
    let expected = to_port(tunnelled((1, 2), LONG, false, 0, &frame));
    let fate = node.send("ep1", &frame);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)]);
    let arriving = to_port(tunnelled((2, 1), LONG, true, 0, &frame));
    let fate = node.send(UNDERLAY, &arriving);
    assert_eq!(fate.out, [("ep1".to_owned(), frame)]);
}

#[test]
fn kernel_a_frame_shorter_than_the_least_is_filled_up_between_nodes() {
    let test = "kernel_a_frame_shorter_than_the_least_is_filled_up_between_nodes";
    let Some(mut node) = start(test) else {
        return;
    };
    let frame = ethernet_frame(mac(1), BROADCAST, 0x88b5, &[7; 3]);
    let mut filled = frame.clone();
    filled.resize(FRAME_BYTES_MIN as usize, 0);
    let fate = node.send("ep1", &frame);
    let expected = tunnelled((1, 2), LONG, false, 0, &filled);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), expected)]);
    let fate = node.send(UNDERLAY, &tunnelled((2, 1), LONG, true, 0, &filled));
    assert_eq!(fate.out, [("ep1".to_owned(), filled)]);
}

#[track_caller]
fn check_drop(node: &mut TestNode, device: &str, frame: &[u8], reason: DropReason) {
    let fate = node.send(device, frame);
    assert_eq!(fate.out, [], "{reason:?} was expected");
    assert_eq!(fate.drops.into_iter().collect::<Vec<_>>(), [(reason, 1)]);
}

#[test]
fn kernel_what_no_wire_brings_is_dropped() {
    let Some(mut node) = start("kernel_what_no_wire_brings_is_dropped") else {
        return;
    };
    let frame = frames().remove(3).1;
    let too_long = ethernet_frame(mac(1), mac(2), 0x88b5, &vec![1; MTU as usize + 1]);
    let too_long_tagged = with_tag(&too_long, ETHER_VLAN, 7);
    let mut cases = vec![
        ("ep1", too_long.clone(), DropReason::TooBig),
        ("ep1", too_long_tagged, DropReason::TooBig),
        ("ep2", too_long, DropReason::TooBig),
    ];
    let arriving = [
        // No wire of this number.
        ((2, 1), SHORT + 1, true, 0, DropReason::NoWire),
        // The other end lives here, and not there.
        ((2, 1), LONG, false, 0, DropReason::SourceNotThere),
        // That end lives at another node.
        ((3, 1), LONG, true, 0, DropReason::SourceNotThere),
        // Both ends live here.
        ((2, 1), SHORT, true, 0, DropReason::SourceNotThere),
        ((9, 1), LONG, true, 0, DropReason::UnknownPeer),
    ];
    for (nodes, number, from_b, hops, reason) in arriving {
        let frame = tunnelled(nodes, number, from_b, hops, &frame);
        cases.push((UNDERLAY, frame, reason));
    }
    let mut of_another_network = tunnelled((2, 1), LONG, true, 0, &frame);
    of_another_network[48] ^= 1;
    cases.push((UNDERLAY, of_another_network, DropReason::NoWire));
    for (device, frame, reason) in cases {
        check_drop(&mut node, device, &frame, reason);
    }
    // Nothing of this was counted as sent into a wire.
    assert!(
        counted(&mut node)
            .iter()
            .all(|wire| wire.total.packets == 0)
    );
}

#[test]
fn kernel_a_disconnected_wire_carries_nothing_in_either_direction() {
    let test = "kernel_a_disconnected_wire_carries_nothing_in_either_direction";
    let Some(mut node) = start(test) else {
        return;
    };
    let frame = frames().remove(3).1;
    let arriving = tunnelled((2, 1), LONG, true, 0, &frame);
    assert_eq!(node.send(UNDERLAY, &arriving).out.len(), 1);
    let mut without = desired();
    without.wires.remove(LONG);
    node.apply(&without).unwrap();
    check_drop(&mut node, UNDERLAY, &arriving, DropReason::NoWire);
    // The endpoint is one as others now: what it sends is asked about, and must be its own.
    check_drop(&mut node, "ep1", &frame, DropReason::SpoofedSource);
    let known: Vec<u32> = counted(&mut node).iter().map(|wire| wire.number).collect();
    assert_eq!(known, [SHORT, SHORT]);
    // Connected to another one, the old wire's frames still do not arrive.
    without.wires.insert(LONG + 1, wire("next", [1, 7]));
    node.apply(&without).unwrap();
    check_drop(&mut node, UNDERLAY, &arriving, DropReason::NoWire);
    let expected = tunnelled((1, 2), LONG + 1, false, 0, &frame);
    assert_eq!(
        node.send("ep1", &frame).out,
        [(UNDERLAY.to_owned(), expected)]
    );
}

#[test]
fn kernel_a_wire_follows_both_ends() {
    let Some(mut node) = start("kernel_a_wire_follows_both_ends") else {
        return;
    };
    let frame = frames().remove(3).1;
    let move_end = |desired: &mut Desired, number, node, other, moving| {
        let endpoint = desired.endpoints.get_mut(&number).unwrap();
        *endpoint = Endpoint {
            node,
            other,
            moving,
            ..endpoint.clone()
        };
    };
    // The far end moves from node 2 to node 3: heard from both, spoken to at node 2.
    let mut state = desired();
    move_end(&mut state, 2, 2, 3, true);
    node.apply(&state).unwrap();
    for from in [2, 3] {
        let fate = node.send(UNDERLAY, &tunnelled((from, 1), LONG, true, 0, &frame));
        assert_eq!(
            fate.out,
            [("ep1".to_owned(), frame.clone())],
            "from node {from}"
        );
    }
    let out = node.send("ep1", &frame).out;
    assert_eq!(out[0].1, tunnelled((1, 2), LONG, false, 0, &frame));
    // It is there.
    move_end(&mut state, 2, 3, 2, false);
    node.apply(&state).unwrap();
    let out = node.send("ep1", &frame).out;
    assert_eq!(out[0].1, tunnelled((1, 3), LONG, false, 0, &frame));

    // The near end moves from here to node 2: what arrives after its device has gone goes on.
    move_end(&mut state, 1, 1, 2, true);
    node.apply(&state).unwrap();
    assert!(node.dataplane().release(1).unwrap());
    let mut around = state.clone();
    around.endpoints.get_mut(&1).unwrap().device = "gone".to_owned();
    node.apply(&around).unwrap();
    let arriving = tunnelled((3, 1), LONG, true, 0, &frame);
    let forwarded = tunnelled((1, 2), LONG, true, 1, &frame);
    let fate = node.send(UNDERLAY, &arriving);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), forwarded.clone())]);
    move_end(&mut around, 1, 2, 1, false);
    node.apply(&around).unwrap();
    let fate = node.send(UNDERLAY, &arriving);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), forwarded)]);
    // It does not go round for ever, and a node may forward only for who lived there.
    let tired = tunnelled((3, 1), LONG, true, 7, &frame);
    check_drop(&mut node, UNDERLAY, &tired, DropReason::InTransit);
    let strange = tunnelled((2, 1), SHORT, true, 1, &frame);
    check_drop(&mut node, UNDERLAY, &strange, DropReason::SourceNotThere);
}

#[test]
fn kernel_an_end_whose_other_end_is_missing_sends_nothing() {
    let test = "kernel_an_end_whose_other_end_is_missing_sends_nothing";
    let Some(mut node) = start(test) else {
        return;
    };
    let mut state = desired();
    state.endpoints.get_mut(&4).unwrap().device = "gone".to_owned();
    node.apply(&state).unwrap();
    let frame = frames().remove(0).1;
    check_drop(&mut node, "ep2", &frame, DropReason::NotAttached);
}

#[test]
fn kernel_policy_sends_nothing_to_ends_of_wires() {
    let Some(mut node) = start("kernel_policy_sends_nothing_to_ends_of_wires") else {
        return;
    };
    // To all but the ends of wires: 6 here, 7 and 8 elsewhere.
    let to_all = ethernet_frame(mac(5), BROADCAST, 0x88b5, &[1; 60]);
    let fate = node.send("ep4", &to_all);
    let devices: Vec<&str> = fate.out.iter().map(|(device, _)| device.as_str()).collect();
    assert_eq!(devices, ["ep5", UNDERLAY, UNDERLAY]);
    let to_end = ethernet_frame(mac(5), mac(1), 0x88b5, &[1; 60]);
    check_drop(&mut node, "ep4", &to_end, DropReason::NoOwner);
    // From another node neither, whoever it says it is from.
    for (from, reason) in [(7, DropReason::NotHere), (2, DropReason::NotHere)] {
        let inner = ethernet_frame(mac(from), mac(1), 0x88b5, &[1; 60]);
        let frame = Tunnel {
            eth_src: node_mac(2),
            eth_dst: node_mac(1),
            src: vtep(2).into(),
            dst: vtep(1).into(),
            vni: VNI,
            hops: 0,
        }
        .wrap(&inner);
        check_drop(&mut node, UNDERLAY, &frame, reason);
    }
}

#[test]
fn kernel_a_traced_frame_says_which_wire_it_goes_by_and_counts_nothing() {
    let test = "kernel_a_traced_frame_says_which_wire_it_goes_by_and_counts_nothing";
    let Some(mut node) = start(test) else {
        return;
    };
    let frame = frames().remove(0).1;
    let arrival = sunwire_userspace::telemetry::step::Arrival {
        ifindex: node.ifindex("ep1"),
        frame: &frame,
        ..Default::default()
    };
    let steps = node.dataplane().trace(&arrival).unwrap();
    assert_eq!(steps.len(), 1);
    assert!(steps[0].wire && steps[0].outer);
    let expected = tunnelled((1, 2), LONG, false, 0, &frame);
    assert_eq!(with_fixed_tunnel_port(steps[0].frame.clone()), expected);
    assert!(
        counted(&mut node)
            .iter()
            .all(|wire| wire.total.packets == 0)
    );
}

#[test]
fn kernel_a_wire_between_clouds_takes_nothing_in_the_clear() {
    let test = "kernel_a_wire_between_clouds_takes_nothing_in_the_clear";
    let Some(mut node) = start(test) else {
        return;
    };
    let mut state = desired();
    state.encryption = EncryptionMode::BetweenClouds;
    let abroad = state.nodes.get_mut(&2).unwrap();
    abroad.cloud = "abroad".to_owned();
    node.apply(&state).unwrap();
    let (_, frame) = frames().remove(8);
    // Its node has announced no key.
    check_drop(&mut node, "ep1", &frame, DropReason::NoTunnel);
    let arriving = tunnelled((2, 1), LONG, true, 0, &frame);
    check_drop(&mut node, UNDERLAY, &arriving, DropReason::Unencrypted);
    state.nodes.get_mut(&2).unwrap().public_keys = vec![PublicKey([7; 32])];
    node.encrypt_by("ep5");
    node.apply(&state).unwrap();
    let fate = node.send("ep1", &frame);
    let [(device, wrapped)] = &fate.out[..] else {
        panic!("{fate:?}");
    };
    assert_eq!(device, "ep5");
    assert_eq!(wrapped[50..], frame);
    // In a network that is encrypted nowhere it goes in the clear, and comes so.
    let network = state.networks.values_mut().next().unwrap();
    network.encryption = NetworkEncryption::Never;
    node.apply(&state).unwrap();
    let fate = node.send("ep1", &frame);
    let leaving = tunnelled((1, 2), LONG, false, 0, &frame);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), leaving)], "{fate:?}");
    let fate = node.send(UNDERLAY, &arriving);
    let expected = [("ep1".to_owned(), untagged(&frame))];
    assert_eq!(fate.out, expected, "{fate:?}");
}

#[test]
fn kernel_super_packets_are_measured_by_their_segments() {
    let test = "kernel_super_packets_are_measured_by_their_segments";
    let Some(mut node) = start(test) else {
        return;
    };
    let packet = Frame {
        eth_src: mac(1),
        eth_dst: mac(2),
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        dscp: 0,
        transport: Transport::Tcp(5000, 6000),
        payload: 3000,
    };
    let gso = |gso_size| Metadata {
        gso_size,
        ..Metadata::default()
    };
    let fits = MTU - 40;
    for (frame, gso_size, action) in [
        (packet.bytes(), fits, Action::Redirect),
        (packet.bytes(), fits + 1, Action::Shot),
    ] {
        // By test run the kernel makes no tunnel of super-packets: to the end on the same node.
        let ran = node.test_run_with("ep2", &frame, gso(gso_size));
        assert_eq!(ran.action, action, "{gso_size}: {:?}", ran.fate);
    }
}

#[test]
fn kernel_without_a_subnet_frames_go_by_their_mac_address() {
    let test = "kernel_without_a_subnet_frames_go_by_their_mac_address";
    let Some(mut node) = start(test) else {
        return;
    };
    let to_node = |number, inner: &[u8]| {
        let frame = Tunnel {
            eth_src: node_mac(1),
            eth_dst: node_mac(number),
            src: vtep(1).into(),
            dst: vtep(number).into(),
            vni: VNI,
            hops: 0,
        };
        (UNDERLAY.to_owned(), frame.wrap(inner))
    };
    let packet = |eth_dst, src: &str, dst: &str, port| {
        Frame {
            eth_src: mac(5),
            eth_dst,
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            dscp: 0,
            transport: Transport::Udp(port, 67),
            payload: 30,
        }
        .bytes()
    };
    // Whatever addresses there are, and the same flow to one after the other.
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        for _ in 0..2 {
            for (to, device) in [(6, "ep5"), (7, UNDERLAY), (8, UNDERLAY)] {
                let frame = packet(mac(to), src, dst, 5000);
                let fate = node.send("ep4", &frame);
                let expected = match device {
                    "ep5" => ("ep5".to_owned(), frame),
                    _ => to_node(to - 5, &frame),
                };
                assert_eq!(fate.out, [expected], "to {to}: {fate:?}");
            }
        }
    }
    // Answers and questions of ARP, and of DHCP, are the workloads' own matter.
    let answer = ethernet_frame(mac(5), mac(7), ETHER_ARP, &[2; 28]);
    assert_eq!(node.send("ep4", &answer).out, [to_node(2, &answer)]);
    let mut request = packet(BROADCAST, "0.0.0.0", "255.255.255.255", 68);
    let arp = ethernet_frame(mac(5), BROADCAST, ETHER_ARP, &[1; 28]);
    for frame in [&mut request, &mut arp.clone()] {
        let fate = node.send("ep4", frame);
        assert!(fate.asked.is_empty() && fate.drops.is_empty(), "{fate:?}");
        let tag = sets::tag(&sets::digest(&members()));
        let tagged = |number| {
            let (device, mut wrapped) = to_node(number, frame);
            wrapped[43..46].copy_from_slice(&tag.to_be_bytes()[1..]);
            (device, wrapped)
        };
        let expected = vec![("ep5".to_owned(), frame.clone()), tagged(2), tagged(3)];
        assert_eq!(fate.out, expected);
    }
    // Another's MAC address cannot be borrowed, and one that nobody has leads nowhere.
    let borrowed = ethernet_frame(mac(6), mac(7), 0x88b5, &[2; 60]);
    check_drop(&mut node, "ep4", &borrowed, DropReason::SpoofedSource);
    let nowhere = packet([2, 9, 9, 9, 9, 9], "10.0.0.1", "10.0.0.2", 5000);
    check_drop(&mut node, "ep4", &nowhere, DropReason::NoOwner);
    let tagged = with_tag(&borrowed, ETHER_VLAN, 7);
    check_drop(&mut node, "ep4", &tagged, DropReason::Vlan);
    let too_long = packet(mac(6), "10.0.0.1", "10.0.0.2", 5000);
    let too_long = [too_long, vec![0; MTU as usize]].concat();
    check_drop(&mut node, "ep4", &too_long, DropReason::TooBig);
}
