//! Where endpoints are, and who has which address, into the kernel.

use sunwire_api::NetworkEncryption;
use sunwire_dataplane_common::{
    address::Address,
    entries::{AddressKey, LocationEntry, location},
    vxlan,
    wire::wired,
};

use super::{Dataplane, expected, peers};
use crate::{
    shadow::ShadowError,
    state::{Desired, Endpoint, Network},
};

impl Dataplane {
    pub(super) fn write_locations(
        &mut self,
        desired: &Desired,
        own: u32,
    ) -> Result<(), ShadowError> {
        for (number, endpoint) in &desired.endpoints {
            let earlier = self.maps.locations.get(*number);
            let ifindex = self.attached.get(number).copied().unwrap_or(0);
            // A restarted agent has attached nothing yet; what it finds pinned goes on meanwhile.
            let ifindex = if ifindex == 0 {
                earlier.ifindex
            } else {
                ifindex
            };
            // What the device is, is seen when it is attached.
            let device = earlier.flags & location::TAP;
            self.maps.locations.set(
                *number,
                location_entry(desired, own, *number, endpoint, ifindex, device),
            )?;
            for key in owner_keys(endpoint) {
                self.maps.owners.set(key, *number)?;
            }
        }
        Ok(())
    }
}

/// What the kernel is told of an endpoint.
pub(super) fn location_entry(
    desired: &Desired,
    own: u32,
    number: u32,
    endpoint: &Endpoint,
    ifindex: u32,
    device: u32,
) -> LocationEntry {
    let network = desired.networks.get(&endpoint.vni);
    let mut flags = device;
    flags |= match network.map(|network| network.encryption) {
        None | Some(NetworkEncryption::Default) => 0,
        Some(NetworkEncryption::Required) => location::ENCRYPTED,
        Some(NetworkEncryption::Never) => location::PLAIN,
    };
    if network.is_some_and(|network| network.relayed) {
        flags |= location::RELAYED;
    }
    if network.is_some_and(|network| network.enforced) {
        flags |= location::ENFORCED;
    }
    if peers::is_foreign(desired, endpoint) {
        // What it sends may enter here.
        flags |= location::FOREIGN | location::EXPECTED;
    }
    if expected(endpoint, own) {
        flags |= location::EXPECTED;
    }
    let port = network.map_or(vxlan::PORT, port_of);
    if port != vxlan::PORT {
        flags |= location::OTHER_PORT;
    }
    if network.is_some_and(has_checksum) {
        flags |= location::CHECKSUM;
    }
    LocationEntry {
        network: match desired.wires.of(number) {
            Some(_) => wired(endpoint.vni),
            None => endpoint.vni,
        },
        node: endpoint.node,
        other: endpoint.other,
        ifindex,
        epoch: endpoint.epoch,
        mac: endpoint.mac,
        // A network that was not sent: its endpoints are not attached either.
        mtu: network.map_or(0, |network| network.mtu),
        flags,
        port: port.to_be(),
        reserved: 0,
    }
}

/// The UDP port that a network's packets are sent to.
pub(super) fn port_of(network: &Network) -> u16 {
    match network.is_encrypted() {
        // What is encrypted wherever it goes has the usual port within its tunnels.
        true => vxlan::PORT,
        false => network.port,
    }
}

/// Whether a network's packets have an outer UDP checksum.
pub(super) fn has_checksum(network: &Network) -> bool {
    // Within encrypted tunnels there is none.
    network.checksum && !network.is_encrypted()
}

/// The keys under which an endpoint is found: its addresses and its MAC address.
pub(super) fn owner_keys(endpoint: &Endpoint) -> Vec<AddressKey> {
    let mut keys = vec![AddressKey::mac(endpoint.vni, endpoint.mac)];
    for (family, address) in [(4, endpoint.ipv4), (6, endpoint.ipv6)] {
        if address != Address::ZERO {
            keys.push(AddressKey {
                network: endpoint.vni,
                family,
                address,
            });
        }
    }
    keys
}
