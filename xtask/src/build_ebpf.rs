//! `cargo xtask build-ebpf`: builds the kernel programs and places the object where the build
//! script of `userspace` includes it.
//!
//! The object is replaced in one step and only when its bytes changed, so that nothing depending
//! on it is built again without need.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::toolchain::Toolchain;
use crate::{kernel_object, process, progress, setup, stack, workspace};

/// The package of the kernel programs.
pub(crate) const PACKAGE: &str = "sunwire-dataplane-ebpf";

/// Runs the subcommand.
///
/// # Errors
/// When the toolchain cannot be set up or the build fails.
pub(crate) fn run() -> Result<ExitCode> {
    let toolchain = setup::ensure()?;
    build(&toolchain)?;
    Ok(ExitCode::SUCCESS)
}

/// Builds with `toolchain` and places the object.
///
/// # Errors
/// When the build fails, or what it built is not an eBPF object.
pub(crate) fn build(toolchain: &Toolchain) -> Result<()> {
    progress::step(&format!("build-ebpf with {}", toolchain.describe()));
    let mut command = toolchain.cargo("build");
    command
        .args(["--package", PACKAGE, "--bins"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace::root());
    let file = built_executable(&mut command)?;
    let bytes =
        fs::read(&file).with_context(|| format!("cannot read the object {}", file.display()))?;
    let unexpected = || format!("unexpected object {}", file.display());
    let object = kernel_object::parse(&bytes).with_context(unexpected)?;
    let programs = kernel_object::programs(&object).with_context(unexpected)?;
    if programs.is_empty() {
        bail!("the object {} holds no program", file.display());
    }
    let names: Vec<&str> = programs.iter().map(|p| p.name.as_str()).collect();
    let chains = stack::chains(&object, &names)?;

    let destination = workspace::bpf_object();
    let unchanged = fs::read(&destination).is_ok_and(|old| old == bytes);
    if !unchanged {
        process::replace_file(&destination, &bytes)?;
    }
    progress::step(&format!(
        "{} ({}, {} bytes, {} programs)",
        destination.display(),
        if unchanged { "unchanged" } else { "new" },
        bytes.len(),
        programs.len()
    ));
    for program in &programs {
        progress::item(
            &program.section,
            &format!(
                "{}, {} instructions, {} bytes of stack",
                program.name,
                program.instructions,
                chains.get(&program.name).map_or(0, |chain| chain.bytes)
            ),
        );
    }
    Ok(())
}

/// Runs a `cargo build` that writes JSON messages and returns the one executable it built or found
/// up to date.
fn built_executable(command: &mut Command) -> Result<PathBuf> {
    let line = process::line(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    executable(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("`{line}` built no executable"))
}

/// The last executable named in cargo's JSON messages.
fn executable(messages: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::executable;

    #[test]
    fn the_executable_is_found_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","executable":null}"#,
            "\nnot json\n",
            r#"{"reason":"compiler-artifact","executable":"/t/release/programs"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(
            executable(messages).as_deref(),
            Some(Path::new("/t/release/programs"))
        );
        assert_eq!(executable(r#"{"reason":"build-finished"}"#), None);
    }
}
