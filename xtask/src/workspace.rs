//! Where things are: the root of the sources and the folders the tasks write to.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process;

/// The root of the sources.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the folder of this package is inside the workspace")
        .to_path_buf()
}

/// What cargo knows of the packages of this workspace.
///
/// # Errors
/// When cargo fails, for example on a malformed manifest.
pub(crate) fn metadata() -> Result<Value> {
    let mut command = process::cargo();
    command
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root());
    serde_json::from_str(&process::output(&mut command)?)
        .context("cannot read the output of `cargo metadata`")
}

/// The target directory of the host's builds, wherever the user has put it.
///
/// # Errors
/// As [`metadata`].
pub(crate) fn target_dir() -> Result<PathBuf> {
    let metadata = metadata()?;
    let folder = metadata["target_directory"]
        .as_str()
        .context("`cargo metadata` names no target directory")?;
    Ok(PathBuf::from(folder))
}

/// The kernel programs' object, which the agent's build script includes. It does not follow
/// `CARGO_TARGET_DIR`, so that the build script finds it from its own folder.
pub(crate) fn bpf_object() -> PathBuf {
    root().join("target/bpf/sunwire-dataplane")
}

/// The target directory of the kernel programs' builds: apart from the host's, because the
/// compiler, its flags and the lock differ.
pub(crate) fn ebpf_target_dir() -> PathBuf {
    root().join("target/ebpf")
}

/// What the tasks remember between runs.
pub(crate) fn state_dir() -> PathBuf {
    root().join("target/xtask")
}

/// Whether this process has the privileges of root.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}
