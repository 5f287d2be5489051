//! `sunwire policy apply`: texts come into force, perhaps on trial, and nodes are waited for.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sunwire_api::client::{Client, ClientError, Guard};
use sunwire_api::{ApplyRequest, Name, Policy, ProblemCode, Status, Unconfirmed};

use super::stored::{table, warn};
use super::{named_bundles, read_bundle, source, when};
use sunwire_policy::imports::Bundle;

use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};
use crate::rest::{GuardArgs, WAIT_SECONDS_MAX};

/// How often progress is shown while nodes are waited for.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What to put in force, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Apply {
    /// Policy files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Another name; for one file.
    #[arg(long)]
    name: Option<Name>,
    #[command(flatten)]
    trial: Trial,
    /// Return once every connected node has applied it; exit code 1 when one has not in time.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait",
        value_parser = clap::value_parser!(u64).range(..=WAIT_SECONDS_MAX))]
    timeout: u64,
    #[command(flatten)]
    guard: GuardArgs,
}

/// How a text comes into force.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Trial {
    /// Put the text before it back unless this one is confirmed within this time, such as 30s or
    /// 5m.
    #[arg(long, value_name = "TIME", value_parser = when::seconds)]
    pub(super) confirm_within: Option<u32>,
    /// Put it in force although something that it asserts does not hold: it is violated then.
    #[arg(long)]
    pub(super) force: bool,
    /// Who applies it, for the history.
    #[arg(long, env = "SUNWIRE_AUTHOR")]
    pub(super) author: Option<String>,
    /// Why, for the history.
    #[arg(long)]
    pub(super) comment: Option<String>,
}

impl Trial {
    /// The request that puts a text, or the candidate, in force this way.
    pub(super) fn request(&self, text: Option<&str>) -> ApplyRequest {
        ApplyRequest {
            text: text.map(str::to_owned),
            confirm_within_seconds: self.confirm_within,
            force: self.force,
            author: self.author.clone(),
            comment: self.comment.clone(),
        }
    }
}

pub(super) fn run(client: &Client, args: &Apply, format: Format) -> anyhow::Result<Outcome> {
    let texts = texts(args)?;
    let mut applied = Vec::new();
    for (name, bundle) in &texts {
        let request = args.trial.request(Some(bundle.text()));
        let policy = put(client, name, &request, &args.guard)
            .map_err(|error| source::in_files(bundle, error))?;
        warn(&policy);
        applied.push(policy);
    }
    output::show(format, &applied[..], table)?;
    if !args.wait {
        return Ok(Outcome::Done);
    }
    let revision = applied.iter().map(|policy| policy.revision).max();
    wait(client, revision.unwrap_or(0), args.timeout)
}

/// Reads everything before anything is applied.
fn texts(args: &Apply) -> anyhow::Result<Vec<(Name, Bundle)>> {
    let (files, guard) = (&args.files[..], &args.guard);
    match (files, &args.name) {
        ([file], Some(name)) => Ok(vec![(name.clone(), read_bundle(file)?)]),
        (files, None) if files.len() == 1 || guard.revision().is_none() => named_bundles(files),
        _ => Err(Usage("--name and --if-revision are for one file".to_owned()).into()),
    }
}

/// Creates the policy, or replaces its text whatever it is now.
fn put(
    client: &Client,
    name: &Name,
    body: &ApplyRequest,
    guard: &GuardArgs,
) -> Result<Policy, ClientError> {
    if let Some(revision) = guard.revision() {
        return client.apply_policy(name, body, Guard::Revision(revision));
    }
    match client.apply_policy(name, body, Guard::None) {
        Err(error)
            if error
                .problem()
                .is_some_and(|problem| problem.code == ProblemCode::PreconditionRequired) =>
        {
            client.apply_policy(name, body, Guard::Any)
        }
        outcome => outcome,
    }
}

/// Waits for every connected node, and says which could not or have not.
pub(super) fn wait(client: &Client, revision: u64, seconds: u64) -> anyhow::Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let mut progress = Progress::new();
    let status = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let status = client.wait_revision(revision, left.min(PROGRESS_EVERY))?;
        if !status.timed_out || left.is_zero() {
            break status;
        }
        progress.show(&status, revision, left);
    };
    progress.clear();
    let mut outcome = Outcome::Done;
    for node in status.nodes.iter().filter(|node| node.connected) {
        if let Some(error) = &node.error {
            eprintln!(
                "error: node {} could not apply it: {}",
                node.name, error.detail
            );
            outcome = Outcome::Negative;
        } else if status.timed_out && node.acknowledged_revision < revision {
            eprintln!(
                "error: node {} has not applied it in {seconds} s",
                node.name
            );
            outcome = Outcome::Negative;
        }
    }
    Ok(outcome)
}

/// A line on a terminal that says who is waited for.
struct Progress {
    on_terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Progress {
            on_terminal: std::io::stderr().is_terminal(),
            shown: false,
        }
    }

    fn show(&mut self, status: &Status, revision: u64, left: Duration) {
        if !self.on_terminal {
            return;
        }
        let connected = status.nodes.iter().filter(|node| node.connected);
        let behind = connected.filter(|node| node.acknowledged_revision < revision);
        let mut names: Vec<String> = behind.map(|node| node.name.to_string()).collect();
        let more = names.len().saturating_sub(5);
        names.truncate(5);
        let mut waiting = names.join(", ");
        if more > 0 {
            waiting.push_str(&format!(" and {more} more"));
        }
        self.write(&format!("waiting for {waiting} ({} s)", left.as_secs()));
        self.shown = true;
    }

    fn clear(&mut self) {
        if self.shown {
            self.write("");
        }
    }

    fn write(&self, line: &str) {
        let mut out = std::io::stderr().lock();
        // Progress that cannot be shown is no failure.
        let _ = write!(out, "\r\x1b[K{line}");
        let _ = out.flush();
    }
}

/// What has to be known of a text on trial.
pub(super) fn on_trial(name: &Name, unconfirmed: &Unconfirmed) -> String {
    let seconds = when::seconds_until(unconfirmed.deadline_unix_ms);
    let otherwise = match unconfirmed.fallback_revision {
        Some(revision) => format!("revision {revision} comes back"),
        None => "the policy goes away".to_owned(),
    };
    format!("on trial: `sunwire policy confirm {name}` within {seconds} s, or {otherwise}")
}
