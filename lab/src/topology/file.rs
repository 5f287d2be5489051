//! Topology files: TOML in, the same builder behind it, errors with their place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::builder::{LinkEnds, Located, Origin, TopologyBuilder};
use super::problem::{Problem, TopologyError};
use super::{Topology, Underlay, WORKLOAD_MTU_DEFAULT, WorkloadSpec};
use crate::link::LinkChange;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    id: Option<Spanned<String>>,
    seed: Option<u64>,
    defaults: Option<Spanned<LinkChange>>,
    #[serde(default)]
    node: Vec<Spanned<NodeEntry>>,
    #[serde(default)]
    outside: Vec<Spanned<NodeEntry>>,
    controller: Option<Spanned<ControllerEntry>>,
    #[serde(default)]
    link: Vec<Spanned<LinkEntry>>,
    #[serde(default)]
    workload: Vec<Spanned<WorkloadEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: Spanned<String>,
    region: String,
    address: Option<Ipv4Addr>,
    #[serde(default)]
    underlay: Underlay,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerEntry {
    region: String,
    address: Option<Ipv4Addr>,
}

/// The keys of [`LinkChange`] again: serde cannot both flatten a structure and
/// refuse unknown keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkEntry {
    between: Option<[String; 2]>,
    from: Option<String>,
    to: Option<String>,
    delay_ms: Option<f64>,
    jitter_ms: Option<f64>,
    loss: Option<f64>,
    rate_mbps: Option<f64>,
    queue_packets: Option<u32>,
    queue_bytes: Option<u64>,
    up: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadEntry {
    name: Spanned<String>,
    node: String,
    network: String,
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    gateways: Vec<IpAddr>,
    mac: Option<Spanned<String>>,
    mtu: Option<u32>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

impl Topology {
    /// Reads a topology from TOML text.
    ///
    /// # Errors
    /// [`TopologyError::Syntax`] or [`TopologyError::At`], both with line,
    /// column and the line itself.
    pub fn from_toml(text: &str) -> Result<Self, TopologyError> {
        let file: File = toml::from_str(text)
            .map_err(|error| TopologyError::Syntax(error.to_string().trim_end().to_owned()))?;
        read(file)
            .and_then(TopologyBuilder::check)
            .map_err(|(problem, origin)| show(text, problem, origin))
    }

    /// Reads a topology file.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), or [`TopologyError::Unreadable`].
    pub fn from_file(path: &Path) -> Result<Self, TopologyError> {
        let text = std::fs::read_to_string(path).map_err(|error| TopologyError::Unreadable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        Self::from_toml(&text)
    }
}

fn read(file: File) -> Result<TopologyBuilder, Located> {
    let mut builder = Topology::builder();
    if let Some(id) = file.id {
        builder = builder.id_at(id.get_ref(), Some(id.span()));
    }
    if let Some(seed) = file.seed {
        builder = builder.seed(seed);
    }
    if let Some(defaults) = file.defaults {
        builder = builder.defaults_at(*defaults.get_ref(), Some(defaults.span()));
    }
    for node in file.node {
        let origin = Some(node.get_ref().name.span());
        let node = node.into_inner();
        let (name, underlay) = (node.name.get_ref(), node.underlay);
        builder = builder.node_at(name, &node.region, node.address, underlay, origin);
    }
    for host in file.outside {
        let origin = Some(host.get_ref().name.span());
        let host = host.into_inner();
        builder = builder.outside_at(host.name.get_ref(), &host.region, host.address, origin);
    }
    if let Some(controller) = file.controller {
        let origin = Some(controller.span());
        let controller = controller.into_inner();
        builder = builder.controller_at(&controller.region, controller.address, origin);
    }
    for link in file.link {
        let origin = Some(link.span());
        let link = link.into_inner();
        let ends = match (link.between, link.from, link.to) {
            (Some([a, b]), None, None) => LinkEnds::Between(a, b),
            (None, Some(from), Some(to)) => LinkEnds::OneWay(from, to),
            _ => return Err((Problem::LinkEnds, origin)),
        };
        let values = LinkChange {
            delay_ms: link.delay_ms,
            jitter_ms: link.jitter_ms,
            loss: link.loss,
            rate_mbps: link.rate_mbps,
            queue_packets: link.queue_packets,
            queue_bytes: link.queue_bytes,
            up: link.up,
        };
        builder = builder.link_at(ends, values, origin);
    }
    for workload in file.workload {
        let entry = workload.into_inner();
        let origin = Some(entry.name.span());
        builder = builder.workload_at(read_workload(entry)?, origin);
    }
    Ok(builder)
}

fn read_workload(entry: WorkloadEntry) -> Result<WorkloadSpec, Located> {
    let mut spec = WorkloadSpec::new(entry.name.get_ref(), &entry.node, &entry.network);
    for address in &entry.addresses {
        let parsed = address.get_ref().parse();
        spec.addresses
            .push(parsed.map_err(located(address.span()))?);
    }
    spec.gateways = entry.gateways;
    spec.mtu = entry.mtu.unwrap_or(WORKLOAD_MTU_DEFAULT);
    spec.labels = entry.labels;
    if let Some(mac) = &entry.mac {
        spec.mac = Some(mac.get_ref().parse().map_err(located(mac.span()))?);
    }
    Ok(spec)
}

fn located<E: Into<Problem>>(span: Range<usize>) -> impl FnOnce(E) -> Located {
    move |error| (error.into(), Some(span))
}

fn show(text: &str, problem: Problem, origin: Origin) -> TopologyError {
    let Some(span) = origin else {
        return TopologyError::Problem(problem);
    };
    let before = &text[..span.start];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = before.matches('\n').count() + 1;
    let column = text[start..span.start].chars().count() + 1;
    let shown = text[start..].lines().next().unwrap_or_default();
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat(column - 1);
    let width = text[span.clone()].lines().next().unwrap_or_default();
    let carets = "^".repeat(width.chars().count().max(1));
    TopologyError::At {
        line,
        column,
        problem,
        excerpt: format!("{margin} |\n{number} | {shown}\n{margin} | {indent}{carets}"),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
