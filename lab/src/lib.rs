//! Multi-cloud topologies in network namespaces on one machine.
//!
//! A lab has nodes in cloud regions, each a network namespace with an underlay
//! address of its own, a link emulator that carries every underlay frame with
//! the delay, jitter, loss, rate and queue of its ordered pair of nodes, and
//! workloads, each a namespace whose network device hangs on a node. Programs
//! run on nodes and in workloads as ordinary processes; the traffic is real.
//!
//! Where to begin reading: [`topology`] (what a lab consists of), [`Lab`]
//! (bringing it up and changing it), [`traffic`] (small programs that serve,
//! send and measure), [`client`] (labs of other processes), and for the
//! emulator the file `emulator/shaper.rs`.
//!
//! What is promised: names and mounts are recorded before they are made, so
//! that [`sweep`] removes what a killed owner left, and only that; every frame
//! the emulator reads is delivered or in a drop log with its reason; the
//! emulator reports how late it was. The lab knows nothing of Sunwire's agents
//! and controllers: who starts them gets a [`NodeHandle`].
//!
//! Everything here blocks and enters namespaces on threads of its own.
//!
//! ```no_run
//! use std::process::Command;
//! use std::time::Duration;
//!
//! use sunwire_lab::traffic::http::{self, HttpServer};
//! use sunwire_lab::traffic::ping::{PingOptions, ping};
//! use sunwire_lab::{
//!     Lab, LinkChange, LinkEnds, Shutdown, Topology, WorkloadSpec, eventually, expect_no_ping,
//!     expect_ping,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shutdown = Shutdown::on_signals()?;
//! let topology = Topology::builder()
//!     .id("shop")
//!     .node("aws", "aws:us-east-1")
//!     .node("azure", "azure:westeurope")
//!     .controller("aws:us-east-1")
//!     .link(LinkEnds::between("aws", "azure"), LinkChange::loss(0.001))
//!     .workload(WorkloadSpec::new("web", "aws", "shop").address("10.20.0.10/24")?)
//!     .build()?;
//! let lab = Lab::up(topology)?;
//! let (aws, azure) = (lab.node("aws")?, lab.node("azure")?);
//!
//! // A process on a node; its output is in the lab's log directory.
//! let mut agent = Command::new("sunwire");
//! agent.arg("agent").env("BPF_DIR", &aws.bpf_dir);
//! let _agent = aws.spawn_logged("agent", agent)?;
//!
//! // Measure, change a link, measure again.
//! expect_ping(aws, azure.underlay_address.into())?;
//! let options = PingOptions::default();
//! let before = ping(&aws.namespace, azure.underlay_address.into(), options)?;
//! lab.set_link_both("aws", "azure", LinkChange::delay_ms(100.0))?;
//! let after = ping(&aws.namespace, azure.underlay_address.into(), options)?;
//! println!("{:?} ms, then {:?} ms", before.median_ms(), after.median_ms());
//! lab.set_link("azure", "aws", LinkChange::up(false))?;
//! expect_no_ping(aws, azure.underlay_address.into(), Duration::from_secs(1))?;
//!
//! // Move a workload's device; the agent at the destination sets it up.
//! let web = lab.workload("web")?;
//! let times = lab.move_host_side(&web, aws, azure)?;
//! println!("moved in {} ns", times.finished_ns - times.started_ns);
//! eventually("the device to be up", Duration::from_secs(10), || {
//!     matches!(web.host_device(), Ok(Some(device)) if device.up)
//! })?;
//! let server = HttpServer::start(web.namespace(), "10.20.0.10:80".parse()?, "web")?;
//! let answer = http::get(web.namespace(), server.address(), Duration::from_secs(1))?;
//! assert_eq!(answer.body, "web");
//!
//! // How well the emulator kept its times, and what it dropped.
//! for link in lab.report()?.links {
//!     println!("{} to {}: {:?} {:?}", link.from, link.to, link.lateness, link.dropped);
//! }
//! shutdown.wait();
//! lab.down()?;
//! # Ok(())
//! # }
//! ```

mod assertions;
mod control;
mod emulator;
mod error;
mod lab;
mod link;
mod mac;
pub mod matrix;
mod netlink;
mod netns;
mod node;
mod realtime;
mod signals;
mod state;
mod sys;
pub mod topology;
pub mod traffic;
mod workload;

pub use assertions::{eventually, eventually_ok, expect_no_ping, expect_ping, patient};
pub use control::client;
pub use control::{Request, Response};
pub use emulator::{
    DropReason, DropRecord, DroppedFrame, DroppedFrames, EmulatorReport, HEAD_BYTES, Lateness,
    LinkReport, UnroutedReport,
};
pub use error::LabError;
pub use lab::Lab;
pub use link::{
    DELAY_MS_MAX, LinkChange, LinkError, LinkParams, QUEUE_PACKETS_DEFAULT, QueueLimit,
    RATE_MBPS_MAX,
};
pub use mac::{Mac, MacError};
pub use netlink::Device;
pub use netns::{NETNS_DIR, Namespace};
pub use node::{NodeHandle, UNDERLAY_DEVICE};
pub use realtime::{
    EMULATOR_PRIORITY, MEASURING_PRIORITY, measure_in_real_time, monotonic_ns, unix_ns,
};
pub use signals::Shutdown;
pub use state::{LabRecord, NodeRecord, Owner, STATE_DIR, WorkloadRecord, sweep};
pub use topology::{LinkEnds, Topology, TopologyError, Underlay, WorkloadSpec};
pub use workload::{MoveTimes, WORKLOAD_DEVICE, Workload};
