//! When there is no room, new flows fight with each other for it, and connections that are there stay.

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    expiry::{CLOSED_WHEN_HALF_FULL_S, SILENCE_UNDER_PRESSURE_S},
    flow::seen,
};
use sunwire_userspace::maps::Capacity;

use super::{
    A, AWAY, World,
    lives::{entry, key},
    replies_only, udp,
};

const FLOWS: u32 = 64;

fn world(test: &str) -> Option<World> {
    let capacity = Capacity {
        flows: FLOWS,
        overflow: 1024,
        ..Capacity::default()
    };
    World::new(test, capacity)
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
    for port in 0..100 {
        world.arrives(&udp(AWAY, A, (10_000 + port, 53)));
    }
    assert!(world.connections.tables().is_overflowed().unwrap());
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert!(usage.is_overflowing);
    assert_eq!(usage.in_use_v4, FLOWS);
    assert_eq!(
        (usage.overflow, usage.overflowed_total),
        (101 - FLOWS, u64::from(101 - FLOWS))
    );
    // The one that was there goes on, and so does one that found no room.
    world.passes(A, &reply, "reply");
    let late = udp(A, AWAY, (53, 10_099));
    world.passes(A, &late, "reply");
    world.drops(A, &udp(A, AWAY, (53, 9_999)), DropReason::Policy);

    // Those that nobody answered go early, the others come back, and there is room again.
    let tables = world.connections.tables();
    for flow in world.flows(A.0) {
        if flow.entry.sent == 0 {
            let silent_ms = u64::from(SILENCE_UNDER_PRESSURE_S + 1) * 1000;
            let seen = tables.hertz().seen(tables.now().unwrap(), silent_ms);
            let entry = sunwire_dataplane_common::flow::FlowEntry { seen, ..flow.entry };
            // In place where it is: setting it anew would bring it into the first map.
            tables.remove(4, &flow.key).unwrap();
            tables.set(4, &flow.key, entry).unwrap();
        }
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.is_overflowing, usage.overflow), (false, 0));
    assert_eq!(usage.in_use_v4, 2);
    assert_eq!(usage.ended_total["pressure"], 99);
    assert!(!world.connections.tables().is_overflowed().unwrap());
    world.passes(A, &reply, "reply");
    world.passes(A, &late, "reply");
}

#[test]
fn kernel_what_goes_both_ways_comes_back_first_and_a_comfortable_rest_stays_free() {
    let Some(mut world) = world("kernel_comes_back") else {
        return;
    };
    world.apply();
    let tables = world.connections.tables();
    let both = entry(&world, seen::PACKET, seen::PACKET, 0);
    let one_way = entry(&world, seen::PACKET, 0, 0);
    for number in 0..FLOWS {
        tables.set(4, &key(6, number), both).unwrap();
    }
    for number in 0..20 {
        let entry = if number % 2 == 0 { both } else { one_way };
        tables.set(4, &key(17, number), entry).unwrap();
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.overflow), (FLOWS, 20));
    // Room for some: up to seven eighths of the table.
    for number in 0..16 {
        tables.remove(4, &key(6, number)).unwrap();
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.overflow), (FLOWS * 7 / 8, 12));
    assert!(usage.is_overflowing);
    let in_overflow = |number: u32| {
        // Removing it from the first map alone is not possible, so ask for what a packet would find.
        tables.get(4, &key(17, number)).unwrap().is_some()
    };
    assert!((0..20).all(in_overflow));
    // Room for all.
    for number in 16..40 {
        tables.remove(4, &key(6, number)).unwrap();
    }
    world.connections.sweep().unwrap();
    let usage = world.connections.usage();
    assert_eq!((usage.in_use_v4, usage.overflow), (FLOWS - 40 + 20, 0));
    assert!(!usage.is_overflowing);
    assert!((0..20).all(in_overflow));
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
    let half = FLOWS / 2;
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
