//! Policies at the controller: their commands, and the short ones.

use std::path::PathBuf;

use serde::Serialize;
use sunwire_api::client::Client;
use sunwire_api::{
    Name, Policy, PolicyHistory, PolicyPlan, PolicyRevision, PolicyState, RollbackRequest,
};

use super::apply::{self, Apply, Trial, on_trial};
use super::staged::{self, Stage};
use super::{NamesFrom, diff, name_of, read_bundle, source, when};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format, Table};
use crate::rest::GuardArgs;

/// Commands about policies at the controller.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Put policies in force, each under its file's name without the ending.
    ///
    /// A policy with mistakes, or with an assertion or test that does not hold, is refused, and the
    /// packet that shows it is printed. With --confirm-within the policy is on trial: unless
    /// `sunwire policy confirm` comes in time, the controller puts the text before it back.
    #[command(after_help = "\
Examples:
  sunwire policy apply shop.nk --wait
  sunwire policy apply shop.nk --confirm-within 30s --comment 'ticket 7'
  sunwire policy confirm shop
  sunwire policy apply shop.nk --force      # although an assertion does not hold")]
    Apply(Apply),
    /// Keep a policy that is on trial for good.
    #[command(after_help = "\
Examples:
  sunwire policy confirm shop
  sunwire policy confirm shop --if-revision 17      # only what was seen")]
    Confirm {
        /// Name of the policy.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Have a candidate audited on live flows beside the policy in force; it drops nothing.
    #[command(after_help = "\
Examples:
  sunwire policy stage next.nk --name shop
  sunwire policy stage --status shop                # what it would have done so far
  sunwire policy stage --apply shop --confirm-within 30s
  sunwire policy unstage shop")]
    Stage(Stage),
    /// Take a candidate away.
    Unstage {
        /// Name of the policy.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Say what would change if a policy came into force: packets, and who could reach whom; exit
    /// code 1 when it would be refused.
    ///
    /// The difference is symbolic: nothing is missed. Each line of it has one packet as an example.
    #[command(after_help = "\
Examples:
  sunwire policy plan shop.nk
  sunwire policy plan next.nk --name shop -o json
  sunwire policy plan old.nk new.nk                 # two files, without a controller")]
    Plan {
        /// Policy file, compared with the policy in force; with NEW, the file to start from.
        file: PathBuf,
        /// Another policy file: compare the two, and nothing at the controller; exit code 1 when
        /// something changes.
        #[arg(conflicts_with = "name")]
        new: Option<PathBuf>,
        /// Name of the policy; the file's without the ending when absent.
        #[arg(long)]
        name: Option<Name>,
        #[command(flatten)]
        names: NamesFrom,
    },
    /// Show the differences between two texts of a policy; exit code 1 when there are any.
    #[command(after_help = "\
Examples:
  sunwire policy diff shop.nk                       # the text in force, and the file
  sunwire policy diff --name shop                   # the text before, and that in force
  sunwire policy diff --name shop --from 17 --to 21
  sunwire policy diff --name shop --staged          # the text in force, and the candidate
  sunwire policy diff old.nk new.nk                 # two files, laid out evenly")]
    Diff(Differ),
    /// List policies.
    List,
    /// Show what became of a policy.
    Get {
        /// Name of the policy.
        name: Name,
    },
    /// Print the text in force, byte for byte, or an earlier one.
    Show {
        /// Name of the policy.
        name: Name,
        /// Revision of the text, out of its history.
        #[arg(long, value_name = "REVISION")]
        revision: Option<u64>,
    },
    /// List the texts that a policy had, oldest first; the last is in force.
    History {
        /// Name of the policy.
        name: Name,
    },
    /// Bring back an earlier text, resolved anew.
    #[command(after_help = "\
Examples:
  sunwire policy rollback shop                      # to the text before the present one
  sunwire policy rollback shop 17 --confirm-within 5m")]
    Rollback {
        /// Name of the policy.
        name: Name,
        /// The revision to go back to; the one before the present one when absent.
        revision: Option<u64>,
        /// The same.
        #[arg(
            long,
            value_name = "REVISION",
            conflicts_with = "revision",
            hide = true
        )]
        to: Option<u64>,
        #[command(flatten)]
        trial: Trial,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Delete policies: everything in their networks is dropped from then on.
    Delete {
        /// Names of the policies.
        #[arg(required = true)]
        names: Vec<Name>,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

/// Which texts to compare.
#[derive(Debug, clap::Args)]
pub(super) struct Differ {
    /// Policy file, compared with the text in force.
    #[arg(required_unless_present = "name", conflicts_with_all = ["from", "to", "staged"])]
    pub(super) file: Option<PathBuf>,
    /// Another policy file: compare the two, and nothing at the controller.
    #[arg(conflicts_with = "name")]
    pub(super) new: Option<PathBuf>,
    /// Name of the policy; the file's without the ending when absent.
    #[arg(long)]
    name: Option<Name>,
    /// Revision of the first text; the one before the second when absent.
    #[arg(long, value_name = "REVISION")]
    from: Option<u64>,
    /// Revision of the second text; the one in force when absent.
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    /// Compare the text in force with the candidate.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    staged: bool,
    #[command(flatten)]
    pub(super) names: NamesFrom,
}

/// Runs a command that is about policies at the controller.
pub(super) fn run(client: &Client, command: Command, format: Format) -> anyhow::Result<Outcome> {
    match command {
        Command::Apply(args) => return apply::run(client, &args, format),
        Command::Confirm { name, guard } => {
            show(format, &client.confirm_policy(&name, guard.guard())?)?;
        }
        Command::Stage(args) => return staged::run(client, &args, format),
        Command::Unstage { name, guard } => {
            show(format, &client.unstage_policy(&name, guard.guard())?)?;
        }
        Command::Plan { file, name, .. } => return plan(client, &file, name, format),
        Command::Diff(args) => return differences(client, &args, format),
        Command::List => output::show(format, &client.policies()?[..], table)?,
        Command::Get { name } => show(format, &client.policy(&name)?)?,
        Command::Show { name, revision } => text(client, &name, revision, format)?,
        Command::History { name } => {
            output::show(format, &client.policy_history(&name)?, history)?;
        }
        Command::Rollback {
            name,
            revision,
            to,
            trial,
            guard,
        } => {
            let body = RollbackRequest {
                to: revision.or(to),
                confirm_within_seconds: trial.confirm_within,
                force: trial.force,
                author: trial.author,
                comment: trial.comment,
            };
            let policy = client.rollback_policy_with(&name, &body, guard.guard())?;
            show(format, &policy)?;
        }
        Command::Delete { names, guard } => {
            for name in &names {
                let deleted = client.delete_policy(name, guard.guard())?;
                output::tell(format, &deleted, |_| format!("deleted policy {name}"))?;
            }
        }
    }
    Ok(Outcome::Done)
}

fn text(client: &Client, name: &Name, revision: Option<u64>, format: Format) -> anyhow::Result<()> {
    match (revision, format) {
        (Some(revision), Format::Json) => output::json(&client.policy_revision(name, revision)?),
        (Some(revision), Format::Table) => {
            output::text(&client.policy_revision(name, revision)?.text)
        }
        (None, Format::Json) => output::json(&client.policy(name)?),
        (None, Format::Table) => output::text(&client.policy(name)?.spec.text),
    }
}

fn plan(
    client: &Client,
    file: &std::path::Path,
    name: Option<Name>,
    format: Format,
) -> anyhow::Result<Outcome> {
    let name = match name {
        Some(name) => name,
        None => name_of(file)?,
    };
    let bundle = read_bundle(file)?;
    let plan = client
        .plan_policy(&name, bundle.text())
        .map_err(|error| source::in_files(&bundle, error))?;
    match format {
        Format::Json => output::json(&plan)?,
        Format::Table => output::text(&in_words(&plan))?,
    }
    Ok(if plan.violations.is_empty() {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

fn in_words(plan: &PolicyPlan) -> String {
    let mut text = match plan.from_revision {
        Some(revision) => format!(
            "network {}, compared with revision {revision}\n",
            plan.network
        ),
        None => format!("network {}, which has no policy\n", plan.network),
    };
    text.push_str(&plan.rendered);
    for violation in &plan.violations {
        text.push_str(&format!("! it would be refused: {}\n", violation.message));
    }
    text
}

/// What `diff` answers in JSON.
#[derive(Serialize)]
struct Differences {
    from: String,
    to: String,
    same: bool,
    diff: String,
}

fn differences(client: &Client, args: &Differ, format: Format) -> anyhow::Result<Outcome> {
    let name = match (&args.name, &args.file) {
        (Some(name), _) => name.clone(),
        (None, Some(file)) => name_of(file)?,
        (None, None) => return Err(Usage("name a file, or --name a policy".to_owned()).into()),
    };
    let (from, to) = if let Some(file) = &args.file {
        let text = read_bundle(file)?.text().to_owned();
        (in_force(client, &name)?, (file.display().to_string(), text))
    } else if args.staged {
        let staged = client.staged_policy(&name)?;
        let label = format!("{name}, candidate of revision {}", staged.revision);
        (in_force(client, &name)?, (label, staged.text))
    } else {
        out_of_history(client, &name, args.from, args.to)?
    };
    let diff = diff::unified(&from.1, &to.1, &from.0, &to.0);
    let same = diff.is_empty();
    match format {
        Format::Table => output::text(&diff)?,
        Format::Json => output::json(&Differences {
            from: from.0,
            to: to.0,
            same,
            diff,
        })?,
    }
    Ok(if same {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

/// A text, and what to call it.
type Named = (String, String);

fn in_force(client: &Client, name: &Name) -> anyhow::Result<Named> {
    let policy = client.policy(name)?;
    let label = format!("{name}, revision {}", policy.status.text_revision);
    Ok((label, policy.spec.text))
}

fn out_of_history(
    client: &Client,
    name: &Name,
    from: Option<u64>,
    to: Option<u64>,
) -> anyhow::Result<(Named, Named)> {
    let named = |item: &PolicyRevision| {
        let label = format!("{name}, revision {}", item.revision);
        (label, item.text.clone())
    };
    let to = match to {
        Some(revision) => client.policy_revision(name, revision)?,
        None => client.policy_revision(name, client.policy(name)?.status.text_revision)?,
    };
    let from = match from {
        Some(revision) => named(&client.policy_revision(name, revision)?),
        None => {
            let items = client.policy_history(name)?.items;
            let before = items.iter().rev().find(|item| item.revision < to.revision);
            // The first text came after nothing.
            before.map_or_else(|| ("nothing".to_owned(), String::new()), named)
        }
    };
    Ok((from, named(&to)))
}

/// Shows a policy, and what there is to say about it.
pub(super) fn show(format: Format, policy: &Policy) -> anyhow::Result<()> {
    warn(policy);
    output::show(format, policy, |policy| table(std::slice::from_ref(policy)))
}

/// Says on standard error what a table has no room for.
pub(super) fn warn(policy: &Policy) {
    for warning in &policy.status.warnings {
        eprintln!("{}\n", warning.rendered.trim_end());
    }
    for violation in &policy.status.violations {
        eprintln!("violated: {}", violation.message);
    }
    if let Some(unconfirmed) = &policy.status.unconfirmed {
        eprintln!("{}", on_trial(&policy.name, unconfirmed));
    }
}

pub(super) fn table(policies: &[Policy]) -> Table {
    let mut table = Table::new(&[
        "NAME", "NETWORK", "STATE", "NODES", "LEAVES", "PREFIXES", "WARNINGS", "TABLES", "STAGED",
        "REVISION",
    ]);
    for policy in policies {
        let status = &policy.status;
        let state = match &status.unconfirmed {
            Some(_) if status.state == PolicyState::InForce => "on-trial".to_owned(),
            _ => status.state.to_string(),
        };
        let staged = status.staged.as_ref().map(|staged| staged.revision);
        table.row([
            policy.name.to_string(),
            status.network.to_string(),
            state,
            status.table_nodes.to_string(),
            status.leaves.to_string(),
            status.address_prefixes.to_string(),
            status.warnings.len().to_string(),
            status.tables_revision.to_string(),
            output::option(&staged),
            policy.revision.to_string(),
        ]);
    }
    table
}

fn history(history: &PolicyHistory) -> Table {
    let mut table = Table::new(&[
        "REVISION",
        "WHEN (UTC)",
        "REASON",
        "OF",
        "LINES",
        "HASH",
        "AUTHOR",
        "COMMENT",
    ]);
    for revision in &history.items {
        table.row([
            revision.revision.to_string(),
            revision.at_unix_ms.map(when::utc).unwrap_or_default(),
            revision.reason.to_string(),
            output::option(&revision.rolled_back_to),
            revision.text.lines().count().to_string(),
            revision.text_hash.chars().take(12).collect(),
            output::option(&revision.author),
            output::option(&revision.comment),
        ]);
    }
    table
}
