//! Packets that leave the cloud by a node, and what comes back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod outbound {
    #[allow(dead_code, reason = "the world is shared with the tests of IPv6")]
    pub(crate) mod world;
}

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use fixture::{
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{OWN, VTEP},
    wire::{Frame, Transport, Tunnel, assert_valid, fragment},
};
use outbound::world::*;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    expiry::{LIFETIMES, Lifetime, Sweep},
    outbound::{by, mac_of},
};
use sunwire_userspace::{
    connections::tables::{Tables, Which},
    maps::Capacity,
};

#[test]
fn kernel_outbound_what_leaves_has_the_nodes_address_and_answers_find_back() {
    let Some(mut world) = world("outbound_there") else {
        return;
    };
    world.apply(OPEN);
    for transport in [
        Transport::Tcp(5000, 443),
        Transport::Udp(5000, 53),
        Transport::UdpUnsummed(5001, 53),
    ] {
        let frame = world.frame(WEB, OUTSIDE, transport);
        let port = world.out(WEB, &frame);
        assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port), "{port}");
        // The second time the verdict is remembered, and the port stays.
        assert_eq!(world.out(WEB, &frame), port);
        let (answer, arrives) = match transport {
            Transport::Tcp(own, to) => (Transport::Tcp(to, port), Transport::Tcp(to, own)),
            Transport::Udp(own, to) => (Transport::Udp(to, port), Transport::Udp(to, own)),
            Transport::UdpUnsummed(own, to) => (
                Transport::UdpUnsummed(to, port),
                Transport::UdpUnsummed(to, own),
            ),
            _ => unreachable!(),
        };
        let back = world.back(OUTSIDE, answer);
        let expected = Frame {
            eth_src: mac_of(OWN).to_bytes(),
            eth_dst: world.mac(WEB),
            dst: world.address(WEB),
            transport: arrives,
            ..back
        };
        for _ in 0..2 {
            let fate = world.receive(&back.bytes());
            let came = only(&fate, "ep1");
            assert_valid(&came);
            assert_eq!(came, with_hops(expected.bytes(), 63));
        }
    }
}

#[test]
fn kernel_outbound_an_echo_leaves_under_an_identifier_of_the_node() {
    let Some(mut world) = world("outbound_echo") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE, Transport::Icmp(8, 0));
    let fate = world.send(WEB, &frame.bytes());
    let sent = only(&fate, UNDERLAY);
    assert_valid(&sent);
    assert_eq!(sum(&sent[34..]), 0, "ICMP checksum");
    let id = u16::from_be_bytes([sent[38], sent[39]]);
    assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&id), "{id}");
    let mut answer = world.back(OUTSIDE, Transport::Icmp(0, 0)).bytes();
    answer[38..40].copy_from_slice(&id.to_be_bytes());
    answer[36..38].copy_from_slice(&[0, 0]);
    let checksum = sum(&answer[34..]);
    answer[36..38].copy_from_slice(&checksum.to_be_bytes());
    let fate = world.receive(&answer);
    let came = only(&fate, "ep1");
    assert_valid(&came);
    assert_eq!(sum(&came[34..]), 0, "ICMP checksum");
    // The identifier that frames here have.
    assert_eq!(came[38..40], [0, 7]);
    assert_eq!(
        IpAddr::from(<[u8; 4]>::try_from(&came[30..34]).unwrap()),
        world.address(WEB)
    );
    // An echo of a stranger is the host's.
    let fate = world.receive(&world.back(OUTSIDE, Transport::Icmp(8, 0)).bytes());
    assert!(fate.out.iter().all(|(by, _)| by == UNDERLAY), "it answers");
    assert_eq!(fate.drops.len(), 0);
}

#[test]
fn kernel_outbound_the_policy_decides_and_what_is_nobodys_inside_does_not_leave() {
    let Some(mut world) = world("outbound_policy") else {
        return;
    };
    world.apply(WEB_ONLY);
    let https = world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 443));
    world.out(WEB, &https);
    let http = world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 80));
    let fate = world.send(WEB, &http.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Policy));
    world.apply(OPEN);
    // In the network's own subnet.
    let nobody = world.frame(
        WEB,
        Ipv4Addr::new(10, 20, 77, 77),
        Transport::Tcp(5000, 443),
    );
    let fate = world.send(WEB, &nobody.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::NoOwner));
    // Once the network lets nothing out, what left before does not go on either.
    world.outbound = by::NOBODY;
    world.apply(OPEN);
    let fate = world.send(WEB, &https.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::NoOwner));
}

#[test]
fn kernel_outbound_nothing_leaves_to_nodes_and_to_what_routers_do_not_forward() {
    let Some(mut world) = world("outbound_forbidden") else {
        return;
    };
    world.apply(OPEN);
    // A packet in a tunnel of the endpoint's own would be taken for one of this node.
    let forged = world.frame(WEB, OTHER_VTEP, Transport::Udp(5000, 4789));
    let fate = world.send(WEB, &forged.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundForbidden));
    assert_eq!(told(&fate, "ep1"), (3, 13));
    let itself = world.frame(WEB, VTEP, Transport::Tcp(5000, 22));
    let fate = world.send(WEB, &itself.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundForbidden));
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let fate = world.send(
        WEB,
        &world.frame(WEB, metadata, Transport::Tcp(5000, 80)).bytes(),
    );
    assert_eq!(dropped(&fate), Some(DropReason::NoOwner));
    assert!(fate.out.is_empty());
    let way = world.way;
    world.way.ports = 0;
    world.apply(OPEN);
    let fate = world.send(
        WEB,
        &world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 80)).bytes(),
    );
    assert_eq!(dropped(&fate), Some(DropReason::OutboundAddress));
    assert_eq!(told(&fate, "ep1"), (3, 0));
    world.way = way;
    world.apply(OPEN);
    let gre = world.frame(WEB, OUTSIDE, Transport::Other(47));
    let fate = world.send(WEB, &gre.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundProtocol));
    let lost = world.frame(WEB, Ipv4Addr::new(203, 0, 113, 9), Transport::Tcp(5000, 80));
    let fate = world.send(WEB, &lost.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::NoRoute));
    assert_eq!(told(&fate, "ep1"), (3, 0));
    let expired = world.frame(WEB, OUTSIDE, Transport::Udp(5000, 33_434));
    let fate = world.send(WEB, &with_hops(expired.bytes(), 1));
    assert_eq!(dropped(&fate), Some(DropReason::Expired));
    assert_eq!(told(&fate, "ep1"), (11, 0));
}

#[test]
fn kernel_outbound_one_port_towards_all_and_never_one_that_another_connection_has() {
    let Some(mut world) = world("outbound_ports") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE, Transport::Udp(5000, 53));
    let port = world.out(WEB, &frame);
    // The same endpoint's address and port elsewhere.
    for to in [
        Ipv4Addr::new(198, 51, 100, 8),
        Ipv4Addr::new(192, 88, 99, 1),
    ] {
        let frame = world.frame(WEB, to, Transport::Udp(5000, 53));
        assert_eq!(world.out(WEB, &frame), port);
    }
    // Its own port where that is one of the range.
    let own = world.frame(WEB, OUTSIDE, Transport::Udp(61_500, 53));
    assert_eq!(world.out(WEB, &own), 61_500);
    let twins = world.frame(TWIN, OUTSIDE, Transport::Udp(61_500, 53));
    let other = world.out(TWIN, &twins);
    assert_ne!(other, 61_500);
    // Two tenants' endpoints with one address and one port, to one address and port.
    let twin = world.frame(TWIN, OUTSIDE, Transport::Udp(5000, 53));
    let theirs = world.out(TWIN, &twin);
    assert_ne!(theirs, port);
    for (number, node_port, own) in [
        (WEB, port, 5000),
        (TWIN, theirs, 5000),
        (TWIN, other, 61_500),
    ] {
        let back = world.back(OUTSIDE, Transport::Udp(53, node_port));
        let came = only(&world.receive(&back.bytes()), &device_of(number));
        assert_eq!(came[..6], world.mac(number));
        assert_eq!(came[36..38], u16::to_be_bytes(own));
    }
}

#[test]
fn kernel_outbound_without_a_free_port_a_connection_does_not_begin_and_others_go_on() {
    let Some(mut world) = world("outbound_exhausted") else {
        return;
    };
    world.way.ports = 5;
    world.apply(OPEN);
    let mut ports = BTreeSet::new();
    for own in 0..5 {
        let frame = world.frame(WEB, OUTSIDE, Transport::Tcp(5000 + own, 443));
        ports.insert(world.out(WEB, &frame));
    }
    assert_eq!(ports, (FIRST_PORT..FIRST_PORT + 5).collect());
    let sixth = world.frame(WEB, OUTSIDE, Transport::Tcp(5005, 443));
    let fate = world.send(WEB, &sixth.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundPorts));
    assert_eq!(told(&fate, "ep1"), (3, 1));
    // Towards others, and by another protocol, there are as many again.
    let elsewhere = world.frame(WEB, OUTSIDE, Transport::Tcp(5005, 80));
    world.out(WEB, &elsewhere);
    let datagram = world.frame(WEB, OUTSIDE, Transport::Udp(5005, 443));
    world.out(WEB, &datagram);
    for own in 0..5 {
        let frame = world.frame(WEB, OUTSIDE, Transport::Tcp(5000 + own, 443));
        assert!(ports.contains(&world.out(WEB, &frame)));
    }
}

#[test]
fn kernel_outbound_a_full_table_takes_nothing_new_and_keeps_what_is_there() {
    let capacity = Capacity {
        outbound: 4,
        ..Capacity::default()
    };
    let Some(mut world) = world_with("outbound_full", capacity) else {
        return;
    };
    world.apply(OPEN);
    let frame = |world: &World, own: u16| world.frame(WEB, OUTSIDE, Transport::Udp(own, 53));
    let first = frame(&world, 5000);
    let port = world.out(WEB, &first);
    let mut refused = 0;
    // The kernel keeps a few elements more for each processor.
    for own in 5001..5300 {
        let fate = world.send(WEB, &frame(&world, own).bytes());
        if let Some(reason) = dropped(&fate) {
            assert_eq!(reason, DropReason::OutboundFull);
            assert_eq!(told(&fate, "ep1"), (3, 1));
            refused += 1;
        }
    }
    assert!(refused > 100, "{refused}");
    assert_eq!(world.out(WEB, &first), port);
}

#[test]
fn kernel_outbound_what_nobody_asked_for_is_the_hosts() {
    let Some(mut world) = world("outbound_unasked") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 443));
    let port = world.out(WEB, &frame);
    let other = Ipv4Addr::new(198, 51, 100, 8);
    for back in [
        // Another port, another address, another port there, another protocol.
        world.back(OUTSIDE, Transport::Tcp(443, port ^ 1)),
        world.back(other, Transport::Tcp(443, port)),
        world.back(OUTSIDE, Transport::Tcp(80, port)),
        world.back(OUTSIDE, Transport::Udp(443, port)),
        world.back(OUTSIDE, Transport::Tcp(443, 22)),
    ] {
        let fate = world.receive(&back.bytes());
        let came: Vec<_> = fate.out.iter().filter(|(by, _)| by != UNDERLAY).collect();
        assert!(came.is_empty(), "{back:?}: {came:?}");
        assert_eq!(fate.drops.len(), 0, "{back:?}");
    }
    // What answers, once the policy has ended the connection.
    let answer = world.back(OUTSIDE, Transport::Tcp(443, port));
    only(&world.receive(&answer.bytes()), "ep1");
    world.apply("policy main = drop \"closed\"");
    let fate = world.send(WEB, &frame.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Revoked));
    let fate = world.receive(&answer.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundUnasked));
    assert!(fate.out.is_empty());
}

/// An ICMP error about a frame that left.
fn error(about: &[u8], from: Ipv4Addr, kind: u8, code: u8, word: u32, quoted: usize) -> Vec<u8> {
    let mut payload = about[14..14 + 20 + quoted].to_vec();
    let mut rest = word.to_be_bytes().to_vec();
    rest.append(&mut payload);
    let frame = Frame {
        eth_src: ROUTER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: from.into(),
        dst: VTEP.into(),
        dscp: 0,
        transport: Transport::Icmp(kind, code),
        payload: 0,
    };
    let mut bytes = frame.bytes_with(&rest[4..]);
    bytes[38..42].copy_from_slice(&rest[..4]);
    bytes[36..38].copy_from_slice(&[0, 0]);
    let checksum = sum(&bytes[34..]);
    bytes[36..38].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn kernel_outbound_errors_about_what_left_come_to_who_sent_it_as_about_what_he_sent() {
    let Some(mut world) = world("outbound_errors") else {
        return;
    };
    world.apply(OPEN);
    let router = Ipv4Addr::new(192, 88, 99, 9);
    for transport in [
        Transport::Tcp(5000, 443),
        Transport::Udp(5000, 53),
        Transport::Icmp(8, 0),
    ] {
        let frame = world.frame(WEB, OUTSIDE, transport);
        let sent = frame.bytes();
        let fate = world.send(WEB, &sent);
        let left = only(&fate, UNDERLAY);
        for quoted in [8, 28] {
            let told = error(&left, router, 3, 4, 1200, quoted);
            let came = only(&world.receive(&told), "ep1");
            assert_valid(&came);
            assert_eq!(sum(&came[34..]), 0, "ICMP checksum");
            assert_eq!((came[34], came[35]), (3, 4));
            assert_eq!(came[38..42], 1200u32.to_be_bytes());
            assert_eq!(came[26..30], router.octets());
            // As it was sent, but for the hop that it has made.
            let quote = &came[42..];
            let was = with_hops(sent.clone(), 63);
            assert_eq!(*quote, was[14..14 + quote.len()], "{transport:?}");
        }
        // About what did not leave here, it is the host's.
        let mut strange = left.clone();
        strange[33] ^= 1;
        let fate = world.receive(&error(&strange, router, 3, 4, 1200, 8));
        assert_eq!((fate.out.len(), fate.drops.len()), (0, 0), "{fate:?}");
    }
}

#[test]
fn kernel_outbound_what_is_too_big_for_the_network_is_told_to_who_is_outside() {
    let Some(mut world) = world("outbound_big") else {
        return;
    };
    world.apply(OPEN);
    let port = world.out(WEB, &world.frame(WEB, OUTSIDE, Transport::Udp(5000, 53)));
    let mut big = world.back(OUTSIDE, Transport::Udp(53, port));
    big.payload = MTU as usize - 28;
    only(&world.receive(&big.bytes()), "ep1");
    big.payload += 1;
    let fate = world.receive(&big.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::TooBig));
    let [(device, told)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(device, UNDERLAY);
    assert_valid(told);
    assert_eq!((told[34], told[35]), (3, 4));
    assert_eq!(told[40..42], u16::to_be_bytes(MTU as u16));
    assert_eq!(told[26..30], VTEP.octets());
    assert_eq!(told[30..34], OUTSIDE.octets());
    assert_eq!(told[42..70], big.bytes()[14..42]);
}

#[test]
fn kernel_outbound_fragments_leave_and_come_back_under_the_port_of_their_first() {
    let Some(mut world) = world("outbound_fragments") else {
        return;
    };
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE, Transport::Udp(5000, 53)).bytes();
    let first = fragment(frame.clone(), 0, true);
    let mut later = frame;
    later.drain(34..42);
    later[16..18].copy_from_slice(&60u16.to_be_bytes());
    let later = fragment(later, 6, false);
    // Not before the first one.
    let mut strange = later.clone();
    strange[18..20].copy_from_slice(&[9, 9]);
    let strange = fragment(strange, 6, false);
    let fate = world.send(WEB, &strange);
    assert_eq!(dropped(&fate), Some(DropReason::Fragment));
    let left = only(&world.send(WEB, &first), UNDERLAY);
    assert_eq!(left[26..30], VTEP.octets());
    let port = u16::from_be_bytes([left[34], left[35]]);
    let left = only(&world.send(WEB, &later), UNDERLAY);
    assert_eq!(left[26..30], VTEP.octets());
    assert_eq!(left[34..], later[34..], "the payload is as it was");
    // Back.
    let back = world.back(OUTSIDE, Transport::Udp(53, port)).bytes();
    let first = fragment(back.clone(), 0, true);
    let mut later = back;
    later.drain(34..42);
    later[16..18].copy_from_slice(&50u16.to_be_bytes());
    let later = fragment(later, 6, false);
    let fate = world.receive(&later);
    assert_eq!((fate.out.len(), fate.drops.len()), (0, 0));
    let came = only(&world.receive(&first), "ep1");
    assert_eq!(came[36..38], 5000u16.to_be_bytes());
    let came = only(&world.receive(&later), "ep1");
    assert_eq!(came[34..], later[34..]);
}

#[test]
fn kernel_outbound_by_another_node_it_goes_there_and_what_comes_back_is_believed_of_that_node_alone()
 {
    let Some(mut world) = world("outbound_gateway") else {
        return;
    };
    world.outbound = OTHER;
    world.apply(OPEN);
    let frame = world.frame(WEB, OUTSIDE, Transport::Tcp(5000, 443));
    let tunnel = Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: OTHER_MAC,
        src: VTEP.into(),
        dst: OTHER_VTEP.into(),
        vni: SHOP,
        hops: 0,
    };
    let inner = Frame {
        eth_dst: mac_of(OTHER).to_bytes(),
        ..frame
    };
    for _ in 0..2 {
        let fate = world.send(WEB, &frame.bytes());
        assert_eq!(
            fate.out,
            [(UNDERLAY.to_owned(), tunnel.wrap(&inner.bytes()))]
        );
    }
    let from_other = Tunnel {
        eth_src: OTHER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: OTHER_VTEP.into(),
        dst: VTEP.into(),
        vni: SHOP,
        hops: 0,
    };
    let answer = Frame {
        eth_src: mac_of(OTHER).to_bytes(),
        eth_dst: world.mac(WEB),
        src: OUTSIDE.into(),
        dst: world.address(WEB),
        dscp: 0,
        transport: Transport::Tcp(443, 5000),
        payload: 30,
    };
    for _ in 0..2 {
        let fate = world.receive(&from_other.wrap(&answer.bytes()));
        assert_eq!(only(&fate, "ep1"), answer.bytes());
    }
    // Nobody has asked for it.
    let strange = Frame {
        transport: Transport::Tcp(80, 5000),
        ..answer
    };
    let fate = world.receive(&from_other.wrap(&strange.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::OutboundUnasked));
    // Another node than the one that it comes from.
    let forged = Frame {
        eth_src: mac_of(3).to_bytes(),
        ..answer
    };
    let fate = world.receive(&from_other.wrap(&forged.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
    // From an address that is an endpoint's.
    let forged = Frame {
        src: world.address(2),
        ..answer
    };
    let fate = world.receive(&from_other.wrap(&forged.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
}

#[test]
fn kernel_outbound_what_other_nodes_send_here_leaves_for_their_own_endpoints_alone() {
    let Some(mut world) = world("outbound_for_others") else {
        return;
    };
    world.outbound = OWN;
    world.db_at = OTHER;
    world.apply(OPEN);
    let from_other = Tunnel {
        eth_src: OTHER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: OTHER_VTEP.into(),
        dst: VTEP.into(),
        vni: SHOP,
        hops: 0,
    };
    let frame = Frame {
        eth_dst: mac_of(OWN).to_bytes(),
        ..world.frame(DB, OUTSIDE, Transport::Udp(5000, 53))
    };
    let mut port = 0;
    for _ in 0..2 {
        let left = only(&world.receive(&from_other.wrap(&frame.bytes())), UNDERLAY);
        assert_valid(&left);
        port = u16::from_be_bytes([left[34], left[35]]);
        let expected = Frame {
            eth_src: UNDERLAY_MAC,
            eth_dst: ROUTER_MAC,
            src: VTEP.into(),
            transport: Transport::Udp(port, 53),
            ..frame
        };
        assert_eq!(left, with_hops(expected.bytes(), 63));
    }
    // Back to where it is.
    let back = world.back(OUTSIDE, Transport::Udp(53, port));
    let inner = Frame {
        eth_src: mac_of(OWN).to_bytes(),
        eth_dst: world.mac(DB),
        dst: world.address(DB),
        transport: Transport::Udp(53, 5000),
        ..back
    };
    let tunnel = Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: OTHER_MAC,
        src: VTEP.into(),
        dst: OTHER_VTEP.into(),
        vni: SHOP,
        hops: 0,
    };
    let fate = world.receive(&back.bytes());
    let expected = tunnel.wrap(&with_hops(inner.bytes(), 63));
    assert_eq!(only(&fate, UNDERLAY), expected);
    // What cannot leave is told by the tunnel, too.
    let lost = Frame {
        dst: Ipv4Addr::new(203, 0, 113, 9).into(),
        ..frame
    };
    let fate = world.receive(&from_other.wrap(&lost.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::NoRoute));
    let [(device, told)] = &fate.out[..] else {
        panic!("{:?}", fate.out);
    };
    assert_eq!(device, UNDERLAY);
    assert_valid(told);
    assert_eq!((told[50 + 34], told[50 + 35]), (3, 0));
    // An endpoint of this node, as another one says.
    let forged = Frame {
        eth_src: world.mac(WEB),
        src: world.address(WEB),
        ..frame
    };
    let fate = world.receive(&from_other.wrap(&forged.bytes()));
    assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
    // It moves here: its connection has the port that it had.
    world.db_at = OWN;
    world.apply(OPEN);
    let fate = world.receive(&back.bytes());
    assert_eq!(
        dropped(&fate),
        Some(DropReason::OutboundUnasked),
        "no flow came along here"
    );
    let frame = world.frame(DB, OUTSIDE, Transport::Udp(5000, 53));
    assert_eq!(world.out(DB, &frame), port);
    only(&world.receive(&back.bytes()), "ep3");
}

#[test]
fn kernel_outbound_ports_of_what_is_over_are_free_again_and_others_stay() {
    let Some(mut world) = world("outbound_swept") else {
        return;
    };
    world.way.ports = 2;
    world.apply(OPEN);
    let tables = Tables::load(world.node.pins(), Capacity::default()).unwrap();
    let frame = |world: &World, own| world.frame(WEB, OUTSIDE, Transport::Tcp(own, 443));
    let (first, second) = (frame(&world, 5000), frame(&world, 5001));
    let kept = world.out(WEB, &first);
    // Begun and reset: over.
    let port = world.out(WEB, &second);
    let mut reset = second.bytes();
    reset[47] = 0x04;
    let reset = with_tcp_checksum(reset);
    only(&world.send(WEB, &reset), UNDERLAY);
    let third = frame(&world, 5002);
    let fate = world.send(WEB, &third.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::OutboundPorts));
    let mut limits = Sweep {
        silence: [u32::MAX; LIFETIMES],
        ..Sweep::default()
    };
    let found = tables.sweep(Which::Outside, limits).unwrap();
    assert_eq!(found.kept, [2, 0]);
    // Silent for any time at all.
    limits.silence[Lifetime::TcpClosed as usize] = 0;
    eventually_swept(&tables, limits);
    assert_eq!(world.out(WEB, &third), port);
    assert_eq!(world.out(WEB, &first), kept);
}

/// Sweeps until the clock has moved on and one connection is left.
fn eventually_swept(tables: &Tables, limits: Sweep) {
    let began = tables.now().unwrap();
    while tables.now().unwrap() == began {
        std::thread::yield_now();
    }
    let found = tables.sweep(Which::Outside, limits).unwrap();
    assert_eq!(found.kept, [1, 0]);
}

/// The frame with its TCP checksum made anew.
fn with_tcp_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    frame[50..52].copy_from_slice(&[0, 0]);
    let mut covered = frame[26..34].to_vec();
    covered.extend([0, 6]);
    covered.extend(((frame.len() - 34) as u16).to_be_bytes());
    covered.extend(&frame[34..]);
    let checksum = sum(&covered);
    frame[50..52].copy_from_slice(&checksum.to_be_bytes());
    frame
}
