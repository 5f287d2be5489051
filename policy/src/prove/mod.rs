//! Claims about a policy, proved or refuted for all packets.
//!
//! ```text
//! Resolved --translate--> program --questions--> sets of packets that break a claim
//!                                   --witness--> one of them, and its way, by the evaluator
//! ```
//!
//! A packet is decided about where it enters. What is sent `forward to` a transparent endpoint
//! enters there anew; otherwise a packet has one step. Claims are about packets as networks carry
//! them, sent by endpoints from their own addresses, or from the Internet.
//!
//! - `reach(a, b where p)`: every packet that begins a connection, from a member of `a` to an
//!   address of another member of `b`, for which `p` holds, has a copy that is sent to a member of
//!   `b`.
//! - `isolated(a, b)`: no packet that begins a connection and comes from one side is sent to the
//!   other; with `both`, no packet at all.
//! - `waypoint(a, b, via c)`: no packet from `a` is sent to a member of `b` without having been
//!   sent to a member of `c`.
//! - `loop-free`: no packet comes back to a place where it has been, as it was there.
//! - `no-black-hole`: what is let out of packets between endpoints is sent to an endpoint. With a
//!   `where`, packets to any address are meant.
//! - `p == q`, `p <= q`: the packets that come out; where one side is a predicate, the packets that
//!   something is sent of.
//!
//! `balance` may choose any back end, and `limit` admits what is within its rate. `established` holds
//! for every packet whose reverse the policy admits, which is at least what connection tracking
//! admits: a claim about replies can fail for connections that never were.

mod equivalence;
mod failure;
mod questions;
pub(crate) mod traffic;
pub(crate) mod translate;
pub(crate) mod witness;

pub use equivalence::{Difference, Way, difference, equivalent_policies};
pub use failure::{Failure, Step};
pub(crate) use failure::{destination, first_step, way};

use crate::claim::ClaimKind;
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::environment::Environment;
use crate::feature::Feature;
use crate::term::Resolved;
use crate::verify::options::{Limit, Options};
use crate::verify::symbolic::Symbolic;

/// What is known of one assertion.
#[derive(Clone, Debug, PartialEq)]
pub struct Proof {
    /// The assertion as written, on one line.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// Whether it holds.
    pub verdict: Verdict,
    /// How far the verdict goes, in a sentence, where that needs saying.
    pub note: Option<String>,
}

/// Whether an assertion holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// For all packets.
    Holds,
    /// Not for this one.
    Fails(Box<Failure>),
    /// The limits were reached.
    Undecided(Limit),
}

impl Proof {
    /// Whether the assertion is known to hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.verdict == Verdict::Holds
    }

    /// The refusal of a policy for which the assertion does not hold: with the packet, and its way.
    #[must_use]
    pub fn diagnostic(&self, source: &str) -> Option<Diagnostic> {
        let (message, hint) = match &self.verdict {
            Verdict::Holds => return None,
            Verdict::Fails(failure) => (
                format!("the assertion `{}` does not hold: {failure}", self.text),
                "mend the policy, or say with `where` which packets the assertion is about",
            ),
            Verdict::Undecided(limit) => (
                format!(
                    "the assertion `{}` could not be decided: {limit}",
                    self.text
                ),
                "ask about fewer packets with `where`",
            ),
        };
        Some(Diagnostic::new(source, Code::AssertionFails, self.span, message).with_hint(hint))
    }
}

/// Proves or refutes every assertion of a policy, in the order of the text.
#[must_use]
pub fn prove(policy: &Resolved, environment: &Environment, options: &Options) -> Vec<Proof> {
    if policy.assertions.is_empty() {
        return Vec::new();
    }
    let mut asked = questions::Asked::new(policy, environment);
    let questions: Vec<_> = policy
        .assertions
        .iter()
        .map(|claim| asked.question(claim))
        .collect();
    let roots = questions.iter().flat_map(questions::Question::roots);
    let roots = roots.chain(asked.preferred.iter().copied());
    let roots: Vec<_> = roots.collect();
    let engine = Symbolic::new(&asked.to.program, &roots, options);
    let mut engine = match engine {
        Ok(engine) => engine,
        Err(limit) => return undecided(policy, limit),
    };
    let claims = policy.assertions.iter().zip(&questions);
    claims
        .map(|(claim, question)| {
            let verdict = match question.broken(&mut engine) {
                Ok(broken) if broken.is_empty() => Verdict::Holds,
                Ok(broken) => {
                    let (to, preferred) = (&asked.to, &asked.preferred);
                    let packet = witness::packet(to, environment, preferred, &mut engine, broken);
                    let failure = failure::follow(policy, environment, claim, packet);
                    Verdict::Fails(Box::new(failure))
                }
                Err(limit) => Verdict::Undecided(limit),
            };
            Proof {
                text: claim.text.clone(),
                span: claim.span,
                note: note(policy, &claim.kind),
                verdict,
            }
        })
        .collect()
}

fn undecided(policy: &Resolved, limit: Limit) -> Vec<Proof> {
    let proofs = policy.assertions.iter().map(|claim| Proof {
        text: claim.text.clone(),
        span: claim.span,
        verdict: Verdict::Undecided(limit),
        note: None,
    });
    proofs.collect()
}

/// What a verdict leaves open.
fn note(policy: &Resolved, kind: &ClaimKind) -> Option<String> {
    let mut notes = Vec::new();
    let groups = match kind {
        ClaimKind::Reach(a, b)
        | ClaimKind::Isolated {
            left: a, right: b, ..
        } => vec![a, b],
        ClaimKind::Waypoint { from, to, .. } => vec![from, to],
        _ => Vec::new(),
    };
    for group in groups {
        if group.members.is_empty() && group.outside.is_none() {
            notes.push(format!("`{}` has no endpoint now", group.name));
        }
    }
    let replies = matches!(
        kind,
        ClaimKind::Isolated { both: true, .. } | ClaimKind::Equal(..) | ClaimKind::Contained(..)
    );
    if replies && policy.needs.contains_key(&Feature::Connections) {
        notes.push(
            "`established` is taken for every reply that could be one, of any connection"
                .to_owned(),
        );
    }
    if policy.needs.contains_key(&Feature::Balance) {
        notes.push("`balance` may choose any of its back ends".to_owned());
    }
    if policy.needs.contains_key(&Feature::Limit) && matches!(kind, ClaimKind::Reach(..)) {
        notes.push("packets beyond a `limit` are not meant".to_owned());
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}
