//! `cargo xtask`: the one place that sets up, builds, tests, checks and shows this workspace.
//!
//! It is the first program a new user runs, so it depends on next to nothing and compiles in
//! seconds. Every subcommand is a file of its own; what several of them need ([`process`],
//! [`progress`], [`workspace`], [`toolchain`]) stands beside them. Progress and errors go to
//! standard error; standard output carries results only, so `cargo xtask bench NAME --json` can be
//! piped into a program.

#![forbid(unsafe_code)]

mod apt;
mod build_ebpf;
mod ci;
mod fuzz;
mod kernel_object;
mod lint;
mod process;
mod progress;
mod setup;
mod show;
mod stack;
mod test;
mod test_output;
mod tidy;
mod tiers;
mod toolchain;
mod vmtest;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, builds, tests and checks of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build and test, naming each thing
    Setup {
        /// Install nothing; exit 1 when something is missing
        #[arg(long)]
        check: bool,
        /// Also what `vmtest` needs: QEMU and a few small packages
        #[arg(long)]
        vm: bool,
    },
    /// Build the kernel programs and place the object where the agent's build finds it
    BuildEbpf,
    /// Run every test this machine can run, tier by tier; the last line is the count
    Test {
        /// Leave out the slow tiers
        #[arg(long)]
        quick: bool,
    },
    /// Check formatting, clippy for host and kernel programs, and tidy
    Lint,
    /// Check the rules of this workspace that no compiler checks
    Tidy,
    /// Run a story for a person to watch; exit 1 when one of its claims does not hold
    Demo {
        /// Which one
        #[arg(default_value = "first-light")]
        name: String,
    },
    /// Measure Sunwire beside its peers
    Bench(show::BenchOptions),
    /// Let everything happen at once for long, and account for every lost packet; exit 1 when one has
    /// no reason
    Soak(show::SoakOptions),
    /// Run the tests of the kernel programs under Linux 6.1 and 6.12, in virtual machines
    Vmtest(vmtest::Options),
    /// Feed everything that reads policies with made-up inputs, guided by coverage
    Fuzz(fuzz::Options),
    /// What continuous integration runs: test, then lint
    Ci,
}

fn main() -> ExitCode {
    let success = |()| ExitCode::SUCCESS;
    let outcome = match Arguments::parse().command {
        Task::Setup { check, vm } => setup::run(check, vm),
        Task::BuildEbpf => build_ebpf::run(),
        Task::Test { quick } => Ok(test::run(quick)),
        Task::Lint => lint::run().map(success),
        Task::Tidy => tidy::run().map(success),
        Task::Demo { name } => show::demo(&name).map(|never| match never {}),
        Task::Bench(options) => show::bench(&options).map(|never| match never {}),
        Task::Soak(options) => show::soak(&options).map(|never| match never {}),
        Task::Vmtest(options) => vmtest::run(&options),
        Task::Fuzz(options) => fuzz::run(&options).map(success),
        Task::Ci => Ok(ci::run()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}
