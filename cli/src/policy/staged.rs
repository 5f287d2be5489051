//! `sunwire policy stage`: candidates, and what they would have done.

use std::fmt::Write as _;
use std::path::PathBuf;

use sunwire_api::client::Client;
use sunwire_api::{AuditTotals, Name, StagedPolicy};

use super::apply::Trial;
use super::stored::show;
use super::{name_of, read_bundle, source};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format, Table};
use crate::rest::GuardArgs;

/// What to do about a candidate.
#[derive(Debug, clap::Args)]
pub(super) struct Stage {
    /// Policy file: the candidate.
    #[arg(required_unless_present_any = ["status", "apply"])]
    file: Option<PathBuf>,
    /// The policy that it is a candidate for; the file's name without the ending when absent.
    #[arg(long, requires = "file")]
    name: Option<Name>,
    /// Show what the candidate of this policy would have done to the packets that came by.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "apply"])]
    status: Option<Name>,
    /// Put the candidate of this policy in force.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    apply: Option<Name>,
    #[command(flatten)]
    trial: Trial,
    #[command(flatten)]
    guard: GuardArgs,
}

pub(super) fn run(client: &Client, args: &Stage, format: Format) -> anyhow::Result<Outcome> {
    let guard = args.guard.guard();
    if let Some(name) = &args.apply {
        let body = args.trial.request(None);
        show(format, &client.apply_policy(name, &body, guard)?)?;
        return Ok(Outcome::Done);
    }
    if let Some(name) = &args.status {
        let staged = client.staged_policy(name)?;
        match format {
            Format::Json => output::json(&staged)?,
            Format::Table => output::text(&in_words(name, &staged))?,
        }
        for warning in &staged.warnings {
            eprintln!("{}\n", warning.rendered.trim_end());
        }
        return Ok(if staged.compiles {
            Outcome::Done
        } else {
            Outcome::Negative
        });
    }
    let Some(file) = &args.file else {
        return Err(Usage("name a file, --status or --apply".to_owned()).into());
    };
    if args.trial.confirm_within.is_some() || args.trial.force {
        let wrong = "--confirm-within and --force go with --apply: a candidate decides nothing";
        return Err(Usage(wrong.to_owned()).into());
    }
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_of(file)?,
    };
    let bundle = read_bundle(file)?;
    let policy = client
        .stage_policy(&name, bundle.text(), guard)
        .map_err(|error| source::in_files(&bundle, error))?;
    show(format, &policy)?;
    Ok(Outcome::Done)
}

fn in_words(name: &Name, staged: &StagedPolicy) -> String {
    let mut text = format!(
        "candidate of {name}, revision {}, counted since revision {}",
        staged.revision, staged.tables_revision
    );
    let nodes = match &staged.reporting_nodes[..] {
        [] => "no node has reported yet".to_owned(),
        nodes => format!("on {}", output::list(nodes)),
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, ": {nodes}");
    if !staged.compiles {
        text.push_str("it does not compile against what there is now, and is not asked\n");
    }
    for refusal in &staged.refusing_nodes {
        let _ = writeln!(
            text,
            "node {} cannot ask it: {}",
            refusal.node, refusal.detail
        );
    }
    let differs = |totals: &&AuditTotals| totals.live_allowed != totals.staged_allowed;
    let differing = staged.audit.iter().filter(differs).map(|one| one.packets);
    let all = staged.audit.iter().map(|one| one.packets);
    let _ = writeln!(
        text,
        "{} of {} packets would be treated otherwise",
        differing.sum::<u64>(),
        all.sum::<u64>()
    );
    if !staged.audit.is_empty() {
        text.push_str(&table(&staged.audit).render());
    }
    text
}

fn table(audit: &[AuditTotals]) -> Table {
    let mut table = Table::new(&["NOW", "THEN", "RULE NOW", "RULE THEN", "PACKETS", "BYTES"]);
    let (differing, same): (Vec<_>, Vec<_>) = audit
        .iter()
        .partition(|totals| totals.live_allowed != totals.staged_allowed);
    let verdict = |allowed: bool| if allowed { "pass" } else { "drop" }.to_owned();
    for totals in differing.into_iter().chain(same) {
        table.row([
            verdict(totals.live_allowed),
            verdict(totals.staged_allowed),
            totals.live_label.clone(),
            totals.staged_label.clone(),
            totals.packets.to_string(),
            totals.bytes.to_string(),
        ]);
    }
    table
}
