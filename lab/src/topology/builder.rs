//! Building a topology step by step, and the checks that files share.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use super::problem::{self, Problem, TopologyError};
use super::{CONTROLLER, NodeSpec, Topology, Underlay, WorkloadSpec};
use crate::link::{LinkChange, LinkParams};
use crate::matrix;

/// Nodes per lab at most, the controller's included: one /24 each of
/// 198.18.0.0/15 when addresses are assigned: the block for testing, which no network routes
/// (RFC 2544).
pub(crate) const NODES_MAX: usize = 500;

/// Which ordered pairs a link's values are for. Ends are node names or regions;
/// a region stands for all of its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEnds {
    /// Both directions between two ends.
    Between(String, String),
    /// From the first to the second only.
    OneWay(String, String),
}

impl LinkEnds {
    /// Both directions between `a` and `b`.
    #[must_use]
    pub fn between(a: &str, b: &str) -> Self {
        Self::Between(a.to_owned(), b.to_owned())
    }

    /// From `from` to `to` only.
    #[must_use]
    pub fn one_way(from: &str, to: &str) -> Self {
        Self::OneWay(from.to_owned(), to.to_owned())
    }

    fn names(&self) -> [&str; 2] {
        match self {
            Self::Between(a, b) | Self::OneWay(a, b) => [a, b],
        }
    }
}

/// Where in a file something stands; nowhere when it comes from Rust.
pub(super) type Origin = Option<Range<usize>>;

#[derive(Clone, Debug)]
struct Placed<T> {
    value: T,
    origin: Origin,
}

#[derive(Clone, Debug)]
struct Node {
    name: String,
    region: String,
    address: Option<Ipv4Addr>,
    underlay: Underlay,
    outside: bool,
}

/// Collects a topology; [`build`](Self::build) checks it.
#[derive(Clone, Debug, Default)]
pub struct TopologyBuilder {
    id: Option<Placed<String>>,
    seed: Option<u64>,
    defaults: Option<Placed<LinkChange>>,
    nodes: Vec<Placed<Node>>,
    controller: Option<Placed<Node>>,
    links: Vec<Placed<(LinkEnds, LinkChange)>>,
    workloads: Vec<Placed<WorkloadSpec>>,
}

/// A problem and its place.
pub(super) type Located = (Problem, Origin);

impl TopologyBuilder {
    /// Fixes the lab's id, 1 to 12 lower-case letters and digits.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.id_at(id, None)
    }

    /// Fixes the seed of loss and jitter; 1 otherwise.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Values for all links that no `link` changes.
    #[must_use]
    pub fn defaults(self, defaults: LinkChange) -> Self {
        self.defaults_at(defaults, None)
    }

    /// Adds a node with an assigned underlay address.
    #[must_use]
    pub fn node(self, name: &str, region: &str) -> Self {
        self.node_at(name, region, None, Underlay::default(), None)
    }

    /// Adds a node with this underlay address; its /24 is its own.
    #[must_use]
    pub fn node_with_address(self, name: &str, region: &str, address: Ipv4Addr) -> Self {
        self.node_at(name, region, Some(address), Underlay::default(), None)
    }

    /// Says what the tunnels of the node that was added last go over; IPv4 otherwise.
    #[must_use]
    pub fn over(mut self, underlay: Underlay) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.value.underlay = underlay;
        }
        self
    }

    /// Adds a host outside: on the underlay like a node, and nothing is started there.
    #[must_use]
    pub fn outside(self, name: &str, region: &str) -> Self {
        self.outside_at(name, region, None, None)
    }

    /// Adds the controller's node, named `controller`.
    #[must_use]
    pub fn controller(self, region: &str) -> Self {
        self.controller_at(region, None, None)
    }

    /// Sets values of links. Node pairs override node-region pairs, which
    /// override region pairs; among equals the later call wins, key by key.
    #[must_use]
    pub fn link(self, ends: LinkEnds, values: LinkChange) -> Self {
        self.link_at(ends, values, None)
    }

    /// Adds a workload.
    #[must_use]
    pub fn workload(self, workload: WorkloadSpec) -> Self {
        self.workload_at(workload, None)
    }

    pub(super) fn id_at(mut self, id: &str, origin: Origin) -> Self {
        let value = id.to_owned();
        self.id = Some(Placed { value, origin });
        self
    }

    pub(super) fn defaults_at(mut self, value: LinkChange, origin: Origin) -> Self {
        self.defaults = Some(Placed { value, origin });
        self
    }

    pub(super) fn node_at(
        mut self,
        name: &str,
        region: &str,
        address: Option<Ipv4Addr>,
        underlay: Underlay,
        origin: Origin,
    ) -> Self {
        let mut node = placed_node(name, region, address, origin);
        node.value.underlay = underlay;
        self.nodes.push(node);
        self
    }

    pub(super) fn outside_at(
        mut self,
        name: &str,
        region: &str,
        address: Option<Ipv4Addr>,
        origin: Origin,
    ) -> Self {
        let mut host = placed_node(name, region, address, origin);
        host.value.outside = true;
        self.nodes.push(host);
        self
    }

    pub(super) fn controller_at(
        mut self,
        region: &str,
        address: Option<Ipv4Addr>,
        origin: Origin,
    ) -> Self {
        self.controller = Some(placed_node(CONTROLLER, region, address, origin));
        self
    }

    pub(super) fn link_at(mut self, ends: LinkEnds, values: LinkChange, origin: Origin) -> Self {
        let value = (ends, values);
        self.links.push(Placed { value, origin });
        self
    }

    pub(super) fn workload_at(mut self, value: WorkloadSpec, origin: Origin) -> Self {
        self.workloads.push(Placed { value, origin });
        self
    }

    /// Checks everything and makes the topology.
    ///
    /// # Errors
    /// The first [`Problem`].
    pub fn build(self) -> Result<Topology, TopologyError> {
        Ok(self.check().map_err(|(problem, _)| problem)?)
    }

    pub(super) fn check(self) -> Result<Topology, Located> {
        if let Some(id) = &self.id {
            problem::check_lab_id(&id.value).map_err(at(&id.origin))?;
        }
        self.check_names()?;
        let nodes = self.place_nodes()?;
        let links = self.links_between(&nodes)?;
        self.check_workloads(&nodes)?;
        Ok(Topology {
            id: self.id.map(|id| id.value),
            seed: self.seed.unwrap_or(1),
            nodes,
            links,
            workloads: self.workloads.into_iter().map(|w| w.value).collect(),
        })
    }

    fn all_nodes(&self) -> impl Iterator<Item = &Placed<Node>> {
        self.nodes.iter().chain(&self.controller)
    }

    fn check_names(&self) -> Result<(), Located> {
        let mut seen = BTreeMap::new();
        let nodes = self.nodes.iter().map(|n| (&n.value.name, &n.origin));
        let workloads = self.workloads.iter().map(|w| (&w.value.name, &w.origin));
        for (name, origin) in nodes.chain(workloads) {
            problem::check_name(name).map_err(at(origin))?;
            if seen.insert(name, ()).is_some() {
                return Err((Problem::Twice(name.clone()), origin.clone()));
            }
        }
        for node in self.all_nodes() {
            problem::check_region(&node.value.region).map_err(at(&node.origin))?;
        }
        Ok(())
    }

    /// Gives every node its address: those that ask first, then the rest.
    fn place_nodes(&self) -> Result<Vec<NodeSpec>, Located> {
        if self.nodes.iter().all(|node| node.value.outside) {
            return Err((Problem::Empty, None));
        }
        let count = self.all_nodes().count();
        if count > NODES_MAX {
            return Err((Problem::TooManyNodes(count), None));
        }
        let mut taken: BTreeMap<[u8; 3], String> = BTreeMap::new();
        for node in self.all_nodes() {
            let Some(address) = node.value.address else {
                continue;
            };
            let [a, b, c, d] = address.octets();
            if !(1..=254).contains(&d) || matches!(a, 0 | 127 | 224..) {
                return Err((Problem::Underlay(address), node.origin.clone()));
            }
            if let Some(other) = taken.insert([a, b, c], node.value.name.clone()) {
                let problem = Problem::SameSubnet { address, other };
                return Err((problem, node.origin.clone()));
            }
        }
        let mut free = (1_u16..512)
            .map(|n| [198, 18 + (n >> 8) as u8, (n & 0xff) as u8])
            .filter(|subnet| !taken.contains_key(subnet));
        let mut place = |node: &Placed<Node>| {
            let address = node.value.address.unwrap_or_else(|| {
                let [a, b, c] = free.next().expect("there are more /24s than nodes");
                Ipv4Addr::new(a, b, c, 2)
            });
            NodeSpec {
                name: node.value.name.clone(),
                region: node.value.region.clone(),
                address,
                underlay: node.value.underlay,
                outside: node.value.outside,
            }
        };
        Ok(self.all_nodes().map(&mut place).collect())
    }

    fn links_between(&self, nodes: &[NodeSpec]) -> Result<Vec<LinkParams>, Located> {
        let mut rules: Vec<(usize, &Placed<(LinkEnds, LinkChange)>)> = Vec::new();
        for link in &self.links {
            let (ends, values) = &link.value;
            for end in ends.names() {
                if !nodes.iter().any(|node| is_end(node, end)) {
                    let mut known: Vec<String> = nodes.iter().map(|n| n.name.clone()).collect();
                    known.extend(nodes.iter().map(|n| n.region.clone()));
                    known.sort();
                    known.dedup();
                    let problem = Problem::LinkEnd(end.to_owned(), known);
                    return Err((problem, link.origin.clone()));
                }
            }
            let [a, b] = ends.names();
            let named = |end: &str| nodes.iter().any(|node| node.name == end);
            if a == b && named(a) {
                let problem = Problem::LinkToItself(a.to_owned());
                return Err((problem, link.origin.clone()));
            }
            values
                .validate()
                .map_err(|error| (error.into(), link.origin.clone()))?;
            rules.push((usize::from(named(a)) + usize::from(named(b)), link));
        }
        // A stable sort: more specific later, file order among equals.
        rules.sort_by_key(|(specificity, _)| *specificity);
        let mut links = Vec::with_capacity(nodes.len() * nodes.len());
        for from in nodes {
            for to in nodes {
                links.push(self.link_params(from, to, &rules)?);
            }
        }
        Ok(links)
    }

    fn link_params(
        &self,
        from: &NodeSpec,
        to: &NodeSpec,
        rules: &[(usize, &Placed<(LinkEnds, LinkChange)>)],
    ) -> Result<LinkParams, Located> {
        let rtt = matrix::rtt(&from.region, &to.region);
        let mut params = LinkParams::with_delay(rtt.unwrap_or_default() / 2);
        let mut delay_known = rtt.is_some();
        let applying = rules.iter().filter(|(_, rule)| {
            let (ends, _) = &rule.value;
            let [a, b] = ends.names();
            let forth = is_end(from, a) && is_end(to, b);
            let back = matches!(ends, LinkEnds::Between(..)) && is_end(from, b) && is_end(to, a);
            forth || back
        });
        let defaults = self.defaults.iter().map(|d| (&d.value, &d.origin));
        let changes = defaults.chain(applying.map(|(_, rule)| (&rule.value.1, &rule.origin)));
        for (change, origin) in changes {
            change
                .apply(&mut params)
                .map_err(|error| (error.into(), origin.clone()))?;
            delay_known |= change.delay_ms.is_some();
        }
        if !delay_known {
            let (a, b) = (from.region.clone(), to.region.clone());
            let node = self.all_nodes().find(|node| node.value.name == to.name);
            return Err((
                Problem::NoDelay { a, b },
                node.and_then(|n| n.origin.clone()),
            ));
        }
        Ok(params)
    }

    fn check_workloads(&self, nodes: &[NodeSpec]) -> Result<(), Located> {
        let mut devices: BTreeMap<String, &str> = BTreeMap::new();
        for workload in &self.workloads {
            let spec = &workload.value;
            spec.check().map_err(at(&workload.origin))?;
            let inside = || nodes.iter().filter(|node| !node.outside);
            if !inside().any(|node| node.name == spec.node) {
                let problem = Problem::NoNode {
                    workload: spec.name.clone(),
                    node: spec.node.clone(),
                    nodes: inside().map(|node| node.name.clone()).collect(),
                };
                return Err((problem, workload.origin.clone()));
            }
            if let Some(other) = devices.insert(spec.host_device(), &spec.name) {
                let problem = Problem::DeviceName(other.to_owned(), spec.name.clone());
                return Err((problem, workload.origin.clone()));
            }
        }
        Ok(())
    }
}

fn at<E: Into<Problem>>(origin: &Origin) -> impl FnOnce(E) -> Located + use<E> {
    let origin = origin.clone();
    move |error| (error.into(), origin)
}

fn is_end(node: &NodeSpec, end: &str) -> bool {
    node.name == end || node.region == end
}

fn placed_node(
    name: &str,
    region: &str,
    address: Option<Ipv4Addr>,
    origin: Origin,
) -> Placed<Node> {
    let value = Node {
        name: name.to_owned(),
        region: region.to_owned(),
        address,
        underlay: Underlay::default(),
        outside: false,
    };
    Placed { value, origin }
}
