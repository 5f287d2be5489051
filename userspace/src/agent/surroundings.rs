//! What the agent sees around it: devices, routes to other nodes, and who is next on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{Agent, own_number};
use crate::{
    crypt::resolve,
    dataplane::{Surroundings, chain},
    netlink::{self, Route},
    state::{Desired, Node},
};

impl Agent {
    /// What this node, which has a number, is called within encrypted tunnels: its IPv4 address on the
    /// underlay, if it has one.
    pub(super) fn called(&self, own: u32) -> Ipv4Addr {
        self.vteps.0.unwrap_or(Node::called(own))
    }

    /// Reads what the kernel has, and has next hops resolved that we need.
    pub(super) async fn look_around(&mut self) {
        match netlink::devices(&self.handle).await {
            Ok(devices) => self.around.devices = devices,
            Err(error) => tracing::warn!(error = %chain(&error), "devices are not known"),
        }
        let (v4, v6) = self.vteps;
        let addresses: Vec<IpAddr> = self
            .desired
            .iter()
            .flat_map(|desired| desired.nodes.values())
            .filter(|node| node.name != self.config.node)
            .filter_map(|node| node.reached_at(v4.is_some(), v6.is_some()))
            .collect();
        self.around.vtep_v6 = v6;
        let mut routes = BTreeMap::new();
        for address in addresses {
            match netlink::route(&self.handle, address).await {
                Ok(route) => {
                    routes.insert(address, route);
                    self.manage(route).await;
                }
                Err(error) => tracing::warn!(error = %chain(&error), "a node cannot be reached"),
            }
        }
        self.around.routes = routes;
        match netlink::neighbours(&self.handle).await {
            Ok(neighbours) => self.around.neighbours = neighbours,
            Err(error) => tracing::warn!(error = %chain(&error), "next hops are not known"),
        }
    }

    /// Says once of each network that its packets do not fit a device that they leave by: what does not
    /// fit is lost without a word.
    pub(super) fn warn_of_mtu(&mut self) {
        let Some(desired) = &self.desired else { return };
        let Some(own) = own_number(desired, &self.config.node) else {
            return;
        };
        let narrow = narrow(desired, own, &self.around);
        for (network, device, mtu, needed) in narrow.difference(&self.narrow) {
            tracing::warn!(
                "packets of network {network} may take {needed} bytes with their outer headers, and \
                 device {device} lets no more than {mtu} pass: raise the device's MTU, or make a \
                 network with a smaller one"
            );
        }
        self.narrow = narrow;
    }

    async fn manage(&mut self, route: Route) {
        if !self.managed.insert((route.ifindex, route.next_hop)) {
            return;
        }
        if let Err(error) = netlink::manage_neighbour(&self.handle, route).await {
            self.managed.remove(&(route.ifindex, route.next_hop));
            tracing::warn!(error = %chain(&error), "a next hop is not kept resolved");
        }
    }
}

/// A network, a device that its packets leave by, that device's MTU and the one that would do.
pub(super) type Narrow = (String, String, u32, u32);

/// Bytes around an inner IP packet: the outer IP, UDP and VXLAN headers and the inner Ethernet header.
const IN_THE_CLEAR: u32 = 50;
/// What WireGuard adds: the IP, UDP and its own header, and the tag.
const ENCRYPTED: u32 = 60;
/// By how much an IPv6 header is longer.
const OVER_IPV6: u32 = 20;

/// Which networks do not fit which devices.
fn narrow(desired: &Desired, own: u32, around: &Surroundings) -> BTreeSet<Narrow> {
    let mut narrow = BTreeSet::new();
    let Some(node) = desired.nodes.get(&own) else {
        return narrow;
    };
    for (_, other) in desired.nodes.iter().filter(|(number, _)| **number != own) {
        let at = other.reached_at(node.has_ipv4(), node.address_v6.is_some());
        let Some((at, route)) = at.and_then(|at| Some((at, around.routes.get(&at)?))) else {
            continue;
        };
        let mut devices = around.devices.iter();
        let Some((name, device)) = devices.find(|(_, device)| device.ifindex == route.ifindex)
        else {
            continue;
        };
        for network in desired.networks.values() {
            let is_encrypted = resolve::encrypts(desired, node, other, network);
            let mut needed = network.mtu + IN_THE_CLEAR;
            if is_encrypted {
                needed += ENCRYPTED;
            }
            if at.is_ipv6() {
                needed += OVER_IPV6;
            }
            if needed > device.mtu {
                narrow.insert((network.name.clone(), name.clone(), device.mtu, needed));
            }
        }
    }
    narrow
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use sunwire_api::EncryptionMode;
    use sunwire_dataplane_common::address::Mac;

    use super::*;
    use crate::{
        netlink::{Device, DeviceKind},
        state::{Network, Node},
    };

    fn needed(mtu: u32, v6: bool, encryption: EncryptionMode) -> Option<u32> {
        let addresses = [1, 2].map(|last| Ipv4Addr::new(198, 18, 0, last));
        let mut desired = Desired {
            encryption,
            ..Desired::default()
        };
        let mut around = Surroundings::default();
        for (number, address) in (1..).zip(addresses) {
            let mut node = Node::without_key("node", address);
            if v6 {
                node.address = Node::called(number);
                node.address_v6 = Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
            }
            let at = node.addresses().next().unwrap();
            let route = Route {
                ifindex: 7,
                next_hop: at,
            };
            around.routes.insert(at, route);
            desired.nodes.insert(number, node);
        }
        let network = Network {
            mtu,
            ..Network::for_tests()
        };
        desired.networks.insert(100, network);
        let device = Device {
            ifindex: 7,
            mac: Mac::default(),
            up: true,
            mtu: 1500,
            master: 0,
            kind: DeviceKind::Pair,
        };
        around.devices.insert("eth0".to_owned(), device);
        let found = narrow(&desired, 1, &around);
        found.into_iter().next().map(|(.., needed)| needed)
    }

    #[test]
    fn a_network_that_does_not_fit_is_found_by_what_its_tunnels_go_over() {
        let (plain, always) = (EncryptionMode::Never, EncryptionMode::Always);
        assert_eq!(needed(1450, false, plain), None);
        assert_eq!(needed(1451, false, plain), Some(1501));
        assert_eq!(needed(1430, true, plain), None);
        assert_eq!(needed(1431, true, plain), Some(1501));
        assert_eq!(needed(1390, false, always), None);
        assert_eq!(needed(1391, false, always), Some(1501));
        assert_eq!(needed(1370, true, always), None);
        assert_eq!(needed(1371, true, always), Some(1501));
    }
}
