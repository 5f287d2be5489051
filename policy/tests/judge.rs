//! What the node that a packet is for could not decide again is told, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use sunwire_policy::diagnostic::Code;
use sunwire_policy::environment::Environment;
use sunwire_policy::{compile_text, testing::environment};

/// The network `shop`, whose receivers decide, with its subnets or without.
fn enforced(has_subnets: bool) -> Environment {
    let mut environment = environment();
    let shop = &mut environment.networks[0];
    shop.enforced = true;
    if !has_subnets {
        shop.subnets.clear();
        let all = environment.endpoints.iter_mut();
        let own = all.filter(|one| one.network == "shop");
        own.for_each(|one| one.addresses.clear());
    }
    environment
}

/// Whether the policy is one that receivers can decide by.
fn is_judgeable(policy: &str, environment: &Environment) -> bool {
    let text = format!("network shop\npolicy main = {policy}");
    match compile_text(&text, environment) {
        Ok(_) => true,
        Err(findings) => {
            let codes: Vec<Code> = findings.iter().map(|finding| finding.code).collect();
            assert_eq!(codes, [Code::NotJudgeable], "{policy}: {findings:?}");
            false
        }
    }
}

#[test]
fn what_rewrites_is_refused_where_receivers_decide_and_nowhere_else() {
    for policy in [
        "dscp := 8; forward",
        "if udp then (tcpDstPort := 53; forward) else forward",
        "if tcp then (dnat 10.20.0.2; forward) else forward",
        "ip4Dst := 10.20.0.2; forward",
    ] {
        assert!(!is_judgeable(policy, &enforced(true)), "{policy}");
        assert!(is_judgeable(policy, &environment()), "{policy}");
    }
    for policy in [
        "forward",
        "if src = web1 then forward else if established then forward else drop \"no\"",
        "count all; log \"seen\"; limit 10/s per src; (forward + mirror to db1)",
        "if dscp = 8 then port := db1 else forward",
        "if node = n1 then forward else drop",
        "if dst in 239.1.0.0/16 then flood else forward",
    ] {
        assert!(is_judgeable(policy, &enforced(true)), "{policy}");
    }
}

#[test]
fn a_mac_address_may_be_asked_for_as_far_as_the_receiver_sees_it() {
    let group = "ethDst = ff:ff:ff:ff:ff:ff";
    let one = "ethDst = 02:00:00:00:14:01";
    // The policy; whether it can be decided again where there is a subnet, and where there is none. Of
    // the third, a frame to another group whose address begins so would be readdressed.
    for (policy, with, without) in [
        (format!("if {group} then flood else forward"), true, true),
        (
            format!("if {group} then port := db1 else forward"),
            false,
            false,
        ),
        (
            format!("if {group} then drop else port := db1"),
            false,
            false,
        ),
        (format!("if {one} then drop else forward"), false, true),
        (format!("if {one} then flood else drop"), false, false),
        (format!("if {one} then port := db1 else drop"), false, false),
    ] {
        assert_eq!(is_judgeable(&policy, &enforced(true)), with, "{policy}");
        assert_eq!(is_judgeable(&policy, &enforced(false)), without, "{policy}");
    }
}

#[test]
fn a_peers_policy_may_not_rewrite_either() {
    let mut environment = environment();
    let rewrites = "network shop\npolicy main = dscp := 8; forward";
    environment.networks[1].enforced = true;
    assert!(compile_text(rewrites, &environment).is_ok());
    for (one, other) in [(0, "lab"), (1, "shop")] {
        environment.networks[one].peers = vec![other.to_owned()];
    }
    let found = compile_text(rewrites, &environment).unwrap_err();
    assert_eq!(found.last().unwrap().code, Code::NotJudgeable);
    assert!(found.last().unwrap().message.contains("network lab"));
}
