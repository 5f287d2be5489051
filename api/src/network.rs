//! Virtual networks.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Cidr, MacAddress, Name, NetworkEncryption, Resource, Vni};

/// Who decides about a network's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkEnforcement {
    /// The node where a packet enters, alone.
    #[default]
    Entry,
    /// The node that it is for, too: what a node sends that the policy in force there would not have
    /// let through is dropped.
    Both,
}

/// A virtual network.
pub type Network = Resource<NetworkSpec, NetworkStatus>;

/// Body of the request that creates a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkCreate {
    /// Unique name.
    pub name: Name,
    /// VNI; chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// One subnet, or one of each address family; none (`[]`) for a network of frames alone, where
    /// nodes answer nothing and endpoints are known by their MAC addresses.
    pub subnets: Vec<Cidr>,
    /// Greatest IP packet in bytes, fixed for the network's life; 1300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Whether its packets are encrypted; where the cloud's setting says so when absent.
    #[serde(default)]
    pub encryption: NetworkEncryption,
    /// Whether broadcast and multicast go once to each other region, where a node sends them on,
    /// and not to each node there; fixed for the network's life.
    #[serde(default)]
    pub relay: bool,
    /// Who decides about its packets; the node where they enter, alone, when absent.
    #[serde(default)]
    pub enforce: NetworkEnforcement,
    /// UDP port that its packets are sent to in the clear, fixed for the network's life; 4789 when
    /// absent (RFC 7348).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_port: Option<u16>,
}

/// The UDP port of networks whose creator names none.
pub const VXLAN_PORT: u16 = 4789;

/// The port of networks that were made before they had one.
#[must_use]
pub fn default_vxlan_port() -> u16 {
    VXLAN_PORT
}

/// What a network is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkSpec {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// One subnet, or one of each address family; none where the network carries frames alone.
    pub subnets: Vec<Cidr>,
    /// Greatest IP packet, in bytes.
    pub mtu: u16,
    /// Whether its packets are encrypted.
    #[serde(default)]
    pub encryption: NetworkEncryption,
    /// Whether broadcast and multicast go once to each other region.
    #[serde(default)]
    pub relay: bool,
    /// Who decides about its packets.
    #[serde(default)]
    pub enforce: NetworkEnforcement,
    /// UDP port that its packets are sent to in the clear.
    #[serde(default = "default_vxlan_port")]
    pub vxlan_port: u16,
    /// Networks that packets are routed to and from, as far as both policies let them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Name>,
}

/// Body of the requests that have packets routed between a network and another one, or no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPeer {
    /// Name of the other network.
    pub peer: Name,
}

/// Body of the request that says who decides about a network's packets from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkEnforce {
    /// Who.
    pub enforce: NetworkEnforcement,
}

/// What follows from a network's spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStatus {
    /// The gateway of each subnet: its first host address, the same on every node.
    #[schema(value_type = Vec<String>)]
    pub gateways: Vec<IpAddr>,
    /// The gateways' MAC address, the same on every node.
    pub gateway_mac: MacAddress,
    /// How many endpoints it has.
    pub endpoints: u32,
    /// Name of its policy; without one everything is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Name>,
}
