//! The one place where the controller asks whether a policy does what it claims: its assertions are
//! proved for all packets, its tests are run.

use std::panic::catch_unwind;

use sunwire_api::problem::{Span, line_and_column};
use sunwire_api::{Diagnostic, Name, Violation};
use sunwire_policy::check_claims;
use sunwire_policy::environment::Environment;
use sunwire_policy::prove::{Proof, Verdict};
use sunwire_policy::show::show_packet;
use sunwire_policy::tests_run::TestResult;
use sunwire_policy::verify::options::Options;

use crate::compile::located;

/// Claims of a policy that do not hold, twice: as data, and drawn under their lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failing {
    pub(crate) violations: Vec<Violation>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Finds which claims of a policy that compiles do not hold. An assertion that cannot be decided
/// counts among them: nobody may rely on it.
pub(crate) fn failing_claims(policy: &Name, text: &str, environment: &Environment) -> Failing {
    let checked = catch_unwind(|| check_claims(text, environment, &Options::default()));
    let checked = match checked {
        Ok(Ok(checked)) => checked,
        // It compiles, so it resolves.
        Ok(Err(_)) => return Failing::default(),
        Err(_) => return prover_failed(policy),
    };
    let proofs = checked.proofs.iter().filter(|proof| !proof.holds());
    let tests = checked.tests.iter().filter(|test| !test.passed());
    Failing {
        violations: proofs
            .map(|proof| of_proof(policy, text, proof))
            .chain(tests.map(|test| of_test(policy, text, test)))
            .collect(),
        diagnostics: checked
            .failures()
            .iter()
            .map(|finding| located(finding, text))
            .collect(),
    }
}

fn of_proof(policy: &Name, text: &str, proof: &Proof) -> Violation {
    let (counterexample, hops) = match &proof.verdict {
        Verdict::Fails(failure) => (
            Some(show_packet(&failure.packet)),
            failure.steps.iter().map(ToString::to_string).collect(),
        ),
        Verdict::Holds | Verdict::Undecided(_) => (None, Vec::new()),
    };
    let span = Span {
        start: proof.span.start,
        end: proof.span.end,
    };
    let (line, column) = line_and_column(text, span.start);
    let message = proof.diagnostic(text).map(|finding| finding.message);
    Violation {
        policy: policy.clone(),
        assertion: proof.text.clone(),
        line,
        column,
        span,
        message: message.unwrap_or_default(),
        counterexample,
        hops,
    }
}

fn of_test(policy: &Name, text: &str, test: &TestResult) -> Violation {
    let first = test.failures.first();
    let span = first.map_or(test.span, |failure| failure.span);
    let (line, column) = line_and_column(text, span.start);
    let findings = test.diagnostics(text);
    let message = findings.into_iter().next().map(|finding| finding.message);
    Violation {
        policy: policy.clone(),
        assertion: format!("test \"{}\"", test.name),
        line,
        column,
        span: Span {
            start: span.start,
            end: span.end,
        },
        message: message.unwrap_or_default(),
        counterexample: first.map(|failure| failure.packet.clone()),
        hops: Vec::new(),
    }
}

/// When the prover panicked: a mistake in it must cost one policy, not the controller.
fn prover_failed(policy: &Name) -> Failing {
    let message = "the prover failed at this policy: report it, with the policy";
    Failing {
        violations: vec![Violation {
            policy: policy.clone(),
            assertion: String::new(),
            line: 1,
            column: 1,
            span: Span { start: 0, end: 0 },
            message: message.to_owned(),
            counterexample: None,
            hops: Vec::new(),
        }],
        diagnostics: Vec::new(),
    }
}
