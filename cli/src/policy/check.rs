//! `sunwire policy check`: every finding, each drawn under its line.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sunwire_api::Severity;
use sunwire_policy::diagnostic::Code;
use sunwire_policy::imports::{Bundle, Located};
use sunwire_policy::verify::options::Options;
use sunwire_policy::{check_claims, compile_text, diagnostic};

use super::source::{self, Finding};
use super::surroundings::Surroundings;
use super::{NamesFrom, interrupt};
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
    #[serde(flatten)]
    claims: Option<Claims>,
    diagnostics: Vec<Finding>,
}

/// What a policy claims of itself, when that could be judged in here.
#[derive(Debug, Serialize)]
struct Claims {
    assertions: usize,
    tests: usize,
}

/// What a policy without errors is for, and how large it is.
#[derive(Debug, Serialize)]
struct Sizes {
    network: String,
    table_nodes: u64,
    leaves: u64,
    address_prefixes: u64,
}

/// Findings that say that a claim does not hold.
const CLAIMS: [&str; 2] = [Code::AssertionFails.text(), Code::TestFails.text()];

pub(super) fn run(
    connection: &Connection,
    names: &NamesFrom,
    files: &[PathBuf],
    format: Format,
) -> anyhow::Result<Outcome> {
    let options = interrupt::options()?;
    let mut results = Vec::new();
    for file in files {
        let checked = match source::load(file)? {
            Err((bundle, problems)) => imports_fail(file, &bundle, &problems),
            // A topology is asked for by name, a controller perhaps only by the environment.
            Ok(bundle) if names.topology.is_none() && connection.is_named() => {
                at_controller(connection, file, &bundle)?
            }
            Ok(bundle) => in_here(connection, names, file, &bundle, &options)?,
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
        eprintln!("{}\n", finding.diagnostic.rendered.trim_end());
    }
    let file = checked.file.display();
    let count = |severity| {
        let found = checked.diagnostics.iter();
        found.filter(|f| f.diagnostic.severity == severity).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let mut line = match &checked.sizes {
        Some(sizes) if checked.ok => format!(
            "{file}: ok for network {}: {} nodes, {} leaves, {} prefixes, {warnings} warnings\n",
            sizes.network, sizes.table_nodes, sizes.leaves, sizes.address_prefixes
        ),
        _ => format!("{file}: {errors} errors, {warnings} warnings\n"),
    };
    if let Some(claims) = checked.claims.as_ref().filter(|_| checked.ok)
        && claims.assertions + claims.tests > 0
    {
        let (assertions, tests) = (claims.assertions, claims.tests);
        line.push_str(&format!(
            "{file}: {assertions} assertions hold, {tests} tests pass\n"
        ));
    }
    if !checked.assumed.is_empty() {
        let names = checked.assumed.join(", ");
        line.push_str(&format!("{file}: assumed to exist: {names}\n"));
        let fails = |finding: &Finding| CLAIMS.contains(&finding.diagnostic.code.as_str());
        if checked.diagnostics.iter().any(fails) {
            line.push_str(&format!(
                "{file}: claims were judged by these: --topology or --server say what there is\n"
            ));
        }
    }
    output::text(&line)
}

fn imports_fail(file: &Path, bundle: &Bundle, problems: &[Located]) -> Checked {
    let found = problems.iter();
    Checked {
        file: file.to_owned(),
        ok: false,
        assumed: Vec::new(),
        sizes: None,
        claims: None,
        diagnostics: found.map(|p| source::import_finding(bundle, p)).collect(),
    }
}

fn at_controller(connection: &Connection, file: &Path, bundle: &Bundle) -> anyhow::Result<Checked> {
    let outcome = connection.run(|client| Ok(client.check_policy(bundle.text())))?;
    let (sizes, found) = match outcome {
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
            Some(problem) if !problem.diagnostics.is_empty() => (None, problem.diagnostics.clone()),
            _ => return Err(error.into()),
        },
    };
    let found = found.into_iter();
    Ok(Checked {
        file: file.to_owned(),
        ok: sizes.is_some(),
        assumed: Vec::new(),
        sizes,
        claims: None,
        diagnostics: found.map(|f| source::remote_finding(bundle, f)).collect(),
    })
}

fn in_here(
    connection: &Connection,
    names: &NamesFrom,
    file: &Path,
    bundle: &Bundle,
    options: &Options,
) -> anyhow::Result<Checked> {
    let text = bundle.text();
    let surroundings = Surroundings::find(connection, names, &[text])?;
    let environment = &surroundings.environment;
    let (sizes, mut findings) = match compile_text(text, environment) {
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
    let mut claims = None;
    // What is claimed of a policy is judged also when the data plane could not do what it says.
    if let Ok(checked) = check_claims(text, environment, options) {
        if interrupt::happened() {
            return Err(interrupt::Interrupted.into());
        }
        claims = Some(Claims {
            assertions: checked.proofs.len(),
            tests: checked.tests.len(),
        });
        findings.extend(checked.failures());
        findings.sort_by_key(|finding| (finding.span.start, finding.code));
    }
    Ok(Checked {
        file: file.to_owned(),
        ok: sizes.is_some() && !findings.iter().any(diagnostic::Diagnostic::is_error),
        assumed: surroundings.assumed,
        sizes,
        claims,
        diagnostics: findings
            .iter()
            .map(|f| source::finding(bundle, f))
            .collect(),
    })
}
