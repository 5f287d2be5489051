//! Programs in the syntaxes of other tools, from files or from the command line.

use std::path::{Path, PathBuf};

use sunwire_policy::diagnostic::Diagnostic;

use super::source::{self, Finding};
use crate::exit::Usage;

/// How a program is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Syntax {
    /// The policy language.
    Nk,
    /// Frenetic's concrete syntax.
    Kat,
    /// KATch's language.
    Nkpl,
}

impl Syntax {
    /// The one that was given, else the one that the file's name ends with.
    pub(super) fn of(file: &Path, given: Option<Syntax>) -> Result<Syntax, Usage> {
        if let Some(given) = given {
            return Ok(given);
        }
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("nk") => Ok(Syntax::Nk),
            Some("kat") => Ok(Syntax::Kat),
            Some("nkpl") => Ok(Syntax::Nkpl),
            _ => Err(Usage(format!(
                "{} ends neither with .nk nor with .kat nor with .nkpl: say how it is written, \
                 as in --syntax nk",
                file.display()
            ))),
        }
    }
}

/// A program's text, and where it is from.
pub(super) struct Text {
    /// The file, or what stands for it in messages.
    pub(super) file: PathBuf,
    pub(super) text: String,
}

impl Text {
    pub(super) fn read(file: &Path) -> anyhow::Result<Text> {
        Ok(Text {
            text: source::read_foreign(file)?,
            file: file.to_owned(),
        })
    }

    /// Reads what the program imports, relative to its file.
    pub(super) fn loader(&self) -> impl FnMut(&str) -> Result<String, String> + use<> {
        let folder = self.file.parent().unwrap_or(Path::new("")).to_owned();
        move |path| source::import(&folder.join(path))
    }

    /// Findings in it, drawn.
    pub(super) fn findings(&self, found: &[Diagnostic]) -> Vec<Finding> {
        let located = |f| source::foreign_finding(&self.file, &self.text, f);
        found.iter().map(located).collect()
    }

    /// Shows findings on standard error.
    pub(super) fn show(&self, found: &[Diagnostic]) {
        for finding in self.findings(found) {
            eprintln!("{}\n", finding.diagnostic.rendered.trim_end());
        }
    }
}
