//! The systems set up: two workloads that reach each other through two nodes.
//!
//! ```text
//! client --veth-- node 1 ====wire==== node 2 --veth-- server      all others
//! client =====================wire=================== server      veth
//! ```
//! The wire is a veth pair that behaves as the case says. A rig is only handed out when a ping
//! crosses it, and [`Rig::check`] refuses samples whose traffic cannot have gone the way it claims.

mod direct;
mod kernel_vxlan;
mod nft;
mod ovs;
mod policy;
mod readings;
mod routing;
mod rules;
mod sunwire;

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::ProgramFd;
use sunwire_lab::traffic::ping::{PingOptions, ping_from_here};

use self::readings::{Crossed, device_bytes};
pub(super) use self::sunwire::Size;
use super::case::Case;
use super::metric::Metric;
use super::namespace::Namespace;
use super::system::System;
use super::veth::{self, End};

/// Address of the workload that sends requests.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
/// Address of the workload that answers them.
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 20, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 20, 0, 2];

/// Underlay addresses of the nodes, by number from 1.
const NODES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
/// The nodes' device on the wire.
const WIRE: &str = "wire0";
/// Each node's device toward its workload.
const HOST_SIDE: &str = "host0";
/// The workloads' device.
const WORKLOAD: &str = "eth0";

/// A system that carries traffic between two workloads.
pub(super) struct Rig {
    system: System,
    case: Case,
    client: Namespace,
    server: Namespace,
    /// Where the wire begins at the client's side.
    wire: (Namespace, &'static str),
    carrier: Carrier,
    /// A namespace lives as long as its handles.
    _nodes: Vec<Namespace>,
}

/// What a packet must have passed besides the wire.
enum Carrier {
    /// Nothing.
    Nothing,
    /// A device.
    Device(Namespace, &'static str),
    /// The rules of both nodes, which count.
    Firewall([nft::Firewall; 2]),
    /// Sunwire's policy, which counts.
    Policy(Box<sunwire::Nodes>),
}

/// Counters at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readings {
    wire: Crossed,
    /// Bytes that passed the carrier.
    carried_bytes: u64,
    /// Packets that rules or Sunwire dropped.
    dropped_packets: u64,
    /// Connections that the node with the fewest tracks; `None` where nobody does.
    connections: Option<u64>,
}

/// Why a system cannot be measured here; `None` when it can.
///
/// What a peer needs beyond this kernel and these packages is asked for here, so that a run without
/// it still measures the others.
pub(super) fn missing(system: System) -> Option<String> {
    match system {
        System::KernelVxlanNft => nft::missing(),
        System::Ovs => ovs::missing(),
        System::Veth | System::Routing | System::KernelVxlan | System::Sunwire => None,
    }
}

impl Rig {
    /// Sets a system up and sees that a ping crosses it.
    pub(super) fn new(system: System, case: Case) -> Result<Self> {
        let rig = match system {
            System::Veth => direct::build(case),
            System::Routing => routing::build(case),
            System::KernelVxlan => kernel_vxlan::build(case),
            System::KernelVxlanNft => kernel_vxlan::build_with_firewall(case),
            System::Ovs => ovs::build(case),
            System::Sunwire => sunwire::build(case, Size::default()),
        }
        .with_context(|| format!("cannot set up {} for {}", system.name(), case.name()))?;
        rig.check_ping()?;
        Ok(rig)
    }

    /// Sets Sunwire up in a cloud of some size.
    pub(super) fn of_size(case: Case, size: Size) -> Result<Self> {
        let rig = sunwire::build(case, size).with_context(|| format!("cannot set up {size:?}"))?;
        rig.check_ping()?;
        Ok(rig)
    }

    /// Of Sunwire, the programs in the way of a packet from the client to the server.
    pub(super) fn programs(&mut self) -> Result<[ProgramFd; 2]> {
        match &mut self.carrier {
            Carrier::Policy(nodes) => nodes.programs(),
            _ => bail!("{} has no programs", self.system.name()),
        }
    }

    /// Of Sunwire, where the maps of the client's node are pinned.
    pub(super) fn bpf_directory(&self) -> Result<&Path> {
        match &self.carrier {
            Carrier::Policy(nodes) => Ok(nodes.directory()),
            _ => bail!("{} has no maps", self.system.name()),
        }
    }

    /// Which system it is.
    pub(super) fn system(&self) -> System {
        self.system
    }

    /// Namespace of the workload at [`CLIENT`].
    pub(super) fn client(&self) -> &Namespace {
        &self.client
    }

    /// Namespace of the workload at [`SERVER`].
    pub(super) fn server(&self) -> &Namespace {
        &self.server
    }

    /// Reads all counters.
    pub(super) fn readings(&self) -> Result<Readings> {
        let wire = Crossed::read(&self.wire.0, self.wire.1)?;
        let mut connections = None;
        let (carried_bytes, dropped_packets) = match &self.carrier {
            Carrier::Nothing => (wire.bytes, 0),
            Carrier::Device(namespace, device) => (device_bytes(namespace, device)?, 0),
            Carrier::Firewall([a, b]) => {
                connections = Some(a.connections()?.min(b.connections()?));
                let (a, b) = (a.counted()?, b.counted()?);
                // What crosses passes the rules of both nodes.
                let admitted = a.admitted_bytes.min(b.admitted_bytes);
                (admitted, a.refused_packets + b.refused_packets)
            }
            Carrier::Policy(nodes) => nodes.readings()?,
        };
        Ok(Readings {
            wire,
            carried_bytes,
            dropped_packets,
            connections,
        })
    }

    /// Packets that were dropped since a reading.
    pub(super) fn dropped_since(&self, before: Readings) -> Result<u64> {
        Ok(self.readings()?.dropped_packets - before.dropped_packets)
    }

    /// Refuses a sample whose `count` cannot have crossed this system between two readings.
    pub(super) fn check(
        &self,
        metric: Metric,
        count: u64,
        before: Readings,
        after: Readings,
    ) -> Result<()> {
        let crossed = after.wire - before.wire;
        let carried = after.carried_bytes - before.carried_bytes;
        let dropped = after.dropped_packets - before.dropped_packets;
        let least = metric.least_bytes(count);
        let name = || {
            format!(
                "{} of {} in {}",
                metric.name(),
                self.system.name(),
                self.case.name()
            )
        };
        ensure!(count > 0, "{}: nothing arrived", name());
        ensure!(
            crossed.bytes >= least,
            "{}: {} bytes crossed the wire, at least {least} should have",
            name(),
            crossed.bytes
        );
        ensure!(
            carried >= least,
            "{}: {carried} bytes passed the system, at least {least} should have",
            name()
        );
        ensure!(
            dropped == 0,
            "{}: the policy dropped {dropped} packets",
            name()
        );
        ensure!(
            after
                .connections
                .is_none_or(|found| found >= metric.flows()),
            "{}: {} connections are tracked, there should be {}",
            name(),
            after.connections.unwrap_or(0),
            metric.flows()
        );
        let longest = u64::from(self.case.underlay_mtu()) + 14;
        ensure!(
            !self.case.is_wire_like() || crossed.bytes <= longest * crossed.packets,
            "{}: frames on the wire are longer than its MTU",
            name()
        );
        Ok(())
    }

    fn check_ping(&self) -> Result<()> {
        let options = PingOptions {
            count: 3,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(5),
            payload_bytes: 56,
        };
        let report = self
            .client
            .run(|| Ok(ping_from_here(SERVER.into(), options)?))?;
        ensure!(
            report.received() > 0,
            "{} does not work in {}: no ping is answered",
            self.system.name(),
            self.case.name()
        );
        Ok(())
    }
}

/// What [`kernel_vxlan`] and [`sunwire`] have in common: the namespaces, the workloads' devices and
/// the wire.
struct Site {
    workloads: [Namespace; 2],
    nodes: [Namespace; 2],
}

impl Site {
    fn new(case: Case) -> Result<Self> {
        let site = Site {
            workloads: [Namespace::new()?, Namespace::new()?],
            nodes: [Namespace::new()?, Namespace::new()?],
        };
        for (number, (address, mac)) in [(CLIENT, CLIENT_MAC), (SERVER, SERVER_MAC)]
            .into_iter()
            .enumerate()
        {
            let inside = End {
                namespace: &site.workloads[number],
                name: WORKLOAD,
                mac,
                address: Some(address),
            };
            let host_side = End {
                namespace: &site.nodes[number],
                name: HOST_SIDE,
                mac: [2, 0, 0, 1, 0, number as u8 + 1],
                address: None,
            };
            veth::connect(&inside, &host_side, case.inner_mtu())?;
        }
        let end = |number: usize| End {
            namespace: &site.nodes[number],
            name: WIRE,
            mac: [2, 0, 0, 2, 0, number as u8 + 1],
            address: Some(NODES[number]),
        };
        veth::connect_wire(&end(0), &end(1), case.underlay_mtu(), case)?;
        Ok(site)
    }

    fn into_rig(self, system: System, case: Case, carrier: Carrier) -> Rig {
        let [client, server] = self.workloads;
        Rig {
            system,
            case,
            client,
            server,
            wire: (self.nodes[0].clone(), WIRE),
            carrier,
            _nodes: self.nodes.into(),
        }
    }
}
