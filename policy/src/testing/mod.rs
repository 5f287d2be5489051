//! Generators for property tests, here and in the tests of the data plane.
//!
//! - [`environment`]: a small network with everything that names can mean.
//! - [`policies`]: random policies over it, as syntax trees; print them for text.
//! - [`packets`]: random packets that can exist on a wire and enter at its endpoints.
//! - [`programs`]: random programs for the verifier, with packets.
//! - [`targets`]: what the fuzzers feed.
//! - [`fat_tree`]: routing in fat trees, to measure the compiler by.
//! - [`for_all`]: runs a property, printing the seed that repeats it.

mod environment;
pub mod fat_tree;
mod packets;
mod policies;
pub mod programs;
mod run;
pub mod targets;

pub use environment::environment;
pub use packets::{packets, records};
pub use policies::{Kind, claims, document, policies, predicates, strip_places};
pub use run::for_all;
