//! What the shell learns of a command: exit codes that scripts can rely on, and errors as one
//! block on standard error.

use std::io;
use std::process::ExitCode;

use sunwire_api::Problem;
use sunwire_api::client::ClientError;
use sunwire_lab::LabError;

use crate::output::Format;

/// The exit codes, for the end of the help.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done, allowed, the same
  1  denied, different, or refused by the controller
  2  unreachable, failed, or without an answer
  3  wrong usage";

const REFUSED: u8 = 1;
pub(crate) const FAILED: u8 = 2;
const USAGE: u8 = 3;

/// How a command that could be carried out came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Done,
    /// Denied, different, or with findings that were shown.
    Negative,
    /// There is no answer, and why was shown.
    Failed,
}

/// A mistake in what was typed that only shows once the command runs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Shows what clap has to say: help, the version, or wrong usage.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing is left to do when even this cannot be written.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}

/// The exit code of `outcome`; an error is shown first, a refusal as JSON where that was asked for.
pub(crate) fn code(outcome: anyhow::Result<Outcome>, format: Format) -> ExitCode {
    let error = match outcome {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Negative) => return ExitCode::from(REFUSED),
        Ok(Outcome::Failed) => return ExitCode::from(FAILED),
        Err(error) => error,
    };
    if is_broken_pipe(&error) {
        // Whoever read our output has enough: `sunwire ... | head` is no failure.
        return ExitCode::SUCCESS;
    }
    let problem = error
        .downcast_ref::<ClientError>()
        .and_then(ClientError::problem);
    match problem {
        Some(problem) => eprint!("{}", render(problem, format)),
        None => eprint!("{}", block(&error)),
    }
    let refused_by_lab = matches!(error.downcast_ref(), Some(LabError::Refused { .. }));
    ExitCode::from(if problem.is_some() || refused_by_lab {
        REFUSED
    } else if error.is::<Usage>() {
        USAGE
    } else {
        FAILED
    })
}

/// A problem as one block: what is wrong, every finding under its line, and the code.
fn render(problem: &Problem, format: Format) -> String {
    if format == Format::Json {
        let mut text = serde_json::to_string_pretty(problem).expect("a problem is plain JSON");
        text.push('\n');
        return text;
    }
    let mut text = format!("error: {}", problem.title);
    if problem.diagnostics.is_empty() {
        text.push_str(&format!(": {}", problem.detail));
    }
    text.push('\n');
    for finding in &problem.diagnostics {
        text.push('\n');
        text.push_str(finding.rendered.trim_end());
        text.push('\n');
    }
    if !problem.diagnostics.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("  code: {}\n", problem.code));
    text
}

/// An error and its causes as one block.
fn block(error: &anyhow::Error) -> String {
    let mut shown = error.to_string();
    let mut text = format!("error: {shown}\n");
    let mut denied = false;
    for cause in error.chain().skip(1) {
        let cause_text = cause.to_string();
        // Some libraries repeat the inner message in the outer one.
        if !shown.contains(&cause_text) {
            text.push_str(&format!("  because: {cause_text}\n"));
        }
        shown = cause_text;
        denied |= cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    }
    if let Some(ClientError::Unanswered { .. }) = error.downcast_ref() {
        text.push_str(
            "  hint: is a controller running there? --server URL or --lab ID say which one to ask\n",
        );
    }
    if denied && !nix::unistd::geteuid().is_root() {
        text.push_str("  hint: this needs root\n");
    }
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
