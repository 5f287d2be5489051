//! `cargo xtask vmtest`: the tests under other kernels than the one that runs here.
//!
//! ```text
//! this machine                         a virtual machine (QEMU, no KVM needed)
//!   target/vmtest/6.1   <- apt           Debian's kernel, an init of our own
//!   test programs  ---- virtiofs ---->   sees this machine's files, read-only
//!   output, logs   <--- serial line ---  runs them one after another
//! ```
//!
//! [`kernel`] fetches what Debian ships as its cloud kernel, without installing it. [`image`] makes
//! what the machine starts from, [`machine`] runs it and ends it, and each of [`suites`] says what
//! is run inside. Whatever happens, the logs stay under `target/vmtest`, and what was started ends
//! with this program.

mod archive;
mod image;
mod kernel;
mod machine;
mod patience;
mod suites;
mod tools;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::test_output::Tally;
use crate::{progress, workspace};

pub(crate) use tools::packages;

use kernel::Kernel;
use suites::Suite;
use tools::Tools;

/// Options of `cargo xtask vmtest`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run under this kernel only; may be given several times [default: all]
    #[arg(long, value_enum, value_name = "VERSION")]
    kernel: Vec<Kernel>,
    /// Run this suite only; may be given several times [default: all tests]
    #[arg(long, value_enum, value_name = "NAME")]
    suite: Vec<Suite>,
    /// Run only the tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Fetch the kernels anew: the newest that Debian has of each version
    #[arg(long)]
    refresh: bool,
    /// Debian mirror to fetch the kernels from [default: the one of this system's apt]
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

/// What the suites find ready when they run.
struct Session {
    tools: Tools,
    /// `target/vmtest`.
    folder: PathBuf,
    filter: Option<String>,
    /// Of Debian, if one was named.
    mirror: Option<String>,
}

/// What one suite came to under one kernel.
struct Outcome {
    suite: Suite,
    kernel: Kernel,
    tally: Tally,
    time: Duration,
}

/// Runs the subcommand; the last line is `N passed, N failed, N skipped`.
///
/// # Errors
/// When something is missing, or a kernel cannot be fetched.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let tools = Tools::find()?;
    let folder = workspace::target_dir()?.join("vmtest");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let folder = folder.canonicalize().context("it was just made")?;
    let suites = chosen(&options.suite, Suite::ALL);
    let kernels = chosen(&options.kernel, Kernel::ALL);
    let _locks = lock(&folder, &suites, &kernels)?;

    let fetching = open(&folder.join("lock"))?;
    fetching.lock().context("cannot lock the kernels")?;
    let mut ready = Vec::new();
    for &kernel in &kernels {
        let mirror = options.mirror.as_deref();
        let files = kernel::ensure(kernel, &folder, mirror, options.refresh)
            .with_context(|| format!("cannot get kernel {kernel}"))?;
        progress::item("ok", &format!("kernel {kernel}: {}", files.release));
        ready.push((kernel, files));
    }
    drop(fetching);

    let session = Session {
        tools,
        folder,
        filter: options.filter.clone(),
        mirror: options.mirror.clone(),
    };
    let mut outcomes = Vec::new();
    for suite in suites {
        let prepared = suite.prepare(&folder_of_programs(&session.folder, suite, &kernels))?;
        for (kernel, files) in &ready {
            progress::step(&format!(
                "vmtest {suite} under {}: {}",
                files.release,
                suite.about()
            ));
            let start = Instant::now();
            let tally = prepared
                .run(&session, *kernel, files)
                .unwrap_or_else(|error| {
                    progress::error(&error);
                    Tally {
                        failures: vec![format!("{suite} under {kernel}: {error:#}")],
                        ..Tally::default()
                    }
                });
            outcomes.push(Outcome {
                suite,
                kernel: *kernel,
                tally,
                time: start.elapsed(),
            });
        }
    }
    let tally = report(outcomes);
    println!("logs are in {}", session.folder.display());
    println!("{}", tally.summary());
    Ok(crate::test::exit_code(&tally))
}

fn chosen<T: Copy>(named: &[T], all: &[T]) -> Vec<T> {
    if named.is_empty() { all } else { named }.to_vec()
}

/// Where the programs of a suite are kept. Of two runs at the same time no name is the same, since [`lock`] gives no
/// kernel to both.
fn folder_of_programs(folder: &Path, suite: Suite, kernels: &[Kernel]) -> PathBuf {
    let kernels: Vec<String> = kernels.iter().map(Kernel::to_string).collect();
    folder.join(format!("programs/{suite}-{}", kernels.join("-")))
}

/// One run of a suite under a kernel at a time: two would write the same logs.
fn lock(folder: &Path, suites: &[Suite], kernels: &[Kernel]) -> Result<Vec<File>> {
    let lock = |(suite, kernel): (Suite, Kernel)| {
        let file = open(&folder.join(format!("lock-{suite}-{kernel}")))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => {
                bail!(
                    "another `cargo xtask vmtest --suite {suite} --kernel {kernel}` is running in {}",
                    folder.display()
                )
            }
            Err(fs::TryLockError::Error(error)) => Err(anyhow!(error).context("cannot lock it")),
        }
    };
    let pairs = |&suite: &Suite| kernels.iter().map(move |&kernel| (suite, kernel));
    suites.iter().flat_map(pairs).map(lock).collect()
}

/// A file that is there to be locked.
fn open(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn report(outcomes: Vec<Outcome>) -> Tally {
    println!();
    println!(
        "{:<8} {:<8} {:>7} {:>7} {:>8} {:>9}",
        "suite", "kernel", "passed", "failed", "skipped", "seconds"
    );
    let mut total = Tally::default();
    for outcome in &outcomes {
        println!(
            "{:<8} {:<8} {:>7} {:>7} {:>8} {:>9.1}",
            outcome.suite.to_string(),
            outcome.kernel.to_string(),
            outcome.tally.passed,
            outcome.tally.failed(),
            outcome.tally.skipped(),
            outcome.time.as_secs_f64()
        );
    }
    for Outcome { kernel, tally, .. } in outcomes {
        for test in &tally.skipped {
            println!("skipped  {kernel}: {test}");
        }
        for test in &tally.failures {
            println!("FAILED   {kernel}: {test}");
        }
        total.add(tally);
    }
    println!();
    total
}

#[cfg(test)]
mod tests {
    use super::{Kernel, Suite, folder_of_programs, lock};

    #[test]
    fn suites_run_beside_each_other_under_kernels_that_differ() {
        let folder = std::env::temp_dir().join(format!("vmtest-locks-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let old = lock(&folder, &[Suite::Kernel, Suite::Netem], &[Kernel::V6_1]).unwrap();
        assert!(lock(&folder, &[Suite::Netem], Kernel::ALL).is_err());
        let new = lock(&folder, &[Suite::Kernel], &[Kernel::V6_12]);
        assert!(new.is_ok(), "neither logs nor programs are the same");
        assert_ne!(
            folder_of_programs(&folder, Suite::Kernel, &[Kernel::V6_1]),
            folder_of_programs(&folder, Suite::Kernel, &[Kernel::V6_12])
        );
        drop(old);
        assert!(lock(&folder, &[Suite::Netem], Kernel::ALL).is_ok());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
