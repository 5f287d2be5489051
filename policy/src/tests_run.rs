//! Runs the tests in a text: packets, and what shall become of them.

use serde::Serialize;

use crate::claim::{Expectation, PacketCase};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::environment::Environment;
use crate::evaluate::evaluate;
use crate::packet::{Outcome, Packet, Place};
use crate::prove::destination;
use crate::show::show_packet;
use crate::term::Resolved;

/// What a test showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub span: Span,
    /// Packets that were tried.
    pub packets: usize,
    /// What went otherwise than expected, one for each case that failed.
    pub failures: Vec<CaseFailure>,
}

/// A packet of which became something else than expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseFailure {
    /// Where the case stands.
    pub span: Span,
    /// The packet.
    pub packet: String,
    /// What was expected.
    pub expected: String,
    /// What happened.
    pub found: String,
    /// Where the statement that decided stands.
    pub decided: Option<Span>,
}

impl TestResult {
    /// Whether everything went as expected.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// The failures, located, with the statements that decided.
    #[must_use]
    pub fn diagnostics(&self, source: &str) -> Vec<Diagnostic> {
        let failed = |failure: &CaseFailure| {
            let message = format!(
                "test \"{}\": {} was expected to be {}, and was {}",
                self.name, failure.packet, failure.expected, failure.found
            );
            let diagnostic = Diagnostic::new(source, Code::TestFails, failure.span, message);
            match failure.decided {
                Some(span) => diagnostic.with_label(span, "this statement decided"),
                None => diagnostic,
            }
        };
        self.failures.iter().map(failed).collect()
    }
}

/// Runs every test of a policy, in the order of the text.
#[must_use]
pub fn run_tests(policy: &Resolved, environment: &Environment) -> Vec<TestResult> {
    let tests = policy.tests.iter().map(|test| TestResult {
        name: test.name.clone(),
        span: test.span,
        packets: test.cases.iter().map(|case| case.packets.len()).sum(),
        failures: test
            .cases
            .iter()
            .filter_map(|case| run_case(policy, environment, case))
            .collect(),
    });
    tests.collect()
}

/// The first packet of a case that goes wrong.
fn run_case(
    policy: &Resolved,
    environment: &Environment,
    case: &PacketCase,
) -> Option<CaseFailure> {
    case.packets.iter().find_map(|packet| {
        let (found, decided) = match evaluate(policy, packet) {
            Ok(outcome) if meets(policy, environment, &case.expected, packet, &outcome) => {
                return None;
            }
            Ok(outcome) => (
                happened(policy, environment, packet, &outcome),
                policy.label_span(outcome.label()),
            ),
            Err(error) => (error.to_string(), None),
        };
        Some(CaseFailure {
            span: case.span,
            packet: show_packet(packet),
            expected: wanted(&case.expected),
            found,
            decided,
        })
    })
}

/// The copies that go somewhere.
fn sent<'a>(packet: &'a Packet, outcome: &'a Outcome) -> impl Iterator<Item = &'a Packet> {
    let copies = outcome.copies.keys();
    copies.filter(|copy| copy.place(packet) != Place::Entry && copy.can_be_made_of(packet))
}

fn meets(
    policy: &Resolved,
    environment: &Environment,
    expected: &Expectation,
    packet: &Packet,
    outcome: &Outcome,
) -> bool {
    let label = policy.label(outcome.label(), outcome.copies.is_empty());
    let labelled = |wanted: &Option<String>| wanted.as_ref().is_none_or(|w| *w == label);
    match expected {
        Expectation::Drop(wanted) => sent(packet, outcome).next().is_none() && labelled(wanted),
        Expectation::Forward(None, wanted) => {
            sent(packet, outcome).next().is_some() && labelled(wanted)
        }
        Expectation::Forward(Some(members), wanted) => {
            let to = |copy: &Packet| {
                members.iter().any(|member| match copy.place(packet) {
                    Place::Endpoint(number) => number == member.number,
                    Place::Owner => {
                        let owner = environment.owner(&policy.network.name, copy);
                        owner.is_some_and(|owner| owner.number == member.number)
                    }
                    Place::Entry => false,
                })
            };
            sent(packet, outcome).any(to) && labelled(wanted)
        }
    }
}

fn labelled(what: String, label: Option<&String>) -> String {
    match label {
        Some(label) => format!("{what} by \"{label}\""),
        None => what,
    }
}

fn wanted(expected: &Expectation) -> String {
    match expected {
        Expectation::Drop(label) => labelled("dropped".to_owned(), label.as_ref()),
        Expectation::Forward(None, label) => labelled("forwarded".to_owned(), label.as_ref()),
        Expectation::Forward(Some(members), label) => {
            let names: Vec<&str> = members.iter().map(|m| m.name.as_str()).collect();
            labelled(
                format!("forwarded to {}", names.join(" or ")),
                label.as_ref(),
            )
        }
    }
}

fn happened(
    policy: &Resolved,
    environment: &Environment,
    packet: &Packet,
    outcome: &Outcome,
) -> String {
    let label = policy.label(outcome.label(), outcome.copies.is_empty());
    let copies: Vec<String> = sent(packet, outcome)
        .map(|copy| destination(policy, environment, packet, copy))
        .collect();
    if copies.is_empty() {
        return format!("dropped by \"{label}\"");
    }
    format!("decided by \"{label}\", which {}", copies.join(" and "))
}
