//! `sunwire policy diff OLD NEW`: how two texts differ, and whether that changes anything.

use std::path::Path;

use serde::Serialize;
use sunwire_policy::format::format as formatted;
use sunwire_policy::imports::Bundle;
use sunwire_policy::prove::equivalent_policies;
use sunwire_policy::resolve_text;
use sunwire_policy::verify::options::Options;

use super::surroundings::Surroundings;
use super::{NamesFrom, diff, interrupt, read_bundle, refuse};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// How two texts differ.
#[derive(Debug, Serialize)]
struct Differ {
    /// Whether the texts are the same once they are laid out evenly.
    same_text: bool,
    /// Whether both make the same of every packet; absent when that could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    equivalent: Option<bool>,
    /// The unified difference of the texts, with their imports, laid out evenly.
    diff: String,
}

pub(super) fn run(
    connection: &Connection,
    names: &NamesFrom,
    [old, new]: [&Path; 2],
    format: Format,
) -> anyhow::Result<Outcome> {
    let options = interrupt::options()?;
    let bundles = [read_bundle(old)?, read_bundle(new)?];
    let (from, to) = (old.to_string_lossy(), new.to_string_lossy());
    let [old, new] = bundles
        .each_ref()
        .map(|bundle| formatted(bundle.text()).map_err(|findings| refuse(&findings, bundle)));
    let (Ok(old), Ok(new)) = (old, new) else {
        return Ok(Outcome::Failed);
    };
    let differ = Differ {
        same_text: old == new,
        equivalent: match old == new {
            true => Some(true),
            false => same_meaning(connection, names, &bundles, &options)?,
        },
        diff: diff::unified(&old, &new, &from, &to),
    };
    match format {
        Format::Json => output::json(&differ)?,
        Format::Table => output::text(&differ.diff)?,
    }
    match differ.equivalent {
        Some(true) if !differ.same_text => {
            eprintln!("the texts differ, and make the same of every packet");
        }
        Some(false) => eprintln!("the policies differ: see `sunwire policy plan {from} {to}`"),
        _ => {}
    }
    Ok(if differ.same_text {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

/// Whether both texts make the same of every packet, when both can be read.
fn same_meaning(
    connection: &Connection,
    names: &NamesFrom,
    bundles: &[Bundle; 2],
    options: &Options,
) -> anyhow::Result<Option<bool>> {
    let texts = bundles.each_ref().map(Bundle::text);
    let surroundings = Surroundings::find(connection, names, &texts)?;
    let resolved = texts.map(|text| resolve_text(text, &surroundings.environment));
    let [Ok((old, _)), Ok((new, _))] = resolved else {
        return Ok(None);
    };
    if old.network != new.network {
        return Ok(Some(false));
    }
    match equivalent_policies(&old, &new, options) {
        Ok(answer) => Ok(Some(answer.holds())),
        Err(limit) => match interrupt::happened() {
            true => Err(interrupt::or_limit(limit)),
            false => Ok(None),
        },
    }
}
