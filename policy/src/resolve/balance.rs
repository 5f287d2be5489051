//! `balance`, `dnat` and `snat`: verbs that give packets other addresses, and their answers the old ones.
//!
//! What begins a connection has one of [`SLOTS`](bucket::SLOTS) slots, and each slot has a back end:
//!
//! ```text
//! slot       0  1  2  3  4  5  …      back ends a (weight 2) and b (weight 1)
//! back end   a  b  a  a  b  a  …      with c beside them, c takes slots of both, and nothing else moves
//! ```
//!
//! Each back end runs for every slot, at a speed by its weight, and the first one has it (weighted
//! rendezvous hashing; the least of exponential variables with rates w is the first one's with
//! probability w / sum of w). So a back end that comes, goes or changes its weight moves only what it
//! wins or loses; the shares are those of the weights give or take some slots. Times are computed in
//! whole numbers: every controller deals the same.

use std::net::IpAddr;

use sunwire_dataplane_common::tables::key;

use super::{Resolver, Scope};
use crate::ast::Value;
use crate::diagnostic::{Code, Span};
use crate::feature::Feature;
use crate::field::{Field, Subject, bucket};
use crate::packet::LabelId;
use crate::term::{Term, TermId};

/// Greatest sum of the weights of one `balance`.
const WEIGHTS_MAX: u64 = 1 << 16;

impl<'d> Resolver<'d> {
    /// Slots are dealt to the back ends by weight; the rest of the policy sees the packet as sent to
    /// one of them. A connection that is up stays at its back end, whatever its weight.
    pub(super) fn balance(
        &mut self,
        targets: &'d [(Value, Option<u64>)],
        by: &'d [Subject],
        span: Span,
        scope: &Scope<'d>,
    ) -> Option<TermId> {
        self.need(Feature::Balance, span);
        let label = self.label(span, None, "balance");
        if self.hashes.get_or_insert_with(|| by.to_vec()) != by {
            self.one_only(
                span,
                "every `balance` of a policy tells clients apart by the same fields",
            );
            return None;
        }
        if let Some(unknown) = by.iter().find(|subject| key_bit(**subject).is_none()) {
            self.sink
                .report(
                    Code::NotSupported,
                    span,
                    format!(
                        "`balance` cannot tell clients apart by `{}`",
                        unknown.name()
                    ),
                )
                .hint("by addresses, ports, `ipProto` and `port`, or by nothing: each connection");
            return None;
        }
        let weights: Vec<u64> = targets.iter().map(|(_, w)| w.unwrap_or(1)).collect();
        let total = weights.iter().try_fold(0u64, |sum, w| sum.checked_add(*w));
        if !total.is_some_and(|total| (1..=WEIGHTS_MAX).contains(&total)) {
            self.sink.report(
                Code::ValueOutOfRange,
                span,
                format!("the weights have to add up to a number from 1 to {WEIGHTS_MAX}"),
            );
            return None;
        }
        let mut numbers = Vec::with_capacity(targets.len());
        let mut sent = Vec::with_capacity(targets.len());
        for (target, _) in targets {
            let number = self.one_number(Field::Port, target, scope);
            let kept = number.and_then(|number| bucket::kept(u32::try_from(number).ok()?));
            if let (Some(number), Some(_)) = (number, kept)
                && numbers.contains(&number)
            {
                self.sink.report(
                    Code::ValueOutOfRange,
                    target.span,
                    format!("`{target}` is there twice: give it the sum of the weights"),
                );
                return None;
            }
            let term = number.and_then(|number| self.back_end(target, number, label));
            numbers.extend(number.filter(|_| kept.is_some()));
            sent.extend(term);
        }
        if sent.len() < targets.len() || numbers.len() < targets.len() {
            return None;
        }
        let dealt = deal(&numbers, &weights);
        let mut arms = Vec::with_capacity(sent.len());
        for ((at, number), sent) in numbers.iter().enumerate().zip(sent) {
            let mut ranges = runs(&dealt, at);
            let kept = u64::from(bucket::KEPT) | number;
            ranges.push((kept, kept));
            arms.push((self.number(Field::Bucket, &ranges), sent));
        }
        let otherwise = self.arena.term(Term::Drop(label));
        Some(self.arena.term(Term::Conditional(arms.into(), otherwise)))
    }

    /// What the bucket is a hash of, bits of [`key`]; zero without `balance`.
    pub(super) fn bucket_key(&self) -> u32 {
        match self.hashes.as_deref() {
            None => 0,
            // Each connection by itself.
            Some([]) => key::SRC | key::DST | key::SRC_PORT | key::DST_PORT | key::PROTOCOL,
            Some(by) => by
                .iter()
                .filter_map(|by| key_bit(*by))
                .fold(0, |all, bit| all | bit),
        }
    }

    /// Rewrites the destination to an endpoint's address and sends the packet there.
    fn back_end(&mut self, target: &'d Value, number: u64, label: LabelId) -> Option<TermId> {
        let environment = self.environment;
        let endpoint = environment
            .endpoints
            .iter()
            .find(|e| u64::from(e.number) == number);
        let Some(endpoint) = endpoint.filter(|e| !e.addresses.is_empty()) else {
            self.sink.report(
                Code::WrongKind,
                target.span,
                format!("`{target}` is no endpoint with an address"),
            );
            return None;
        };
        let send = self.arena.term(Term::SetPort(number, label));
        let mut arms = Vec::new();
        for address in &endpoint.addresses {
            let family = family(*address);
            let condition = self.number(Field::EtherType, &[(family, family)]);
            let rewrite = self.translate(Field::Destination, *address);
            let both = self.arena.term(Term::Sequence(Box::new([rewrite, send])));
            arms.push((condition, both));
        }
        let otherwise = self.arena.term(Term::Drop(label));
        Some(self.arena.term(Term::Conditional(arms.into(), otherwise)))
    }

    pub(super) fn dnat(
        &mut self,
        address: &'d Value,
        port: Option<&'d Value>,
        span: Span,
        scope: &Scope<'d>,
    ) -> Option<TermId> {
        self.need(Feature::Nat, span);
        let subject = Subject::Field(Field::Destination);
        let address = self.one_address(subject, address, scope);
        self.note_assigned(subject, address, span);
        let mut parts = vec![self.translate(Field::Destination, address?)];
        if let Some(port) = port {
            let number = self.one_number(Field::DestinationPort, port, scope)?;
            parts.push(
                self.arena
                    .term(Term::SetNumber(Field::DestinationPort, number)),
            );
        }
        Some(self.arena.term(Term::Sequence(parts.into())))
    }

    pub(super) fn snat(
        &mut self,
        value: &'d Value,
        span: Span,
        scope: &Scope<'d>,
    ) -> Option<TermId> {
        self.need(Feature::Nat, span);
        let subject = Subject::Field(Field::Source);
        let address = self.one_address(subject, value, scope);
        self.note_assigned(subject, address, span);
        let address = address?;
        let network = self.network.map(|network| network.name.as_str());
        let environment = self.environment;
        let owner = environment.endpoints.iter().find(|endpoint| {
            Some(endpoint.network.as_str()) == network && endpoint.addresses.contains(&address)
        });
        if let Some(owner) = owner {
            self.sink
                .report(
                    Code::WrongKind,
                    value.span,
                    format!(
                        "`{address}` is the address of {}: answers would go there",
                        owner.name
                    ),
                )
                .hint("take an address of the network that no endpoint has");
            return None;
        }
        Some(self.translate(Field::Source, address))
    }

    /// Sets an address, in a way that is undone in answers.
    fn translate(&mut self, field: Field, address: IpAddr) -> TermId {
        let set = self.arena.term(Term::SetAddress(field, address.into()));
        let translated = self.arena.term(Term::SetNumber(Field::Translated, 1));
        self.arena.term(Term::Sequence(Box::new([set, translated])))
    }
}

/// The EtherType of packets with such addresses.
fn family(address: IpAddr) -> u64 {
    if address.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// What a hash of this field is over, if it can be.
fn key_bit(subject: Subject) -> Option<u32> {
    Some(match subject.field() {
        Field::Source => key::SRC,
        Field::Destination => key::DST,
        Field::SourcePort => key::SRC_PORT,
        Field::DestinationPort => key::DST_PORT,
        Field::Protocol => key::PROTOCOL,
        Field::Port => key::ENDPOINT,
        _ => return None,
    })
}

/// The back end of each slot, by its place; with weight zero it has none.
fn deal(numbers: &[u64], weights: &[u64]) -> Vec<usize> {
    let slots = 0..u64::from(bucket::SLOTS);
    let runner = |slot| {
        let racers = numbers.iter().zip(weights).enumerate();
        let racers = racers.filter(|(_, (_, weight))| **weight > 0);
        let times = racers.map(|(at, (number, weight))| (at, time(slot, *number), *weight));
        // Time over weight, without a division; equal ones by number, so that order is nothing.
        let first = times.min_by(|(a, left, left_weight), (b, right, right_weight)| {
            let left = u128::from(*left) * u128::from(*right_weight);
            let right = u128::from(*right) * u128::from(*left_weight);
            left.cmp(&right).then(numbers[*a].cmp(&numbers[*b]))
        });
        first.map_or(0, |(at, ..)| at)
    };
    slots.map(runner).collect()
}

/// How long a back end of weight one takes for a slot: an exponential variable, in 2^-32.
fn time(slot: u64, number: u64) -> u64 {
    let mut random = (slot << 32 | number).wrapping_add(0x9e37_79b9_7f4a_7c15);
    // The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
    random = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ random >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    random ^= random >> 31;
    minus_log2(random | 1)
}

/// -log2(x / 2^64), in 2^-32; `x` is not zero.
fn minus_log2(x: u64) -> u64 {
    let whole = u64::from(x.leading_zeros());
    // 1 <= mantissa < 2, in 2^-63; each squaring gives one more bit of its logarithm.
    let mut mantissa = x << whole;
    let mut fraction = 0u64;
    for _ in 0..32 {
        let square = u128::from(mantissa) * u128::from(mantissa);
        let is_two = square >> 127 != 0;
        fraction = fraction << 1 | u64::from(is_two);
        mantissa = (square >> if is_two { 64 } else { 63 }) as u64;
    }
    ((whole + 1) << 32) - fraction
}

/// The slots of one back end, as ranges.
fn runs(dealt: &[usize], of: usize) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (slot, _) in dealt.iter().enumerate().filter(|(_, at)| **at == of) {
        let slot = slot as u64;
        match out.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => out.push((slot, slot)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(dealt: &[usize], of: usize) -> usize {
        dealt.iter().filter(|at| **at == of).count()
    }

    #[test]
    fn shares_are_those_of_the_weights_give_or_take_some_slots() {
        let dealt = deal(&[7, 8, 9], &[2, 1, 1]);
        for (at, expected) in [(0, 512), (1, 256), (2, 256)] {
            let share = share(&dealt, at);
            assert!(share.abs_diff(expected) < 64, "{at}: {share}");
        }
        assert_eq!(share(&deal(&[7, 8], &[1, 0]), 1), 0);
    }

    #[test]
    fn a_back_end_that_comes_goes_or_grows_moves_only_its_share() {
        let numbers = [3, 4, 5, 6];
        let without = deal(&numbers[..3], &[1, 1, 1]);
        let with = deal(&numbers, &[1, 1, 1, 1]);
        let drained = deal(&numbers, &[1, 1, 1, 0]);
        assert_eq!(without, drained);
        for (before, after) in without.iter().zip(&with) {
            assert!(before == after || *after == 3);
        }
        let grown = deal(&numbers, &[1, 5, 1, 1]);
        for (before, after) in with.iter().zip(&grown) {
            assert!(before == after || *after == 1);
        }
        assert!(share(&grown, 1) > 2 * share(&with, 1));
    }

    #[test]
    fn the_order_of_back_ends_is_nothing() {
        let one = deal(&[3, 4, 5], &[1, 2, 3]);
        let other = deal(&[5, 3, 4], &[3, 1, 2]);
        let back = [2, 0, 1];
        assert!(one.iter().zip(&other).all(|(a, b)| *a == back[*b]));
    }

    #[test]
    fn logarithms_are_right_to_many_digits() {
        for x in [1, 2, 3, 1 << 40, u64::MAX / 3, u64::MAX] {
            let exact = 64.0 - (x as f64).log2();
            let found = minus_log2(x) as f64 / f64::from(u32::MAX);
            assert!((exact - found).abs() < 1e-6, "{x}: {exact} {found}");
        }
    }
}
