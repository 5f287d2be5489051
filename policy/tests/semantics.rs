//! What policies mean, each decision by name.

mod common;

use common::*;
use sunwire_policy::field::OWNER;
use sunwire_policy::packet::Packet;

fn web_packet() -> Packet {
    packet(CLIENT, WEB, true, TCP, 40_000, 80)
}

#[test]
fn union_binds_looser_than_sequence() {
    // `a; b + c` is `(a; b) + c`.
    let kept = out(
        "filter tcpDstPort = 81; dscp := 1 + dscp := 2",
        &web_packet(),
    );
    assert_eq!(kept.iter().map(|p| p.dscp).collect::<Vec<_>>(), vec![2]);
    let grouped = out(
        "filter tcpDstPort = 81; (dscp := 1 + dscp := 2)",
        &web_packet(),
    );
    assert!(grouped.is_empty());
}

#[test]
fn a_branch_ends_before_the_semicolon() {
    let all = out(
        "if tcpDstPort = 80 then dscp := 1 else dscp := 2; ipProto := 17",
        &web_packet(),
    );
    assert_eq!((all[0].dscp, all[0].protocol), (1, 17));
    let looped = out(
        "while dscp = 0 do dscp := 1; tcpSrcPort := 7",
        &web_packet(),
    );
    assert_eq!((looped[0].dscp, looped[0].src_port), (1, 7));
}

#[test]
fn star_binds_tighter_than_sequence_and_belongs_to_the_filter_before_it() {
    let all = out("dscp := 1; dscp := 2*", &web_packet());
    assert_eq!(all.iter().map(|p| p.dscp).collect::<Vec<_>>(), vec![1, 2]);
    assert_eq!(out("filter dscp = 7 *", &web_packet()), vec![web_packet()]);
}

#[test]
fn star_terminates_on_cycles_and_reaches_everything() {
    let text = "(if dscp = 0 then dscp := 1 else if dscp = 1 then dscp := 2 else dscp := 0)*";
    assert_eq!(out(text, &web_packet()).len(), 3);
    let all = out(
        "(dscp := 1 + tcpDstPort := 443 + ethTyp := 1)*",
        &web_packet(),
    );
    assert_eq!(all.len(), 8);
}

#[test]
fn identity_beside_an_assignment_makes_two_copies_unless_it_changes_nothing() {
    assert_eq!(out("id + dscp := 10", &web_packet()).len(), 2);
    assert_eq!(out("id + tcpDstPort := 80", &web_packet()).len(), 1);
}

#[test]
fn a_rewrite_is_seen_by_the_tests_after_it() {
    let text = "tcpDstPort := 8080; if tcpDstPort = 80 then drop else forward";
    let all = out(text, &web_packet());
    assert_eq!((all[0].dst_port, u64::from(all[0].port)), (8080, OWNER));
    let moved = out(
        "ip4Dst := db1; if dst = db1 then forward else drop",
        &web_packet(),
    );
    assert_eq!(moved[0].dst, address(DB, true).into());
}

#[test]
fn negated_conjunction_is_a_disjunction() {
    let text = "not (tcpDstPort = 80 and tcpSrcPort = 1)";
    assert_eq!(out(text, &web_packet()).len(), 1);
    assert_eq!(
        out("not tcpDstPort = 80 and tcpSrcPort = 1", &web_packet()).len(),
        0
    );
    assert_eq!(out("not (tcpDstPort = 80 and tcp)", &web_packet()).len(), 0);
}

#[test]
fn prefixes_and_ranges_hold_exactly_what_is_in_them() {
    for (text, holds) in [
        ("ip4Src = 10.20.0.0/30", true),
        ("ip4Src in 10.20.0.4/30", false),
        ("src in { 10.20.0.1, 10.20.0.3 }", false),
        ("src in 10.20.0.1-10.20.0.2", true),
        ("src in 10.20.0.3-10.20.0.9", false),
        ("dst port 80-90", true),
        ("dst port in { 1-79, 81-65535 }", false),
        ("src in shop", true),
        ("src in labels(role = \"client\")", true),
        ("src in labels(role = \"client\", x = \"y\")", false),
        ("src in internet or dst in internet", false),
        ("src != web1", true),
        ("ethDst = web1 and port = client1", true),
        ("ipProto = tcp and ethTyp = ip", true),
        ("node = \"aws-1\"", true),
    ] {
        assert_eq!(!out(text, &web_packet()).is_empty(), holds, "{text}");
    }
}

#[test]
fn an_absent_address_reads_as_zero_by_its_family_and_matches_no_set() {
    let v6 = packet(CLIENT, WEB, false, TCP, 40_000, 80);
    let arp = Packet {
        eth_type: 0x0806,
        ..Packet::default()
    };
    for (text, on_v4, on_v6, on_arp) in [
        ("ip4Src = 0.0.0.0", false, true, true),
        ("ip4Src in 0.0.0.0/0", true, true, true),
        ("ip4Src in 10.0.0.0/8", true, false, false),
        ("ip6Src = ::", true, false, true),
        ("src in 0.0.0.0/0", true, false, false),
        ("src in ::/0", false, true, false),
        ("src in { 0.0.0.0/0, ::/0 }", true, true, false),
        ("ip4Src in internet", false, true, true),
        ("internet", false, false, false),
        ("tcpSrcPort = 0", false, false, true),
        ("vlanId = 0 and vlanPcp != 1", true, true, true),
    ] {
        for (packet, holds) in [(web_packet(), on_v4), (v6, on_v6), (arp, on_arp)] {
            assert_eq!(
                !out(text, &packet).is_empty(),
                holds,
                "{text} on {packet:?}"
            );
        }
    }
}

#[test]
fn both_families_of_icmp_are_icmp() {
    let ping = packet(CLIENT, WEB, true, 1, 0, 0);
    let ping6 = packet(CLIENT, WEB, false, 58, 0, 0);
    for (text, on_v4, on_v6) in [
        ("icmp", true, true),
        ("icmp4", true, false),
        ("icmp6", false, true),
    ] {
        assert_eq!(!out(text, &ping).is_empty(), on_v4, "{text}");
        assert_eq!(!out(text, &ping6).is_empty(), on_v6, "{text}");
    }
}

#[test]
fn services_are_their_ports() {
    for (text, protocol, port) in [
        ("http", TCP, 80),
        ("https", TCP, 443),
        ("ssh", TCP, 22),
        ("dns", UDP, 53),
        ("dns", TCP, 53),
        ("udp dst port 7000", UDP, 7000),
    ] {
        assert_eq!(
            out(text, &packet(CLIENT, WEB, true, protocol, 1, port)).len(),
            1,
            "{text}"
        );
        assert_eq!(
            out(text, &packet(CLIENT, WEB, true, protocol, port, 1)).len(),
            0,
            "{text}"
        );
    }
    assert_eq!(
        out("tcp src port 9", &packet(CLIENT, WEB, true, TCP, 9, 1)).len(),
        1
    );
}

#[test]
fn definitions_take_parameters() {
    let text = "let allow(who, ports) = if dst in who and dst port in ports then forward else drop\n\
                policy main = allow({ web1, db1 }, 80-81)";
    assert_eq!(out(text, &web_packet()).len(), 1);
    assert_eq!(out(text, &packet(CLIENT, DB, true, TCP, 1, 82)).len(), 0);
    let nested = "let both(p) = p and tcp\nlet is(x) = both(dst in x)\npolicy main = is(web1)";
    assert_eq!(out(nested, &web_packet()).len(), 1);
    let local = "let x = dscp := 1 in let y(p) = p; x in y(dscp := 2)";
    assert_eq!(out(local, &web_packet())[0].dscp, 1);
}

#[test]
fn sets_of_numbers_work_for_ports() {
    let text = "set ports = { 80, 443 }\npolicy main = if dst port in ports then forward else drop";
    assert_eq!(out(text, &web_packet()).len(), 1);
    assert_eq!(out(text, &packet(CLIENT, WEB, true, TCP, 1, 81)).len(), 0);
}

#[test]
fn every_decision_names_its_rule() {
    let packet = web_packet();
    for (text, expected) in [
        (
            "policy p =\n  if tcp then forward\n  else drop",
            "p:2 forward",
        ),
        ("policy p =\n  if udp then forward\n  else drop", "p:3 drop"),
        ("policy p = forward \"web\"", "web"),
        ("policy p = drop \"no\"", "no"),
        ("policy p = udp; forward", "p: drop"),
        ("policy p = id", "p: not forwarded"),
        ("policy p = port := web1", "p:1 port := web1"),
        // Several: the first in source order.
        ("policy p = forward \"a\" + (dscp := 1; forward \"b\")", "a"),
        ("policy p = drop \"a\" + drop \"b\"", "a"),
        // A drop label counts only when nothing comes out.
        ("policy p = drop \"a\" + forward \"b\"", "b"),
        ("policy p = (drop \"a\" + forward \"b\"); filter udp", "a"),
        // The label of a copy that did not come out does not count.
        (
            "policy p = forward \"a\"; filter udp + port := web1",
            "p:1 port := web1",
        ),
        ("policy p = forward \"a\"; forward \"b\"", "a"),
    ] {
        assert_eq!(label(text, &packet), expected, "{text}");
    }
}

#[test]
fn labels_never_change_what_comes_out() {
    let plain = out("if tcp then (forward + drop) else drop", &web_packet());
    let labelled = out(
        "if tcp then (forward \"x\" + drop \"y\") else drop \"z\"",
        &web_packet(),
    );
    assert_eq!(plain, labelled);
}

#[test]
fn a_copy_assigned_to_where_it_entered_is_not_forwarded() {
    use sunwire_policy::packet::Place;
    let packet = web_packet();
    let place = |text: &str| out(text, &packet)[0].place(&packet);
    assert_eq!(place("port := client1"), Place::Entry);
    assert_eq!(place("port := web1"), Place::Endpoint(WEB));
    assert_eq!(place("forward"), Place::Owner);
    assert_eq!(place("id"), Place::Entry);
}

#[test]
fn a_field_that_the_packet_lacks_can_be_assigned_and_tested_and_not_sent() {
    let arp = Packet {
        eth_type: 0x0806,
        ..Packet::default()
    };
    for text in ["dscp := 1", "tcpDstPort := 80", "ip4Dst := web1"] {
        let copy = out(text, &arp)[0];
        assert!(!copy.can_be_made_of(&arp), "{text}");
        assert!(
            out(text, &web_packet())[0].can_be_made_of(&web_packet()),
            "{text}"
        );
    }
    let ping = packet(CLIENT, WEB, true, 1, 0, 0);
    assert!(out("dscp := 1; filter dscp = 1", &ping)[0].can_be_made_of(&ping));
    assert!(!out("src port := 1", &ping)[0].can_be_made_of(&ping));
    let v6 = packet(CLIENT, WEB, false, TCP, 1, 2);
    assert!(!out("ip4Src := web1", &v6)[0].can_be_made_of(&v6));
}
