//! The underlay: one veth pair per node between its namespace and the
//! emulator's, an address, and a default route to the emulator.

use crate::emulator::{Leg, UNDERLAY_MTU};
use crate::error::{Doing, LabError};
use crate::mac::Mac;
use crate::netlink::Netlink;
use crate::netns::{Namespace, sysctl};
use crate::node::{NodeHandle, UNDERLAY_DEVICE};
use crate::sys;

/// Connects every node and returns the emulator's legs in the nodes' order.
pub(super) fn connect(wan: &Namespace, nodes: &[NodeHandle]) -> Result<Vec<Leg>, LabError> {
    wan.enter_and(|| {
        // The legs have no addresses: the emulator alone reads and writes them.
        sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        sysctl("net/ipv6/conf/default/disable_ipv6", "1")
    })?;
    let mut legs = Vec::with_capacity(nodes.len());
    for (number, node) in nodes.iter().enumerate() {
        let device = format!("leg{number}");
        let mac = |role: &str| Mac::from_name(&format!("{role} {}", node.name));
        let (node_mac, gateway_mac) = (mac("underlay of"), mac("gateway of"));
        node.namespace.enter_and(|| {
            let netlink = Netlink::open()?;
            netlink.add_veth(UNDERLAY_DEVICE, &device)?;
            netlink.set_mac_and_mtu(UNDERLAY_DEVICE, node_mac, UNDERLAY_MTU)?;
            netlink.set_mac_and_mtu(&device, mac("leg of"), UNDERLAY_MTU)?;
            netlink.move_to(&device, wan)?;
            match node.underlay_address_v6 {
                // No router solicitations on the wire.
                None => sysctl("net/ipv6/conf/wan0/disable_ipv6", "1")?,
                Some(_) => {
                    sysctl("net/ipv6/conf/wan0/accept_ra", "0")?;
                    sysctl("net/ipv6/conf/wan0/router_solicitations", "0")?;
                }
            }
            disable_offloads(UNDERLAY_DEVICE)?;
            netlink.set_up(UNDERLAY_DEVICE)?;
            netlink.add_address(UNDERLAY_DEVICE, node.underlay_address.into(), 24)?;
            netlink.add_default_route(UNDERLAY_DEVICE, node.underlay_gateway.into())?;
            if let Some(address) = node.underlay_address_v6 {
                netlink.add_address(UNDERLAY_DEVICE, address.into(), 64)?;
                netlink.add_default_route(UNDERLAY_DEVICE, node.underlay_gateway_v6.into())?;
            }
            Ok(())
        })?;
        let ifindex = wan.enter_and(|| {
            let netlink = Netlink::open()?;
            disable_offloads(&device)?;
            netlink.set_up(&device)?;
            netlink.index(&device)
        })?;
        legs.push(Leg {
            node: node.name.clone(),
            ifindex,
            address: node.underlay_address,
            gateway: node.underlay_gateway,
            address_v6: node.underlay_address_v6,
            gateway_v6: node.underlay_gateway_v6,
            gateway_mac,
            node_mac,
        });
    }
    Ok(legs)
}

/// The emulator must see frames as a wire carries them: no longer than the
/// MTU and with full checksums.
fn disable_offloads(device: &str) -> Result<(), LabError> {
    sys::disable_offloads(device).doing(|| format!("turn off the offloads of {device}"))
}
