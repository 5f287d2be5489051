//! `cargo xtask demo`, `cargo xtask bench` and `cargo xtask soak`: set up and build what they need, then become the
//! program that does it.
//!
//! The program replaces this process, so its exit code, its output and Ctrl-C reach it and the
//! caller without anything between. It finds the `sunwire` binary of the same build in
//! `SUNWIRE_BIN` and the commit in `SUNWIRE_COMMIT`, and runs in the root of the sources.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Error, Result, bail};

use crate::{build_ebpf, process, progress, setup, workspace};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchOptions {
    /// The benchmark: `dataplane`, `dataplane-scale` or `policy`
    name: String,
    /// Its own options, as `--json`, `--quick` or `--rounds N`; `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct SoakOptions {
    /// `--minutes 10`, `--seed N`, `--encryption off|clouds`, `--report FILE`; `--help` says more
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

/// Runs the demo `name`; returns only when it cannot be started.
///
/// # Errors
/// Without root, or when something cannot be set up or built.
pub(crate) fn demo(name: &str) -> Result<std::convert::Infallible> {
    need_root("demo")?;
    let mut program = build("sunwire-demo")?;
    program.arg(name);
    become_program(program)
}

/// Runs a benchmark; returns only when it cannot be started.
///
/// # Errors
/// As [`demo`].
pub(crate) fn bench(options: &BenchOptions) -> Result<std::convert::Infallible> {
    let asks_for_help = options.options.iter().any(|o| o == "--help" || o == "-h");
    if !asks_for_help {
        need_root("bench")?;
    }
    let mut program = build("sunwire-bench")?;
    if options.name == "policy" && !asks_for_help {
        build_examples()?;
    }
    program.arg(&options.name);
    program.args(with_absolute_folders(&options.options)?);
    become_program(program)
}

/// Runs a soak; returns only when it cannot be started.
///
/// # Errors
/// As [`demo`].
pub(crate) fn soak(options: &SoakOptions) -> Result<std::convert::Infallible> {
    if !options.options.iter().any(|o| o == "--help" || o == "-h") {
        need_root("soak")?;
    }
    let mut program = build("sunwire-soak")?;
    program.args(&options.options);
    become_program(program)
}

/// The program runs in the root of the sources, so folders are named from there on.
fn with_absolute_folders(options: &[OsString]) -> Result<Vec<OsString>> {
    let mut absolute = Vec::with_capacity(options.len());
    let mut is_folder = false;
    for option in options {
        let text = option.to_str().unwrap_or_default();
        absolute.push(if is_folder {
            absolute_folder(option)?
        } else if let Some(folder) = text.strip_prefix("--data=") {
            let mut joined = OsString::from("--data=");
            joined.push(absolute_folder(OsStr::new(folder))?);
            joined
        } else {
            option.clone()
        });
        is_folder = !is_folder && text == "--data";
    }
    Ok(absolute)
}

fn absolute_folder(folder: &OsStr) -> Result<OsString> {
    std::path::absolute(folder)
        .map(OsString::from)
        .with_context(|| format!("cannot use the folder {}", folder.display()))
}

fn need_root(task: &str) -> Result<()> {
    if !workspace::is_root() {
        bail!("{task} needs root (it makes network namespaces and loads eBPF): run it as root");
    }
    Ok(())
}

/// Builds everything in release and returns the command to run `program`.
fn build(program: &str) -> Result<Command> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_benchmark_as_given_but_for_folders_which_become_absolute() {
        let given = ["--rounds", "9", "--data", "here", "--data=/there", "--json"];
        let given = given.map(OsString::from);
        let here = std::path::absolute("here").unwrap();
        let expected = [
            "--rounds".as_ref(),
            "9".as_ref(),
            "--data".as_ref(),
            here.as_os_str(),
            "--data=/there".as_ref(),
            "--json".as_ref(),
        ];
        assert_eq!(with_absolute_folders(&given).unwrap(), expected);
    }
}
