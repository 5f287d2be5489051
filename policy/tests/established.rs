//! `established`: replies of what the policy admits, and of nothing else that a reply tells.

mod common;

use common::*;
use proptest::prelude::*;
use sunwire_policy::packet::Packet;
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies};
use sunwire_policy::{evaluate, parse, resolve};

const ESTABLISHED: u8 = 1;
const RELATED: u8 = 2;

/// The reply to a packet.
fn reply(packet: &Packet) -> Packet {
    let icmp_type = match (packet.protocol, packet.icmp_type) {
        (1 | 58, 8) => 0,
        (1 | 58, 0) => 8,
        (1 | 58, 128) => 129,
        (1 | 58, 129) => 128,
        (_, other) => other,
    };
    Packet {
        src: packet.dst,
        dst: packet.src,
        src_port: packet.dst_port,
        dst_port: packet.src_port,
        eth_src: packet.eth_dst,
        eth_dst: packet.eth_src,
        icmp_type,
        connection: ESTABLISHED,
        ..*packet
    }
}

#[test]
fn it_holds_for_the_reply_of_everything_that_a_policy_admits() {
    let environment = environment();
    let values = (
        policies(Kind::Closed),
        prop::collection::vec(packets(&environment, "shop"), 16),
    );
    let admitted = std::cell::Cell::new(0);
    for_all("established", 500, &values, |(body, packets)| {
        let text = document(body)
            .to_string()
            .replace("policy main =", "let p =");
        let text = format!("{text}\npolicy main = if established(p) then id else p");
        let policy =
            resolve(&parse(&text).0, &environment).map_err(|d| format!("{text}\n{d:?}"))?;
        for packet in &packets {
            let first = evaluate(&policy, packet).map_err(|e| e.to_string())?;
            if first.copies.is_empty() {
                continue;
            }
            admitted.set(admitted.get() + 1);
            // A reply answers what came out, which may be rewritten. Where it comes from, and how
            // it is marked, is its own.
            for copy in first.copies.keys() {
                let answer = Packet {
                    port: packet.port % 5 + 1,
                    node: packet.node % 3 + 1,
                    dscp: packet.dscp ^ 10,
                    icmp_code: 1,
                    ..reply(copy)
                };
                let error = Packet {
                    protocol: 1,
                    icmp_type: 3,
                    src_port: 0,
                    dst_port: 0,
                    connection: RELATED,
                    ..answer
                };
                for answer in [answer, error] {
                    let back = evaluate(&policy, &answer).map_err(|e| e.to_string())?;
                    if !back.copies.contains_key(&answer) {
                        return Err(format!(
                            "{text}\n{packet:?} is admitted as {copy:?}, and not {answer:?}"
                        ));
                    }
                }
            }
        }
        Ok(())
    });
    assert!(admitted.get() > 500, "{admitted:?}");
}

#[test]
fn it_holds_for_no_other_reply() {
    let text = "policy main = if established then id
        else if src = web1 and dst = db1 and tcp src port 1000-2000 and dst port 5432 then forward
        else if src = web1 and icmp4 and icmpType = 8 then (dscp := 10; forward)
        else drop";
    let passes = |packet: &Packet| !out(text, packet).is_empty();
    let first = packet(WEB, DB, true, TCP, 1500, 5432);
    let answer = reply(&first);
    assert!(passes(&answer));
    for other in [
        Packet {
            connection: 0,
            ..answer
        },
        Packet {
            src_port: 5433,
            ..answer
        },
        Packet {
            dst_port: 2001,
            ..answer
        },
        Packet {
            src: first.src,
            dst: first.dst,
            ..answer
        },
        Packet {
            protocol: UDP,
            ..answer
        },
        reply(&packet(CLIENT, DB, true, TCP, 1500, 5432)),
    ] {
        assert!(!passes(&other), "{other:?}");
    }
    let ping = Packet {
        icmp_type: 8,
        ..packet(WEB, CLIENT, true, 1, 0, 0)
    };
    assert!(passes(&reply(&ping)));
    assert!(!passes(&Packet {
        icmp_type: 8,
        ..reply(&ping)
    }));
}

fn to(packet: &Packet, dst: &str) -> Packet {
    let dst: std::net::IpAddr = dst.parse().expect("an address");
    Packet {
        dst: dst.into(),
        ..*packet
    }
}

#[test]
fn what_answers_a_rewritten_packet_is_a_reply_and_what_answers_the_first_is_none() {
    let text = "policy main = if established then id
        else if dst = 10.20.0.100 and tcp dst port 80 then (ip4Dst := 10.20.0.1; forward)
        else if dst = 10.20.0.101 and tcp dst port 80 then (ip4Dst := 10.20.0.2; tcpDstPort := 8080; forward)
        else drop";
    let passes = |packet: &Packet| !out(text, packet).is_empty();
    let first = packet(CLIENT, WEB, true, TCP, 1500, 80);
    assert!(passes(&reply(&to(&first, "10.20.0.1"))));
    assert!(!passes(&reply(&to(&first, "10.20.0.100"))));
    assert!(!passes(&reply(&to(&first, "10.20.0.2"))));
    let moved = Packet {
        dst_port: 8080,
        ..to(&first, "10.20.0.2")
    };
    assert!(passes(&reply(&moved)));
    assert!(!passes(&reply(&to(&moved, "10.20.0.1"))));
    assert!(!passes(&reply(&to(&moved, "10.20.0.101"))));
}

#[test]
fn a_rule_before_that_denies_is_heeded_also_where_packets_are_rewritten() {
    let text = "policy main = if established then id
        else if src = client1 then drop
        else if dst = 10.20.0.100 then (ip4Dst := 10.20.0.1; if tcp dst port 80 then forward else drop)
        else drop";
    let passes = |packet: &Packet| !out(text, packet).is_empty();
    let web = |from| to(&packet(from, WEB, true, TCP, 1500, 80), "10.20.0.1");
    assert!(passes(&reply(&web(DB))));
    assert!(!passes(&reply(&web(CLIENT))));
    let other = Packet {
        dst_port: 81,
        ..web(DB)
    };
    assert!(!passes(&reply(&other)));
}

#[test]
fn the_replies_of_more_ways_than_are_told_apart_are_admitted_from_each_of_their_ends() {
    let targets: String = (0..100)
        .map(|at| {
            format!(
                "if tcp dst port {} then ip4Dst := 10.20.1.{at} else ",
                1000 + at
            )
        })
        .collect();
    let text = format!(
        "policy main = if established then id
        else if src = client1 then ({targets}drop; forward) else drop"
    );
    let passes = |packet: &Packet| !out(&text, packet).is_empty();
    for at in [0, 50, 99] {
        let port = 1000 + at;
        let first = packet(CLIENT, WEB, true, TCP, 1500, port);
        assert!(
            passes(&reply(&to(&first, &format!("10.20.1.{at}")))),
            "{at}"
        );
        assert!(!passes(&reply(&to(&first, "10.20.2.1"))));
    }
    let first = packet(CLIENT, WEB, true, TCP, 1500, 1007);
    assert!(!passes(&reply(&to(&first, "10.20.1.8"))));
}

#[test]
fn what_speaks_of_a_connection_is_admitted_between_the_same_two() {
    let text = "policy main = if established then id
        else if src = web1 and dst = db1 and tcp dst port 5432 then forward else drop";
    let passes = |packet: &Packet| !out(text, packet).is_empty();
    let error = |from, to, connection| Packet {
        icmp_type: 3,
        icmp_code: 1,
        connection,
        ..packet(from, to, true, 1, 0, 0)
    };
    assert!(passes(&error(DB, WEB, RELATED)));
    assert!(!passes(&error(DB, WEB, ESTABLISHED)));
    assert!(!passes(&error(DB, CLIENT, RELATED)));
    assert!(!passes(&error(WEB, DB, RELATED)));
}
