//! When there is no room, new flows fight with each other for it, and connections that are there stay.

use std::{sync::Arc, thread};

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    expiry::{CLOSED_WHEN_HALF_FULL_S, SILENCE_UNDER_PRESSURE_S},
    flow::{TupleV6, seen},
};
use sunwire_userspace::maps::Capacity;

use super::{
    A, AWAY, World,
    lives::{entry, key},
    replies_only, udp,
};

const FLOWS: u32 = 64;
/// Of the table: so that half of it is free when so many flows are there.
const LINES: u32 = 2 * FLOWS;
/// Flows that find no line free, all of which are in somebody's window then.
const MANY: u32 = 2000;

fn world(test: &str) -> Option<World> {
    let capacity = Capacity {
        flows: FLOWS,
        overflow: 4096,
        ..Capacity::default()
    };
    World::new(test, capacity)
}

/// The key of a made-up flow whose ports follow no other's, so that chance alone says in which lines it
/// may be.
fn scattered(protocol: u8, number: u32) -> TupleV6 {
    key(protocol, (number + 1).wrapping_mul(0x9e37_79b1))
}

/// Fills the table with TCP flows that went both ways; returns the numbers of those in it. Beside it
/// are none.
fn fill(world: &World) -> Vec<u32> {
    let tables = world.connections.tables();
    let both = entry(world, seen::PACKET, seen::PACKET, 0);
    for number in 0..MANY {
        tables.set(4, &scattered(6, number), both).unwrap();
    }
    let all = 0..MANY;
    // Without the word, only the table is looked at.
    tables.clear_overflowed().unwrap();
    let is_in_table = |number: &u32| tables.has(4, &scattered(6, *number)).unwrap();
    let (inside, beside): (Vec<u32>, Vec<u32>) = all.partition(is_in_table);
    assert_eq!(inside.len() as u32, LINES);
    // One more sets the word again.
    tables.set(4, &scattered(132, 0), both).unwrap();
    assert!(tables.is_overflowed().unwrap());
    tables.remove(4, &scattered(132, 0)).unwrap();
    for number in beside {
        tables.remove(4, &scattered(6, number)).unwrap();
    }
    inside
}

#[test]
fn kernel_a_full_table_keeps_its_connections_and_takes_new_ones_beside() {
    let Some(mut world) = world("kernel_full_table") else {
        return;
    };
    world.put(replies_only, "replies");
    let (first, reply) = (udp(AWAY, A, (5000, 6000)), udp(A, AWAY, (6000, 5000)));
    world.arrives(&first);
    world.passes(A, &reply, "reply");
    // Nobody answers these.
    for port in 0..MANY as u16 {
        world.arrives(&udp(AWAY, A, (10_000 + port, 53)));
    }
    assert!(world.connections.tables().is_overflowed().unwrap());
    // However long that took.
    let be_silent = |world: &World, ms: u64| {
        let tables = world.connections.tables();
        for flow in world.flows(A.0) {
            if flow.entry.sent == 0 {
                let seen = tables.hertz().seen(tables.now().unwrap(), ms);
                let entry = sunwire_dataplane_common::flow::FlowEntry { seen, ..flow.entry };
                tables.set(4, &flow.key, entry).unwrap();
            }
        }
    };
    be_silent(&world, 0);
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert!(usage.is_overflowing);
    assert_eq!((usage.in_use_v4, usage.capacity), (LINES, LINES));
    assert_eq!(
        (usage.overflow, usage.overflowed_total),
        (MANY + 1 - LINES, u64::from(MANY + 1 - LINES))
    );
    // The one that was there goes on, and so does one that found no room.
    world.passes(A, &reply, "reply");
    let late = udp(A, AWAY, (53, 10_000 + MANY as u16 - 1));
    world.passes(A, &late, "reply");
    world.drops(A, &udp(A, AWAY, (53, 9_999)), DropReason::Policy);

    // Those that nobody answered go early, the others come back, and there is room again.
    be_silent(&world, u64::from(SILENCE_UNDER_PRESSURE_S + 1) * 1000);
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.is_overflowing, usage.overflow), (false, 0));
    assert_eq!(usage.in_use_v4, 2);
    assert_eq!(usage.ended_total["pressure"], u64::from(MANY - 1));
    assert!(!world.connections.tables().is_overflowed().unwrap());
    world.passes(A, &reply, "reply");
    world.passes(A, &late, "reply");
}

#[test]
fn kernel_all_come_back_when_there_is_room_and_a_removed_flow_leaves_its_line() {
    let Some(mut world) = world("kernel_all_come_back") else {
        return;
    };
    world.apply();
    let inside = fill(&world);
    let tables = world.connections.tables();
    let one_way = entry(&world, seen::PACKET, 0, 0);
    for number in 0..20 {
        tables.set(4, &scattered(17, number), one_way).unwrap();
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.overflow), (LINES, 20));
    // Until a sweep, the lines of those that go are nobody else's.
    for number in &inside[20..] {
        tables.remove(4, &scattered(6, *number)).unwrap();
    }
    let total = usage.overflowed_total;
    let late = entry(&world, seen::PACKET, seen::PACKET, 0);
    tables.set(4, &scattered(17, 20), late).unwrap();
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.overflow), (20 + 21, 0));
    assert!(!usage.is_overflowing);
    assert_eq!(usage.overflowed_total, total);
    assert!((0..21).all(|number| tables.has(4, &scattered(17, number)).unwrap()));
    assert!(
        inside[..20]
            .iter()
            .all(|number| tables.has(4, &scattered(6, *number)).unwrap())
    );
    assert!(!tables.has(4, &scattered(6, inside[20])).unwrap());
}

#[test]
fn kernel_what_goes_both_ways_comes_back_first_and_a_comfortable_rest_stays_free() {
    let Some(mut world) = world("kernel_comes_back") else {
        return;
    };
    world.apply();
    let inside = fill(&world);
    let tables = world.connections.tables();
    let both = entry(&world, seen::PACKET, seen::PACKET, 0);
    let one_way = entry(&world, seen::PACKET, 0, 0);
    for number in 0..40 {
        let entry = if number < 20 { one_way } else { both };
        tables.set(4, &scattered(17, number), entry).unwrap();
    }
    // Room for some: up to seven eighths of the table.
    let comfortable = LINES * 7 / 8;
    for number in &inside[comfortable as usize - 10..] {
        tables.remove(4, &scattered(6, *number)).unwrap();
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert!(usage.is_overflowing);
    assert!(usage.in_use_v4 <= comfortable);
    assert_eq!(usage.in_use_v4 + usage.overflow, comfortable - 10 + 40);
    tables.clear_overflowed().unwrap();
    let came_back = |numbers: std::ops::Range<u32>| {
        let inside = numbers.filter(|number| tables.has(4, &scattered(17, *number)).unwrap());
        inside.count() as u32
    };
    // Which of them find a line free in their windows is chance.
    assert_eq!(came_back(0..20), 0);
    assert_eq!(came_back(20..40), usage.in_use_v4 - (comfortable - 10));
    assert_ne!(came_back(20..40), 0);
}

#[test]
fn kernel_a_flow_that_packets_and_the_agent_add_at_once_is_there_once() {
    let Some(mut world) = World::new("kernel_added_at_once", Capacity::default()) else {
        return;
    };
    world.apply();
    let both = entry(&world, seen::PACKET, seen::PACKET, 0);
    let connections = Arc::clone(&world.connections);
    let flows = 500;
    let agent = thread::spawn(move || {
        for number in 0..flows {
            let key = key(17, 53 << 16 | (10_000 + number));
            connections.tables().set(4, &key, both).unwrap();
        }
    });
    for number in 0..flows {
        world.arrives(&udp(AWAY, A, (10_000 + number as u16, 53)));
    }
    agent.join().unwrap();
    world.connections.sweep().unwrap();
    // Lines of the table, and not only keys: a second one would be counted, too.
    assert_eq!(world.connections.usage().in_use_v4, flows);
    let flows = world.flows(A.0);
    assert!(flows.iter().all(|flow| flow.entry.received == seen::PACKET));
}

#[test]
fn kernel_what_is_over_goes_early_when_half_of_the_room_is_taken() {
    let Some(mut world) = world("kernel_half_full") else {
        return;
    };
    world.apply();
    let (packet, fin) = (seen::PACKET, seen::FIN);
    let over = entry(
        &world,
        packet | fin,
        packet | fin,
        CLOSED_WHEN_HALF_FULL_S + 2,
    );
    let up = entry(&world, packet, packet, CLOSED_WHEN_HALF_FULL_S + 2);
    let tables = world.connections.tables();
    let half = LINES / 2;
    for number in 0..half {
        tables
            .set(4, &key(6, number), if number % 2 == 0 { over } else { up })
            .unwrap();
    }
    // Half is taken and not more: what is over stays as long as it may.
    for _ in 0..2 {
        world.connections.sweep().unwrap();
        assert_eq!(world.connections.usage().in_use_v4, half);
    }
    tables.set(4, &key(6, half), up).unwrap();
    // The first sweep finds out, the second one goes by it.
    for _ in 0..2 {
        world.connections.sweep().unwrap();
    }
    let left = world.flows(A.0);
    assert_eq!(left.len() as u32, half / 2 + 1);
    assert!(left.iter().all(|flow| flow.entry.received & fin == 0));
}
