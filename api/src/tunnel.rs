//! How well tunnels between nodes carry packets: what probes found, and what went through.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, Totals, TunnelState, TunnelStatus, agent};

/// All tunnels of the cloud.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tunnels {
    /// By the names of both nodes.
    pub tunnels: Vec<Tunnel>,
}

/// The tunnel from one node to another, as its agent last said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tunnel {
    /// The node that tells.
    pub from: Name,
    /// The other one.
    pub to: Name,
    /// Whether the agent of the node that tells is connected; otherwise this is how the tunnel was when it
    /// last was.
    pub is_current: bool,
    /// How it is.
    pub status: TunnelStatus,
}

/// Packets of workloads in one direction of a tunnel, whole frames without the headers of the tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelTraffic {
    /// Since the node's maps were made. A super-packet counts as the packets that it becomes, and with the
    /// bytes of its headers once.
    #[serde(flatten)]
    pub totals: Totals,
    /// Bytes per second over the last ten seconds.
    pub bytes_per_s: f64,
}

/// What became of the probes of the last minute, one a second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelProbes {
    /// Whether packets go there and back.
    pub liveness: TunnelLiveness,
    /// Probes that were answered or given up in the last minute.
    pub asked: u32,
    /// Those that were given up: no answer came within three seconds.
    pub lost: u32,
    /// Round trips of the last minute; absent while there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt: Option<TunnelRtt>,
    /// Probes that were answered or given up since the agent started.
    pub asked_total: u64,
    /// Those that were given up.
    pub lost_total: u64,
    /// Seconds since the last answer; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_age_s: Option<f64>,
}

/// Whether packets go to a node and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelLiveness {
    /// Too few probes yet to say so.
    Unknown,
    /// They do.
    Up,
    /// The last five probes had no answer.
    Down,
}

/// Round trips in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelRtt {
    /// The shortest.
    pub min_s: f64,
    /// Half are not longer.
    pub median_s: f64,
    /// The longest.
    pub max_s: f64,
}

impl TunnelStatus {
    /// What an agent says of the tunnel to a node.
    #[must_use]
    pub fn told(to: Name, tunnel: &agent::Tunnel) -> Self {
        TunnelStatus {
            node: to,
            state: match tunnel.state() {
                agent::tunnel::State::Plaintext => TunnelState::Plaintext,
                agent::tunnel::State::Encrypted => TunnelState::Encrypted,
                agent::tunnel::State::Down | agent::tunnel::State::Unspecified => TunnelState::Down,
            },
            handshake_age_s: tunnel.handshake_age_s,
            handshakes: tunnel.handshakes,
            sent: Totals {
                packets: tunnel.sent_packets,
                bytes: tunnel.sent_bytes,
            },
            received: Totals {
                packets: tunnel.received_packets,
                bytes: tunnel.received_bytes,
            },
            decrypt_errors: tunnel.decrypt_errors,
            unsent_packets: tunnel.unsent_packets,
            transmitted: traffic(tunnel.transmitted.as_ref()),
            arrived: traffic(tunnel.arrived.as_ref()),
            probes: tunnel.probes.as_ref().map(probes),
            detail: Some(tunnel.detail.clone()).filter(|detail| !detail.is_empty()),
        }
    }
}

fn traffic(traffic: Option<&agent::TunnelTraffic>) -> TunnelTraffic {
    let traffic = traffic.copied().unwrap_or_default();
    TunnelTraffic {
        totals: Totals {
            packets: traffic.packets,
            bytes: traffic.bytes,
        },
        bytes_per_s: traffic.bytes_per_s,
    }
}

fn probes(probes: &agent::TunnelProbes) -> TunnelProbes {
    use agent::tunnel_probes::Liveness;
    TunnelProbes {
        liveness: match probes.liveness() {
            Liveness::Up => TunnelLiveness::Up,
            Liveness::Down => TunnelLiveness::Down,
            Liveness::Unknown | Liveness::Unspecified => TunnelLiveness::Unknown,
        },
        asked: probes.asked,
        lost: probes.lost,
        rtt: probes.round_trips.map(|trips| TunnelRtt {
            min_s: trips.min_s,
            median_s: trips.median_s,
            max_s: trips.max_s,
        }),
        asked_total: probes.asked_total,
        lost_total: probes.lost_total,
        answer_age_s: probes.answer_age_s,
    }
}

impl TunnelProbes {
    /// The share of the last minute's probes that were lost; `None` while there were none.
    #[must_use]
    pub fn loss(&self) -> Option<f64> {
        (self.asked > 0).then(|| f64::from(self.lost) / f64::from(self.asked))
    }
}

impl std::fmt::Display for TunnelLiveness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TunnelLiveness::Unknown => "unknown",
            TunnelLiveness::Up => "up",
            TunnelLiveness::Down => "down",
        })
    }
}
