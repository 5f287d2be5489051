//! Policies: their texts, and the programs that they compile to.
//!
//! A policy governs the network that its text names; a network has at most one. Whatever changes
//! what names in a text can mean compiles the texts concerned again *before* anything changes, so
//! a change that would leave a policy without meaning is refused and the tables in force always
//! follow from the text in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sunwire_api::{Diagnostic, Name, ProblemCode, Severity};
use sunwire_policy::environment::{self, Environment};
use sunwire_policy::tables::FlowTables;

use super::{EndpointRecord, NodeRecord, RestoreError, State};
use crate::compile::{Compiled, compile};
use crate::effects::{Effects, ProgramBefore};
use crate::refusal::Refusal;

/// How many texts of a policy are kept, and how many bytes of them; the last two always are.
const HISTORY_MAX: usize = 64;
const HISTORY_BYTES_MAX: usize = 16 << 20;

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// The network that it governs.
    pub network: Name,
    /// Its texts, oldest first; never empty, and the last is in force.
    pub history: Vec<TextRevision>,
    /// Revision since which the tables are as they are.
    pub tables_revision: u64,
    /// Revision of its last change: that of the last text.
    pub revision: u64,
}

/// A text that a policy had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextRevision {
    /// Revision since which it was in force.
    pub revision: u64,
    /// The source.
    pub text: String,
    /// The revision whose text a rollback brought back.
    pub rolled_back_to: Option<u64>,
}

/// The compiled policy of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of the policy.
    pub policy: Name,
    /// The tables.
    pub tables: Arc<FlowTables>,
    /// Findings that are no errors.
    pub warnings: Vec<Diagnostic>,
}

impl PolicyRecord {
    /// The text in force.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.present().text
    }

    fn present(&self) -> &TextRevision {
        self.history.last().expect("a history is never empty")
    }
}

/// A change whose meaning for policies is asked before it is made.
pub(super) enum Change<'a> {
    /// The endpoint is so, or gone.
    Endpoint(&'a Name, Option<&'a EndpointRecord>),
    /// The node is so, or gone.
    Node(&'a Name, Option<&'a NodeRecord>),
}

/// What policies compile to after a change, by network.
pub(super) type Recompiled = BTreeMap<Name, Compiled>;

/// Compiles a text.
///
/// # Errors
/// Every error in the text.
pub(crate) fn check(text: &str, environment: &Environment) -> Result<Compiled, Refusal> {
    compile(text, environment).map_err(invalid)
}

fn invalid(diagnostics: Vec<Diagnostic>) -> Refusal {
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

impl State {
    pub(super) fn put_policy(
        &mut self,
        name: &Name,
        text: &str,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.take_text(name, text, None, effects)
    }

    pub(super) fn rollback_policy(
        &mut self,
        name: &Name,
        to: Option<u64>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let history = &self.policy(name)?.history;
        let target = match to {
            None => history.iter().rev().nth(1).ok_or_else(|| {
                Refusal::new(
                    ProblemCode::NothingToRollBack,
                    format!("policy {name} has no revision before the present one"),
                )
            })?,
            Some(to) => {
                let mut found = history.iter().filter(|item| item.revision == to);
                found.next().ok_or_else(|| {
                    Refusal::new(
                        ProblemCode::RevisionNotFound,
                        format!(
                            "policy {name} has no revision {to}: GET \
                             /v1/policies/{name}/history lists those that are kept"
                        ),
                    )
                })?
            }
        };
        let (text, revision) = (target.text.clone(), target.revision);
        self.take_text(name, &text, Some(revision), effects)
    }

    fn take_text(
        &mut self,
        name: &Name,
        text: &str,
        rolled_back_to: Option<u64>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let compiled = check(text, &self.environment())?;
        let network = compiled.network.clone();
        self.network(&network)?;
        if let Some(program) = self.programs.get(&network)
            && program.policy != *name
        {
            return Err(Refusal::new(
                ProblemCode::PolicyNetworkTaken,
                format!(
                    "policy {} governs network {network}: change that one, or delete it first",
                    program.policy
                ),
            ));
        }
        let mut history = match self.policies.get(name) {
            None => Vec::new(),
            Some(present) => {
                if present.network != network {
                    let before = self.programs.remove(&present.network);
                    effects.programs.insert(
                        present.network.clone(),
                        ProgramBefore {
                            tables: before.map(|program| program.tables),
                        },
                    );
                }
                present.history.clone()
            }
        };
        history.push(TextRevision {
            revision: effects.revision,
            text: text.to_owned(),
            rolled_back_to,
        });
        forget_oldest(&mut history);
        let record = PolicyRecord {
            network,
            history,
            tables_revision: effects.revision,
            revision: effects.revision,
        };
        effects.created = self.policies.insert(name.clone(), record).is_none();
        self.set_program(name, compiled, effects);
        Ok(())
    }

    pub(super) fn delete_policy(
        &mut self,
        name: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let network = self.policy(name)?.network.clone();
        self.policies.remove(name);
        let before = self.programs.remove(&network).map(|program| program.tables);
        effects
            .programs
            .insert(network, ProgramBefore { tables: before });
        Ok(())
    }

    pub(super) fn policy(&self, name: &Name) -> Result<&PolicyRecord, Refusal> {
        self.policies.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::PolicyNotFound,
                format!("there is no policy {name}: GET /v1/policies lists all"),
            )
        })
    }

    /// What the policies concerned would compile to after a change.
    pub(super) fn recompiled(&self, change: Change<'_>) -> Result<Recompiled, Refusal> {
        let network = match &change {
            Change::Endpoint(name, record) => {
                let before = self.endpoints.get(*name);
                record.or(before).map(|endpoint| &endpoint.network)
            }
            Change::Node(..) => None,
        };
        let concerned: Vec<_> = self
            .policies
            .iter()
            .filter(|(_, policy)| network.is_none_or(|network| *network == policy.network))
            .collect();
        if concerned.is_empty() {
            return Ok(Recompiled::new());
        }
        let environment = self.environment_after(Some(&change));
        let mut compiled = Recompiled::new();
        for (name, policy) in concerned {
            let now = compile(policy.text(), &environment).map_err(|diagnostics| {
                Refusal::with_diagnostics(
                    ProblemCode::PolicyBroken,
                    format!(
                        "policy {name} would not compile any more: change the policy first so \
                         that it can do without, and then this"
                    ),
                    diagnostics,
                )
            })?;
            compiled.insert(policy.network.clone(), now);
        }
        Ok(compiled)
    }

    /// Puts compiled policies in force; those that are as before are left alone.
    pub(super) fn replace_programs(&mut self, programs: Recompiled, effects: &mut Effects) {
        for (network, compiled) in programs {
            let present = self.programs.get_mut(&network);
            let present = present.expect("what was compiled again had a program");
            if present.tables == compiled.tables {
                present.warnings = compiled.warnings;
                continue;
            }
            let name = present.policy.clone();
            let policy = self.policies.get_mut(&name);
            policy
                .expect("every program has its policy")
                .tables_revision = effects.revision;
            self.set_program(&name, compiled, effects);
        }
    }

    fn set_program(&mut self, policy: &Name, compiled: Compiled, effects: &mut Effects) {
        let network = compiled.network;
        let program = Program {
            policy: policy.clone(),
            tables: compiled.tables,
            warnings: compiled.warnings,
        };
        let before = self.programs.insert(network.clone(), program);
        effects.programs.insert(
            network,
            ProgramBefore {
                tables: before.map(|program| program.tables),
            },
        );
    }

    /// Compiles every policy of a state that was read back.
    pub(super) fn compile_all(&mut self) -> Result<(), RestoreError> {
        let environment = self.environment();
        self.programs.clear();
        for (name, policy) in &self.policies {
            let refused = |detail| RestoreError {
                policy: name.clone(),
                detail,
            };
            let compiled = compile(policy.text(), &environment).map_err(|diagnostics| {
                let mut messages = diagnostics.into_iter().map(|finding| finding.message);
                refused(messages.next().unwrap_or_default())
            })?;
            if compiled.network != policy.network {
                return Err(refused(format!(
                    "it names network {}, not {}",
                    compiled.network, policy.network
                )));
            }
            let program = Program {
                policy: name.clone(),
                tables: compiled.tables,
                warnings: compiled.warnings,
            };
            self.programs.insert(policy.network.clone(), program);
        }
        Ok(())
    }

    /// What names in a text can mean.
    #[must_use]
    pub fn environment(&self) -> Environment {
        self.environment_after(None)
    }

    /// What names in a text can mean after a change, if there is one.
    fn environment_after(&self, change: Option<&Change<'_>>) -> Environment {
        let networks = self.networks.iter().map(|(name, network)| {
            let subnets = network.subnets.iter();
            environment::Network {
                name: name.to_string(),
                vni: network.vni.get(),
                subnets: subnets
                    .map(|subnet| (subnet.address(), subnet.prefix()))
                    .collect(),
            }
        });
        let changed_endpoint = match change {
            Some(Change::Endpoint(name, record)) => Some((*name, *record)),
            _ => None,
        };
        let changed_node = match change {
            Some(Change::Node(name, record)) => Some((*name, *record)),
            _ => None,
        };
        let endpoints = with_change(&self.endpoints, changed_endpoint);
        let nodes = with_change(&self.nodes, changed_node);
        Environment {
            networks: networks.collect(),
            endpoints: endpoints
                .map(|(name, endpoint)| environment::Endpoint {
                    name: name.to_string(),
                    number: endpoint.number,
                    network: endpoint.network.to_string(),
                    addresses: endpoint.addresses.clone(),
                    mac: endpoint.mac.0,
                    labels: endpoint.labels.clone(),
                })
                .collect(),
            nodes: nodes
                .map(|(name, node)| environment::Node {
                    name: name.to_string(),
                    number: node.number,
                })
                .collect(),
        }
    }
}

/// Keeps the end of a history that is within bounds.
fn forget_oldest(history: &mut Vec<TextRevision>) {
    let mut bytes = 0;
    let within = history.iter().rev().take(HISTORY_MAX).take_while(|item| {
        bytes += item.text.len();
        bytes <= HISTORY_BYTES_MAX
    });
    let kept = within.count().max(2).min(history.len());
    history.drain(..history.len() - kept);
}

/// The records, with one of them so, or gone.
fn with_change<'a, T>(
    records: &'a BTreeMap<Name, T>,
    change: Option<(&'a Name, Option<&'a T>)>,
) -> impl Iterator<Item = (&'a Name, &'a T)> {
    let changed = change.map(|(name, _)| name);
    let unchanged = records
        .iter()
        .filter(move |(name, _)| changed != Some(*name));
    let now = change.and_then(|(name, record)| record.map(|record| (name, record)));
    unchanged.chain(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_its_end_within_bounds_and_always_the_last_two() {
        let item = |revision, bytes: usize| TextRevision {
            revision,
            text: "-".repeat(bytes),
            rolled_back_to: None,
        };
        let kept = |mut history: Vec<TextRevision>| {
            forget_oldest(&mut history);
            history.iter().map(|item| item.revision).collect::<Vec<_>>()
        };
        assert_eq!(kept(vec![item(1, 9)]), [1]);
        assert_eq!(kept((1..=70).map(|n| item(n, 9)).collect()).len(), 64);
        let large = HISTORY_BYTES_MAX / 2;
        assert_eq!(kept((1..=4).map(|n| item(n, large)).collect()), [3, 4]);
        let huge = HISTORY_BYTES_MAX + 1;
        assert_eq!(kept((1..=4).map(|n| item(n, huge)).collect()), [3, 4]);
    }
}
