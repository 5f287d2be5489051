//! Commands that ask the controller by REST: one file for each kind of resource.

mod connection;
pub(crate) mod counters;
pub(crate) mod encryption;
pub(crate) mod endpoint;
mod guard;
pub(crate) mod network;
pub(crate) mod node;
pub(crate) mod status;
pub(crate) mod wire;

pub(crate) use connection::{Connection, REST_PORT};
pub(crate) use guard::{ForceArgs, GuardArgs};

/// Longest wait that the controller grants, in seconds.
pub(crate) const WAIT_SECONDS_MAX: u64 = 300;
