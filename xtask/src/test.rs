//! `cargo xtask test`: sets up what is missing, builds everything once, and runs the tests tier by
//! tier with plain `cargo test`.
//!
//! A tier that ran fewer tests than its minimum has failed: tests that silently stopped running
//! prove nothing. The last line of the output is always `N passed, N failed, N skipped`, where
//! whatever keeps the run from succeeding (a build that fails, a tier below its minimum) counts as
//! one failure, so the line and the exit code agree.

use std::io::{BufRead as _, BufReader, IsTerminal as _, PipeReader};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::test_output::{Reader, Tally};
use crate::tiers::{self, Tier};
use crate::{build_ebpf, process, progress, setup, workspace};

/// The tiers; see [`tiers`].
pub(crate) const TABLE: &str = include_str!("../tiers.json");

/// How long a process that a test has killed may take to go away.
const LINGER: Duration = Duration::from_secs(10);

/// Runs the subcommand; `quick` leaves out the tiers that are slow.
pub(crate) fn run(quick: bool) -> ExitCode {
    let tally = execute(quick);
    println!("{}", tally.summary());
    exit_code(&tally)
}

/// Success when nothing failed.
pub(crate) fn exit_code(tally: &Tally) -> ExitCode {
    ExitCode::from(u8::from(tally.failed() > 0))
}

/// Runs all and prints everything but the last line.
pub(crate) fn execute(quick: bool) -> Tally {
    match execute_tiers(quick) {
        Ok(results) => report(&results, quick),
        Err(error) => {
            progress::error(&error);
            Tally {
                failures: vec![format!("{error:#}")],
                ..Tally::default()
            }
        }
    }
}

/// A tier with its outcome; `None` when it was left out.
struct TierResult {
    tier: Tier,
    outcome: Option<(Tally, Duration)>,
}

fn execute_tiers(quick: bool) -> Result<Vec<TierResult>> {
    if !workspace::is_root() {
        progress::item(
            "note",
            "not root: tests that need network namespaces or eBPF will be skipped; run as root",
        );
    }
    let toolchain = setup::ensure()?;
    build_ebpf::build(&toolchain)?;
    let metadata = workspace::metadata()?;
    let tiers = tiers::assign(TABLE, &tiers::integration_tests(&metadata))?;

    progress::step("build: programs and tests");
    // One selection of packages for all commands: another one would resolve features differently
    // and build the dependencies again.
    process::run_chatty(host_cargo("build").args(["--lib", "--bins", "--tests"]))?;

    tiers
        .into_iter()
        .map(|tier| {
            let outcome = if quick && !tier.quick {
                None
            } else {
                Some(execute_tier(&tier)?)
            };
            Ok(TierResult { tier, outcome })
        })
        .collect()
}

fn execute_tier(tier: &Tier) -> Result<(Tally, Duration)> {
    progress::step(&format!("test {}: {}", tier.name, tier.about));
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut selection: Vec<&str> = Vec::new();
    if tier.units {
        selection.extend(["--lib", "--bins"]);
    }
    for test in &tier.tests {
        selection.extend(["--test", test]);
    }
    if !selection.is_empty() {
        tally.add(cargo_test(tier, &selection)?);
    }
    if tier.units {
        tally.add(cargo_test(tier, &["--doc"])?);
    }
    if tally.ran() < tier.minimum {
        tally.failures.push(format!(
            "tier {} ran {} tests, fewer than its minimum of {} ({} skipped)",
            tier.name,
            tally.ran(),
            tier.minimum,
            tally.skipped()
        ));
    }
    Ok((tally, start.elapsed()))
}

/// Runs one `cargo test`, showing and counting what it prints.
fn cargo_test(tier: &Tier, selection: &[&str]) -> Result<Tally> {
    let mut command = host_cargo("test");
    command
        .arg("--no-fail-fast")
        .args(selection)
        .args(["--", "--show-output"])
        .env(
            "SUNWIRE_BIN",
            workspace::target_dir()?.join("debug/sunwire"),
        );
    if let Some(threads) = tier.threads {
        command.arg(format!("--test-threads={threads}"));
    }
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let line = process::line(&command);

    // One pipe for both streams keeps them in order: cargo names the program on standard error.
    let (output, input) = std::io::pipe().context("cannot create a pipe")?;
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone().context("cannot share a pipe")?)
        .stderr(input);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    drop(command); // It holds the writing end; the output ends when the last writer is gone.

    let mut reader = Reader::default();
    let (status, left_behind) = follow(&mut child, output, LINGER, |text| {
        print!("{text}");
        reader.line(text);
    })
    .with_context(|| format!("lost `{line}`"))?;
    let mut tally = reader.finish();
    if left_behind {
        tally.failures.push(format!(
            "{}: a test left a process running (it still holds the output)",
            tier.name
        ));
    }
    if !status.success() && tally.failures.is_empty() {
        tally
            .failures
            .push(format!("{}: `{line}` failed ({status})", tier.name));
    }
    Ok(tally)
}

/// Gives each line of `output` to `line` until all writers are gone or, when `child` has exited but
/// something it started still holds the output, for `linger` more. Returns the exit status and
/// whether something was left behind.
fn follow(
    child: &mut Child,
    output: PipeReader,
    linger: Duration,
    mut line: impl FnMut(&str),
) -> Result<(ExitStatus, bool)> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        // An error ends the output like its end does; the exit status tells the rest.
        while output
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|read| read > 0)
        {
            if sender.send(std::mem::take(&mut bytes)).is_err() {
                break;
            }
        }
    });
    let mut exited: Option<Instant> = None;
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(bytes) => line(&String::from_utf8_lossy(&bytes)),
            Err(RecvTimeoutError::Disconnected) => return Ok((child.wait()?, false)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        match exited {
            Some(since) if since.elapsed() > linger => return Ok((child.wait()?, true)),
            Some(_) => {}
            None => exited = child.try_wait()?.map(|_| Instant::now()),
        }
    }
}

/// Cargo for all packages but the kernel programs, which have a target of their own.
pub(crate) fn host_cargo(subcommand: &str) -> Command {
    let mut command = process::cargo();
    command
        .args([subcommand, "--workspace", "--exclude", build_ebpf::PACKAGE])
        .current_dir(workspace::root());
    command
}

fn report(results: &[TierResult], quick: bool) -> Tally {
    let mut total = Tally::default();
    println!();
    println!(
        "{:<8} {:>7} {:>7} {:>8} {:>8} {:>9}",
        "tier", "passed", "failed", "skipped", "minimum", "seconds"
    );
    for TierResult { tier, outcome } in results {
        match outcome {
            Some((tally, time)) => println!(
                "{:<8} {:>7} {:>7} {:>8} {:>8} {:>9.1}",
                tier.name,
                tally.passed,
                tally.failed(),
                tally.skipped(),
                tier.minimum,
                time.as_secs_f64()
            ),
            None => println!(
                "{:<8} not run{}",
                tier.name,
                if quick { " (--quick)" } else { "" }
            ),
        }
    }
    for TierResult { tier, outcome } in results {
        let Some((tally, _)) = outcome else { continue };
        for test in &tally.skipped {
            println!("skipped  {}: {test}", tier.name);
        }
        for test in &tally.failures {
            println!("FAILED   {}: {test}", tier.name);
        }
    }
    println!();
    for result in results {
        if let Some((tally, _)) = &result.outcome {
            total.add(tally.clone());
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::{LINGER, follow};

    /// Runs a shell script that writes to one pipe; returns its lines and whether it left something.
    fn run(script: &str) -> (Vec<String>, bool) {
        let (output, input) = std::io::pipe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .stdout(input.try_clone().unwrap())
            .stderr(input)
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        let (status, left_behind) = follow(&mut child, output, LINGER, |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert!(status.success());
        (lines, left_behind)
    }

    #[test]
    fn both_streams_are_followed_in_order_to_the_end() {
        let (lines, left_behind) = run("echo a; echo b >&2; printf c");
        assert_eq!(lines, ["a\n", "b\n", "c"]);
        assert!(!left_behind);
    }

    #[test]
    fn a_process_left_behind_is_noticed_and_not_waited_for() {
        // What is left behind waits for this end of the pipe to close.
        let (kept, release) = std::io::pipe().unwrap();
        let (output, input) = std::io::pipe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "exec 3<&0; cat <&3 & echo done"])
            .stdin(kept)
            .stdout(input)
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        let (_, left_behind) = follow(&mut child, output, Duration::from_millis(300), |line| {
            lines.push(line.to_owned())
        })
        .unwrap();
        assert_eq!(lines, ["done\n"]);
        assert!(left_behind);
        drop(release);
    }
}
