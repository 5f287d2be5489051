//! What workloads ask of their node, and the answers: addresses, routers, names.
//!
//! ```text
//! programs --PUNTS--> [ring] --> handler of its kind --> frame --> [socket] --> workload
//!                                    ^
//! agent ----------[directory]--------'  who is here, what the networks are, who has which name
//! ```
//!
//! - [`ring`]: frames as the programs hand them over.
//! - [`directory`]: what is known about askers, from the desired state alone.
//! - [`handler`]: what answers; to add one, see [`Handlers`].
//! - [`socket`]: frames to workloads.
//! - [`server`]: the loop that joins these.
//!
//! Who listens to multicast is asked here too: what workloads report is told by
//! [`Services::heard`].
//!
//! Nothing here allots anything: an address is what the controller gave the endpoint, so an answer
//! is the same on every node and after every restart. Handlers take frames and return frames; the
//! loop has the clock and the sockets. A frame that makes no sense is counted and not answered.

mod dhcp4;
mod dhcp6;
mod dhcp_options;
pub mod directory;
mod dns;
mod frame;
pub mod handler;
mod igmp;
mod listening;
mod mld;
pub mod ring;
mod router;
pub mod server;
pub mod socket;
#[cfg(test)]
mod tests;

pub use directory::Directory;
pub use handler::{Answer, Handler, Handlers, Malformed, Node};
pub use ring::{Punt, Punts};
pub use server::{Services, ServicesError};
