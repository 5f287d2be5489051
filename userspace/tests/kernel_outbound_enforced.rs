//! Out of the cloud where both nodes decide: the node where packets leave judges what others send there,
//! and what comes back is let in because it was asked for.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod outbound {
    #[allow(dead_code, reason = "the world is shared with other tests")]
    pub(crate) mod world;
}

use std::net::IpAddr;

use fixture::{
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{OWN, VTEP},
    wire::{Frame, Transport, Tunnel},
};
use outbound::world::*;
use sunwire_dataplane_common::{drop_reason::DropReason, outbound::mac_of};

/// What the guide says, with replies and errors.
const ASKED: &str = "policy main = if dst = internet and udp and dst port 53 then forward
    else if conn = established or conn = related then forward else drop";

fn from_other() -> Tunnel {
    Tunnel {
        eth_src: OTHER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: OTHER_VTEP.into(),
        dst: VTEP.into(),
        vni: SHOP,
        hops: 0,
    }
}

fn families() -> [(IpAddr, Transport); 2] {
    [
        (OUTSIDE.into(), Transport::Icmp(3, 3)),
        (OUTSIDE_V6.into(), Transport::Icmp(1, 4)),
    ]
}

#[test]
fn kernel_outbound_where_both_decide_what_another_node_should_not_have_sent_does_not_leave() {
    let Some(mut world) = world("outbound_enforced") else {
        return;
    };
    world.outbound = OWN;
    world.db_at = OTHER;
    for (outside, kind) in families() {
        let send = |world: &mut World, transport| {
            let frame = Frame {
                eth_dst: mac_of(OWN).to_bytes(),
                ..world.frame(DB, outside, transport)
            };
            world.receive(&from_other().wrap(&frame.bytes()))
        };
        let forbidden = Transport::Tcp(5000, 22);
        world.enforced = false;
        world.apply(ASKED);
        let fate = send(&mut world, forbidden);
        let leaves = leaves_out_of_tunnel(outside, &fate);
        if leaves {
            only(&fate, UNDERLAY);
        }
        world.enforced = true;
        world.apply(ASKED);
        for _ in 0..2 {
            let fate = send(&mut world, forbidden);
            assert_eq!(dropped(&fate), Some(DropReason::ReceiverPolicy));
            assert!(fate.out.is_empty());
        }
        // What the policy lets out, leaves, and what answers finds back.
        let asked = Transport::Udp(5000, 53);
        let fate = send(&mut world, asked);
        if !leaves {
            leaves_out_of_tunnel(outside, &fate);
            continue;
        }
        let left = only(&fate, UNDERLAY);
        let at = transport_of(&left);
        let port = u16::from_be_bytes([left[at], left[at + 1]]);
        let back = world.back(outside, Transport::Udp(53, port));
        // An error about an answer is related only once there is a connection.
        let outer = Frame {
            eth_dst: mac_of(OWN).to_bytes(),
            payload: 0,
            ..world.frame(DB, outside, kind)
        };
        let came = only(&world.receive(&back.bytes()), UNDERLAY)[50..].to_vec();
        let complaint = error_about(&came, outer, 0, 8);
        only(&world.receive(&from_other().wrap(&complaint)), UNDERLAY);
        let mut strange = came;
        strange[at + 3] ^= 1;
        let complaint = error_about(&strange, outer, 0, 8);
        let fate = world.receive(&from_other().wrap(&complaint));
        assert_eq!(dropped(&fate), Some(DropReason::ReceiverPolicy));
        // What is up goes on as established, where the policy lets nothing new out.
        world.apply("policy main = if conn = established then forward else drop \"nothing new\"");
        only(&send(&mut world, asked), UNDERLAY);
        let fate = send(&mut world, Transport::Udp(5001, 53));
        assert_eq!(dropped(&fate), Some(DropReason::ReceiverPolicy));
    }
}

#[test]
fn kernel_outbound_where_both_decide_what_was_asked_for_comes_in_and_nothing_else() {
    let Some(mut world) = world("outbound_enforced_back") else {
        return;
    };
    world.enforced = true;
    for (outside, _) in families() {
        // By this node.
        world.outbound = sunwire_dataplane_common::outbound::by::LOCAL;
        world.apply(ASKED);
        let frame = world.frame(WEB, outside, Transport::Udp(5000, 53));
        let port = world.out(WEB, &frame);
        let back = world.back(outside, Transport::Udp(53, port));
        for _ in 0..2 {
            only(&world.receive(&back.bytes()), "ep1");
        }
        let fate = world.send(
            WEB,
            &world.frame(WEB, outside, Transport::Tcp(1, 2)).bytes(),
        );
        assert_eq!(dropped(&fate), Some(DropReason::Policy));
        // By the other one.
        world.outbound = OTHER;
        world.apply(ASKED);
        let frame = world.frame(WEB, outside, Transport::Udp(5001, 53));
        only(&world.send(WEB, &frame.bytes()), UNDERLAY);
        let answer = |port| Frame {
            eth_src: mac_of(OTHER).to_bytes(),
            eth_dst: world.mac(WEB),
            src: outside,
            dst: frame.src,
            dscp: 0,
            transport: Transport::Udp(53, port),
            payload: 30,
        };
        let (answer, strange) = (answer(5001).bytes(), answer(5002).bytes());
        for _ in 0..2 {
            let fate = world.receive(&from_other().wrap(&answer));
            assert_eq!(only(&fate, "ep1"), answer);
        }
        let fate = world.receive(&from_other().wrap(&strange));
        assert_eq!(dropped(&fate), Some(DropReason::OutboundUnasked));
    }
}
