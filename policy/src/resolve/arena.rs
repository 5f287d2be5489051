//! Where terms are made: each distinct one once, with what is known about it.

use std::collections::HashMap;
use std::hash::Hash;

use crate::address::AddressSet;
use crate::field::{Field, OWNER};
use crate::term::{Pred, PredId, SetId, Term, TermId};

/// What is known of a term or predicate.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// Longest path of operations in it.
    pub(super) height: usize,
    /// Operations in it with every use written out, up to `usize::MAX`.
    pub(super) weight: usize,
    /// It may hold `forward`.
    pub(super) forwards: bool,
    /// It tests `port`.
    pub(super) tests_port: bool,
}

impl Facts {
    const LEAF: Facts = Facts {
        height: 1,
        weight: 1,
        forwards: false,
        tests_port: false,
    };

    /// Facts of an operation on others.
    fn over(parts: impl Iterator<Item = Facts>) -> Facts {
        parts.fold(Facts::LEAF, |all, part| Facts {
            height: all.height.max(part.height + 1),
            weight: all.weight.saturating_add(part.weight),
            forwards: all.forwards | part.forwards,
            tests_port: all.tests_port | part.tests_port,
        })
    }
}

/// The terms and predicates of a document.
#[derive(Default)]
pub(super) struct Arena {
    pub(super) terms: Vec<Term>,
    pub(super) predicates: Vec<Pred>,
    pub(super) sets: Vec<AddressSet>,
    term_facts: Vec<Facts>,
    predicate_facts: Vec<Facts>,
    known_terms: HashMap<Term, u32>,
    known_predicates: HashMap<Pred, u32>,
}

fn intern<T: Clone + Eq + Hash>(
    value: T,
    values: &mut Vec<T>,
    known: &mut HashMap<T, u32>,
    all_facts: &mut Vec<Facts>,
    facts: Facts,
) -> u32 {
    if let Some(id) = known.get(&value) {
        return *id;
    }
    let id = values.len() as u32;
    known.insert(value.clone(), id);
    values.push(value);
    all_facts.push(facts);
    id
}

impl Arena {
    pub(super) fn term(&mut self, term: Term) -> TermId {
        let facts = self.facts_of_term(&term);
        TermId(intern(
            term,
            &mut self.terms,
            &mut self.known_terms,
            &mut self.term_facts,
            facts,
        ))
    }

    pub(super) fn predicate(&mut self, predicate: Pred) -> PredId {
        let facts = self.facts_of_predicate(&predicate);
        PredId(intern(
            predicate,
            &mut self.predicates,
            &mut self.known_predicates,
            &mut self.predicate_facts,
            facts,
        ))
    }

    pub(super) fn set(&mut self, set: AddressSet) -> SetId {
        self.sets.push(set);
        SetId(self.sets.len() as u32 - 1)
    }

    pub(super) fn facts(&self, term: TermId) -> Facts {
        self.term_facts[term.0 as usize]
    }

    pub(super) fn predicate_facts(&self, predicate: PredId) -> Facts {
        self.predicate_facts[predicate.0 as usize]
    }

    fn facts_of_term(&self, term: &Term) -> Facts {
        match term {
            Term::Filter(p) => Facts::over([self.predicate_facts(*p)].into_iter()),
            Term::SetPort(port, _) => Facts {
                forwards: *port == OWNER,
                ..Facts::LEAF
            },
            Term::SetNumber(..)
            | Term::SetAddress(..)
            | Term::Drop(_)
            | Term::Note(_)
            | Term::Dup => Facts::LEAF,
            Term::Union(parts) | Term::Sequence(parts) => {
                Facts::over(parts.iter().map(|p| self.facts(*p)))
            }
            Term::Star(body) => Facts::over([self.facts(*body)].into_iter()),
            Term::Conditional(arms, otherwise) => {
                let arms = arms
                    .iter()
                    .flat_map(|(p, t)| [self.predicate_facts(*p), self.facts(*t)]);
                Facts::over(arms.chain([self.facts(*otherwise)]))
            }
        }
    }

    fn facts_of_predicate(&self, predicate: &Pred) -> Facts {
        match predicate {
            Pred::True | Pred::False | Pred::Address(..) | Pred::Reverse => Facts::LEAF,
            Pred::Number(field, _) => Facts {
                tests_port: *field == Field::Port,
                ..Facts::LEAF
            },
            Pred::And(parts) | Pred::Or(parts) => {
                Facts::over(parts.iter().map(|p| self.predicate_facts(*p)))
            }
            Pred::Not(inner) => Facts::over([self.predicate_facts(*inner)].into_iter()),
            Pred::Conditional(arms, otherwise) => {
                let arms = arms
                    .iter()
                    .flat_map(|(p, q)| [self.predicate_facts(*p), self.predicate_facts(*q)]);
                Facts::over(arms.chain([self.predicate_facts(*otherwise)]))
            }
        }
    }
}
