//! `sunwire policy plan OLD NEW`: what a change of policy changes.

use std::path::Path;

use serde::Serialize;
use sunwire_policy::plan::{Plan, plan};
use sunwire_policy::prove::prove;
use sunwire_policy::resolve_text;
use sunwire_policy::term::Resolved;
use sunwire_policy::tests_run::run_tests;

use super::source::{self, Finding};
use super::surroundings::Surroundings;
use super::{NamesFrom, equiv, interrupt, read_bundle, refuse};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// Compares two files.
pub(super) fn of_files(
    connection: &Connection,
    names: &NamesFrom,
    [old, new]: [&Path; 2],
    format: Format,
) -> anyhow::Result<Outcome> {
    let options = interrupt::options()?;
    let bundles = [read_bundle(old)?, read_bundle(new)?];
    let texts = [bundles[0].text(), bundles[1].text()];
    equiv::same_network(texts)?;
    let surroundings = Surroundings::find(connection, names, &texts)?;
    surroundings.tell_assumed();
    let mut resolved: Vec<Resolved> = Vec::new();
    for bundle in &bundles {
        match resolve_text(bundle.text(), &surroundings.environment) {
            Ok((policy, _)) => resolved.push(policy),
            Err(findings) => {
                refuse(&findings, bundle);
            }
        }
    }
    let [old, new] = &resolved[..] else {
        return Ok(Outcome::Failed);
    };
    let environment = &surroundings.environment;
    let plan = plan(Some(old), new, environment, &options).map_err(interrupt::or_limit)?;
    let proofs = prove(new, environment, &options);
    if interrupt::happened() {
        return Err(interrupt::Interrupted.into());
    }
    let text = bundles[1].text();
    let broken = proofs.iter().filter_map(|proof| proof.diagnostic(text));
    let tests = run_tests(new, environment);
    let failed = tests.iter().flat_map(|test| test.diagnostics(text));
    let claims = broken
        .chain(failed)
        .map(|f| source::finding(&bundles[1], &f));
    show(&plan, claims.collect(), format)
}

/// What a change changes, and which claims of the new text do not hold.
#[derive(Debug, Serialize)]
struct Shown<'p> {
    #[serde(flatten)]
    plan: &'p Plan,
    violations: Vec<Finding>,
}

/// Shows a plan; the outcome says whether anything changes, or would be refused.
fn show(plan: &Plan, violations: Vec<Finding>, format: Format) -> anyhow::Result<Outcome> {
    let same = plan.is_empty() && violations.is_empty();
    match format {
        Format::Json => output::json(&Shown { plan, violations })?,
        Format::Table => {
            let mut text = plan.to_string();
            for finding in &violations {
                let message = &finding.diagnostic.message;
                text.push_str(&format!("! it would be refused: {message}\n"));
            }
            output::text(&text)?;
        }
    }
    Ok(if same {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}
