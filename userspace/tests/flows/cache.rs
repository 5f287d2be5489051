//! A remembered verdict holds for the packets that it was made for, and for no other.

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow::tcp::{ACK, FIN, RST, SYN},
    flow_key::Field,
    tables::{Copied, OUT_ENDPOINT, set},
};
use sunwire_userspace::maps::Capacity;

use super::{A, AWAY, B, C, VNI, World, frame, open, owner, replies_only, tcp, udp};
use crate::{
    fixture::{
        desired::endpoint,
        node::OWN,
        test_run::Action,
        wire::{Frame, Transport},
    },
    packets::{
        self, Expect,
        world::{self, OTHER_ADDRESS, Who},
    },
};

const FAMILIES: [bool; 2] = [true, false];

#[test]
fn kernel_every_packet_fares_the_same_the_second_time() {
    let Some(mut node) = world::start("kernel_every_packet_fares_the_same") else {
        return;
    };
    let mut again = 0;
    for case in packets::all() {
        // Questions are limited, and each is answered by itself.
        if matches!(case.expect, Expect::Asks(_)) {
            continue;
        }
        let metadata = case.metadata.unwrap_or_default();
        let first = node.test_run_with(case.device, &case.frame, metadata);
        let second = node.test_run_with(case.device, &case.frame, metadata);
        assert_eq!(first, second, "{}", case.name);
        if case.metadata.is_none() && case.device != world::NOBODY {
            let first = node.send(case.device, &case.frame);
            let second = node.send(case.device, &case.frame);
            assert_eq!(first, second, "{}", case.name);
        }
        again += 1;
    }
    assert!(again > 100, "{again}");
}

#[test]
fn kernel_a_second_packet_asks_no_policy_and_a_flip_makes_it_ask() {
    let Some(mut world) = World::new("kernel_a_second_packet", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    for is_v4 in FAMILIES {
        let packet = frame(is_v4, A, AWAY, Transport::Udp(5000, 6000)).bytes();
        world.passes(A, &packet, "open");
        let before = world.flows(A.0);
        let generation = world.node.dataplane().generation();
        assert!(
            before
                .iter()
                .all(|flow| flow.entry.generation == generation)
        );
        world.passes(A, &packet, "open");
        assert_eq!(world.flows(A.0).len(), before.len());
    }
    // The same flows are decided anew: another label, another DSCP.
    let marked = Copied {
        set: set::DSCP,
        dscp: 46,
        ..owner()
    };
    world.put(|policy| policy.leaf("marked", &[marked]), "marked");
    for is_v4 in FAMILIES {
        let sent = frame(is_v4, A, AWAY, Transport::Udp(5000, 6000));
        for _ in 0..2 {
            let ran = world.send(A, &sent.bytes());
            assert_eq!(ran.fate.labels.keys().next().unwrap().1, "marked");
            let marked = Frame { dscp: 46, ..sent };
            assert_eq!(ran.frame, world::to_node(2, VNI, &marked.bytes()));
        }
    }
}

#[test]
fn kernel_a_flow_that_a_new_policy_denies_is_revoked_and_forgotten() {
    let Some(mut world) = World::new("kernel_revoked", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    for is_v4 in FAMILIES {
        let packet = frame(is_v4, A, B, Transport::Udp(5000, 6000)).bytes();
        world.passes(A, &packet, "open");
    }
    assert_eq!(world.flows(A.0).len(), 2);
    world.put(|policy| policy.leaf("closed", &[]), "closed");
    for is_v4 in FAMILIES {
        let packet = frame(is_v4, A, B, Transport::Udp(5000, 6000)).bytes();
        world.drops(A, &packet, DropReason::Revoked);
        world.drops(A, &packet, DropReason::Policy);
    }
    assert_eq!(world.flows(A.0), []);
}

#[test]
fn kernel_what_a_policy_looks_at_beside_the_flow_is_looked_at_in_every_packet() {
    let Some(mut world) = World::new("kernel_beside_the_flow", Capacity::default()) else {
        return;
    };
    world.put(
        |policy| {
            let (plain, urgent) = (policy.leaf("plain", &[owner()]), policy.leaf("no", &[]));
            policy.test("dscp", Field::Dscp, &[(46, urgent)], plain)
        },
        "dscp",
    );
    let plain = frame(true, A, B, Transport::Udp(5000, 6000));
    let urgent = Frame { dscp: 46, ..plain };
    for _ in 0..3 {
        world.passes(A, &plain.bytes(), "plain");
        world.drops(A, &urgent.bytes(), DropReason::Policy);
    }
    world.put(
        |policy| {
            let (echo, other) = (policy.leaf("echo", &[owner()]), policy.leaf("no", &[]));
            policy.test("icmp", Field::IcmpType, &[(8, echo)], other)
        },
        "icmp",
    );
    // One identifier, so one flow.
    let echo = frame(true, A, B, Transport::Icmp(8, 0)).bytes();
    let reply = frame(true, A, B, Transport::Icmp(0, 0)).bytes();
    for _ in 0..3 {
        world.passes(A, &echo, "echo");
        world.drops(A, &reply, DropReason::Policy);
    }
}

#[test]
fn kernel_a_flow_of_another_network_or_endpoint_never_decides() {
    let Some(mut node) = world::start("kernel_another_network") else {
        return;
    };
    // Two tenants with the same addresses; one of them denies port 80.
    let packet = world::v4(world::WEB_1, world::DB_2, Transport::Tcp(5000, 80)).bytes();
    for _ in 0..2 {
        assert_eq!(node.test_run(world::WEB, &packet).action, Action::Redirect);
        assert_eq!(node.test_run(world::TWIN_WEB, &packet).action, Action::Shot);
    }
    drop(node);

    let Some(mut world) = World::new("kernel_another_endpoint", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    let reply = udp(A, AWAY, (6000, 5000));
    world.arrives(&udp(AWAY, A, (5000, 6000)));
    world.passes(A, &reply, "reply");
    // Another endpoint gets the address and the device: what was sent to the first is none of its.
    world.desired.endpoints.remove(&A.0);
    world.apply();
    let addresses = (Some(A.v4()), Some(A.v6()));
    let second = endpoint((VNI, 9), A.0, A.mac(), addresses, OWN);
    world.desired.endpoints.insert(9, second);
    world.apply();
    world.drops(A, &reply, DropReason::Policy);
    // Once the first one's flows are swept, it has connections of its own.
    world.connections.sweep().unwrap();
    world.arrives(&udp(AWAY, A, (5000, 6000)));
    world.passes(A, &reply, "reply");
}

#[test]
fn kernel_only_what_was_delivered_makes_a_reply() {
    let Some(mut world) = World::new("kernel_replies", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    let gre = Transport::Other(47);
    let exchanges = [
        (Transport::Udp(5000, 6000), Transport::Udp(6000, 5000)),
        (Transport::Tcp(5000, 6000), Transport::Tcp(6000, 5000)),
        (gre, gre),
    ];
    for is_v4 in FAMILIES {
        let (echo, reply) = if is_v4 { (8, 0) } else { (128, 129) };
        let ping = (Transport::Icmp(echo, 0), Transport::Icmp(reply, 0));
        for (there, back) in exchanges.into_iter().chain([ping]) {
            let there = frame(is_v4, AWAY, A, there).bytes();
            let back = frame(is_v4, A, AWAY, back).bytes();
            world.drops(A, &back, DropReason::Policy);
            world.arrives(&there);
            for _ in 0..2 {
                world.passes(A, &back, "reply");
            }
        }
    }
    // An error message belongs to no flow of its own.
    let error = frame(true, A, AWAY, Transport::Icmp(3, 1)).bytes();
    world.drops(A, &error, DropReason::Policy);
}

#[test]
fn kernel_a_connection_that_is_over_begins_anew_with_a_syn() {
    let Some(mut world) = World::new("kernel_begins_anew", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    let (there, back) = ((5000, 80), (80, 5000));
    for ends in [[FIN | ACK, FIN | ACK], [ACK, RST]] {
        world.arrives(&tcp(AWAY, A, there, SYN));
        world.passes(A, &tcp(A, AWAY, back, SYN | ACK), "reply");
        // A SYN in the midst of it begins nothing.
        world.passes(A, &tcp(A, AWAY, back, SYN), "reply");
        world.arrives(&tcp(AWAY, A, there, ends[0]));
        world.passes(A, &tcp(A, AWAY, back, ends[1]), "reply");
        world.passes(A, &tcp(A, AWAY, back, ACK), "reply");
        world.drops(A, &tcp(A, AWAY, back, SYN), DropReason::Policy);
    }
}

#[test]
fn kernel_a_copy_for_another_endpoint_is_no_connection_of_the_addresss_owner() {
    let Some(mut world) = World::new("kernel_copy_for_another", Capacity::default()) else {
        return;
    };
    // What is sent to port 11 goes to C, whoever owns the address.
    let to_c = Copied {
        out: OUT_ENDPOINT,
        endpoint: C.0,
        ..Copied::default()
    };
    world.put(
        |policy| {
            let replies = replies_only(policy);
            let to_c = policy.leaf("to c", &[to_c]);
            policy.test("port", Field::DestinationPort, &[(11, to_c)], replies)
        },
        "copies",
    );
    for _ in 0..2 {
        let ran = world.send(A, &udp(A, B, (5000, 11)));
        assert_eq!(ran.action, Action::Redirect);
    }
    world.drops(B, &udp(B, A, (11, 5000)), DropReason::Policy);
    assert_eq!(world.flows(B.0), []);
}

#[test]
fn kernel_a_known_flow_does_not_admit_a_source_that_does_not_live_there() {
    let Some(mut world) = World::new("kernel_source_checked", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    // A policy elsewhere wrote a source address that nobody owns: the MAC address alone is left.
    let good = Frame {
        src: OTHER_ADDRESS.into(),
        ..frame(true, AWAY, A, Transport::Udp(5000, 6000))
    };
    world.arrives(&good.bytes());
    assert_eq!(world.flows(A.0).len(), 1);
    world.arrives(&good.bytes());
    for eth_src in [Who(77).mac(), B.mac()] {
        let bad = Frame { eth_src, ..good };
        world.drops(AWAY, &bad.bytes(), DropReason::SourceNotThere);
    }
    // Nor another node that sends on for it.
    let from_elsewhere = Frame { ..good }.bytes();
    let tunnel = packets::world::from_node(3, VNI).wrap(&from_elsewhere);
    let ran = world
        .node
        .test_run(crate::fixture::devices::UNDERLAY, &tunnel);
    assert_eq!(ran.action, Action::Shot);
    world.arrives(&good.bytes());
}

#[test]
fn kernel_what_has_no_flow_is_not_remembered() {
    let Some(mut world) = World::new("kernel_no_flow", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    let error = frame(true, A, B, Transport::Icmp(3, 1)).bytes();
    world.passes(A, &error, "open");
    world.passes(A, &error, "open");
    assert_eq!(world.flows(0), []);
    // Only there are both ends of it remembered.
    world.passes(A, &udp(A, B, (1, 2)), "open");
    assert_eq!(world.flows(0).len(), 2);
}
