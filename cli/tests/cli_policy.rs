//! Policies judged without a controller.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::path::Path;

use common::sunwire;
use serde_json::{Value, json};

const SHOP: &str = r#"network shop { subnet 10.20.0.0/16, fd00:20::/64 }
set web = { web1 }
policy main =
    if src in web and dst = db1 and tcp dst port 5432 then forward "web to db"
    else drop "default deny"
"#;

const TOPOLOGY: &str = r#"
[[node]]
name = "aws"
region = "aws:us-east-1"
[[node]]
name = "gcp"
region = "gcp:asia-northeast1-a"
[[workload]]
name = "web1"
node = "aws"
network = "shop"
addresses = ["10.20.0.10/16", "fd00:20::10/64"]
[[workload]]
name = "db1"
node = "gcp"
network = "shop"
addresses = ["10.20.0.30/16", "fd00:20::30/64"]
"#;

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn names_that_a_text_leaves_open_are_assumed_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let shop = file(directory.path(), "shop.nk", SHOP);
    let ran = sunwire(&["policy", "check", &shop, "-o", "json"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:#?}");
    let checked = &ran.json()[0];
    assert_eq!(
        (&checked["ok"], &checked["network"]),
        (&json!(true), &json!("shop"))
    );
    let assumed = checked["assumed"].to_string();
    assert!(
        assumed.contains("web1") && assumed.contains("db1"),
        "{assumed}"
    );
    assert!(
        !assumed.contains("web "),
        "defined names are not assumed: {assumed}"
    );
}

#[test]
fn a_name_that_no_endpoint_could_have_is_still_a_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let text = SHOP.replace("then forward", "then forwrd");
    let shop = file(directory.path(), "shop.nk", &text);
    let ran = sunwire(&["policy", "check", &shop]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(
        ran.err.contains("no policy or predicate `forwrd`"),
        "{ran:#?}"
    );
    assert!(
        ran.err.contains('^') && ran.err.contains("did you mean"),
        "{ran:#?}"
    );
    let assumed = sunwire(&["policy", "check", &shop, "-o", "json"]).json()[0]["assumed"].clone();
    assert!(!assumed.to_string().contains("forwrd"), "{assumed}");
}

#[test]
fn a_topology_knows_its_endpoints_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let topology = file(directory.path(), "lab.toml", TOPOLOGY);
    let shop = file(directory.path(), "shop.nk", SHOP);
    let ran = sunwire(&["policy", "check", &shop, "--topology", &topology]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let typo = file(directory.path(), "typo.nk", &SHOP.replace("db1", "db2"));
    let ran = sunwire(&["policy", "check", &shop, &typo, "--topology", &topology]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("`db2`"), "{ran:#?}");
    assert!(
        ran.out.contains("shop.nk: ok"),
        "the other file is judged too: {ran:#?}"
    );
}

#[test]
fn eval_prints_the_packets_that_come_out_and_which_rule_decided() {
    let directory = tempfile::tempdir().unwrap();
    let topology = file(directory.path(), "lab.toml", TOPOLOGY);
    let shop = file(directory.path(), "shop.nk", SHOP);
    let eval = |port: u16| {
        let packet = json!({
            "ethTyp": "0x800", "ipProto": 6, "ip4Src": "10.20.0.10", "ip4Dst": "10.20.0.30",
            "dstPort": port, "endpoint": "web1",
        });
        let packet = packet.to_string();
        sunwire(&[
            "policy",
            "eval",
            &shop,
            "--topology",
            &topology,
            "--packet",
            &packet,
        ])
    };
    let allowed = eval(5432);
    assert_eq!(allowed.code, 0, "{allowed:#?}");
    let out = allowed.json();
    assert_eq!(out.as_array().map(Vec::len), Some(1));
    // Workloads are numbered in the topology's order: db1 owns the destination.
    assert_eq!(
        (&out[0]["port"], &out[0]["ip4Dst"]),
        (&json!(2), &json!("10.20.0.30"))
    );
    assert!(allowed.err.contains("web to db"), "{allowed:#?}");
    let denied = eval(22);
    assert_eq!((denied.code, denied.json()), (1, json!([])), "{denied:#?}");
    assert!(denied.err.contains("default deny"), "{denied:#?}");
}

#[test]
fn a_program_of_the_core_alone_is_evaluated_and_compiled() {
    let directory = tempfile::tempdir().unwrap();
    let core = "filter ip4Dst = 10.0.0.1; tcpDstPort := 4; port := 9 + filter switch = 2";
    let core = file(directory.path(), "core.nk", core);
    let packet = r#"{"ethTyp":"0x800","ipProto":6,"ip4Dst":"10.0.0.1"}"#;
    let ran = sunwire(&["policy", "eval", &core, "--packet", packet]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    let expected = json!([
        {"ethTyp": 0x800, "ipProto": 6, "ip4Dst": "10.0.0.1", "port": 9, "tcpDstPort": 4},
    ]);
    assert_eq!(ran.json(), expected);

    let ran = sunwire(&["policy", "compile", &core, "--stats", "-o", "json"]);
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.json()["leaves"].as_u64() >= Some(2), "{ran:#?}");
    let tables = sunwire(&["policy", "compile", &core, "-o", "json"]).json();
    let ids: Vec<&Value> = tables["leaves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| &l["id"])
        .collect();
    let nodes = tables["nodes"].as_array().unwrap().iter().map(|n| &n["id"]);
    let root = &tables["root"];
    assert!(
        ids.into_iter().chain(nodes).any(|id| id == root),
        "{tables}"
    );
}

#[test]
fn a_packet_that_is_none_is_wrong_usage() {
    let directory = tempfile::tempdir().unwrap();
    let shop = file(directory.path(), "shop.nk", SHOP);
    for packet in ["", "[]", r#"{"dstPort": 70000}"#, r#"{"colour": 1}"#] {
        let ran = sunwire(&["policy", "eval", &shop, "--packet", packet]);
        assert_eq!(ran.code, 3, "{ran:#?}");
    }
}
