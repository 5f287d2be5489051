//! Which packets are replies to what a policy admits: `established`.
//!
//! A reply is admitted when its reverse would be admitted as the first packet of a connection. What
//! of the reverse packet cannot be known from the reply (where it entered, its DSCP, its bucket and
//! token) is taken for whatever admits it, and a star for admitting everything: the predicate holds
//! for at least the replies of admitted connections. Connection tracking narrows it down to the
//! connections that there are.

use std::collections::HashMap;

use super::Resolver;
use crate::diagnostic::Span;
use crate::field::{Connection, Field};
use crate::packet::Packet;
use crate::term::{Pred, PredId, Term, TermId};

/// Arms in one conditional on what a reply does not tell; beyond, everything may be admitted.
const MAX_LOOSE_ARMS: usize = 64;

#[derive(Default)]
struct Memo {
    /// What lets something out of a term that then passes a predicate.
    admits: HashMap<(TermId, PredId), PredId>,
    /// A predicate of the first packet of a connection.
    first: HashMap<PredId, PredId>,
    reversed: HashMap<(PredId, bool), PredId>,
    loose: HashMap<PredId, bool>,
}

impl Resolver<'_> {
    /// Holds for the packets whose reverse the policy lets out as the first of a connection.
    pub(super) fn reverse_of_policy(&mut self, policy: TermId, _span: Span) -> PredId {
        let mut memo = Memo::default();
        let always = self.arena.predicate(Pred::True);
        let admitted = self.admits(&mut memo, policy, always);
        self.reversed(&mut memo, admitted, true)
    }

    /// Holds for the packets for whose reverse the predicate holds as the first of a connection.
    pub(super) fn reverse_of_predicate(&mut self, predicate: PredId) -> PredId {
        let mut memo = Memo::default();
        let first = self.first(&mut memo, predicate);
        self.reversed(&mut memo, first, true)
    }

    /// The weakest condition under which something comes out of `term` for which `then` holds.
    fn admits(&mut self, memo: &mut Memo, term: TermId, then: PredId) -> PredId {
        if let Some(done) = memo.admits.get(&(term, then)) {
            return *done;
        }
        let done = match self.arena.terms[term.0 as usize].clone() {
            Term::Filter(predicate) => {
                let predicate = self.first(memo, predicate);
                self.both(predicate, then)
            }
            Term::SetNumber(field, value) => self.with_number(then, field, value),
            Term::SetPort(value, _) => self.with_number(then, Field::Port, value),
            Term::SetAddress(field, address) => {
                let mut packet = Packet::default();
                packet.set_address(field, address);
                self.with(then, field, &packet)
            }
            Term::Drop(_) => self.arena.predicate(Pred::False),
            Term::Dup => then,
            Term::Union(arms) => {
                let arms: Vec<PredId> = arms
                    .iter()
                    .map(|arm| self.admits(memo, *arm, then))
                    .collect();
                self.any(&arms)
            }
            Term::Sequence(parts) => parts
                .iter()
                .rev()
                .fold(then, |then, part| self.admits(memo, *part, then)),
            Term::Star(_) => self.arena.predicate(Pred::True),
            Term::Conditional(arms, otherwise) => {
                let arms: Vec<(PredId, PredId)> = arms
                    .iter()
                    .map(|(condition, body)| {
                        (self.first(memo, *condition), self.admits(memo, *body, then))
                    })
                    .collect();
                let otherwise = self.admits(memo, otherwise, then);
                self.arena
                    .predicate(Pred::Conditional(arms.into(), otherwise))
            }
        };
        memo.admits.insert((term, then), done);
        done
    }

    /// A predicate as it is of the first packet of a connection.
    fn first(&mut self, memo: &mut Memo, predicate: PredId) -> PredId {
        if let Some(done) = memo.first.get(&predicate) {
            return *done;
        }
        let done = match self.arena.predicates[predicate.0 as usize].clone() {
            Pred::Number(Field::Connection, ranges) => {
                let new = Connection::New as u64;
                let holds = ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&new));
                self.constant(holds)
            }
            // A first packet is no reply.
            Pred::Reverse => self.constant(false),
            other => self.map(other, &mut |resolver, part| resolver.first(memo, part)),
        };
        memo.first.insert(predicate, done);
        done
    }

    /// The predicate with a number put in the place of a field.
    fn with_number(&mut self, predicate: PredId, field: Field, value: u64) -> PredId {
        let mut packet = Packet::default();
        packet.set_number(field, value);
        self.with(predicate, field, &packet)
    }

    /// The predicate with a packet's value put in the place of a field.
    fn with(&mut self, predicate: PredId, field: Field, packet: &Packet) -> PredId {
        let mut done = HashMap::new();
        self.with_value(&mut done, predicate, field, packet)
    }

    fn with_value(
        &mut self,
        done: &mut HashMap<PredId, PredId>,
        predicate: PredId,
        field: Field,
        packet: &Packet,
    ) -> PredId {
        if let Some(known) = done.get(&predicate) {
            return *known;
        }
        let made = match self.arena.predicates[predicate.0 as usize].clone() {
            Pred::Number(tested, ranges) if tested == field => {
                let value = packet.number(field);
                let holds = ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&value));
                self.constant(holds)
            }
            Pred::Address(tested, set) if tested == field => {
                let holds = self.arena.sets[set.0 as usize].contains(packet.address(field));
                self.constant(holds)
            }
            other => self.map(other, &mut |resolver, part| {
                resolver.with_value(done, part, field, packet)
            }),
        };
        done.insert(predicate, made);
        made
    }

    /// The predicate as it is of the reverse of a packet: at most what holds when `wide` is false,
    /// at least what holds when it is true.
    fn reversed(&mut self, memo: &mut Memo, predicate: PredId, wide: bool) -> PredId {
        if let Some(done) = memo.reversed.get(&(predicate, wide)) {
            return *done;
        }
        let done = match self.arena.predicates[predicate.0 as usize].clone() {
            Pred::Number(field, ranges) => match field {
                field if is_loose(field) => self.constant(wide),
                Field::IcmpType => {
                    // A packet that is no ICMP packet has type zero, and its reply as well.
                    let icmp = self.number(Field::Protocol, &[(1, 1), (58, 58)]);
                    let answers = self.number(field, &answered(&ranges));
                    let same = self.number(field, &ranges);
                    let arms = Box::new([(icmp, answers)]);
                    self.arena.predicate(Pred::Conditional(arms, same))
                }
                field => self.arena.predicate(Pred::Number(opposite(field), ranges)),
            },
            Pred::Address(field, set) => self.arena.predicate(Pred::Address(opposite(field), set)),
            Pred::Not(inner) => {
                let inner = self.reversed(memo, inner, !wide);
                self.opposite_of(inner)
            }
            Pred::Conditional(arms, otherwise) => {
                self.reversed_conditional(memo, &arms, otherwise, wide)
            }
            other => self.map(other, &mut |resolver, part| {
                resolver.reversed(memo, part, wide)
            }),
        };
        memo.reversed.insert((predicate, wide), done);
        done
    }

    /// A condition of which a reply does not tell whether it held leads to either side.
    fn reversed_conditional(
        &mut self,
        memo: &mut Memo,
        arms: &[(PredId, PredId)],
        otherwise: PredId,
        wide: bool,
    ) -> PredId {
        let loose = arms
            .iter()
            .filter(|(c, _)| self.tests_loose(memo, *c))
            .count();
        if loose > MAX_LOOSE_ARMS {
            return self.constant(wide);
        }
        let mut below = self.reversed(memo, otherwise, wide);
        let mut plain: Vec<(PredId, PredId)> = Vec::new();
        for (condition, body) in arms.iter().rev() {
            let body = self.reversed(memo, *body, wide);
            if !self.tests_loose(memo, *condition) {
                plain.push((self.reversed(memo, *condition, true), body));
                continue;
            }
            below = self.chain(&mut plain, below);
            let may = self.reversed(memo, *condition, true);
            let must = self.reversed(memo, *condition, false);
            let (held, failed) = (may, self.opposite_of(must));
            below = if wide {
                let here = self.both(held, body);
                let on = self.both(failed, below);
                self.any(&[here, on])
            } else {
                let (not_held, not_failed) = (self.opposite_of(held), self.opposite_of(failed));
                let here = self.any(&[not_held, body]);
                let on = self.any(&[not_failed, below]);
                self.both(here, on)
            };
        }
        self.chain(&mut plain, below)
    }

    /// Arms, last first, before what is below them.
    fn chain(&mut self, arms: &mut Vec<(PredId, PredId)>, below: PredId) -> PredId {
        if arms.is_empty() {
            return below;
        }
        let arms: Vec<_> = arms.drain(..).rev().collect();
        self.arena.predicate(Pred::Conditional(arms.into(), below))
    }

    /// Whether a predicate tests what a reply does not tell.
    fn tests_loose(&self, memo: &mut Memo, predicate: PredId) -> bool {
        if let Some(known) = memo.loose.get(&predicate) {
            return *known;
        }
        let loose = match &self.arena.predicates[predicate.0 as usize] {
            Pred::Number(field, _) => is_loose(*field),
            Pred::True | Pred::False | Pred::Address(..) | Pred::Reverse => false,
            Pred::Not(inner) => self.tests_loose(memo, *inner),
            Pred::And(parts) | Pred::Or(parts) => {
                parts.iter().any(|part| self.tests_loose(memo, *part))
            }
            Pred::Conditional(arms, otherwise) => {
                arms.iter()
                    .any(|(c, p)| self.tests_loose(memo, *c) || self.tests_loose(memo, *p))
                    || self.tests_loose(memo, *otherwise)
            }
        };
        memo.loose.insert(predicate, loose);
        loose
    }

    /// Rebuilds a predicate of changed parts.
    fn map(
        &mut self,
        predicate: Pred,
        change: &mut dyn FnMut(&mut Self, PredId) -> PredId,
    ) -> PredId {
        match predicate {
            Pred::Not(inner) => {
                let inner = change(self, inner);
                self.opposite_of(inner)
            }
            Pred::And(parts) => {
                let parts: Vec<PredId> = parts.iter().map(|part| change(self, *part)).collect();
                self.all(&parts)
            }
            Pred::Or(parts) => {
                let parts: Vec<PredId> = parts.iter().map(|part| change(self, *part)).collect();
                self.any(&parts)
            }
            Pred::Conditional(arms, otherwise) => {
                let arms: Box<[_]> = arms
                    .iter()
                    .map(|(condition, then)| (change(self, *condition), change(self, *then)))
                    .collect();
                let otherwise = change(self, otherwise);
                self.arena.predicate(Pred::Conditional(arms, otherwise))
            }
            leaf => self.arena.predicate(leaf),
        }
    }

    pub(super) fn constant(&mut self, holds: bool) -> PredId {
        self.arena
            .predicate(if holds { Pred::True } else { Pred::False })
    }

    fn is(&self, predicate: PredId, constant: bool) -> bool {
        matches!(
            (&self.arena.predicates[predicate.0 as usize], constant),
            (Pred::True, true) | (Pred::False, false)
        )
    }

    fn opposite_of(&mut self, predicate: PredId) -> PredId {
        match self.arena.predicates[predicate.0 as usize] {
            Pred::True => self.constant(false),
            Pred::False => self.constant(true),
            Pred::Not(inner) => inner,
            _ => self.arena.predicate(Pred::Not(predicate)),
        }
    }

    fn both(&mut self, left: PredId, right: PredId) -> PredId {
        self.all(&[left, right])
    }

    fn all(&mut self, parts: &[PredId]) -> PredId {
        self.joined(parts, true)
    }

    fn any(&mut self, parts: &[PredId]) -> PredId {
        self.joined(parts, false)
    }

    /// `and` when `unit` is true, `or` when it is false.
    fn joined(&mut self, parts: &[PredId], unit: bool) -> PredId {
        if parts.iter().any(|part| self.is(*part, !unit)) {
            return self.constant(!unit);
        }
        let kept: Vec<PredId> = parts
            .iter()
            .copied()
            .filter(|p| !self.is(*p, unit))
            .collect();
        match *kept {
            [] => self.constant(unit),
            [one] => one,
            _ if unit => self.arena.predicate(Pred::And(kept.into())),
            _ => self.arena.predicate(Pred::Or(kept.into())),
        }
    }
}

/// The field of the reverse packet that holds what this one holds.
const fn opposite(field: Field) -> Field {
    match field {
        Field::Source => Field::Destination,
        Field::Destination => Field::Source,
        Field::SourcePort => Field::DestinationPort,
        Field::DestinationPort => Field::SourcePort,
        Field::EthSource => Field::EthDestination,
        Field::EthDestination => Field::EthSource,
        other => other,
    }
}

/// Whether a reply does not tell what the field was in the packet that it answers.
const fn is_loose(field: Field) -> bool {
    matches!(
        field,
        Field::Port | Field::Node | Field::Dscp | Field::IcmpCode
    ) || field.is_virtual()
}

/// Types of ICMP and ICMPv6 answers to the types in these ranges: an echo reply to an echo
/// request and the other way round (RFC 792, RFC 4443).
fn answered(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let answer = |kind: u64| match kind {
        0 => 8,
        8 => 0,
        128 => 129,
        129 => 128,
        other => other,
    };
    let mut out: Vec<(u64, u64)> = Vec::new();
    for kind in 0..=Field::IcmpType.max() {
        let asked = answer(kind);
        if ranges
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&asked))
        {
            match out.last_mut() {
                Some((_, last)) if *last + 1 == kind => *last = kind,
                _ => out.push((kind, kind)),
            }
        }
    }
    out
}
