//! Everything that a text claims, checked before the policy is put in force.

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::pipeline::resolve_text;
use crate::prove::{Proof, prove};
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
