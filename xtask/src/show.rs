//! `cargo xtask demo` and `cargo xtask bench`: set up and build what they need, then become the
//! program that does it.
//!
//! The program replaces this process, so its exit code, its output and Ctrl-C reach it and the
//! caller without anything between. It finds the `sunwire` binary of the same build in
//! `SUNWIRE_BIN` and the commit in `SUNWIRE_COMMIT`, and runs in the root of the sources.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Error, Result, bail};

use crate::{build_ebpf, process, progress, setup, workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchOptions {
    /// The benchmark: `dataplane` or `policy`
    name: String,
    /// Print one JSON object a line to standard output
    #[arg(long)]
    json: bool,
    /// Fewer rounds of the same workload
    #[arg(long)]
    quick: bool,
    /// Of `dataplane`, a folder for the raw measurements; of `policy`, the folder with the networks to
    /// ask about
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Runs the demo `name`; returns only when it cannot be started.
///
/// # Errors
/// Without root, or when something cannot be set up or built.
pub(crate) fn demo(name: &str) -> Result<std::convert::Infallible> {
    let mut program = build("demo", "sunwire-demo")?;
    program.arg(name);
    become_program(program)
}

/// Runs a benchmark; returns only when it cannot be started.
///
/// # Errors
/// As [`demo`].
pub(crate) fn bench(options: &BenchOptions) -> Result<std::convert::Infallible> {
    let mut program = build("bench", "sunwire-bench")?;
    if options.name == "policy" {
        build_examples()?;
    }
    program.arg(&options.name);
    if options.json {
        program.arg("--json");
    }
    if options.quick {
        program.arg("--quick");
    }
    if let Some(folder) = &options.data {
        let folder = std::path::absolute(folder)
            .with_context(|| format!("cannot use the folder {}", folder.display()))?;
        program.arg("--data").arg(folder);
    }
    become_program(program)
}

/// Builds everything in release and returns the command to run `program`.
fn build(task: &str, program: &str) -> Result<Command> {
    if !workspace::is_root() {
        bail!("{task} needs root (it makes network namespaces and loads eBPF): run it as root");
    }
    let toolchain = setup::ensure()?;
    build_ebpf::build(&toolchain)?;
    progress::step("build --release: sunwire and the programs of netns-tests");
    process::run_chatty(
        process::cargo()
            .args(["build", "--release"])
            .args(["--package", "sunwire-cli"])
            .args(["--package", "sunwire-netns-tests"])
            .current_dir(workspace::root()),
    )?;
    let binaries = workspace::target_dir()?.join("release");
    let mut command = process::without_toolchain(binaries.join(program));
    command
        .env("SUNWIRE_BIN", binaries.join("sunwire"))
        .env("SUNWIRE_COMMIT", commit())
        .current_dir(workspace::root());
    Ok(command)
}

/// Builds the programs that measure the compiler and the prover. They are apart from the other
/// builds, because they ask the policy crate for its generators, which no product has.
fn build_examples() -> Result<()> {
    progress::step("build --release: the measuring programs of the policy crate");
    let mut command = process::cargo();
    command.args(["build", "--release", "--package", "sunwire-policy"]);
    for example in ["fat_tree", "session", "validate"] {
        command.args(["--example", example]);
    }
    process::run_chatty(command.current_dir(workspace::root()))
}

fn become_program(mut program: Command) -> Result<std::convert::Infallible> {
    let line = process::line(&program);
    progress::step(&line);
    let error = program.exec();
    Err(Error::new(error).context(format!("cannot start `{line}`")))
}

/// The commit of the sources, with `-dirty` when they differ from it; `unknown` outside of git.
fn commit() -> String {
    let mut git = process::without_toolchain("git");
    git.args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(workspace::root());
    process::output(&mut git).map_or_else(
        |_| String::from("unknown"),
        |commit| commit.trim().to_owned(),
    )
}
