//! Candidates: compiled and asked beside the text in force, on live flows; they drop nothing.

use sunwire_api::{Name, ProblemCode};

use super::{Staged, StagedText, invalid};
use crate::compile::Compiled;
use crate::effects::{Effects, ProgramBefore};
use crate::examine::Examiner;
use crate::refusal::Refusal;
use crate::state::{Source, State};

/// A candidate with its tables.
pub(super) fn program(policy: &Name, staged: &StagedText, compiled: Compiled) -> Staged {
    Staged {
        policy: policy.clone(),
        revision: staged.tables_revision,
        text_hash: staged.text.hash(),
        tables: compiled.tables,
        warnings: compiled.warnings,
    }
}

impl State {
    pub(in crate::state) fn stage_policy(
        &mut self,
        name: &Name,
        text: &Source,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let network = self.policy(name)?.network.clone();
        let compiled = match examiner {
            Examiner::Recorded(_) => None,
            _ => {
                let compilation = examiner.compile(text, &self.environment())?;
                let compiled = compilation.map_err(invalid)?;
                if compiled.network != network {
                    return Err(Refusal::new(
                        ProblemCode::StagedElsewhere,
                        format!(
                            "the text is for network {}, and policy {name} governs network \
                             {network}: stage it for the policy of its network",
                            compiled.network
                        ),
                    ));
                }
                Some(compiled)
            }
        };

        let staged = StagedText {
            text: text.clone(),
            revision: effects.revision,
            tables_revision: effects.revision,
        };
        if let Some(compiled) = compiled {
            self.set_staged(name, &staged, compiled, effects);
        }
        let record = self.policy_mut(name);
        record.staged = Some(staged);
        record.revision = effects.revision;
        effects.outcome.staged.insert(name.clone());
        Ok(())
    }

    pub(in crate::state) fn unstage_policy(
        &mut self,
        name: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.staged_text(name)?;
        self.remove_staged(name, effects);
        self.policy_mut(name).revision = effects.revision;
        Ok(())
    }

    /// The policy's candidate.
    pub(in crate::state) fn staged_text(&self, name: &Name) -> Result<&StagedText, Refusal> {
        self.policy(name)?.staged.as_ref().ok_or_else(|| {
            Refusal::new(
                ProblemCode::NothingStaged,
                format!("policy {name} has no candidate: PUT /v1/policies/{name}/stage makes one"),
            )
        })
    }

    /// Takes the policy's candidate away, if it has one.
    pub(super) fn remove_staged(&mut self, name: &Name, effects: &mut Effects) {
        let Some(record) = self.policies.get_mut(name) else {
            return;
        };
        let network = record.network.clone();
        if record.staged.take().is_some() {
            self.withdraw_staged(name, &network, effects);
        }
    }

    pub(super) fn set_staged(
        &mut self,
        name: &Name,
        staged: &StagedText,
        compiled: Compiled,
        effects: &mut Effects,
    ) {
        self.staged_refused.remove(name);
        let network = compiled.network.clone();
        let program = program(name, staged, compiled);
        let before = self.staged.insert(network.clone(), program);
        let tables = before.map(|staged| staged.tables);
        effects.staged.insert(network, ProgramBefore { tables });
    }

    /// Agents ask the candidate no more.
    pub(super) fn withdraw_staged(&mut self, name: &Name, network: &Name, effects: &mut Effects) {
        self.staged_refused.remove(name);
        if let Some(before) = self.staged.remove(network) {
            let tables = Some(before.tables);
            effects
                .staged
                .insert(network.clone(), ProgramBefore { tables });
        }
    }
}
