//! What a text claims of its policy: assertions, to be proved, and tests, to be run.

use std::collections::BTreeSet;

use crate::address::AddressSet;
use crate::diagnostic::Span;
use crate::packet::Packet;
use crate::term::{PredId, TermId};

/// A resolved assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// What shall hold.
    pub kind: ClaimKind,
    /// Only packets for which this holds are meant.
    pub(crate) condition: Option<PredId>,
    /// Where it stands.
    pub span: Span,
    /// The assertion as written, on one line.
    pub text: String,
}

/// What shall hold of a policy.
#[derive(Clone, Debug, PartialEq)]
pub enum ClaimKind {
    /// Every packet that the first sends to the second arrives there.
    Reach(Group, Group),
    /// Neither can begin a connection to the other.
    Isolated {
        /// One side.
        left: Group,
        /// The other.
        right: Group,
        /// Nor can they answer.
        both: bool,
    },
    /// Whatever comes from `from` to `to` has passed `via`.
    Waypoint {
        /// Where it starts.
        from: Group,
        /// Where it ends.
        to: Group,
        /// What it passes.
        via: Box<Group>,
    },
    /// No packet is sent around for ever.
    LoopFree,
    /// Whatever is sent on arrives somewhere.
    NoBlackHole,
    /// The same comes out of both.
    Equal(Operand, Operand),
    /// Whatever comes out of the first also comes out of the second.
    Contained(Operand, Operand),
}

/// One side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A policy, compared by the packets it makes.
    Policy(TermId),
    /// A predicate, compared by the packets it holds for.
    Predicate(PredId),
}

/// Who sends or receives.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// As written.
    pub name: String,
    /// The addresses of its endpoints, and those of the Internet when that belongs to it.
    pub addresses: AddressSet,
    /// The endpoints.
    pub members: Vec<Member>,
    /// Single addresses in it that no endpoint has: packets can be sent to them all the same.
    pub unowned: Vec<std::net::IpAddr>,
    /// Packets may also enter from outside, from these addresses.
    pub outside: Option<AddressSet>,
    /// It is a network that no packets are routed to or from.
    pub is_apart: bool,
}

/// An endpoint of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its MAC address.
    pub mac: u64,
}

impl Group {
    /// Numbers of the endpoints.
    #[must_use]
    pub fn numbers(&self) -> BTreeSet<u32> {
        self.members.iter().map(|m| m.number).collect()
    }
}

/// A test in the language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketTest {
    /// What it shows.
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// Packets with what shall become of them.
    pub cases: Vec<PacketCase>,
}

/// One case of a test: the same of every packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketCase {
    /// Packets as they enter.
    pub packets: Vec<Packet>,
    /// What shall become of each.
    pub expected: Expectation,
    /// Where the case stands.
    pub span: Span,
}

/// What shall become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Nothing comes out, with this label when one is given.
    Drop(Option<String>),
    /// A copy comes out; to one of these endpoints, and with this label, when they are given.
    Forward(Option<Vec<Member>>, Option<String>),
}
