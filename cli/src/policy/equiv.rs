//! `sunwire policy equiv`: do two programs make the same of every packet?

use std::path::{Path, PathBuf};

use serde::Serialize;
use sunwire_policy::import::{kat, nkpl};
use sunwire_policy::imports::{Bundle, bundle};
use sunwire_policy::prove::{self, Difference};
use sunwire_policy::resolve_text;
use sunwire_policy::show::show_packet;
use sunwire_policy::verify::decide::{Answer, equivalent};
use sunwire_policy::verify::options::Options;
use sunwire_policy::verify::program::{NodeId, Program};

use super::foreign::{Syntax, Text};
use super::steps::{self, Decided};
use super::surroundings::Surroundings;
use super::verify::difference;
use super::{NamesFrom, assumed, batch, interrupt, read_bundle, refuse, source};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};
use crate::rest::Connection;

/// What is compared.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The first program: a file, or with -e its text.
    #[arg(value_name = "A", required_unless_present = "batch")]
    left: Option<PathBuf>,
    /// The second.
    #[arg(value_name = "B", required_unless_present = "batch")]
    right: Option<PathBuf>,
    /// A and B are programs themselves, not files; in the policy language unless --syntax says
    /// otherwise.
    #[arg(short, long)]
    expressions: bool,
    /// How both are written; by default as their files' names end: .nk, .kat, .nkpl.
    #[arg(long, value_enum)]
    syntax: Option<Syntax>,
    /// Ask all questions of a table: lines of id, verdict (equiv or differ), and both sides in
    /// KATch's and in Frenetic's syntax, separated by tabs; lines that begin with # are left out.
    #[arg(long, value_name = "TSV", conflicts_with_all = ["left", "right", "expressions", "syntax"])]
    batch: Option<PathBuf>,
    #[command(flatten)]
    names: NamesFrom,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Compared {
    equivalent: bool,
    /// Whether networks carry the packet that shows the difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    carried: Option<bool>,
    /// A packet that they treat differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    packet: Option<String>,
    /// What each makes of it, of policies.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Decided>,
    #[serde(skip_serializing_if = "Option::is_none")]
    right: Option<Decided>,
    /// A history that only one side has.
    #[serde(skip_serializing_if = "Option::is_none")]
    way: Option<Way>,
    /// For people.
    #[serde(skip)]
    shown: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Way {
    side: String,
    hops: Vec<String>,
    output: String,
}

pub(super) fn run(connection: &Connection, args: &Args, format: Format) -> anyhow::Result<Outcome> {
    let options = interrupt::options()?;
    if let Some(table) = &args.batch {
        return batch::run(table, &options, format);
    }
    let (Some(left), Some(right)) = (&args.left, &args.right) else {
        return Err(Usage("name two programs".to_owned()).into());
    };
    let files = [left, right];
    let syntax = match (args.expressions, args.syntax) {
        (true, syntax) => syntax.unwrap_or(Syntax::Nk),
        (false, given) => {
            let (left, right) = (Syntax::of(left, given)?, Syntax::of(right, given)?);
            if left != right {
                let words = "both programs must be written in one syntax: see --syntax";
                return Err(Usage(words.to_owned()).into());
            }
            left
        }
    };
    let compared = match syntax {
        Syntax::Nk => policies(connection, args, files, &options)?,
        Syntax::Kat | Syntax::Nkpl => programs(args, syntax, files, &options)?,
    };
    let Some(compared) = compared else {
        return Ok(Outcome::Failed);
    };
    match format {
        Format::Json => output::json(&compared)?,
        Format::Table if compared.equivalent => output::text("equivalent\n")?,
        Format::Table => {
            let lines = compared.shown.iter().map(|line| format!("  {line}\n"));
            output::text(&format!("different\n{}", lines.collect::<String>()))?;
        }
    }
    Ok(if compared.equivalent {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

/// Compares two policies; nothing when one of them is wrong, which was shown.
fn policies(
    connection: &Connection,
    args: &Args,
    files: [&PathBuf; 2],
    options: &Options,
) -> anyhow::Result<Option<Compared>> {
    let [left, right] = if args.expressions {
        ["A", "B"].map(str::to_owned).map(Some)
    } else {
        [None, None]
    };
    let (left, right) = (read(files[0], left)?, read(files[1], right)?);
    let texts = [left.text(), right.text()];
    same_network(texts)?;
    let surroundings = Surroundings::find(connection, &args.names, &texts)?;
    surroundings.tell_assumed();
    let resolved = |bundle: &Bundle| {
        resolve_text(bundle.text(), &surroundings.environment)
            .map_err(|findings| refuse(&findings, bundle))
            .ok()
            .map(|(policy, _)| policy)
    };
    let (Some(a), Some(b)) = (resolved(&left), resolved(&right)) else {
        return Ok(None);
    };
    let found = prove::difference(&a, &b, &surroundings.environment, options);
    let found = found.map_err(interrupt::or_limit)?;
    Ok(Some(match found {
        None => same(),
        Some(difference) => of_policies(&difference, &left, &right),
    }))
}

/// Policies are compared within one network; a text that names none is for that of the other.
pub(super) fn same_network(texts: [&str; 2]) -> Result<(), Usage> {
    match texts.map(assumed::network_named_by) {
        [Some(left), Some(right)] if left != right => Err(Usage(format!(
            "one policy is for network {left}, the other for network {right}: no packet is in both"
        ))),
        _ => Ok(()),
    }
}

fn read(file: &Path, name: Option<String>) -> anyhow::Result<Bundle> {
    let Some(name) = name else {
        return read_bundle(file);
    };
    let text = file.to_string_lossy();
    let mut loader = |path: &str| source::import(path.as_ref());
    bundle(&name, &text, &mut loader)
        .map_err(|(bundle, problems)| anyhow::anyhow!(bundle.render(&problems[0])))
}

fn same() -> Compared {
    Compared {
        equivalent: true,
        carried: None,
        packet: None,
        left: None,
        right: None,
        way: None,
        shown: Vec::new(),
    }
}

fn of_policies(difference: &Difference, left: &Bundle, right: &Bundle) -> Compared {
    let mut shown = vec![show_packet(&difference.packet)];
    if !difference.is_carried {
        shown.push("(they differ only in packets that no network carries)".to_owned());
    }
    shown.push(format!("left:  {}", steps::line(&difference.left, left)));
    shown.push(format!("right: {}", steps::line(&difference.right, right)));
    let way = difference.way.as_ref().map(|way| Way {
        side: way.side.to_string(),
        hops: way.hops.iter().map(show_packet).collect(),
        output: show_packet(&way.output),
    });
    if let (Some(way), Some(found)) = (&way, &difference.way) {
        shown.push(format!("only {} has the way", way.side));
        let hops = found.hops.iter().map(|hop| ("dup", hop));
        for (word, packet) in hops.chain([("out", &found.output)]) {
            let place = format!("node {} port {}", packet.node, packet.port);
            shown.push(format!("  {word}  {}, at {place}", show_packet(packet)));
        }
    }
    Compared {
        equivalent: false,
        carried: Some(difference.is_carried),
        packet: Some(show_packet(&difference.packet)),
        left: Some(Decided::new(&difference.left, left)),
        right: Some(Decided::new(&difference.right, right)),
        way,
        shown,
    }
}

/// Compares two programs of other tools; nothing when one of them is wrong, which was shown.
fn programs(
    args: &Args,
    syntax: Syntax,
    files: [&PathBuf; 2],
    options: &Options,
) -> anyhow::Result<Option<Compared>> {
    let mut program = Program::new();
    let mut sides = Vec::new();
    for (file, name) in files.into_iter().zip(["A", "B"]) {
        let text = if args.expressions {
            Text {
                file: name.into(),
                text: file.to_string_lossy().into_owned(),
            }
        } else {
            Text::read(file)?
        };
        let read = match syntax {
            Syntax::Nkpl => nkpl::parse_into(&mut program, &text.text, &mut text.loader()),
            Syntax::Kat | Syntax::Nk => kat::parse_into(&mut program, &text.text),
        };
        match read {
            Ok(node) => sides.push(node),
            Err(findings) => text.show(&findings),
        }
    }
    let Ok(sides) = <[NodeId; 2]>::try_from(sides) else {
        return Ok(None);
    };
    let sides = kat::close(&mut program, sides);
    let answer = equivalent(&program, sides[0], sides[1], options);
    Ok(Some(match answer.map_err(interrupt::or_limit)? {
        Answer::Holds => same(),
        Answer::Fails(found) => Compared {
            equivalent: false,
            carried: None,
            packet: Some(found.show(&found.input)),
            left: None,
            right: None,
            way: Some(Way {
                side: found.side.to_string(),
                hops: found.hops.iter().map(|hop| found.show(hop)).collect(),
                output: found.show(&found.output),
            }),
            shown: difference(&program, sides, &found),
        },
    }))
}
