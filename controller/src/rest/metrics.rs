//! Metrics for Prometheus: how far the controller and its nodes are, and what nodes have counted.
//!
//! docs/user-guide/telemetry.md has the names: a change here is one there.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use sunwire_api::metrics::{Exposition, MEDIA_TYPE};
use sunwire_api::{
    Counters, LabelTotals, NamedTotals, NodeCounters, Status, Totals, Tunnel, TunnelLiveness,
    Tunnels, Wire, WireState,
};

use super::failure::Failure;
use super::{nodes, status, wires};
use crate::handle::Handle;

/// What there is to tell, as OpenMetrics text.
pub(crate) async fn show(State(handle): State<Handle>) -> Result<Response, Failure> {
    let read = handle.read(|cluster| {
        let tunnels = nodes::all_tunnels(cluster);
        let names = cluster.state.wires().keys();
        let wires: Vec<Wire> = names
            .filter_map(|name| wires::view(cluster, name).ok())
            .collect();
        let counters = status::sum(cluster);
        (status::view(cluster), counters, tunnels, wires)
    });
    let (status, counters, tunnels, wires) = read.await?;
    let text = render(&status, &counters, &tunnels, &wires);
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}

fn render(status: &Status, counters: &Counters, tunnels: &Tunnels, wires: &[Wire]) -> String {
    let mut out = Exposition::default();
    out.gauges(
        "controller",
        "1, with the controller's version",
        ["version"],
        [([status.version.clone()], 1.0)],
    );
    out.gauge(
        "controller_revision",
        "Revision of the last change",
        status.revision as f64,
    );
    let nodes = || status.nodes.iter();
    out.gauges(
        "node_connected",
        "Whether a node's agent is connected",
        ["node"],
        nodes().map(|node| ([node.name.to_string()], f64::from(u8::from(node.connected)))),
    );
    out.gauges(
        "node_revision",
        "Revision up to which everything that concerns a node is in its kernel",
        ["node"],
        nodes().map(|node| ([node.name.to_string()], node.acknowledged_revision as f64)),
    );
    out.gauges(
        "node_failed",
        "Whether a node could not apply what it was last sent",
        ["node"],
        nodes().map(|node| {
            let failed = u8::from(node.error.is_some());
            ([node.name.to_string()], f64::from(failed))
        }),
    );
    type Part = (&'static str, &'static str, fn(&Totals) -> u64);
    let parts: [Part; 2] = [
        ("packets", "Packets", |totals| totals.packets),
        ("bytes", "Bytes of packets", |totals| totals.bytes),
    ];
    for (unit, what, part) in parts {
        let labels = counters.nodes.iter().flat_map(|node| {
            node.labels.iter().map(move |label| {
                let names = [node.node.to_string(), network(label), label.label.clone()];
                (names, part(&label.totals))
            })
        });
        out.totals(
            &format!("node_policy_{unit}"),
            &format!("{what} decided by rules with a label, as the node last reported"),
            ["node", "network", "label"],
            labels,
        );
        let drops = counters.nodes.iter().flat_map(|node| {
            node.drops.iter().map(move |drop| {
                let names = [node.node.to_string(), drop.reason.clone()];
                (names, part(&drop.totals))
            })
        });
        out.totals(
            &format!("node_dropped_{unit}"),
            &format!("{what} dropped, as the node last reported"),
            ["node", "reason"],
            drops,
        );
        let ends = wires.iter().flat_map(|wire| {
            let (spec, status) = (&wire.spec, &wire.status);
            [(&spec.a, &status.from_a), (&spec.b, &status.from_b)]
                .map(|(from, totals)| ([wire.name.to_string(), from.to_string()], part(totals)))
        });
        out.totals(
            &format!("cloud_wire_{unit}"),
            &format!("{what} that an end of a wire sent, as nodes last reported"),
            ["wire", "from"],
            ends,
        );
    }
    type Named = (
        &'static str,
        &'static str,
        &'static str,
        fn(&NodeCounters) -> &[NamedTotals],
    );
    let named: [Named; 2] = [
        (
            "node_punted_packets",
            "Packets handed to a node to answer, as it last reported",
            "kind",
            |node| &node.asked,
        ),
        (
            "node_copied_packets",
            "Copies of packets for several, as the node last reported",
            "to",
            |node| &node.copies,
        ),
    ];
    for (name, help, by, counters_of) in named {
        let totals = counters.nodes.iter().flat_map(|node| {
            counters_of(node).iter().map(move |named| {
                let names = [node.node.to_string(), named.name.clone()];
                (names, named.totals.packets)
            })
        });
        out.totals(name, help, ["node", by], totals);
    }
    probes(&mut out, tunnels);
    out.gauges(
        "wire_up",
        "Whether both ends of a wire have their device",
        ["wire"],
        wires.iter().map(|wire| {
            let up = u8::from(wire.status.state == WireState::Up);
            ([wire.name.to_string()], f64::from(up))
        }),
    );
    out.text()
}

fn probes(out: &mut Exposition, tunnels: &Tunnels) {
    // What a node said before it went away is no news.
    let current = || tunnels.tunnels.iter().filter(|tunnel| tunnel.is_current);
    let ends = |tunnel: &Tunnel| [tunnel.from.to_string(), tunnel.to.to_string()];
    let probed = || current().filter_map(|tunnel| Some((tunnel, tunnel.status.probes?)));
    out.gauges(
        "node_tunnel_up",
        "Whether a node's probes of another one are answered",
        ["node", "to"],
        probed()
            .filter(|(_, probes)| probes.liveness != TunnelLiveness::Unknown)
            .map(|(tunnel, probes)| {
                let is_up = probes.liveness == TunnelLiveness::Up;
                (ends(tunnel), f64::from(u8::from(is_up)))
            }),
    );
    out.gauges(
        "node_tunnel_rtt_seconds",
        "Half of the last minute's round trips are not longer",
        ["node", "to"],
        probed().filter_map(|(tunnel, probes)| Some((ends(tunnel), probes.rtt?.median_s))),
    );
    out.totals(
        "node_tunnel_probes",
        "A node's probes of another one that were answered or given up",
        ["node", "to"],
        probed().map(|(tunnel, probes)| (ends(tunnel), probes.asked_total)),
    );
    out.totals(
        "node_tunnel_probe_lost",
        "A node's probes of another one without an answer in time",
        ["node", "to"],
        probed().map(|(tunnel, probes)| (ends(tunnel), probes.lost_total)),
    );
    out.totals(
        "node_tunnel_transmit_bytes",
        "Bytes of packets of workloads from a node to another one",
        ["node", "to"],
        current().map(|tunnel| (ends(tunnel), tunnel.status.transmitted.totals.bytes)),
    );
}

fn network(label: &LabelTotals) -> String {
    let name = label.network.as_ref();
    name.map_or_else(|| label.vni.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_user_guide() {
        let guide = include_str!("../../../docs/user-guide/telemetry.md");
        let status = Status {
            version: "0".to_owned(),
            revision: 1,
            nodes: Vec::new(),
            timed_out: false,
        };
        let text = render(&status, &Counters::default(), &Tunnels::default(), &[]);
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for line in types {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            let ending = if kind == "counter" { "_total" } else { "" };
            let name = format!("`{name}{ending}`");
            assert!(guide.contains(&name), "{name} is not documented");
        }
    }
}
