//! The meaning of a policy: the denotational semantics of NetKAT (Anderson et al., POPL 2014,
//! figure 2) without histories, extended by labels.
//!
//! This is the oracle that the compiler is tested against. It shares the terms with the compiler
//! and nothing else, and prefers the shortest code over the fastest.
//!
//! A policy maps a packet to a set of packets. Each copy carries the first label, in source order,
//! of the statements that sent it, and beside the copies stands the first label of the drops
//! reached. Both are minima, so unions and sequences distribute over them as they do over sets; so they
//! do over what is noted of the packet on any of its ways.

use std::collections::{BTreeMap, BTreeSet};

use crate::packet::{LabelId, NO_LABEL, Note, Outcome, Packet};
use crate::term::{Pred, PredId, Resolved, Term, TermId};

/// Copies that one evaluation may hold at a time.
pub const MAX_PACKETS: usize = 1 << 16;

/// A policy makes more than [`MAX_PACKETS`] copies of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the policy makes more than {MAX_PACKETS} copies of one packet")]
pub struct TooManyPackets;

/// What the policy makes of a packet; of one that enters in a peer, what the policies there and here
/// make of it.
///
/// # Errors
/// [`TooManyPackets`], for policies that no table could hold either.
pub fn evaluate(policy: &Resolved, packet: &Packet) -> Result<Outcome, TooManyPackets> {
    term(policy, policy.whole, packet)
}

/// What a part of the policy makes of a packet.
pub(crate) fn evaluate_term(
    policy: &Resolved,
    part: TermId,
    packet: &Packet,
) -> Result<Outcome, TooManyPackets> {
    term(policy, part, packet)
}

/// Whether a predicate holds for a packet.
pub(crate) fn holds(policy: &Resolved, predicate: PredId, packet: &Packet) -> bool {
    match policy.predicate(predicate) {
        Pred::True => true,
        Pred::False => false,
        Pred::Number(field, ranges) => {
            let value = packet.number(*field);
            ranges
                .iter()
                .any(|(first, last)| (*first..=*last).contains(&value))
        }
        Pred::Address(field, set) => policy.set(*set).contains(packet.address(*field)),
        Pred::And(parts) => parts.iter().all(|p| holds(policy, *p, packet)),
        Pred::Or(parts) => parts.iter().any(|p| holds(policy, *p, packet)),
        Pred::Not(inner) => !holds(policy, *inner, packet),
        Pred::Conditional(arms, otherwise) => {
            let arm = arms.iter().find(|(p, _)| holds(policy, *p, packet));
            holds(policy, arm.map_or(*otherwise, |(_, q)| *q), packet)
        }
        Pred::Reverse => policy.reverse.is_some_and(|p| holds(policy, p, packet)),
    }
}

fn term(policy: &Resolved, id: TermId, packet: &Packet) -> Result<Outcome, TooManyPackets> {
    Ok(match policy.term(id) {
        Term::Filter(predicate) if holds(policy, *predicate, packet) => one(*packet, NO_LABEL),
        Term::Filter(_) => nothing(NO_LABEL),
        Term::SetNumber(field, value) => {
            let mut packet = *packet;
            packet.set_number(*field, *value);
            one(packet, NO_LABEL)
        }
        Term::SetAddress(field, address) => {
            let mut packet = *packet;
            packet.set_address(*field, *address);
            one(packet, NO_LABEL)
        }
        Term::SetPort(port, label) => {
            let mut packet = *packet;
            packet.port = *port as u32;
            one(packet, *label)
        }
        Term::Drop(label) => nothing(*label),
        Term::Note(note) => noted(*packet, note),
        Term::Dup => one(*packet, NO_LABEL),
        Term::Union(arms) => {
            let mut out = nothing(NO_LABEL);
            for arm in arms {
                merge(&mut out, term(policy, *arm, packet)?)?;
            }
            out
        }
        Term::Sequence(parts) => {
            let mut out = one(*packet, NO_LABEL);
            for part in parts {
                out = then(policy, out, *part)?;
            }
            out
        }
        Term::Star(body) => star(policy, *body, packet)?,
        Term::Conditional(arms, otherwise) => {
            let arm = arms
                .iter()
                .find(|(condition, _)| holds(policy, *condition, packet));
            term(policy, arm.map_or(*otherwise, |(_, body)| *body), packet)?
        }
    })
}

fn nothing(dropped: LabelId) -> Outcome {
    Outcome {
        copies: BTreeMap::new(),
        dropped,
        notes: BTreeSet::new(),
    }
}

fn one(packet: Packet, label: LabelId) -> Outcome {
    Outcome {
        copies: BTreeMap::from([(packet, label)]),
        dropped: NO_LABEL,
        notes: BTreeSet::new(),
    }
}

fn noted(packet: Packet, note: &Note) -> Outcome {
    Outcome {
        notes: BTreeSet::from([note.clone()]),
        ..one(packet, NO_LABEL)
    }
}

/// Adds the copies and drops of `more`.
fn merge(out: &mut Outcome, more: Outcome) -> Result<(), TooManyPackets> {
    out.dropped = out.dropped.min(more.dropped);
    out.notes.extend(more.notes);
    for (packet, label) in more.copies {
        let known = out.copies.entry(packet).or_insert(label);
        *known = label.min(*known);
    }
    if out.copies.len() > MAX_PACKETS {
        return Err(TooManyPackets);
    }
    Ok(())
}

/// Kleisli composition: the next term on every copy.
fn then(policy: &Resolved, before: Outcome, next: TermId) -> Result<Outcome, TooManyPackets> {
    let mut out = nothing(before.dropped);
    out.notes = before.notes;
    for (packet, label) in before.copies {
        let mut after = term(policy, next, &packet)?;
        for known in after.copies.values_mut() {
            *known = label.min(*known);
        }
        merge(&mut out, after)?;
    }
    Ok(out)
}

/// The least fixpoint: copies are followed until none is new and none gets an earlier label.
fn star(policy: &Resolved, body: TermId, packet: &Packet) -> Result<Outcome, TooManyPackets> {
    let mut out = one(*packet, NO_LABEL);
    let mut frontier = out.copies.clone();
    while !frontier.is_empty() {
        let step = then(
            policy,
            Outcome {
                copies: std::mem::take(&mut frontier),
                dropped: NO_LABEL,
                notes: BTreeSet::new(),
            },
            body,
        )?;
        for (packet, label) in &step.copies {
            if out.copies.get(packet).is_none_or(|known| label < known) {
                frontier.insert(*packet, *label);
            }
        }
        merge(&mut out, step)?;
    }
    Ok(out)
}
