//! What the names in a policy refer to: networks, endpoints and nodes, as the caller knows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::address::{Address, mac_number};
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Unique name.
    pub name: String,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// Subnets as first address and prefix length.
    pub subnets: Vec<(IpAddr, u8)>,
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
    /// The endpoint that a packet's destination belongs to: by address, or by MAC address where the
    /// packet is no IP packet. Nobody owns a group address.
    #[must_use]
    pub fn owner(&self, packet: &Packet) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| match packet.dst {
            Address::None => endpoint.mac_number() == packet.eth_dst,
            address => endpoint
                .addresses
                .iter()
                .any(|own| Address::from(*own) == address),
        })
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
