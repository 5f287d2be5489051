//! Texts come into force, are confirmed, put back, and deleted.

use sunwire_api::{Diagnostic, Name, ProblemCode};

use super::record::forget_oldest;
use super::{
    Change, Findings, PolicyRecord, Program, TextRevision, UnconfirmedText, invalid, violated,
};
use crate::command::{Found, Note};
use crate::compile::{Compiled, network_of};
use crate::effects::{Effects, ProgramBefore};
use crate::examine::{Examined, Examiner};
use crate::policy_check::Failing;
use crate::refusal::Refusal;
use crate::state::{Source, State};

/// How a text is to come into force.
#[derive(Clone, Copy)]
pub(in crate::state) struct How<'a> {
    /// For the history.
    pub(in crate::state) note: &'a Note,
    /// It is on trial until then.
    pub(in crate::state) confirm_by_unix_ms: Option<u64>,
    /// Whatever it asserts.
    pub(in crate::state) force: bool,
}

/// A text that is to come into force.
struct Taken<'a> {
    text: Source,
    rolled_back_to: Option<u64>,
    how: How<'a>,
    /// The network of a text that has to come into force even when it does not compile.
    not_confirmed: Option<Name>,
}

/// What a text was found to be.
struct Judged {
    found: Found,
    /// Its claims that do not hold, drawn under their lines.
    drawn: Vec<Diagnostic>,
    /// What it compiles to, where that is known and not recorded only.
    program: Option<Result<Compiled, Vec<Diagnostic>>>,
}

impl State {
    pub(in crate::state) fn put_policy(
        &mut self,
        name: &Name,
        text: &Source,
        how: &How<'_>,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let taken = Taken {
            text: text.clone(),
            rolled_back_to: None,
            how: *how,
            not_confirmed: None,
        };
        self.take_text(name, taken, examiner, effects)
    }

    pub(in crate::state) fn apply_staged(
        &mut self,
        name: &Name,
        how: &How<'_>,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let text = self.staged_text(name)?.text.clone();
        self.put_policy(name, &text, how, examiner, effects)
    }

    pub(in crate::state) fn rollback_policy(
        &mut self,
        name: &Name,
        to: Option<u64>,
        how: &How<'_>,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let target = match to {
            None => {
                let history = &self.policy(name)?.history;
                history.iter().rev().nth(1).ok_or_else(|| {
                    Refusal::new(
                        ProblemCode::NothingToRollBack,
                        format!("policy {name} has no revision before the present one"),
                    )
                })?
            }
            Some(to) => self.policy_text(name, to)?,
        };
        let taken = Taken {
            text: target.text.clone(),
            rolled_back_to: Some(target.revision),
            how: *how,
            not_confirmed: None,
        };
        self.take_text(name, taken, examiner, effects)
    }

    /// A text of the history.
    pub(in crate::state) fn policy_text(
        &self,
        name: &Name,
        revision: u64,
    ) -> Result<&TextRevision, Refusal> {
        let mut history = self.policy(name)?.history.iter();
        let found = history.find(|item| item.revision == revision);
        found.ok_or_else(|| {
            Refusal::new(
                ProblemCode::RevisionNotFound,
                format!(
                    "policy {name} has no revision {revision}: GET /v1/policies/{name}/history \
                     lists those that are kept"
                ),
            )
        })
    }

    pub(in crate::state) fn confirm_policy(
        &mut self,
        name: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.policy(name)?.unconfirmed.is_none() {
            return Err(Refusal::new(
                ProblemCode::NothingToConfirm,
                format!(
                    "policy {name} does not wait to be confirmed: it was confirmed, put back in \
                     time, or applied without"
                ),
            ));
        }
        let record = self.policy_mut(name);
        record.unconfirmed = None;
        record.revision = effects.revision;
        Ok(())
    }

    pub(in crate::state) fn revert_policy(
        &mut self,
        name: &Name,
        text_revision: u64,
        note: &Note,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let record = self.policies.get(name);
        let Some(record) = record.filter(|record| record.present().revision == text_revision)
        else {
            return Err(Refusal::Unchanged);
        };
        match &record.unconfirmed {
            None => Err(Refusal::Unchanged),
            Some(UnconfirmedText { fallback: None, .. }) => {
                self.delete_policy(name, true, examiner, effects)
            }
            Some(UnconfirmedText {
                fallback: Some(fallback),
                ..
            }) => {
                let taken = Taken {
                    text: fallback.text.clone(),
                    rolled_back_to: Some(fallback.revision),
                    how: How {
                        note,
                        confirm_by_unix_ms: None,
                        force: true,
                    },
                    not_confirmed: Some(fallback.network.clone()),
                };
                self.take_text(name, taken, examiner, effects)
            }
        }
    }

    pub(in crate::state) fn delete_policy(
        &mut self,
        name: &Name,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let network = self.policy(name)?.network.clone();
        let peers = self.reexamined(Change::Text(name, None), force, examiner)?;
        self.remove_staged(name, effects);
        self.policies.remove(name);
        self.withdraw(name, &network, effects);
        self.settle(peers, effects);
        Ok(())
    }

    fn take_text(
        &mut self,
        name: &Name,
        taken: Taken<'_>,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Judged {
            found,
            drawn,
            program,
        } = self.judge(name, &taken, examiner)?;
        let network = found.network.clone();
        self.network(&network)?;
        if let Some(other) = self.governor(&network)
            && other != name
        {
            return Err(Refusal::new(
                ProblemCode::PolicyNetworkTaken,
                format!(
                    "policy {other} governs network {network}: change that one, or delete it first"
                ),
            ));
        }
        if !found.violations.is_empty() && !taken.how.force {
            let failing = Failing {
                violations: found.violations,
                diagnostics: drawn,
            };
            return Err(violated("the policy does not do what it claims", failing));
        }
        let text = taken.text.clone();
        let change = Change::Text(name, Some((Some(network.clone()), &text)));
        let peers = self.reexamined(change, taken.how.force, examiner)?;

        let present = self.policies.get(name);
        let unconfirmed = taken
            .how
            .confirm_by_unix_ms
            .map(|deadline_unix_ms| UnconfirmedText {
                deadline_unix_ms,
                fallback: present.and_then(PolicyRecord::fallback),
            });
        let leaves = present
            .map(|present| present.network.clone())
            .filter(|before| *before != network);
        let same_as_staged = present
            .and_then(|present| present.staged.as_ref())
            .is_some_and(|staged| staged.text == taken.text);
        if same_as_staged || leaves.is_some() {
            self.remove_staged(name, effects);
        }
        if let Some(before) = leaves {
            self.withdraw(name, &before, effects);
        }
        let (mut history, staged) = match self.policies.remove(name) {
            None => (Vec::new(), None),
            Some(present) => (present.history, present.staged),
        };
        effects.created = history.is_empty();
        history.push(TextRevision {
            revision: effects.revision,
            text: taken.text,
            rolled_back_to: taken.rolled_back_to,
            not_confirmed: taken.not_confirmed.is_some(),
            note: taken.how.note.clone(),
        });
        forget_oldest(&mut history);
        let record = PolicyRecord {
            network,
            history,
            tables_revision: effects.revision,
            revision: effects.revision,
            unconfirmed,
            staged,
            violations: found.violations.clone(),
        };
        self.policies.insert(name.clone(), record);
        match program {
            None => {}
            Some(Ok(compiled)) => self.set_program(name, compiled, effects),
            Some(Err(diagnostics)) => {
                self.withdraw(name, &found.network, effects);
                self.refused.insert(name.clone(), Findings(diagnostics));
            }
        }
        effects.outcome.policies.insert(name.clone(), found);
        self.settle(peers, effects);
        Ok(())
    }

    /// What the text is, found here or recorded.
    fn judge(
        &self,
        name: &Name,
        taken: &Taken<'_>,
        examiner: &mut Examiner<'_>,
    ) -> Result<Judged, Refusal> {
        if let Some(recorded) = examiner.recorded(name) {
            let found = recorded.cloned();
            let found = found.expect("the outcome of a text that was taken is recorded with it");
            return Ok(Judged {
                found,
                drawn: Vec::new(),
                program: None,
            });
        }
        let found = |network, violations| Found {
            network,
            tables_changed: true,
            violations,
        };
        let governed = network_of(taken.text.as_str());
        let change = Change::Text(name, Some((governed, &taken.text)));
        let environment = self.environment_after(Some(&change));
        match examiner.examine(name, &taken.text, &environment)? {
            Ok(Examined { compiled, failing }) => Ok(Judged {
                found: found(compiled.network.clone(), failing.violations),
                drawn: failing.diagnostics,
                program: Some(Ok(compiled)),
            }),
            Err(diagnostics) => {
                let network = match &taken.not_confirmed {
                    Some(network) => Some(network.clone()),
                    None if examiner.is_lenient() => network_of(taken.text.as_str())
                        .or_else(|| Some(self.policies.get(name)?.network.clone())),
                    None => None,
                };
                match network {
                    Some(network) => Ok(Judged {
                        found: found(network, Vec::new()),
                        drawn: Vec::new(),
                        program: Some(Err(diagnostics)),
                    }),
                    None => Err(invalid(diagnostics)),
                }
            }
        }
    }

    pub(super) fn set_program(&mut self, name: &Name, compiled: Compiled, effects: &mut Effects) {
        self.refused.remove(name);
        let network = compiled.network;
        let program = Program {
            policy: name.clone(),
            tables: compiled.tables,
            warnings: compiled.warnings,
        };
        let before = self.programs.insert(network.clone(), program);
        let tables = before.map(|program| program.tables);
        effects.programs.insert(network, ProgramBefore { tables });
    }

    /// Takes the policy's program, if it has one, out of force.
    pub(super) fn withdraw(&mut self, name: &Name, network: &Name, effects: &mut Effects) {
        self.refused.remove(name);
        let before = self.programs.remove(network);
        let tables = before.map(|program| program.tables);
        effects
            .programs
            .insert(network.clone(), ProgramBefore { tables });
    }
}
