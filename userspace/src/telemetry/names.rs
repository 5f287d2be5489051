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
    nodes_by_address: HashMap<IpAddr, String>,
    networks: BTreeMap<u32, String>,
    endpoints: BTreeMap<u32, String>,
    /// VNIs of the peers of those networks that have any.
    peers: HashMap<u32, Vec<u32>>,
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
            // What it is called within encrypted tunnels too.
            let addresses = node.addresses().chain([node.address.into()]);
            names
                .nodes_by_address
                .extend(addresses.map(|address| (address, node.name.clone())));
        }
        for (vni, network) in &desired.networks {
            names.networks.insert(*vni, network.name.clone());
            if !network.peers.is_empty() {
                names.peers.insert(*vni, network.peers.clone());
            }
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
    pub fn node_at(&self, address: IpAddr) -> Option<String> {
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

    /// The endpoint of one of a network's peers that owns an IP address, with the name of its network.
    /// The subnets of a network and of its peers are apart.
    #[must_use]
    pub fn peers_owner(
        &self,
        vni: u32,
        family: Family,
        address: Address,
    ) -> Option<(String, String)> {
        let mut peers = self.peers.get(&vni)?.iter();
        peers.find_map(|peer| Some((self.owner(*peer, family, address)?, self.network(*peer)?)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Endpoint, Network};

    const SHOP: u32 = 100;
    const LAB: u32 = 101;
    const OTHER: u32 = 102;

    /// `shop` with `client1`, its peer `lab` with `bench1`, and `other` with the addresses of both.
    fn names() -> Names {
        let mut desired = Desired::default();
        for (vni, name, peers) in [
            (SHOP, "shop", vec![LAB]),
            (LAB, "lab", vec![SHOP]),
            (OTHER, "other", Vec::new()),
        ] {
            let network = Network {
                name: name.to_owned(),
                peers,
                ..Network::for_tests()
            };
            desired.networks.insert(vni, network);
        }
        for (number, vni, name, last) in [
            (1, SHOP, "client1", 1),
            (2, LAB, "bench1", 2),
            (3, OTHER, "twin1", 1),
            (4, OTHER, "twin2", 2),
        ] {
            let endpoint = Endpoint {
                name: name.to_owned(),
                vni,
                device: "veth0".to_owned(),
                mac: Mac::new([2, 0, 0, 0, 0, number as u8]),
                ipv4: address(last),
                ipv6: Address::ZERO,
                node: 1,
                other: 0,
                moving: false,
                epoch: 0,
            };
            desired.endpoints.insert(number, endpoint);
        }
        Names::new("near", &desired, HashMap::new())
    }

    fn address(last: u8) -> Address {
        Address::v4([10, 0, 0, last])
    }

    #[test]
    fn an_address_of_a_peer_has_the_peers_endpoint_and_nobody_elses() {
        let names = names();
        let found = |vni, last| names.peers_owner(vni, Family::V4, address(last));
        let some = |endpoint: &str, network: &str| Some((endpoint.to_owned(), network.to_owned()));
        assert_eq!(found(LAB, 1), some("client1", "shop"));
        assert_eq!(found(SHOP, 2), some("bench1", "lab"));
        assert_eq!(found(LAB, 2), None, "it is its own");
        assert_eq!(found(OTHER, 1), None);
        assert_eq!(found(SHOP, 9), None);
    }
}
