//! Policy files, read with care: what they import, how large they may be, and where findings are.
//!
//! Whatever a path leads to, reading it ends, takes bounded memory, and says what is wrong in words
//! of the file. Findings in a text that was put together from several files are shown in the file
//! that people wrote.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use sunwire_api::client::ClientError;
use sunwire_api::problem::{Span, line_and_column};
use sunwire_api::{Diagnostic, Severity};
use sunwire_policy::diagnostic::{self, Code};
use sunwire_policy::import::limits;
use sunwire_policy::imports::{Bundle, Located, bundle};
use sunwire_policy::parser;

/// A policy whose imports cannot be found.
#[derive(Debug, thiserror::Error)]
#[error("{file} imports what cannot be read\n\n{findings}")]
struct ImportsFail {
    file: String,
    findings: String,
}

/// A finding, in the file that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Path of the file.
    pub(crate) file: String,
    /// What was found; places are places in that file.
    #[serde(flatten)]
    pub(crate) diagnostic: Diagnostic,
}

/// Reads a policy file and all that it imports, as one text.
///
/// # Errors
/// A file that cannot be read, and imports that cannot be found, each shown where it stands.
pub(crate) fn read_bundle(file: &Path) -> anyhow::Result<Bundle> {
    match load(file)? {
        Ok(bundle) => Ok(bundle),
        Err((bundle, problems)) => {
            let findings: Vec<String> = problems.iter().map(|p| bundle.render(p)).collect();
            Err(ImportsFail {
                file: file.display().to_string(),
                findings: findings.join("\n").trim_end().to_owned(),
            }
            .into())
        }
    }
}

/// Reads a policy file and all that it imports; imports that cannot be found are findings.
pub(super) fn load(file: &Path) -> anyhow::Result<Result<Bundle, (Bundle, Vec<Located>)>> {
    let text = read(file)?;
    let path = file.to_string_lossy();
    let mut loader = |path: &str| import(Path::new(path));
    Ok(bundle(&path, &text, &mut loader))
}

/// Reads a text file, which may be no larger than a policy.
pub(super) fn read(file: &Path) -> anyhow::Result<String> {
    bounded(file, parser::MAX_SOURCE_BYTES)
}

/// Reads a program of another tool.
pub(super) fn read_foreign(file: &Path) -> anyhow::Result<String> {
    bounded(file, limits::MAX_SOURCE_BYTES)
}

/// Reads an imported file; in words that follow its name.
pub(super) fn import(file: &Path) -> Result<String, String> {
    bounded(file, limits::MAX_SOURCE_BYTES).map_err(|error| error.root_cause().to_string())
}

fn bounded(file: &Path, most: usize) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {}", file.display());
    let open = File::open(file).with_context(cannot)?;
    let mut bytes = Vec::new();
    // One byte more than permitted, so that a file without end is recognised.
    let read = open.take(most as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| match error.kind() {
        ErrorKind::IsADirectory => anyhow::anyhow!("it is a directory: name the file in it"),
        _ => error.into(),
    })
    .with_context(cannot)?;
    if bytes.len() > most {
        let words = format!("it is larger than {} MiB", most >> 20);
        return Err(anyhow::anyhow!(words)).with_context(cannot);
    }
    String::from_utf8(bytes)
        .map_err(|_| anyhow::anyhow!("it is no text in UTF-8"))
        .with_context(cannot)
}

/// A refusal by a controller, whose findings are places in the text that was sent, with each in the
/// file that it is in.
pub(crate) fn in_files(bundle: &Bundle, mut error: ClientError) -> ClientError {
    if let ClientError::Refused(problem) = &mut error {
        for found in &mut problem.diagnostics {
            *found = remote_finding(bundle, found.clone()).diagnostic;
        }
    }
    error
}

/// A finding in a bundle, in the file that it is in.
pub(super) fn finding(bundle: &Bundle, finding: &diagnostic::Diagnostic) -> Finding {
    // Labels may stand in other files, which only the rendering of all can say.
    let rendered = bundle.render_all(std::slice::from_ref(finding));
    in_file(bundle, &bundle.localise(finding), rendered)
}

/// A finding about an import.
pub(super) fn import_finding(bundle: &Bundle, problem: &Located) -> Finding {
    in_file(bundle, problem, bundle.render(problem))
}

fn in_file(bundle: &Bundle, located: &Located, rendered: String) -> Finding {
    let path = bundle.files().get(located.file).copied();
    let diagnostic = plain(&located.diagnostic, bundle.source(located.file), rendered);
    Finding {
        file: path.unwrap_or_default().to_owned(),
        diagnostic,
    }
}

/// A finding in a file of another language.
pub(super) fn foreign_finding(
    file: &Path,
    text: &str,
    finding: &diagnostic::Diagnostic,
) -> Finding {
    let file = file.display().to_string();
    let rendered = with_path(&finding.render(text), &file);
    Finding {
        diagnostic: plain(finding, text, rendered),
        file,
    }
}

/// A finding as the REST API has it.
fn plain(finding: &diagnostic::Diagnostic, text: &str, rendered: String) -> Diagnostic {
    let (end_line, end_column) = line_and_column(text, finding.span.end);
    Diagnostic {
        code: finding.code.text().to_owned(),
        severity: match finding.severity {
            diagnostic::Severity::Error => Severity::Error,
            diagnostic::Severity::Warning => Severity::Warning,
        },
        message: finding.message.clone(),
        line: finding.line,
        column: finding.column,
        end_line,
        end_column,
        span: Span {
            start: finding.span.start,
            end: finding.span.end,
        },
        hint: finding.hint.clone(),
        rendered,
    }
}

/// What a controller found in the text of a bundle, in the file that it is in.
pub(super) fn remote_finding(bundle: &Bundle, found: Diagnostic) -> Finding {
    let files = bundle.files();
    if let [only] = files[..] {
        return Finding {
            file: only.to_owned(),
            diagnostic: Diagnostic {
                rendered: with_path(&found.rendered, only),
                ..found
            },
        };
    }
    let span = diagnostic::Span::new(found.span.start, found.span.end);
    let known = Code::ALL.iter().find(|code| code.text() == found.code);
    if let Some(code) = known {
        let mut local = diagnostic::Diagnostic::new(bundle.text(), *code, span, found.message);
        local.hint = found.hint;
        return finding(bundle, &local);
    }
    // A newer controller: its findings can be placed, and not drawn.
    let (file, span) = bundle.locate(span);
    let (line, column) = line_and_column(bundle.source(file), span.start);
    let (end_line, end_column) = line_and_column(bundle.source(file), span.end);
    let file = files.get(file).copied().unwrap_or_default();
    Finding {
        file: file.to_owned(),
        diagnostic: Diagnostic {
            rendered: format!("{file}:{line}:{column}: {}", found.message),
            span: Span {
                start: span.start,
                end: span.end,
            },
            line,
            column,
            end_line,
            end_column,
            ..found
        },
    }
}

/// Puts the path of the file before the places in a drawn finding.
fn with_path(rendered: &str, path: &str) -> String {
    let mut out = String::new();
    for line in rendered.split_inclusive('\n') {
        match line.trim_start().strip_prefix("--> ") {
            Some(place) => {
                let gutter = line.len() - line.trim_start().len();
                out.push_str(&line[..gutter]);
                out.push_str("--> ");
                out.push_str(path);
                out.push(':');
                out.push_str(place);
            }
            None => out.push_str(line),
        }
    }
    out
}

/// `FILE:LINE` of a place in a bundle.
pub(super) fn place(bundle: &Bundle, span: diagnostic::Span) -> (String, u32) {
    let (file, span) = bundle.locate(span);
    let (line, _) = line_and_column(bundle.source(file), span.start);
    let file = bundle.files().get(file).copied().unwrap_or_default();
    (file.to_owned(), line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_get_their_file_and_texts_with_arrows_stay() {
        let drawn = "error: x\n --> 2:1\n  |\n2 | # --> here\n";
        let expected = "error: x\n --> a.nk:2:1\n  |\n2 | # --> here\n";
        assert_eq!(with_path(drawn, "a.nk"), expected);
    }

    #[test]
    fn what_is_no_text_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let garbage = directory.path().join("garbage.nk");
        std::fs::write(&garbage, [0xff, 0, 0x9f]).unwrap();
        for (path, words) in [
            (directory.path(), "directory"),
            (garbage.as_path(), "UTF-8"),
            (Path::new("/dev/zero"), "larger than"),
            (Path::new("/nowhere/shop.nk"), "No such file"),
        ] {
            let error = format!("{:#}", read(path).unwrap_err());
            assert!(error.contains(words), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
}
