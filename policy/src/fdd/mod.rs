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
mod sequence;
mod store;

pub use store::{Action, Id, Leaf, Node, Store, TooLarge};

use crate::field::Field;

/// Number of fields that a diagram tests: all but the two of VLAN tags, which are always zero.
pub const TESTED: usize = 16;

/// The order in which a diagram tests fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order(pub [Field; TESTED]);

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
        ])
    }
}

impl Order {
    /// The place of a field in the order; [`TESTED`] for a field that is not tested.
    #[must_use]
    pub fn rank(&self, field: Field) -> u8 {
        self.0.iter().position(|f| *f == field).unwrap_or(TESTED) as u8
    }
}
