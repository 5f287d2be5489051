//! Replies are let through because a packet before them was, and as long as it still would be.
//!
//! Policies are written in the language and compiled; packets go there and back, by test run and on
//! devices.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use fixture::{
    wire::{Frame, Transport},
    world::{CLIENT, DB, WEB, World},
};
use sunwire_dataplane_common::drop_reason::DropReason;

const WEB_TO_DB: &str = "policy main =
    if established then forward \"replies\"
    else if src = web1 and dst = db1 then forward \"web to db\"
    else drop";

/// What is sent and what comes back, of each kind.
fn exchanges(is_v4: bool) -> [(Transport, Transport); 3] {
    let (echo, reply) = if is_v4 { (8, 0) } else { (128, 129) };
    [
        (Transport::Tcp(5000, 5432), Transport::Tcp(5432, 5000)),
        (Transport::Udp(5000, 5432), Transport::Udp(5432, 5000)),
        (Transport::Icmp(echo, 0), Transport::Icmp(reply, 0)),
    ]
}

#[test]
fn a_reply_passes_once_something_was_asked_and_only_to_whoever_asked() {
    World::each("a_reply_passes", |world| {
        world.apply(WEB_TO_DB);
        for is_v4 in [true, false] {
            for (there, back) in exchanges(is_v4) {
                let denied = Some(DropReason::Policy);
                assert_eq!(world.ask((DB, WEB), is_v4, back), denied, "{back:?} first");
                assert_eq!(world.ask((WEB, DB), is_v4, there), None, "{there:?}");
                assert_eq!(world.ask((DB, WEB), is_v4, back), None, "{back:?} then");
                assert_eq!(world.ask((DB, WEB), is_v4, back), None, "{back:?} again");
                assert_eq!(world.ask((DB, CLIENT), is_v4, back), denied, "{back:?}");
            }
            let other = Transport::Tcp(5433, 5000);
            let denied = Some(DropReason::Policy);
            assert_eq!(world.ask((DB, WEB), is_v4, other), denied);
        }
    });
}

#[test]
fn when_the_policy_denies_who_began_a_connection_its_replies_end_too() {
    World::each("replies_end_too", |world| {
        for is_v4 in [true, false] {
            world.apply(WEB_TO_DB);
            for (there, back) in exchanges(is_v4) {
                assert_eq!(world.ask((WEB, DB), is_v4, there), None);
                assert_eq!(world.ask((DB, WEB), is_v4, back), None);
            }
            // The connections are there, and nobody may begin one.
            world.apply(
                "policy main =
                if established then forward \"replies\"
                else if src = client1 and dst = db1 then forward
                else drop",
            );
            for (there, back) in exchanges(is_v4) {
                let ended = Some(DropReason::Revoked);
                assert_eq!(world.ask((DB, WEB), is_v4, back), ended, "{back:?}");
                assert_eq!(world.ask((WEB, DB), is_v4, there), ended, "{there:?}");
                let denied = Some(DropReason::Policy);
                assert_eq!(world.ask((DB, WEB), is_v4, back), denied, "{back:?}");
            }
        }
    });
}

#[test]
fn the_state_of_a_connection_can_be_tested() {
    World::each("the_state_can_be_tested", |world| {
        world.apply("policy main = if conn = new and src = web1 then forward else if conn = established and src = db1 then forward else drop");
        let denied = Some(DropReason::Policy);
        for is_v4 in [true, false] {
            for (there, back) in exchanges(is_v4) {
                assert_eq!(world.ask((WEB, DB), is_v4, there), None);
                assert_eq!(world.ask((WEB, DB), is_v4, there), None);
                assert_eq!(world.ask((DB, WEB), is_v4, back), None);
                // Now there is an answer, and the connection is no new one.
                assert_eq!(world.ask((WEB, DB), is_v4, there), denied);
            }
        }
    });
}

/// The ICMP error that `from` sends about a packet to it.
fn error(world: &World, (from, to): (u32, u32), is_v4: bool, about: &Frame) -> Vec<u8> {
    let (kind, code) = if is_v4 { (3, 3) } else { (1, 4) };
    // Without its Ethernet header.
    let about = about.bytes().split_off(14);
    let frame = world.frame((from, to), is_v4, Transport::Icmp(kind, code));
    frame.bytes_with(&about)
}

#[test]
fn an_icmp_error_is_related_to_the_connection_that_it_speaks_of() {
    World::each("an_icmp_error_is_related", |world| {
        world.apply(WEB_TO_DB);
        let denied = Some(DropReason::Policy);
        for is_v4 in [true, false] {
            for (there, _) in exchanges(is_v4) {
                let asked = world.frame((WEB, DB), is_v4, there);
                let about = error(world, (DB, WEB), is_v4, &asked);
                assert_eq!(world.send(DB, &about), denied, "{there:?} was not sent");
                assert_eq!(world.send(WEB, &asked.bytes()), None);
                assert_eq!(world.send(DB, &about), None, "{there:?}");
                // Not to somebody else, not about what was never delivered, and not cut short.
                let elsewhere = error(world, (DB, CLIENT), is_v4, &asked);
                assert_eq!(world.send(DB, &elsewhere), denied);
                let never = world.frame((WEB, DB), is_v4, Transport::Tcp(1, 2));
                let never = error(world, (DB, WEB), is_v4, &never);
                assert_eq!(world.send(DB, &never), denied);
                let header = if is_v4 { 20 } else { 40 };
                let short = &about[..14 + header + 8 + header + 4];
                assert_eq!(world.send(DB, short), denied);
            }
        }
    });
}

#[test]
fn an_icmp_error_passes_by_a_rule_for_what_is_related() {
    World::each("a_rule_for_what_is_related", |world| {
        world.apply("policy main = if conn = related or src = web1 then forward else drop");
        for is_v4 in [true, false] {
            let asked = world.frame((WEB, DB), is_v4, Transport::Udp(5000, 53));
            let about = error(world, (DB, WEB), is_v4, &asked);
            assert_eq!(world.send(DB, &about), Some(DropReason::Policy));
            assert_eq!(world.send(WEB, &asked.bytes()), None);
            assert_eq!(world.send(DB, &about), None);
        }
    });
}
