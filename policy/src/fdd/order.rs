//! The order in which a diagram tests fields, chosen for each compilation.
//!
//! Any order gives tables with the same meaning; their size may differ by orders of magnitude. The
//! size of a diagram is bounded by what has to be remembered between tests, so what takes a policy
//! apart into independent parts is tested first:
//!
//! - Most policies are about who talks to whom. Destination and source come first, since the classes
//!   of a packet's addresses are known before anything else is; then what is talked; then the rest.
//! - A union over nodes or endpoints, each with rules of its own ("at node 7 …"), is a different
//!   policy for each. With addresses first, every address would have an edge for every node; with
//!   the node first, each part is as small as when compiled by itself.
//!
//! The rule reads the policy once, and never the addresses in its sets: so a change of an endpoint
//! leaves the order, and with it the tables, as they are.

use std::collections::BTreeSet;

use super::TESTED;
use crate::field::Field;
use crate::term::{Pred, PredId, Resolved, Term, TermId};

/// The order in which a diagram tests fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order(pub [Field; TESTED]);

/// Fields that may take a policy apart, in the order in which they would be tested.
const PLACES: [Field; 2] = [Field::Node, Field::Port];
/// Parts below which the order of tests hardly matters.
const FEW: usize = 4;

impl Order {
    /// The place of a field in the order; [`TESTED`] for a field that is not tested.
    #[must_use]
    pub fn rank(&self, field: Field) -> u8 {
        self.0.iter().position(|f| *f == field).unwrap_or(TESTED) as u8
    }

    /// The order that suits a policy.
    #[must_use]
    pub fn for_policy(policy: &Resolved) -> Self {
        let arms = arms(policy);
        let mut first: Vec<Field> = Vec::new();
        for field in PLACES {
            let values: Vec<u64> = arms
                .iter()
                .filter_map(|arm| arm.value(policy, field))
                .collect();
            let distinct: BTreeSet<u64> = values.iter().copied().collect();
            // Nearly all arms are for one place each, and there are many places.
            if distinct.len() >= FEW && values.len() * 4 >= arms.len() * 3 {
                first.push(field);
            }
        }
        Order::default().starting_with(&first)
    }

    /// The same order with some fields before all others.
    #[must_use]
    pub fn starting_with(&self, first: &[Field]) -> Self {
        let rest = self.0.iter().filter(|field| !first.contains(field));
        let mut order = *self;
        for (place, field) in order.0.iter_mut().zip(first.iter().chain(rest)) {
            *place = *field;
        }
        order
    }
}

/// A part of a policy beside others: what it filters by first.
struct Arm(Vec<PredId>);

impl Arm {
    /// The one value that the arm asks of a field, if it asks for one.
    fn value(&self, policy: &Resolved, field: Field) -> Option<u64> {
        let mut open = self.0.clone();
        while let Some(predicate) = open.pop() {
            match policy.predicate(predicate) {
                Pred::Number(f, ranges) if *f == field => match **ranges {
                    [(first, last)] if first == last => return Some(first),
                    _ => {}
                },
                Pred::And(parts) => open.extend(parts.iter().copied()),
                _ => {}
            }
        }
        None
    }
}

/// The arms of the unions and conditionals that are not inside of anything else.
fn arms(policy: &Resolved) -> Vec<Arm> {
    let mut out = Vec::new();
    // Terms with the filters in front of them.
    let mut open: Vec<TermId> = vec![policy.root];
    while let Some(term) = open.pop() {
        match policy.term(term) {
            Term::Union(arms) => open.extend(arms.iter().copied()),
            Term::Conditional(arms, otherwise) => {
                out.extend(arms.iter().map(|(condition, _)| Arm(vec![*condition])));
                // A chain of conditionals is one.
                if matches!(policy.term(*otherwise), Term::Conditional(..)) {
                    open.push(*otherwise);
                }
            }
            Term::Sequence(parts) => {
                let filters = parts.iter().map_while(|part| match policy.term(*part) {
                    Term::Filter(predicate) => Some(*predicate),
                    _ => None,
                });
                out.push(Arm(filters.collect()));
            }
            Term::Filter(predicate) => out.push(Arm(vec![*predicate])),
            _ => out.push(Arm(Vec::new())),
        }
    }
    out
}
