//! `sunwire policy equiv --batch`: a table of questions with known answers, in two syntaxes.

use std::path::Path;

use serde::Serialize;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::import::nkpl::no_imports;
use sunwire_policy::import::{kat, nkpl};
use sunwire_policy::verify::decide::{Answer, equivalent};
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{NodeId, Program};

use super::foreign::Text;
use super::interrupt;
use super::verify::difference;
use crate::exit::Outcome;
use crate::output::{self, Format};

/// What came of the whole table.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// Lines with a question.
    questions: usize,
    /// Answers that are as stated, of two for each question.
    agreed: usize,
    mismatches: Vec<Mismatch>,
}

/// An answer that is not as stated.
#[derive(Debug, Serialize)]
struct Mismatch {
    id: String,
    line: usize,
    syntax: &'static str,
    stated: String,
    /// `equiv`, `differ`, or `error`.
    found: &'static str,
    /// What shows it, or what is wrong.
    why: Vec<String>,
}

/// A question of the table.
struct Question<'t> {
    id: &'t str,
    line: usize,
    stated: &'t str,
    nkpl: [&'t str; 2],
    kat: [&'t str; 2],
}

pub(super) fn run(table: &Path, options: &Options, format: Format) -> anyhow::Result<Outcome> {
    let text = Text::read(table)?;
    let mut summary = Summary::default();
    for question in questions(&text)? {
        summary.questions += 1;
        ask(&question, "nkpl", question.nkpl, options, &mut summary)?;
        ask(&question, "kat", question.kat, options, &mut summary)?;
    }
    match format {
        Format::Json => output::json(&summary)?,
        Format::Table => output::text(&summary.lines())?,
    }
    Ok(
        if summary
            .mismatches
            .iter()
            .any(|found| found.found == "error")
        {
            Outcome::Failed
        } else if summary.mismatches.is_empty() {
            Outcome::Done
        } else {
            Outcome::Negative
        },
    )
}

fn questions(text: &Text) -> anyhow::Result<Vec<Question<'_>>> {
    let mut questions = Vec::new();
    for (line, row) in (1..).zip(text.text.lines()) {
        if row.starts_with('#') || row.trim().is_empty() {
            continue;
        }
        let file = text.file.display();
        let columns: Vec<&str> = row.split('\t').collect();
        let [id, stated, a, b, c, d] = columns[..] else {
            anyhow::bail!(
                "{file}:{line}: six columns are needed, and there are {}: id, equiv or differ, both \
                 sides in KATch's syntax, both in Frenetic's, separated by tabs",
                columns.len()
            );
        };
        if !matches!(stated, "equiv" | "differ") {
            anyhow::bail!("{file}:{line}: the second column is `equiv` or `differ`");
        }
        questions.push(Question {
            id,
            line,
            stated,
            nkpl: [a, b],
            kat: [c, d],
        });
    }
    Ok(questions)
}

fn ask(
    question: &Question<'_>,
    syntax: &'static str,
    sides: [&str; 2],
    options: &Options,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let mut program = Program::new();
    let (found, why) = match read(&mut program, syntax, sides) {
        Err(why) => ("error", why),
        Ok(nodes) => {
            let answer = equivalent(&program, nodes[0], nodes[1], options);
            match answer.map_err(interrupt::or_limit)? {
                Answer::Holds => ("equiv", Vec::new()),
                Answer::Fails(_) if question.stated == "differ" => ("differ", Vec::new()),
                Answer::Fails(way) => ("differ", difference(&program, nodes, &way)),
            }
        }
    };
    if found == question.stated {
        summary.agreed += 1;
    } else {
        summary.mismatches.push(Mismatch {
            id: question.id.to_owned(),
            line: question.line,
            syntax,
            stated: question.stated.to_owned(),
            found,
            why,
        });
    }
    Ok(())
}

fn read(program: &mut Program, syntax: &str, sides: [&str; 2]) -> Result<[NodeId; 2], Vec<String>> {
    let mut nodes = Vec::new();
    for (text, name) in sides.into_iter().zip(["left", "right"]) {
        let read = match syntax {
            "nkpl" => nkpl::parse_into(program, text, &mut no_imports),
            _ => kat::parse_into(program, text),
        };
        let wrong = |found: Vec<Diagnostic>| {
            let words = found.iter().map(|f| format!("{name}: {f}"));
            words.collect::<Vec<_>>()
        };
        nodes.push(read.map_err(wrong)?);
    }
    let [left, right] = nodes[..] else {
        unreachable!("there are two sides")
    };
    Ok(kat::close(program, [left, right]))
}

impl Summary {
    fn lines(&self) -> String {
        let mut out = String::new();
        for found in &self.mismatches {
            let Mismatch {
                id,
                line,
                syntax,
                stated,
                found,
                why,
            } = found;
            out.push_str(&format!(
                "{id} (line {line}, {syntax}): {stated} was stated, found: {found}\n"
            ));
            for line in why {
                out.push_str(&format!("  {line}\n"));
            }
        }
        out.push_str(&format!(
            "{} questions in two syntaxes: {} answers as stated, {} otherwise\n",
            self.questions,
            self.agreed,
            self.mismatches.len()
        ));
        out
    }
}
