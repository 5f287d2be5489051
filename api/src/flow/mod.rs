//! What became of packets, as people and programs read it: flow events, and filters on them.

mod filter;

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use filter::{FlowFilter, FlowFilterError};

/// What became of one packet at one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// When, in nanoseconds of Unix time, by the node's clock.
    pub time_unix_ns: u64,
    /// The node that tells it.
    pub node: String,
    /// Why it is told.
    pub causes: Vec<FlowCause>,
    /// What became of the packet.
    pub verdict: FlowVerdict,
    /// Why it was dropped, as the data plane names it; absent when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Label of the rule that decided; absent when none did, as at the node that receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What `log` says of it, where the policy logs it: the label of the statement, or where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Name of the wire that it went by; absent when policy or nobody decided about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<String>,
    /// Name of the network; absent when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Where the packet came in at the node.
    pub entry: FlowEntry,
    /// Where it is from.
    pub from: FlowEnd,
    /// Where it is to, as the packet said when it came.
    pub to: FlowEnd,
    /// EtherType, when it is neither IPv4 nor IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ether_type: Option<u16>,
    /// IP protocol number; absent in packets that are no IP packets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// TCP flags, the byte of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<u8>,
    /// Type and code of ICMP or ICMPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<(u8, u8)>,
    /// State of the connection, where the data plane keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<FlowConnection>,
    /// Endpoint that the packet was sent to; another one than `to` names after a rewrite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Node that the packet leaves the cloud by, for an address outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<String>,
    /// Node that the packet was sent to; absent when it stayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_node: Option<String>,
    /// Node that it came from through a tunnel; absent when it came from an endpoint here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_node: Option<String>,
    /// Round trip of the tunnel that it goes or came through, in seconds: half of the last minute's probes
    /// took no longer. Absent when it goes through none, or no probe was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel_rtt_s: Option<f64>,
    /// Bytes from the Ethernet header on, as it came in; without the headers of a tunnel.
    pub bytes: u32,
    /// Packets that it is on a wire: a super-packet is several.
    pub packets: u32,
}

/// One end of a flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowEnd {
    /// The endpoint; absent when none of the network or of its peers owns the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The endpoint's network, when it is a peer of the flow's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// IP address, when it is an IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Port, of TCP and UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// MAC address, when it is no IP packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub mac: Option<crate::MacAddress>,
}

/// Where a packet came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowEntry {
    /// From an endpoint of the node: its policy decides here.
    Endpoint,
    /// From another node.
    Tunnel,
}

/// Why a packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowCause {
    /// It was dropped.
    Drop,
    /// It is the first one of a flow.
    New,
    /// It was picked at random.
    Sample,
    /// It is captured.
    Capture,
    /// The policy logs it.
    Log,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowVerdict {
    /// Sent to an endpoint here or to another node.
    Forwarded,
    /// Dropped.
    Dropped,
    /// Answered by the node, or needed no answer.
    Answered,
    /// Not the switch's: the node's own network stack goes on with it.
    Passed,
}

/// State of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowConnection {
    /// This packet is its first one.
    New,
    /// It is there already.
    Established,
}

/// What a node could not tell since its maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowLosses {
    /// Above the limit of events per second.
    pub limited: u64,
    /// For which the kernel's ring had no room.
    pub ring_full: u64,
    /// Captured packets for which it had none.
    pub capture_ring_full: u64,
    /// That this listener was too slow for.
    pub listener_slow: u64,
}

/// One thing that a stream of flows tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FlowItem {
    /// What became of a packet.
    Flow(Box<Flow>),
    /// Events that are missing from the stream, since it began.
    Lost {
        /// The node.
        node: String,
        /// How many, and why.
        losses: FlowLosses,
    },
    /// A node is not heard: it is not connected, or went away.
    Silent {
        /// The node.
        node: String,
    },
}

impl FlowVerdict {
    /// The word for it in filters and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FlowVerdict::Forwarded => "forwarded",
            FlowVerdict::Dropped => "dropped",
            FlowVerdict::Answered => "answered",
            FlowVerdict::Passed => "passed",
        }
    }
}

impl FlowCause {
    /// The word for it in filters and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FlowCause::Drop => "drop",
            FlowCause::New => "new",
            FlowCause::Sample => "sample",
            FlowCause::Capture => "capture",
            FlowCause::Log => "log",
        }
    }
}

impl fmt::Display for FlowEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(network) = &self.network {
            write!(f, "{network}.")?;
        }
        match (&self.endpoint, self.address, self.mac) {
            (Some(endpoint), _, _) => write!(f, "{endpoint}")?,
            (None, Some(IpAddr::V6(address)), _) if self.port.is_some() => {
                write!(f, "[{address}]")?;
            }
            (None, Some(address), _) => write!(f, "{address}")?,
            (None, None, Some(mac)) => write!(f, "{mac}")?,
            (None, None, None) => write!(f, "?")?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// The word for an IP protocol number; the number itself when there is none.
#[must_use]
pub fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        other => other.to_string(),
    }
}

/// TCP flags as letters: `S` for SYN, `SA` for SYN and ACK.
#[must_use]
pub fn tcp_flag_letters(flags: u8) -> String {
    // RFC 9293, 3.1, and RFC 3168 for the last two.
    let letters = [
        (0x02, 'S'),
        (0x10, 'A'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x20, 'U'),
        (0x40, 'E'),
        (0x80, 'C'),
    ];
    let set = letters.iter().filter(|(bit, _)| flags & bit != 0);
    set.map(|(_, letter)| letter).collect()
}
