//! DNS on the gateway's addresses (RFC 1035): the names of a network, and the way to all others.
//!
//! ```text
//! query --[answer]--> own name, own address --> answer
//!             '-----> anything else --> [forward] --> node's resolvers --> checked --> answer
//! ```
//!
//! - [`answer`]: what a query is answered with, from the directory alone.
//! - [`message`]: sizes, truncation, and which answer belongs to which question.
//! - [`forward`]: questions to the node's resolvers, bounded.
//! - [`upstream`]: which resolvers these are.
//! - [`udp`], [`tcp`] with its [`stack`]: how queries come.
//!
//! A workload is answered about its own network and no other. Names of other networks are, like
//! all names, the resolvers' to know.

pub(crate) mod answer;
pub(crate) mod forward;
pub(crate) mod message;
pub(crate) mod stack;
pub(crate) mod tcp;
pub(crate) mod udp;
pub(crate) mod upstream;
