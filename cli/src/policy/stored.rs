//! Policies at the controller.

use std::path::PathBuf;
use std::time::Duration;

use sunwire_api::client::{Client, Guard};
use sunwire_api::{Name, Policy, PolicyHistory, ProblemCode};

use super::{Command, named_texts, read_bundle};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format, Table};
use crate::rest::GuardArgs;

/// Runs a command that is about policies at the controller.
pub(super) fn run(client: &Client, command: Command, format: Format) -> anyhow::Result<Outcome> {
    match command {
        Command::Apply {
            files,
            name,
            wait,
            timeout,
            guard,
        } => {
            let texts = texts(&files, name, &guard)?;
            return apply(client, &texts, wait.then_some(timeout), &guard, format);
        }
        Command::List => output::show(format, &client.policies()?[..], table)?,
        Command::Get { name } => show(format, &client.policy(&name)?)?,
        Command::Show { name } => {
            let policy = client.policy(&name)?;
            match format {
                Format::Json => output::json(&policy)?,
                Format::Table => output::text(&policy.spec.text)?,
            }
        }
        Command::History { name } => {
            output::show(format, &client.policy_history(&name)?, history)?;
        }
        Command::Rollback { name, to, guard } => {
            show(format, &client.rollback_policy(&name, to, guard.guard())?)?;
        }
        Command::Delete { names, guard } => {
            for name in &names {
                let deleted = client.delete_policy(name, guard.guard())?;
                output::tell(format, &deleted, |_| format!("deleted policy {name}"))?;
            }
        }
        Command::Check { .. } | Command::Eval { .. } | Command::Compile { .. } => {
            unreachable!("these do not ask for stored policies")
        }
    }
    Ok(Outcome::Done)
}

/// Reads everything before anything is applied.
fn texts(
    files: &[PathBuf],
    name: Option<Name>,
    guard: &GuardArgs,
) -> anyhow::Result<Vec<(Name, String)>> {
    match (files, name) {
        ([file], Some(name)) => Ok(vec![(name, read_bundle(file)?.text().to_owned())]),
        (files, None) if files.len() == 1 || guard.revision().is_none() => named_texts(files),
        _ => Err(Usage("--name and --if-revision are for one file".to_owned()).into()),
    }
}

fn apply(
    client: &Client,
    texts: &[(Name, String)],
    wait_seconds: Option<u64>,
    guard: &GuardArgs,
    format: Format,
) -> anyhow::Result<Outcome> {
    let mut applied = Vec::new();
    for (name, text) in texts {
        let policy = put(client, name, text, guard)?;
        warn(&policy);
        applied.push(policy);
    }
    output::show(format, &applied[..], table)?;
    let Some(seconds) = wait_seconds else {
        return Ok(Outcome::Done);
    };
    let revision = applied.iter().map(|policy| policy.revision).max();
    let status = client.wait_revision(revision.unwrap_or(0), Duration::from_secs(seconds))?;
    let mut outcome = Outcome::Done;
    for node in status.nodes.iter().filter(|node| node.connected) {
        if let Some(error) = &node.error {
            eprintln!(
                "error: node {} could not apply it: {}",
                node.name, error.detail
            );
            outcome = Outcome::Negative;
        } else if status.timed_out && Some(node.acknowledged_revision) < revision {
            eprintln!(
                "error: node {} has not applied it in {seconds} s",
                node.name
            );
            outcome = Outcome::Negative;
        }
    }
    Ok(outcome)
}

/// Creates the policy, or replaces its text whatever it is now.
fn put(client: &Client, name: &Name, text: &str, guard: &GuardArgs) -> anyhow::Result<Policy> {
    if let Some(revision) = guard.revision() {
        return Ok(client.put_policy(name, text, Guard::Revision(revision))?);
    }
    match client.put_policy(name, text, Guard::None) {
        Err(error)
            if error
                .problem()
                .is_some_and(|problem| problem.code == ProblemCode::PreconditionRequired) =>
        {
            Ok(client.put_policy(name, text, Guard::Any)?)
        }
        outcome => Ok(outcome?),
    }
}

fn show(format: Format, policy: &Policy) -> anyhow::Result<()> {
    warn(policy);
    output::show(format, policy, |policy| table(std::slice::from_ref(policy)))
}

fn warn(policy: &Policy) {
    for warning in &policy.status.warnings {
        eprintln!("{}\n", warning.rendered.trim_end());
    }
}

fn table(policies: &[Policy]) -> Table {
    let mut table = Table::new(&[
        "NAME", "NETWORK", "NODES", "LEAVES", "PREFIXES", "WARNINGS", "TABLES", "REVISION",
    ]);
    for policy in policies {
        let status = &policy.status;
        table.row([
            policy.name.to_string(),
            status.network.to_string(),
            status.table_nodes.to_string(),
            status.leaves.to_string(),
            status.address_prefixes.to_string(),
            status.warnings.len().to_string(),
            status.tables_revision.to_string(),
            policy.revision.to_string(),
        ]);
    }
    table
}

fn history(history: &PolicyHistory) -> Table {
    let mut table = Table::new(&["REVISION", "ROLLED BACK TO", "LINES", "FIRST LINE"]);
    for revision in &history.items {
        let first = revision.text.lines().find(|line| !line.trim().is_empty());
        table.row([
            revision.revision.to_string(),
            output::option(&revision.rolled_back_to),
            revision.text.lines().count().to_string(),
            first.unwrap_or_default().trim().chars().take(60).collect(),
        ]);
    }
    table
}
