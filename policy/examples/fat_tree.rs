//! Compiles the policy of a fat tree and says how long that took, as one JSON object a line:
//! `cargo run --release -p sunwire-policy --features testing --example fat_tree -- PODS
//! [pairs|paths] [switches|network|both]`.
//!
//! `switches` compiles each switch's policy by itself; `network` the union over all switches at once,
//! and makes each switch's tables of the result. Times are of the process's CPU. Run each in a process
//! of its own to measure it cold.

mod common;

use std::time::Duration;

use sunwire_policy::compile::{Options, compile};
use sunwire_policy::diagnostic::render_all;
use sunwire_policy::environment::Environment;
use sunwire_policy::lower::{Capacity, Hosted, Specialiser, lower};
use sunwire_policy::tables::FlowTables;
use sunwire_policy::testing::fat_tree::{FatTree, Uplinks};
use sunwire_policy::{parse, resolve};

use common::cpu_time;

/// What compiling took, and what came of it.
#[derive(Default)]
struct Measured {
    read: Duration,
    compile: Duration,
    lower: Duration,
    made: usize,
    nodes: usize,
    edges: usize,
    leaves: usize,
    depth: usize,
}

impl Measured {
    /// Reads and compiles a policy; makes the tables of all of it, or those of each node.
    fn add(&mut self, text: &str, environment: &Environment, nodes: Option<u32>) {
        let start = cpu_time();
        let (document, diagnostics) = parse(text);
        assert!(diagnostics.is_empty(), "{}", render_all(&diagnostics, text));
        let policy = resolve(&document, environment)
            .unwrap_or_else(|diagnostics| panic!("{}", render_all(&diagnostics, text)));
        let read = cpu_time();
        let options = Options::for_policy(&policy);
        let mut fdd = compile(&policy, &options).unwrap_or_else(|error| panic!("{error}"));
        let compiled = cpu_time();
        let capacity = Capacity::default();
        self.read += read - start;
        self.compile += compiled - read;
        match nodes {
            None => {
                let tables =
                    lower(&fdd, &policy, &capacity).unwrap_or_else(|refused| panic!("{refused}"));
                self.lower += cpu_time() - compiled;
                self.count(&tables);
            }
            Some(nodes) => {
                let mut specialiser = Specialiser::new(&mut fdd, &policy);
                self.lower += cpu_time() - compiled;
                for node in 1..=nodes {
                    let start = cpu_time();
                    let hosted = Hosted {
                        node,
                        endpoints: None,
                    };
                    let tables = specialiser
                        .tables(&hosted, &capacity)
                        .unwrap_or_else(|refused| panic!("{refused}"));
                    self.lower += cpu_time() - start;
                    self.count(&tables);
                }
            }
        }
        self.made += fdd.store.len();
    }

    fn count(&mut self, tables: &FlowTables) {
        let size = tables.size();
        self.nodes += size.nodes;
        self.edges += size.edges;
        self.leaves += size.leaves;
        self.depth = self.depth.max(size.depth);
    }

    fn print(&self, pods: u32, tree: &FatTree, case: &str) {
        println!(
            "{{\"pods\":{pods},\"case\":\"{case}\",\"switches\":{},\"rules\":{},\
             \"read_s\":{:.6},\"compile_s\":{:.6},\"lower_s\":{:.6},\
             \"fdd_nodes\":{},\"nodes\":{},\"edges\":{},\"leaves\":{},\"depth\":{}}}",
            tree.switches(),
            tree.rules(),
            self.read.as_secs_f64(),
            self.compile.as_secs_f64(),
            self.lower.as_secs_f64(),
            self.made,
            self.nodes,
            self.edges,
            self.leaves,
            self.depth,
        );
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let argument = |at: usize| arguments.get(at).map(String::as_str);
    let pods = argument(0).and_then(|text| text.parse().ok()).unwrap_or(16);
    let uplinks = match argument(1) {
        Some("paths") => Uplinks::ShortestPaths,
        _ => Uplinks::PodPairs,
    };
    let which = argument(2).unwrap_or("both");
    let tree = FatTree::new(pods, uplinks);
    let environment = tree.environment();
    if which != "network" {
        let mut sum = Measured::default();
        for number in 1..=tree.switches() {
            sum.add(&tree.switch_text(number), &environment, None);
        }
        sum.print(pods, &tree, "switches");
    }
    if which != "switches" {
        let mut whole = Measured::default();
        whole.add(&tree.text(), &environment, Some(tree.switches()));
        whole.print(pods, &tree, "network");
    }
}
