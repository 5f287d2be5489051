//! Examining a policy's text: what it compiles to in an environment, and whether it does what it
//! claims.
//!
//! Examining takes long, and the state is decided by one thread. So an examination can be made
//! beforehand, beside that thread, on a copy of the state ([`Prepared`]), and is taken when the
//! change is decided, if names still mean what they meant then. And it is never made again for
//! what was accepted once: the log holds its [`Outcome`].

use std::collections::BTreeMap;

use sunwire_api::{Diagnostic, Name};
use sunwire_policy::environment::Environment;

use crate::command::{Found, Outcome};
use crate::compile::{Compiled, compile};
use crate::policy_check::{Failing, failing_claims};
use crate::refusal::Refusal;
use crate::state::Source;

/// What a text comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Examined {
    /// What it compiles to.
    pub(crate) compiled: Compiled,
    /// What it claims and does not hold.
    pub(crate) failing: Failing,
}

type Compilation = Result<Compiled, Vec<Diagnostic>>;

/// Examinations of one proposal that were made beforehand: what they were of, and what came out.
#[derive(Clone, Debug, Default)]
pub struct Prepared {
    environment: Option<Environment>,
    compilations: BTreeMap<Source, Compilation>,
    claims: BTreeMap<(Name, Source), Failing>,
}

impl Prepared {
    fn is_of(&self, environment: &Environment) -> bool {
        self.environment.as_ref() == Some(environment)
    }
}

/// Where the decision about a proposal takes examinations from.
pub(crate) enum Examiner<'a> {
    /// They are made here and now, and kept.
    Here(&'a mut Prepared),
    /// They were made beforehand: a proposal that needs others is refused as [`Refusal::Stale`].
    Beforehand(&'a Prepared),
    /// The entry was accepted by a version that kept no outcome: they are made here, and a text
    /// that this version refuses is taken all the same.
    Lenient,
    /// The entry was accepted, with this outcome.
    Recorded(&'a Outcome),
}

impl Examiner<'_> {
    /// What was found of a policy when the entry was accepted.
    pub(crate) fn recorded(&self, policy: &Name) -> Option<Option<&Found>> {
        match self {
            Examiner::Recorded(outcome) => Some(outcome.policies.get(policy)),
            _ => None,
        }
    }

    /// Whether a text that the compiler refuses has to be taken.
    pub(crate) fn is_lenient(&self) -> bool {
        matches!(self, Examiner::Lenient)
    }

    /// Compiles a text in an environment.
    pub(crate) fn compile(
        &mut self,
        text: &Source,
        environment: &Environment,
    ) -> Result<Compilation, Refusal> {
        match self {
            Examiner::Here(kept) => {
                if !kept.is_of(environment) {
                    kept.environment = Some(environment.clone());
                    kept.compilations.clear();
                    kept.claims.clear();
                }
                let made = kept.compilations.entry(text.clone());
                Ok(made
                    .or_insert_with(|| compile(text.as_str(), environment))
                    .clone())
            }
            Examiner::Beforehand(prepared) => prepared
                .compilations
                .get(text)
                .filter(|_| prepared.is_of(environment))
                .cloned()
                .ok_or(Refusal::Stale),
            Examiner::Lenient => Ok(compile(text.as_str(), environment)),
            Examiner::Recorded(_) => unreachable!("a recorded outcome is not examined again"),
        }
    }

    /// Compiles the text of a policy, and finds which of its claims do not hold.
    pub(crate) fn examine(
        &mut self,
        policy: &Name,
        text: &Source,
        environment: &Environment,
    ) -> Result<Result<Examined, Vec<Diagnostic>>, Refusal> {
        let compiled = match self.compile(text, environment)? {
            Ok(compiled) => compiled,
            Err(diagnostics) => return Ok(Err(diagnostics)),
        };
        if !compiled.claims {
            let failing = Failing::default();
            return Ok(Ok(Examined { compiled, failing }));
        }
        let find = || failing_claims(policy, text.as_str(), environment);
        let failing = match self {
            // The compilation before has set the environment.
            Examiner::Here(kept) => {
                let made = kept.claims.entry((policy.clone(), text.clone()));
                made.or_insert_with(find).clone()
            }
            Examiner::Beforehand(prepared) => {
                let made = prepared.claims.get(&(policy.clone(), text.clone()));
                made.cloned().ok_or(Refusal::Stale)?
            }
            Examiner::Lenient => find(),
            Examiner::Recorded(_) => unreachable!("a recorded outcome is not examined again"),
        };
        Ok(Ok(Examined { compiled, failing }))
    }
}
