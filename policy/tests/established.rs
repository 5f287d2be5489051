//! `established`: replies of what the policy admits, and of nothing else that a reply tells.

mod common;

use common::*;
use proptest::prelude::*;
use sunwire_policy::packet::Packet;
use sunwire_policy::testing::{Kind, document, environment, for_all, packets, policies};
use sunwire_policy::{evaluate, parse, resolve};

const ESTABLISHED: u8 = 1;

/// The reply to a packet.
fn reply(packet: &Packet) -> Packet {
    let icmp_type = match packet.icmp_type {
        8 => 0,
        0 if matches!(packet.protocol, 1 | 58) => 8,
        128 => 129,
        129 => 128,
        other => other,
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
            // Where a reply comes from, and how it is marked, is its own.
            let answer = Packet {
                port: packet.port % 5 + 1,
                dscp: packet.dscp ^ 10,
                ..reply(packet)
            };
            let back = evaluate(&policy, &answer).map_err(|e| e.to_string())?;
            if !back.copies.contains_key(&answer) {
                return Err(format!(
                    "{text}\n{packet:?} is admitted, and not {answer:?}"
                ));
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

#[test]
fn it_is_about_the_headers_before_they_are_rewritten() {
    let text = "policy main = if established then id
        else if dst = 10.20.0.100 and tcp dst port 80 then (ip4Dst := 10.20.0.1; forward)
        else drop";
    let first = Packet {
        dst: "10.20.0.100"
            .parse::<std::net::IpAddr>()
            .expect("an address")
            .into(),
        ..packet(CLIENT, WEB, true, TCP, 1500, 80)
    };
    assert!(!out(text, &reply(&first)).is_empty());
    let rewritten = packet(CLIENT, WEB, true, TCP, 1500, 80);
    assert!(out(text, &reply(&rewritten)).is_empty());
}
