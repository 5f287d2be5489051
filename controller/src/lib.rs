//! The controller: decides what is agreed, keeps it durably, and tells agents.
//!
//! ```text
//! REST  --> rest/ ---+                             +--> wire.rs --> sessions.rs --> agents
//!                    +--> handle.rs --> owner.rs --+
//! gRPC  --> grpc.rs -+        (one thread: state.apply, then log.append, then answers)
//! time  --> confirmations.rs
//! ```
//! [`state::State::apply`] decides, purely; [`mod@examine`] is what policies come to, made beside that
//! thread; [`log`] makes durable; everything else carries.
//!
//! ```no_run
//! use sunwire_controller::{Config, Controller};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let controller = Controller::open(&Config {
//!     rest: vec!["127.0.0.1:7510".parse()?],
//!     grpc: vec!["127.0.0.1:7511".parse()?],
//!     data_dir: "/var/lib/sunwire/controller".into(),
//! })?;
//! controller.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod analyze;
mod audit;
mod beside;
pub mod command;
mod compilations;
mod compile;
mod confirmations;
mod controller;
pub mod effects;
pub mod examine;
mod grpc;
mod handle;
pub mod listen;
mod listening;
pub mod log;
mod owner;
mod packet_json;
mod policy_check;
mod questions;
mod refusal;
mod report;
mod rest;
mod sessions;
pub mod state;
mod wire;

pub use controller::{Config, Controller, OpenError, RunError};
pub use packet_json::{PacketError, packet_of_json};
pub use refusal::Refusal;
