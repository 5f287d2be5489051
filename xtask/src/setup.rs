//! `cargo xtask setup`: finds out what is missing to build and test, and installs just that.
//!
//! Each thing is named as it is found or installed. A second run finds everything and changes
//! nothing. The kernel programs need a compiler that can build `core` and a `bpf-linker` of the same
//! LLVM; [`Recipe::ALL`] is tried in order, and any `bpf-linker` that works is taken, wherever it
//! came from.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};

use crate::apt::{self, Package};
use crate::toolchain::{self, Recipe, Toolchain, llvm_major};
use crate::{process, progress, vmtest, workspace};

/// The line of bpf-linker releases that builds with the Rust version of this workspace.
const BPF_LINKER_VERSION: &str = "^0.13";

/// Runs the subcommand. With `check` nothing is installed, and the exit code is 1 when something is
/// missing; with `vm`, what virtual machines need is looked for too.
///
/// # Errors
/// When something cannot be installed.
pub(crate) fn run(check: bool, vm: bool) -> Result<ExitCode> {
    progress::step(if check {
        "setup --check: what is here and what is missing"
    } else {
        "setup: installing what is missing"
    });
    if !workspace::is_root() {
        progress::item(
            "note",
            "not root: building works, but the demo, the benchmarks and the kernel and lab tests \
             (network namespaces, eBPF) must be run as root",
        );
    }
    let mut setup = Setup {
        check,
        missing: Vec::new(),
    };
    setup.host_components()?;
    setup.ebpf_toolchain()?;
    setup.test_tools();
    if vm {
        setup.packages(&vmtest::packages())?;
    }
    if setup.missing.is_empty() {
        progress::step("setup: complete");
        return Ok(ExitCode::SUCCESS);
    }
    progress::step(&format!(
        "setup: missing {}; `cargo xtask setup` installs it",
        setup.missing.join(", ")
    ));
    Ok(ExitCode::FAILURE)
}

/// The toolchain of the kernel programs, after setting up what is missing; quick when nothing is.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure() -> Result<Toolchain> {
    if let Some(toolchain) = Toolchain::remembered() {
        return Ok(toolchain);
    }
    run(false, false)?;
    Toolchain::remembered().context("setup ended without a toolchain for the kernel programs")
}

struct Setup {
    check: bool,
    missing: Vec<String>,
}

impl Setup {
    /// Makes one thing be there: says so when it is, else installs it or, when only checking, notes
    /// that it is missing. Returns whether it is there now.
    fn ensure(
        &mut self,
        what: &str,
        is_there: impl Fn() -> bool,
        install: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        if is_there() {
            progress::item("ok", what);
            return Ok(true);
        }
        if self.check {
            progress::item("missing", what);
            self.missing.push(what.to_owned());
            return Ok(false);
        }
        progress::item("installing", what);
        install().with_context(|| format!("cannot install {what}"))?;
        if !is_there() {
            bail!("{what} was installed but does not work");
        }
        progress::item("installed", what);
        Ok(true)
    }

    /// Formatter and linter of the compiler this program was built with.
    fn host_components(&mut self) -> Result<()> {
        for (component, subcommand) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
            self.ensure(
                &format!("{component} (host toolchain)"),
                || process::succeeds(process::cargo().args([subcommand, "--version"])),
                || {
                    let mut rustup = std::process::Command::new("rustup");
                    process::run_chatty(rustup.args(["component", "add", component]))
                },
            )?;
        }
        Ok(())
    }

    /// Programs that tests use and skip without. What cannot be installed is told and no failure.
    fn test_tools(&mut self) {
        let packages = [
            Package::new("busybox", "a DHCP client that tests ask for addresses with"),
            Package::new("isc-dhcp-client", "another one, which speaks DHCPv6 too"),
            Package::new("tshark", "decodes what tunnels carry"),
        ];
        let can_install = apt::is_here() && workspace::is_root();
        if !can_install && !self.check {
            for package in apt::missing(&packages) {
                let name = &package.name;
                progress::item("note", &format!("no {name} here: some tests are skipped"));
            }
            return;
        }
        for package in packages {
            // One by one: a system may offer some of them.
            if let Err(error) = self.packages(&[package]) {
                progress::item("note", &format!("some tests are skipped: {error:#}"));
            }
        }
    }

    fn ebpf_toolchain(&mut self) -> Result<()> {
        if let Some(toolchain) = Toolchain::remembered() {
            let name = toolchain.recipe.name();
            progress::item("ok", &format!("{name} {}", toolchain.compiler_name()));
            progress::item("ok", &format!("sources of `core` ({name})"));
            progress::item("ok", &located_linker(&toolchain));
            return Ok(());
        }
        let mut failures = Vec::new();
        for recipe in Recipe::ALL {
            match self.recipe(recipe) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    progress::item("no", &format!("{}: {error:#}", recipe.name()));
                    failures.push(format!("{}: {error:#}", recipe.name()));
                }
            }
        }
        Err(anyhow!(
            "no toolchain for the kernel programs ({})",
            failures.join("; ")
        ))
    }

    /// One recipe from the compiler to the linker. When only checking, `Ok` with something noted as
    /// missing means: this is the recipe an installation would take.
    fn recipe(&mut self, recipe: Recipe) -> Result<()> {
        let has_compiler = match recipe {
            Recipe::Nightly => self.nightly()?,
            Recipe::Debian => self.debian()?,
        };
        if has_compiler {
            return self.linker(recipe);
        }
        // Only checking: without the compiler nobody can tell whether a linker fits it.
        if toolchain::linkers().is_empty() {
            progress::item("missing", "bpf-linker");
            self.missing.push(String::from("bpf-linker"));
        }
        Ok(())
    }

    fn nightly(&mut self) -> Result<bool> {
        if process::find("rustup").is_none() {
            bail!("no rustup on PATH");
        }
        let has_nightly = self.ensure(
            "nightly Rust (rustup)",
            || Recipe::Nightly.compiler_version().is_ok(),
            || rustup(&["toolchain", "install", "nightly", "--profile", "minimal"]),
        )?;
        if !has_nightly {
            return Ok(false);
        }
        let has_sources = self.ensure(
            "rust-src (nightly)",
            || Recipe::Nightly.has_core_sources(),
            || rustup(&["component", "add", "rust-src", "--toolchain", "nightly"]),
        )?;
        let has_clippy =
            || process::succeeds(Recipe::Nightly.cargo().args(["clippy", "--version"]));
        if !has_clippy() && !self.check {
            // Not every nightly has it. Without, the kernel programs are linted by the compiler.
            progress::item("installing", "clippy (nightly)");
            if rustup(&["component", "add", "clippy", "--toolchain", "nightly"]).is_err() {
                progress::item(
                    "note",
                    "no clippy for nightly: kernel programs get rustc's lints only",
                );
            }
        }
        Ok(has_sources)
    }

    fn debian(&mut self) -> Result<bool> {
        let packages = [
            Package::new("rustc-web", "compiler of the kernel programs"),
            Package::new("cargo-web", "its cargo"),
            Package::new(
                "rust-web-src",
                "its sources of `core`, built for the kernel's target",
            ),
        ];
        let has_packages = self.packages(&packages)?;
        if has_packages && !Recipe::Debian.has_core_sources() {
            bail!("Debian's compiler does not find the sources of `core`");
        }
        Ok(has_packages)
    }

    fn linker(&mut self, recipe: Recipe) -> Result<()> {
        progress::item(
            "trying",
            &format!("bpf-linker with {} rustc", recipe.name()),
        );
        let refusal = match Toolchain::try_recipe(recipe) {
            Ok(toolchain) => {
                progress::item("ok", &located_linker(&toolchain));
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        let llvm = llvm_major(&recipe.compiler_version()?)?;
        progress::item(
            "missing",
            &format!("bpf-linker for LLVM {llvm}: {refusal:#}"),
        );
        let packages = [
            Package::new("build-essential", "linking bpf-linker"),
            Package::new(format!("llvm-{llvm}-dev"), "the LLVM in bpf-linker"),
            Package::new(format!("libpolly-{llvm}-dev"), "a part of that LLVM"),
        ];
        if !self.packages(&packages)? || self.check {
            self.missing.push(format!("bpf-linker for LLVM {llvm}"));
            return Ok(());
        }
        progress::item(
            "installing",
            &format!("bpf-linker {BPF_LINKER_VERSION} for LLVM {llvm} (about a minute)"),
        );
        install_bpf_linker(llvm)?;
        let toolchain = Toolchain::try_recipe(recipe)?;
        progress::item("installed", &located_linker(&toolchain));
        Ok(())
    }

    /// Returns whether all `packages` are there now.
    fn packages(&mut self, packages: &[Package]) -> Result<bool> {
        if !apt::is_here() {
            let names: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
            bail!(
                "this system has no apt to install {}: install what it has of them by its own means \
                 (`cargo binstall bpf-linker` brings that linker)",
                names.join(" ")
            );
        }
        let missing = apt::missing(packages);
        for package in packages {
            if !missing.iter().any(|m| m.name == package.name) {
                progress::item("ok", &package.name);
            } else if self.check {
                progress::item("missing", &format!("{} ({})", package.name, package.reason));
                self.missing.push(package.name.clone());
            }
        }
        if missing.is_empty() {
            return Ok(true);
        }
        if self.check {
            return Ok(false);
        }
        apt::install(&missing)?;
        Ok(true)
    }
}

fn located_linker(toolchain: &Toolchain) -> String {
    let version = toolchain::linker_version(&toolchain.linker);
    format!("{version} ({})", toolchain.linker.display())
}

fn rustup(arguments: &[&str]) -> Result<()> {
    process::run_chatty(process::without_toolchain("rustup").args(arguments))
}

/// Builds bpf-linker against Debian's LLVM, in a target directory of its own that is removed again.
fn install_bpf_linker(llvm: u32) -> Result<()> {
    let target = workspace::state_dir().join("bpf-linker-build");
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let installed = process::run_chatty(
        process::cargo()
            .args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION])
            .args(["--locked", "--force", "--no-default-features", "--features"])
            .arg(format!("llvm-{llvm}"))
            .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .current_dir(&target),
    );
    // Only a cache: what is left of it does no harm.
    let _ = fs::remove_dir_all(&target);
    installed
}
