//! The compiler and linker of the kernel programs: which pair works here, and how it is called.
//!
//! A pair works when it builds a small program: `bpf-linker` must understand the bitcode of the
//! compiler, and neither tells reliably for which LLVM the other was made. So the choice is made by
//! trying, once; the outcome is kept in `target/xtask/ebpf-toolchain.json` and holds until the
//! compiler or the linker changes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::{kernel_object, process, workspace};

/// The target of the kernel programs.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Where a compiler that can build `core` for [`TARGET`] comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Recipe {
    /// rustup's nightly with its `rust-src` component.
    Nightly,
    /// Debian's `rustc-web`, with its unstable features unlocked.
    Debian,
}

impl Recipe {
    /// In the order of preference.
    pub(crate) const ALL: [Self; 2] = [Self::Nightly, Self::Debian];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nightly => "nightly",
            Self::Debian => "debian",
        }
    }

    /// The compiler alone, to be asked what it is.
    pub(crate) fn rustc(self) -> Command {
        match self {
            Self::Nightly => rustup_run("rustc"),
            Self::Debian => process::without_toolchain("/usr/bin/rustc"),
        }
    }

    /// Cargo with this recipe's compiler.
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::Nightly => rustup_run("cargo"),
            Self::Debian => {
                let mut command = process::without_toolchain("/usr/bin/cargo");
                command
                    .env("RUSTC", "/usr/bin/rustc")
                    .env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    /// The output of `rustc -vV`, or an error when there is no such compiler.
    pub(crate) fn compiler_version(self) -> Result<String> {
        process::output(self.rustc().arg("-vV"))
    }

    /// Whether the sources of `core` are there for this recipe's compiler.
    pub(crate) fn has_core_sources(self) -> bool {
        process::output(self.rustc().args(["--print", "sysroot"])).is_ok_and(|sysroot| {
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                .is_file()
        })
    }
}

fn rustup_run(program: &str) -> Command {
    let mut command = process::without_toolchain("rustup");
    command.args(["run", "nightly", program]);
    command
}

/// The major version of LLVM in the output of `rustc -vV`.
pub(crate) fn llvm_major(compiler_version: &str) -> Result<u32> {
    compiler_version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next()?.trim().parse().ok())
        .context("`rustc -vV` names no LLVM version")
}

/// A pair that was seen to work.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    pub(crate) recipe: Recipe,
    /// The output of `rustc -vV`.
    pub(crate) compiler_version: String,
    pub(crate) linker: PathBuf,
}

impl Toolchain {
    /// For people: `nightly rustc 1.97.0-nightly (…), LLVM 22, bpf-linker 0.13.0`.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} {}, {}",
            self.recipe.name(),
            self.compiler_name(),
            linker_version(&self.linker)
        )
    }

    /// For people: `rustc 1.97.0-nightly (…), LLVM 22`.
    pub(crate) fn compiler_name(&self) -> String {
        let compiler = self.compiler_version.lines().next().unwrap_or("rustc");
        let llvm = llvm_major(&self.compiler_version)
            .map_or_else(|_| String::from("?"), |major| major.to_string());
        format!("{compiler}, LLVM {llvm}")
    }

    /// A cargo command for the kernel programs, with the target directory, linker and flags set.
    ///
    /// The first flags are those of aya-build 0.2: BTF comes from debug information, and
    /// `bpf_target_arch` selects the register layout of the traced kernel. The instruction set is
    /// that of Linux 5.1 (32-bit arithmetic and jumps).
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let flags = [
            format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
            String::from("-Cdebuginfo=2"),
            String::from("-Clink-arg=--btf"),
            String::from("-Ctarget-cpu=v3"),
        ];
        let mut command = self.recipe.cargo();
        command
            .args([
                subcommand,
                "--release",
                "--target",
                TARGET,
                "-Z",
                "build-std=core",
            ])
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_DIR", workspace::ebpf_target_dir())
            .env("PATH", path_beginning_with(&self.linker));
        command
    }

    /// Whether clippy can lint the kernel programs. Debian's cargo would find the clippy of rustup,
    /// which refuses another compiler, so only rustup's toolchain is asked.
    pub(crate) fn has_clippy(&self) -> bool {
        self.recipe == Recipe::Nightly
            && process::succeeds(self.recipe.cargo().args(["clippy", "--version"]))
    }

    /// Builds a small program and looks at the outcome.
    ///
    /// # Errors
    /// What the compiler or the linker said, in short.
    fn probe(&self) -> Result<()> {
        let folder = workspace::state_dir().join("probe");
        // Written anew each time: newer sources make cargo link again, with this linker.
        process::replace_file(
            &folder.join("Cargo.toml"),
            include_bytes!("probe/Cargo.toml.in"),
        )?;
        process::replace_file(
            &folder.join("src/main.rs"),
            include_bytes!("probe/main.rs.in"),
        )?;
        let outcome = process::output(self.cargo("build").current_dir(&folder));
        outcome.map_err(|error| anyhow!("{}", last_error(&error.to_string())))?;
        let file = workspace::ebpf_target_dir()
            .join(TARGET)
            .join("release/sunwire-toolchain-probe");
        let bytes = fs::read(&file)
            .with_context(|| format!("no object was built at {}", file.display()))?;
        if kernel_object::programs(&kernel_object::parse(&bytes)?)?.is_empty() {
            bail!("the object built holds no program");
        }
        Ok(())
    }

    /// The remembered pair, when the same compiler and linker are still there.
    pub(crate) fn remembered() -> Option<Self> {
        let text = fs::read_to_string(memory()).ok()?;
        let memory: Value = serde_json::from_str(&text).ok()?;
        let recipe = Recipe::ALL
            .into_iter()
            .find(|recipe| memory["recipe"] == recipe.name())?;
        let linker = PathBuf::from(memory["linker"].as_str()?);
        let compiler_version = recipe.compiler_version().ok()?;
        let unchanged = memory["compiler"] == compiler_version
            && memory["linker_stamp"] == stamp(&linker).ok()?
            && recipe.has_core_sources();
        unchanged.then_some(Self {
            recipe,
            compiler_version,
            linker,
        })
    }

    /// The first linker at hand that works with `recipe`, which is then remembered.
    ///
    /// # Errors
    /// When there is none: which ones were tried and why each failed.
    pub(crate) fn try_recipe(recipe: Recipe) -> Result<Self> {
        let compiler_version = recipe.compiler_version()?;
        let linkers = linkers();
        if linkers.is_empty() {
            bail!("no bpf-linker on PATH");
        }
        let mut failures = Vec::new();
        for linker in linkers {
            let pair = Self {
                recipe,
                compiler_version: compiler_version.clone(),
                linker,
            };
            match pair.probe() {
                Ok(()) => {
                    pair.remember()?;
                    return Ok(pair);
                }
                Err(error) => failures.push(format!("{}: {error:#}", pair.linker.display())),
            }
        }
        bail!("{}", failures.join("; "))
    }

    fn remember(&self) -> Result<()> {
        let text = json!({
            "recipe": self.recipe.name(),
            "compiler": self.compiler_version,
            "linker": self.linker.to_string_lossy(),
            "linker_stamp": stamp(&self.linker)?,
        });
        process::replace_file(&memory(), format!("{text:#}\n").as_bytes())
    }
}

fn memory() -> PathBuf {
    workspace::state_dir().join("ebpf-toolchain.json")
}

/// What `bpf-linker --version` says.
pub(crate) fn linker_version(linker: &Path) -> String {
    process::output(Command::new(linker).arg("--version")).map_or_else(
        |_| String::from("bpf-linker"),
        |version| version.trim().to_owned(),
    )
}

/// Every bpf-linker at hand: on PATH, then where `cargo install` puts programs.
pub(crate) fn linkers() -> Vec<PathBuf> {
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let installed = [
        env::var_os("CARGO_INSTALL_ROOT").map(PathBuf::from),
        env::var_os("CARGO_HOME").map(PathBuf::from),
        home,
    ];
    let installed = installed
        .into_iter()
        .flatten()
        .map(|root| root.join("bin/bpf-linker"))
        .filter(|file| file.is_file());
    let mut linkers: Vec<PathBuf> = Vec::new();
    for linker in process::find_all("bpf-linker").into_iter().chain(installed) {
        if !linkers.contains(&linker) {
            linkers.push(linker);
        }
    }
    linkers
}

/// Changes when the file does: its size and the time of its last change.
fn stamp(file: &Path) -> Result<String> {
    let data = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(format!(
        "{} bytes, {}.{:09}",
        data.size(),
        data.mtime(),
        data.mtime_nsec()
    ))
}

/// PATH with the folder of `program` first: the compiler finds its linker there by name.
fn path_beginning_with(program: &Path) -> OsString {
    let mut path = OsString::from(program.parent().unwrap_or(Path::new("/")));
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    path
}

/// The most telling line of a failed build: the linker's or compiler's own error.
fn last_error(text: &str) -> &str {
    let lines = || text.lines().map(str::trim);
    lines()
        .rfind(|line| line.contains("bitcode") || line.contains("Invalid record"))
        .or_else(|| lines().rfind(|line| line.starts_with("error")))
        .or_else(|| lines().rfind(|line| !line.is_empty()))
        .unwrap_or("the build failed")
        .trim_start_matches("= note: ")
}

#[cfg(test)]
mod tests {
    use super::{last_error, llvm_major};

    #[test]
    fn llvm_major_is_read_from_the_compiler_version() {
        let text = "rustc 1.97.0-nightly\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.4\n";
        assert_eq!(llvm_major(text).unwrap(), 22);
        assert!(llvm_major("rustc 1.97.0\n").is_err());
    }

    #[test]
    fn a_failed_probe_is_told_in_one_line() {
        let text = "Compiling core\nerror: linking with `bpf-linker` failed\n  = note: x\n\nerror: could not compile `probe`\n";
        assert_eq!(last_error(text), "error: could not compile `probe`");
        let text =
            "error: a\n  = note: Invalid record (Producer: 'LLVM22' Reader: 'LLVM 20')\nerror: b\n";
        assert!(last_error(text).starts_with("Invalid record"));
    }
}
