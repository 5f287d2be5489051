//! What one run of a program costs: a process of its own, from its start to its end.
//!
//! A process counts the CPU time and the peak memory of its children, but not of each apart. So a
//! program is started by a process that has no other child: this program again, as
//! `sunwire-bench measure PROGRAM…`, which then tells what its children used ([`tell`]). That process
//! is small, and it must be: the kernel counts the memory of the starting process up to `execve` as
//! the child's.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// What a run used, and what it said.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Run {
    /// CPU time, user and system, seconds.
    pub(super) cpu_s: f64,
    /// Most memory that was resident at a time, megabytes (10^6 bytes).
    pub(super) peak_mb: f64,
    /// Standard output.
    pub(super) output: String,
}

/// The first line that the measuring process writes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Used {
    /// Exit code; `None` when a signal ended it.
    code: Option<i32>,
    cpu_us: i64,
    peak_kib: i64,
}

/// Runs a program cold.
///
/// # Errors
/// When it cannot be started, or ends with another exit code than 0; its standard error is shown.
pub(super) fn cold(program: &Path, arguments: &[OsString]) -> Result<Run> {
    let own = std::env::current_exe().context("this program does not know where it is")?;
    let said = Command::new(own)
        .args(["measure".as_ref(), program.as_os_str()])
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the measuring process")?;
    ensure!(
        said.status.success(),
        "{} could not be measured ({})",
        program.display(),
        said.status
    );
    let text = String::from_utf8(said.stdout).context("a program wrote no UTF-8")?;
    let (used, output) = split(&text)?;
    if used.code != Some(0) {
        let words: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).collect();
        let how = used
            .code
            .map_or("by a signal".to_owned(), |code| format!("with {code}"));
        bail!(
            "`{} {}` ended {how}:\n{output}",
            program.display(),
            words.join(" ")
        );
    }
    Ok(Run {
        cpu_s: used.cpu_us as f64 / 1e6,
        peak_mb: used.peak_kib as f64 * 1024.0 / 1e6,
        output: output.to_owned(),
    })
}

/// Runs the program that `command` names with its arguments, waits for its end, and writes to
/// standard output what it used, on one line, and then what it wrote.
///
/// # Errors
/// When it cannot be started.
pub fn tell(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no program is named")?;
    let said = Command::new(program)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    // The only child that was waited for.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot read what was used")?;
    let used = Used {
        code: said.status.code(),
        cpu_us: (usage.user_time() + usage.system_time()).num_microseconds(),
        peak_kib: usage.max_rss(),
    };
    println!("{}", serde_json::to_string(&used)?);
    print!("{}", String::from_utf8_lossy(&said.stdout));
    Ok(())
}

fn split(text: &str) -> Result<(Used, &str)> {
    let (used, output) = text.split_once('\n').context("the measure is missing")?;
    let used = serde_json::from_str(used).context("the measure cannot be read")?;
    Ok((used, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measure_is_the_first_line_and_the_rest_is_the_programs() {
        let text = "{\"code\":0,\"cpu_us\":1500,\"peak_kib\":2048}\n{\"a\":1}\n";
        let (used, output) = split(text).unwrap();
        assert_eq!(
            (used.code, used.cpu_us, used.peak_kib),
            (Some(0), 1500, 2048)
        );
        assert_eq!(output, "{\"a\":1}\n");
    }

    #[test]
    fn what_is_no_measure_is_refused() {
        assert!(split("").is_err());
        assert!(split("usage: something\n").is_err());
    }
}
