//! How the tunnels to other nodes are: whether they are encrypted, what probes found, what went through.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use sunwire_api::{Name, TunnelStatus, agent as wire};
use sunwire_dataplane_common::entries::Counter;

use super::{Agent, own_number};
use crate::{
    crypt::keeper::Backend,
    dataplane::{Traffic, chain},
    probes::{Liveness, Probed},
};

/// What rates are told over.
const RATE_OVER: Duration = Duration::from_secs(10);

/// Traffic of the last seconds, by the number of the other node.
#[derive(Debug, Default)]
pub(super) struct Rates(BTreeMap<u32, VecDeque<(Instant, Traffic)>>);

impl Rates {
    /// Takes what was counted now, and returns the rates, bytes per second sent and received.
    fn note(&mut self, node: u32, now: Instant, traffic: Traffic) -> (f64, f64) {
        let seen = self.0.entry(node).or_default();
        while seen.len() > 1 && now.saturating_duration_since(seen[1].0) >= RATE_OVER {
            seen.pop_front();
        }
        seen.push_back((now, traffic));
        let (since, before) = seen[0];
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        let rate = |now: Counter, before: Counter| match seconds > 0.0 {
            true => now.bytes.saturating_sub(before.bytes) as f64 / seconds,
            false => 0.0,
        };
        (
            rate(traffic.sent, before.sent),
            rate(traffic.received, before.received),
        )
    }
}

impl Agent {
    /// Has the other nodes be probed as they are reached now.
    pub(super) fn aim_probes(&self) {
        let Some(desired) = &self.desired else { return };
        if let Some(own) = own_number(desired, &self.config.node) {
            self.prober.aim(self.dataplane.probe_targets(desired, own));
        }
    }

    /// Looks at the tunnels; to be called every second or so.
    pub(super) fn look_at_tunnels(&mut self) {
        let Some(desired) = &self.desired else { return };
        let Some(own) = own_number(desired, &self.config.node) else {
            return;
        };
        let traffic = self.dataplane.traffic(desired, own);
        let traffic = traffic.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "what goes through tunnels is not known");
            BTreeMap::new()
        });
        let probed = self.prober.reports();
        let now = Instant::now();
        self.rates.0.retain(|node, _| traffic.contains_key(node));
        let is_kernels = self.keeper.backend() == Some(Backend::Kernel);
        let mut tunnels = self.keeper.tunnels(desired, own);
        for tunnel in &mut tunnels {
            if let Some(traffic) = traffic.get(&tunnel.node) {
                let (sent, received) = self.rates.note(tunnel.node, now, *traffic);
                tunnel.transmitted = Some(told(traffic.sent, sent));
                tunnel.arrived = Some(told(traffic.received, received));
                // The kernel's WireGuard counts bytes alone; packets are those that our programs gave it
                // and took from it.
                if is_kernels && tunnel.state() != wire::tunnel::State::Plaintext {
                    tunnel.sent_packets = traffic.sent.packets;
                    tunnel.received_packets = traffic.received.packets;
                }
            }
            tunnel.probes = probed.get(&tunnel.node).map(probes);
        }
        let rtts = tunnels.iter().filter_map(|tunnel| {
            let trips = tunnel.probes.as_ref()?.round_trips.as_ref()?;
            let name = desired.nodes.get(&tunnel.node)?.name.clone();
            Some((name, trips.median_s))
        });
        self.hub.measured(rtts.collect());
        self.tunnels = tunnels;
    }

    /// The tunnels by the names of nodes, as they were last looked at.
    pub(super) fn named_tunnels(&self) -> Vec<TunnelStatus> {
        let Some(desired) = &self.desired else {
            return Vec::new();
        };
        let named = self.tunnels.iter().filter_map(|tunnel| {
            let name: Name = desired.nodes.get(&tunnel.node)?.name.parse().ok()?;
            Some(TunnelStatus::told(name, tunnel))
        });
        let mut named: Vec<TunnelStatus> = named.collect();
        named.sort_by(|a, b| a.node.cmp(&b.node));
        named
    }
}

fn told(total: Counter, bytes_per_s: f64) -> wire::TunnelTraffic {
    wire::TunnelTraffic {
        packets: total.packets,
        bytes: total.bytes,
        bytes_per_s,
    }
}

fn probes(probed: &Probed) -> wire::TunnelProbes {
    use wire::tunnel_probes::{self, RoundTrips};
    let seconds = |ns: u64| ns as f64 / 1e9;
    wire::TunnelProbes {
        liveness: match probed.liveness {
            Liveness::Unknown => tunnel_probes::Liveness::Unknown,
            Liveness::Up => tunnel_probes::Liveness::Up,
            Liveness::Down => tunnel_probes::Liveness::Down,
        }
        .into(),
        asked: probed.asked,
        lost: probed.lost,
        round_trips: probed.rtt_ns.map(|trips| RoundTrips {
            min_s: seconds(trips.min),
            median_s: seconds(trips.median),
            max_s: seconds(trips.max),
        }),
        asked_total: probed.asked_total,
        lost_total: probed.lost_total,
        answer_age_s: probed.answer_age_ns.map(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_over_the_last_ten_seconds() {
        let mut rates = Rates::default();
        let began = Instant::now();
        let mut told = (0.0, 0.0);
        for second in 0..30 {
            let bytes = if second < 15 { 0 } else { (second - 14) * 1000 };
            let sent = Counter { packets: 0, bytes };
            let received = Counter {
                packets: 0,
                bytes: 500 * second,
            };
            let now = began + Duration::from_secs(second);
            told = rates.note(2, now, Traffic { sent, received });
        }
        assert_eq!(told, (1000.0, 500.0));
        // Maps that were made anew count from zero.
        let now = began + Duration::from_secs(30);
        assert_eq!(rates.note(2, now, Traffic::default()), (0.0, 0.0));
    }
}
