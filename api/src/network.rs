//! Virtual networks.

use std::{fmt, net::IpAddr, str::FromStr};

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

/// The UDP checksum in the outer header of a network's packets in the clear (RFC 7348, 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkChecksum {
    /// None: zero stands in its place, as the inner packet has its own. The fastest.
    #[default]
    Zero,
    /// That of the whole packet, as for who drops packets without. Super-packets are split by the
    /// node, and each packet is summed up.
    Udp,
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
    /// The UDP checksum in the outer header of its packets in the clear; zero when absent.
    #[serde(default)]
    pub checksum: NetworkChecksum,
    /// Where packets leave the cloud for addresses outside; nowhere when absent.
    #[serde(default, skip_serializing_if = "NetworkOutbound::is_none")]
    pub outbound: NetworkOutbound,
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
    /// The UDP checksum in the outer header of its packets in the clear.
    #[serde(default)]
    pub checksum: NetworkChecksum,
    /// Networks that packets are routed to and from, as far as both policies let them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Name>,
    /// Where packets leave the cloud for addresses outside.
    #[serde(default)]
    pub outbound: NetworkOutbound,
}

/// Body of the request that changes a network, as a merge patch (RFC 7396).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkPatch {
    /// Where packets leave the cloud for addresses outside, from now on; as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<NetworkOutbound>,
    /// The UDP checksum in the outer header of its packets in the clear, from now on; as it is when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<NetworkChecksum>,
    /// Whether its packets are encrypted, from now on; as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<NetworkEncryption>,
}

/// Where packets of endpoints without an address of their own outside leave the cloud, under the
/// address of the node there: `none`, `local`, or the name of a node. (Nodes with these two names
/// cannot be named here.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NetworkOutbound {
    /// Nowhere: packets to addresses that nobody owns are dropped.
    #[default]
    None,
    /// At the node where the endpoint is when a connection begins.
    Local,
    /// All at this node, under its one address.
    Node(Name),
}

impl NetworkOutbound {
    /// Whether nothing leaves.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == NetworkOutbound::None
    }
}

impl FromStr for NetworkOutbound {
    type Err = <Name as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => NetworkOutbound::None,
            "local" => NetworkOutbound::Local,
            name => NetworkOutbound::Node(name.parse()?),
        })
    }
}

impl TryFrom<String> for NetworkOutbound {
    type Error = <Name as FromStr>::Err;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for NetworkOutbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkOutbound::None => f.write_str("none"),
            NetworkOutbound::Local => f.write_str("local"),
            NetworkOutbound::Node(name) => name.fmt(f),
        }
    }
}

impl From<NetworkOutbound> for String {
    fn from(outbound: NetworkOutbound) -> Self {
        outbound.to_string()
    }
}

impl utoipa::PartialSchema for NetworkOutbound {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        String::schema()
    }
}

impl ToSchema for NetworkOutbound {}

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
