//! The same over IPv6 as over IPv4: packets that leave the cloud by a node, and what comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod outbound {
    #[allow(dead_code, reason = "the world is shared with the tests of IPv4")]
    pub(crate) mod world;
}

use std::{collections::BTreeSet, net::Ipv6Addr};

use fixture::{
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{OWN, VTEP},
    wire::{Frame, Transport, Tunnel, assert_valid},
};
use outbound::world::*;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    outbound::{by, mac_of},
};
use sunwire_userspace::maps::Capacity;

/// Bytes in front of the IPv6 header's payload.
const HEADERS: usize = 14 + 40;

#[test]
fn kernel_outbound_over_ipv6_what_leaves_has_the_nodes_address_and_answers_find_back() {
    let Some(mut world) = world("outbound_v6_there") else {
        return;
    };
    world.apply(OPEN);
    for transport in [Transport::Tcp(5000, 443), Transport::Udp(5000, 53)] {
        let frame = world.frame(WEB, OUTSIDE_V6, transport);
        let port = world.out(WEB, &frame);
        assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port), "{port}");
        // The second time the verdict is remembered, and the port stays.
        assert_eq!(world.out(WEB, &frame), port);
        let (answer, arrives) = match transport {
            Transport::Tcp(own, to) => (Transport::Tcp(to, port), Transport::Tcp(to, own)),
            Transport::Udp(own, to) => (Transport::Udp(to, port), Transport::Udp(to, own)),
            _ => unreachable!(),
        };
        let back = world.back(OUTSIDE_V6, answer);
        let expected = Frame {
            eth_src: mac_of(OWN).to_bytes(),
            eth_dst: world.mac(WEB),
            dst: frame.src,
            transport: arrives,
            ..back
        };
        for _ in 0..2 {
            let came = only(&world.receive(&back.bytes()), "ep1");
            assert_valid(&came);
            assert_eq!(came, with_hops(expected.bytes(), 63));
        }
        // What nobody asked for is the host's.
        for strange in [
            world.back(LOST_V6, answer),
            world.back(OUTSIDE_V6, Transport::Tcp(80, port)),
            world.back(OUTSIDE_V6, Transport::Udp(443, port)),
        ] {
            let fate = world.receive(&strange.bytes());
            assert!(
                fate.out.iter().all(|(by, _)| by == UNDERLAY),
                "{strange:?}: {fate:?}"
            );
            assert_eq!(fate.drops.len(), 0, "{strange:?}");
        }
    }
    // The policy has ended the connection.
    let frame = world.frame(WEB, OUTSIDE_V6, Transport::Tcp(5000, 443));
    let port = world.out(WEB, &frame);
    world.apply("policy main = drop \"closed\"");
    let fate = world.send(WEB, &frame.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Revoked));
    let answer = world.back(OUTSIDE_V6, Transport::Tcp(443, port));
    let fate = world.receive(&answer.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundUnasked));
}

#[test]
fn kernel_outbound_over_ipv6_an_echo_leaves_under_an_identifier_of_the_node() {
    let Some(mut world) = world("outbound_v6_echo") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE_V6, Transport::Icmp(128, 0));
    let sent = only(&world.send(WEB, &frame.bytes()), UNDERLAY);
    assert_valid(&sent);
    let id = u16::from_be_bytes([sent[HEADERS + 4], sent[HEADERS + 5]]);
    assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&id), "{id}");
    let expected = Frame {
        eth_src: UNDERLAY_MAC,
        eth_dst: ROUTER_MAC,
        src: VTEP_V6.into(),
        ..frame
    };
    assert_eq!(sent, with_hops(with_identifier(expected.bytes(), id), 63));
    let answer = world.back(OUTSIDE_V6, Transport::Icmp(129, 0));
    let came = world.receive(&with_identifier(answer.bytes(), id));
    let came = only(&came, "ep1");
    assert_valid(&came);
    let expected = Frame {
        eth_src: mac_of(OWN).to_bytes(),
        eth_dst: world.mac(WEB),
        dst: frame.src,
        ..answer
    };
    assert_eq!(came, with_hops(expected.bytes(), 63));
    // An echo of a stranger is the host's.
    let strange = world.back(OUTSIDE_V6, Transport::Icmp(128, 0));
    let fate = world.receive(&strange.bytes());
    assert!(fate.out.iter().all(|(by, _)| by == UNDERLAY), "it answers");
    assert_eq!(fate.drops.len(), 0);
}

#[test]
fn kernel_outbound_over_ipv6_each_reason_not_to_leave_is_counted_and_told() {
    let Some(mut world) = world("outbound_v6_reasons") else {
        return;
    };
    world.apply(WEB_ONLY);
    let https = world.frame(WEB, OUTSIDE_V6, Transport::Tcp(5000, 443));
    world.out(WEB, &https);
    let http = world.frame(WEB, OUTSIDE_V6, Transport::Tcp(5000, 80));
    let fate = world.send(WEB, &http.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Policy));
    world.apply(OPEN);
    let metadata: Ipv6Addr = "fd00:ec2::254".parse().unwrap();
    let nobody: Ipv6Addr = "fd00:14::7777".parse().unwrap();
    for (to, transport, hops, reason, message) in [
        (nobody, Transport::Tcp(1, 80), 64, DropReason::NoOwner, None),
        (
            metadata,
            Transport::Tcp(1, 80),
            64,
            DropReason::NoOwner,
            None,
        ),
        // A packet in a tunnel of the endpoint's own would be taken for one of this node.
        (
            OTHER_VTEP_V6,
            Transport::Udp(5000, 4789),
            64,
            DropReason::OutboundForbidden,
            Some((1, 1)),
        ),
        (
            VTEP_V6,
            Transport::Tcp(5000, 22),
            64,
            DropReason::OutboundForbidden,
            Some((1, 1)),
        ),
        (
            OUTSIDE_V6,
            Transport::Other(47),
            64,
            DropReason::OutboundProtocol,
            None,
        ),
        (
            LOST_V6,
            Transport::Tcp(5000, 80),
            64,
            DropReason::NoRoute,
            Some((1, 0)),
        ),
        (
            OUTSIDE_V6,
            Transport::Udp(5000, 33_434),
            1,
            DropReason::Expired,
            Some((3, 0)),
        ),
    ] {
        let frame = with_hops(world.frame(WEB, to, transport).bytes(), hops);
        let fate = world.send(WEB, &frame);
        assert_eq!(dropped(&fate), Some(reason), "{to} {transport:?}");
        let heard = message.map(|_| told(&fate, "ep1"));
        assert_eq!(heard, message, "{to} {transport:?}");
        if let [(_, message)] = &fate.out[..] {
            // As it was: 20 bytes behind the IP header are quoted.
            assert_eq!(message[HEADERS + 8..], frame[14..HEADERS + 20]);
        }
    }
    // A node without an IPv6 address goes on with IPv4.
    world.node.at_addresses(Some(VTEP), None);
    world.apply(OPEN);
    let fate = world.send(WEB, &https.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundAddress));
    assert_eq!(told(&fate, "ep1"), (1, 0));
    let v4 = world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 443));
    world.out(WEB, &v4);
    // And nothing is taken for an answer there.
    let answer = world.back(OUTSIDE_V6, Transport::Tcp(443, FIRST_PORT));
    assert_eq!(world.receive(&answer.bytes()).drops.len(), 0);
    // One whose network lets nothing out.
    world.node.at_addresses(Some(VTEP), Some(VTEP_V6));
    world.outbound = by::NOBODY;
    world.apply(OPEN);
    let fate = world.send(WEB, &https.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::NoOwner));
}

#[test]
fn kernel_outbound_over_ipv6_ports_are_as_many_as_over_ipv4_and_none_is_shared() {
    let Some(mut world) = world("outbound_v6_ports") else {
        return;
    };
    world.way.ports = 3;
    world.apply(OPEN);
    let frame = |world: &World, from, own| world.frame(from, OUTSIDE_V6, Transport::Tcp(own, 443));
    let mut ports = BTreeSet::new();
    for (from, own) in [(WEB, 5000), (TWIN, 5000), (WEB, 5001)] {
        let one = frame(&world, from, own);
        let port = world.out(from, &one);
        ports.insert(port);
        let back = world.back(OUTSIDE_V6, Transport::Tcp(443, port));
        let came = only(&world.receive(&back.bytes()), &device_of(from));
        assert_eq!(came[..6], world.mac(from));
        assert_eq!(came[HEADERS + 2..HEADERS + 4], u16::to_be_bytes(own));
    }
    assert_eq!(ports, (FIRST_PORT..FIRST_PORT + 3).collect());
    let fate = world.send(WEB, &frame(&world, WEB, 5002).bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundPorts));
    assert_eq!(told(&fate, "ep1"), (1, 3));
    // Over IPv4 they are free.
    let v4 = world.frame(WEB, OUTSIDE, Transport::Tcp(5002, 443));
    world.out(WEB, &v4);
    let first = frame(&world, WEB, 5000);
    assert!(ports.contains(&world.out(WEB, &first)));
}

#[test]
fn kernel_outbound_over_ipv6_a_full_table_takes_nothing_new() {
    let capacity = Capacity {
        outbound: 4,
        ..Capacity::default()
    };
    let Some(mut world) = world_with("outbound_v6_full", capacity) else {
        return;
    };
    world.apply(OPEN);
    let mut refused = 0;
    // The kernel keeps a few elements more for each processor.
    for own in 5000..5300 {
        let frame = world.frame(WEB, OUTSIDE_V6, Transport::Udp(own, 53));
        let fate = world.send(WEB, &frame.bytes());
        if let Some(reason) = dropped(&fate) {
            assert_eq!(reason, DropReason::OutboundFull);
            assert_eq!(told(&fate, "ep1"), (1, 3));
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn kernel_outbound_over_ipv6_errors_about_what_left_come_as_about_what_was_sent() {
    let Some(mut world) = world("outbound_v6_errors") else {
        return;
    };
    world.apply(OPEN);
    let router: Ipv6Addr = "2001:db8:9::9".parse().unwrap();
    for transport in [
        Transport::Tcp(5000, 443),
        Transport::Udp(5000, 53),
        Transport::Icmp(128, 0),
    ] {
        let frame = world.frame(WEB, OUTSIDE_V6, transport);
        let sent = frame.bytes();
        let left = only(&world.send(WEB, &sent), UNDERLAY);
        for (kind, code, word) in [(2, 0, 1280), (1, 4, 0), (3, 0, 0)] {
            for quoted in [8, 28] {
                let outer = world.back(router, Transport::Icmp(kind, code));
                let told = error_about(&left, outer, word, quoted);
                let came = only(&world.receive(&told), "ep1");
                assert_valid(&came);
                let expected = Frame {
                    eth_src: mac_of(OWN).to_bytes(),
                    eth_dst: world.mac(WEB),
                    dst: frame.src,
                    ..outer
                };
                // As it was sent, but for the hop that it has made.
                let was = with_hops(sent.clone(), 63);
                let expected = error_about(&was, expected, word, quoted);
                assert_eq!(came, with_hops(expected, 63), "{transport:?} {kind}");
            }
        }
        // About what did not leave here, it is the host's.
        let mut strange = left.clone();
        strange[HEADERS - 1] ^= 1;
        let outer = world.back(router, Transport::Icmp(2, 0));
        let fate = world.receive(&error_about(&strange, outer, 1280, 8));
        assert_eq!((fate.out.len(), fate.drops.len()), (0, 0), "{fate:?}");
    }
}

#[test]
fn kernel_outbound_over_ipv6_what_is_too_big_for_the_network_is_told_to_who_is_outside() {
    let Some(mut world) = world("outbound_v6_big") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE_V6, Transport::Udp(5000, 53));
    let port = world.out(WEB, &frame);
    let mut big = world.back(OUTSIDE_V6, Transport::Udp(53, port));
    big.payload = MTU as usize - 48;
    only(&world.receive(&big.bytes()), "ep1");
    big.payload += 1;
    let fate = world.receive(&big.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::TooBig));
    let [(device, told)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(device, UNDERLAY);
    assert_valid(told);
    assert_eq!((told[HEADERS], told[HEADERS + 1]), (2, 0));
    assert_eq!(told[HEADERS + 4..HEADERS + 8], MTU.to_be_bytes());
    assert_eq!(told[22..38], VTEP_V6.octets());
    assert_eq!(told[38..54], OUTSIDE_V6.octets());
    assert_eq!(told[HEADERS + 8..], big.bytes()[14..HEADERS + 20]);
    // So is the first part of a datagram that is cut up for a longer way; the others say nothing of ports.
    big.payload += 100;
    let parts = big.bytes();
    let first = part(&parts, 0, MTU as usize - 40);
    let fate = world.receive(&first);
    assert_eq!(dropped(&fate), Some(DropReason::TooBig));
    let [(_, told)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_valid(told);
    assert_eq!((told[HEADERS], told[HEADERS + 1]), (2, 0));
    assert_eq!(told[HEADERS + 8..], first[14..HEADERS + 20]);
}

/// The part of a frame's datagram from `from` to `to`, behind a fragment header (RFC 8200, 4.5).
fn part(frame: &[u8], from: usize, to: usize) -> Vec<u8> {
    let payload = &frame[HEADERS..];
    let to = to.min(payload.len());
    let more = u16::from(to < payload.len());
    let mut part = frame[..HEADERS].to_vec();
    part[18..20].copy_from_slice(&((8 + to - from) as u16).to_be_bytes());
    part[20] = 44;
    part.extend([frame[20], 0]);
    part.extend((from as u16 | more).to_be_bytes());
    part.extend([0, 0, 0, 9]);
    part.extend(&payload[from..to]);
    part
}

#[test]
fn kernel_outbound_over_ipv6_fragments_leave_and_come_back_under_the_port_of_their_first() {
    let Some(mut world) = world("outbound_v6_fragments") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE_V6, Transport::Udp(5000, 53));
    let whole = frame.bytes();
    let (first, later) = (part(&whole, 0, 24), part(&whole, 24, 99));
    // Not before the first one.
    let fate = world.send(WEB, &later);
    assert_eq!(dropped(&fate), Some(DropReason::Fragment));
    let port = world.out(WEB, &frame);
    let left = Frame {
        eth_src: UNDERLAY_MAC,
        eth_dst: ROUTER_MAC,
        src: VTEP_V6.into(),
        transport: Transport::Udp(port, 53),
        ..frame
    };
    let left = with_hops(left.bytes(), 63);
    assert_eq!(only(&world.send(WEB, &first), UNDERLAY), part(&left, 0, 24));
    assert_eq!(
        only(&world.send(WEB, &later), UNDERLAY),
        part(&left, 24, 99)
    );
    // Back.
    let back = world.back(OUTSIDE_V6, Transport::Udp(53, port));
    let (first, later) = (part(&back.bytes(), 0, 24), part(&back.bytes(), 24, 99));
    let fate = world.receive(&later);
    assert_eq!((fate.out.len(), fate.drops.len()), (0, 0));
    let came = Frame {
        eth_src: mac_of(OWN).to_bytes(),
        eth_dst: world.mac(WEB),
        dst: frame.src,
        transport: Transport::Udp(53, 5000),
        ..back
    };
    let came = with_hops(came.bytes(), 63);
    assert_eq!(only(&world.receive(&first), "ep1"), part(&came, 0, 24));
    assert_eq!(only(&world.receive(&later), "ep1"), part(&came, 24, 99));
}

#[test]
fn kernel_outbound_over_ipv6_by_another_node_it_goes_there_and_leaves_for_others_here() {
    let Some(mut world) = world("outbound_v6_gateway") else {
        return;
    };
    world.outbound = OTHER;
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE_V6, Transport::Tcp(5000, 443));
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
    let inner = Frame {
        eth_dst: mac_of(OTHER).to_bytes(),
        ..frame
    };
    let fate = world.send(WEB, &frame.bytes());
    assert_eq!(only(&fate, UNDERLAY), tunnel.wrap(&inner.bytes()));
    let answer = Frame {
        eth_src: mac_of(OTHER).to_bytes(),
        eth_dst: world.mac(WEB),
        src: OUTSIDE_V6.into(),
        dst: frame.src,
        dscp: 0,
        transport: Transport::Tcp(443, 5000),
        payload: 30,
    };
    let fate = world.receive(&from_other.wrap(&answer.bytes()));
    assert_eq!(only(&fate, "ep1"), answer.bytes());
    // Nobody has asked for it.
    let strange = Frame {
        transport: Transport::Tcp(80, 5000),
        ..answer
    };
    let fate = world.receive(&from_other.wrap(&strange.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::OutboundUnasked));

    // And here for an endpoint of the other node.
    world.outbound = OWN;
    world.db_at = OTHER;
    world.apply(OPEN);
    let frame = Frame {
        eth_dst: mac_of(OWN).to_bytes(),
        ..world.frame(DB, OUTSIDE_V6, Transport::Udp(5000, 53))
    };
    let fate = world.receive(&from_other.wrap(&frame.bytes()));
    if !leaves_out_of_tunnel(OUTSIDE_V6.into(), &fate) {
        return;
    }
    let left = only(&fate, UNDERLAY);
    let port = u16::from_be_bytes([left[HEADERS], left[HEADERS + 1]]);
    let expected = Frame {
        eth_src: UNDERLAY_MAC,
        eth_dst: ROUTER_MAC,
        src: VTEP_V6.into(),
        transport: Transport::Udp(port, 53),
        ..frame
    };
    assert_eq!(left, with_hops(expected.bytes(), 63));
    let back = world.back(OUTSIDE_V6, Transport::Udp(53, port));
    let inner = Frame {
        eth_src: mac_of(OWN).to_bytes(),
        eth_dst: world.mac(DB),
        dst: frame.src,
        transport: Transport::Udp(53, 5000),
        ..back
    };
    let expected = tunnel.wrap(&with_hops(inner.bytes(), 63));
    assert_eq!(only(&world.receive(&back.bytes()), UNDERLAY), expected);
    // What cannot leave is told by the tunnel, too.
    let lost = Frame {
        dst: LOST_V6.into(),
        ..frame
    };
    let fate = world.receive(&from_other.wrap(&lost.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::NoRoute));
    let [(device, told)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(device, UNDERLAY);
    assert_valid(told);
    assert_eq!((told[50 + HEADERS], told[50 + HEADERS + 1]), (1, 0));
}
