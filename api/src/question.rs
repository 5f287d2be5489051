//! What agents are asked beside the state that they keep, and what they tell: by programs on their
//! node through the agent's socket, by everybody else through the controller.
//!
//! A question has any number of answers, in order; the last one may be a refusal.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Flow, FlowItem, TraceEntry, TraceHop};

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub enum Question {
    /// What becomes of packets.
    Flows(FlowQuery),
    /// Packets whole.
    Capture(CaptureQuery),
    /// What would become of a packet at the node.
    Trace(TraceEntry),
}

/// What a listener wants to hear of flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowQuery {
    /// A [`FlowFilter`](crate::FlowFilter); empty for all.
    pub filter: String,
    /// How many of those that happened before: the last ones that pass the filter.
    pub last: usize,
    /// Whether to go on with what happens from now on.
    pub follow: bool,
    /// While following, one of so many packets is told, whatever becomes of it; zero for drops and
    /// first packets of flows alone.
    pub sample: u32,
}

/// What a capture has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureQuery {
    /// Name of the endpoint whose packets are captured, those to it that are dropped elsewhere
    /// included; all packets of the node when absent.
    pub endpoint: Option<String>,
    /// A [`FlowFilter`](crate::FlowFilter); empty for all.
    pub filter: String,
    /// Bytes of each frame at most.
    pub bytes: u32,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "snake_case")]
pub enum Telling {
    /// To [`Question::Flows`].
    Flow {
        /// What there is to tell.
        item: FlowItem,
    },
    /// To [`Question::Capture`].
    Capture {
        /// What there is to tell.
        item: CaptureItem,
    },
    /// To [`Question::Trace`]: a hop for each copy of the packet.
    Traced {
        /// The hops.
        hops: Vec<TraceHop>,
    },
    /// The question is not answered, or not any more.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// One thing that a capture tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CaptureItem {
    /// A packet.
    Packet(Box<CapturedPacket>),
    /// Packets that are missing since the capture began.
    Lost {
        /// The node.
        node: String,
        /// How many.
        packets: u64,
    },
    /// A node is not heard: it is not connected, or went away.
    Silent {
        /// The node.
        node: String,
    },
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CapturedPacket {
    /// What became of it.
    pub flow: Flow,
    /// Its first bytes in hexadecimal, from the Ethernet header on, as it came; without the
    /// headers of a tunnel.
    pub frame: String,
    /// Its length in bytes.
    pub length: u32,
}
