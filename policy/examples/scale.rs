//! How long a large policy takes to compile: `cargo run --release -p sunwire-policy --example scale
//! [RULES] [SETS]` prints time and size for both orders of the address classes.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Instant;

use sunwire_policy::compile::{Options, compile};
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::{Environment, Network};
use sunwire_policy::fdd::Order;
use sunwire_policy::lower::{Capacity, lower};
use sunwire_policy::{parse, resolve};

fn main() {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse().unwrap_or(0));
    let rules: usize = arguments.next().unwrap_or(1000);
    let sets: usize = arguments.next().unwrap_or(100).clamp(1, 250);
    let mut text = String::new();
    for set in 0..sets {
        let _ = write!(text, "set s{set} = {{ ");
        for host in 0..20 {
            let _ = write!(text, "10.20.{set}.{host}, ");
        }
        let _ = writeln!(text, "10.20.{set}.128/25 }}");
    }
    text += "policy main =\n";
    for rule in 0..rules {
        let (from, to) = (rule * 7 % sets, rule * 13 % sets);
        let port = 1 + rule * 31 % 60_000;
        let _ = writeln!(
            text,
            "if src in s{from} and dst in s{to} and tcp dst port {port} then forward \"r{}\" else",
            rule % 500
        );
    }
    text += "drop \"default deny\"\n";
    let subnet: IpAddr = IpAddr::from([10, 20, 0, 0]);
    let environment = Environment {
        networks: vec![Network {
            name: "shop".to_owned(),
            vni: 1,
            subnets: vec![(subnet, 16)],
        }],
        ..Environment::default()
    };
    let start = Instant::now();
    let (document, _) = parse(&text);
    let policy = match resolve(&document, &environment) {
        Ok(policy) => policy,
        Err(diagnostics) => {
            eprintln!("{}", render_all(&diagnostics, &text));
            return;
        }
    };
    println!(
        "{rules} rules, {sets} sets, {} bytes; read in {:?}",
        text.len(),
        start.elapsed()
    );
    let default = Order::default();
    let mut swapped = default;
    swapped.0.swap(0, 1);
    let mut late = default;
    late.0.rotate_left(2);
    for (name, order) in [
        ("dst, src, …", default),
        ("src, dst, …", swapped),
        ("ports first", late),
    ] {
        let options = Options {
            order,
            ..Options::default()
        };
        let start = Instant::now();
        let fdd = match compile(&policy, &options) {
            Ok(fdd) => fdd,
            Err(error) => {
                println!("{name}: {error} ({:?})", start.elapsed());
                continue;
            }
        };
        let compiled = start.elapsed();
        match lower(&fdd, &policy, &Capacity::default()) {
            Ok(tables) => {
                let edges: usize = tables.nodes.values().map(|n| n.edges.len()).sum();
                println!(
                    "{name}: compiled in {compiled:?}, lowered in {:?}; {} nodes made, {} table nodes, {edges} edges, {} leaves",
                    start.elapsed() - compiled,
                    fdd.store.len(),
                    tables.nodes.len(),
                    tables.leaves.len(),
                );
            }
            Err(refused) => println!("{name}: compiled in {compiled:?}; {refused}"),
        }
    }
}
