//! Benchmarks: Sunwire beside its peers, measured alternately in one run, or beside figures of others.
//!
//! `sunwire-bench dataplane` carries the same traffic over several systems, each two workloads on two
//! nodes: Sunwire's programs with a policy and its counters, a Linux bridge with a VXLAN device, the
//! same with nftables, Open vSwitch where the kernel has it, plain routing, and one plain veth pair. `sunwire-bench policy` measures what policies cost: to prove, to compile, to
//! change, and in the kernel.
//!
//! - [`case`](mod@case): under what conditions ([`Case`]).
//! - [`metric`]: what is measured ([`Metric`]).
//! - [`system`]: who is measured ([`System`]).
//! - `rigs`: how each system is set up, and the proof that traffic really crossed it.
//! - `traffic`: the traffic, the same for all systems.
//! - [`dataplane`]: who is measured when.
//! - [`targets`]: what Sunwire has to reach.
//! - `profile`: where the time of a figure goes.
//! - [`report`]: medians and ratios, as a table and as JSON.
//! - [`scale`]: what packets cost in larger clouds, with a report of its own.
//! - [`policy`]: another benchmark, with a report of its own.
//!
//! Network namespaces and the BPF file system are anonymous: they are the process's own and the
//! kernel takes them away with it, however it ends. Everything blocks.

pub mod case;
pub mod dataplane;
mod ethtool;
pub mod metric;
mod namespace;
pub mod policy;
mod profile;
pub mod report;
mod rigs;
pub mod scale;
pub mod system;
mod tables;
pub mod targets;
mod traffic;
mod veth;

pub use case::Case;
pub use metric::Metric;
pub use system::System;
