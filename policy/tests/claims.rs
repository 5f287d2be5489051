//! Assertions and tests in the language: proved, refuted with a packet, run.

mod common;

use std::collections::BTreeMap;

use common::*;
use sunwire_policy::environment::{Endpoint, Environment};
use sunwire_policy::prove::{Proof, Verdict, prove};
use sunwire_policy::tests_run::run_tests;
use sunwire_policy::verify::options::Options;

fn proofs(text: &str) -> Vec<Proof> {
    prove(&policy(text), &shop(), &Options::default())
}

/// The failure of the only assertion, as people read it.
fn failure(text: &str) -> String {
    let proofs = proofs(text);
    assert_eq!(proofs.len(), 1);
    match &proofs[0].verdict {
        Verdict::Fails(failure) => failure.to_string(),
        other => panic!("{other:?}\n{text}"),
    }
}

const WEB_TO_DB: &str = "set web = { web1 } set db = { db1 }
    policy main =
        if src in web and dst in db and tcp dst port 5432 then forward \"web to db\"
        else drop \"default deny\"\n";

#[test]
fn what_holds_is_proved() {
    for claim in [
        "reach(web, db where tcp dst port 5432)",
        "isolated(client1, db)",
        "isolated(client1, internet)",
        "isolated both(client1, shop where udp)",
        "loop-free",
        "no-black-hole",
        "main <= (if src in web then forward else drop)",
        "main <= (src in web and dst in db)",
        "main == (filter src in web and dst in db and tcp dst port 5432; forward)",
    ] {
        let text = format!("{WEB_TO_DB} assert {claim}");
        let proofs = proofs(&text);
        assert!(proofs[0].holds(), "{claim}: {:?}", proofs[0].verdict);
    }
}

#[test]
fn what_fails_is_refuted_with_a_packet_and_its_way() {
    for (claim, found) in [
        (
            "reach(web, db where tcp)",
            "tcp 10.20.0.1:49152 -> 10.20.0.3:0; at web1: \"default deny\" drops it",
        ),
        (
            "isolated(db, web)",
            "tcp 10.20.0.1:49152 -> 10.20.0.3:5432; at web1: \"web to db\" forwards it to db1",
        ),
        (
            "main <= (src in web and ipv6)",
            "tcp 10.20.0.1:49152 -> 10.20.0.3:5432; at web1: \"web to db\" forwards it to db1",
        ),
    ] {
        let text = format!("{WEB_TO_DB} assert {claim}");
        let failure = failure(&text);
        // Where sides are compared, each is shown by name.
        let failure = failure.replace("left at", "at");
        assert_eq!(failure, found, "{claim}");
    }
}

#[test]
fn replies_are_no_initiation_and_isolated_both_forbids_them() {
    let text = "policy main =
        if src = web1 and dst = db1 and tcp dst port 5432 then forward
        else if established then forward
        else drop\n";
    let holds = |claim: &str| proofs(&format!("{text} assert {claim}"))[0].holds();
    assert!(holds("reach(web1, db1 where tcp dst port 5432)"));
    assert!(holds("isolated(client1, db1)"));
    assert!(holds("isolated both(client1, db1)"));
    assert!(!holds("isolated both(db1, web1)"));
    // db1 cannot begin a connection, and what it answers is only what it was asked.
    let one_way = "main <= (src = web1 or src = db1 and (tcp src port 5432 or conn = related))";
    assert!(holds(one_way));
    assert!(!holds("main <= (src = web1)"));
}

/// The shop with a firewall that takes packets of others.
fn with_firewall() -> Environment {
    let mut environment = shop();
    environment.endpoints.push(Endpoint {
        name: "fw1".to_owned(),
        number: 4,
        network: "shop".to_owned(),
        addresses: vec![address(4, true)],
        mac: [2, 0, 0, 0, 0, 4],
        labels: BTreeMap::from([("transparent".to_owned(), "true".to_owned())]),
    });
    environment
}

fn fails_beside_firewall(text: &str) -> Option<String> {
    let environment = with_firewall();
    let (document, _) = sunwire_policy::parse(text);
    let policy = sunwire_policy::resolve(&document, &environment).expect("a policy");
    let proof = prove(&policy, &environment, &Options::default()).remove(0);
    match proof.verdict {
        Verdict::Holds => None,
        Verdict::Fails(failure) => Some(failure.to_string()),
        Verdict::Undecided(limit) => panic!("{limit}"),
    }
}

#[test]
fn a_way_around_the_way_point_is_found() {
    let through = "policy main =
        if port = fw1 and dst = db1 then forward
        else if src = client1 and dst = db1 then forward to fw1
        else drop
        assert waypoint(client1, db1, via fw1)";
    assert_eq!(fails_beside_firewall(through), None);
    let around = through.replace(
        "src = client1 and dst = db1 then",
        "src = client1 and dst = db1 and tcp then",
    );
    let around = around.replace("else drop", "else if dst = db1 then forward else drop");
    let found = fails_beside_firewall(&around).expect("a way around");
    assert!(found.ends_with("forwards it to db1"), "{found}");
    assert!(
        found.starts_with("udp 10.20.0.2:49152 -> 10.20.0.3"),
        "{found}"
    );
}

#[test]
fn a_packet_that_comes_back_to_the_way_point_is_a_loop() {
    let text = "policy main = if dst = db1 then forward to fw1 else drop
        assert loop-free";
    let found = fails_beside_firewall(text).expect("a loop");
    assert!(
        found.contains("at fw1: \"main:1 forward to fw1\""),
        "{found}"
    );
    let leaves = "policy main =
        if port = fw1 then forward else if dst = db1 then forward to fw1 else drop
        assert loop-free";
    assert_eq!(fails_beside_firewall(leaves), None);
}

#[test]
fn what_is_sent_to_nobody_is_a_black_hole() {
    let text = "policy main = if dst = db1 then (ip4Dst := 10.20.0.99; forward) else forward
        assert no-black-hole";
    assert_eq!(
        failure(text),
        "tcp 10.20.0.1:49152 -> 10.20.0.3:0; at web1: \"main:1 forward\" forwards it, and nobody \
         owns its destination with dst 10.20.0.99"
    );
    let any = "policy main = forward assert no-black-hole(where dst = 10.20.0.77)";
    assert!(failure(any).contains("-> 10.20.0.77"));
    assert!(proofs("policy main = forward assert no-black-hole")[0].holds());
}

#[test]
fn an_empty_group_is_said_to_be_empty() {
    let proofs = proofs("policy main = drop assert reach(labels(role = \"cache\"), db1)");
    assert!(proofs[0].holds());
    let note = proofs[0].note.as_deref().unwrap_or_default();
    assert!(note.contains("has no endpoint now"), "{note}");
}

#[test]
fn tests_in_the_text_run_and_say_what_went_wrong() {
    let text = format!(
        "{WEB_TO_DB}
        test \"web reaches the database\" {{
            from web1 to db1 tcp 5432 : forward to db1 \"web to db\"
            from web to client1 tcp 5432 : drop \"default deny\"; from internet to web1 https : drop
        }}
        test \"wrong\" {{
            from web1 to db1 tcp 22 : forward
            from web1 to db1 tcp 5432 : drop
            from web1 to db1 tcp 5432 : forward to client1
        }}"
    );
    let policy = policy(&text);
    let results = run_tests(&policy, &shop());
    assert!(results[0].passed(), "{:?}", results[0]);
    assert_eq!(results[0].packets, 6);
    let found: Vec<&str> = results[1]
        .failures
        .iter()
        .map(|f| f.found.as_str())
        .collect();
    assert_eq!(
        found,
        [
            "dropped by \"default deny\"",
            "decided by \"web to db\", which forwards it to db1",
            "decided by \"web to db\", which forwards it to db1"
        ]
    );
    let diagnostics = results[1].diagnostics(&text);
    assert!(
        diagnostics[0]
            .render(&text)
            .contains("^^^^ this statement decided")
    );
}

#[test]
fn only_what_begins_a_connection_counts_unless_both_is_said() {
    let text =
        "policy main = if conn = established and src = db1 and dst = web1 then forward else drop
        assert isolated(web1, db1) assert isolated both(web1, db1)";
    let verdicts: Vec<bool> = proofs(text).iter().map(Proof::holds).collect();
    assert_eq!(verdicts, [true, false]);
}

#[test]
fn frames_without_addresses_are_sent_to_the_owner_of_their_mac_address() {
    let text = "policy main = if ethTyp = 0x88b5 then forward else drop
        assert isolated(web1, db1)";
    assert_eq!(
        failure(text),
        "frame of type 0x88b5 02:00:00:00:00:01 -> 02:00:00:00:00:03; at web1: \"main:1 forward\" \
         forwards it to db1"
    );
}

#[test]
fn the_label_of_a_drop_is_part_of_what_a_test_expects() {
    let text =
        format!("{WEB_TO_DB} test \"label\" {{ from client1 to db1 ssh : drop \"another\" }}");
    let results = run_tests(&policy(&text), &shop());
    assert_eq!(results[0].failures[0].expected, "dropped by \"another\"");
}
