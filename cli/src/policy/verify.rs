//! `sunwire policy verify`: are the assertions of policies true, and the checks of imported programs?

use std::path::{Path, PathBuf};

use serde::Serialize;
use sunwire_policy::import::nkpl;
use sunwire_policy::prove::{Failure, Proof, Verdict, prove};
use sunwire_policy::resolve_text;
use sunwire_policy::show::show_packet;
use sunwire_policy::verify::counterexample::{Counterexample, Side};
use sunwire_policy::verify::decide::{Answer, equivalent};
use sunwire_policy::verify::options::{Limit, Options};
use sunwire_policy::verify::program::{Node, NodeId, Program};
use sunwire_policy::verify::semantics::evaluate;

use super::foreign::{Syntax, Text};
use super::resources::{Since, Used};
use super::steps::{self, Decided};
use super::surroundings::Surroundings;
use super::{NamesFrom, interrupt, read_bundle, refuse, source};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};
use crate::rest::Connection;

/// Packets that are listed of what one side of a check makes of one.
const MAX_SHOWN: usize = 8;

/// What is asked.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Policies (.nk), or programs of KATch (.nkpl).
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How the files are written, whatever their names end with.
    #[arg(long, value_enum)]
    syntax: Option<Syntax>,
    /// Also show the processor time of every question, and the memory used.
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    names: NamesFrom,
}

/// The answer to one question.
#[derive(Debug, Serialize)]
struct Answered {
    file: String,
    line: u32,
    /// The assertion or the check as written.
    text: String,
    verdict: Word,
    /// How far the verdict goes, or why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// A packet for which it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<String>,
    /// What becomes of it, decision by decision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    decisions: Vec<Decided>,
    /// A way that only one side of a check has.
    #[serde(skip_serializing_if = "Option::is_none")]
    way: Option<Way>,
    #[serde(flatten)]
    used: Option<Used>,
    /// For people, below the line of the question.
    #[serde(skip)]
    below: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Holds,
    Fails,
    Undecided,
}

/// A way through a program, hop by hop.
#[derive(Debug, Serialize)]
struct Way {
    /// The side that has it: `left` or `right`.
    side: String,
    hops: Vec<String>,
    output: String,
}

pub(super) fn run(connection: &Connection, args: &Args, format: Format) -> anyhow::Result<Outcome> {
    let options = interrupt::options()?;
    let mut told = Told {
        format,
        all: Vec::new(),
    };
    let mut unreadable = false;
    for file in &args.files {
        let asked = told.all.len();
        unreadable |= match Syntax::of(file, args.syntax)? {
            Syntax::Nk => !assertions(connection, args, file, &options, &mut told)?,
            Syntax::Nkpl => !checks(args, file, &options, &mut told)?,
            Syntax::Kat => {
                let file = file.display();
                let words = format!("{file}: programs of Frenetic hold no questions; see `equiv`");
                return Err(Usage(words).into());
            }
        };
        if told.all.len() == asked && !unreadable {
            eprintln!("{}: nothing is asserted or checked", file.display());
        }
    }
    if format == Format::Json {
        output::json(&told.all)?;
    }
    let any = |word| told.all.iter().any(|answered| answered.verdict == word);
    Ok(if unreadable || any(Word::Undecided) {
        Outcome::Failed
    } else if any(Word::Fails) {
        Outcome::Negative
    } else {
        Outcome::Done
    })
}

/// Answers, told to people as soon as they are there.
struct Told {
    format: Format,
    all: Vec<Answered>,
}

impl Told {
    fn tell(&mut self, answered: Answered) -> anyhow::Result<()> {
        if self.format == Format::Table {
            output::text(&answered.lines())?;
        }
        self.all.push(answered);
        Ok(())
    }
}

impl Answered {
    fn lines(&self) -> String {
        let word = match self.verdict {
            Word::Holds => "ok  ",
            Word::Fails => "FAIL",
            Word::Undecided => "????",
        };
        let (file, line, text) = (&self.file, self.line, &self.text);
        let mut out = format!("{word} {file}:{line}  {text}\n");
        let note = self.note.iter().map(|note| format!("note: {note}"));
        let used = self.used.iter().map(Used::to_string);
        for below in self.below.iter().cloned().chain(note).chain(used) {
            out.push_str(&format!("     {below}\n"));
        }
        out
    }
}

/// Answers the assertions of a policy; false when it cannot be read.
fn assertions(
    connection: &Connection,
    args: &Args,
    file: &Path,
    options: &Options,
    told: &mut Told,
) -> anyhow::Result<bool> {
    let bundle = read_bundle(file)?;
    let surroundings = Surroundings::find(connection, &args.names, &[bundle.text()])?;
    surroundings.tell_assumed();
    let environment = &surroundings.environment;
    let policy = match resolve_text(bundle.text(), environment) {
        Ok((policy, _)) => policy,
        Err(findings) => {
            refuse(&findings, &bundle);
            return Ok(false);
        }
    };
    let since = Since::now();
    let proofs = prove(&policy, environment, options);
    if interrupt::happened() {
        return Err(interrupt::Interrupted.into());
    }
    // They share their work, so that only all of them have a time.
    let used = since.used();
    let count = proofs.len();
    for proof in &proofs {
        let (file, line) = source::place(&bundle, proof.span);
        let Proof {
            text,
            verdict,
            note,
            ..
        } = proof;
        let mut answered = Answered {
            file,
            line,
            text: format!("assert {text}"),
            verdict: Word::Holds,
            note: note.clone(),
            packet: None,
            decisions: Vec::new(),
            way: None,
            used: args.stats.then_some(used).filter(|_| count == 1),
            below: Vec::new(),
        };
        match verdict {
            Verdict::Holds => {}
            Verdict::Fails(failure) => {
                let Failure { packet, steps } = &**failure;
                answered.verdict = Word::Fails;
                answered.packet = Some(show_packet(packet));
                answered.decisions = steps.iter().map(|s| Decided::new(s, &bundle)).collect();
                answered.below.push(show_packet(packet));
                let ways = steps.iter().map(|s| steps::line(s, &bundle));
                answered.below.extend(ways.map(|way| format!("  {way}")));
            }
            Verdict::Undecided(limit) => {
                answered.verdict = Word::Undecided;
                answered.note = Some(limit.to_string());
            }
        }
        told.tell(answered)?;
    }
    if args.stats && count > 1 {
        eprintln!("{}: {count} assertions: {used}", file.display());
    }
    Ok(true)
}

/// Answers the checks of a program of KATch; false when it cannot be read.
fn checks(args: &Args, file: &Path, options: &Options, told: &mut Told) -> anyhow::Result<bool> {
    let text = Text::read(file)?;
    let since = Since::now();
    let imported = match nkpl::parse(&text.text, &mut text.loader()) {
        Ok(imported) => imported,
        Err(findings) => {
            text.show(&findings);
            return Ok(false);
        }
    };
    if args.stats {
        eprintln!("{}: read: {}", file.display(), since.used());
    }
    for check in &imported.checks {
        let since = Since::now();
        let answer = equivalent(&imported.program, check.left, check.right, options);
        let used = args.stats.then(|| since.used());
        let loops: Vec<String> = check
            .loops
            .iter()
            .map(|(name, value)| format!("{name} = {value}"))
            .collect();
        let loops = match loops.is_empty() {
            true => String::new(),
            false => format!("  [{}]", loops.join(", ")),
        };
        let mut answered = Answered {
            file: match &check.file {
                Some(imported) => {
                    let folder = file.parent().unwrap_or(Path::new(""));
                    folder.join(imported).display().to_string()
                }
                None => file.display().to_string(),
            },
            line: check.line,
            text: format!("{}{loops}", check.text),
            verdict: Word::Holds,
            note: None,
            packet: None,
            decisions: Vec::new(),
            way: None,
            used,
            below: Vec::new(),
        };
        match answer {
            Err(Limit::Cancelled) => return Err(interrupt::Interrupted.into()),
            Err(limit) => {
                answered.verdict = Word::Undecided;
                answered.note = Some(limit.to_string());
            }
            Ok(Answer::Holds) if !check.equal => {
                answered.verdict = Word::Fails;
                answered.note = Some("both sides are the same".to_owned());
            }
            Ok(Answer::Fails(way)) if check.equal => {
                answered.verdict = Word::Fails;
                answered.packet = Some(way.show(&way.input));
                answered.way = Some(Way {
                    side: way.side.to_string(),
                    hops: way.hops.iter().map(|hop| way.show(hop)).collect(),
                    output: way.show(&way.output),
                });
                answered.below = sides(&imported.program, check, &way);
            }
            Ok(_) => {}
        }
        told.tell(answered)?;
    }
    Ok(true)
}

/// What each side of a check makes of the packet that shows that they differ.
fn sides(program: &Program, check: &nkpl::Check, way: &Counterexample) -> Vec<String> {
    difference(program, [check.left, check.right], way)
}

/// What two programs make of the packet that shows that they differ.
pub(super) fn difference(
    program: &Program,
    nodes: [NodeId; 2],
    way: &Counterexample,
) -> Vec<String> {
    let reachable = program.reachable(&nodes);
    let records = reachable.iter().any(|id| *program.node(*id) == Node::Dup);
    let mut out = vec![format!("in   {}", way.show(&way.input))];
    for (side, node) in [Side::Left, Side::Right].into_iter().zip(nodes) {
        if side == way.side && records {
            out.push(format!("{side} only:"));
            out.extend(
                way.hops
                    .iter()
                    .map(|hop| format!("  dup  {}", way.show(hop))),
            );
            out.push(format!("  out  {}", way.show(&way.output)));
            continue;
        }
        if records {
            out.push(format!("{side}: has no such way"));
            continue;
        }
        out.push(format!("{side}:"));
        match evaluate(program, node, &way.input) {
            Ok(packets) if packets.is_empty() => out.push("  nothing comes out".to_owned()),
            Ok(packets) => {
                let shown = packets.iter().take(MAX_SHOWN);
                out.extend(shown.map(|packet| format!("  out  {}", way.show(packet))));
                if let Some(more) = packets.len().checked_sub(MAX_SHOWN).filter(|m| *m > 0) {
                    out.push(format!("  and {more} more"));
                }
            }
            // Only the verifier can tell; what it told is shown.
            Err(_) if side == way.side => out.push(format!("  out  {}", way.show(&way.output))),
            Err(_) => out.push("  does not let this out".to_owned()),
        }
    }
    out
}
