//! `sunwire policy eval` and `compile`: what a policy makes of packets.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use sunwire_policy::address::Address;
use sunwire_policy::diagnostic::{Diagnostic, render_all};
use sunwire_policy::environment::Environment;
use sunwire_policy::packet::{Packet, Place};
use sunwire_policy::tables::{FlowTables, Leaf, Out};
use sunwire_policy::{compile_text, evaluate, parse, resolve};

use super::surroundings::Surroundings;
use super::{NamesFrom, packet, read};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};
use crate::rest::Connection;

/// Prints what comes out of `file` for one packet.
pub(super) fn eval(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    packet: &str,
) -> anyhow::Result<Outcome> {
    let text = read(file)?;
    let surroundings = Surroundings::find(connection, names, &text)?;
    let entered = packet::parse(packet, &surroundings.environment)?;
    let (document, findings) = parse(&text);
    if findings.iter().any(Diagnostic::is_error) {
        return Ok(refuse(&findings, &text));
    }
    let policy = match resolve(&document, &surroundings.environment) {
        Ok(policy) => policy,
        Err(findings) => return Ok(refuse(&findings, &text)),
    };
    let outcome = evaluate(&policy, &entered)?;
    let mut out = Vec::new();
    for copy in outcome.copies.keys() {
        let to_owner = copy.place(&entered) == Place::Owner;
        if to_owner && surroundings.is_known {
            // Without an owner it is dropped, whatever the policy says.
            let Some(number) = owner(&policy.network.name, copy, &surroundings.environment) else {
                continue;
            };
            let delivered = Packet {
                port: number,
                ..*copy
            };
            out.push(packet::object(&delivered, false));
        } else {
            out.push(packet::object(copy, to_owner));
        }
    }
    output::text(&format!("{}\n", Value::from(out.clone())))?;
    Ok(if out.is_empty() {
        Outcome::Negative
    } else {
        Outcome::Done
    })
}

/// Number of the endpoint that has the packet's destination.
fn owner(network: &str, packet: &Packet, environment: &Environment) -> Option<u32> {
    let address = match packet.dst {
        Address::None => None,
        Address::V4(v4) => Some(v4.into()),
        Address::V6(v6) => Some(v6.into()),
    };
    let mut endpoints = environment
        .endpoints
        .iter()
        .filter(|e| e.network == network);
    let found = endpoints.find(|endpoint| match address {
        Some(address) => endpoint.addresses.contains(&address),
        None => {
            let [a, b, c, d, e, f] = endpoint.mac;
            u64::from_be_bytes([0, 0, a, b, c, d, e, f]) == packet.eth_dst
        }
    });
    found.map(|endpoint| endpoint.number)
}

fn refuse(findings: &[Diagnostic], text: &str) -> Outcome {
    eprintln!("{}", render_all(findings, text).trim_end());
    Outcome::Negative
}

/// Sizes of compiled tables.
#[derive(Debug, Serialize)]
struct Stats {
    network: String,
    policy: String,
    table_nodes: usize,
    table_edges: usize,
    leaves: usize,
    labels: usize,
    address_prefixes: usize,
    compile_seconds: f64,
}

/// Compiles `file` and prints its tables, or their sizes.
pub(super) fn compile(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    stats: bool,
    format: Format,
) -> anyhow::Result<Outcome> {
    let text = read(file)?;
    let surroundings = Surroundings::find(connection, names, &text)?;
    let start = Instant::now();
    let compiled = match compile_text(&text, &surroundings.environment) {
        Ok(compiled) => compiled,
        Err(findings) => return Ok(refuse(&findings, &text)),
    };
    let compile_seconds = start.elapsed().as_secs_f64();
    let tables = compiled.tables;
    if !stats {
        match format {
            Format::Json => output::json(&as_json(&tables))?,
            Format::Table => output::text(&as_text(&tables))?,
        }
        return Ok(Outcome::Done);
    }
    let stats = Stats {
        network: compiled.network,
        policy: compiled.policy,
        table_nodes: tables.nodes.len(),
        table_edges: tables.nodes.values().map(|node| node.edges.len()).sum(),
        leaves: tables.leaves.len(),
        labels: compiled.labels.len(),
        address_prefixes: tables.classes.len(),
        compile_seconds,
    };
    output::show(format, &stats, |stats| {
        let mut table = Table::new(&[
            "NETWORK", "POLICY", "NODES", "EDGES", "LEAVES", "LABELS", "PREFIXES", "SECONDS",
        ]);
        table.row([
            stats.network.clone(),
            stats.policy.clone(),
            stats.table_nodes.to_string(),
            stats.table_edges.to_string(),
            stats.leaves.to_string(),
            stats.labels.to_string(),
            stats.address_prefixes.to_string(),
            format!("{:.6}", stats.compile_seconds),
        ]);
        table
    })?;
    Ok(Outcome::Done)
}

fn as_text(tables: &FlowTables) -> String {
    let mut text = format!("root {:?}\n", tables.root);
    for class in &tables.classes {
        let (address, prefix) = (class.address, class.prefix);
        text.push_str(&format!("class {:?}  {address}/{prefix}\n", class.class));
    }
    text.push_str(&format!("class {:?}  no address\n", tables.class_none));
    for (digest, node) in &tables.nodes {
        let (field, shift, width) = (node.field, node.shift, node.width);
        text.push_str(&format!(
            "node {digest:?}  {field:?} >> {shift} & {width} bits\n"
        ));
        for (value, next) in &node.edges {
            text.push_str(&format!("  {value:?} -> {next:?}\n"));
        }
        text.push_str(&format!("  else -> {:?}\n", node.default));
    }
    for (digest, leaf) in &tables.leaves {
        let label = &leaf.label;
        text.push_str(&format!("leaf {digest:?}  {label:?}  {}\n", verdict(leaf)));
    }
    text
}

fn verdict(leaf: &Leaf) -> String {
    if leaf.copies.is_empty() {
        return "drop".to_owned();
    }
    let copies: Vec<String> = leaf
        .copies
        .iter()
        .map(|copy| match copy.out {
            Some(Out::Owner) => "to owner".to_owned(),
            Some(Out::Endpoint(number)) => format!("to endpoint {number}"),
            None => "back where it came in".to_owned(),
        })
        .collect();
    copies.join(", ")
}

fn as_json(tables: &FlowTables) -> Value {
    let digest = |digest| format!("{digest:?}");
    let nodes = tables.nodes.iter().map(|(id, node)| {
        let edges = node.edges.iter();
        json!({
            "id": digest(id),
            "field": format!("{:?}", node.field),
            "shift": node.shift,
            "width": node.width,
            "edges": edges
                .map(|(value, next)| json!({"value": format!("{value:?}"), "next": digest(next)}))
                .collect::<Vec<_>>(),
            "default": digest(&node.default),
        })
    });
    let leaves = tables
        .leaves
        .iter()
        .map(|(id, leaf)| json!({"id": digest(id), "label": leaf.label, "verdict": verdict(leaf)}));
    let classes = tables.classes.iter().map(|class| {
        json!({
            "prefix": format!("{}/{}", class.address, class.prefix),
            "class": digest(&class.class),
        })
    });
    json!({
        "root": digest(&tables.root),
        "nodes": nodes.collect::<Vec<_>>(),
        "leaves": leaves.collect::<Vec<_>>(),
        "classes": classes.collect::<Vec<_>>(),
    })
}
