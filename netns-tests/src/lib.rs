//! End-to-end runs of the whole system in network namespaces: demos, benchmarks, and what their
//! tests share.
//!
//! - [`cloud`]: a lab with a controller and an agent on every node, as real processes.
//! - [`bench`]: measurements beside the kernel's own ways, taken in turns.
//! - [`demo`]: stories with measured claims.
//! - [`soak`]: all of it at once, for long, with every lost packet accounted for.
//! - [`capture`]: what packets arrive in a namespace, by the fields a claim is about.

pub mod bench;
pub mod capture;
pub mod cloud;
pub mod demo;
pub mod soak;
