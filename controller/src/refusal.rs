//! Why a proposal was not accepted. A refused proposal changed nothing.

use sunwire_api::{Diagnostic, Problem, ProblemCode};

use crate::policy_check::Failing;

/// Why a proposal was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It would change nothing: there is nothing to log.
    #[error("the state is so already")]
    Unchanged,
    /// What was examined beforehand is not what is there any more: examine it again.
    #[error("the state has changed since the policies were examined")]
    Stale,
    /// Something is wrong with it.
    #[error(transparent)]
    Problem(Box<Problem>),
}

impl Refusal {
    /// A refusal with a code, and words that tell what to do.
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Refusal::Problem(Box::new(Problem::new(code, detail)))
    }

    /// The same, with findings in a policy's text.
    pub(crate) fn with_diagnostics(
        code: ProblemCode,
        detail: impl Into<String>,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        let mut problem = Problem::new(code, detail);
        problem.diagnostics = diagnostics;
        Refusal::Problem(Box::new(problem))
    }

    /// The same, with assertions that would not hold.
    pub(crate) fn with_failing(detail: impl Into<String>, failing: Failing) -> Self {
        let mut problem = Problem::new(ProblemCode::AssertionViolated, detail);
        problem.violations = failing.violations;
        problem.diagnostics = failing.diagnostics;
        Refusal::Problem(Box::new(problem))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        match refusal {
            Refusal::Problem(problem) => *problem,
            // Only commands of the controller itself can be refused so; no client sees them.
            Refusal::Unchanged => Problem::new(ProblemCode::Internal, "nothing to change"),
            // Who examines beforehand examines again.
            Refusal::Stale => Problem::new(ProblemCode::Internal, "the state has changed"),
        }
    }
}
