//! What files mean, and how refusals read.

use std::time::Duration;

use super::*;
use crate::link::QueueLimit;

const SHOP: &str = r#"
id = "shop"
seed = 7

[defaults]
loss = 0.001

[[node]]
name = "aws"
region = "aws:us-east-1"

[[node]]
name = "azure"
region = "azure:westeurope"
address = "10.9.8.7"

[controller]
region = "aws:us-east-1"

[[link]]
between = ["aws:us-east-1", "azure:westeurope"]
jitter_ms = 2
rate_mbps = 100
queue_packets = 50

[[link]]
from = "aws"
to = "azure"
delay_ms = 12.5
loss = 0

[[workload]]
name = "web"
node = "aws"
network = "shop"
addresses = ["10.20.0.10/24", "fd00:20::10/64"]
gateways = ["10.20.0.1"]
mac = "02:00:00:00:00:10"
labels = { tier = "web" }
"#;

#[test]
fn a_host_outside_is_on_the_underlay_and_has_no_workloads() {
    let host = "[[outside]]\nname = \"world\"\nregion = \"aws:us-east-1\"\n";
    let topology = Topology::from_toml(&format!("{SHOP}\n{host}")).unwrap();
    let outside: Vec<&str> = topology
        .nodes()
        .iter()
        .filter(|node| node.outside)
        .map(|node| node.name.as_str())
        .collect();
    assert_eq!(outside, ["world"]);
    assert!(topology.link("world", "azure").is_some());
    let there = SHOP.replace("node = \"aws\"", "node = \"world\"");
    let refused = Topology::from_toml(&format!("{there}\n{host}")).unwrap_err();
    assert!(refused.to_string().contains("world"), "{refused}");
    assert!(Topology::from_toml(host).is_err(), "a lab without nodes");
}

#[test]
fn file_gives_nodes_links_and_workloads() {
    let topology = Topology::from_toml(SHOP).unwrap();
    assert_eq!(topology.id(), Some("shop"));
    let addresses: Vec<String> = topology
        .nodes()
        .iter()
        .map(|node| format!("{} {} by {}", node.name, node.address, node.gateway()))
        .collect();
    assert_eq!(
        addresses,
        [
            "aws 198.18.1.2 by 198.18.1.1",
            "azure 10.9.8.7 by 10.9.8.1",
            "controller 198.18.2.2 by 198.18.2.1"
        ]
    );
    let web = &topology.workloads()[0];
    assert_eq!(web.effective_mac().to_string(), "02:00:00:00:00:10");
    assert_eq!((web.addresses.len(), web.mtu), (2, 1300));
    assert_eq!(web.labels.get("tier").map(String::as_str), Some("web"));
}

#[test]
fn more_specific_links_override_key_by_key() {
    let topology = Topology::from_toml(SHOP).unwrap();
    let one_way = topology.link("aws", "azure").unwrap();
    assert_eq!(one_way.delay, Duration::from_micros(12_500));
    assert_eq!(one_way.jitter, Duration::from_millis(2));
    assert_eq!(one_way.loss, 0.0);
    assert_eq!(one_way.queue, QueueLimit::Packets(50));
    let back = topology.link("azure", "aws").unwrap();
    assert_eq!(back.delay, Duration::from_nanos(80_293_000 / 2));
    assert_eq!(back.loss, 0.001);
    // The controller is in the same region as aws and shares its region links.
    let controller = topology.link("controller", "azure").unwrap();
    assert_eq!(controller.rate_bits_per_s, Some(100_000_000));
    let near = topology.link("controller", "aws").unwrap();
    assert_eq!(near.delay, Duration::from_micros(250));
}

#[test]
fn builder_and_file_make_the_same_topology() {
    let built = Topology::builder()
        .id("shop")
        .seed(7)
        .defaults(LinkChange::loss(0.001))
        .node("aws", "aws:us-east-1")
        .node_with_address("azure", "azure:westeurope", Ipv4Addr::new(10, 9, 8, 7))
        .controller("aws:us-east-1")
        .link(
            LinkEnds::between("aws:us-east-1", "azure:westeurope"),
            LinkChange {
                jitter_ms: Some(2.0),
                rate_mbps: Some(100.0),
                queue_packets: Some(50),
                ..LinkChange::default()
            },
        )
        .link(
            LinkEnds::one_way("aws", "azure"),
            LinkChange {
                delay_ms: Some(12.5),
                loss: Some(0.0),
                ..LinkChange::default()
            },
        )
        .workload(
            WorkloadSpec::new("web", "aws", "shop")
                .address("10.20.0.10/24")
                .unwrap()
                .address("fd00:20::10/64")
                .unwrap()
                .gateway("10.20.0.1".parse().unwrap())
                .mac("02:00:00:00:00:10".parse().unwrap())
                .label("tier", "web"),
        )
        .build();
    assert_eq!(built, Topology::from_toml(SHOP));
}

/// `text` after one good node is refused; the error shows all of `expected`.
fn check(text: &str, expected: &[&str]) {
    let file = format!("[[node]]\nname = \"a\"\nregion = \"aws:us-east-1\"\n{text}");
    let error = Topology::from_toml(&file).expect_err(text).to_string();
    for part in expected {
        assert!(error.contains(part), "no `{part}` in:\n{error}");
    }
}

#[test]
fn unknown_keys_are_refused_where_they_stand() {
    check(
        "adress = \"10.0.0.2\"",
        &["line 4, column 1", "unknown field `adress`", "`address`"],
    );
    check(
        "[[link]]\nbetween = [\"a\", \"a\"]\ndelay = 3",
        &["line 6", "unknown field `delay`"],
    );
    check(
        "[defaults]\nlatency = 3",
        &["line 5", "unknown field `latency`"],
    );
}

#[test]
fn wrong_types_are_refused_where_they_stand() {
    check(
        "[controller]\nregion = 3",
        &["line 5, column 10", "expected a string"],
    );
    check("address = \"10.0.0\"", &["line 4", "address"]);
    check("[[link]]\nbetween = [\"a\"]", &["line 5"]);
}

#[test]
fn impossible_values_say_what_to_do() {
    let node = |rest: &str| format!("[[node]]\nname = {rest}");
    check(
        &node("\"A\"\nregion = \"aws:us-east-1\""),
        &[
            "line 5, column 8",
            "name `A` is not",
            "5 | name = \"A\"",
            "  |        ^^^",
        ],
    );
    check(
        &node("\"a\"\nregion = \"aws:us-east-1\""),
        &["line 5", "given twice"],
    );
    check(
        &node("\"wan\"\nregion = \"aws:us-east-1\""),
        &["the lab's own"],
    );
    check(&node("\"b\"\nregion = \"useast\""), &["cloud:name"]);
    check(
        &node("\"b\"\nregion = \"moon:near-side\""),
        &[
            "line 5",
            "no delay is known between aws:us-east-1 and moon:near-side",
            "delay_ms",
            "azure:westeurope",
        ],
    );
    check("address = \"10.0.0.255\"", &["line 2", "10.0.0.255"]);
    let link = |rest: &str| format!("[[link]]\n{rest}");
    check(
        &link("from = \"a\"\ndelay_ms = 1"),
        &["line 4", "between = [A, B]"],
    );
    check(
        &link("between = [\"a\", \"c\"]"),
        &["`c`", "there are: a, aws:us-east-1"],
    );
    check(&link("between = [\"a\", \"a\"]"), &["no link with itself"]);
    check(
        &link("between = [\"a\", \"aws:us-east-1\"]\nloss = 5"),
        &["loss = 5 is not a fraction", "1 % is 0.01"],
    );
    check("[defaults]\nqueue_bytes = 9", &["1514 bytes"]);
    let workload = |rest: &str| {
        format!(
            "[[workload]]\nname = \"w\"\nnetwork = \"n\"\nnode = \"a\"\naddresses = [\"10.0.0.1/24\"]\n{rest}"
        )
    };
    check(&workload("mtu = 9"), &["mtu = 9"]);
    check(&workload("gateways = [\"fd00::1\"]"), &["gateway fd00::1"]);
    check(
        &workload("mac = \"01:00:00:00:00:00\""),
        &["line 9, column 7", "hardware address"],
    );
    let elsewhere = workload("").replace("node = \"a\"", "node = \"z\"");
    check(
        &elsewhere,
        &["line 5", "node `z`, which does not exist (there are: a)"],
    );
    let bare = workload("").replace("/24", "");
    check(&bare, &["line 8, column 14", "10.20.0.10/24"]);
}

#[test]
fn nodes_share_no_subnet() {
    let file = "[[node]]\nname = \"a\"\nregion = \"aws:us-east-1\"\naddress = \"10.1.1.2\"\n\
                [[node]]\nname = \"b\"\nregion = \"aws:us-east-1\"\naddress = \"10.1.1.3\"\n";
    let error = Topology::from_toml(file).unwrap_err().to_string();
    assert!(error.contains("in the /24 of node `a`"), "{error}");
}

#[test]
fn assigned_addresses_avoid_given_ones() {
    let topology = Topology::builder()
        .node("a", "aws:us-east-1")
        .node_with_address("b", "aws:us-east-1", Ipv4Addr::new(198, 18, 1, 1))
        .build()
        .unwrap();
    assert_eq!(topology.nodes()[0].address, Ipv4Addr::new(198, 18, 2, 2));
    assert_eq!(topology.nodes()[1].gateway(), Ipv4Addr::new(198, 18, 1, 2));
}

#[test]
fn empty_file_asks_for_a_node() {
    let error = Topology::from_toml("").unwrap_err().to_string();
    assert!(error.contains("at least one [[node]]"), "{error}");
}

#[test]
fn lab_id_with_a_hyphen_is_refused() {
    let error = Topology::from_toml("id = \"a-b\"").unwrap_err().to_string();
    assert!(error.contains("line 1, column 6"), "{error}");
    assert!(
        error.contains("1 to 12 lower-case letters and digits"),
        "{error}"
    );
}
