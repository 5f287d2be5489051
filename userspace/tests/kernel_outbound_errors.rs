//! ICMP errors that an endpoint sends about what came to it from outside, over IPv4 and IPv6: whoever is
//! outside gets them from the node, and about what was sent to the node.
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
    wire::{Frame, Transport, Tunnel, assert_valid},
};
use outbound::world::*;
use sunwire_dataplane_common::{drop_reason::DropReason, outbound::mac_of};

/// Each family, with the error that a port is closed.
fn families() -> [(IpAddr, Transport); 2] {
    [
        (OUTSIDE.into(), Transport::Icmp(3, 3)),
        (OUTSIDE_V6.into(), Transport::Icmp(1, 4)),
    ]
}

/// What is sent out, and a frame that answers it, given what stands for the node's port.
type Exchange = (Transport, fn(u16) -> Transport);

fn exchanges(family: IpAddr) -> [Exchange; 3] {
    let echo: Exchange = match family {
        IpAddr::V4(_) => (Transport::Icmp(8, 0), |_| Transport::Icmp(0, 0)),
        IpAddr::V6(_) => (Transport::Icmp(128, 0), |_| Transport::Icmp(129, 0)),
    };
    [
        (Transport::Tcp(5000, 443), |port| Transport::Tcp(443, port)),
        (Transport::Udp(5000, 53), |port| Transport::Udp(53, port)),
        echo,
    ]
}

/// A frame with what stands for the node's port.
fn answer(frame: Frame, port: u16) -> Vec<u8> {
    match frame.transport {
        Transport::Icmp(..) => with_identifier(frame.bytes(), port),
        _ => frame.bytes(),
    }
}

/// The error that an endpoint sends about a frame that came to it.
fn complaint(world: &World, from: u32, about: &Frame, error: Transport) -> Frame {
    Frame {
        payload: 0,
        ..world.frame(from, about.src, error)
    }
}

/// Sends a packet of an exchange out; returns what stands for its port there.
fn sent(world: &mut World, from: u32, to: IpAddr, transport: Transport) -> u16 {
    let frame = world.frame(from, to, transport).bytes();
    let left = only(&world.send(from, &frame), UNDERLAY);
    let at = match transport {
        Transport::Icmp(..) => transport_of(&left) + 4,
        _ => transport_of(&left),
    };
    u16::from_be_bytes([left[at], left[at + 1]])
}

#[test]
fn kernel_outbound_an_endpoints_errors_speak_to_outside_of_what_was_sent_to_the_node() {
    let Some(mut world) = world("outbound_complaints") else {
        return;
    };
    world.apply(OPEN);
    for (outside, kind) in families() {
        for (transport, back) in exchanges(outside) {
            let port = sent(&mut world, WEB, outside, transport);
            let back = world.back(outside, back(port));
            let arrived = answer(back, port);
            let came = only(&world.receive(&arrived), "ep1");
            for quoted in [8, 28] {
                let outer = complaint(&world, WEB, &back, kind);
                let error = error_about(&came, outer, 0, quoted);
                let left = only(&world.send(WEB, &error), UNDERLAY);
                assert_valid(&left);
                // But for the hop that it has made, the host outside finds what it has sent.
                let expected = Frame {
                    eth_src: UNDERLAY_MAC,
                    eth_dst: ROUTER_MAC,
                    src: own_address(outside),
                    ..outer
                };
                let was = with_hops(arrived.clone(), 63);
                let expected = error_about(&was, expected, 0, quoted);
                assert_eq!(left, with_hops(expected, 63), "{transport:?} {quoted}");
            }
        }
    }
}

#[test]
fn kernel_outbound_an_endpoints_errors_about_what_did_not_come_to_it_do_not_leave() {
    let Some(mut world) = world("outbound_false_complaints") else {
        return;
    };
    world.apply(OPEN);
    for (outside, kind) in families() {
        let port = sent(&mut world, WEB, outside, Transport::Udp(5000, 53));
        let back = world.back(outside, Transport::Udp(53, port));
        let came = only(&world.receive(&back.bytes()), "ep1");
        let outer = complaint(&world, WEB, &back, kind);
        let at = transport_of(&came);
        // Another port of its own and of the other side, another endpoint's packet, another sender's,
        // and one that ends too soon.
        for byte in [at + 1, at + 3, at - 1] {
            let mut strange = came.clone();
            strange[byte] ^= 1;
            let fate = world.send(WEB, &error_about(&strange, outer, 0, 8));
            assert_eq!(dropped(&fate), Some(DropReason::OutboundProtocol), "{byte}");
            assert!(fate.out.is_empty());
        }
        let fate = world.send(WEB, &error_about(&came, outer, 0, 4));
        assert_eq!(dropped(&fate), Some(DropReason::OutboundProtocol));
        // The other tenant's endpoint of the same address.
        let outer = complaint(&world, TWIN, &back, kind);
        let fate = world.send(TWIN, &error_about(&came, outer, 0, 8));
        assert_eq!(dropped(&fate), Some(DropReason::OutboundProtocol));
        // The policy decides about them, too.
        world.apply(WEB_ONLY);
        let outer = complaint(&world, WEB, &back, kind);
        let fate = world.send(WEB, &error_about(&came, outer, 0, 8));
        assert_eq!(dropped(&fate), Some(DropReason::Policy));
        world.apply(OPEN);
    }
}

#[test]
fn kernel_outbound_an_endpoints_errors_go_by_the_node_where_the_connection_leaves() {
    let Some(mut world) = world("outbound_far_complaints") else {
        return;
    };
    world.outbound = OTHER;
    world.apply(OPEN);
    let tunnel = Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: OTHER_MAC,
        src: VTEP.into(),
        dst: OTHER_VTEP.into(),
        vni: SHOP,
        hops: 0,
    };
    let from_other = Tunnel {
        eth_src: OTHER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: OTHER_VTEP.into(),
        dst: VTEP.into(),
        ..tunnel
    };
    // Towards the node that the connection began by, though the network names another one by now.
    for (outside, kind) in families() {
        world.outbound = OTHER;
        world.apply(OPEN);
        let frame = world.frame(WEB, outside, Transport::Udp(5000, 53));
        only(&world.send(WEB, &frame.bytes()), UNDERLAY);
        let answer = Frame {
            eth_src: mac_of(OTHER).to_bytes(),
            eth_dst: world.mac(WEB),
            src: outside,
            dst: frame.src,
            dscp: 0,
            transport: Transport::Udp(53, 5000),
            payload: 30,
        };
        let came = only(&world.receive(&from_other.wrap(&answer.bytes())), "ep1");
        world.outbound = OWN;
        world.apply(OPEN);
        let outer = complaint(&world, WEB, &answer, kind);
        let fate = world.send(WEB, &error_about(&came, outer, 0, 8));
        let inner = Frame {
            eth_dst: mac_of(OTHER).to_bytes(),
            ..outer
        };
        let expected = tunnel.wrap(&error_about(&came, inner, 0, 8));
        assert_eq!(only(&fate, UNDERLAY), expected);
    }
    // And here, from an endpoint of the other node.
    world.db_at = OTHER;
    world.apply(OPEN);
    for (outside, kind) in families() {
        let frame = Frame {
            eth_dst: mac_of(OWN).to_bytes(),
            ..world.frame(DB, outside, Transport::Udp(5000, 53))
        };
        let fate = world.receive(&from_other.wrap(&frame.bytes()));
        if !leaves_out_of_tunnel(outside, &fate) {
            continue;
        }
        let left = only(&fate, UNDERLAY);
        let at = transport_of(&left);
        let port = u16::from_be_bytes([left[at], left[at + 1]]);
        let back = world.back(outside, Transport::Udp(53, port));
        let came = only(&world.receive(&back.bytes()), UNDERLAY)[50..].to_vec();
        let outer = Frame {
            eth_dst: mac_of(OWN).to_bytes(),
            ..complaint(&world, DB, &back, kind)
        };
        let error = error_about(&came, outer, 0, 8);
        let left = only(&world.receive(&from_other.wrap(&error)), UNDERLAY);
        assert_valid(&left);
        let expected = Frame {
            eth_src: UNDERLAY_MAC,
            eth_dst: ROUTER_MAC,
            src: own_address(outside),
            ..outer
        };
        let was = with_hops(back.bytes(), 63);
        assert_eq!(left, with_hops(error_about(&was, expected, 0, 8), 63));
    }
}
