//! Everything that a text claims, checked before the policy is put in force.

use crate::diagnostic::{Code, Diagnostic};
use crate::environment::Environment;
use crate::parser::parse;
use crate::prove::{Proof, prove};
use crate::resolve::resolve_with_warnings;
use crate::term::Resolved;
use crate::tests_run::{TestResult, run_tests};
use crate::verify::options::Options;

/// What is known of a text whose names all resolve.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The policy.
    pub policy: Resolved,
    /// Assertions, in the order of the text.
    pub proofs: Vec<Proof>,
    /// Tests, in the order of the text.
    pub tests: Vec<TestResult>,
    /// What the policy may mean otherwise than meant.
    pub warnings: Vec<Diagnostic>,
}

impl Checked {
    /// Whether every assertion holds and every test passes.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.proofs.iter().all(Proof::holds) && self.tests.iter().all(TestResult::passed)
    }

    /// The assertions and tests that fail, as errors, each with a packet.
    #[must_use]
    pub fn failures(&self) -> Vec<Diagnostic> {
        let source = self.policy.source();
        let proofs = self.proofs.iter().filter_map(|p| p.diagnostic(source));
        let tests = self.tests.iter().flat_map(|t| t.diagnostics(source));
        proofs.chain(tests).collect()
    }
}

/// Resolves a text, proves its assertions and runs its tests. Whether a data plane can do what the
/// policy says is not asked.
///
/// # Errors
/// Every mistake in the text, and the warnings.
pub fn check_claims(
    text: &str,
    environment: &Environment,
    options: &Options,
) -> Result<Checked, Vec<Diagnostic>> {
    let (policy, warnings) = resolve_text(text, environment)?;
    Ok(Checked {
        proofs: prove(&policy, environment, options),
        tests: run_tests(&policy, environment),
        warnings,
        policy,
    })
}

/// Parses and resolves a text; the policy, and the warnings.
///
/// # Errors
/// Every mistake in the text, of both stages, and the warnings.
pub fn resolve_text(
    text: &str,
    environment: &Environment,
) -> Result<(Resolved, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (document, mut diagnostics) = parse(text);
    let unread = diagnostics.iter().any(Diagnostic::is_error);
    let resolved = match resolve_with_warnings(&document, environment) {
        Ok((resolved, warnings)) => {
            diagnostics.extend(warnings);
            Some(resolved)
        }
        Err(errors) => {
            // What could not be read may be all there is.
            let mut errors = errors;
            errors.retain(|d| !(unread && d.code == Code::NoPolicy));
            diagnostics.extend(errors);
            None
        }
    };
    diagnostics.sort_by_key(|d| (d.span.start, d.code));
    match resolved {
        Some(resolved) if !unread => Ok((resolved, diagnostics)),
        _ => Err(diagnostics),
    }
}
