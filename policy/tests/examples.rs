//! The example policies compile and decide as they say.

mod common;

use common::*;
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::installed::Installed;
use sunwire_policy::packet::{Packet, Place};
use sunwire_policy::tables::Leaf;
use sunwire_policy::{Compiled, compile_text};

const FIRST_LIGHT: &str = include_str!("../../examples/first-light.nk");
const ATOMIC_A: &str = include_str!("../../examples/atomic-a.nk");
const ATOMIC_B: &str = include_str!("../../examples/atomic-b.nk");

fn compiled(text: &str) -> Compiled {
    let compiled =
        compile_text(text, &shop()).unwrap_or_else(|d| panic!("{}", render_all(&d, text)));
    assert_eq!(compiled.warnings, vec![]);
    assert_eq!((compiled.network.as_str(), compiled.vni), ("shop", 100));
    compiled
}

fn verdict(text: &str, packet: &Packet) -> Leaf {
    let installed = Installed::new(&compiled(text).tables).expect("complete tables");
    installed.verdict(packet).expect("a verdict").clone()
}

#[test]
fn first_light_allows_what_it_says_and_denies_all_else_in_both_families() {
    for v4 in [true, false] {
        let icmp = if v4 { 1 } else { 58 };
        for (from, to, protocol, src, dst, label) in [
            (WEB, DB, TCP, 40_000, 5432, "web to db"),
            (DB, WEB, TCP, 5432, 40_000, "db replies"),
            (CLIENT, WEB, TCP, 40_000, 80, "to web"),
            (DB, WEB, TCP, 40_000, 443, "to web"),
            (WEB, CLIENT, TCP, 80, 40_000, "web replies"),
            (CLIENT, DB, icmp, 0, 0, "icmp inside"),
            (CLIENT, DB, TCP, 40_000, 5432, "default deny"),
            (WEB, DB, UDP, 40_000, 5432, "default deny"),
            (WEB, DB, TCP, 5432, 5433, "default deny"),
            (CLIENT, WEB, UDP, 40_000, 80, "default deny"),
            (CLIENT, WEB, TCP, 40_000, 8080, "default deny"),
        ] {
            let packet = packet(from, to, v4, protocol, src, dst);
            let leaf = verdict(FIRST_LIGHT, &packet);
            assert_eq!(leaf.label, label, "{packet:?}");
            let places: Vec<Place> = leaf
                .emit(&packet)
                .into_iter()
                .map(|(_, place)| place)
                .collect();
            let expected = if label == "default deny" {
                vec![]
            } else {
                vec![Place::Owner]
            };
            assert_eq!(places, expected);
        }
    }
}

#[test]
fn each_revision_of_the_pair_rewrites_both_fields_its_own_way() {
    for v4 in [true, false] {
        let marked = packet(CLIENT, WEB, v4, UDP, 40_000, 7000);
        for (text, dscp, port, label) in [
            (ATOMIC_A, 10, 7001, "revision A"),
            (ATOMIC_B, 20, 7002, "revision B"),
        ] {
            let leaf = verdict(text, &marked);
            assert_eq!(leaf.label, label);
            let expected = Packet {
                dscp,
                dst_port: port,
                ..marked
            };
            assert_eq!(leaf.emit(&marked), vec![(expected, Place::Owner)]);
            for other in [
                packet(CLIENT, WEB, v4, TCP, 1, 7000),
                packet(DB, WEB, v4, UDP, 1, 7000),
            ] {
                assert_eq!(verdict(text, &other).label, "default deny");
            }
            assert_eq!(
                verdict(text, &packet(CLIENT, WEB, v4, TCP, 1, 80)).label,
                "to web"
            );
        }
    }
}

#[test]
fn two_revisions_share_the_nodes_that_are_equal() {
    let (a, b) = (compiled(ATOMIC_A).tables, compiled(ATOMIC_B).tables);
    let shared = a
        .nodes
        .keys()
        .filter(|digest| b.nodes.contains_key(digest))
        .count();
    assert!(shared * 2 > a.nodes.len(), "{shared} of {}", a.nodes.len());
    assert_eq!(compiled(ATOMIC_A).tables, a);
}

#[test]
fn moving_an_endpoint_between_labelled_sets_changes_classes_and_no_node() {
    let text = "set web = labels(role = \"web\")\nset db = labels(role = \"db\")\n\
                policy main = if src in web and dst in db then forward else drop";
    let before = compile_text(text, &shop()).unwrap().tables;
    let mut environment = shop();
    environment.endpoints[1]
        .labels
        .insert("role".to_owned(), "web".to_owned());
    let after = compile_text(text, &environment).unwrap().tables;
    assert_eq!(
        (before.root, &before.nodes, &before.leaves),
        (after.root, &after.nodes, &after.leaves)
    );
    assert_ne!(before.classes, after.classes);
}
