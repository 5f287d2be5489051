//! What comes out of a policy as the first packet of a connection: the ways through it, by what they
//! write.
//!
//! ```text
//! if dst = vip then (ip4Dst := a; forward) else if src = b then forward else drop
//!     ip4Dst := a     when dst = vip
//!     nothing         when not dst = vip and src = b
//! ```
//!
//! Conditions are of the packet that comes in, found from the end of the policy to its beginning.
//! Where a packet goes and what a reply does not tell is in them, and counts as not written.

use std::collections::HashMap;

use super::Resolver;
use super::reverse::is_loose;
use crate::address::{Address, AddressSet, Prefix};
use crate::field::{Connection, Field};
use crate::packet::Packet;
use crate::term::{Pred, PredId, SetId, Term, TermId};

/// Ways that are told apart; beyond, several are taken together.
const MAX_WAYS: usize = 64;

/// What is written on a way, in the order of the fields: a test that the new value passes, or
/// nothing when the value is not known, or the field may as well be left as it is.
pub(super) type Written = Vec<(Field, Option<PredId>)>;

/// A way through a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Way {
    /// What is written on it.
    pub(super) written: Written,
    /// Which packets may go it.
    pub(super) condition: PredId,
}

impl Way {
    /// On which nothing is written.
    pub(super) const fn unwritten(condition: PredId) -> Self {
        Way {
            written: Vec::new(),
            condition,
        }
    }

    /// A field is written before what the way writes already.
    fn write(&mut self, field: Field, written: Option<PredId>) {
        if let Err(place) = self.written.binary_search_by_key(&field, |(f, _)| *f) {
            self.written.insert(place, (field, written));
        }
    }
}

#[derive(Default)]
pub(super) struct ImageMemo {
    /// The ways through a term and on from there.
    ways: HashMap<(TermId, Vec<Way>), Vec<Way>>,
    /// A predicate of the first packet of a connection.
    first: HashMap<PredId, PredId>,
    /// Sets of one address.
    hosts: HashMap<Address, SetId>,
    /// What is written somewhere in a term.
    writes: HashMap<TermId, u32>,
}

impl Resolver<'_> {
    /// The ways through a policy.
    pub(super) fn ways_through(&mut self, policy: TermId) -> Vec<Way> {
        let always = self.constant(true);
        self.ways(&mut ImageMemo::default(), policy, &[Way::unwritten(always)])
    }

    /// The ways through `term` and on by `then`.
    fn ways(&mut self, memo: &mut ImageMemo, term: TermId, then: &[Way]) -> Vec<Way> {
        if then.is_empty() {
            return Vec::new();
        }
        let key = (term, then.to_vec());
        if let Some(done) = memo.ways.get(&key) {
            return done.clone();
        }
        let done = match self.arena.terms[term.0 as usize].clone() {
            Term::Filter(predicate) => {
                let predicate = self.first(memo, predicate);
                self.changed(then, |resolver, way| {
                    way.condition = resolver.both(predicate, way.condition);
                })
            }
            Term::SetNumber(field, value) => {
                let written = self.number(field, &[(value, value)]);
                self.changed(then, |resolver, way| {
                    way.condition = resolver.with_number(way.condition, field, value);
                    if !is_loose(field) {
                        way.write(field, Some(written));
                    }
                })
            }
            Term::SetPort(value, _) => self.changed(then, |resolver, way| {
                way.condition = resolver.with_number(way.condition, Field::Port, value);
            }),
            Term::SetAddress(field, address) => {
                let mut packet = Packet::default();
                packet.set_address(field, address);
                let host = self.host(memo, address);
                let written = self.arena.predicate(Pred::Address(field, host));
                self.changed(then, |resolver, way| {
                    way.condition = resolver.with(way.condition, field, &packet);
                    way.write(field, Some(written));
                })
            }
            Term::Drop(_) => Vec::new(),
            Term::Dup | Term::Note(_) => then.to_vec(),
            Term::Union(arms) => {
                let mut all = Vec::new();
                for arm in &arms {
                    all.extend(self.ways(memo, *arm, then));
                }
                self.together(all)
            }
            Term::Sequence(parts) => parts
                .iter()
                .rev()
                .fold(then.to_vec(), |then, part| self.ways(memo, *part, &then)),
            Term::Star(body) => {
                let always = self.constant(true);
                let fields = self.writes(memo, body);
                self.changed(then, |_, way| {
                    way.condition = always;
                    for field in Field::ALL {
                        if fields & 1 << field as u32 != 0 {
                            way.write(field, None);
                        }
                    }
                })
            }
            Term::Conditional(arms, otherwise) => self.ways_of_arms(memo, &arms, otherwise, then),
        };
        memo.ways.insert(key, done.clone());
        done
    }

    /// By each of the ways of all arms, the packets that take an arm in which it is.
    fn ways_of_arms(
        &mut self,
        memo: &mut ImageMemo,
        arms: &[(PredId, TermId)],
        otherwise: TermId,
        then: &[Way],
    ) -> Vec<Way> {
        let never = self.constant(false);
        let mut conditions = Vec::with_capacity(arms.len());
        let mut inner = Vec::with_capacity(arms.len() + 1);
        for (condition, body) in arms {
            conditions.push(self.first(memo, *condition));
            inner.push(self.ways(memo, *body, then));
        }
        inner.push(self.ways(memo, otherwise, then));
        // For each way its condition in every arm, `otherwise` last.
        let mut rows: Vec<(Written, Vec<PredId>)> = Vec::new();
        let mut places: HashMap<Written, usize> = HashMap::new();
        for (at, ways) in inner.iter().enumerate() {
            for way in ways {
                let place = match places.get(&way.written) {
                    Some(place) => *place,
                    // No room for a row of its own: it shares the last one, which then is of both.
                    None if rows.len() == MAX_WAYS => {
                        let (last, _) = &rows[MAX_WAYS - 1];
                        let common = self.common(&last.clone(), &way.written);
                        places.insert(way.written.clone(), MAX_WAYS - 1);
                        rows[MAX_WAYS - 1].0 = common;
                        MAX_WAYS - 1
                    }
                    None => {
                        rows.push((way.written.clone(), vec![never; inner.len()]));
                        places.insert(way.written.clone(), rows.len() - 1);
                        rows.len() - 1
                    }
                };
                let known = rows[place].1[at];
                rows[place].1[at] = self.any(&[known, way.condition]);
            }
        }
        let mut ways = Vec::with_capacity(rows.len());
        for (written, in_arms) in rows {
            let mut in_arms = in_arms;
            let mut below = in_arms.pop().unwrap_or(never);
            // Arms at the end that lead to the same need no test.
            let mut kept = in_arms.len();
            while kept > 0 && in_arms[kept - 1] == below {
                kept -= 1;
            }
            if kept > 0 {
                let arms = conditions[..kept].iter().copied().zip(in_arms);
                let arms = arms.collect();
                below = self.arena.predicate(Pred::Conditional(arms, below));
            }
            ways.push(Way {
                written,
                condition: below,
            });
        }
        self.together(ways)
    }

    fn changed(&mut self, ways: &[Way], mut change: impl FnMut(&mut Self, &mut Way)) -> Vec<Way> {
        let mut ways = ways.to_vec();
        ways.iter_mut().for_each(|way| change(self, way));
        self.together(ways)
    }

    /// Ways that write the same as one, without those that no packet goes, and not too many.
    fn together(&mut self, ways: Vec<Way>) -> Vec<Way> {
        let mut out: Vec<Way> = Vec::with_capacity(ways.len());
        for way in ways {
            if self.is(way.condition, false) {
                continue;
            }
            match out.iter_mut().find(|known| known.written == way.written) {
                Some(known) => {
                    known.condition = self.any(&[known.condition, way.condition]);
                }
                None => out.push(way),
            }
        }
        while out.len() > MAX_WAYS {
            let (Some(last), Some(before)) = (out.pop(), out.pop()) else {
                break;
            };
            out.push(Way {
                written: self.common(&before.written, &last.written),
                condition: self.any(&[before.condition, last.condition]),
            });
        }
        out
    }

    /// What two ways taken together write.
    fn common(
        &mut self,
        left: &[(Field, Option<PredId>)],
        right: &[(Field, Option<PredId>)],
    ) -> Written {
        let find = |written: &[(Field, Option<PredId>)], field| {
            let found = written.iter().find(|(known, _)| *known == field);
            found.and_then(|(_, test)| *test)
        };
        let fields = left.iter().chain(right).map(|(field, _)| *field);
        let fields: std::collections::BTreeSet<Field> = fields.collect();
        let mut out = Vec::with_capacity(fields.len());
        for field in fields {
            // Where only one of them writes it, it may be left as it is.
            let test = match (find(left, field), find(right, field)) {
                (Some(left), Some(right)) => Some(self.any(&[left, right])),
                _ => None,
            };
            out.push((field, test));
        }
        out
    }

    /// The fields that are written somewhere in a term, one bit each.
    fn writes(&self, memo: &mut ImageMemo, term: TermId) -> u32 {
        if let Some(known) = memo.writes.get(&term) {
            return *known;
        }
        let bit = |field: Field| {
            if is_loose(field) {
                0
            } else {
                1 << field as u32
            }
        };
        let fields = match &self.arena.terms[term.0 as usize] {
            Term::SetNumber(field, _) | Term::SetAddress(field, _) => bit(*field),
            Term::Filter(_) | Term::SetPort(..) | Term::Drop(_) | Term::Note(_) | Term::Dup => 0,
            Term::Union(parts) | Term::Sequence(parts) => parts
                .iter()
                .fold(0, |all, part| all | self.writes(memo, *part)),
            Term::Star(body) => self.writes(memo, *body),
            Term::Conditional(arms, otherwise) => {
                let bodies = arms.iter().map(|(_, body)| body).chain([otherwise]);
                bodies.fold(0, |all, body| all | self.writes(memo, *body))
            }
        };
        memo.writes.insert(term, fields);
        fields
    }

    /// The set of one address.
    fn host(&mut self, memo: &mut ImageMemo, address: Address) -> SetId {
        if let Some(known) = memo.hosts.get(&address) {
            return *known;
        }
        let prefix = match address {
            Address::None => None,
            Address::V4(v4) => Some(Prefix::new(v4.into(), 32)),
            Address::V6(v6) => Some(Prefix::new(v6.into(), 128)),
        };
        let set = self.arena.set(AddressSet {
            identity: format!("host {address:?}"),
            prefixes: prefix.into_iter().collect(),
            none: prefix.is_none(),
            ..AddressSet::default()
        });
        memo.hosts.insert(address, set);
        set
    }

    /// A predicate as it is of the first packet of a connection.
    pub(super) fn first(&mut self, memo: &mut ImageMemo, predicate: PredId) -> PredId {
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
}
