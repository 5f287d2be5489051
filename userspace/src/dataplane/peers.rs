//! How other nodes are reached, and the endpoints at those that have no agent.

use std::{
    iter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sunwire_dataplane_common::{
    address::Address,
    entries::{EndpointEntry, PeerEntry, PeerEntryV6, peer},
    vxlan,
};

use super::{Dataplane, DataplaneError, Surroundings};
use crate::{
    crypt::resolve,
    groups::relays,
    shadow::ShadowError,
    state::{Desired, Endpoint, Node, kernel_address},
};

impl Dataplane {
    pub(super) fn write_peers(
        &mut self,
        desired: &Desired,
        own: u32,
        vtep: Ipv4Addr,
        around: &Surroundings,
    ) -> Result<(), ShadowError> {
        let knows_itself = desired.nodes.contains_key(&own);
        for (number, node) in &desired.nodes {
            if *number == own {
                // Nothing is sent to this node, which is in its own region.
                let flags = near(desired, own, own);
                let own = PeerEntry {
                    flags,
                    ..PeerEntry::default()
                };
                self.maps.peers.set(*number, own)?;
                continue;
            }
            let mut flags = near(desired, own, *number);
            if node.foreign {
                flags |= peer::FOREIGN;
            }
            let at = node.reached_at(!is_called(vtep), around.vtep_v6.is_some());
            // Before what makes the programs read it.
            let over_v6 = entry_v6(node, around);
            self.maps.peers_v6.set(*number, over_v6)?;
            let mark = |peer: PeerEntry| PeerEntry {
                address: if node.foreign { 0 } else { peer.address },
                flags: peer.flags | flags,
                ..peer
            };
            let encrypted = mark(encrypted_entry(*number, node, vtep, around));
            // A node that does not know itself has no business with others; until it does, nothing
            // goes out in the clear.
            let is_required = desired
                .nodes
                .get(&own)
                .is_none_or(|own| resolve::required(desired, own, node));
            let plain = match at.filter(|_| knows_itself) {
                Some(IpAddr::V4(address)) => {
                    mark(peer_entry(address, vtep, around).unwrap_or_default())
                }
                Some(IpAddr::V6(address)) => mark(PeerEntry {
                    ifindex: next(address.into(), around).map_or(0, |(ifindex, _, _)| ifindex),
                    address: u32::from_ne_bytes(node.address.octets()),
                    flags: peer::OVER_IPV6,
                    ..PeerEntry::default()
                }),
                None => mark(PeerEntry::default()),
            };
            let peer = if is_required { encrypted } else { plain };
            self.maps.encrypted_peers.set(*number, encrypted)?;
            self.maps.plain_peers.set(*number, plain)?;
            self.maps.peers.set(*number, peer)?;
            for address in believed(node) {
                self.maps.peer_addresses.set(address, *number)?;
            }
        }
        Ok(())
    }

    /// Endpoints at nodes without an agent: what they send is decided about here.
    pub(super) fn write_foreign(&mut self, desired: &Desired) -> Result<(), DataplaneError> {
        for (number, endpoint) in &desired.endpoints {
            if !is_foreign(desired, endpoint) {
                continue;
            }
            let Some(network) = desired.networks.get(&endpoint.vni) else {
                continue;
            };
            let earlier = self.maps.foreign_endpoints.content().get(number).copied();
            let mut entry = EndpointEntry {
                network: endpoint.vni,
                number: *number,
                ipv4: endpoint.ipv4,
                ipv6: endpoint.ipv6,
                mac: endpoint.mac,
                mtu: network.mtu,
                node: endpoint.node,
                flags: network.endpoint_flags(),
                ..earlier.unwrap_or_default()
            };
            self.flow.classify(&mut self.maps, &mut entry)?;
            self.maps.foreign_endpoints.set(*number, entry)?;
        }
        Ok(())
    }
}

/// Whether an endpoint is at a node without an agent.
pub(super) fn is_foreign(desired: &Desired, endpoint: &Endpoint) -> bool {
    let node = desired.nodes.get(&endpoint.node);
    node.is_some_and(|node| node.foreign)
}

/// The flag of a node of this one's region, or none.
fn near(desired: &Desired, own: u32, number: u32) -> u32 {
    match relays::is_near(desired, own, number) {
        true => peer::NEAR,
        false => 0,
    }
}

/// The addresses that packets of a node come from.
pub(super) fn believed(node: &Node) -> impl Iterator<Item = Address> {
    let called = kernel_address(node.address.into());
    let v6 = node
        .address_v6
        .map(|address| kernel_address(address.into()));
    iter::once(called).chain(v6)
}

/// Whether an address is no underlay's.
fn is_called(address: Ipv4Addr) -> bool {
    !Node::without_key("", address).has_ipv4()
}

/// Where packets to an address go: the device, its MAC address, and that of the next hop.
fn next(address: IpAddr, around: &Surroundings) -> Option<(u32, [u8; 6], [u8; 6])> {
    let route = around.routes.get(&address)?;
    let next_hop = around.neighbours.get(&(route.ifindex, route.next_hop))?;
    let device = around
        .devices
        .values()
        .find(|device| device.ifindex == route.ifindex)?;
    Some((route.ifindex, device.mac.to_bytes(), next_hop.to_bytes()))
}

/// What is to be known of a node's IPv6 address: packets from it are believed whatever packets to it go
/// over.
fn entry_v6(node: &Node, around: &Surroundings) -> PeerEntryV6 {
    let Some(address) = node.address_v6 else {
        return PeerEntryV6::default();
    };
    let (_, mac, next_hop) = next(address.into(), around).unwrap_or_default();
    let vtep = around.vtep_v6.unwrap_or(Ipv6Addr::UNSPECIFIED);
    PeerEntryV6 {
        address: match node.foreign {
            // What comes from it never goes by what is remembered of others.
            true => Address::ZERO,
            false => Address::v6(address.octets()),
        },
        template: vxlan::template_v6(mac, next_hop, vtep.octets(), address.octets()),
    }
}

fn peer_entry(address: Ipv4Addr, vtep: Ipv4Addr, around: &Surroundings) -> Option<PeerEntry> {
    let (ifindex, mac, next_hop) = next(address.into(), around)?;
    let (template, checksum) = vxlan::template(mac, next_hop, vtep.octets(), address.octets());
    Some(PeerEntry {
        ifindex,
        address: u32::from_ne_bytes(address.octets()),
        flags: 0,
        checksum,
        template,
    })
}

/// How a node is reached through the device that encrypts. Without the device or the node's key,
/// not at all.
fn encrypted_entry(number: u32, node: &Node, vtep: Ipv4Addr, around: &Surroundings) -> PeerEntry {
    let address = u32::from_ne_bytes(node.address.octets());
    if let Some(way) = around.ways.get(&number) {
        let (source, destination) = (way.source.octets(), way.destination.octets());
        let (template, checksum) = vxlan::template([0; 6], [0; 6], source, destination);
        return PeerEntry {
            ifindex: way.ifindex,
            address,
            flags: peer::ENCRYPTED | peer::KERNEL,
            checksum,
            template,
        };
    }
    let ifindex = around.tunnel.filter(|_| !node.public_keys.is_empty());
    // The process behind the device reads nothing of the Ethernet header.
    let (template, checksum) =
        vxlan::template([0; 6], [0; 6], vtep.octets(), node.address.octets());
    PeerEntry {
        ifindex: ifindex.unwrap_or(0),
        address,
        flags: peer::ENCRYPTED,
        checksum,
        template,
    }
}
