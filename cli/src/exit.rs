//! What the shell learns of a command: exit codes that scripts can rely on, and errors as one
//! block on standard error.

use std::io;
use std::process::ExitCode;

use sunwire_api::Problem;
use sunwire_api::client::ClientError;

/// The exit codes, for the end of the help.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done, allowed, the same
  1  denied, different, or refused by the controller
  2  unreachable, or failed
  3  wrong usage";

const REFUSED: u8 = 1;
const FAILED: u8 = 2;
const USAGE: u8 = 3;

/// How a command that could be carried out came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Done,
    /// Denied, different, or with findings that were shown.
    Negative,
    /// A program that was run on someone's behalf ended with this code.
    Code(u8),
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

/// The exit code of `outcome`; an error is shown first.
pub(crate) fn code(outcome: anyhow::Result<Outcome>) -> ExitCode {
    let error = match outcome {
        Ok(Outcome::Done) => return ExitCode::SUCCESS,
        Ok(Outcome::Negative) => return ExitCode::from(REFUSED),
        Ok(Outcome::Code(code)) => return ExitCode::from(code),
        Err(error) => error,
    };
    if is_broken_pipe(&error) {
        // Whoever read our output has enough: `sunwire ... | head` is no failure.
        return ExitCode::SUCCESS;
    }
    match error
        .downcast_ref::<ClientError>()
        .and_then(ClientError::problem)
    {
        Some(problem) => {
            eprint!("{}", render(problem));
            ExitCode::from(REFUSED)
        }
        None => {
            eprintln!("error: {error}");
            let mut shown = error.to_string();
            for cause in error.chain().skip(1) {
                let text = cause.to_string();
                // Some libraries repeat the inner message in the outer one.
                if !shown.contains(&text) {
                    eprintln!("  because: {text}");
                }
                shown = text;
            }
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}

/// A problem as one block: what is wrong, every finding under its line, and the code.
pub(crate) fn render(problem: &Problem) -> String {
    let mut text = format!("error: {}: {}\n", problem.title, problem.detail);
    for finding in &problem.diagnostics {
        text.push('\n');
        text.push_str(finding.rendered.trim_end());
        text.push('\n');
    }
    text.push_str(&format!("  code: {}\n", problem.code));
    text
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
