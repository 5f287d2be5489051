//! `sunwire policy plan OLD NEW`: what a change of policy changes.

use std::path::Path;

use sunwire_policy::plan::{Plan, plan};
use sunwire_policy::resolve_text;
use sunwire_policy::term::Resolved;

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
    equiv::same_network(old, new)?;
    let plan = plan(Some(old), new, &surroundings.environment, &options);
    show(&plan.map_err(interrupt::or_limit)?, format)
}

/// Shows a plan; the outcome says whether anything changes.
pub(crate) fn show(plan: &Plan, format: Format) -> anyhow::Result<Outcome> {
    match format {
        Format::Json => output::json(plan)?,
        Format::Table => output::text(&plan.to_string())?,
    }
    Ok(if plan.is_empty() {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}
