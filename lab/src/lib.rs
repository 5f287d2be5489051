//! Multi-cloud topologies in network namespaces on one machine.
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
mod state;
mod sys;
pub mod topology;
pub mod traffic;
mod workload;

pub use assertions::{eventually, eventually_ok, expect_no_ping, expect_ping};
pub use control::client;
pub use control::{Request, Response};
pub use emulator::{DropReason, DropRecord, EmulatorReport, Lateness, LinkReport, UnroutedReport};
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
pub use state::{LabRecord, NodeRecord, Owner, STATE_DIR, WorkloadRecord, sweep};
pub use topology::{LinkEnds, Topology, TopologyError, WorkloadSpec};
pub use workload::{MoveTimes, WORKLOAD_DEVICE, Workload};
