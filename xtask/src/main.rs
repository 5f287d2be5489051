//! `cargo xtask`: the one place that sets up, builds, tests, checks and shows this workspace.
//!
//! It is the first program a new user runs, so it depends on next to nothing and compiles in
//! seconds. Every subcommand is a file of its own; what several of them need ([`process`],
//! [`progress`], [`workspace`], [`toolchain`]) stands beside them. Progress and errors go to
//! standard error; standard output carries results only, so `cargo xtask bench NAME --json` can be
//! piped into a program.

mod apt;
mod build_ebpf;
mod object;
mod process;
mod progress;
mod setup;
mod toolchain;
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
    },
    /// Build the kernel programs and place the object where the agent's build finds it
    BuildEbpf,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Task::Setup { check } => setup::run(check),
        Task::BuildEbpf => build_ebpf::run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}
