//! What the kernel programs and user space share: map layouts, wire headers, drop reasons, and
//! the two pieces of code that run on both sides, bounded parsing and the walk of the flow tables.
//!
//! This crate is `no_std`, depends on nothing, and is the only home of a type that crosses the
//! kernel boundary. A layout is written once, here, with its size asserted at compile time.
//!
//! - [`address`]: addresses as the words they are loaded in.
//! - [`audit`]: what a staged policy would have done.
//! - [`capacity`]: how much a node's maps hold.
//! - [`headers`]: bytes of a frame to the headers that policy can test.
//! - [`flow_key`]: the headers as the values that flow tables test.
//! - [`flow`]: one entry per flow: its connection and the verdict on it.
//! - [`flow_table`]: where an entry lies, and how it is found, added and forgotten.
//! - [`fragment`]: what fragments after the first have not.
//! - [`expiry`]: how long a flow is kept, and how flows are told to the agent.
//! - [`tables`]: the nodes and verdicts of the flow tables, and the walk.
//! - [`entries`]: keys and values of every other map.
//! - [`group`]: sets of endpoints that one packet goes to.
//! - [`punt`]: what workloads ask of the node itself.
//! - [`probe`]: what nodes ask each other to learn how a tunnel is.
//! - [`vxlan`]: the outer header of a tunnelled packet (RFC 7348).
//! - [`outbound`]: packets that leave the cloud, and what comes back.
//! - [`wire`]: point-to-point connectors between two endpoints.
//! - [`event`]: what became of one packet, for whoever listens.
//! - [`drop_reason`]: why a packet was not delivered.
//!
//! # Example
//!
//! ```
//! use sunwire_dataplane_common::headers::{Headers, Parsed};
//!
//! // A bare ARP frame is no IP packet, and that is not an error.
//! let mut frame = [0u8; 42];
//! frame[12..14].copy_from_slice(&0x0806u16.to_be_bytes());
//! let Ok(Parsed { headers, .. }) = Headers::parse(&frame.as_slice()) else { panic!() };
//! assert_eq!(headers.ether_type, 0x0806);
//! ```
#![no_std]
#![forbid(unsafe_code)]

pub mod address;
pub mod audit;
pub mod bytes;
pub mod capacity;
pub mod drop_reason;
pub mod entries;
pub mod event;
pub mod expiry;
pub mod flow;
pub mod flow_key;
pub mod flow_table;
pub mod fragment;
pub mod group;
pub mod headers;
pub mod limit;
pub mod outbound;
pub mod probe;
pub mod punt;
pub mod tables;
pub mod vxlan;
pub mod wire;
