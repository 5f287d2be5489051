//! How a policy of many rules compiles, and how many probes a packet costs in its tables, as one JSON
//! object a line: `cargo run --release -p sunwire-policy --example scale -- [RULES] [SETS]`; without
//! arguments for 10, 1,000 and 100,000 rules.
//!
//! The depth is the number of probes that a packet can cost at most: it depends on how many fields
//! rules test, not on how many rules there are. Times are of the process's CPU. For orders of tests
//! other than the chosen one, the size of the tables is told as well.

mod common;

use std::fmt::Write;
use std::net::IpAddr;

use sunwire_policy::compile::{Options, compile};
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Environment, Network};
use sunwire_policy::fdd::Order;
use sunwire_policy::field::Field;
use sunwire_policy::lower::{Capacity, lower};
use sunwire_policy::{parse, resolve};

use common::cpu_time;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().ok());
    let rules: Option<usize> = arguments.next().flatten();
    let sets = arguments.next().flatten().unwrap_or(100).clamp(1, 250);
    match rules {
        Some(rules) => measure(rules, sets),
        None => [10, 1_000, 100_000]
            .into_iter()
            .for_each(|rules| measure(rules, sets)),
    }
}

fn measure(rules: usize, sets: usize) {
    let text = text(rules, sets);
    let subnet: IpAddr = IpAddr::from([10, 20, 0, 0]);
    let environment = Environment {
        networks: vec![Network {
            name: "shop".to_owned(),
            vni: 1,
            subnets: vec![(subnet, 16)],
            ..Network::default()
        }],
        ..Environment::default()
    };
    let start = cpu_time();
    let (document, mut diagnostics) = parse(&text);
    let policy = resolve(&document, &environment).unwrap_or_else(|errors| {
        diagnostics.extend(errors);
        panic!("{}", render_all(&diagnostics, &text))
    });
    let read = cpu_time() - start;
    let chosen = Options::for_policy(&policy).order;
    let orders = [
        ("chosen", chosen),
        ("source first", chosen.starting_with(&[Field::Source])),
        (
            "ports first",
            chosen.starting_with(&[Field::Protocol, Field::DestinationPort]),
        ),
    ];
    for (name, order) in orders {
        let line = outcome(&policy, order);
        println!(
            "{{\"rules\":{rules},\"sets\":{sets},\"bytes\":{},\"read_s\":{:.6},\"order\":\"{name}\",{line}}}",
            text.len(),
            read.as_secs_f64(),
        );
    }
}

/// Time and size with one order of tests.
fn outcome(policy: &sunwire_policy::term::Resolved, order: Order) -> String {
    let options = Options {
        order,
        ..Options::default()
    };
    let start = cpu_time();
    let fdd = match compile(policy, &options) {
        Ok(fdd) => fdd,
        Err(error) => return format!("\"error\":\"{error}\""),
    };
    let compiled = cpu_time() - start;
    let tables = match lower(&fdd, policy, &Capacity::default()) {
        Ok(tables) => tables,
        Err(refused) => return format!("\"error\":\"{refused}\""),
    };
    let lowered = cpu_time() - start - compiled;
    let size = tables.size();
    format!(
        "\"compile_s\":{:.6},\"lower_s\":{:.6},\"fdd_nodes\":{},\"nodes\":{},\"edges\":{},\
         \"leaves\":{},\"prefixes\":{},\"depth\":{}",
        compiled.as_secs_f64(),
        lowered.as_secs_f64(),
        fdd.store.len(),
        size.nodes,
        size.edges,
        size.leaves,
        size.prefixes,
        size.depth
    )
}

fn text(rules: usize, sets: usize) -> String {
    let mut text = String::new();
    for set in 0..sets {
        let _ = write!(text, "set s{set} = {{ ");
        for host in 0..4 {
            let _ = write!(text, "10.20.{set}.{host}, ");
        }
        let _ = writeln!(text, "10.20.{set}.128/25 }}");
    }
    text += "let r(from, to, p) = src in from and dst in to and tcp and tcpDstPort = p\n";
    for action in 0..8 {
        let _ = writeln!(text, "let f{action} = forward \"rules {action}\"");
    }
    text += "policy main =\n";
    for rule in 0..rules {
        let from = rule * 7 % sets;
        let to = (rule * 13 + rule / sets) % sets;
        let port = 1 + rule * 31 % 60_000;
        let action = rule % 8;
        let _ = writeln!(text, "if r(s{from},s{to},{port}) then f{action} else");
    }
    text += "drop \"default deny\"\n";
    text
}
