//! What decided about a packet, and where it stands.

mod common;

use common::*;
use sunwire_policy::explain::explain;
use sunwire_policy::{parse, resolve};

#[test]
fn the_statement_and_the_conditions_before_it_are_named_with_their_places() {
    let text = "set web = { web1 }
policy main =
    if dst = web1 and icmp then forward
    else if src in web then (
        filter tcp; if dst port 22 then drop \"no ssh\" else (dscp := 10; forward)
    )
    else drop";
    let (document, _) = parse(text);
    let policy = resolve(&document, &shop()).unwrap();
    let explained = |port| {
        let packet = packet(WEB, DB, true, TCP, 1024, port);
        let mut explanation = explain(&policy, &document, &shop(), &packet);
        assert_eq!(explanation.decisions.len(), 1);
        explanation.decisions.remove(0)
    };
    let dropped = explained(22);
    let statement = dropped.statement.unwrap();
    assert_eq!((statement.line, statement.column), (5, 41));
    assert_eq!(statement.text, "drop \"no ssh\"");
    assert!(dropped.copies.is_empty());
    let conditions: Vec<(&str, bool)> = dropped
        .conditions
        .iter()
        .map(|c| (c.clause.text.as_str(), c.holds))
        .collect();
    assert_eq!(
        conditions,
        [
            ("dst = web1 and icmp", false),
            ("src in web", true),
            ("filter tcp", true),
            ("dst port 22", true)
        ]
    );
    let forwarded = explained(80);
    assert_eq!(forwarded.statement.unwrap().text, "forward");
    assert_eq!(forwarded.conditions.last().map(|c| c.holds), Some(false));
    assert_eq!(forwarded.copies[0].what, "forwards it to db1");
    assert_eq!(forwarded.copies[0].rewritten, "dscp 10");
}
