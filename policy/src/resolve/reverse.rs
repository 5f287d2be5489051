//! Which packets are replies to what a policy admits: `established`.
//!
//! A reply is admitted when the packet that it answers comes out of the policy as the first of a
//! connection; where that one was rewritten, it is the rewritten packet that is answered. What
//! cannot be known from the reply (where the first packet entered, its DSCP, its bucket and token,
//! and what stood in the fields that were rewritten) is taken for whatever admits it, and a star for
//! admitting everything: the predicate holds for at least the replies of admitted connections.
//! Connection tracking narrows it down to the connections that there are.
//!
//! What speaks of a connection, such as an ICMP error, is admitted when a packet between the same
//! two addresses would be.

use std::collections::HashMap;

use super::Resolver;
use super::image::{ImageMemo, Way};
use crate::field::{Connection, Field};
use crate::term::{Pred, PredId, TermId};

/// Arms in one conditional on what a reply does not tell; beyond, everything may be admitted.
const MAX_LOOSE_ARMS: usize = 64;

/// The fields of which a packet does not tell what they were in the one that it answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Loose(u32);

impl Loose {
    /// Of every reply.
    const REPLY: Loose = Loose(0);
    /// Of what speaks of a connection.
    const RELATED: Loose = Loose(0)
        .with(Field::Protocol)
        .with(Field::SourcePort)
        .with(Field::DestinationPort)
        .with(Field::IcmpType);

    const fn with(self, field: Field) -> Self {
        Loose(self.0 | 1 << field as u32)
    }

    /// Whether the field is one of them.
    const fn holds(self, field: Field) -> bool {
        // What a type of ICMP answers depends on the protocol.
        let is_type = matches!(field, Field::IcmpType);
        is_loose(field)
            || self.0 & 1 << field as u32 != 0
            || is_type && self.0 & 1 << Field::Protocol as u32 != 0
    }
}

#[derive(Default)]
struct Memo {
    reversed: HashMap<(PredId, Loose, bool), PredId>,
    loose: HashMap<(PredId, Loose), bool>,
}

impl Resolver<'_> {
    /// Holds for replies to the packets that come out of the policy as the first of a connection,
    /// and for what speaks of such connections.
    pub(super) fn reverse_of_policy(&mut self, policy: TermId) -> PredId {
        let ways = self.ways_through(policy);
        self.answers(&ways)
    }

    /// As [`Self::reverse_of_policy`], for the packets for which a predicate holds.
    pub(super) fn reverse_of_predicate(&mut self, predicate: PredId) -> PredId {
        let first = self.first(&mut ImageMemo::default(), predicate);
        self.answers(&[Way::unwritten(first)])
    }

    fn answers(&mut self, ways: &[Way]) -> PredId {
        let mut memo = Memo::default();
        let replies = self.answers_to(&mut memo, ways, Loose::REPLY);
        let related = self.answers_to(&mut memo, ways, Loose::RELATED);
        let state = Connection::Related as u64;
        let state = self.number(Field::Connection, &[(state, state)]);
        let arms = Box::new([(state, related)]);
        self.arena.predicate(Pred::Conditional(arms, replies))
    }

    fn answers_to(&mut self, memo: &mut Memo, ways: &[Way], loose: Loose) -> PredId {
        let mut all = Vec::with_capacity(ways.len());
        for way in ways {
            // What stood in a field that is written is not to be seen any more.
            let fields = way.written.iter().map(|(field, _)| *field);
            let forgotten = fields.fold(loose, Loose::with);
            let mut parts = vec![self.reversed(memo, way.condition, forgotten, true)];
            for (_, written) in &way.written {
                if let Some(written) = written {
                    parts.push(self.reversed(memo, *written, loose, true));
                }
            }
            all.push(self.all(&parts));
        }
        self.any(&all)
    }

    /// The predicate as it is of the reverse of a packet: at most what holds when `wide` is false,
    /// at least what holds when it is true.
    fn reversed(&mut self, memo: &mut Memo, predicate: PredId, loose: Loose, wide: bool) -> PredId {
        if let Some(done) = memo.reversed.get(&(predicate, loose, wide)) {
            return *done;
        }
        let done = match self.arena.predicates[predicate.0 as usize].clone() {
            Pred::Number(field, ranges) => match field {
                field if loose.holds(field) => self.constant(wide),
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
            Pred::Address(field, _) if loose.holds(field) => self.constant(wide),
            Pred::Address(field, set) => self.arena.predicate(Pred::Address(opposite(field), set)),
            Pred::Not(inner) => {
                let inner = self.reversed(memo, inner, loose, !wide);
                self.opposite_of(inner)
            }
            Pred::Conditional(arms, otherwise) => {
                self.reversed_conditional(memo, &arms, otherwise, loose, wide)
            }
            other => self.map(other, &mut |resolver, part| {
                resolver.reversed(memo, part, loose, wide)
            }),
        };
        memo.reversed.insert((predicate, loose, wide), done);
        done
    }

    /// A condition of which a reply does not tell whether it held leads to either side.
    fn reversed_conditional(
        &mut self,
        memo: &mut Memo,
        arms: &[(PredId, PredId)],
        otherwise: PredId,
        loose: Loose,
        wide: bool,
    ) -> PredId {
        let count = arms
            .iter()
            .filter(|(c, _)| self.tests_loose(memo, *c, loose))
            .count();
        if count > MAX_LOOSE_ARMS {
            return self.constant(wide);
        }
        let mut below = self.reversed(memo, otherwise, loose, wide);
        let mut plain: Vec<(PredId, PredId)> = Vec::new();
        for (condition, body) in arms.iter().rev() {
            let body = self.reversed(memo, *body, loose, wide);
            if !self.tests_loose(memo, *condition, loose) {
                plain.push((self.reversed(memo, *condition, loose, true), body));
                continue;
            }
            below = self.chain(&mut plain, below);
            let may = self.reversed(memo, *condition, loose, true);
            let must = self.reversed(memo, *condition, loose, false);
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
    fn tests_loose(&self, memo: &mut Memo, predicate: PredId, loose: Loose) -> bool {
        if let Some(known) = memo.loose.get(&(predicate, loose)) {
            return *known;
        }
        let tests = match &self.arena.predicates[predicate.0 as usize] {
            Pred::Number(field, _) | Pred::Address(field, _) => loose.holds(*field),
            Pred::True | Pred::False | Pred::Reverse => false,
            Pred::Not(inner) => self.tests_loose(memo, *inner, loose),
            Pred::And(parts) | Pred::Or(parts) => parts
                .iter()
                .any(|part| self.tests_loose(memo, *part, loose)),
            Pred::Conditional(arms, otherwise) => arms
                .iter()
                .flat_map(|(condition, then)| [condition, then])
                .chain([otherwise])
                .any(|part| self.tests_loose(memo, *part, loose)),
        };
        memo.loose.insert((predicate, loose), tests);
        tests
    }

    /// Rebuilds a predicate of changed parts.
    pub(super) fn map(
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

    pub(super) fn is(&self, predicate: PredId, constant: bool) -> bool {
        matches!(
            (&self.arena.predicates[predicate.0 as usize], constant),
            (Pred::True, true) | (Pred::False, false)
        )
    }

    pub(super) fn opposite_of(&mut self, predicate: PredId) -> PredId {
        match self.arena.predicates[predicate.0 as usize] {
            Pred::True => self.constant(false),
            Pred::False => self.constant(true),
            Pred::Not(inner) => inner,
            _ => self.arena.predicate(Pred::Not(predicate)),
        }
    }

    pub(super) fn both(&mut self, left: PredId, right: PredId) -> PredId {
        self.all(&[left, right])
    }

    pub(super) fn all(&mut self, parts: &[PredId]) -> PredId {
        self.joined(parts, true)
    }

    pub(super) fn any(&mut self, parts: &[PredId]) -> PredId {
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
pub(super) const fn is_loose(field: Field) -> bool {
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
