//! `cargo xtask lint`: formatting, clippy for the host and for the kernel programs, tidy.
//!
//! All steps run, so that one call tells everything there is to mend.

use anyhow::{Result, bail};

use crate::toolchain::Toolchain;
use crate::{build_ebpf, process, progress, setup, test, tidy, workspace};

/// Runs the subcommand.
///
/// # Errors
/// Names the steps that failed; what each found has been printed.
pub(crate) fn run() -> Result<()> {
    let toolchain = setup::ensure()?;
    // The agent includes the object, so even checking it needs one.
    build_ebpf::build(&toolchain)?;

    let mut failed = Vec::new();
    let mut step = |name: &'static str, outcome: Result<()>| {
        if let Err(error) = outcome {
            progress::error(&error);
            failed.push(name);
        }
    };
    progress::step("lint: cargo fmt --check");
    step("fmt", formatting());
    progress::step("lint: clippy for the host");
    step("clippy", host_clippy());
    step("clippy of the kernel programs", ebpf_lints(&toolchain));
    progress::step("lint: tidy");
    step("tidy", tidy::run());
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    progress::step("lint: clean");
    Ok(())
}

fn formatting() -> Result<()> {
    process::run_chatty(
        process::cargo()
            .args(["fmt", "--all", "--", "--check"])
            .current_dir(workspace::root()),
    )
}

fn host_clippy() -> Result<()> {
    process::run_chatty(test::host_cargo("clippy").args(["--all-targets", "--", "-D", "warnings"]))
}

/// Lints the kernel programs with their own toolchain: clippy where it has one, else the compiler's
/// lints.
fn ebpf_lints(toolchain: &Toolchain) -> Result<()> {
    let (subcommand, what) = if toolchain.has_clippy() {
        ("clippy", "clippy for the kernel programs")
    } else {
        (
            "rustc",
            "rustc's lints for the kernel programs (their toolchain has no clippy)",
        )
    };
    progress::step(&format!("lint: {what}"));
    process::run_chatty(
        toolchain
            .cargo(subcommand)
            .args(["--package", build_ebpf::PACKAGE, "--", "-D", "warnings"])
            .current_dir(workspace::root()),
    )
}
