//! `mirror to X` sends X what came, and changes nothing of what becomes of it otherwise.

use std::collections::BTreeMap;

use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_userspace::maps::Capacity;

use super::{CLIENT, DB, WEB_2, World};
use crate::fixture::{devices::UNDERLAY, wire::Frame, wire::Transport};

/// The frame as `to` gets it.
fn at(world: &World, to: u32, frame: &Frame) -> (String, Vec<u8>) {
    let eth_dst = world.mac(to);
    (format!("ep{to}"), Frame { eth_dst, ..*frame }.bytes())
}

#[test]
fn kernel_a_mirror_gets_what_came_beside_whom_it_is_for() {
    let Some(mut world) = World::new("kernel_mirrored", Capacity::default()) else {
        return;
    };
    world.apply("policy main = if tcp then (forward + mirror to web2) else forward");
    for is_v4 in [true, false] {
        let frame = world.frame(CLIENT, DB, is_v4, Transport::Tcp(4000, 80));
        let mut expected = vec![at(&world, DB, &frame), at(&world, WEB_2, &frame)];
        expected.sort();
        for _ in 0..3 {
            let fate = world.send(CLIENT, &frame);
            assert_eq!(fate.out, expected);
            assert_eq!(fate.drops, BTreeMap::new());
        }
        let frame = world.frame(CLIENT, DB, is_v4, Transport::Udp(4000, 80));
        assert_eq!(world.send(CLIENT, &frame).out, [at(&world, DB, &frame)]);
        // What is for the mirror itself comes once more: that is another packet.
        let frame = world.frame(CLIENT, WEB_2, is_v4, Transport::Tcp(4000, 80));
        let expected = vec![at(&world, WEB_2, &frame); 2];
        assert_eq!(world.send(CLIENT, &frame).out, expected);
    }
}

#[test]
fn kernel_a_mirror_that_is_gone_changes_nothing_of_what_it_would_have_seen() {
    let Some(mut world) = World::new("kernel_mirror_gone", Capacity::default()) else {
        return;
    };
    world.desired.endpoints.remove(&WEB_2);
    world.apply("policy main = forward + mirror to web2");
    let frame = world.frame(CLIENT, DB, true, Transport::Tcp(4000, 80));
    for _ in 0..3 {
        let fate = world.send(CLIENT, &frame);
        assert_eq!(fate.out, [at(&world, DB, &frame)]);
        assert_eq!(fate.drops, BTreeMap::from([(DropReason::NoOwner, 1)]));
    }
}

#[test]
fn kernel_a_mirror_elsewhere_gets_its_copy_through_the_tunnel() {
    let Some(mut world) = World::new("kernel_mirror_away", Capacity::default()) else {
        return;
    };
    for is_v4 in [true, false] {
        world.place(WEB_2, 2);
        world.apply("policy main = forward + mirror to web2");
        let frame = world.frame(CLIENT, DB, is_v4, Transport::Tcp(4000, 80));
        for _ in 0..2 {
            let fate = world.send(CLIENT, &frame);
            assert_eq!(fate.drops, BTreeMap::new());
            let [here, away] = &fate.out[..] else {
                panic!("{:?}", fate.out);
            };
            assert_eq!(*here, at(&world, DB, &frame));
            assert_eq!(away.0, UNDERLAY);
            assert!(away.1.ends_with(&at(&world, WEB_2, &frame).1));
        }
    }
}

#[test]
fn kernel_replies_to_what_was_mirrored_are_established_and_the_mirror_asked_for_none() {
    let Some(mut world) = World::new("kernel_mirror_replies", Capacity::default()) else {
        return;
    };
    world.apply(
        "policy main =
            if established then forward \"reply\"
            else if src = client1 then (forward \"asks\" + mirror to web2)
            else drop
        ",
    );
    for is_v4 in [true, false] {
        let asks = world.frame(CLIENT, DB, is_v4, Transport::Tcp(4000, 80));
        for _ in 0..2 {
            assert_eq!(world.send(CLIENT, &asks).out.len(), 2);
        }
        let reply = world.frame(DB, CLIENT, is_v4, Transport::Tcp(80, 4000));
        for _ in 0..2 {
            assert_eq!(world.send(DB, &reply).out, [at(&world, CLIENT, &reply)]);
        }
        let forged = world.frame(WEB_2, CLIENT, is_v4, Transport::Tcp(80, 4000));
        assert!(world.send(WEB_2, &forged).out.is_empty());
    }
}
