//! The node agent: makes this node's kernel be what the controller wants, and tells the controller
//! what became of it.
//!
//! ```text
//! controller --gRPC--> [state] --> [dataplane] --> kernel maps, programs, links (pinned)
//!                                     ^
//! kernel ----netlink--> devices, routes, neighbours
//! ```
//!
//! - [`agent`]: the loop that listens to the controller, to the kernel and to local callers.
//! - [`state`]: the controller's messages, parsed once.
//! - [`last_known`]: the state in force, on disk for an agent that starts while the controller is away.
//! - [`dataplane`]: the whole desired state into the kernel, in an order that loses no packet.
//! - [`programs`]: loading, and where programs are attached.
//! - [`flow_map`]: policies into flow tables, all networks from one packet to the next.
//! - [`connections`]: what is remembered of flows, for how long, and how it moves with an endpoint.
//! - [`groups`]: packets for several endpoints: sets, and who listens to multicast.
//! - [`services`]: what workloads ask of the node: addresses, names, routers.
//! - [`audit`]: what staged policies would have done.
//! - [`probes`]: how each tunnel is: round trip, loss, up or down.
//! - `metrics`: what Prometheus is told.
//! - [`telemetry`]: what became of packets, told to whoever asks.
//!
//! # Example
//!
//! ```no_run
//! use std::{net::Ipv4Addr, path::Path};
//! use sunwire_userspace::{dataplane::{Dataplane, Surroundings}, maps::Capacity, state::Desired};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut dataplane = Dataplane::load(Path::new("/sys/fs/bpf/sunwire"), Capacity::default())?;
//! dataplane.attach_underlay("eth0")?;
//! let vtep = Ipv4Addr::new(192, 0, 2, 1);
//! dataplane.apply(&Desired::default(), 1, vtep, &Surroundings::default())?;
//! # Ok(())
//! # }
//! ```

pub mod agent;
pub mod audit;
mod class_map;
pub mod connections;
pub mod control;
pub mod counters;
pub mod crypt;
pub mod dataplane;
pub mod flow_map;
pub mod groups;
mod ids;
pub mod last_known;
pub mod maps;
mod metrics;
pub mod netlink;
pub mod object;
pub mod pod;
pub mod probes;
pub mod programs;
mod report;
mod routes;
pub mod services;
pub mod shadow;
pub mod state;
pub mod telemetry;
pub mod wires;
