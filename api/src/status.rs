//! The controller's own status, and counters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, NodeError, Totals};

/// How far the controller and its nodes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the controller.
    pub version: String,
    /// Revision of the last change.
    pub revision: u64,
    /// Every node.
    pub nodes: Vec<NodeProgress>,
    /// Whether the wait ended before every connected node had answered.
    pub timed_out: bool,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeProgress {
    /// Its name.
    pub name: Name,
    /// Dense number.
    pub number: u32,
    /// Whether its agent is connected.
    pub connected: bool,
    /// Everything up to this revision that concerns the node is in its kernel.
    pub acknowledged_revision: u64,
    /// What the agent last failed to apply; absent once it has applied something later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
}

/// Counters of all nodes. Totals since the nodes' maps were made, as the agents last reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Summed over nodes, by network and label.
    pub labels: Vec<LabelTotals>,
    /// Summed over nodes, by network and name of `count`.
    #[serde(default)]
    pub counts: Vec<CountTotals>,
    /// Summed over nodes, by reason.
    pub drops: Vec<DropTotals>,
    /// Summed over nodes: what workloads asked of their nodes, by kind.
    #[serde(default)]
    pub asked: Vec<NamedTotals>,
    /// Summed over nodes: copies of packets for several endpoints, to `endpoints` of the same node and to
    /// other `nodes`.
    #[serde(default)]
    pub copies: Vec<NamedTotals>,
    /// The same for each node that ever reported.
    pub nodes: Vec<NodeCounters>,
}

/// Counters of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounters {
    /// The node.
    pub node: Name,
    /// By network and label.
    pub labels: Vec<LabelTotals>,
    /// By network and name of `count`.
    #[serde(default)]
    pub counts: Vec<CountTotals>,
    /// By reason.
    pub drops: Vec<DropTotals>,
    /// What workloads asked of the node, by kind.
    #[serde(default)]
    pub asked: Vec<NamedTotals>,
    /// Copies of packets for several endpoints, to `endpoints` of the node and to other `nodes`.
    #[serde(default)]
    pub copies: Vec<NamedTotals>,
}

/// Packets that a rule's label counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LabelTotals {
    /// VNI of the network.
    pub vni: u32,
    /// Name of the network; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Name>,
    /// The label.
    pub label: String,
    /// How many.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Packets that came by a `count`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountTotals {
    /// VNI of the network.
    pub vni: u32,
    /// Name of the network; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Name>,
    /// The name.
    pub name: String,
    /// How many.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Packets dropped for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropTotals {
    /// The reason, as the data plane names it.
    pub reason: String,
    /// How many.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Packets under a name of Sunwire's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamedTotals {
    /// The name.
    pub name: String,
    /// How many.
    #[serde(flatten)]
    pub totals: Totals,
}
