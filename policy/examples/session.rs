//! What a change costs in a large network, as one JSON object a line: `cargo run --release -p
//! sunwire-policy --example session -- [ENDPOINTS] [GROUPS] [RULES]`.
//!
//! Endpoints have one label each, which says to which group they belong; rules are between groups.
//! Times are of the process's CPU, of the first change of each kind.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use sunwire_policy::compile_text;
use sunwire_policy::diagnostic::{Diagnostic, render_all};
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::incremental::{Delta, EndpointChange, Session};
use sunwire_policy::lower::Capacity;

use common::cpu_time;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().ok());
    let mut argument = |default: u32| arguments.next().flatten().unwrap_or(default).max(2);
    let (endpoints, groups, rules) = (argument(10_000), argument(100), argument(1_000));
    let environment = environment(endpoints, groups);
    let text = text(groups, rules, "r7");

    let start = cpu_time();
    let compiled = compile_text(&text, &environment);
    let took = cpu_time() - start;
    let fresh = compiled.unwrap_or_else(|errors| refused(&errors, &text));
    let size = fresh.tables.size();
    println!(
        "{{\"case\":\"full\",\"seconds\":{:.6},\"nodes\":{},\"edges\":{},\"leaves\":{},\
         \"prefixes\":{},\"depth\":{}}}",
        took.as_secs_f64(),
        size.nodes,
        size.edges,
        size.leaves,
        size.prefixes,
        size.depth
    );

    let mut session = Session::new(environment.clone(), Capacity::default());
    let mut run = |case: &str, change: &mut dyn FnMut(&mut Session) -> Outcome| {
        let start = cpu_time();
        let done = change(&mut session);
        let took = cpu_time() - start;
        let delta = done.unwrap_or_else(|errors| refused(&errors, ""));
        print(case, took, &delta, &session);
    };
    run("first", &mut |session| session.set_text(&text));
    run("nothing", &mut |session| {
        session.set_environment(&environment)
    });
    let moved = endpoint(17, 17 % groups + 1, groups);
    run("label", &mut |session| {
        session.change(&[EndpointChange::Set(moved.clone())])
    });
    let new = endpoint(endpoints, 3, groups);
    run("come", &mut |session| {
        session.change(&[EndpointChange::Set(new.clone())])
    });
    run("go", &mut |session| {
        session.change(&[EndpointChange::Remove(new.name.clone())])
    });
    let mut lonely = endpoint(23, 0, groups);
    lonely.labels.clear();
    run("unlabelled", &mut |session| {
        session.change(&[EndpointChange::Set(lonely.clone())])
    });
    let edited = text.replacen("dst port 32 ", "dst port 33 ", 1);
    run("rule", &mut |session| session.set_text(&edited));
    let renamed = edited.replacen("\"r7\"", "\"seven\"", 1);
    run("rule's label", &mut |session| session.set_text(&renamed));
    let more = renamed.replacen(
        "drop \"default deny\"",
        "if src in g1 and dst in g2 and udp dst port 9 then forward \"new\" else drop",
        1,
    );
    run("rule added", &mut |session| session.set_text(&more));
}

type Outcome = Result<Delta, Vec<Diagnostic>>;

fn refused(errors: &[Diagnostic], text: &str) -> ! {
    panic!("{}", render_all(errors, text));
}

fn print(case: &str, took: Duration, delta: &Delta, session: &Session) {
    let statistics = session.statistics();
    println!(
        "{{\"case\":\"{case}\",\"seconds\":{:.6},\"prefixes\":{},\"nodes_added\":{},\
         \"nodes_removed\":{},\"leaves_added\":{},\"leaves_removed\":{},\"root\":{},\
         \"resolved\":{},\"steps\":{},\"kept\":{}}}",
        took.as_secs_f64(),
        delta.prefixes.len(),
        delta.nodes_added.len(),
        delta.nodes_removed.len(),
        delta.leaves_added.len(),
        delta.leaves_removed.len(),
        delta.root.is_some(),
        statistics.resolved,
        statistics.steps,
        statistics.kept
    );
}

fn environment(endpoints: u32, groups: u32) -> Environment {
    let subnet: IpAddr = Ipv4Addr::new(10, 0, 0, 0).into();
    Environment {
        networks: vec![Network {
            name: "shop".to_owned(),
            vni: 1,
            subnets: vec![(subnet, 8), ("fd00::".parse().expect("an address"), 64)],
            ..Network::default()
        }],
        endpoints: (0..endpoints)
            .map(|number| endpoint(number, number % groups, groups))
            .collect(),
        nodes: Vec::new(),
    }
}

fn endpoint(number: u32, group: u32, groups: u32) -> Endpoint {
    let v4 = Ipv4Addr::from_bits(0x0a00_0000 + 256 + number);
    let v6 = std::net::Ipv6Addr::from_bits((0xfd00 << 112) + 256 + u128::from(number));
    Endpoint {
        name: format!("vm{number}"),
        number: number + 1,
        network: "shop".to_owned(),
        addresses: vec![v4.into(), v6.into()],
        mac: [
            2,
            0,
            0,
            (number >> 16) as u8,
            (number >> 8) as u8,
            number as u8,
        ],
        labels: BTreeMap::from([("group".to_owned(), (group % groups).to_string())]),
    }
}

fn text(groups: u32, rules: u32, prefix: &str) -> String {
    let mut text = String::new();
    for group in 0..groups {
        let _ = writeln!(text, "set g{group} = labels(group = \"{group}\")");
    }
    text += "policy main =\n";
    for rule in 0..rules {
        let (from, to) = (rule * 7 % groups, rule * 13 % groups);
        let port = 1 + rule * 31 % 60_000;
        let label = if rule == 7 {
            prefix.to_owned()
        } else {
            format!("r{rule}")
        };
        let _ = writeln!(
            text,
            "if src in g{from} and dst in g{to} and tcp dst port {port} then forward \"{label}\" else"
        );
    }
    text += "drop \"default deny\"\n";
    text
}
