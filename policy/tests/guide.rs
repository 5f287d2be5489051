//! The worked examples of the guide: they are formatted, everything they claim holds, and those that
//! the data plane can do compile to tables that are proved.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sunwire_policy::compile::Options;
use sunwire_policy::environment::{Endpoint, Environment, Network, Node};
use sunwire_policy::imports::{Bundle, bundle};
use sunwire_policy::lower::{Capacity, Refused};
use sunwire_policy::verify::options::Options as ProofOptions;
use sunwire_policy::{check_claims, compile, lower, validate};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/guide")
}

/// The endpoints of `examples/guide/shop.toml`.
fn shop() -> Environment {
    let endpoint = |name: &str, number: u32, labels: &[(&str, &str)]| Endpoint {
        name: name.to_owned(),
        number,
        network: "shop".to_owned(),
        addresses: vec![
            format!("10.20.0.{}", 10 + number)
                .parse()
                .expect("an address"),
            format!("fd00:20::{}", 10 + number)
                .parse()
                .expect("an address"),
        ],
        mac: [2, 0, 0, 0, 0, number as u8],
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect::<BTreeMap<_, _>>(),
    };
    Environment {
        networks: vec![Network {
            name: "shop".to_owned(),
            vni: 1,
            subnets: vec![
                ("10.20.0.0".parse().expect("an address"), 16),
                ("fd00:20::".parse().expect("an address"), 64),
            ],
            ..Network::default()
        }],
        endpoints: vec![
            endpoint("client1", 1, &[("tier", "client")]),
            endpoint("web1", 2, &[("tier", "web"), ("env", "prod")]),
            endpoint("web2", 3, &[("tier", "web"), ("env", "prod")]),
            endpoint("db1", 4, &[("tier", "db"), ("env", "prod")]),
            endpoint("db2", 5, &[("tier", "db"), ("env", "test")]),
            endpoint("fw1", 6, &[("transparent", "true")]),
            endpoint("watch1", 7, &[]),
        ],
        nodes: ["aws", "azure", "gcp"]
            .iter()
            .zip(1..)
            .map(|(name, number)| Node {
                name: (*name).to_owned(),
                number,
            })
            .collect(),
    }
}

fn examples() -> Vec<(String, Bundle)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of the examples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "nk"))
        .filter(|path| path.file_name().is_some_and(|name| name != "common.nk"))
        .collect();
    paths.sort();
    let bundled = |path: PathBuf| {
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(&path).expect("an example");
        let mut load = |wanted: &str| {
            std::fs::read_to_string(folder().join(wanted)).map_err(|error| error.to_string())
        };
        let bundle = bundle(&name, &text, &mut load).unwrap_or_else(|(bundle, problems)| {
            panic!("{}", bundle.render(&problems[0]));
        });
        (name, bundle)
    };
    paths.into_iter().map(bundled).collect()
}

#[test]
fn there_are_ten_worked_examples() {
    assert_eq!(examples().len(), 10);
}

#[test]
fn everything_that_the_examples_claim_holds() {
    for (name, bundle) in examples() {
        let checked = check_claims(bundle.text(), &shop(), &ProofOptions::default())
            .unwrap_or_else(|d| panic!("{name}\n{}", bundle.render_all(&d)));
        assert!(
            checked.holds(),
            "{name}\n{}",
            bundle.render_all(&checked.failures())
        );
        let warnings = bundle.render_all(&checked.warnings);
        assert!(checked.warnings.is_empty(), "{name}\n{warnings}");
        let claims = checked.proofs.len() + checked.tests.len();
        assert!(claims > 0, "{name} claims nothing");
    }
}

#[test]
fn what_the_data_plane_can_do_compiles_to_tables_that_are_proved() {
    let mut refused = Vec::new();
    for (name, bundle) in examples() {
        let (policy, _) = sunwire_policy::resolve_text(bundle.text(), &shop())
            .unwrap_or_else(|d| panic!("{name}\n{}", bundle.render_all(&d)));
        let fdd = compile(&policy, &Options::default()).expect("a small policy");
        match lower(&fdd, &policy, &Capacity::default()) {
            Ok(tables) => validate(&policy, &tables, &ProofOptions::default())
                .unwrap_or_else(|error| panic!("{name}: {error}")),
            Err(Refused::NotSupported(feature)) => refused.push((name, feature.words())),
            Err(other) => panic!("{name}: {other}"),
        }
    }
    let refused: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, ["08-waypoints.nk"]);
}

#[test]
fn the_examples_are_formatted() {
    for name in std::fs::read_dir(folder()).expect("the folder of the examples") {
        let path = name.expect("an entry").path();
        if path.extension().is_some_and(|ending| ending == "nk") {
            let text = std::fs::read_to_string(&path).expect("an example");
            let formatted = sunwire_policy::format::format(&text).expect("it parses");
            assert_eq!(formatted, text, "{}", path.display());
        }
    }
}
