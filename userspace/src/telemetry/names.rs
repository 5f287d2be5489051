//! Names for the numbers and addresses that the programs speak of.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sunwire_dataplane_common::{
    address::{Address, Mac},
    entries::AddressKey,
    headers::Family,
};

use crate::state::Desired;

/// What things are called, as of the last state that was applied.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// This node.
    pub own: String,
    nodes: BTreeMap<u32, String>,
    nodes_by_address: HashMap<Ipv4Addr, String>,
    networks: BTreeMap<u32, String>,
    endpoints: BTreeMap<u32, String>,
    owners: HashMap<AddressKey, u32>,
    labels: HashMap<u32, (u32, String)>,
    /// By the number of each end.
    wires: HashMap<u32, String>,
}

impl Names {
    /// The names in a desired state, and those of labels by the slot of their counter.
    #[must_use]
    pub fn new(own: &str, desired: &Desired, labels: HashMap<u32, (u32, String)>) -> Self {
        let mut names = Names {
            own: own.to_owned(),
            labels,
            ..Names::default()
        };
        for (number, node) in &desired.nodes {
            names.nodes.insert(*number, node.name.clone());
            names
                .nodes_by_address
                .insert(node.address, node.name.clone());
        }
        for (vni, network) in &desired.networks {
            names.networks.insert(*vni, network.name.clone());
        }
        for (_, wire) in desired.wires.iter() {
            let ends = wire.ends.map(|end| (end, wire.name.clone()));
            names.wires.extend(ends);
        }
        for (number, endpoint) in &desired.endpoints {
            names.endpoints.insert(*number, endpoint.name.clone());
            let vni = endpoint.vni;
            let mac = AddressKey::mac(vni, endpoint.mac);
            names.owners.insert(mac, *number);
            for (family, address) in [(Family::V4, endpoint.ipv4), (Family::V6, endpoint.ipv6)] {
                if address != Address::ZERO {
                    names.owners.insert(key(vni, family, address), *number);
                }
            }
        }
        names
    }

    /// A node by its number.
    #[must_use]
    pub fn node(&self, number: u32) -> Option<String> {
        self.nodes.get(&number).cloned()
    }

    /// A node by its address on the underlay.
    #[must_use]
    pub fn node_at(&self, address: Ipv4Addr) -> Option<String> {
        self.nodes_by_address.get(&address).cloned()
    }

    /// A network by its VNI.
    #[must_use]
    pub fn network(&self, vni: u32) -> Option<String> {
        self.networks.get(&vni).cloned()
    }

    /// An endpoint by its number.
    #[must_use]
    pub fn endpoint(&self, number: u32) -> Option<String> {
        self.endpoints.get(&number).cloned()
    }

    /// An endpoint's number by its name.
    #[must_use]
    pub fn endpoint_number(&self, name: &str) -> Option<u32> {
        let mut endpoints = self.endpoints.iter();
        endpoints
            .find(|(_, found)| *found == name)
            .map(|(number, _)| *number)
    }

    /// The endpoint of a network that owns an IP address.
    #[must_use]
    pub fn owner(&self, vni: u32, family: Family, address: Address) -> Option<String> {
        self.endpoint(*self.owners.get(&key(vni, family, address))?)
    }

    /// The endpoint of a network that owns a MAC address.
    #[must_use]
    pub fn owner_of_mac(&self, vni: u32, mac: Mac) -> Option<String> {
        self.endpoint(*self.owners.get(&AddressKey::mac(vni, mac))?)
    }

    /// The wire that an endpoint is an end of.
    #[must_use]
    pub fn wire_of(&self, endpoint: u32) -> Option<String> {
        self.wires.get(&endpoint).cloned()
    }

    /// A label by the slot of its counter.
    #[must_use]
    pub fn label(&self, slot: u32) -> Option<String> {
        self.labels.get(&slot).map(|(_, label)| label.clone())
    }
}

fn key(network: u32, family: Family, address: Address) -> AddressKey {
    AddressKey {
        network,
        family: family as u32,
        address,
    }
}

/// An address of a packet; `None` without one.
pub(crate) fn ip(family: Family, address: Address) -> Option<IpAddr> {
    let bytes = address.to_bytes();
    match family {
        Family::V4 => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        Family::V6 => Some(Ipv6Addr::from(bytes).into()),
        Family::None => None,
    }
}
