//! `sunwire policy`.
//!
//! ```text
//! check.rs            all findings of a text, by the controller or by the compiler in here
//! test.rs             the tests in a text
//! verify.rs           assertions of policies, checks of imported programs
//! equiv.rs, batch.rs  equivalence of two programs, and of a table of them
//! eval.rs             what a policy makes of one packet
//! eval_foreign.rs     … and programs of other tools
//! explain.rs          … and why
//! plan.rs             what a change from one file to another changes
//! texts.rs            … and in its text
//! compile.rs          its flow tables
//! fmt.rs              the even layout of texts
//! lsp/                the language server for editors
//! source.rs           policy files, with what they import
//! surroundings.rs     what names mean: from the controller, a topology, or the text itself
//! assumed.rs          what names must mean for a text to be whole
//! foreign.rs          programs in the syntaxes of other tools
//! packet.rs           packets as JSON
//! steps.rs            decisions about packets, in words
//! resources.rs        processor time and memory
//! interrupt.rs        Ctrl-C during long proofs
//! stored.rs           policies at the controller
//! apply.rs            … put in force, and waited for
//! staged.rs           … and their candidates
//! diff.rs             differences of texts
//! when.rs             times
//! ```

mod apply;
mod assumed;
mod batch;
mod check;
mod compile;
mod diff;
mod equiv;
mod eval;
mod eval_foreign;
mod explain;
mod fmt;
mod foreign;
mod interrupt;
mod lsp;
mod packet;
mod plan;
mod resources;
mod source;
mod staged;
mod steps;
mod stored;
mod surroundings;
mod test;
mod texts;
mod verify;
mod when;

use std::path::{Path, PathBuf};

use sunwire_api::Name;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::imports::Bundle;

pub(crate) use self::source::read_bundle;
use crate::exit::{Outcome, Usage};
use crate::output::Format;
use crate::rest::Connection;

/// Policies: check, test, prove, compare, explain, apply, stage, history, roll back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
check, test, verify, equiv, eval, explain, compile, and plan and diff of two files need no
controller: without --server and --lab, names mean what --topology says, or else whatever the texts
need them to mean, and each name that was assumed is listed.

Examples:
  sunwire policy check shop.nk
  sunwire policy check shop.nk --topology lab.toml
  sunwire policy apply shop.nk --wait
  sunwire policy eval shop.nk --topology lab.toml --packet \\
      '{\"ethTyp\":\"0x800\",\"ipProto\":6,\"ip4Src\":\"10.20.0.10\",\"ip4Dst\":\"10.20.0.20\",\"dstPort\":5432}'
  sunwire policy compile shop.nk --stats -o json
  sunwire policy history shop
  sunwire policy plan shop.nk
  sunwire policy rollback shop 17")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find every mistake in policies, and change nothing; exit code 1 when there is one.
    ///
    /// An assertion that does not hold and a test that fails are mistakes, each with its packet.
    #[command(after_help = "\
Examples:
  sunwire policy check shop.nk
  sunwire policy check shop.nk net/*.nk --topology lab.toml -o json")]
    Check {
        /// Policy files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        names: NamesFrom,
    },
    /// Run the tests that stand in policies; exit code 1 when one fails.
    #[command(after_help = "\
Examples:
  sunwire policy test shop.nk
  sunwire policy test shop.nk --filter ssh --topology lab.toml")]
    Test(test::Args),
    /// Prove the assertions of policies, or answer the checks of programs of KATch; exit code 1 when
    /// one fails, with a packet and its way.
    #[command(after_help = "\
Examples:
  sunwire policy verify shop.nk --topology lab.toml
  sunwire policy verify network_reachability.nkpl --stats")]
    Verify(verify::Args),
    /// Do two programs make the same of every packet? Exit code 0: yes; 1: no, with a packet; 2: no
    /// answer.
    ///
    /// Labels do not count; with dup and links, the ways of packets do.
    #[command(after_help = "\
Examples:
  sunwire policy equiv old.nk new.nk
  sunwire policy equiv left.kat right.kat
  sunwire policy equiv -e 'tcp; port := 1' 'port := 1; tcp'
  sunwire policy equiv -e --syntax nkpl '(@a←0)⋆' 'ε∪@a←0'
  sunwire policy equiv --batch equivalence.tsv")]
    Equiv(equiv::Args),
    /// Say which statement decides about a packet, and which conditions led to it; exit code 1 when
    /// it is dropped.
    #[command(after_help = "\
Examples:
  sunwire policy explain shop.nk --topology lab.toml --packet \\
      '{\"ethTyp\":\"0x800\",\"ipProto\":6,\"ip4Src\":\"10.20.0.10\",\"ip4Dst\":\"10.20.0.30\",\"dstPort\":22}'")]
    Explain(explain::Args),
    #[command(flatten)]
    Stored(stored::Command),
    /// Say what a program makes of one packet; exit code 1 when it is dropped.
    ///
    /// Prints the JSON array of the packets that come out, and on standard error which rule decided.
    /// Where nothing says who owns the destination, their endpoint is "owner". Fields: endpoint,
    /// node, ethSrc, ethDst, ethTyp, vlanId, vlanPcp, ipProto, dscp, ip4Src, ip4Dst, ip6Src, ip6Dst,
    /// srcPort, dstPort, icmpType, icmpCode, and their other names in the language; in programs of
    /// other tools, their own. Absent ones read as zero.
    #[command(after_help = "\
Examples:
  sunwire policy eval shop.nk --topology lab.toml --packet \\
      '{\"ethTyp\":\"0x800\",\"ipProto\":6,\"ip4Src\":\"10.20.0.10\",\"ip4Dst\":\"10.20.0.30\",\"dstPort\":5432}'
  sunwire policy eval firewall.kat --packet '{\"switch\":1,\"port\":2}'
  sunwire policy eval network.nkpl --definition net --packet '{\"sw\":1}'")]
    Eval(eval::Args),
    /// Compile a policy to flow tables, and print them.
    #[command(after_help = "\
Examples:
  sunwire policy compile shop.nk --topology lab.toml
  sunwire policy compile shop.nk --stats -o json")]
    Compile {
        /// Policy file.
        file: PathBuf,
        /// Print sizes and the time that it took, not the tables.
        #[arg(long)]
        stats: bool,
        #[command(flatten)]
        names: NamesFrom,
    },
    /// Lay policies out evenly, in place; only white space changes, comments stay.
    ///
    /// A file that does not parse stays as it is: exit code 2.
    #[command(after_help = "\
Examples:
  sunwire policy fmt shop.nk net/*.nk
  sunwire policy fmt --check shop.nk      # exit code 1 and a patch when it would change
  sunwire policy fmt - < shop.nk")]
    Fmt {
        /// Policy files; `-` formats standard input to standard output.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Change nothing, and show what would change; exit code 1 when anything would.
        #[arg(long)]
        check: bool,
    },
    /// Serve an editor by the Language Server Protocol, on standard input and output.
    ///
    /// Mistakes while typing, hover, completion, definitions, renaming and formatting. Names mean
    /// what they mean for check.
    #[command(after_help = "\
Examples:
  sunwire policy lsp
  sunwire policy lsp --topology lab.toml")]
    Lsp {
        #[command(flatten)]
        names: NamesFrom,
        /// For editors that say how they talk to it; there is no other way.
        #[arg(long, hide = true)]
        stdio: bool,
    },
}

/// Where names of networks, endpoints and nodes come from without a controller.
#[derive(Debug, clap::Args)]
struct NamesFrom {
    /// Take networks, endpoints and nodes from this lab topology.
    #[arg(long, value_name = "FILE")]
    topology: Option<PathBuf>,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    match command {
        Command::Check { files, names } => check::run(&connection, &names, &files, format),
        Command::Test(args) => test::run(&connection, &args, format),
        Command::Verify(args) => verify::run(&connection, &args, format),
        Command::Equiv(args) => equiv::run(&connection, &args, format),
        Command::Explain(args) => explain::run(&connection, &args, format),
        Command::Eval(args) => eval::run(&connection, &args),
        Command::Compile { file, stats, names } => {
            compile::run(&connection, &names, &file, stats, format)
        }
        Command::Fmt { files, check } => fmt::run(&files, check, format),
        Command::Lsp { names, .. } => lsp::run(connection, names),
        Command::Stored(stored::Command::Plan {
            file,
            new: Some(new),
            names,
            ..
        }) => plan::of_files(&connection, &names, [&file, &new], format),
        Command::Stored(stored::Command::Diff(stored::Differ {
            file: Some(old),
            new: Some(new),
            names,
            ..
        })) => texts::run(&connection, &names, [&old, &new], format),
        Command::Stored(stored) => connection.run(|client| stored::run(client, stored, format)),
    }
}

/// Reads policy files and what they import, each with the name that its file gives it.
pub(crate) fn named_texts(files: &[PathBuf]) -> anyhow::Result<Vec<(Name, String)>> {
    let named = named_bundles(files)?.into_iter();
    Ok(named
        .map(|(name, bundle)| (name, bundle.text().to_owned()))
        .collect())
}

fn named_bundles(files: &[PathBuf]) -> anyhow::Result<Vec<(Name, Bundle)>> {
    let named = |file: &PathBuf| Ok((name_of(file)?, read_bundle(file)?));
    files.iter().map(named).collect()
}

fn name_of(file: &Path) -> Result<Name, Usage> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().map_err(|error| {
        let file = file.display();
        Usage(format!("{file} gives the policy no name: {error}"))
    })
}

/// Shows what is wrong with a text.
fn refuse(findings: &[Diagnostic], bundle: &Bundle) -> Outcome {
    eprintln!("{}", bundle.render_all(findings).trim_end());
    Outcome::Failed
}
