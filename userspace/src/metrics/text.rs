//! Readings as Prometheus reads them. docs/user-guide/telemetry.md has the names: a change here is one
//! there.

use sunwire_api::{agent as wire, metrics::Exposition};

use super::Readings;

pub(super) fn render(readings: &Readings) -> String {
    let mut out = Exposition::default();
    let info = [readings.node.clone(), env!("CARGO_PKG_VERSION").to_owned()];
    out.gauges(
        "agent",
        "1, with the node's name and the agent's version",
        ["node", "version"],
        [(info, 1.0)],
    );
    out.gauge(
        "agent_connected",
        "Whether the controller's stream is open",
        f64::from(u8::from(readings.is_connected)),
    );
    out.gauge(
        "agent_revision",
        "Last revision of the controller that is applied",
        readings.revision as f64,
    );
    out.gauge(
        "agent_generation",
        "Generation of the flow tables in force",
        f64::from(readings.generation),
    );
    let endpoints = readings.endpoints.iter();
    out.gauges(
        "endpoints",
        "Endpoints that are here or expected here",
        ["state"],
        endpoints.map(|(state, count)| ([(*state).to_owned()], *count as f64)),
    );
    packets(&mut out, readings);
    flows(&mut out, readings);
    tunnels(&mut out, readings);
    out.text()
}

fn packets(out: &mut Exposition, readings: &Readings) {
    let network = |vni: u32| {
        let name = readings.networks.get(&vni);
        name.cloned().unwrap_or_else(|| vni.to_string())
    };
    let of = |counters: &[wire::LabelCounter], total: fn(&wire::LabelCounter) -> u64| {
        let counters = counters.iter();
        let named = counters.map(|counter| {
            let labels = [network(counter.vni), counter.label.clone()];
            (labels, total(counter))
        });
        named.collect::<Vec<_>>()
    };
    let counters = &readings.counters;
    out.totals(
        "policy_packets",
        "Packets decided by rules with a label",
        ["network", "label"],
        of(&counters.labels, |label| label.packets),
    );
    out.totals(
        "policy_bytes",
        "Bytes of packets decided by rules with a label",
        ["network", "label"],
        of(&counters.labels, |label| label.bytes),
    );
    out.totals(
        "counted_packets",
        "Packets under the names of a policy's count",
        ["network", "name"],
        of(&counters.counts, |name| name.packets),
    );
    out.totals(
        "counted_bytes",
        "Bytes of packets under the names of a policy's count",
        ["network", "name"],
        of(&counters.counts, |name| name.bytes),
    );
    let drops = || counters.drops.iter();
    out.totals(
        "dropped_packets",
        "Packets dropped",
        ["reason"],
        drops().map(|drop| ([drop.reason.clone()], drop.packets)),
    );
    out.totals(
        "dropped_bytes",
        "Bytes of packets dropped",
        ["reason"],
        drops().map(|drop| ([drop.reason.clone()], drop.bytes)),
    );
    let ends = |total: fn(&wire::WireCounter) -> u64| {
        let counters = counters.wires.iter();
        let named = counters.filter_map(move |counter| {
            let (name, ends) = readings.wires.get(&counter.wire)?;
            let from = ends[usize::from(counter.from_b)].clone();
            Some(([name.clone(), from], total(counter)))
        });
        named.collect::<Vec<_>>()
    };
    out.totals(
        "wire_packets",
        "Packets that an end of a wire sent here",
        ["wire", "from"],
        ends(|wire| wire.packets),
    );
    out.totals(
        "wire_bytes",
        "Bytes of packets that an end of a wire sent here",
        ["wire", "from"],
        ends(|wire| wire.bytes),
    );
    let named = |counters: &[wire::NamedCounter]| {
        let counters = counters.iter();
        let named = counters.map(|counter| ([counter.name.clone()], counter.packets));
        named.collect::<Vec<_>>()
    };
    out.totals(
        "punted_packets",
        "Packets handed to the node to answer",
        ["kind"],
        named(&counters.asked),
    );
    out.totals(
        "copied_packets",
        "Copies of packets for several endpoints",
        ["to"],
        named(&counters.copies),
    );
}

fn flows(out: &mut Exposition, readings: &Readings) {
    let flows = &readings.flows;
    let in_use = [("ipv4", flows.in_use_v4), ("ipv6", flows.in_use_v6)];
    out.gauges(
        "flows",
        "Flows that are remembered",
        ["family"],
        in_use.map(|(family, count)| ([family.to_owned()], f64::from(count))),
    );
    out.gauge(
        "flows_capacity",
        "Lines of the table that flows of both families are in",
        f64::from(flows.capacity),
    );
    out.gauge(
        "outbound_connections",
        "Connections that leave the cloud at this node",
        f64::from(flows.outbound),
    );
    out.gauge(
        "outbound_capacity",
        "Connections of that kind that there is room for",
        f64::from(flows.outbound_capacity),
    );
    out.gauge(
        "flows_overflow",
        "Flows that are remembered beside the others, for which there is no room",
        f64::from(flows.overflow),
    );
    out.total(
        "flows_overflowed",
        "Flows for which there was no room",
        flows.overflowed_total,
    );
    let ended = flows.ended_total.iter();
    out.totals(
        "flows_ended",
        "Flows forgotten since the agent started",
        ["reason"],
        ended.map(|(reason, total)| ([reason.clone()], *total)),
    );
}

fn tunnels(out: &mut Exposition, readings: &Readings) {
    use wire::tunnel::State;

    let tunnels = &readings.counters.tunnels;
    let node = &|tunnel: &wire::Tunnel| {
        let name = readings.nodes.get(&tunnel.node).cloned();
        name.unwrap_or_else(|| tunnel.node.to_string())
    };
    out.gauges(
        "tunnel",
        "1, with how packets travel to another node",
        ["node", "state"],
        tunnels.iter().map(|tunnel| {
            let state = match tunnel.state() {
                State::Plaintext => "plaintext",
                State::Encrypted => "encrypted",
                State::Down => "down",
                State::Unspecified => "unknown",
            };
            ([node(tunnel), state.to_owned()], 1.0)
        }),
    );
    let ages = tunnels.iter().filter_map(|tunnel| {
        let age_s = tunnel.handshake_age_s?;
        Some(([node(tunnel)], age_s))
    });
    out.gauges(
        "tunnel_handshake_age_seconds",
        "Since the handshake of an encrypted tunnel's session",
        ["node"],
        ages,
    );
    type Reading = (&'static str, &'static str, fn(&wire::Tunnel) -> u64);
    let totals: [Reading; 7] = [
        ("handshakes", "Handshakes completed", |t| t.handshakes),
        ("sent_packets", "Packets encrypted and sent", |t| {
            t.sent_packets
        }),
        (
            "sent_bytes",
            "Bytes before encryption of packets sent",
            |t| t.sent_bytes,
        ),
        ("received_packets", "Packets received and decrypted", |t| {
            t.received_packets
        }),
        (
            "received_bytes",
            "Bytes after decryption of packets received",
            |t| t.received_bytes,
        ),
        (
            "decrypt_errors",
            "Packets that did not decrypt, were replayed or claimed to be another's",
            |t| t.decrypt_errors,
        ),
        (
            "unsent_packets",
            "Packets that were to be encrypted and could not be sent",
            |t| t.unsent_packets,
        ),
    ];
    traffic(out, tunnels, node);
    probes(out, tunnels, node);
    for (name, help, total) in totals {
        // Only the encrypted ones go by the process that counts.
        let encrypted = tunnels.iter().filter(|t| t.state() != State::Plaintext);
        out.totals(
            &format!("tunnel_{name}"),
            help,
            ["node"],
            encrypted.map(|tunnel| ([node(tunnel)], total(tunnel))),
        );
    }
}

fn traffic(out: &mut Exposition, tunnels: &[wire::Tunnel], node: impl Fn(&wire::Tunnel) -> String) {
    type Way = fn(&wire::Tunnel) -> Option<wire::TunnelTraffic>;
    let ways: [(&str, &str, Way); 2] = [
        ("transmit", "that went to another node", |t| t.transmitted),
        ("receive", "that came from another node", |t| t.arrived),
    ];
    type Part = (&'static str, &'static str, fn(wire::TunnelTraffic) -> u64);
    let parts: [Part; 2] = [
        ("packets", "Packets of workloads", |traffic| traffic.packets),
        ("bytes", "Bytes of packets of workloads", |traffic| {
            traffic.bytes
        }),
    ];
    for (name, which, way) in ways {
        for (unit, what, part) in parts {
            let counted = tunnels.iter().filter_map(|tunnel| {
                let traffic = way(tunnel)?;
                Some(([node(tunnel)], part(traffic)))
            });
            out.totals(
                &format!("tunnel_{name}_{unit}"),
                &format!("{what} {which}, without the tunnel's headers"),
                ["node"],
                counted,
            );
        }
    }
}

fn probes(out: &mut Exposition, tunnels: &[wire::Tunnel], node: impl Fn(&wire::Tunnel) -> String) {
    use wire::tunnel_probes::Liveness;
    let probed = || {
        let probed = tunnels.iter();
        probed.filter_map(|tunnel| Some((node(tunnel), tunnel.probes.as_ref()?)))
    };
    out.gauges(
        "tunnel_up",
        "Whether probes of the tunnel are answered",
        ["node"],
        probed()
            .filter(|(_, probes)| probes.liveness() != Liveness::Unknown)
            .map(|(node, probes)| {
                let is_up = probes.liveness() == Liveness::Up;
                ([node], f64::from(u8::from(is_up)))
            }),
    );
    type Trip = fn(&wire::tunnel_probes::RoundTrips) -> f64;
    let trips: [(&str, &str, Trip); 3] = [
        (
            "tunnel_rtt_seconds",
            "Half of the last minute's round trips are not longer",
            |t| t.median_s,
        ),
        (
            "tunnel_rtt_min_seconds",
            "Shortest round trip of the last minute",
            |t| t.min_s,
        ),
        (
            "tunnel_rtt_max_seconds",
            "Longest round trip of the last minute",
            |t| t.max_s,
        ),
    ];
    for (name, help, trip) in trips {
        let answered = probed().filter_map(|(node, probes)| {
            let trips = probes.round_trips.as_ref()?;
            Some(([node], trip(trips)))
        });
        out.gauges(name, help, ["node"], answered);
    }
    let ages = probed().filter_map(|(node, probes)| Some(([node], probes.answer_age_s?)));
    out.gauges(
        "tunnel_answer_age_seconds",
        "Since a probe was last answered",
        ["node"],
        ages,
    );
    out.totals(
        "tunnel_probes",
        "Probes that were answered or given up since the agent started",
        ["node"],
        probed().map(|(node, probes)| ([node], probes.asked_total)),
    );
    out.totals(
        "tunnel_probe_lost",
        "Probes without an answer in time",
        ["node"],
        probed().map(|(node, probes)| ([node], probes.lost_total)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_networks_and_nodes_stand_where_numbers_are_counted_under() {
        let counter = wire::LabelCounter {
            vni: 5,
            label: "to web".to_owned(),
            packets: 3,
            bytes: 300,
        };
        let tunnel = wire::Tunnel {
            node: 2,
            state: wire::tunnel::State::Encrypted.into(),
            sent_bytes: 77,
            ..wire::Tunnel::default()
        };
        let readings = Readings {
            counters: wire::Counters {
                labels: vec![counter.clone(), wire::LabelCounter { vni: 6, ..counter }],
                tunnels: vec![tunnel],
                ..wire::Counters::default()
            },
            networks: [(5, "shop".to_owned())].into(),
            nodes: [(2, "gcp1".to_owned())].into(),
            ..Readings::default()
        };
        let text = render(&readings);
        for line in [
            "sunwire_policy_packets_total{network=\"shop\",label=\"to web\"} 3",
            "sunwire_policy_bytes_total{network=\"6\",label=\"to web\"} 300",
            "sunwire_tunnel{node=\"gcp1\",state=\"encrypted\"} 1.0",
            "sunwire_tunnel_sent_bytes_total{node=\"gcp1\"} 77",
            "sunwire_agent_connected 0.0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_metric_is_in_the_user_guide() {
        let guide = include_str!("../../../docs/user-guide/telemetry.md");
        let text = render(&Readings::default());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        for line in types {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            let ending = if kind == "counter" { "_total" } else { "" };
            let name = format!("`{name}{ending}`");
            assert!(guide.contains(&name), "{name} is not documented");
        }
    }
}
