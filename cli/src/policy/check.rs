//! `sunwire policy check`: every finding, each drawn under its line.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sunwire_api::problem::{Span, line_and_column};
use sunwire_api::{Diagnostic, ProblemCode, Severity};
use sunwire_policy::{compile_text, diagnostic};

use super::surroundings::Surroundings;
use super::{NamesFrom, read};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Checked {
    file: PathBuf,
    /// Whether it could be put in force.
    ok: bool,
    /// Names that were taken to be endpoints or nodes, as nothing said what they are.
    assumed: Vec<String>,
    #[serde(flatten)]
    sizes: Option<Sizes>,
    diagnostics: Vec<Diagnostic>,
}

/// What a policy without errors is for, and how large it is.
#[derive(Debug, Serialize)]
struct Sizes {
    network: String,
    table_nodes: u64,
    leaves: u64,
    address_prefixes: u64,
}

pub(super) fn run(
    connection: &Connection,
    names: &NamesFrom,
    files: &[PathBuf],
    format: Format,
) -> anyhow::Result<Outcome> {
    let mut results = Vec::new();
    for file in files {
        let text = read(file)?;
        // A topology is asked for by name, a controller perhaps only by the environment.
        let checked = if names.topology.is_none() && connection.is_named() {
            at_controller(connection, file, &text)?
        } else {
            in_here(connection, names, file, &text)?
        };
        if format == Format::Table {
            report(&checked)?;
        }
        results.push(checked);
    }
    if format == Format::Json {
        output::json(&results)?;
    }
    Ok(if results.iter().all(|checked| checked.ok) {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

fn report(checked: &Checked) -> anyhow::Result<()> {
    for finding in &checked.diagnostics {
        eprintln!("{}\n", finding.rendered.trim_end());
    }
    let file = checked.file.display();
    let count = |severity| {
        let found = checked.diagnostics.iter();
        found.filter(|finding| finding.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let Some(sizes) = &checked.sizes else {
        return output::text(&format!("{file}: {errors} errors, {warnings} warnings\n"));
    };
    let mut line = format!(
        "{file}: ok for network {}: {} nodes, {} leaves, {} prefixes, {warnings} warnings\n",
        sizes.network, sizes.table_nodes, sizes.leaves, sizes.address_prefixes
    );
    if !checked.assumed.is_empty() {
        let names = checked.assumed.join(", ");
        line.push_str(&format!("{file}: assumed to exist: {names}\n"));
    }
    output::text(&line)
}

fn at_controller(connection: &Connection, file: &Path, text: &str) -> anyhow::Result<Checked> {
    let outcome = connection.run(|client| Ok(client.check_policy(text)))?;
    let (sizes, diagnostics) = match outcome {
        Ok(checked) => (
            Some(Sizes {
                network: checked.network.to_string(),
                table_nodes: checked.table_nodes,
                leaves: checked.leaves,
                address_prefixes: checked.address_prefixes,
            }),
            checked.warnings,
        ),
        Err(error) => match error.problem() {
            Some(problem) if problem.code == ProblemCode::PolicyInvalid => {
                (None, problem.diagnostics.clone())
            }
            _ => return Err(error.into()),
        },
    };
    Ok(Checked {
        file: file.to_owned(),
        ok: sizes.is_some(),
        assumed: Vec::new(),
        sizes,
        diagnostics,
    })
}

fn in_here(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    text: &str,
) -> anyhow::Result<Checked> {
    let surroundings = Surroundings::find(connection, names, text)?;
    let (sizes, findings) = match compile_text(text, &surroundings.environment) {
        Ok(compiled) => (
            Some(Sizes {
                network: compiled.network,
                table_nodes: compiled.tables.nodes.len() as u64,
                leaves: compiled.tables.leaves.len() as u64,
                address_prefixes: compiled.tables.classes.len() as u64,
            }),
            compiled.warnings,
        ),
        Err(findings) => (None, findings),
    };
    Ok(Checked {
        file: file.to_owned(),
        ok: sizes.is_some(),
        assumed: surroundings.assumed,
        sizes,
        diagnostics: findings
            .iter()
            .map(|finding| located(finding, text))
            .collect(),
    })
}

/// A finding of the compiler as the REST API has it.
fn located(finding: &diagnostic::Diagnostic, text: &str) -> Diagnostic {
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
        rendered: finding.render(text),
    }
}
