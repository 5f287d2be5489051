//! Flows are forgotten when they are over, and not before.

use std::{collections::BTreeMap, time::Instant};

use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    expiry::SILENCE_S,
    flow::{FlowEntry, TupleV6, seen},
    flow_key::Field,
};
use sunwire_userspace::{
    connections::{Connections, clock::Hertz},
    maps::Capacity,
};

use super::{A, AWAY, B, VNI, World, frame, open, replies_only, udp};
use crate::fixture::{node::OWN, wire::Transport};

/// The key of a made-up flow of endpoint A.
pub(super) fn key(protocol: u8, number: u32) -> TupleV6 {
    TupleV6 {
        network_protocol: VNI << 8 | u32::from(protocol),
        ports: number,
        local: Address::v4(A.v4().octets()),
        remote: Address::v4(AWAY.v4().octets()),
    }
}

/// A made-up flow of endpoint A that is silent for so many seconds.
pub(super) fn entry(world: &World, sent: u8, received: u8, silent_s: u32) -> FlowEntry {
    let tables = world.connections.tables();
    let now = tables.now().unwrap();
    FlowEntry {
        local: A.0,
        sent,
        received,
        seen: tables.hertz().seen(now, u64::from(silent_s) * 1000),
        ..FlowEntry::default()
    }
}

#[test]
fn kernel_connections_outlive_the_layout_of_other_maps_and_are_decided_anew() {
    let Some(mut world) = World::new("kernel_other_layout", Capacity::default()) else {
        return;
    };
    world.put(replies_only, "replies");
    for is_v4 in [true, false] {
        let transport = |there: (u16, u16)| Transport::Udp(there.0, there.1);
        world.arrives(&frame(is_v4, AWAY, A, transport((5000, 6000))).bytes());
        let reply = frame(is_v4, A, AWAY, transport((6000, 5000))).bytes();
        world.passes(A, &reply, "reply");
    }
    let before = world.flows(A.0);
    world.node.stop_agent();
    let pins = std::fs::read_dir(world.node.pins()).unwrap().flatten();
    let maps: Vec<_> = pins
        .map(|pin| pin.path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("maps-v")
        })
        .collect();
    std::fs::rename(&maps[0], world.node.pins().join("maps-v0")).unwrap();
    world.node.start_agent();
    world.connections = Connections::load(world.node.pins(), Capacity::default()).unwrap();
    // Other verdicts in the same slots: what is remembered of the old ones must not decide.
    world.put(
        |policy| {
            let new = policy.leaf("another new", &[]);
            let reply = policy.leaf("another reply", &[super::owner()]);
            policy.test("state", Field::Connection, &[(1, reply)], new)
        },
        "another",
    );
    assert_eq!(world.flows(A.0).len(), before.len());
    for is_v4 in [true, false] {
        let transport = |there: (u16, u16)| Transport::Udp(there.0, there.1);
        for _ in 0..2 {
            let reply = frame(is_v4, A, AWAY, transport((6000, 5000))).bytes();
            world.passes(A, &reply, "another reply");
            let unasked = frame(is_v4, A, AWAY, transport((6001, 5000))).bytes();
            world.drops(A, &unasked, DropReason::Policy);
        }
    }
}

fn ended(world: &World) -> BTreeMap<String, u64> {
    let ended = world.connections.usage().ended_total;
    ended.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// The clock of the kernel, calibrated against the monotonic one: of the known rates, the nearest.
#[test]
fn kernel_the_clock_is_as_fast_as_the_kernel_says() {
    let Some(world) = World::new("kernel_clock", Capacity::default()) else {
        return;
    };
    let tables = world.connections.tables();
    let hertz = Hertz::of_kernel().unwrap().get();
    let (started, first) = (Instant::now(), tables.now().unwrap());
    let mut ticks = 0;
    // Half a second at most for the slowest clock; a clock that stands still is not waited for.
    while ticks < 50 {
        ticks = tables.now().unwrap().wrapping_sub(first);
        assert!(
            started.elapsed() < crate::flows::PATIENCE,
            "the clock stands still"
        );
    }
    // However long the machine was busy elsewhere, both clocks went on.
    let rate = f64::from(ticks) / started.elapsed().as_secs_f64();
    let off = |known: u32| (f64::from(known) - rate).abs();
    let known = [100, 250, 300, 1000];
    let nearest = known.into_iter().min_by(|a, b| off(*a).total_cmp(&off(*b)));
    assert_eq!(nearest, Some(hertz), "{rate}");
}

#[test]
fn kernel_a_sweep_forgets_what_was_silent_for_too_long_and_nothing_else() {
    let Some(mut world) = World::new("kernel_sweep", Capacity::default()) else {
        return;
    };
    let (tcp, udp_protocol, icmp, gre) = (6, 17, 1, 47);
    let (packet, fin) = (seen::PACKET, seen::FIN);
    let kinds = [
        (tcp, packet, 0, SILENCE_S[0], "silent"),
        (tcp, packet, packet, SILENCE_S[1], "silent"),
        (tcp, packet | fin, packet, SILENCE_S[2], "closed"),
        (tcp, packet | fin, packet | fin, SILENCE_S[3], "closed"),
        (udp_protocol, packet, 0, SILENCE_S[4], "silent"),
        (udp_protocol, packet, packet, SILENCE_S[5], "silent"),
        (icmp, packet, packet, SILENCE_S[6], "silent"),
        (gre, packet, packet, SILENCE_S[7], "silent"),
    ];
    let tables = world.connections.tables();
    let mut expected = BTreeMap::<String, u64>::new();
    let mut kept = Vec::new();
    for family in [4, 6] {
        for (number, (protocol, sent, received, silence, why)) in kinds.into_iter().enumerate() {
            // Well within, so that the time this test takes does not matter.
            let young = key(protocol, 2 * number as u32);
            let fresh = entry(&world, sent, received, silence / 2);
            tables.set(family, &young, fresh).unwrap();
            kept.push((family, young));
            let old = key(protocol, 2 * number as u32 + 1);
            let stale = entry(&world, sent, received, silence + 1);
            tables.set(family, &old, stale).unwrap();
            *expected.entry(why.to_owned()).or_default() += 1;
        }
    }
    // Before it is known what lives here, nothing goes.
    world.connections.sweep().unwrap();
    assert_eq!(world.flows(A.0).len(), 4 * kinds.len());
    world.apply();
    world.connections.sweep().unwrap();
    assert_eq!(ended(&world), expected);
    let left = world.flows(A.0);
    let left: Vec<_> = left.iter().map(|flow| (flow.family, flow.key)).collect();
    kept.sort();
    assert_eq!(left, kept);
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.in_use_v6), (8, 8));
    // And again there is nothing to do.
    world.connections.sweep().unwrap();
    assert_eq!(ended(&world), expected);
}

#[test]
fn kernel_flows_go_with_their_endpoint_and_their_network() {
    let Some(mut world) = World::new("kernel_gone", Capacity::default()) else {
        return;
    };
    world.put(open, "open");
    let frames = [(A, udp(A, AWAY, (1, 2))), (B, udp(B, AWAY, (1, 2)))];
    for (from, frame) in &frames {
        world.passes(*from, frame, "open");
    }
    // One endpoint has moved away; while it moved its flows stayed, for it might have come back.
    let leaving = world.desired.endpoints.get_mut(&A.0).unwrap();
    (leaving.other, leaving.moving) = (2, true);
    world.apply();
    world.node.dataplane().release(A.0).unwrap();
    world.connections.sweep().unwrap();
    assert_eq!(world.flows(A.0).len(), 1);
    let left = world.desired.endpoints.get_mut(&A.0).unwrap();
    (left.node, left.other, left.moving) = (2, OWN, false);
    world.apply();
    world.connections.sweep().unwrap();
    assert_eq!((world.flows(A.0).len(), world.flows(B.0).len()), (0, 1));
    assert_eq!(ended(&world)["gone"], 1);
    // The network is no more, and its endpoints with it.
    world.desired.endpoints.clear();
    world.desired.networks.clear();
    world.desired.programs.clear();
    world.apply();
    world.connections.sweep().unwrap();
    assert_eq!(world.flows(0), []);
    assert_eq!(ended(&world)["gone"], 2);
}

/// What a sweep of a full table costs: printed, not judged.
#[test]
fn kernel_all_flows_of_a_full_table_are_found() {
    let Some(mut world) = World::new("kernel_full_sweep", Capacity::default()) else {
        return;
    };
    world.apply();
    let count = 100_000;
    let tables = world.connections.tables();
    let started = Instant::now();
    let fresh = entry(&world, seen::PACKET, seen::PACKET, 0);
    for number in 0..count {
        tables.set(4, &key(6, number), fresh).unwrap();
    }
    eprintln!("{count} flows set in {:?}", started.elapsed());
    let other = FlowEntry {
        local: B.0,
        ..fresh
    };
    for number in 0..10 {
        tables.set(4, &key(17, number), other).unwrap();
    }
    for _ in 0..3 {
        let started = Instant::now();
        world.connections.sweep().unwrap();
        eprintln!("swept in {:?}", started.elapsed());
    }
    assert_eq!(world.connections.usage().in_use_v4, count + 10);
    // More than fit into the buffer at once.
    for (number, expected) in [(0, count as usize + 10), (A.0, count as usize), (B.0, 10)] {
        let started = Instant::now();
        let found = world.flows(number);
        eprintln!("{} selected in {:?}", found.len(), started.elapsed());
        assert_eq!(found.len(), expected);
    }
    let started = Instant::now();
    tables.forget(A.0).unwrap();
    eprintln!("forgotten in {:?}", started.elapsed());
    assert_eq!(world.flows(0).len(), 10);
}
