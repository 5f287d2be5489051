//! Addresses that a policy gives to packets are taken back in what answers them.
//!
//! Policies are written in the language and compiled; what the programs make of packets is what the
//! evaluator says, and what comes back is as if nothing had been rewritten.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::net::IpAddr;

use fixture::{
    wire::{Frame, Transport, assert_valid},
    world::{CLIENT, DB, WEB, World, resolved},
};
use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    headers::Headers,
    tables::{key, slot},
};
use sunwire_policy::{address::Address as PolicyAddress, evaluate, packet::Packet};

const WEB2: u32 = 2;
/// Addresses that no endpoint has.
const VIP: [&str; 2] = ["10.20.0.100", "fd00:14::100"];
const OUTSIDE: [&str; 2] = ["10.20.0.200", "fd00:14::200"];

fn address(of: [&str; 2], is_v4: bool) -> IpAddr {
    of[usize::from(!is_v4)].parse().unwrap()
}

/// A frame from an endpoint to an address.
fn frame(world: &World, from: u32, to: IpAddr, transport: Transport) -> Frame {
    Frame {
        dst: to,
        ..world.frame((from, from), to.is_ipv4(), transport)
    }
}

/// Both ends of an IP packet in a frame: addresses and ports, zero for ICMP.
fn ends(frame: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let octets = |at: usize, bytes: usize| frame[at..at + bytes].to_vec();
    let (src, dst, protocol, transport): (IpAddr, IpAddr, u8, usize) = match frame[12] {
        0x08 => {
            let of = |at| <[u8; 4]>::try_from(octets(at, 4)).unwrap().into();
            (of(26), of(30), frame[23], 34)
        }
        _ => {
            let of = |at| <[u8; 16]>::try_from(octets(at, 16)).unwrap().into();
            (of(22), of(38), frame[20], 54)
        }
    };
    let port = |at: usize| match protocol {
        6 | 17 => u16::from_be_bytes([frame[at], frame[at + 1]]),
        _ => 0,
    };
    ((src, port(transport)), (dst, port(transport + 2)))
}

/// What answers a packet that was let through.
fn reversed(asked: &[u8], transport: Transport, (from, to): (u32, u32)) -> Frame {
    let ((src, _), (dst, _)) = ends(asked);
    let mac = |number: u32| [2, 0, 0, 0, 20, number as u8];
    Frame {
        eth_src: mac(from),
        eth_dst: mac(to),
        src: dst,
        dst: src,
        dscp: 0,
        transport,
        payload: 20,
    }
}

fn back(transport: Transport, asked: &[u8]) -> Transport {
    let ((_, src), (_, dst)) = ends(asked);
    match transport {
        Transport::Tcp(..) => Transport::Tcp(dst, src),
        Transport::Udp(..) => Transport::Udp(dst, src),
        Transport::Icmp(8, _) => Transport::Icmp(0, 0),
        Transport::Icmp(128, _) => Transport::Icmp(129, 0),
        other => other,
    }
}

const DNAT: &str = "policy main =
    if dst = 10.20.0.100 and dst port 443 then (dnat 10.20.0.1 port 8443; forward)
    else if dst = 10.20.0.100 then (dnat 10.20.0.1; forward)
    else if dst = fd00:14::100 and dst port 443 then (dnat fd00:14::1 port 8443; forward)
    else if dst = fd00:14::100 then (dnat fd00:14::1; forward)
    else if established then forward
    else drop";

#[test]
fn answers_to_what_was_sent_to_another_address_come_from_the_one_that_was_asked() {
    World::each("answers_of_dnat", |world| {
        world.apply(DNAT);
        for is_v4 in [true, false] {
            let (vip, web) = (address(VIP, is_v4), world.address(WEB, is_v4));
            let echo = if is_v4 { 8 } else { 128 };
            for (transport, to_port) in [
                (Transport::Tcp(5000, 443), 8443),
                (Transport::Tcp(5000, 80), 80),
                (Transport::Udp(5000, 443), 8443),
                (Transport::Icmp(echo, 0), 0),
            ] {
                for _ in 0..2 {
                    let asked = frame(world, CLIENT, vip, transport);
                    let (own, (_, asked_port)) = ends(&asked.bytes());
                    let passed = world.pass(CLIENT, &asked.bytes()).unwrap();
                    assert_valid(&passed);
                    assert_eq!(ends(&passed), (own, (web, to_port)), "{transport:?}");
                    let answer = reversed(&passed, back(transport, &passed), (WEB, CLIENT));
                    let answered = world.pass(WEB, &answer.bytes()).unwrap();
                    assert_valid(&answered);
                    assert_eq!(ends(&answered), ((vip, asked_port), own), "{transport:?}");
                }
            }
            // What was not asked for is no answer.
            let unasked = Transport::Tcp(8443, 5001);
            let unasked = world.ask((WEB, CLIENT), is_v4, unasked);
            assert_eq!(unasked, Some(DropReason::Policy));
        }
    });
}

const SNAT: &str = "policy main =
    if established then forward
    else if src in { client1, web2 } and dst = db1 and ethTyp = ip then (snat 10.20.0.200; forward)
    else if src in { client1, web2 } and dst = db1 then (snat fd00:14::200; forward)
    else drop";

#[test]
fn endpoints_behind_one_address_get_their_own_answers() {
    World::each("answers_of_snat", |world| {
        world.apply(SNAT);
        for is_v4 in [true, false] {
            let db = world.address(DB, is_v4);
            let outside = address(OUTSIDE, is_v4);
            for transport in [Transport::Tcp(5000, 5432), Transport::Udp(5000, 5432)] {
                let mut ports = Vec::new();
                for sender in [CLIENT, WEB2] {
                    let asked = frame(world, sender, db, transport);
                    let passed = world.pass(sender, &asked.bytes()).unwrap();
                    assert_valid(&passed);
                    let ((src, port), to) = ends(&passed);
                    assert_eq!((src, to), (outside, (db, 5432)), "{transport:?}");
                    // Again, and by the same port.
                    let again = world.pass(sender, &asked.bytes()).unwrap();
                    assert_eq!(ends(&again), ends(&passed));
                    ports.push(port);
                    let answer = reversed(&passed, back(transport, &passed), (DB, 9));
                    let answered = world.pass(DB, &answer.bytes()).unwrap();
                    assert_valid(&answered);
                    let own = (world.address(sender, is_v4), 5000);
                    assert_eq!(ends(&answered), ((db, 5432), own), "{transport:?}");
                }
                assert_eq!(ports[0], 5000);
                assert_ne!(ports[0], ports[1], "{transport:?}");
            }
            // Nobody asked by this port.
            let stray = Frame {
                dst: outside,
                ..world.frame((DB, CLIENT), is_v4, Transport::Tcp(5432, 4999))
            };
            let stray = world.pass(DB, &stray.bytes());
            assert_eq!(stray, Err(DropReason::Policy));
        }
    });
}

/// Two rules send to one server, one of them by another address.
const BOTH: &str = "policy main =
    if dst = 10.20.0.100 then (dnat 10.20.0.1; forward)
    else if established then forward
    else if dst = web1 then forward
    else drop";

#[test]
fn flows_that_would_look_alike_get_other_ports_or_are_dropped_and_counted() {
    World::each("flows_that_look_alike", |world| {
        world.apply(BOTH);
        let (vip, web) = (address(VIP, true), world.address(WEB, true));
        let tcp = Transport::Tcp(5000, 80);
        // The direct one is there first.
        let direct = frame(world, CLIENT, web, tcp);
        assert_eq!(world.send(CLIENT, &direct.bytes()), None);
        let by_vip = world.pass(CLIENT, &frame(world, CLIENT, vip, tcp).bytes());
        let by_vip = by_vip.unwrap();
        assert_valid(&by_vip);
        let ((_, port), _) = ends(&by_vip);
        assert_ne!(port, 5000);
        let answer = reversed(&by_vip, back(tcp, &by_vip), (WEB, CLIENT));
        let answered = world.pass(WEB, &answer.bytes()).unwrap();
        let client = (world.address(CLIENT, true), 5000);
        assert_eq!(ends(&answered), ((vip, 80), client));
        let answer = reversed(&direct.bytes(), Transport::Tcp(80, 5000), (WEB, CLIENT));
        let answered = world.pass(WEB, &answer.bytes()).unwrap();
        assert_eq!(ends(&answered), ((web, 80), client));
        // The other one is there first: what comes back could be of either.
        let udp = Transport::Udp(6000, 80);
        let by_vip = frame(world, CLIENT, vip, udp);
        assert_eq!(world.send(CLIENT, &by_vip.bytes()), None);
        let direct = frame(world, CLIENT, web, udp);
        let taken = Some(DropReason::TranslationTaken);
        assert_eq!(world.send(CLIENT, &direct.bytes()), taken);
        // An echo has no port to change.
        let echo = Transport::Icmp(8, 0);
        let direct = frame(world, CLIENT, web, echo);
        assert_eq!(world.send(CLIENT, &direct.bytes()), None);
        let by_vip = frame(world, CLIENT, vip, echo);
        assert_eq!(world.send(CLIENT, &by_vip.bytes()), taken);
    });
}

fn balance(weights: [u32; 2]) -> String {
    let [one, two] = weights;
    format!(
        "policy main =
    if dst in {{ 10.20.0.100, fd00:14::100 }} and dst port 80
    then balance(web1 weight {one}, web2 weight {two} by src, src port)
    else if established then forward
    else drop"
    )
}

/// The back end that the evaluator names for a packet of the client.
fn expected(world: &World, policy: &str, vip: IpAddr, port: u16) -> Option<IpAddr> {
    let kernel = |address: IpAddr| match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(address.octets()),
    };
    let client = world.address(CLIENT, vip.is_ipv4());
    let headers = Headers {
        src: kernel(client),
        src_port: port,
        ..Headers::default()
    };
    let packet = Packet {
        src: client.into(),
        dst: vip.into(),
        port: CLIENT,
        node: 1,
        eth_type: if vip.is_ipv4() { 0x0800 } else { 0x86dd },
        protocol: 6,
        src_port: port,
        dst_port: 80,
        bucket: slot(&headers, CLIENT, key::SRC | key::SRC_PORT),
        ..Packet::default()
    };
    let outcome = evaluate(&resolved(&world.environment, policy), &packet).unwrap();
    let (copy, _) = outcome.copies.into_iter().next()?;
    match copy.dst {
        PolicyAddress::V4(address) => Some(address.into()),
        PolicyAddress::V6(address) => Some(address.into()),
        PolicyAddress::None => None,
    }
}

fn ask_vip(world: &mut World, vip: IpAddr, port: u16) -> Vec<u8> {
    let asked = frame(world, CLIENT, vip, Transport::Tcp(port, 80));
    let passed = world.pass(CLIENT, &asked.bytes()).unwrap();
    assert_valid(&passed);
    passed
}

/// The back end answers, as the address that was asked.
fn answer_of_vip(world: &mut World, vip: IpAddr, passed: &[u8]) {
    let (_, (chosen, _)) = ends(passed);
    let number = [WEB, WEB2]
        .into_iter()
        .find(|number| world.address(*number, vip.is_ipv4()) == chosen)
        .unwrap();
    let answer = reversed(passed, back(Transport::Tcp(0, 0), passed), (number, CLIENT));
    let answered = world.pass(number, &answer.bytes()).unwrap();
    assert_valid(&answered);
    assert_eq!(ends(&answered).0, (vip, 80));
}

#[test]
fn clients_are_balanced_as_the_evaluator_says_and_stay_while_their_server_is_drained() {
    World::each("clients_are_balanced", |world| {
        let even = balance([1, 1]);
        world.apply(&even);
        for is_v4 in [true, false] {
            let vip = address(VIP, is_v4);
            world.apply(&even);
            let mut chosen = Vec::new();
            for port in 3000..3032 {
                let passed = ask_vip(world, vip, port);
                let (_, (to, _)) = ends(&passed);
                assert_eq!(Some(to), expected(world, &even, vip, port));
                chosen.push(to);
                if port % 2 == 0 {
                    answer_of_vip(world, vip, &passed);
                }
            }
            let webs = [WEB, WEB2].map(|number| world.address(number, is_v4));
            let first = chosen.iter().filter(|to| **to == webs[0]).count();
            assert!((4..=28).contains(&first), "{first}");
            // Connections that are up stay, and nothing new begins at the one that is drained.
            world.apply(&balance([0, 1]));
            for (port, before) in (3000..3032).zip(&chosen) {
                let passed = ask_vip(world, vip, port);
                let (_, (to, _)) = ends(&passed);
                if port % 2 == 0 {
                    assert_eq!(to, *before, "{port} is up");
                    answer_of_vip(world, vip, &passed);
                } else {
                    assert_eq!(to, webs[1], "{port} is not");
                }
            }
            for port in 3100..3116 {
                let passed = ask_vip(world, vip, port);
                let (_, (to, _)) = ends(&passed);
                assert_eq!(to, webs[1]);
            }
            // Of no back end any more, a connection goes where new ones do.
            world.apply(
                "policy main =
                if dst in { 10.20.0.100, fd00:14::100 } and dst port 80
                then balance(web2 by src, src port) else if established then forward else drop",
            );
            for port in 3000..3032 {
                let passed = ask_vip(world, vip, port);
                let (_, (to, _)) = ends(&passed);
                assert_eq!(to, webs[1]);
            }
        }
    });
}

/// The ICMP error that an endpoint sends about a packet that it got: nobody listens at the port.
fn error_about(passed: &[u8], (from, to): (u32, u32)) -> Frame {
    let is_v4 = passed[12] == 0x08;
    let (kind, code) = if is_v4 { (3, 3) } else { (1, 4) };
    reversed(passed, Transport::Icmp(kind, code), (from, to))
}

#[test]
fn an_error_about_a_rewritten_packet_quotes_it_as_it_was_sent() {
    World::each("errors_quote", |world| {
        for (policy, server) in [(DNAT, WEB), (SNAT, DB)] {
            world.apply(policy);
            for is_v4 in [true, false] {
                let to = match server {
                    WEB => address(VIP, is_v4),
                    _ => world.address(DB, is_v4),
                };
                for transport in [
                    Transport::Tcp(7000, 443),
                    Transport::Udp(7000, 443),
                    Transport::UdpUnsummed(7001, 443),
                ] {
                    if !is_v4 && matches!(transport, Transport::UdpUnsummed(..)) {
                        continue;
                    }
                    // From two behind one address, so that one of them gets another port.
                    for sender in [CLIENT, WEB2] {
                        let asked = frame(world, sender, to, transport).bytes();
                        let passed = world.pass(sender, &asked).unwrap();
                        assert_ne!(passed[14..], asked[14..], "it is rewritten");
                        let error = error_about(&passed, (server, sender));
                        // All of the packet, its IP and transport headers, and the least (RFC 792).
                        let header = if is_v4 { 20 } else { 40 };
                        for quoted in [passed.len() - 14, header + 20, header + 8] {
                            let sent = error.bytes_with(&passed[14..14 + quoted]);
                            let expected = Frame {
                                src: to,
                                dst: world.address(sender, is_v4),
                                ..error
                            };
                            let expected = expected.bytes_with(&asked[14..14 + quoted]);
                            let came = world.pass(server, &sent).unwrap();
                            assert_eq!(came, expected, "{transport:?}, {quoted} bytes");
                        }
                        // Too short to tell what it is about: related to nothing.
                        let short = error.bytes_with(&passed[14..14 + header + 4]);
                        assert_eq!(world.send(server, &short), Some(DropReason::Policy));
                    }
                }
            }
        }
    });
}
