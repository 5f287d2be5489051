//! `cargo xtask fuzz`: feeds everything that reads policies with made-up inputs.
//!
//! libFuzzer, guided by coverage, drives the targets of `fuzz/`. The compiler's own sanitizer-coverage
//! pass does the instrumentation, which the stable toolchain has too, so all that is needed besides
//! is a C++ compiler for libFuzzer itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt::{self, Package};
use crate::{process, progress, workspace};

/// The targets, each a program of `fuzz/`.
const TARGETS: [&str; 4] = ["policy", "format", "nkpl", "kat"];

/// What instruments the code: counters for every edge, and the operands of comparisons.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Longest input that is made up, in bytes.
const INPUT_BYTES_MAX: usize = 4096;
/// Most memory of a run; beyond it the input counts as a failure.
const MEMORY_MIB_MAX: usize = 2048;
/// Longest time for one input.
const INPUT_SECONDS_MAX: usize = 20;

/// What to fuzz and for how long.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which target: policy, format, nkpl or kat; all when none is given
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Merge what was found into the kept corpus
    #[arg(long)]
    keep: bool,
    /// Run this one input and nothing else
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// When a target does not exist, cannot be built, or an input broke a promise; the message says
/// where the input is.
pub(crate) fn run(options: &Options) -> Result<()> {
    let targets: Vec<&str> = match &options.target {
        None => TARGETS.to_vec(),
        Some(name) => match TARGETS.iter().find(|target| *target == name) {
            Some(target) => vec![target],
            None => bail!("there is no target {name}: they are {}", TARGETS.join(", ")),
        },
    };
    let built = build()?;
    let mut failed = Vec::new();
    for target in targets {
        let fuzzer = Fuzzer::new(&built, target)?;
        if let Some(input) = &options.input {
            return process::run(Command::new(&fuzzer.program).arg(input));
        }
        progress::step(&format!("fuzz {target}: {} s", options.seconds));
        if fuzzer.search(options.seconds).is_err() {
            failed.push(target);
        } else if options.keep {
            fuzzer.keep()?;
        }
    }
    if !failed.is_empty() {
        bail!(
            "promises were broken: {}; the inputs are in {}",
            failed.join(", "),
            workspace::target_dir()?.join("fuzz/artifacts").display()
        );
    }
    Ok(())
}

/// Builds all targets and gives the folder where they are.
fn build() -> Result<PathBuf> {
    if process::find("c++").is_none() {
        let packages = [Package::new("g++", "libFuzzer is written in C++")];
        if !apt::is_here() {
            bail!("libFuzzer needs a C++ compiler, `c++`; install one");
        }
        apt::install(&packages)?;
    }
    progress::step("fuzz: build with coverage instrumentation");
    let host = host()?;
    let target = workspace::target_dir()?.join("fuzz/build");
    // The target is named so that build scripts are not instrumented.
    process::run_chatty(
        process::cargo()
            .args([
                "build",
                "--release",
                "--locked",
                "--bins",
                "--target",
                &host,
            ])
            .arg("--manifest-path")
            .arg(workspace::root().join("fuzz/Cargo.toml"))
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f")),
    )?;
    Ok(target.join(host).join("release"))
}

/// The triple of the host's compiler.
fn host() -> Result<String> {
    let text = process::output(Command::new("rustc").arg("-vV"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("`rustc -vV` names no host")
}

/// One target, ready to run.
struct Fuzzer {
    program: PathBuf,
    /// Inputs that are committed.
    kept: PathBuf,
    /// Inputs that earlier runs found.
    found: PathBuf,
    /// Where inputs go that break a promise.
    artifacts: PathBuf,
    dictionary: PathBuf,
}

impl Fuzzer {
    fn new(built: &Path, target: &str) -> Result<Self> {
        let state = workspace::target_dir()?.join("fuzz");
        let sources = workspace::root().join("fuzz");
        let fuzzer = Fuzzer {
            program: built.join(target),
            kept: sources.join("corpus").join(target),
            found: state.join("corpus").join(target),
            artifacts: state.join("artifacts").join(target),
            dictionary: sources.join("dictionaries").join(target),
        };
        for folder in [&fuzzer.kept, &fuzzer.found, &fuzzer.artifacts] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(fuzzer)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
        command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
        command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
        command.arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        command.arg("-verbosity=1");
        if self.dictionary.is_file() {
            command.arg(format!("-dict={}", self.dictionary.display()));
        }
        command
    }

    /// Looks for inputs that break a promise; new ones that reach new code are kept for later runs.
    fn search(&self, seconds: u64) -> Result<()> {
        let mut command = self.command();
        command.arg(format!("-max_total_time={seconds}"));
        command.args(["-print_final_stats=1", "-close_fd_mask=0"]);
        process::run_chatty(command.arg(&self.found).arg(&self.kept))
    }

    /// Adds to the committed inputs those that reach what they do not, smallest first.
    fn keep(&self) -> Result<()> {
        process::run_chatty(
            self.command()
                .arg("-merge=1")
                .arg(&self.kept)
                .arg(&self.found),
        )
    }
}
