//! `cargo xtask tidy`: the rules of this workspace that no compiler checks.
//!
//! Each rule is a function from what it looks at to findings, so each is tested on its own:
//! [`dependencies`] says which crate may know which, [`sources`] how a source file reads,
//! [`repository`] what must be there beside the code.

mod code;
mod dependencies;
mod repository;
mod sources;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{progress, workspace};

/// A broken rule and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the root.
    path: String,
    /// From 1; 0 when the rule is about the whole file.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// Checks every rule and prints the findings.
///
/// # Errors
/// When there is a finding, or a file cannot be read.
pub(crate) fn run() -> Result<()> {
    let root = workspace::root();
    let mut findings = dependencies::check(&workspace::metadata()?);
    findings.extend(repository::check(&root));
    let paths = files(&root)?;
    for path in &paths {
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue; // Not text.
        };
        findings.extend(sources::check(path, &text));
        findings.extend(repository::check_links(&root, path, &text));
    }
    findings.extend(sources::check_tables(&root));
    findings.sort();
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    progress::step(&format!("tidy: {} files, no findings", paths.len()));
    Ok(())
}

/// All files of the sources relative to `root`, sorted, without what git and builds keep there.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder))
            .with_context(|| format!("cannot list {}", root.join(&folder).display()))?;
        for entry in entries {
            let entry = entry.context("cannot list a folder")?;
            let path = folder.join(entry.file_name());
            if path == Path::new(".git") || path == Path::new("target") {
                continue;
            }
            let kind = entry
                .file_type()
                .with_context(|| format!("cannot look at {}", path.display()))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                files.push(path.to_string_lossy().into_owned());
            }
        }
    }
    files.sort();
    Ok(files)
}
