//! `sunwire policy test`: runs the tests that stand in policies.

use std::path::PathBuf;

use serde::Serialize;
use sunwire_policy::imports::Bundle;
use sunwire_policy::resolve_text;
use sunwire_policy::tests_run::{TestResult, run_tests};

use super::surroundings::Surroundings;
use super::{NamesFrom, read_bundle, refuse, source};
use crate::exit::Outcome;
use crate::output::{self, Format};
use crate::rest::Connection;

/// What is run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Policy files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run only tests with this text in their name.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    #[command(flatten)]
    names: NamesFrom,
}

/// What a test showed.
#[derive(Debug, Serialize)]
struct Ran {
    file: String,
    line: u32,
    name: String,
    packets: usize,
    passed: bool,
    failures: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Failed {
    file: String,
    line: u32,
    packet: String,
    expected: String,
    found: String,
    /// Drawn under its line, for a terminal.
    rendered: String,
}

pub(super) fn run(connection: &Connection, args: &Args, format: Format) -> anyhow::Result<Outcome> {
    let mut all = Vec::new();
    let mut filtered = 0;
    let mut unreadable = 0;
    for file in &args.files {
        let bundle = read_bundle(file)?;
        let surroundings = Surroundings::find(connection, &args.names, &[bundle.text()])?;
        surroundings.tell_assumed();
        let environment = &surroundings.environment;
        let policy = match resolve_text(bundle.text(), environment) {
            Ok((policy, _)) => policy,
            Err(findings) => {
                refuse(&findings, &bundle);
                unreadable += 1;
                continue;
            }
        };
        let results = run_tests(&policy, environment);
        let wanted = |result: &&TestResult| {
            let filter = args.filter.as_deref();
            filter.is_none_or(|text| result.name.contains(text))
        };
        let ran: Vec<Ran> = results
            .iter()
            .filter(wanted)
            .map(|result| ran(&bundle, result))
            .collect();
        filtered += results.len() - ran.len();
        if format == Format::Table {
            list(&file.display().to_string(), &ran)?;
        }
        all.extend(ran);
    }
    let failed = all.iter().filter(|ran| !ran.passed).count();
    match format {
        Format::Json => output::json(&all)?,
        Format::Table => output::text(&summary(&all, failed, filtered, unreadable))?,
    }
    Ok(match (unreadable, failed) {
        (0, 0) => Outcome::Done,
        (0, _) => Outcome::Negative,
        _ => Outcome::Failed,
    })
}

fn ran(bundle: &Bundle, result: &TestResult) -> Ran {
    let (file, line) = source::place(bundle, result.span);
    let drawn = result.diagnostics(bundle.text());
    let failures = result.failures.iter().zip(&drawn).map(|(failure, drawn)| {
        let (file, line) = source::place(bundle, failure.span);
        Failed {
            file,
            line,
            packet: failure.packet.clone(),
            expected: failure.expected.clone(),
            found: failure.found.clone(),
            rendered: bundle.render_all(std::slice::from_ref(drawn)),
        }
    });
    Ran {
        file,
        line,
        name: result.name.clone(),
        packets: result.packets,
        passed: result.passed(),
        failures: failures.collect(),
    }
}

fn list(file: &str, ran: &[Ran]) -> anyhow::Result<()> {
    let count = match ran.len() {
        1 => "1 test".to_owned(),
        count => format!("{count} tests"),
    };
    let mut text = format!("running {count} of {file}\n");
    for test in ran {
        let outcome = if test.passed { "ok" } else { "FAILED" };
        let packets = packets(test.packets);
        text.push_str(&format!("test {} ... {outcome} ({packets})\n", test.name));
    }
    text.push('\n');
    for failure in ran.iter().flat_map(|test| &test.failures) {
        text.push_str(&failure.rendered);
        text.push('\n');
    }
    output::text(&text)
}

fn summary(all: &[Ran], failed: usize, filtered: usize, unreadable: usize) -> String {
    let outcome = match failed + unreadable {
        0 => "ok",
        _ => "FAILED",
    };
    let passed = all.len() - failed;
    let packets = packets(all.iter().map(|ran| ran.packets).sum());
    let unreadable = match unreadable {
        0 => String::new(),
        count => format!("; {count} files with mistakes"),
    };
    format!(
        "test result: {outcome}. {passed} passed; {failed} failed; {filtered} filtered out; \
         {packets}{unreadable}\n"
    )
}

fn packets(count: usize) -> String {
    match count {
        1 => "1 packet".to_owned(),
        count => format!("{count} packets"),
    }
}
