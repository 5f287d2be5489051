//! Sunwire's data plane on each node, as an agent sets it up, with a policy and its counters.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sunwire_dataplane_common::address::{Address, Mac};
use sunwire_lab::traffic::ping::{PingOptions, ping_from_here};
use sunwire_userspace::dataplane::{Attachment, Dataplane, Surroundings};
use sunwire_userspace::maps::Capacity;
use sunwire_userspace::netlink;
use sunwire_userspace::state::{Desired, Endpoint, Network, Node};

use super::policy::{self, DENIED, Named};
use super::{CLIENT, CLIENT_MAC, Carrier, HOST_SIDE, NODES, Rig, SERVER, SERVER_MAC, Site, WIRE};
use crate::bench::case::Case;
use crate::bench::dataplane::BPF_DIRECTORY;
use crate::bench::namespace::Namespace;
use crate::bench::system::System;
use crate::bench::veth::index;

const VNI: u32 = 10;
/// The idle device that holds the tunnel's UDP port.
const PORT_HOLDER: &str = "sunwire0";
/// The bridge, never up, that gives the workloads' packets room for the outer headers.
const HEADROOM_BRIDGE: &str = "headroom0";

/// The data planes of both nodes.
pub(super) struct Nodes([Dataplane; 2]);

impl Nodes {
    /// Bytes under the labels of admitted packets, and packets dropped for any reason.
    pub(super) fn readings(&self) -> Result<(u64, u64)> {
        let (mut admitted_bytes, mut dropped) = (0, 0);
        for node in &self.0 {
            let totals = node.totals().context("cannot read Sunwire's counters")?;
            for label in &totals.labels {
                if label.label == DENIED {
                    dropped += label.total.packets;
                } else {
                    admitted_bytes += label.total.bytes;
                }
            }
            dropped += totals
                .drops
                .iter()
                .map(|(_, drop)| drop.packets)
                .sum::<u64>();
        }
        Ok((admitted_bytes, dropped))
    }
}

pub(super) fn build(case: Case) -> Result<Rig> {
    let site = Site::new(case)?;
    let desired = desired(case)?;
    let start = |own: usize| start(&site.nodes[own], own, case, &desired);
    let nodes = Nodes([start(0)?, start(1)?]);
    let carrier = Carrier::Policy(Box::new(nodes));
    Ok(site.into_rig(System::Sunwire, case, carrier))
}

/// Starts the data plane of node `own`, counted from zero.
fn start(node: &Namespace, own: usize, case: Case, desired: &Desired) -> Result<Dataplane> {
    let peer = NODES[1 - own];
    let options = PingOptions {
        count: 1,
        timeout: Duration::from_secs(5),
        ..PingOptions::default()
    };
    let report = node.run(|| Ok(ping_from_here(peer.into(), options)?))?;
    ensure!(report.received() == 1, "the underlay does not work");
    let around = node.netlink(async |handle| {
        netlink::hold_tunnel_port(handle, PORT_HOLDER).await?;
        let route = netlink::route(handle, peer).await?;
        netlink::manage_neighbour(handle, route).await?;
        Ok(Surroundings {
            tunnel: None,
            devices: netlink::devices(handle).await?,
            routes: BTreeMap::from([(peer, route)]),
            neighbours: netlink::neighbours(handle).await?,
        })
    })?;
    let dataplane = node.run(|| {
        let directory = Path::new(BPF_DIRECTORY).join(format!("{}-{}", case.name(), own + 1));
        let mut dataplane = Dataplane::load(&directory, Capacity::default())?;
        dataplane.attach_underlay(WIRE)?;
        let attachments = dataplane.apply(desired, own as u32 + 1, NODES[own], &around)?;
        let attached = |attachment: &Attachment| matches!(attachment, Attachment::Attached { .. });
        // The client on the first node, the server on the second.
        ensure!(
            attachments.get(&(own as u32 + 1)).is_some_and(attached),
            "the endpoint is not attached: {attachments:?}"
        );
        Ok(dataplane)
    })?;
    node.netlink(async |handle| {
        let bridge = netlink::make_headroom_bridge(handle, HEADROOM_BRIDGE, PORT_HOLDER).await?;
        netlink::set_master(handle, HOST_SIDE, index(HOST_SIDE)?, bridge).await?;
        Ok(())
    })?;
    Ok(dataplane)
}

/// What both nodes are told: two nodes, one network, the two workloads and the policy, which also
/// names a database that takes no part.
fn desired(case: Case) -> Result<Desired> {
    let named = |name, number, address, mac| Named {
        name,
        number,
        address,
        mac,
    };
    let endpoints = [
        named("client", 1, CLIENT.into(), CLIENT_MAC),
        named("server", 2, SERVER.into(), SERVER_MAC),
        named("database", 3, [10, 20, 0, 3].into(), [2, 0, 0, 20, 0, 3]),
    ];
    let mut desired = Desired::default();
    for (index, address) in NODES.into_iter().enumerate() {
        let name = format!("node{}", index + 1);
        desired
            .nodes
            .insert(index as u32 + 1, Node::without_key(&name, address));
    }
    let network = Network {
        encrypted: false,
        name: "bench".to_owned(),
        mtu: case.inner_mtu(),
        gateway_v4: Address::v4([10, 20, 255, 254]),
        gateway_v6: Address::ZERO,
        gateway_mac: Mac::new([2, 0, 0, 20, 255, 254]),
        prefix_v4: 8,
        prefix_v6: 0,
    };
    desired.networks.insert(VNI, network);
    for endpoint in &endpoints {
        let ipv4 = match endpoint.address {
            std::net::IpAddr::V4(address) => Address::v4(address.octets()),
            std::net::IpAddr::V6(_) => Address::ZERO,
        };
        let wanted = Endpoint {
            name: endpoint.name.to_owned(),
            vni: VNI,
            // The database's device is nowhere.
            device: if endpoint.number == 3 {
                "none0"
            } else {
                HOST_SIDE
            }
            .to_owned(),
            mac: Mac::new(endpoint.mac),
            ipv4,
            ipv6: Address::ZERO,
            node: endpoint.number.min(2),
            other: 0,
            moving: false,
            epoch: 1,
        };
        desired.endpoints.insert(endpoint.number, wanted);
    }
    policy::put(&mut desired, VNI, &endpoints)?;
    Ok(desired)
}
