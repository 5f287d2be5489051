//! What a lab consists of: nodes in regions, the links between them, workloads.
//!
//! A [`Topology`] can only be made by [`TopologyBuilder::build`] (Rust) or
//! [`Topology::from_toml`] (files); both run the same checks, so one that
//! exists can be built.

mod builder;
mod file;
mod problem;
mod workload;

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Deserialize;

pub use builder::{LinkEnds, TopologyBuilder};
pub(crate) use problem::check_lab_id;
pub use problem::{Problem, TopologyError};
pub use workload::{AddressError, InterfaceAddress, WORKLOAD_MTU_DEFAULT, WorkloadSpec};

use crate::link::LinkParams;

/// Name of the controller's node, and of its namespace.
pub const CONTROLLER: &str = "controller";
/// Name of the emulator's namespace; no node may have it.
pub const WAN: &str = "wan";

/// A checked topology.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    pub(crate) id: Option<String>,
    pub(crate) seed: u64,
    pub(crate) nodes: Vec<NodeSpec>,
    /// Row by row: `links[from * nodes + to]`.
    pub(crate) links: Vec<LinkParams>,
    pub(crate) workloads: Vec<WorkloadSpec>,
}

/// What a node's tunnels go over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Underlay {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// IPv6 alone. The node has an IPv4 address too, for what is no tunnel: the controller is reached by
    /// it.
    Ipv6,
    /// Either, as the other node can.
    Dual,
}

/// A node: a host in some region, with an underlay address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Name, unique among nodes and workloads.
    pub name: String,
    /// Region, `cloud:name`.
    pub region: String,
    /// Underlay address within a /24 of its own.
    pub address: Ipv4Addr,
    /// What its tunnels go over.
    pub underlay: Underlay,
    /// It is a host outside: nothing is started there, and it has no workloads.
    pub outside: bool,
}

impl NodeSpec {
    /// The node's IPv6 address, in a /64 of its own, where it has one: the numbers of its /24, in the
    /// block for documentation (RFC 3849).
    #[must_use]
    pub fn address_v6(&self) -> Option<Ipv6Addr> {
        (self.underlay != Underlay::Ipv4).then(|| self.in_own_64(2))
    }

    /// The gateway of that /64.
    #[must_use]
    pub fn gateway_v6(&self) -> Ipv6Addr {
        self.in_own_64(1)
    }

    fn in_own_64(&self, host: u16) -> Ipv6Addr {
        let [a, b, c, _] = self.address.octets().map(u16::from);
        Ipv6Addr::new(0x2001, 0xdb8, a << 8 | b, c, 0, 0, 0, host)
    }

    /// The gateway of the node's /24: its first address, or the second when
    /// the node itself has the first.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.address.octets();
        Ipv4Addr::new(a, b, c, if d == 1 { 2 } else { 1 })
    }
}

impl Topology {
    /// Starts an empty topology.
    #[must_use]
    pub fn builder() -> TopologyBuilder {
        TopologyBuilder::default()
    }

    /// The same topology with another lab id.
    ///
    /// # Errors
    /// [`Problem::LabId`].
    pub fn with_id(mut self, id: &str) -> Result<Self, TopologyError> {
        problem::check_lab_id(id)?;
        self.id = Some(id.to_owned());
        Ok(self)
    }

    /// The lab id asked for; a random one is chosen when there is none.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// All nodes, the controller's last when there is one.
    #[must_use]
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// All workloads.
    #[must_use]
    pub fn workloads(&self) -> &[WorkloadSpec] {
        &self.workloads
    }

    /// The link from one node to another, by name.
    #[must_use]
    pub fn link(&self, from: &str, to: &str) -> Option<&LinkParams> {
        let index = |name| self.nodes.iter().position(|node| node.name == name);
        self.links.get(index(from)? * self.nodes.len() + index(to)?)
    }
}
