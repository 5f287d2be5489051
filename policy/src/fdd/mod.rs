//! Forwarding decision diagrams (Smolka, Eliopoulos, Foster, Guha, ICFP 2015), with nodes of many
//! edges and labelled leaves.
//!
//! A diagram tests one field after the other in a fixed order. A node splits the whole domain of
//! its field into intervals with different children; a leaf holds the actions that are done. Equal
//! diagrams are one node in the [`Store`], so equality is equality of ids, and every operation is
//! remembered for the life of the store.
//!
//! Values are numbers throughout. An address is its class ([`crate::atoms`]), also when it is
//! assigned: every assigned address has a class of its own.

mod apply;
mod canonical;
pub(crate) mod hash;
mod order;
mod restrict;
mod sequence;
mod store;

pub use order::Order;
pub use restrict::Allowed;
pub use store::{Action, Cut, Id, Leaf, Node, Store, TooLarge};

use crate::field::Field;

/// Number of fields that a diagram tests: all but the two of VLAN tags, which are always zero.
pub const TESTED: usize = 17;

impl Default for Order {
    /// Addresses first: most policies differ by them, and the classes a packet has are known
    /// before anything else is.
    fn default() -> Self {
        Order([
            Field::Destination,
            Field::Source,
            Field::Protocol,
            Field::DestinationPort,
            Field::SourcePort,
            Field::EtherType,
            Field::IcmpType,
            Field::IcmpCode,
            Field::Dscp,
            Field::Port,
            Field::Node,
            Field::EthDestination,
            Field::EthSource,
            Field::Connection,
            Field::Bucket,
            Field::Token,
            Field::Translated,
        ])
    }
}
