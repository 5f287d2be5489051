//! What the names in a policy refer to: networks, endpoints and nodes, as the caller knows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{Address, Prefix, mac_number};
use crate::packet::Packet;

/// Everything a policy's names can resolve to. The order of the vectors is immaterial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Virtual networks.
    pub networks: Vec<Network>,
    /// Endpoints of all networks.
    pub endpoints: Vec<Endpoint>,
    /// Nodes.
    pub nodes: Vec<Node>,
}

/// A virtual network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Unique name.
    pub name: String,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Subnets as first address and prefix length.
    pub subnets: Vec<(IpAddr, u8)>,
    /// Names of the networks that packets are routed to and from; each names this one in turn, and
    /// the subnets of all of them are apart.
    pub peers: Vec<String>,
    /// The text of the policy that governs it, where there is one: policies of its peers are composed
    /// with it.
    pub policy: Option<Arc<str>>,
    /// The node that a packet is for decides, too: see [`judge`](crate::judge).
    pub enforced: bool,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique name.
    pub name: String,
    /// Dense number, from 1: the value of the field `endpoint` (`port`).
    pub number: u32,
    /// Name of its network.
    pub network: String,
    /// Its addresses, at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// MAC address.
    pub mac: [u8; 6],
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Environment {
    /// The endpoint that the destination of a packet in a network belongs to: by address, in that
    /// network or one of its peers, or by MAC address where the packet is no IP packet or the network
    /// has no subnet. Nobody owns a group address.
    #[must_use]
    pub fn owner(&self, network: &str, packet: &Packet) -> Option<&Endpoint> {
        let known = self.network(network);
        let peers = known.map_or(&[][..], |n| &n.peers);
        let by_mac = known.is_some_and(|n| n.subnets.is_empty());
        self.endpoints.iter().find(|endpoint| match packet.dst {
            address if by_mac || address == Address::None => {
                endpoint.network == network && endpoint.mac_number() == packet.eth_dst
            }
            address => {
                (endpoint.network == network || peers.contains(&endpoint.network))
                    && endpoint
                        .addresses
                        .iter()
                        .any(|own| Address::from(*own) == address)
            }
        })
    }

    /// The network of this name.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.name == name)
    }
}

impl Network {
    /// Its subnets as prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        let subnets = self.subnets.iter();
        subnets.map(|(address, length)| Prefix::new(*address, *length))
    }
}

impl Endpoint {
    /// The MAC address as a number of 48 bits.
    #[must_use]
    pub fn mac_number(&self) -> u64 {
        mac_number(self.mac)
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// Dense number, from 1: the value of the field `node` (`switch`).
    pub number: u32,
}
