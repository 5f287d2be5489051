//! Where both decide: the node that a packet is for drops what its own policy would not have let
//! through, whoever sends it, and delivers the rest.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::Ipv4Addr,
};

use fixture::{
    desired::node,
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{Fate, OWN, TestNode, VTEP},
    policy::{frame, install},
    wire::{Frame, Transport, Tunnel, fragment},
    world::{self, VNI, by_family, resolved},
};
use proptest::prelude::*;
use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_policy::{
    compile::{Options, compile},
    environment::Environment,
    evaluate,
    judge::not_judgeable,
    lower::{Capacity as Most, lower},
    packet::{Packet, Place},
    parse, resolve,
    tables::FlowTables,
    testing::{Kind, document, environment, for_all, packets, policies},
};
use sunwire_userspace::{
    connections::tables::Tables,
    groups::sets,
    maps::Capacity,
    state::Desired,
    telemetry::step::{Arrival, StepOutcome},
};

const OTHER: u32 = 2;
const THIRD: u32 = 3;
const WEB: u32 = 1;
const WEB_2: u32 = 2;
const DB: u32 = 3;
/// At the other node.
const CLIENT: u32 = 4;
/// At the other node.
const LEGACY: u32 = 5;
/// Policies that are tried when `SUNWIRE_CASES` does not say how many.
const POLICIES: u32 = 150;
const PACKETS: usize = 30;

const SSH: Transport = Transport::Tcp(4000, 22);
const WEB_PORT: Transport = Transport::Tcp(4000, 80);
const ONLY_WEB: &str = "policy main = if tcp and dst port 80 then forward else drop \"only web\"";

fn vtep(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 100 + number as u8)
}

fn node_mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xff, 100 + number as u8]
}

fn from_node(number: u32) -> Tunnel {
    Tunnel {
        eth_src: node_mac(number),
        eth_dst: UNDERLAY_MAC,
        src: vtep(number).into(),
        dst: VTEP.into(),
        vni: VNI,
        hops: 0,
    }
}

fn mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 20, number as u8]
}

/// Network `shop`: endpoints 1 to 3 here, 4 and 5 at the other node.
struct World {
    node: TestNode,
    environment: Environment,
}

fn start(test: &str) -> Option<World> {
    let capacity = Capacity {
        flows: 1 << 12,
        ..Capacity::default()
    };
    let mut node = TestNode::new(test, 6, capacity)?;
    for number in [OTHER, THIRD] {
        node.resolve(vtep(number), node_mac(number));
    }
    let environment = environment();
    Some(World { node, environment })
}

/// The cloud without policy, where both decide or the entry node alone.
fn lawless(environment: &Environment, both: bool) -> Desired {
    let mut desired = world::lawless(environment, |number| if number <= 3 { OWN } else { OTHER });
    desired.networks.get_mut(&VNI).unwrap().enforced = both;
    desired.nodes.insert(OWN, node("n1", VTEP));
    for number in [OTHER, THIRD] {
        desired
            .nodes
            .insert(number, node(&format!("n{number}"), vtep(number)));
    }
    desired
}

impl World {
    fn desired(&self, policy: &str, both: bool) -> Desired {
        let mut desired = lawless(&self.environment, both);
        world::put(&resolved(&self.environment, policy), &mut desired);
        desired
    }

    fn apply(&mut self, policy: &str, both: bool) {
        let desired = self.desired(policy, both);
        self.node.apply(&desired).unwrap();
    }

    /// A frame as it is delivered.
    fn frame(&self, (from, to): (u32, u32), transport: Transport) -> Frame {
        self.frame_of((from, to), true, transport)
    }

    fn frame_of(&self, (from, to): (u32, u32), is_v4: bool, transport: Transport) -> Frame {
        let address = |number: u32| {
            let mut all = self.environment.endpoints.iter();
            let one = all.find(|one| one.number == number).unwrap();
            let mut addresses = one.addresses.iter();
            *addresses.find(|one| one.is_ipv4() == is_v4).unwrap()
        };
        Frame {
            eth_src: mac(from),
            eth_dst: mac(to),
            src: address(from),
            dst: address(to),
            dscp: 0,
            transport,
            payload: 40,
        }
    }

    /// Lets the other node send a frame to an endpoint here; tells why it was dropped, if it was.
    fn receive(&mut self, to: u32, inner: &[u8]) -> Option<DropReason> {
        let fate = self.node.send(UNDERLAY, &from_node(OTHER).wrap(inner));
        judged(&fate, to, inner)
    }

    /// Lets an endpoint here send a frame.
    fn send(&mut self, from: u32, frame: &Frame) {
        let fate = self.node.send(&format!("ep{from}"), &frame.bytes());
        assert_eq!(fate.drops, BTreeMap::new());
    }
}

/// Why a frame for an endpoint was dropped, if it was. The receiver counts nothing.
fn judged(fate: &Fate, to: u32, inner: &[u8]) -> Option<DropReason> {
    assert_eq!(fate.labels, BTreeMap::new(), "labels are the entry node's");
    assert_eq!(fate.counts, BTreeMap::new(), "counts are the entry node's");
    let mut drops = fate.drops.iter();
    let reason = drops.next().map(|(reason, count)| {
        assert_eq!(*count, 1);
        *reason
    });
    assert_eq!(drops.next(), None);
    match reason {
        None => assert_eq!(fate.out, [(format!("ep{to}"), inner.to_vec())]),
        Some(_) => assert_eq!(fate.out, []),
    }
    reason
}

const REFUSED: Option<DropReason> = Some(DropReason::ReceiverPolicy);

#[test]
fn kernel_what_a_trusted_node_should_not_have_sent_is_dropped_where_both_decide() {
    let test = "kernel_what_a_trusted_node_should_not_have_sent_is_dropped_where_both_decide";
    let Some(mut world) = start(test) else { return };
    for is_v4 in [true, false] {
        let forbidden = world.frame_of((CLIENT, WEB), is_v4, SSH).bytes();
        let admitted = world.frame_of((CLIENT, WEB), is_v4, WEB_PORT).bytes();
        // Each twice: the second by what is remembered of the first.
        for _ in 0..2 {
            world.apply(ONLY_WEB, false);
            assert_eq!(
                world.receive(WEB, &forbidden),
                None,
                "the entry node decides"
            );
            world.apply(ONLY_WEB, true);
            for _ in 0..2 {
                assert_eq!(world.receive(WEB, &admitted), None);
                assert_eq!(world.receive(WEB, &forbidden), REFUSED);
            }
        }
    }
    // One that the policy sends elsewhere is not for this endpoint either.
    let diverted = Frame {
        eth_dst: mac(DB),
        ..world.frame((CLIENT, WEB), WEB_PORT)
    };
    assert_eq!(world.receive(DB, &diverted.bytes()), REFUSED);
    world.apply("policy main = port := db1", true);
    assert_eq!(world.receive(DB, &diverted.bytes()), None);
}

#[test]
fn kernel_replies_are_admitted_while_the_policy_admits_what_they_answer() {
    let test = "kernel_replies_are_admitted_while_the_policy_admits_what_they_answer";
    let Some(mut world) = start(test) else { return };
    let policy = "policy main = if src = web1 and tcp and dst port 443 then forward
        else if established then forward else drop";
    world.apply(policy, true);
    let asked = world.frame((WEB, CLIENT), Transport::Tcp(5000, 443));
    let reply = world
        .frame((CLIENT, WEB), Transport::Tcp(443, 5000))
        .bytes();
    assert_eq!(world.receive(WEB, &reply), REFUSED, "nobody has asked");
    world.send(WEB, &asked);
    for _ in 0..3 {
        assert_eq!(world.receive(WEB, &reply), None);
    }
    let another = world
        .frame((CLIENT, WEB), Transport::Tcp(443, 5001))
        .bytes();
    assert_eq!(world.receive(WEB, &another), REFUSED);
    // What the receiver has admitted is no reason for the sender's own packets to be replies.
    let from_legacy = world
        .frame((LEGACY, WEB), Transport::Tcp(443, 5000))
        .bytes();
    assert_eq!(world.receive(WEB, &from_legacy), REFUSED);
    // A new generation that does not admit what they answer ends them here, too.
    world.apply("policy main = drop", true);
    assert_eq!(world.receive(WEB, &reply), Some(DropReason::Revoked));
    assert_eq!(world.receive(WEB, &reply), REFUSED);
    world.apply(policy, true);
    assert_eq!(world.receive(WEB, &reply), REFUSED, "it was forgotten");
}

#[test]
fn kernel_errors_about_what_was_sent_are_admitted_as_related() {
    let test = "kernel_errors_about_what_was_sent_are_admitted_as_related";
    let Some(mut world) = start(test) else { return };
    let policy = "policy main = if src = web1 and udp then forward
        else if conn = related then forward else drop";
    world.apply(policy, true);
    let sent = world.frame((WEB, CLIENT), Transport::Udp(5000, 53));
    let quoted = &sent.bytes()[14..14 + 28];
    let error = |world: &World, from: u32| {
        let icmp = Frame {
            payload: quoted.len(),
            ..world.frame((from, WEB), Transport::Icmp(3, 3))
        };
        icmp.bytes_with(quoted)
    };
    let (from_client, from_legacy) = (error(&world, CLIENT), error(&world, LEGACY));
    assert_eq!(world.receive(WEB, &from_client), REFUSED);
    world.send(WEB, &sent);
    assert_eq!(world.receive(WEB, &from_client), None);
    assert_eq!(
        world.receive(WEB, &from_legacy),
        REFUSED,
        "it got no such packet"
    );
}

#[test]
fn kernel_parts_of_packets_are_judged_by_the_ports_of_the_first() {
    let test = "kernel_parts_of_packets_are_judged_by_the_ports_of_the_first";
    let Some(mut world) = start(test) else { return };
    world.apply(
        "policy main = if udp and dst port 80 then forward else drop",
        true,
    );
    let parts = |world: &World, port: u16, payload: usize| {
        let whole = Frame {
            payload,
            ..world.frame((CLIENT, WEB), Transport::Udp(4000, port))
        };
        (
            fragment(whole.bytes(), 0, true),
            fragment(whole.bytes(), 6, false),
        )
    };
    let (first, later) = parts(&world, 80, 40);
    assert_eq!(world.receive(WEB, &later), Some(DropReason::Fragment));
    assert_eq!(world.receive(WEB, &first), None);
    assert_eq!(world.receive(WEB, &later), None);
    let (first, later) = parts(&world, 22, 40);
    assert_eq!(world.receive(WEB, &first), REFUSED);
    assert_eq!(world.receive(WEB, &later), REFUSED);
}

#[test]
fn kernel_what_old_and_new_policy_admit_passes_whichever_node_flips_first() {
    let test = "kernel_what_old_and_new_policy_admit_passes_whichever_node_flips_first";
    let Some(mut world) = start(test) else { return };
    let old = "policy main = if tcp and dst port in {80, 22} then forward else drop";
    let new = "policy main = if tcp and dst port in {80, 443} then forward else drop";
    let to = |world: &World, port: u16| {
        let frame = world.frame((CLIENT, WEB), Transport::Tcp(4000, port));
        frame.bytes()
    };
    let (kept, ended, begun) = (to(&world, 80), to(&world, 22), to(&world, 443));
    world.apply(old, true);
    assert_eq!(world.receive(WEB, &kept), None);
    assert_eq!(world.receive(WEB, &ended), None);
    // The sender has flipped, and this node has not.
    assert_eq!(world.receive(WEB, &begun), REFUSED);
    for policy in [new, old, new] {
        // And the other way round: whatever the generation, and remembered or not.
        world.apply(policy, true);
        for _ in 0..2 {
            assert_eq!(world.receive(WEB, &kept), None);
        }
    }
    assert_eq!(world.receive(WEB, &begun), None);
    assert_eq!(world.receive(WEB, &ended), Some(DropReason::Revoked));
    assert_eq!(world.receive(WEB, &ended), REFUSED);
}

#[test]
fn kernel_the_receiver_counts_and_takes_nothing() {
    let test = "kernel_the_receiver_counts_and_takes_nothing";
    let Some(mut world) = start(test) else { return };
    // One packet a second, and each is counted, logged, and copied to another endpoint.
    world.apply(
        "policy main = count all; log \"seen\"; limit 1/s per src; (forward + mirror to db1)",
        true,
    );
    let inner = world.frame((CLIENT, WEB), Transport::Udp(1, 2)).bytes();
    for _ in 0..4 {
        assert_eq!(world.receive(WEB, &inner), None);
    }
    // The copy comes by itself, for whom it is.
    let copy = Frame {
        eth_dst: mac(DB),
        ..world.frame((CLIENT, WEB), Transport::Udp(1, 2))
    };
    assert_eq!(world.receive(DB, &copy.bytes()), None);
    let elsewhere = Frame {
        eth_dst: mac(WEB_2),
        ..copy
    };
    assert_eq!(world.receive(WEB_2, &elsewhere.bytes()), REFUSED);
}

#[test]
fn kernel_what_a_flow_does_not_say_is_not_remembered_of_it() {
    let test = "kernel_what_a_flow_does_not_say_is_not_remembered_of_it";
    let Some(mut world) = start(test) else { return };
    world.apply("policy main = if dscp = 10 then forward else drop", true);
    let with = |world: &World, dscp: u8| {
        let frame = Frame {
            dscp,
            ..world.frame((CLIENT, WEB), WEB_PORT)
        };
        frame.bytes()
    };
    let (marked, plain) = (with(&world, 10), with(&world, 0));
    for _ in 0..2 {
        assert_eq!(world.receive(WEB, &marked), None);
        assert_eq!(world.receive(WEB, &plain), REFUSED);
    }
    // Where the sender is counts as it is when the packet comes.
    let policy = "policy main = if node = n2 then forward else drop";
    world.apply(policy, true);
    assert_eq!(world.receive(WEB, &plain), None);
    let mut desired = world.desired(policy, true);
    let client = desired.endpoints.get_mut(&CLIENT).unwrap();
    (client.other, client.moving) = (THIRD, true);
    world.node.apply(&desired).unwrap();
    for at in [OTHER, THIRD] {
        let fate = world.node.send(UNDERLAY, &from_node(at).wrap(&plain));
        assert_eq!(judged(&fate, WEB, &plain), None, "it is on its way");
    }
    let client = desired.endpoints.get_mut(&CLIENT).unwrap();
    (client.node, client.other, client.moving) = (THIRD, 0, false);
    world.node.apply(&desired).unwrap();
    let fate = world.node.send(UNDERLAY, &from_node(THIRD).wrap(&plain));
    assert_eq!(judged(&fate, WEB, &plain), REFUSED);
}

#[test]
fn kernel_frames_without_addresses_are_judged_too() {
    let test = "kernel_frames_without_addresses_are_judged_too";
    let Some(mut world) = start(test) else { return };
    let bare = fixture::wire::ethernet_frame(mac(CLIENT), mac(WEB), 0x88b5, &[7; 46]);
    world.apply(
        "policy main = if ethTyp = 0x88b5 then forward else drop",
        true,
    );
    assert_eq!(world.receive(WEB, &bare), None);
    world.apply(
        "policy main = if ethTyp = 0x88b6 then forward else drop",
        true,
    );
    assert_eq!(world.receive(WEB, &bare), REFUSED);
}

#[test]
fn kernel_copies_for_several_come_to_those_that_this_nodes_policy_names() {
    let test = "kernel_copies_for_several_come_to_those_that_this_nodes_policy_names";
    let Some(mut world) = start(test) else { return };
    let broadcast = Frame {
        eth_dst: [0xff; 6],
        dst: Ipv4Addr::new(10, 20, 255, 255).into(),
        ..world.frame((CLIENT, WEB), Transport::Udp(1, 2))
    };
    let both = sets::tag(&sets::digest(&[WEB, DB]));
    let one = sets::tag(&sets::digest(&[WEB]));
    let receive = |world: &mut World, tag: u32| {
        let fate = world.node.send(
            UNDERLAY,
            &from_node(OTHER).wrap_for(tag, &broadcast.bytes()),
        );
        let devices: Vec<String> = fate.out.into_iter().map(|(device, _)| device).collect();
        (devices, fate.drops.into_keys().collect::<Vec<_>>())
    };
    let to_both = "set few = { web1, db1 } policy main = if ethDst = ff:ff:ff:ff:ff:ff then multicast few else forward";
    let to_one = "set few = { web1 } policy main = if ethDst = ff:ff:ff:ff:ff:ff then multicast few else forward";
    let ep = |number: u32| format!("ep{number}");
    world.apply(to_both, true);
    assert_eq!(receive(&mut world, both), (vec![ep(WEB), ep(DB)], vec![]));
    // The other node has an earlier set, or a later one.
    world.apply(to_one, true);
    assert_eq!(receive(&mut world, both), (vec![ep(WEB)], vec![]));
    assert_eq!(receive(&mut world, one), (vec![ep(WEB)], vec![]));
    world.apply(
        "policy main = if ethDst = ff:ff:ff:ff:ff:ff then drop else forward",
        true,
    );
    let refused = (vec![], vec![DropReason::ReceiverPolicy]);
    assert_eq!(receive(&mut world, both), refused);
    // The frame to one of them that only many get.
    world.apply(to_both, true);
    let single = Frame {
        eth_dst: mac(WEB),
        ..broadcast
    };
    assert_eq!(world.receive(WEB, &single.bytes()), REFUSED);
}

#[test]
fn kernel_what_crosses_is_judged_by_the_tables_of_the_network_where_it_entered() {
    let test = "kernel_what_crosses_is_judged_by_the_tables_of_the_network_where_it_entered";
    let Some(mut world) = start(test) else { return };
    const LAB: u32 = 200;
    const BENCH: u32 = 9;
    let shop = "network shop policy main = if dst in { 10.20.0.0/16, fd00:14::/64 } and dst port 22
        then drop else forward";
    let lab = "network lab policy main = if dst port 80 then drop else forward";
    for (one, other, text) in [(0, "lab", shop), (1, "shop", lab)] {
        let network = &mut world.environment.networks[one];
        network.peers = vec![other.to_owned()];
        network.policy = Some(text.into());
    }
    let mut desired = lawless(&world.environment, true);
    let mut lab_network = desired.networks[&VNI].clone();
    lab_network.name = "lab".to_owned();
    lab_network.enforced = false;
    lab_network.peers = vec![VNI];
    lab_network.gateway_v4 = sunwire_dataplane_common::address::Address::v4([10, 30, 255, 254]);
    desired.networks.insert(LAB, lab_network);
    desired.networks.get_mut(&VNI).unwrap().peers = vec![LAB];
    let mut all = world.environment.endpoints.iter();
    let bench = all.find(|one| one.number == BENCH).unwrap();
    let at = by_family(&bench.addresses);
    let made = fixture::desired::endpoint((LAB, BENCH), 6, bench.mac, at, OTHER);
    desired.endpoints.insert(BENCH, made);
    let mut parts = Desired::default();
    for (text, vni) in [(shop, VNI), (lab, LAB)] {
        let compiled = sunwire_policy::compile_text(text, &world.environment).unwrap();
        let mut one = Desired::default();
        install(&compiled.tables, vni, &mut one);
        parts.table_nodes.extend(one.table_nodes);
        parts.leaves.extend(one.leaves);
        parts.programs.extend(one.programs);
    }
    (desired.table_nodes, desired.leaves) = (parts.table_nodes, parts.leaves);
    desired.programs = parts.programs;
    world.node.apply(&desired).unwrap();
    let crossing = |world: &World, port: u16| {
        let frame = Frame {
            eth_src: [2, 0, 0, 0, 20, 254],
            ..world.frame((BENCH, WEB), Transport::Tcp(4000, port))
        };
        frame.bytes()
    };
    let open = crossing(&world, 443);
    for _ in 0..2 {
        assert_eq!(world.receive(WEB, &open), None);
    }
    // What either of the two denies.
    for port in [22, 80] {
        let denied = crossing(&world, port);
        assert_eq!(world.receive(WEB, &denied), REFUSED, "{port}");
    }
}

#[test]
fn kernel_a_trace_names_the_rule_by_which_the_receiver_refuses() {
    let test = "kernel_a_trace_names_the_rule_by_which_the_receiver_refuses";
    let Some(mut world) = start(test) else { return };
    world.apply(ONLY_WEB, true);
    let inner = world.frame((CLIENT, WEB), SSH).bytes();
    let frame = from_node(OTHER).wrap(&inner);
    let arrival = Arrival {
        ifindex: world.node.ifindex(UNDERLAY),
        underlay: true,
        frame: &frame,
        gso_size: 0,
    };
    let steps = world.node.dataplane().trace(&arrival).unwrap();
    let dropped = StepOutcome::Dropped(DropReason::ReceiverPolicy);
    assert_eq!(steps[0].outcome, dropped);
    let labels = world.node.dataplane().label_slots();
    let label = steps[0].label.map(|slot| labels[&slot].1.clone());
    assert_eq!(label.as_deref(), Some("only web"));
}

#[test]
fn kernel_the_receiver_agrees_with_the_evaluator_on_every_packet() {
    let test = "kernel_the_receiver_agrees_with_the_evaluator_on_every_packet";
    let Some(World { node, environment }) = start(test) else {
        return;
    };
    let capacity = Capacity {
        flows: 1 << 12,
        ..Capacity::default()
    };
    let tables = Tables::load(node.pins(), capacity).unwrap();
    let node = RefCell::new(node);
    let (delivered, refused) = (Cell::new(0_u64), Cell::new(0_u64));
    let values = (
        policies(Kind::Stateless),
        prop::collection::vec(packets(&environment, "shop"), PACKETS),
    );
    for_all(
        "evaluator = receiver",
        POLICIES,
        &values,
        |(body, packets)| {
            let text = document(body).to_string();
            let (document, _) = parse(&text);
            let policy =
                resolve(&document, &environment).map_err(|_| format!("{text}: no meaning"))?;
            let fdd = compile(&policy, &Options::default()).map_err(|error| error.to_string())?;
            let Ok(made) = lower(&fdd, &policy, &Most::default()) else {
                return Ok(());
            };
            let made: FlowTables = made;
            let mut copies = made.leaves.values().flat_map(|leaf| &leaf.copies);
            let is_for_many = copies.any(|copy| !copy.members.is_empty());
            if is_for_many || !not_judgeable(&made, false).is_empty() {
                return Ok(());
            }
            let mut desired = lawless(&environment, true);
            install(&made, VNI, &mut desired);
            node.borrow_mut()
                .apply(&desired)
                .map_err(|error| error.to_string())?;
            for mut packet in packets {
                // As one that an endpoint of the other node has sent there, to one address.
                packet.node = OTHER;
                packet.port = CLIENT + packet.port % 2;
                packet.eth_dst &= !(1 << 40);
                let Some(packet) = of_endpoint(&environment, packet) else {
                    continue;
                };
                let outcome = evaluate(&policy, &packet).map_err(|error| error.to_string())?;
                let places: Vec<Place> = outcome
                    .copies
                    .keys()
                    .map(|copy| copy.place(&packet))
                    .collect();
                for to in [WEB, WEB_2, DB] {
                    let number = desired.endpoints.keys().copied();
                    for sender in number {
                        tables.forget(sender).map_err(|error| error.to_string())?;
                    }
                    let is_for = is_for(&environment, &packet, &places, to);
                    let mut arrived = packet;
                    arrived.eth_dst = number_of(mac(to));
                    let inner = frame(&arrived);
                    // The second time by what is remembered, if anything is.
                    for _ in 0..2 {
                        let mut node = node.borrow_mut();
                        let fate = node.send(UNDERLAY, &from_node(OTHER).wrap(&inner));
                        let found = fate.out == [(format!("ep{to}"), inner.clone())];
                        let refused =
                            fate.drops == BTreeMap::from([(DropReason::ReceiverPolicy, 1)]);
                        if found != is_for || refused == is_for {
                            return Err(format!("{text}\n{arrived:?} to {to}: {is_for}, {fate:?}"));
                        }
                    }
                    let count = if is_for { &delivered } else { &refused };
                    count.set(count.get() + 1);
                }
            }
            Ok(())
        },
    );
    let (delivered, refused) = (delivered.get(), refused.get());
    eprintln!("{delivered} delivered, {refused} refused");
    assert!(delivered > 50 && refused > 100, "too few of either");
}

fn number_of(mac: [u8; 6]) -> u64 {
    mac.iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The packet with the addresses of the endpoint that sends it, if that has one of its family.
fn of_endpoint(environment: &Environment, mut packet: Packet) -> Option<Packet> {
    let mut all = environment.endpoints.iter();
    let sender = all.find(|one| one.number == packet.port)?;
    packet.eth_src = number_of(sender.mac);
    if packet.src != sunwire_policy::address::Address::None {
        let mut own = sender.addresses.iter().map(|own| (*own).into());
        let own = own.find(|own: &sunwire_policy::address::Address| {
            std::mem::discriminant(own) == std::mem::discriminant(&packet.src)
        });
        packet.src = own?;
    }
    Some(packet)
}

/// Whether the policy sends a copy to an endpoint.
fn is_for(environment: &Environment, packet: &Packet, places: &[Place], to: u32) -> bool {
    let mut all = environment.endpoints.iter();
    let one = all.find(|one| one.number == to).unwrap();
    let owns = match packet.dst {
        // The frame that is for this one's address.
        sunwire_policy::address::Address::None => true,
        dst => one.addresses.iter().any(|own| dst == (*own).into()),
    };
    places.iter().any(|place| match place {
        Place::Owner => owns,
        Place::Endpoint(number) => *number == to,
        _ => false,
    })
}
