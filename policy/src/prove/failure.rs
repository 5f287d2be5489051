//! Why a claim fails: a packet, and its way hop by hop.
//!
//! The way is the evaluator's, not the prover's: it is the meaning of the policy itself.

use std::collections::BTreeSet;
use std::fmt;

use crate::address::Address;
use crate::claim::{Claim, ClaimKind, Operand};
use crate::diagnostic::Span;
use crate::environment::Environment;
use crate::evaluate::evaluate_term;
use crate::packet::{Packet, Place};
use crate::show::show_packet;
use crate::term::{Resolved, TermId};

/// Steps of a way that are shown.
const MAX_STEPS: usize = 16;

/// A packet for which a claim does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The packet, where it enters.
    pub packet: Packet,
    /// What becomes of it, step by step.
    pub steps: Vec<Step>,
}

/// A decision about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The endpoint where the packet is: its name, or `outside`.
    pub at: String,
    /// What is decided about, where that is not the policy in force.
    pub policy: Option<String>,
    /// The packet.
    pub packet: Packet,
    /// Label of the decision.
    pub label: String,
    /// Where the statement that decided stands.
    pub span: Option<Span>,
    /// What comes out, and where each goes; none is a drop.
    pub copies: Vec<(Packet, String)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_packet(&self.packet))?;
        for step in &self.steps {
            write!(f, "; {step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(policy) = &self.policy {
            write!(f, "{policy} ")?;
        }
        write!(f, "at {}: \"{}\"", self.at, self.label)?;
        if self.copies.is_empty() {
            return f.write_str(" drops it");
        }
        for (at, (copy, to)) in self.copies.iter().enumerate() {
            f.write_str(if at == 0 { " " } else { " and " })?;
            f.write_str(to)?;
            let changes = crate::show::show_changes(&self.packet, copy);
            if !changes.is_empty() {
                write!(f, " with {changes}")?;
            }
        }
        Ok(())
    }
}

/// The way of a packet that breaks a claim.
pub(super) fn follow(
    policy: &Resolved,
    environment: &Environment,
    claim: &Claim,
    packet: Packet,
) -> Failure {
    let steps = match &claim.kind {
        ClaimKind::Equal(left, right) | ClaimKind::Contained(left, right) => {
            let sides = [("left", left), ("right", right)];
            let step = |(name, operand): (&str, &Operand)| match operand {
                Operand::Policy(term) => Some(step(
                    policy,
                    environment,
                    *term,
                    packet,
                    Some(name.to_owned()),
                )),
                Operand::Predicate(_) => None,
            };
            sides.into_iter().filter_map(step).collect()
        }
        _ => way(policy, environment, packet),
    };
    Failure { packet, steps }
}

/// What becomes of a packet until it is delivered or lost.
pub(crate) fn way(policy: &Resolved, environment: &Environment, packet: Packet) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    let mut waiting = vec![packet];
    while let Some(packet) = waiting.pop() {
        if steps.len() == MAX_STEPS || !seen.insert(packet) {
            continue;
        }
        let done = step(policy, environment, policy.whole, packet, None);
        let on = done.copies.iter().map(|(copy, _)| *copy);
        waiting.extend(on.filter(|copy| is_on_its_way(policy, environment, copy)));
        steps.push(done);
    }
    steps
}

/// The decision about a packet where it enters.
pub(crate) fn first_step(policy: &Resolved, environment: &Environment, packet: Packet) -> Step {
    step(policy, environment, policy.whole, packet, None)
}

/// Whether a packet is at a transparent endpoint that it is not addressed to.
fn is_on_its_way(policy: &Resolved, environment: &Environment, packet: &Packet) -> bool {
    policy.transparent.contains(&packet.port)
        && environment
            .endpoints
            .iter()
            .filter(|e| e.number == packet.port)
            .all(|e| e.addresses.iter().all(|a| Address::from(*a) != packet.dst))
}

fn step(
    policy: &Resolved,
    environment: &Environment,
    term: TermId,
    packet: Packet,
    name: Option<String>,
) -> Step {
    let at = endpoint(environment, packet.port).unwrap_or_else(|| match packet.port {
        0 => "outside".to_owned(),
        number => format!("endpoint {number}"),
    });
    let (copies, label, span) = match evaluate_term(policy, term, &packet) {
        Ok(outcome) => {
            let label = outcome.label();
            let copies = outcome.copies.keys().map(|copy| {
                let to = destination(policy, environment, &packet, copy);
                (*copy, to)
            });
            (
                copies.collect(),
                policy.label(label, outcome.copies.is_empty()),
                policy.label_span(label),
            )
        }
        Err(error) => (Vec::new(), error.to_string(), None),
    };
    Step {
        at,
        policy: name,
        packet,
        label,
        span,
        copies,
    }
}

/// What is done with a copy, in words.
pub(crate) fn destination(
    policy: &Resolved,
    environment: &Environment,
    entered: &Packet,
    copy: &Packet,
) -> String {
    match copy.place(entered) {
        Place::Entry => "lets it through and sends it nowhere".to_owned(),
        Place::Endpoint(number) => match endpoint(environment, number) {
            Some(name) => format!("sends it to {name}"),
            None => format!("sends it to endpoint {number}, which there is not"),
        },
        Place::Owner => match environment.owner(&policy.network.name, copy) {
            Some(owner) => format!("forwards it to {}", owner.name),
            None => "forwards it, and nobody owns its destination".to_owned(),
        },
    }
}

fn endpoint(environment: &Environment, number: u32) -> Option<String> {
    let found = environment.endpoints.iter().find(|e| e.number == number)?;
    Some(found.name.clone())
}
