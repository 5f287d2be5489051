//! `sunwire policy fmt`: lays policies out evenly, in place, or shows what that would change.
//!
//! A file is replaced in one step, and only by a text that means the same; one that does not parse
//! stays as it is, and the others are formatted all the same.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use sunwire_policy::format::format;
use sunwire_policy::parser::MAX_SOURCE_BYTES;

use super::diff::unified;
use super::source::{self, Finding};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};

/// Stands for standard input and output.
const STANDARD: &str = "-";

/// What became of one file.
#[derive(Debug, Serialize)]
struct Formatted {
    file: PathBuf,
    /// Whether it was, or with `--check` would be, changed.
    changed: bool,
    diagnostics: Vec<Finding>,
}

pub(super) fn run(files: &[PathBuf], check: bool, how: Format) -> anyhow::Result<Outcome> {
    if files.iter().any(|file| file.as_os_str() == STANDARD) && files.len() > 1 {
        return Err(Usage("`-` stands alone".to_owned()).into());
    }
    let mut results = Vec::new();
    for file in files {
        results.push(one(file, check, how)?);
    }
    if how == Format::Json && files[0].as_os_str() != STANDARD {
        output::json(&results)?;
    }
    Ok(
        if results.iter().any(|result| !result.diagnostics.is_empty()) {
            Outcome::Failed
        } else if check && results.iter().any(|result| result.changed) {
            Outcome::Negative
        } else {
            Outcome::Done
        },
    )
}

fn one(file: &Path, check: bool, how: Format) -> anyhow::Result<Formatted> {
    let standard = file.as_os_str() == STANDARD;
    let text = match standard {
        true => standard_input()?,
        false => source::read(file)?,
    };
    let mut result = Formatted {
        file: file.to_owned(),
        changed: false,
        diagnostics: Vec::new(),
    };
    let formatted = match format(&text) {
        Ok(formatted) => formatted,
        Err(findings) => {
            let findings = findings.iter();
            result.diagnostics = findings
                .map(|finding| source::foreign_finding(file, &text, finding))
                .collect();
            for finding in &result.diagnostics {
                eprintln!("{}\n", finding.diagnostic.rendered.trim_end());
            }
            return Ok(result);
        }
    };
    result.changed = formatted != text;
    if check {
        if result.changed && how == Format::Table {
            let name = file.display().to_string();
            let after = format!("{name} (formatted)");
            output::text(&unified(&text, &formatted, &name, &after))?;
        }
    } else if standard {
        output::text(&formatted)?;
    } else if result.changed {
        replace(file, &formatted).with_context(|| format!("cannot write {}", file.display()))?;
        if how == Format::Table {
            output::text(&format!("{}: formatted\n", file.display()))?;
        }
    }
    Ok(result)
}

fn standard_input() -> anyhow::Result<String> {
    let mut text = String::new();
    let input = std::io::stdin().lock();
    // One byte more than permitted, so that the parser sees that it is too much.
    let mut input = input.take(MAX_SOURCE_BYTES as u64 + 1);
    input
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    Ok(text)
}

/// Replaces a file in one step, so that nothing ever sees half of it.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    // A link stays one.
    let file = fs::canonicalize(file)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let beside = file.with_file_name(format!(".{name}.{}", std::process::id()));
    let written = write_new(&beside, text)
        .and_then(|()| fs::set_permissions(&beside, fs::metadata(&file)?.permissions()))
        .and_then(|()| fs::rename(&beside, &file));
    if written.is_err() {
        // Nothing is lost when it stays.
        let _ = fs::remove_file(&beside);
    }
    Ok(written?)
}

fn write_new(file: &Path, text: &str) -> std::io::Result<()> {
    let mut new = File::create_new(file)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()
}
