//! Where a given packet goes, hop by hop.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Flow, FlowVerdict, Name};

/// A packet that somebody asks about: as an endpoint would send it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceRequest {
    /// The endpoint that would send it.
    pub from: Name,
    /// Where it is to: an endpoint of the same network, or an IP address. Not needed with `frame`.
    #[serde(default)]
    #[schema(example = "web1")]
    pub to: String,
    /// `tcp`, `udp`, `icmp`, `icmpv6` or an IP protocol number; `icmp`, in the family of the
    /// addresses, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Source port; 40000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port; needed for TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Type and code of ICMP; an echo request when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// The byte of TCP flags; SYN alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<u8>,
    /// Differentiated services code point.
    #[serde(default)]
    pub dscp: u8,
    /// Source address, when it is not the endpoint's own: what becomes of a forged packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub source: Option<std::net::IpAddr>,
    /// Bytes of payload.
    #[serde(default)]
    pub payload_bytes: u16,
    /// The whole frame in hexadecimal, in place of everything above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

/// Where a packet comes in at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub enum TraceEntry {
    /// From an endpoint there.
    Endpoint(TraceRequest),
    /// From another node: the frame as it arrives, in hexadecimal.
    Tunnel {
        /// The frame.
        frame: String,
    },
}

/// What one node does with the packet, or with one copy of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TraceHop {
    /// The hop that the packet came from: its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<usize>,
    /// What becomes of it there.
    pub flow: Flow,
    /// What the reason of a drop means; of a packet for several, why no copy is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What is rewritten.
    pub rewrites: Vec<TraceRewrite>,
    /// The device that it is delivered to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The frame as it leaves, in hexadecimal.
    pub frame: String,
}

/// A field that a node rewrites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceRewrite {
    /// The field, as policies name it.
    pub field: String,
    /// Its value before.
    pub before: String,
    /// Its value after.
    pub after: String,
}

/// What becomes of a packet in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TraceOutcome {
    /// At least one copy reaches an endpoint or leaves the cloud, or the node answers.
    Delivered,
    /// It is dropped because a policy says so, or because its sender may not send it.
    Denied,
    /// It may pass, and does not arrive.
    Lost,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// What becomes of it in the end.
    pub outcome: TraceOutcome,
    /// Hop by hop; a packet of which copies are made has several branches.
    pub hops: Vec<TraceHop>,
    /// Why the trace ends early: a node that does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
}

/// Reasons that mean: not permitted.
const DENIALS: [&str; 8] = [
    "policy",
    "no_policy",
    "revoked",
    "spoofed_source",
    "source_not_there",
    "unknown_peer",
    "receiver_policy",
    "outbound_forbidden",
];

impl TraceRequest {
    /// An echo request from an endpoint to somewhere.
    #[must_use]
    pub fn new(from: Name, to: &str) -> Self {
        TraceRequest {
            from,
            to: to.to_owned(),
            protocol: None,
            source_port: None,
            destination_port: None,
            icmp: None,
            tcp_flags: None,
            dscp: 0,
            source: None,
            payload_bytes: 0,
            frame: None,
        }
    }
}

impl TraceOutcome {
    /// What hops come to in the end.
    #[must_use]
    pub fn of(hops: &[TraceHop]) -> Self {
        let delivered = hops.iter().any(|hop| {
            let flow = &hop.flow;
            let left = flow.verdict == FlowVerdict::Forwarded
                && flow.egress.is_some()
                && flow.next_node.is_none();
            left || hop.device.is_some() || flow.verdict == FlowVerdict::Answered
        });
        let denied = hops.iter().any(|hop| {
            let reason = hop.flow.reason.as_deref();
            reason.is_some_and(|reason| DENIALS.contains(&reason))
        });
        match (delivered, denied) {
            (true, _) => TraceOutcome::Delivered,
            (false, true) => TraceOutcome::Denied,
            (false, false) => TraceOutcome::Lost,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            TraceOutcome::Delivered => "delivered",
            TraceOutcome::Denied => "denied",
            TraceOutcome::Lost => "lost",
        }
    }
}

/// Bytes in hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Bytes out of hexadecimal; `None` when it is none.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |digit: u8| (digit as char).to_digit(16);
    let pairs = digits.chunks_exact(2);
    pairs
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_survives_and_nonsense_is_none() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(from_hex(wrong), None, "{wrong}");
        }
    }
}
