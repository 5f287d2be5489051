//! What a change of policy changes.

mod common;

use common::*;
use sunwire_policy::plan::{ChangeKind, plan};
use sunwire_policy::verify::options::Options;

fn shown(old: &str, new: &str) -> String {
    let (old, new) = (policy(old), policy(new));
    let plan = plan(Some(&old), &new, &shop(), &Options::default()).expect("small policies");
    plan.to_string()
}

const OLD: &str = "set web = { web1 } set db = { db1 }
    policy main =
        if src in web and dst in db and tcp dst port 5432 then forward \"pg\"
        else drop \"default deny\"";

#[test]
fn newly_allowed_and_denied_packets_are_named_by_the_sets_of_the_policy() {
    let new = OLD.replace("5432 then", "{ 5433, 6000-6010 } then");
    let new = new.replace("tcp dst port", "tcp and dst port in");
    assert_eq!(
        shown(OLD, &new),
        "\
+ tcp, from web, to db, dst port 5433, 6000-6010
    e.g. tcp 10.20.0.1:49152 -> 10.20.0.3:5433
    before: \"default deny\" drops it
    after:  \"pg\" forwards it to db1
- tcp, from web, to db, dst port 5432
    e.g. tcp 10.20.0.1:49152 -> 10.20.0.3:5432
    before: \"pg\" forwards it to db1
    after:  \"default deny\" drops it
"
    );
}

#[test]
fn a_change_of_labels_or_form_alone_changes_nothing() {
    let new = OLD
        .replace("default deny", "no")
        .replace("src in web and dst in db", "dst in db and src in web");
    assert_eq!(shown(OLD, &new), "No packet is treated differently.\n");
}

#[test]
fn endpoints_that_can_begin_to_reach_each_other_are_named() {
    let new = OLD.replace(
        "else drop",
        "else if src = client1 and udp then forward else drop",
    );
    let shown = shown(OLD, &new);
    let last: Vec<&str> = shown.lines().rev().take(1).collect();
    assert_eq!(
        last,
        ["+ client1 can now reach db1, web1 (2 pairs of endpoints)"],
        "{shown}"
    );
    let back = plan(
        Some(&policy(&new)),
        &policy(OLD),
        &shop(),
        &Options::default(),
    )
    .unwrap();
    assert!(back.reachability.iter().all(|c| !c.reachable));
    assert!(back.changes.iter().all(|c| c.kind == ChangeKind::Denied));
}

#[test]
fn a_rewrite_is_a_change() {
    let new = OLD.replace("forward \"pg\"", "(dscp := 10; forward \"pg\")");
    let shown = shown(OLD, &new);
    assert!(
        shown.starts_with("~ tcp, from web, to db, dst port 5432"),
        "{shown}"
    );
    assert!(shown.contains("forwards it to db1 with dscp 10"), "{shown}");
    assert!(!shown.contains("reach"), "{shown}");
}

#[test]
fn the_first_policy_is_compared_with_dropping_everything() {
    let plan = plan(None, &policy(OLD), &shop(), &Options::default()).unwrap();
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(
        plan.changes[0].packets,
        "tcp, from web, to db, dst port 5432"
    );
    assert_eq!(plan.reachability.len(), 1);
    assert_eq!(
        (
            plan.reachability[0].from.as_str(),
            plan.reachability[0].to.as_str()
        ),
        ("web", "db")
    );
}
