//! A resolved policy: no names, no sugar, every value checked. The common language of the
//! evaluator and the compiler.
//!
//! Terms and predicates stand in two vectors and refer to each other by index, always backwards, so
//! a definition that is used often exists once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::address::{Address, AddressSet};
use crate::diagnostic::Span;
use crate::field::Field;
use crate::packet::{LabelId, NO_LABEL};

/// Index of a policy term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TermId(pub(crate) u32);

/// Index of a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PredId(pub(crate) u32);

/// Index of an address set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub(crate) u32);

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// Keeps the packets for which the predicate holds.
    Filter(PredId),
    /// Sets a numeric field.
    SetNumber(Field, u64),
    /// Sets the source or the destination address.
    SetAddress(Field, Address),
    /// Any assignment or verb that says where a packet goes, with its label.
    SetPort(u64, LabelId),
    /// Drops, with a label.
    Drop(LabelId),
    /// All of these on copies of the packet.
    Union(Box<[TermId]>),
    /// One after the other.
    Sequence(Box<[TermId]>),
    /// Any number of times.
    Star(TermId),
    /// The first arm whose predicate holds, else the last term.
    Conditional(Box<[(PredId, TermId)]>, TermId),
}

/// A predicate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pred {
    /// Always.
    True,
    /// Never.
    False,
    /// The field is in one of the ranges, which are sorted, disjoint, both ends included.
    Number(Field, Box<[(u64, u64)]>),
    /// The address is in the set.
    Address(Field, SetId),
    /// All of these.
    And(Box<[PredId]>),
    /// Any of these.
    Or(Box<[PredId]>),
    /// The opposite.
    Not(PredId),
}

/// The network that a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyNetwork {
    /// Its name.
    pub name: String,
    /// VXLAN network identifier.
    pub vni: u32,
}

/// A resolved policy.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The network that it is for.
    pub network: PolicyNetwork,
    /// Name of the policy.
    pub policy: String,
    pub(crate) terms: Vec<Term>,
    pub(crate) predicates: Vec<Pred>,
    pub(crate) sets: Vec<AddressSet>,
    pub(crate) root: TermId,
    /// Text of every label, by its place in the source.
    pub(crate) labels: BTreeMap<LabelId, String>,
    /// Where each field is first assigned; addresses by family, as only one can be rewritten.
    pub(crate) assigned: BTreeMap<AssignedField, Span>,
    /// Numbers of the endpoints of the network.
    pub(crate) endpoints: BTreeSet<u32>,
    /// Where the policy is defined.
    pub(crate) span: Span,
    pub(crate) source: Arc<str>,
}

/// A field for the question whether packets can be rewritten in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AssignedField {
    Number(Field),
    V4(Field),
    V6(Field),
}

impl Resolved {
    /// The text of a label; the default texts name the policy.
    #[must_use]
    pub fn label(&self, label: LabelId, dropped: bool) -> String {
        match self.labels.get(&label) {
            Some(text) if label != NO_LABEL => text.clone(),
            _ if dropped => format!("{}: drop", self.policy),
            _ => format!("{}: not forwarded", self.policy),
        }
    }

    pub(crate) fn term(&self, id: TermId) -> &Term {
        &self.terms[id.0 as usize]
    }

    pub(crate) fn predicate(&self, id: PredId) -> &Pred {
        &self.predicates[id.0 as usize]
    }

    pub(crate) fn set(&self, id: SetId) -> &AddressSet {
        &self.sets[id.0 as usize]
    }
}
