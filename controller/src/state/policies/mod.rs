//! Policies: their texts, and the programs that they compile to.
//!
//! A policy governs the network that its text names; a network has at most one.
//!
//! ```text
//!                 put, apply staged, roll back             put … to be confirmed
//!    (none) ----> in force <-----------------> in force --------------------------> on trial
//!                     ^                                        confirm                 |  |
//!                     +----------------------------------------------------------------+  |
//!                     +-- the text before it, resolved anew ---- not confirmed in time ---+
//! ```
//! Whatever changes what names in a text can mean examines the texts concerned *before* anything
//! changes: a change that would leave a policy without meaning, or an assertion that does not hold,
//! is refused, and the tables in force always follow from the text in force. A candidate that is
//! staged beside them never stands in the way of a change.
//!
//! - `record.rs`: what is stored, and what is made of it.
//! - `write.rs`: texts come into force, are confirmed, put back, deleted.
//! - `stage.rs`: candidates.
//! - `reexamine.rs`: what a change of endpoints or nodes means for policies.
//! - `environment.rs`: the state as the compiler sees it.

mod environment;
mod record;
mod reexamine;
mod stage;
mod write;

pub(super) use environment::Change;
pub(super) use record::Findings;
pub use record::{
    Fallback, PolicyRecord, Program, Staged, StagedText, TextRevision, UnconfirmedText,
};
pub(super) use reexamine::Reexamined;
pub(super) use write::How;

use sunwire_api::{Diagnostic, Name, ProblemCode, Severity};
use sunwire_policy::environment::Environment;

use super::{Source, State};
use crate::compile::{Compiled, about_text, compile};
use crate::policy_check::Failing;
use crate::refusal::Refusal;

/// Compiles a text.
///
/// # Errors
/// Every error in the text.
pub(crate) fn check(text: &str, environment: &Environment) -> Result<Compiled, Refusal> {
    compile(text, environment).map_err(invalid)
}

/// The refusal of a text with these findings.
pub(crate) fn invalid(diagnostics: Vec<Diagnostic>) -> Refusal {
    let errors = || {
        let all = diagnostics.iter();
        all.filter(|finding| finding.severity == Severity::Error)
    };
    let detail = match (errors().count(), errors().next()) {
        (1, Some(only)) => format!(
            "line {}, column {}: {}",
            only.line, only.column, only.message
        ),
        (count, _) => format!("the text has {count} errors: `diagnostics` holds them all"),
    };
    Refusal::with_diagnostics(ProblemCode::PolicyInvalid, detail, diagnostics)
}

/// A refusal because claims would not hold. Its words are about the first.
fn violated(what: &str, failing: Failing) -> Refusal {
    let first = failing.violations.first();
    let first = first.map(|first| format!(": {}", first.message));
    let detail = format!(
        "{what}{}; with force it is made all the same",
        first.unwrap_or_default()
    );
    Refusal::with_failing(detail, failing)
}

impl State {
    pub(super) fn policy(&self, name: &Name) -> Result<&PolicyRecord, Refusal> {
        self.policies.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::PolicyNotFound,
                format!("there is no policy {name}: GET /v1/policies lists all"),
            )
        })
    }

    /// The text of a policy in force.
    pub(crate) fn text_in_force(&self, name: &Name) -> Result<&Source, Refusal> {
        self.policy(name).map(PolicyRecord::text)
    }

    fn policy_mut(&mut self, name: &Name) -> &mut PolicyRecord {
        self.policies
            .get_mut(name)
            .expect("the caller has looked the policy up")
    }

    /// The policy that governs a network, or would again if another text is not confirmed.
    pub(super) fn governor(&self, network: &Name) -> Option<&Name> {
        let mut policies = self.policies.iter();
        let found = policies.find(|(_, policy)| policy.networks().any(|one| one == network));
        found.map(|(name, _)| name)
    }

    /// Compiles every text of a state that was read back. What this version's compiler refuses
    /// is out of force.
    pub(super) fn compile_all(&mut self) {
        let environment = self.environment();
        self.programs.clear();
        self.refused.clear();
        self.staged.clear();
        self.staged_refused.clear();
        for (name, policy) in &self.policies {
            match compile_for(policy.text().as_str(), &policy.network, &environment) {
                Ok(compiled) => {
                    let program = Program {
                        policy: name.clone(),
                        tables: compiled.tables,
                        warnings: compiled.warnings,
                    };
                    self.programs.insert(policy.network.clone(), program);
                }
                Err(diagnostics) => {
                    self.refused.insert(name.clone(), Findings(diagnostics));
                }
            }
            let Some(staged) = &policy.staged else {
                continue;
            };
            match compile_for(staged.text.as_str(), &policy.network, &environment) {
                Ok(compiled) => {
                    let program = stage::program(name, staged, compiled);
                    self.staged.insert(policy.network.clone(), program);
                }
                Err(diagnostics) => {
                    self.staged_refused
                        .insert(name.clone(), Findings(diagnostics));
                }
            }
        }
    }
}

/// Compiles a text that has compiled for this network before.
fn compile_for(
    text: &str,
    network: &Name,
    environment: &Environment,
) -> Result<Compiled, Vec<Diagnostic>> {
    let compiled = compile(text, environment)?;
    if compiled.network == *network {
        Ok(compiled)
    } else {
        Err(vec![about_text(
            format!(
                "the text is for network {}, and governed network {network}",
                compiled.network
            ),
            "apply the policy anew, with the network that it is for",
        )])
    }
}
