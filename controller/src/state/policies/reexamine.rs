//! What a change of endpoints, nodes, peerings or of another policy means for policies: examined
//! before it is made.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_api::{Diagnostic, Name, ProblemCode, Violation};
use sunwire_policy::environment::Environment;

use super::{Change, Findings, PolicyRecord, violated};
use crate::command::Found;
use crate::compile::{Compiled, compile};
use crate::effects::Effects;
use crate::examine::{Examined, Examiner};
use crate::policy_check::Failing;
use crate::refusal::Refusal;
use crate::state::State;

type Compilation = Result<Compiled, Vec<Diagnostic>>;

/// What policies come to after a change, by name.
#[derive(Default)]
pub(in crate::state) struct Reexamined {
    policies: BTreeMap<Name, Found>,
    /// Tables that are others than before; those that are recorded only are not here.
    programs: BTreeMap<Name, Compilation>,
    /// Candidates whose tables are others than before: `None` where that is recorded only.
    staged: BTreeMap<Name, Option<Compilation>>,
    /// Why texts, and candidates, that were out of force before still are.
    refused: BTreeMap<Name, Findings>,
    staged_refused: BTreeMap<Name, Findings>,
}

impl State {
    /// What the policies concerned would come to after a change.
    pub(in crate::state) fn reexamined(
        &self,
        change: Change<'_>,
        force: bool,
        examiner: &mut Examiner<'_>,
    ) -> Result<Reexamined, Refusal> {
        // The text that changes is examined by who changes it.
        let changing = match &change {
            Change::Text(name, _) => Some(*name),
            _ => None,
        };
        if let Examiner::Recorded(outcome) = examiner {
            let others = outcome.policies.iter();
            let others = others.filter(|(name, _)| changing != Some(*name));
            let staged = outcome.staged.iter();
            let staged = staged.filter(|name| changing != Some(*name));
            return Ok(Reexamined {
                policies: others
                    .map(|(name, found)| (name.clone(), found.clone()))
                    .collect(),
                staged: staged.map(|name| (name.clone(), None)).collect(),
                ..Reexamined::default()
            });
        }
        let networks = self.touched(&change);
        let concerned: Vec<_> = self
            .policies
            .iter()
            .filter(|(name, policy)| {
                changing != Some(*name)
                    && networks
                        .as_ref()
                        .is_none_or(|networks| policy.networks().any(|one| networks.contains(one)))
            })
            .collect();
        if concerned.is_empty() {
            return Ok(Reexamined::default());
        }
        let environment = self.environment_after(Some(&change));
        let mut all = Reexamined::default();
        // A node is no more than a name in a text: claims hold as before.
        let claims = !matches!(change, Change::Node(..));
        let mut new_failing = Failing::default();
        for (name, policy) in concerned {
            let examined = if claims {
                examiner.examine(name, policy.text(), &environment)?
            } else {
                let compilation = examiner.compile(policy.text(), &environment)?;
                compilation.map(|compiled| Examined {
                    compiled,
                    failing: Failing {
                        violations: policy.violations.clone(),
                        diagnostics: Vec::new(),
                    },
                })
            };
            let lenient = examiner.is_lenient();
            let failing = self.reexamine_text(name, policy, examined, lenient, &mut all)?;
            new_failing.violations.extend(failing.violations);
            new_failing.diagnostics.extend(failing.diagnostics);
            self.check_fallback(name, policy, examiner, &environment)?;
            self.reexamine_staged(name, policy, examiner, &environment, &mut all)?;
        }
        if !new_failing.violations.is_empty() && !force {
            return Err(violated(
                "after it a policy would not do what it claims",
                new_failing,
            ));
        }
        Ok(all)
    }

    /// The networks whose policies a change may concern; all when `None`.
    fn touched(&self, change: &Change<'_>) -> Option<BTreeSet<Name>> {
        match change {
            Change::Endpoint(name, record) => {
                let before = self.endpoints.get(*name);
                let network = record.or(before).map(|endpoint| endpoint.network.clone());
                // A peer's policy may name it, and is part of those of the peer's peers.
                Some(self.around(network.into_iter().collect(), 2))
            }
            Change::Node(..) => None,
            Change::Peering(one, other, _) => {
                let both = [*one, *other].into_iter().cloned().collect();
                Some(self.around(both, 1))
            }
            Change::Enforcement(one, _) => {
                let one = std::iter::once((*one).clone()).collect();
                Some(self.around(one, 1))
            }
            Change::Text(name, text) => {
                let before = self.policies.get(*name);
                let before = before.into_iter().flat_map(PolicyRecord::networks).cloned();
                let now = text.iter().filter_map(|(network, _)| network.clone());
                Some(self.around(before.chain(now).collect(), 1))
            }
        }
    }

    /// Takes down what was found of a text in force; returns what it claimed until now in truth.
    fn reexamine_text(
        &self,
        name: &Name,
        policy: &PolicyRecord,
        examined: Result<Examined, Vec<Diagnostic>>,
        lenient: bool,
        all: &mut Reexamined,
    ) -> Result<Failing, Refusal> {
        let present = self.programs.get(&policy.network);
        let now = match examined {
            Ok(now) if now.compiled.network == policy.network => now,
            Ok(_) => return Ok(Failing::default()),
            Err(diagnostics) if present.is_none() => {
                all.refused.insert(name.clone(), Findings(diagnostics));
                return Ok(Failing::default());
            }
            Err(diagnostics) if lenient => {
                let found = Found {
                    network: policy.network.clone(),
                    tables_changed: true,
                    violations: policy.violations.clone(),
                };
                all.policies.insert(name.clone(), found);
                all.programs.insert(name.clone(), Err(diagnostics));
                return Ok(Failing::default());
            }
            Err(diagnostics) => {
                return Err(broken(
                    format!("policy {name} would not compile any more"),
                    diagnostics,
                ));
            }
        };
        let Examined { compiled, failing } = now;
        let violations = failing.violations.clone();
        let known = |violation: &Violation| {
            let mut before = policy.violations.iter();
            before.any(|before| before.assertion == violation.assertion)
        };
        let new_failing = if failing.violations.iter().all(known) {
            Failing::default()
        } else {
            failing
        };
        let found = Found {
            network: policy.network.clone(),
            tables_changed: present.is_none_or(|present| present.tables != compiled.tables),
            violations,
        };
        all.policies.insert(name.clone(), found);
        all.programs.insert(name.clone(), Ok(compiled));
        Ok(new_failing)
    }

    fn reexamine_staged(
        &self,
        name: &Name,
        policy: &PolicyRecord,
        examiner: &mut Examiner<'_>,
        environment: &Environment,
        all: &mut Reexamined,
    ) -> Result<(), Refusal> {
        let Some(staged) = &policy.staged else {
            return Ok(());
        };
        let now = examiner.compile(&staged.text, environment)?;
        let present = self.staged.get(&policy.network);
        match (now, present) {
            (Ok(now), Some(present))
                if present.tables == now.tables && present.warnings == now.warnings => {}
            (Err(diagnostics), None) => {
                all.staged_refused
                    .insert(name.clone(), Findings(diagnostics));
            }
            (now, _) => {
                all.staged.insert(name.clone(), Some(now));
            }
        }
        Ok(())
    }

    /// Refuses a change that would leave a text on trial with nothing to go back to.
    fn check_fallback(
        &self,
        name: &Name,
        policy: &PolicyRecord,
        examiner: &mut Examiner<'_>,
        environment: &Environment,
    ) -> Result<(), Refusal> {
        let unconfirmed = policy.unconfirmed.as_ref();
        let fallback = unconfirmed.and_then(|unconfirmed| unconfirmed.fallback.as_ref());
        let Some(fallback) = fallback else {
            return Ok(());
        };
        let Err(diagnostics) = examiner.compile(&fallback.text, environment)? else {
            return Ok(());
        };
        // One that a newer compiler refuses anyway is not worse for the change.
        let is_lost = compile(fallback.text.as_str(), &self.environment()).is_err();
        if is_lost || examiner.is_lenient() {
            return Ok(());
        }
        Err(broken(
            format!(
                "policy {name} waits to be confirmed, and the text that it would go back to, \
                 revision {}, would not compile any more",
                fallback.revision
            ),
            diagnostics,
        ))
    }

    /// Makes what was examined so; tables that are as before are left alone.
    pub(in crate::state) fn settle(&mut self, reexamined: Reexamined, effects: &mut Effects) {
        let Reexamined {
            policies,
            mut programs,
            staged,
            refused,
            staged_refused,
        } = reexamined;
        self.refused.extend(refused);
        self.staged_refused.extend(staged_refused);
        for (name, found) in policies {
            let record = self.policy_mut(&name);
            let is_news = found.tables_changed || record.violations != found.violations;
            record.violations.clone_from(&found.violations);
            if found.tables_changed {
                record.tables_revision = effects.revision;
            }
            match programs.remove(&name) {
                None => {}
                Some(Ok(compiled)) if found.tables_changed => {
                    self.set_program(&name, compiled, effects);
                }
                Some(Ok(compiled)) => {
                    let program = self.programs.get_mut(&found.network);
                    program
                        .expect("tables that did not change are there")
                        .warnings = compiled.warnings;
                }
                Some(Err(diagnostics)) => {
                    self.withdraw(&name, &found.network, effects);
                    self.refused.insert(name.clone(), Findings(diagnostics));
                }
            }
            if is_news {
                effects.outcome.policies.insert(name, found);
            }
        }
        for (name, compilation) in staged {
            let record = self.policy_mut(&name);
            let network = record.network.clone();
            let candidate = record
                .staged
                .as_mut()
                .expect("a candidate that was examined is staged");
            candidate.tables_revision = effects.revision;
            let candidate = candidate.clone();
            match compilation {
                None => {}
                Some(Ok(compiled)) if compiled.network == network => {
                    self.set_staged(&name, &candidate, compiled, effects);
                }
                Some(Ok(_)) => {}
                Some(Err(diagnostics)) => {
                    self.withdraw_staged(&name, &network, effects);
                    self.staged_refused
                        .insert(name.clone(), Findings(diagnostics));
                }
            }
            effects.outcome.staged.insert(name);
        }
    }
}

fn broken(what: String, diagnostics: Vec<Diagnostic>) -> Refusal {
    Refusal::with_diagnostics(
        ProblemCode::PolicyBroken,
        format!("{what}: change the policy first so that it can do without, and then this"),
        diagnostics,
    )
}
