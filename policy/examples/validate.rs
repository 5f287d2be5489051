//! How long proofs about a policy take beside making its tables: `cargo run --release -p
//! sunwire-policy --example validate [ENDPOINTS] [GROUPS] [RULES]` compiles a policy between labelled
//! groups, proves that its tables do what it says, and proves assertions about it where there are
//! groups without a rule between them. One JSON object, with the process's CPU times.
//!
//! Endpoint `n` has the label `group` with one of `GROUPS` values, in turn. A rule lets one group reach
//! another on one TCP port of its own, until no two groups are left; nothing else passes.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use sunwire_policy::compile::{self, compile};
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Endpoint, Environment, Network};
use sunwire_policy::lower::{Capacity, lower};
use sunwire_policy::prove::prove;
use sunwire_policy::verify::options::Options;
use sunwire_policy::{parse, resolve, validate};

use common::cpu_time;

/// Assertions that groups reach each other, and that they do not.
const REACH: u32 = 5;
const ISOLATED: usize = 4;

fn main() {
    let groups = Groups::from_arguments(std::env::args().skip(1));
    let environment = groups.environment();
    let text = groups.text(&claims(&groups));

    let start = cpu_time();
    let (document, diagnostics) = parse(&text);
    assert!(
        diagnostics.is_empty(),
        "{}",
        render_all(&diagnostics, &text)
    );
    let policy = resolve(&document, &environment)
        .unwrap_or_else(|diagnostics| panic!("{}", render_all(&diagnostics, &text)));
    let read = cpu_time();
    let fdd = compile(&policy, &compile::Options::for_policy(&policy))
        .unwrap_or_else(|error| panic!("{error}"));
    let tables =
        lower(&fdd, &policy, &Capacity::default()).unwrap_or_else(|refused| panic!("{refused}"));
    let compiled = cpu_time();
    let options = Options::default();
    validate(&policy, &tables, &options).unwrap_or_else(|invalid| panic!("{invalid}"));
    let validated = cpu_time();
    let proofs = prove(&policy, &environment, &options);
    let proved = cpu_time();

    let failed = proofs.iter().find_map(|proof| proof.diagnostic(&text));
    if let Some(failed) = failed {
        panic!("{}", render_all(&[failed], &text));
    }
    println!(
        "{{\"endpoints\":{},\"groups\":{},\"rules\":{},\"read_s\":{:.6},\"compile_s\":{:.6},\
         \"validate_s\":{:.6},\"assertions\":{},\"prove_s\":{:.6}}}",
        groups.endpoints,
        groups.groups,
        groups.rules,
        (read - start).as_secs_f64(),
        (compiled - read).as_secs_f64(),
        (validated - compiled).as_secs_f64(),
        proofs.len(),
        (proved - validated).as_secs_f64(),
    );
}

/// Assertions that hold; none where the rules leave no two groups apart.
fn claims(groups: &Groups) -> String {
    let rules: Vec<_> = (0..groups.rules).map(|n| groups.rule(n)).collect();
    let pairs: HashSet<(u32, u32)> = rules.iter().map(|rule| (rule.from, rule.to)).collect();
    let apart = (0..groups.groups).filter_map(|from| {
        let is_apart = |to: &u32| !pairs.contains(&(from, *to)) && !pairs.contains(&(*to, from));
        (0..groups.groups)
            .find(|to| *to != from && is_apart(to))
            .map(|to| (from, to))
    });
    let apart: Vec<_> = apart.take(ISOLATED).collect();
    let mut text = String::new();
    if apart.len() < ISOLATED {
        return text;
    }
    for number in 0..REACH.min(groups.rules) {
        let rule = groups.rule(number * (groups.rules / REACH));
        let _ = writeln!(
            text,
            "assert reach(g{}, g{} where tcp dst port {})",
            rule.from, rule.to, rule.port
        );
    }
    for (left, right) in apart {
        let _ = writeln!(text, "assert isolated(g{left}, g{right})");
    }
    text + "assert loop-free\n"
}

/// How large the policy is.
#[derive(Clone, Copy)]
struct Groups {
    endpoints: u32,
    groups: u32,
    rules: u32,
}

/// One rule: who may reach whom, on which port.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Rule {
    from: u32,
    to: u32,
    port: u32,
}

impl Groups {
    /// Endpoints, groups and rules from the command line, as far as it names them.
    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut next = |otherwise: u32| match arguments.next() {
            None => otherwise,
            Some(text) => text
                .parse()
                .unwrap_or_else(|_| panic!("`{text}` is not a number")),
        };
        Groups {
            endpoints: next(10_000),
            groups: next(100).max(1),
            rules: next(1_000),
        }
    }

    /// The endpoints with their labels.
    fn environment(&self) -> Environment {
        Environment {
            networks: vec![Network {
                name: "cloud".to_owned(),
                vni: 1,
                subnets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
                ..Network::default()
            }],
            endpoints: (1..=self.endpoints).map(|n| self.endpoint(n)).collect(),
            nodes: Vec::new(),
        }
    }

    /// One endpoint, by its number from 1.
    fn endpoint(&self, number: u32) -> Endpoint {
        let [a, b, c, d] = number.to_be_bytes();
        Endpoint {
            name: format!("e{number}"),
            number,
            network: "cloud".to_owned(),
            addresses: vec![Ipv4Addr::new(10, b, c, d).into()],
            mac: [2, 0, a, b, c, d],
            labels: BTreeMap::from([("group".to_owned(), format!("g{}", number % self.groups))]),
        }
    }

    /// A rule, by its number from 0.
    fn rule(&self, number: u32) -> Rule {
        let (from, turn) = (number % self.groups, number / self.groups);
        Rule {
            from,
            to: (from * 13 + turn * 7 + 1) % self.groups,
            port: 1 + number * 31 % 60_000,
        }
    }

    /// The text, with `claims` at its end.
    fn text(&self, claims: &str) -> String {
        let mut text = "network cloud\n".to_owned();
        for group in 0..self.groups {
            let _ = writeln!(text, "set g{group} = labels(group = \"g{group}\")");
        }
        text += "policy main =\n";
        for number in 0..self.rules {
            let Rule { from, to, port } = self.rule(number);
            // Nodes hold fewer labels than rules.
            let label = number % 500;
            let _ = writeln!(
                text,
                "if src in g{from} and dst in g{to} and tcp dst port {port} then forward \"r{label}\" else"
            );
        }
        text += "drop \"default deny\"\n";
        text + claims
    }
}
