//! Sunwire's data plane on each node, as an agent sets it up, with a policy and its counters.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use sunwire_api::EncryptionMode;
use sunwire_dataplane_common::{
    address::{Address, Mac},
    vxlan,
};
use sunwire_lab::traffic::ping::{PingOptions, ping_from_here};
use sunwire_userspace::connections::{Connections, sweep::Sweeping};
use sunwire_userspace::dataplane::{Attachment, Dataplane, Surroundings};
use sunwire_userspace::maps::Capacity;
use sunwire_userspace::netlink;
use sunwire_userspace::state::{Desired, Endpoint, Network, Node};
use sunwire_userspace::telemetry::names::Names;

use super::policy::{self, DENIED, Named};
use super::rules::some_rules;
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

/// Data planes started so far: each has a directory of its own.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The data planes of both nodes.
pub(super) struct Nodes([Started; 2]);

/// The data plane of a node.
struct Started {
    dataplane: Dataplane,
    /// Where its maps are pinned.
    directory: PathBuf,
    /// Forgets what is over, as an agent does; none where flows are to stay.
    _sweeping: Option<Sweeping>,
    /// What is swept.
    _connections: Arc<Connections>,
}

impl Nodes {
    /// Bytes under the labels of admitted packets, and packets dropped for any reason.
    pub(super) fn readings(&self) -> Result<(u64, u64)> {
        let (mut admitted_bytes, mut dropped) = (0, 0);
        for node in &self.0 {
            let totals = node
                .dataplane
                .totals()
                .context("cannot read Sunwire's counters")?;
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

/// How large the cloud is around the two workloads, and the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) struct Size {
    /// Endpoints, the two workloads among them; at least 3.
    pub(in crate::bench) endpoints: u32,
    /// Nodes, at least 2.
    pub(in crate::bench) nodes: u32,
    /// Rules of the policy; at least 10.
    pub(in crate::bench) rules: usize,
    /// Whether the client may send datagrams to every port of the server.
    pub(in crate::bench) any_port: bool,
    /// Flows that each node has room for, if not the default.
    pub(in crate::bench) flows: Option<u32>,
}

impl Default for Size {
    fn default() -> Self {
        Size {
            endpoints: 3,
            nodes: 2,
            rules: 100,
            any_port: false,
            flows: None,
        }
    }
}

impl Size {
    fn capacity(&self) -> Capacity {
        let default = Capacity::default();
        Capacity {
            endpoints: default.endpoints.max(self.endpoints + 1),
            nodes: default.nodes.max(self.nodes + 1),
            flows: self.flows.unwrap_or(default.flows),
            ..default
        }
    }
}

impl Nodes {
    /// The programs in the way of a packet from the client to the server: name and descriptor of
    /// the client's node's for endpoints and of the server's node's for the underlay.
    pub(super) fn programs(&mut self) -> Result<[ProgramFd; 2]> {
        let [client, server] = &mut self.0;
        let sends = client.dataplane.endpoint_program()?.fd()?.try_clone()?;
        let receives = server.dataplane.underlay_program()?.fd()?.try_clone()?;
        Ok([sends, receives])
    }

    /// Where the maps of the client's node are pinned.
    pub(super) fn directory(&self) -> &Path {
        &self.0[0].directory
    }
}

pub(super) fn build(case: Case, size: Size) -> Result<Rig> {
    let site = Site::new(case)?;
    let desired = desired(case, size)?;
    let start = |own: usize| start(&site.nodes[own], own, case, size, &desired);
    let nodes = Nodes([start(0)?, start(1)?]);
    let carrier = Carrier::Policy(Box::new(nodes));
    Ok(site.into_rig(System::Sunwire, case, carrier))
}

/// Starts the data plane of node `own`, counted from zero.
fn start(
    node: &Namespace,
    own: usize,
    case: Case,
    size: Size,
    desired: &Desired,
) -> Result<Started> {
    let peer = NODES[1 - own];
    let options = PingOptions {
        count: 1,
        timeout: Duration::from_secs(5),
        ..PingOptions::default()
    };
    let report = node.run(|| Ok(ping_from_here(peer.into(), options)?))?;
    ensure!(report.received() == 1, "the underlay does not work");
    let around = node.netlink(async |handle| {
        netlink::hold_tunnel_port(handle, PORT_HOLDER, vxlan::PORT).await?;
        let route = netlink::route(handle, peer.into()).await?;
        netlink::manage_neighbour(handle, route).await?;
        Ok(Surroundings {
            outbound: None,
            checksum: None,
            tunnel: None,
            ways: BTreeMap::new(),
            ports: Default::default(),
            at_work: Default::default(),
            devices: netlink::devices(handle).await?,
            routes: BTreeMap::from([(peer.into(), route)]),
            vtep_v6: None,
            neighbours: netlink::neighbours(handle).await?,
        })
    })?;
    let started = node.run(|| {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = Path::new(BPF_DIRECTORY).join(format!("{}-{number}", case.name()));
        let mut dataplane = Dataplane::load(&directory, size.capacity())?;
        dataplane.attach_underlay(WIRE)?;
        let attachments = dataplane.apply(desired, own as u32 + 1, NODES[own], &around)?;
        let attached = |attachment: &Attachment| matches!(attachment, Attachment::Attached { .. });
        // The client on the first node, the server on the second.
        ensure!(
            attachments.get(&(own as u32 + 1)).is_some_and(attached),
            "the endpoint is not attached: {attachments:?}"
        );
        let connections = Connections::load(&directory, size.capacity())?;
        let names = Arc::new(Names::new(WIRE, desired, HashMap::new()));
        let generation = dataplane.generation();
        connections.publish(desired, own as u32 + 1, &attachments, names, generation);
        let sweeping = match size.flows {
            Some(_) => None,
            None => Some(Sweeping::start(&connections)?),
        };
        Ok(Started {
            dataplane,
            directory,
            _sweeping: sweeping,
            _connections: connections,
        })
    })?;
    node.netlink(async |handle| {
        let bridge = netlink::make_headroom_bridge(handle, HEADROOM_BRIDGE, PORT_HOLDER).await?;
        netlink::set_master(handle, HOST_SIDE, index(HOST_SIDE)?, bridge).await?;
        Ok(())
    })?;
    Ok(started)
}

/// What both nodes are told: two nodes, one network, the two workloads and the policy, which also
/// names a database that takes no part.
fn desired(case: Case, size: Size) -> Result<Desired> {
    let named = |name: &str, number, address, mac| Named {
        name: name.to_owned(),
        number,
        address,
        mac,
    };
    let mut endpoints = vec![
        named("client", 1, CLIENT.into(), CLIENT_MAC),
        named("server", 2, SERVER.into(), SERVER_MAC),
        named("database", 3, [10, 20, 0, 3].into(), [2, 0, 0, 20, 0, 3]),
    ];
    endpoints.extend((4..=size.endpoints).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        let address = Ipv4Addr::new(10, 32 + b, c, d);
        let mac = [2, 0, 0, 32 + b, c, d];
        named(&format!("other{number}"), number, address.into(), mac)
    }));
    let mut desired = Desired {
        // The peers do not encrypt either.
        encryption: EncryptionMode::Never,
        ..Desired::default()
    };
    for number in 1..=size.nodes {
        let name = format!("node{number}");
        let address = Ipv4Addr::from(u32::from(NODES[0]) + number - 1);
        desired
            .nodes
            .insert(number, Node::without_key(&name, address));
    }
    let network = Network {
        outbound: 0,
        encryption: Default::default(),
        relayed: false,
        enforced: false,
        checksum: false,
        port: sunwire_dataplane_common::vxlan::PORT,
        peers: Vec::new(),
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
            name: endpoint.name.clone(),
            vni: VNI,
            // Only the workloads have a device.
            device: if endpoint.number >= 3 {
                "none0"
            } else {
                HOST_SIDE
            }
            .to_owned(),
            mac: Mac::new(endpoint.mac),
            ipv4,
            ipv6: Address::ZERO,
            node: if endpoint.number == 1 { 1 } else { 2 },
            other: 0,
            moving: false,
            epoch: 1,
        };
        desired.endpoints.insert(endpoint.number, wanted);
    }
    let rules = some_rules(size.rules);
    policy::put(&mut desired, VNI, &endpoints, &rules, size.any_port)?;
    Ok(desired)
}
