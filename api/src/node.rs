//! Nodes: the hosts that run agents.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, NodeLocation, PublicKey, Resource, TunnelStatus};

/// A node. It comes into being when its agent first connects, or by a request when it has none.
pub type Node = Resource<NodeSpec, NodeStatus>;

/// What a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NodeKind {
    /// A host that runs an agent.
    #[default]
    Agent,
    /// A VXLAN tunnel endpoint that runs none: another system's host, a switch. What endpoints there
    /// send is decided about by the node where it arrives.
    Vxlan,
}

/// Body of the request that declares a node without an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeCreate {
    /// Unique name.
    pub name: Name,
    /// `vxlan`: nodes with an agent come into being when it connects.
    pub kind: NodeKind,
    /// Where it is.
    pub location: NodeLocation,
    /// Its address on the underlay.
    #[schema(value_type = String, example = "198.18.0.21")]
    pub underlay_address: IpAddr,
    /// Packets to and from it are never encrypted, whatever the cloud's setting says. Without it, what
    /// the setting wants encrypted is not sent to it, nor accepted from it.
    #[serde(default)]
    pub plaintext: bool,
}

/// What is said of a node, by its agent where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeSpec {
    /// Where it is.
    pub location: NodeLocation,
    /// Its addresses on the underlay: of IPv4, of IPv6, or one of each.
    #[schema(value_type = Vec<String>, example = json!(["198.18.0.11", "2001:db8::11"]))]
    pub underlay_addresses: Vec<IpAddr>,
    /// Its public keys, the oldest first: one, or two while the newer one takes over; none when its
    /// agent announced none.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
    /// UDP port of encrypted packets.
    #[serde(default)]
    pub tunnel_port: u16,
    /// What it is.
    #[serde(default)]
    pub kind: NodeKind,
    /// Packets to and from it are never encrypted; only of nodes without an agent.
    #[serde(default)]
    pub plaintext: bool,
}

/// What the controller knows of a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// Dense number, from 1, never reused.
    pub number: u32,
    /// Whether its agent is connected.
    pub connected: bool,
    /// Everything up to this revision that concerns the node is in its kernel.
    pub acknowledged_revision: u64,
    /// What the agent last failed to apply; absent once it has applied something later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<NodeError>,
    /// Version of the agent, as it says; absent before it first connected to this controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// Packets that a rule's label counted.
    pub labelled: Totals,
    /// Packets dropped for a reason other than policy, by all reasons together.
    pub dropped: Totals,
    /// How packets travel from it to the other nodes, as its agent last said.
    #[serde(default)]
    pub tunnels: Vec<TunnelStatus>,
}

/// What an agent could not apply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeError {
    /// Revision that it could not apply.
    pub revision: u64,
    /// Why, in the agent's words.
    pub detail: String,
}

/// Counts since the node's maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Totals {
    /// Saturates: a sum of counters never wraps.
    fn add_assign(&mut self, other: Totals) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}
