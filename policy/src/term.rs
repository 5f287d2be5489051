//! A resolved policy: no names, no sugar, every value checked. The common language of the
//! evaluator and the compiler.
//!
//! Terms and predicates stand in two vectors and refer to each other by index, always backwards, so
//! a definition that is used often exists once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sunwire_dataplane_common::limit::Limit;

use crate::address::{Address, AddressSet};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::feature::Feature;
use crate::field::Field;
use crate::packet::{LabelId, NO_LABEL, Note};

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
    /// Notes that the packet came by, and lets it through.
    Note(Note),
    /// Records the packet in its history, and lets it through.
    Dup,
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
    /// The second of the first pair whose first holds, else the last.
    Conditional(Box<[(PredId, PredId)]>, PredId),
    /// The policy would let the packet's reverse out as the first of a connection: see
    /// [`Resolved::reverse`].
    Reverse,
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
    /// What becomes of packets that enter at the network's endpoints.
    pub(crate) root: TermId,
    /// The same, and of packets that enter at the endpoints of its peers.
    pub(crate) whole: TermId,
    /// The networks that packets are routed to and from.
    pub(crate) peers: BTreeSet<String>,
    /// Text of every label, by its place in the source.
    pub(crate) labels: BTreeMap<LabelId, String>,
    /// Where the statement of each label stands.
    pub(crate) label_spans: BTreeMap<LabelId, Span>,
    /// Where each field is first assigned; addresses by family, as only one can be rewritten.
    pub(crate) assigned: BTreeMap<AssignedField, Span>,
    /// Numbers of the endpoints of the network.
    pub(crate) endpoints: BTreeSet<u32>,
    /// The sets of endpoints that `flood` and `multicast` name, by the label of the verb.
    pub(crate) groups: crate::lower::group::Named,
    /// What [`Pred::Reverse`] stands for; `None` when the policy never asks.
    pub(crate) reverse: Option<PredId>,
    /// What the policy needs of the data plane beyond tables, and where it first asks for it.
    pub(crate) needs: BTreeMap<Feature, Span>,
    /// The rate of its `limit`s; zeroed when it has none.
    pub(crate) limit: Limit,
    /// What the bucket of `balance` is a hash of, bits of
    /// [`key`](sunwire_dataplane_common::tables::key); zero without `balance`.
    pub(crate) bucket: u32,
    /// Numbers of the endpoints through which packets may be sent on their way.
    pub(crate) transparent: BTreeSet<u32>,
    /// What shall hold of the policy.
    pub(crate) assertions: Vec<crate::claim::Claim>,
    /// Packets with what shall become of them.
    pub(crate) tests: Vec<crate::claim::PacketTest>,
    /// The policy has links: then nodes are places inside it, and where a packet's `node` ends
    /// means nothing.
    pub(crate) links: bool,
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
    /// What shall hold of the policy.
    #[must_use]
    pub fn assertions(&self) -> &[crate::claim::Claim] {
        &self.assertions
    }

    /// The tests in the text.
    #[must_use]
    pub fn tests(&self) -> &[crate::claim::PacketTest] {
        &self.tests
    }

    /// The text that was resolved.
    #[must_use]
    pub fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// The text of a label; the default texts name the policy.
    #[must_use]
    pub fn label(&self, label: LabelId, dropped: bool) -> String {
        match self.labels.get(&label) {
            Some(text) if label != NO_LABEL => text.clone(),
            _ if dropped => format!("{}: drop", self.policy),
            _ => format!("{}: not forwarded", self.policy),
        }
    }

    /// Where the statement of a label stands; `None` for [`NO_LABEL`].
    #[must_use]
    pub fn label_span(&self, label: LabelId) -> Option<Span> {
        self.label_spans.get(&label).copied()
    }

    /// What the policy needs of the data plane beyond tables, in the order of the text.
    #[must_use]
    pub fn needs(&self) -> Vec<(Feature, Span)> {
        let mut needs: Vec<_> = self.needs.iter().map(|(f, s)| (*f, *s)).collect();
        needs.sort_by_key(|(_, span)| span.start);
        needs
    }

    /// The refusal, by name, of what this release's data plane does not have.
    #[must_use]
    pub fn refused_features(&self) -> Vec<Diagnostic> {
        let refusal = |(feature, span): (Feature, Span)| {
            let words = self
                .source
                .get(span.start as usize..span.end as usize)
                .and_then(|text| text.split([' ', '(', '\n']).next())
                .filter(|_| !matches!(feature, Feature::Transparent))
                .unwrap_or(feature.words());
            let message = format!("`{words}` {}", feature.lacking());
            Diagnostic::new(&self.source, Code::NotSupported, span, message)
                .with_hint(feature.instead())
        };
        let needs = self.needs().into_iter();
        needs
            .filter(|(feature, _)| !feature.is_there())
            .map(refusal)
            .collect()
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
