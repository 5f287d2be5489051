//! `sunwire policy explain`: which clause decides about a packet, and why.

use std::path::PathBuf;

use serde::Serialize;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::explain::{Clause, Decision, explain};
use sunwire_policy::imports::Bundle;
use sunwire_policy::{parse, resolve};

use super::surroundings::Surroundings;
use super::{NamesFrom, packet, read_bundle, refuse};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// What is explained.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Policy file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The packet: a JSON object by field name, as for `eval`.
    #[arg(long, value_name = "JSON")]
    packet: String,
    #[command(flatten)]
    names: NamesFrom,
}

/// Why a packet is treated as it is.
#[derive(Debug, Serialize)]
struct Explained {
    packet: String,
    decisions: Vec<Decided>,
}

#[derive(Debug, Serialize)]
struct Decided {
    at: String,
    label: String,
    statement: Option<Place>,
    conditions: Vec<Condition>,
    copies: Vec<sunwire_policy::explain::Copied>,
}

#[derive(Debug, Serialize)]
struct Condition {
    #[serde(flatten)]
    place: Place,
    holds: bool,
}

/// A part of a file.
#[derive(Debug, Serialize)]
struct Place {
    file: String,
    line: u32,
    column: u32,
    text: String,
}

pub(super) fn run(connection: &Connection, args: &Args, format: Format) -> anyhow::Result<Outcome> {
    let bundle = read_bundle(&args.file)?;
    let text = bundle.text();
    let surroundings = Surroundings::find(connection, &args.names, &[text])?;
    surroundings.tell_assumed();
    let environment = &surroundings.environment;
    let entered = packet::parse(&args.packet, environment)?;
    let (document, findings) = parse(text);
    if findings.iter().any(Diagnostic::is_error) {
        return Ok(refuse(&findings, &bundle));
    }
    let policy = match resolve(&document, environment) {
        Ok(policy) => policy,
        Err(findings) => return Ok(refuse(&findings, &bundle)),
    };
    let found = explain(&policy, &document, environment, &entered);
    let decisions = found.decisions.iter().map(|d| decided(&bundle, d));
    let explained = Explained {
        decisions: decisions.collect(),
        packet: found.packet,
    };
    match format {
        Format::Json => output::json(&explained)?,
        Format::Table => output::text(&explained.lines())?,
    }
    // A packet that is sent somewhere at the last is allowed.
    let allowed = explained.decisions.iter().all(|d| !d.copies.is_empty());
    Ok(if allowed {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

fn decided(bundle: &Bundle, decision: &Decision) -> Decided {
    let conditions = decision.conditions.iter().map(|condition| Condition {
        place: place(bundle, &condition.clause),
        holds: condition.holds,
    });
    Decided {
        at: decision.at.clone(),
        label: decision.label.clone(),
        statement: decision.statement.as_ref().map(|c| place(bundle, c)),
        conditions: conditions.collect(),
        copies: decision.copies.clone(),
    }
}

fn place(bundle: &Bundle, clause: &Clause) -> Place {
    let (file, span) = bundle.locate(clause.span);
    let (line, column) = sunwire_api::problem::line_and_column(bundle.source(file), span.start);
    Place {
        file: bundle
            .files()
            .get(file)
            .copied()
            .unwrap_or_default()
            .to_owned(),
        line,
        column,
        text: clause.text.clone(),
    }
}

impl Explained {
    fn lines(&self) -> String {
        let mut out = format!("{}\n", self.packet);
        for decision in &self.decisions {
            let Decided { at, label, .. } = decision;
            out.push_str(&format!("at {at}, {label:?} decides:\n"));
            match &decision.statement {
                Some(statement) => out.push_str(&format!("  {}\n", statement.line())),
                None => out.push_str("  no statement says anything about it\n"),
            }
            for condition in &decision.conditions {
                let word = if condition.holds {
                    "as       "
                } else {
                    "as not   "
                };
                out.push_str(&format!("  {word}{}\n", condition.place.line()));
            }
            if decision.copies.is_empty() {
                out.push_str("  so the policy drops it\n");
            }
            for copy in &decision.copies {
                let with = match copy.rewritten.as_str() {
                    "" => String::new(),
                    rewritten => format!(" with {rewritten}"),
                };
                out.push_str(&format!("  so the policy {}{with}\n", copy.what));
            }
        }
        out
    }
}

impl Place {
    fn line(&self) -> String {
        let Place {
            file,
            line,
            column,
            text,
        } = self;
        format!("{text}  ({file}:{line}:{column})")
    }
}
