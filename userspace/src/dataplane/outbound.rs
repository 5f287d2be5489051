//! How packets leave the cloud at this node, into the kernel.

use std::net::{Ipv4Addr, Ipv6Addr};

use sunwire_dataplane_common::{
    address::Address,
    outbound::{Outbound, by},
};

use crate::{maps::Maps, shadow::ShadowError, state::Desired};

/// A node's way to what is outside of the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WayOut {
    /// ifindex of the underlay device.
    pub ifindex: u32,
    /// ifindex of a device of which the kernel thinks that it forwards what comes in there; where
    /// there is none, what has no route is dropped without being counted.
    pub asks_by: Option<u32>,
    /// The same for IPv6.
    pub asks_by_v6: Option<u32>,
    /// First of the ports that packets get.
    pub first_port: u16,
    /// How many ports there are.
    pub ports: u16,
}

/// Writes how packets leave here, under which of the node's addresses: by nothing while no network lets
/// any out.
///
/// # Errors
/// When the map cannot be written.
pub(super) fn write(
    maps: &mut Maps,
    desired: &Desired,
    (vtep, vtep_v6): (Ipv4Addr, Option<Ipv6Addr>),
    way: Option<WayOut>,
) -> Result<(), ShadowError> {
    let mut networks = desired.networks.values();
    let is_wanted = networks.any(|network| network.outbound != by::NOBODY);
    let entry = match way.filter(|_| is_wanted) {
        Some(way) => Outbound {
            // What nodes without an IPv4 address are called is no address.
            address_v4: match vtep.octets()[0] {
                0xf0.. => 0,
                _ => Address::v4(vtep.octets()).0[0],
            },
            ifindex: way.ifindex,
            asks_by: way.asks_by.unwrap_or(0),
            asks_by_v6: way.asks_by_v6.unwrap_or(0),
            first_port: way.first_port,
            ports: way.ports,
            address_v6: vtep_v6.map_or(Address::ZERO, |address| Address::v6(address.octets())),
        },
        None => Outbound::default(),
    };
    maps.outbound.set(0, entry)
}
