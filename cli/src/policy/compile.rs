//! `sunwire policy compile`: the flow tables of a policy, or their sizes.

use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::{Value, json};
use sunwire_api::MacAddress;
use sunwire_policy::compile::Options;
use sunwire_policy::tables::{self, Copied, Digest, FlowTables, Leaf, Out};
use sunwire_policy::{compile, compile_text, resolve_text};

use super::surroundings::Surroundings;
use super::{NamesFrom, read_bundle, refuse};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// How a policy compiles, and how large its tables are.
#[derive(Debug, Serialize)]
struct Stats {
    network: String,
    policy: String,
    /// In which order the diagram tests fields.
    field_order: Vec<&'static str>,
    /// Nodes of the decision diagram that were made on the way.
    fdd_nodes: usize,
    /// Edges that were made on the way: what bounds the work.
    fdd_steps: usize,
    /// Classes of addresses: what the policy can tell apart.
    address_classes: u32,
    address_prefixes: usize,
    table_nodes: usize,
    table_edges: usize,
    /// Tests on the longest way from the root to a verdict.
    table_depth: usize,
    leaves: usize,
    labels: usize,
    /// From the text to tables that are proved equal to it.
    compile_seconds: f64,
    /// Of these, the decision diagram alone.
    fdd_seconds: f64,
}

/// Compiles `file` and prints its tables, or their sizes.
pub(super) fn run(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    stats: bool,
    format: Format,
) -> anyhow::Result<Outcome> {
    let bundle = read_bundle(file)?;
    let surroundings = Surroundings::find(connection, names, &[bundle.text()])?;
    surroundings.tell_assumed();
    let environment = &surroundings.environment;
    let start = Instant::now();
    let compiled = match compile_text(bundle.text(), environment) {
        Ok(compiled) => compiled,
        Err(findings) => return Ok(refuse(&findings, &bundle)),
    };
    let compile_seconds = start.elapsed().as_secs_f64();
    let tables = &compiled.tables;
    if !stats {
        match format {
            Format::Json => output::json(&as_json(tables))?,
            Format::Table => output::text(&as_text(tables))?,
        }
        return Ok(Outcome::Done);
    }
    // Once more for what the tables no longer show; what compiled once compiles again.
    let (policy, _) = match resolve_text(bundle.text(), environment) {
        Ok(resolved) => resolved,
        Err(findings) => return Ok(refuse(&findings, &bundle)),
    };
    let start = Instant::now();
    let fdd = compile(&policy, &Options::for_policy(&policy))?;
    let fdd_seconds = start.elapsed().as_secs_f64();
    let order = fdd.store.order().0;
    let size = tables.size();
    let stats = Stats {
        field_order: order.iter().map(|field| field.name()).collect(),
        fdd_nodes: fdd.store.len(),
        fdd_steps: fdd.store.steps(),
        address_classes: fdd.atoms.count(),
        address_prefixes: size.prefixes,
        table_nodes: size.nodes,
        table_edges: size.edges,
        table_depth: size.depth,
        leaves: size.leaves,
        labels: size.labels,
        network: compiled.network,
        policy: compiled.policy,
        compile_seconds,
        fdd_seconds,
    };
    match format {
        Format::Json => output::json(&stats)?,
        Format::Table => output::text(&stats.lines())?,
    }
    Ok(Outcome::Done)
}

impl Stats {
    fn lines(&self) -> String {
        let rows = [
            ("network", self.network.clone()),
            ("policy", self.policy.clone()),
            ("field order", self.field_order.join(" ")),
            ("diagram nodes", self.fdd_nodes.to_string()),
            ("diagram steps", self.fdd_steps.to_string()),
            ("address classes", self.address_classes.to_string()),
            ("address prefixes", self.address_prefixes.to_string()),
            ("table nodes", self.table_nodes.to_string()),
            ("table edges", self.table_edges.to_string()),
            ("table depth", self.table_depth.to_string()),
            ("leaves", self.leaves.to_string()),
            ("labels", self.labels.to_string()),
            ("seconds", format!("{:.6}", self.compile_seconds)),
            ("of these, diagram", format!("{:.6}", self.fdd_seconds)),
        ];
        let line = |(name, value): (&str, String)| format!("{name:18} {value}\n");
        rows.into_iter().map(line).collect()
    }
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
    let copies: Vec<String> = leaf.copies.iter().map(copied).collect();
    copies.join(" + ")
}

/// What becomes of one copy, as the language would write it.
fn copied(copy: &Copied) -> String {
    let mut steps = Vec::new();
    let mut write = |name: &str, value: Option<String>| {
        steps.extend(value.map(|value| format!("{name} := {value}")));
    };
    write(
        "ethSrc",
        copy.eth_src.map(|mac| MacAddress(mac).to_string()),
    );
    write(
        "ethDst",
        copy.eth_dst.map(|mac| MacAddress(mac).to_string()),
    );
    write("dscp", copy.dscp.map(|value| value.to_string()));
    write("srcPort", copy.src_port.map(|value| value.to_string()));
    write("dstPort", copy.dst_port.map(|value| value.to_string()));
    write("ip4Src", copy.ip4_src.map(|value| value.to_string()));
    write("ip4Dst", copy.ip4_dst.map(|value| value.to_string()));
    write("ip6Src", copy.ip6_src.map(|value| value.to_string()));
    write("ip6Dst", copy.ip6_dst.map(|value| value.to_string()));
    write("translated", copy.translated.then(|| "1".to_owned()));
    match copy.out {
        Some(Out::Owner) => steps.push("forward".to_owned()),
        Some(Out::Endpoint(number)) => steps.push(format!("port := {number}")),
        None => steps.push("id".to_owned()),
    }
    steps.join("; ")
}

fn as_json(tables: &FlowTables) -> Value {
    let edge = |(value, next): &(tables::Value, Digest)| match value {
        tables::Value::Number(number) => json!({"value": number, "next": hex(next)}),
        tables::Value::Class(class) => json!({"class": hex(class), "next": hex(next)}),
    };
    let nodes = tables.nodes.iter().map(|(id, node)| {
        json!({
            "id": hex(id),
            "field": format!("{:?}", node.field),
            "shift": node.shift,
            "width": node.width,
            "edges": node.edges.iter().map(edge).collect::<Vec<_>>(),
            "default": hex(&node.default),
        })
    });
    let leaves = tables
        .leaves
        .iter()
        .map(|(id, leaf)| json!({"id": hex(id), "label": leaf.label, "verdict": verdict(leaf)}));
    let classes = tables.classes.iter().map(|class| {
        json!({
            "prefix": format!("{}/{}", class.address, class.prefix),
            "class": hex(&class.class),
        })
    });
    json!({
        "root": hex(&tables.root),
        "nodes": nodes.collect::<Vec<_>>(),
        "leaves": leaves.collect::<Vec<_>>(),
        "classes": classes.collect::<Vec<_>>(),
        "class_none": hex(&tables.class_none),
        "bucket": tables.bucket,
    })
}

fn hex(digest: &Digest) -> String {
    digest.0.iter().map(|byte| format!("{byte:02x}")).collect()
}
