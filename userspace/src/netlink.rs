//! Devices, routes and neighbours of the namespace the agent runs in.

mod ethtool;
mod pair;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures_util::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    link::{
        InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState,
    },
    route::{RouteAddress, RouteAttribute},
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVxlan, RouteMessageBuilder};
use sunwire_dataplane_common::address::Mac;

pub use pair::{ready_plain_pair, take_offloads_off};

/// A device of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// ifindex.
    pub ifindex: u32,
    /// MAC address; zero when the device has none.
    pub mac: Mac,
    /// Administratively up.
    pub up: bool,
    /// MTU in bytes.
    pub mtu: u32,
    /// ifindex of the bridge it is a port of, or zero.
    pub master: u32,
    /// How packets get to the workload behind it.
    pub kind: DeviceKind,
}

/// How packets get to the workload behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// It has another end, in the workload's namespace: veth, netkit.
    Pair,
    /// Sending to it is handing over: a TAP, which a virtual machine monitor reads, and whatever else
    /// there is.
    Tap,
    /// It carries no Ethernet frames, as TUN devices do not: it can be no endpoint's.
    NoEthernet,
}

/// How the next packet to an address leaves this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// ifindex of the device.
    pub ifindex: u32,
    /// Who gets it: a gateway, or the destination itself.
    pub next_hop: IpAddr,
}

/// A question to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// netlink said no.
    #[error("cannot {verb}")]
    Request {
        /// What was tried.
        verb: String,
        /// Why.
        #[source]
        source: rtnetlink::Error,
    },
    /// The underlay device is not there or has no IPv4 address.
    #[error("device {0} does not exist in this network namespace")]
    NoDevice(String),
    /// The underlay device has no address that other nodes can reach.
    #[error("device {0} has no IP address; give the node's underlay address by --address")]
    NoAddress(String),
    /// A device leaves something to a card that the kernel has to do.
    #[error("cannot turn the offloads of device {device} off")]
    Offloads {
        /// Name of the device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another device holds the tunnel port.
    #[error(
        "UDP port {port} is taken by device {device}, which is no VXLAN device in external mode; \
         remove it or give the port free"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// Name of the device.
        device: String,
    },
}

pub(crate) fn failed(verb: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    let verb = verb.into();
    move |source| NetlinkError::Request { verb, source }
}

/// Every device by name.
///
/// # Errors
/// When netlink fails.
pub async fn devices(handle: &Handle) -> Result<BTreeMap<String, Device>, NetlinkError> {
    let mut links = handle.link().get().execute();
    let mut devices = BTreeMap::new();
    while let Some(link) = links.try_next().await.map_err(failed("list devices"))? {
        if let Some((name, device)) = device(&link) {
            devices.insert(name, device);
        }
    }
    Ok(devices)
}

fn device(link: &LinkMessage) -> Option<(String, Device)> {
    let mut name = None;
    let mut mac = Mac::default();
    let mut mtu = 0;
    let mut master = 0;
    let mut kind = match link.header.link_layer_type {
        LinkLayerType::Ether => DeviceKind::Tap,
        _ => DeviceKind::NoEthernet,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                let is_pair = |info: &LinkInfo| {
                    matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit))
                };
                if infos.iter().any(is_pair) && kind == DeviceKind::Tap {
                    kind = DeviceKind::Pair;
                }
            }
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Controller(ifindex) => master = *ifindex,
            LinkAttribute::Mtu(bytes) => mtu = *bytes,
            LinkAttribute::Address(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice())
                    .map(Mac::new)
                    .unwrap_or_default();
            }
            _ => {}
        }
    }
    let up = link.header.flags.contains(LinkFlags::Up);
    Some((
        name?,
        Device {
            ifindex: link.header.index,
            mac,
            up,
            mtu,
            master,
            kind,
        },
    ))
}

/// The first IPv4 address of a device, and its first IPv6 address that is not of the link alone.
///
/// # Errors
/// When netlink fails or the device has neither.
pub async fn first_addresses(
    handle: &Handle,
    name: &str,
    ifindex: u32,
) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), NetlinkError> {
    let (mut v4, mut v6) = (None, None);
    let mut addresses = handle
        .address()
        .get()
        .set_link_index_filter(ifindex)
        .execute();
    while let Some(message) = addresses
        .try_next()
        .await
        .map_err(failed(format!("list the addresses of {name}")))?
    {
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => v4 = v4.or(Some(address)),
                AddressAttribute::Address(IpAddr::V6(address))
                    if !address.is_unicast_link_local() =>
                {
                    v6 = v6.or(Some(address));
                }
                _ => {}
            }
        }
    }
    if v4.is_none() && v6.is_none() {
        return Err(NetlinkError::NoAddress(name.to_owned()));
    }
    Ok((v4, v6))
}

/// Sets a device up.
///
/// # Errors
/// When netlink fails.
pub async fn set_up(handle: &Handle, name: &str, ifindex: u32) -> Result<(), NetlinkError> {
    handle
        .link()
        .set(LinkUnspec::new_with_index(ifindex).up().build())
        .execute()
        .await
        .map_err(failed(format!("set device {name} up")))
}

/// Longest frame that a TAP device takes, without its Ethernet header (Linux `tun_net_init`).
const TUNNEL_MTU: u32 = 65_521;
/// Packets that wait in the device when the process behind it is late; super-packets count once.
const TUNNEL_QUEUE: u32 = 4096;

/// Packets that devices dropped on their way out.
///
/// # Errors
/// When netlink fails.
pub async fn dropped_at(handle: &Handle, names: &[&str]) -> Result<u64, NetlinkError> {
    let mut links = handle.link().get().execute();
    let mut dropped = 0;
    while let Some(link) = links.try_next().await.map_err(failed("list devices"))? {
        let is_named = link.attributes.iter().any(|attribute| {
            matches!(attribute, LinkAttribute::IfName(name) if names.contains(&name.as_str()))
        });
        for attribute in link.attributes.iter().filter(|_| is_named) {
            if let LinkAttribute::Stats64(stats) = attribute {
                dropped += stats.tx_dropped;
            }
        }
    }
    Ok(dropped)
}

/// Has the device that encrypts be up, with room for what it gets. Returns its ifindex.
///
/// # Errors
/// When there is no such device, or netlink fails.
pub async fn ready_tunnel_device(handle: &Handle, name: &str) -> Result<u32, NetlinkError> {
    let found = devices(handle).await?;
    let device = found
        .get(name)
        .ok_or_else(|| NetlinkError::NoDevice(name.to_owned()))?;
    if !device.up || device.mtu != TUNNEL_MTU {
        let message = LinkUnspec::new_with_index(device.ifindex)
            .mtu(TUNNEL_MTU)
            .append_extra_attribute(LinkAttribute::TxQueueLen(TUNNEL_QUEUE))
            .up()
            .build();
        handle
            .link()
            .set(message)
            .execute()
            .await
            .map_err(failed(format!("set up device {name}")))?;
    }
    Ok(device.ifindex)
}

/// Makes sure that something holds a UDP port of tunnels: without a socket the kernel does not
/// merge tunnelled packets on receipt. A device of ours from before, or any other one in external
/// mode, does. Returns its name.
///
/// # Errors
/// When the port is taken by something else, or netlink fails.
pub async fn hold_tunnel_port(
    handle: &Handle,
    name: &str,
    port: u16,
) -> Result<String, NetlinkError> {
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await.map_err(failed("list devices"))? {
        let Some((device_name, held, external)) = vxlan_port(&link) else {
            continue;
        };
        if held == port {
            return if external {
                Ok(device_name)
            } else {
                Err(NetlinkError::PortTaken {
                    port,
                    device: device_name,
                })
            };
        }
    }
    let message = LinkVxlan::new(name, 0)
        .collect_metadata(true)
        .learning(false)
        .port(port)
        .up()
        .build();
    handle
        .link()
        .add(message)
        .execute()
        .await
        .map_err(failed(format!(
            "make the tunnel device {name} on UDP port {port}; perhaps a program on this node has the port"
        )))?;
    Ok(name.to_owned())
}

/// Removes a device.
///
/// # Errors
/// When netlink fails.
pub async fn remove(handle: &Handle, name: &str, ifindex: u32) -> Result<(), NetlinkError> {
    let removed = handle.link().del(ifindex).execute().await;
    removed.map_err(failed(format!("remove device {name}")))
}

/// Makes sure that the bridge is there which gives its ports the tunnel device's headroom.
///
/// A bridge asks every port to leave as much room in front of packets as its neediest port wants
/// (Linux `net/bridge/br_if.c`, `update_headroom`), and a veth passes that on to its other end.
/// Packets from workloads then have room for the outer headers, and encapsulation need not copy
/// them. The bridge is never set up, so it forwards nothing.
///
/// # Errors
/// When netlink fails.
pub async fn make_headroom_bridge(
    handle: &Handle,
    name: &str,
    tunnel: &str,
) -> Result<u32, NetlinkError> {
    let found = devices(handle).await?;
    let bridge = match found.get(name) {
        Some(bridge) => bridge.ifindex,
        None => {
            let verb = || format!("make the bridge {name}");
            let message = LinkBridge::new(name).build();
            handle
                .link()
                .add(message)
                .execute()
                .await
                .map_err(failed(verb()))?;
            let made = devices(handle).await?;
            made.get(name)
                .ok_or_else(|| NetlinkError::NoDevice(name.to_owned()))?
                .ifindex
        }
    };
    // Another one's tunnel device is not ours to make a port.
    if let Some(device) = found.get(tunnel)
        && device.master != bridge
    {
        set_master(handle, tunnel, device.ifindex, bridge).await?;
    }
    Ok(bridge)
}

/// Makes a device a port of a bridge.
///
/// # Errors
/// When netlink fails.
pub async fn set_master(
    handle: &Handle,
    name: &str,
    ifindex: u32,
    bridge: u32,
) -> Result<(), NetlinkError> {
    let message = LinkUnspec::new_with_index(ifindex)
        .controller(bridge)
        .build();
    let verb = format!("make {name} a port of the bridge that gives headroom");
    handle
        .link()
        .set(message)
        .execute()
        .await
        .map_err(failed(verb))
}

fn vxlan_port(link: &LinkMessage) -> Option<(String, u16, bool)> {
    let (name, _) = device(link)?;
    let infos = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        })?;
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vxlan(data)) => Some(data),
        _ => None,
    })?;
    let port = data.iter().find_map(|info| match info {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    })?;
    let external = data
        .iter()
        .any(|info| matches!(info, InfoVxlan::CollectMetadata(true)));
    Some((name, port, external))
}

/// How packets to an underlay address leave.
///
/// # Errors
/// When there is no route.
pub async fn route(handle: &Handle, destination: IpAddr) -> Result<Route, NetlinkError> {
    let message = match destination {
        IpAddr::V4(destination) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, 32)
            .build(),
        IpAddr::V6(destination) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(destination, 128)
            .build(),
    };
    let mut routes = handle.route().get(message).execute();
    let verb = || format!("find a route to {destination}");
    let route = routes.try_next().await.map_err(failed(verb()))?;
    let mut found = Route {
        ifindex: 0,
        next_hop: destination,
    };
    for attribute in route.iter().flat_map(|route| &route.attributes) {
        match attribute {
            RouteAttribute::Oif(ifindex) => found.ifindex = *ifindex,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => {
                found.next_hop = IpAddr::V4(*gateway);
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => {
                found.next_hop = IpAddr::V6(*gateway);
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Asks the kernel to resolve a next hop and to keep it resolved (`NTF_EXT_MANAGED`, Linux 5.16).
///
/// # Errors
/// When netlink fails.
pub async fn manage_neighbour(handle: &Handle, route: Route) -> Result<(), NetlinkError> {
    let mut request = handle
        .neighbours()
        .add(route.ifindex, route.next_hop)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    request
        .message_mut()
        .attributes
        .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    request
        .execute()
        .await
        .map_err(failed(format!("resolve the next hop {}", route.next_hop)))
}

/// The neighbours whose link-layer address is known, by ifindex and address.
///
/// # Errors
/// When netlink fails.
pub async fn neighbours(handle: &Handle) -> Result<BTreeMap<(u32, IpAddr), Mac>, NetlinkError> {
    let mut neighbours = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        find_neighbours(handle, family, &mut neighbours).await?;
    }
    Ok(neighbours)
}

async fn find_neighbours(
    handle: &Handle,
    family: AddressFamily,
    neighbours: &mut BTreeMap<(u32, IpAddr), Mac>,
) -> Result<(), NetlinkError> {
    let mut entries = handle
        .neighbours()
        .get()
        .set_address_family(family)
        .execute();
    while let Some(entry) = entries
        .try_next()
        .await
        .map_err(failed("list neighbours"))?
    {
        if entry.header.family != family
            || matches!(
                entry.header.state,
                NeighbourState::Failed | NeighbourState::Incomplete
            )
        {
            continue;
        }
        let mut address = None;
        let mut mac = None;
        for attribute in &entry.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(*ip));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(*ip));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = <[u8; 6]>::try_from(bytes.as_slice()).ok().map(Mac::new);
                }
                _ => {}
            }
        }
        if let (Some(address), Some(mac)) = (address, mac) {
            neighbours.insert((entry.header.ifindex, address), mac);
        }
    }
    Ok(())
}
