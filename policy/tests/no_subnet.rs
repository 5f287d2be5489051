//! Policies of networks without subnet: by MAC address and EtherType.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::{compile_text, parse, resolve};

fn environment() -> Environment {
    let endpoint = |number: u32| Endpoint {
        name: format!("vm{number}"),
        number,
        network: "cables".to_owned(),
        addresses: Vec::new(),
        mac: [2, 0, 0, 0, 0, number as u8],
        labels: BTreeMap::from([("side".to_owned(), "left".to_owned())]),
    };
    Environment {
        networks: vec![Network {
            name: "cables".to_owned(),
            vni: 7,
            ..Network::default()
        }],
        endpoints: vec![endpoint(1), endpoint(2)],
        nodes: Vec::new(),
    }
}

#[track_caller]
fn refused(text: &str, code: &str, hint: &str) {
    let (document, findings) = parse(text);
    assert!(findings.is_empty(), "{findings:?}");
    let findings = resolve(&document, &environment()).unwrap_err();
    let found = findings.iter().any(|finding| {
        let told = finding.hint.as_deref().unwrap_or_default();
        finding.code.text() == code && told.contains(hint)
    });
    assert!(found, "{findings:?}");
}

#[test]
fn addresses_of_endpoints_that_have_none_are_an_error_and_their_mac_addresses_are_not() {
    for value in ["vm1", "labels(side = \"left\")"] {
        let text = format!("policy main = if src in {{ {value} }} then forward else drop");
        refused(&text, "SW0305", "ethSrc");
        let text = format!("policy main = if ethSrc in {{ {value} }} then forward else drop");
        compile_text(&text, &environment()).unwrap();
    }
    // Prefixes are about what is in packets.
    let text = "policy main = if src in { 10.0.0.0/8 } and ethTyp = 0x800 then forward else flood";
    compile_text(text, &environment()).unwrap();
}

#[test]
fn who_reaches_whom_is_not_asserted_where_nobody_has_an_address() {
    for claim in ["reach(vm1, vm2)", "isolated(vm1, vm2)"] {
        refused(
            &format!("policy main = forward assert {claim}"),
            "SW0401",
            "<=",
        );
    }
}
