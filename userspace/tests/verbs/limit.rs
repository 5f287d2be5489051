//! `limit` takes a token of every packet that it decides about, first ones and later ones, and does
//! without one what the policy says.
//!
//! Rates are so low that no bucket fills again while a test runs, however slow the machine is.

use std::collections::BTreeMap;

use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_userspace::{connections::tables::Tables, maps::Capacity};

use super::{CLIENT, DB, VNI, WEB, WEB_2, World};
use crate::fixture::{node::Fate, wire::Frame, wire::Transport};

impl World {
    /// Sends a packet that gets a token, or none, and requires what the evaluator says then.
    fn limited(&mut self, from: u32, frame: &Frame, token: u8) {
        let (copies, label) = self.decided(from, frame, token);
        let Fate {
            out, drops, labels, ..
        } = self.send(from, frame);
        assert_eq!(labels, BTreeMap::from([((VNI, label), 1)]), "{token}");
        assert_eq!(out.len(), copies, "{token}");
        let expected = match copies {
            0 => BTreeMap::from([(DropReason::Policy, 1)]),
            _ => BTreeMap::new(),
        };
        assert_eq!(drops, expected, "{token}");
    }
}

fn udp(port: u16) -> Transport {
    Transport::Udp(port, 53)
}

#[test]
fn kernel_a_flow_that_is_remembered_is_limited_like_a_new_one() {
    let Some(mut world) = World::new("kernel_limited", Capacity::default()) else {
        return;
    };
    // One packet of an endpoint owes for minutes.
    world.apply(
        "policy main = if udp then (limit 1 bit per src; forward \"dns\") else forward \"other\"",
    );
    for is_v4 in [true, false] {
        let frame = world.frame(WEB, DB, is_v4, udp(4000));
        world.limited(WEB, &frame, 1);
        for _ in 0..3 {
            world.limited(WEB, &frame, 0);
        }
        // The bucket is that of the source, whatever the flow.
        let frame = world.frame(WEB, CLIENT, is_v4, udp(4001));
        world.limited(WEB, &frame, 0);
        let frame = world.frame(WEB_2, DB, is_v4, udp(4000));
        world.limited(WEB_2, &frame, 1);
        world.limited(WEB_2, &frame, 0);
        // What the rate is not about takes and needs nothing.
        let frame = world.frame(WEB, DB, is_v4, Transport::Tcp(4000, 80));
        for _ in 0..3 {
            world.limited(WEB, &frame, 1);
        }
    }
}

#[test]
fn kernel_a_bucket_holds_what_passes_in_a_second_at_most_and_then_nothing() {
    let Some(mut world) = World::new("kernel_bucket", Capacity::default()) else {
        return;
    };
    // Frames of 62 bytes, and a depth of 992 bits: two at once. A third would take seconds.
    world.apply("policy main = limit 992 bit; forward");
    let frame = world.frame(WEB, DB, true, udp(4000));
    assert_eq!(frame.bytes().len(), 62);
    let passed = (0..2).filter(|_| world.send(WEB, &frame).drops.is_empty());
    assert_eq!(passed.count(), 2);
}

#[test]
fn kernel_without_a_token_the_other_branch_decides_and_is_not_remembered() {
    let Some(mut world) = World::new("kernel_unlimited_branch", Capacity::default()) else {
        return;
    };
    world.apply(
        "policy main =
            if udp and token = 0 then (count late; dscp := 8; forward \"late\")
            else if udp then (limit 1 bit per port, dst; forward \"in time\")
            else drop
        ",
    );
    let frame = world.frame(WEB, DB, true, udp(4000));
    world.limited(WEB, &frame, 1);
    for _ in 0..3 {
        world.limited(WEB, &frame, 0);
    }
    // Another flow whose first packet gets none.
    let frame = world.frame(WEB, DB, true, udp(4001));
    for _ in 0..3 {
        world.limited(WEB, &frame, 0);
    }
    // Under another rate the same flows get a token of another bucket.
    world.apply("policy main = if udp then (limit 1 bit per tcpSrcPort; forward) else drop");
    for port in [4000, 4001] {
        let frame = world.frame(WEB, DB, true, udp(port));
        world.limited(WEB, &frame, 1);
        world.limited(WEB, &frame, 0);
    }
    // A packet that the rate holds back revokes nothing: a new policy lets the flow go on.
    world.apply(
        "policy main = if udp then (limit 1 bit per tcpSrcPort; forward \"again\") else drop",
    );
    world.limited(WEB, &frame, 0);
    world.apply("policy main = forward");
    world.limited(WEB, &frame, 1);
}

#[test]
fn kernel_who_finds_no_room_for_a_bucket_shares_one() {
    let room = Capacity {
        limited: 8,
        ..Capacity::default()
    };
    let Some(mut world) = World::new("kernel_buckets_full", room) else {
        return;
    };
    let tables = Tables::load(world.node.pins(), room).unwrap();
    world.apply("policy main = limit 1 bit per tcpSrcPort; forward");
    let mut passed = 0;
    for port in 0..20 {
        let frame = world.frame(WEB, DB, true, udp(4000 + port));
        passed += usize::from(world.send(WEB, &frame).drops.is_empty());
    }
    let unbucketed = tables.unbucketed_total().unwrap();
    assert!(unbucketed > 0, "there is room for 8 and {passed} passed");
    // Those with a bucket of their own, and one by that which the others share.
    assert_eq!(passed as u64, 20 - unbucketed + 1);
    // None of them is full again for minutes: nothing is forgotten.
    tables.sweep_buckets().unwrap();
    let frame = world.frame(WEB, DB, true, udp(4000));
    world.limited(WEB, &frame, 0);
    // What is owed at one rate is not owed at another.
    world.apply("policy main = limit 1000 mpps per tcpDstPort; forward");
    for port in 0..20 {
        let frame = world.frame(WEB, DB, true, Transport::Udp(4000, 5000 + port));
        world.limited(WEB, &frame, 1);
    }
}

#[test]
fn kernel_buckets_that_are_full_are_forgotten_and_make_room() {
    let room = Capacity {
        limited: 8,
        ..Capacity::default()
    };
    let Some(mut world) = World::new("kernel_buckets_forgotten", room) else {
        return;
    };
    let tables = Tables::load(world.node.pins(), room).unwrap();
    // Full again a nanosecond later.
    world.apply("policy main = limit 1000 mpps per tcpDstPort; forward");
    let mut send = |ports: std::ops::Range<u16>| {
        for port in ports {
            let frame = world.frame(WEB, DB, true, Transport::Udp(4000, 5000 + port));
            world.limited(WEB, &frame, 1);
        }
        tables.unbucketed_total().unwrap()
    };
    let unbucketed = send(0..20);
    assert!(unbucketed > 0);
    tables.sweep_buckets().unwrap();
    assert_eq!(send(20..24), unbucketed);
}
