//! Child processes: how they are started, what they inherit, and how their failure reads.
//!
//! `cargo run` leaves its own build environment in the variables of this program. A child that is
//! a build of its own must not see it, least of all one that uses another toolchain.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};

/// Set by `cargo run` for the package it runs: meaningless, and misleading, to any other build.
const OUTER_PACKAGE: &[&str] = &[
    "CARGO_BIN_NAME",
    "CARGO_CRATE_NAME",
    "CARGO_MANIFEST_DIR",
    "CARGO_MANIFEST_LINKS",
    "CARGO_MANIFEST_PATH",
    "CARGO_PRIMARY_PACKAGE",
    "OUT_DIR",
];

/// Prefixes of the same.
const OUTER_PACKAGE_PREFIXES: &[&str] = &["CARGO_PKG_"];

/// Choices of compiler, flags and target directory that belong to the host's builds.
const HOST_TOOLCHAIN: &[&str] = &[
    "CARGO",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_DIR",
    "RUSTC",
    "RUSTC_BOOTSTRAP",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTDOCFLAGS",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
    "RUST_RECURSION_COUNT",
];

/// Prefixes of the same (`CARGO_BUILD_TARGET`, `CARGO_PROFILE_RELEASE_LTO`, …).
const HOST_TOOLCHAIN_PREFIXES: &[&str] = &["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_"];

/// Cargo with the toolchain this program was started with.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    remove_variables(&mut command, OUTER_PACKAGE, OUTER_PACKAGE_PREFIXES);
    command
}

/// `program` with nothing inherited of the toolchain this program was started with.
pub(crate) fn without_toolchain(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    remove_variables(&mut command, OUTER_PACKAGE, OUTER_PACKAGE_PREFIXES);
    remove_variables(&mut command, HOST_TOOLCHAIN, HOST_TOOLCHAIN_PREFIXES);
    command
}

fn remove_variables(command: &mut Command, names: &[&str], prefixes: &[&str]) {
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        if names.contains(&text) || prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

/// Runs `command` with this program's own streams.
///
/// # Errors
/// When it cannot be started or does not succeed; the message is its command line and status.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs `command` with its standard output sent to this program's standard error, which keeps
/// installers' chatter out of the results.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_chatty(command: &mut Command) -> Result<()> {
    run(command.stdout(std::io::stderr()))
}

/// The standard output of `command`; its standard error is shown only when it fails.
///
/// # Errors
/// As [`run`], with the standard error appended.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!(
            "`{}` failed ({}): {}",
            line(command),
            output.status,
            said.trim()
        ));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` wrote something that is not UTF-8", line(command)))
}

/// Whether `command` can be started and succeeds; it is silent either way.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command line as a person would type it, without the environment.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    if let Some(name) = Path::new(&words[0]).file_name() {
        words[0] = name.to_string_lossy().into_owned();
    }
    words.join(" ")
}

/// The first executable called `name` on PATH.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    find_all(name).into_iter().next()
}

/// Every file called `name` on PATH, in order.
pub(crate) fn find_all(name: &str) -> Vec<PathBuf> {
    let Some(path) = env::var_os("PATH") else {
        return Vec::new();
    };
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .filter(|file| file.is_file())
        .collect()
}

/// Writes `bytes` to `path` in one step: a reader sees the old file or the new one, never a part.
///
/// # Errors
/// When the folder cannot be created or written.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", line(command))
}
