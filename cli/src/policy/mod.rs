//! `sunwire policy`.
//!
//! ```text
//! check.rs            all findings of a text, by the controller or by the compiler in here
//! eval.rs             what a policy makes of one packet
//! compile.rs          its flow tables
//! source.rs           policy files, with what they import
//! surroundings.rs     what names mean: from the controller, a topology, or the text itself
//! assumed.rs          what names must mean for a text to be whole
//! packet.rs           packets as JSON
//! interrupt.rs        Ctrl-C during long proofs
//! stored.rs           policies at the controller
//! ```

mod assumed;
mod check;
mod compile;
mod eval;
mod interrupt;
mod packet;
mod source;
mod stored;
mod surroundings;

use std::path::{Path, PathBuf};

use sunwire_api::Name;
use sunwire_policy::diagnostic::Diagnostic;
use sunwire_policy::imports::Bundle;

pub(crate) use self::source::read_bundle;
use crate::exit::{Outcome, Usage};
use crate::output::Format;
use crate::rest::{Connection, GuardArgs, WAIT_SECONDS_MAX};

/// Policies: check, apply, show, history, roll back, evaluate, compile.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
check, eval and compile need no controller: without --server and --lab, names mean what --topology
says, or else whatever the text needs them to mean, and each name that was assumed is listed.

Examples:
  sunwire policy check shop.nk
  sunwire policy check shop.nk --topology lab.toml
  sunwire policy apply shop.nk --wait
  sunwire policy eval shop.nk --topology lab.toml --packet \\
      '{\"ethTyp\":\"0x800\",\"ipProto\":6,\"ip4Src\":\"10.20.0.10\",\"ip4Dst\":\"10.20.0.20\",\"dstPort\":5432}'
  sunwire policy compile shop.nk --stats -o json
  sunwire policy history shop
  sunwire policy rollback shop --to 17")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Find every mistake in policies, and change nothing; exit code 1 when there is one.
    Check {
        /// Policy files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[command(flatten)]
        names: NamesFrom,
    },
    /// Put policies in force, each under its file's name without the ending.
    Apply {
        /// Policy files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Another name; for one file.
        #[arg(long)]
        name: Option<Name>,
        /// Return once every connected node has applied it; exit code 1 when one has not in time.
        #[arg(long)]
        wait: bool,
        /// How long to wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait",
            value_parser = clap::value_parser!(u64).range(..=WAIT_SECONDS_MAX))]
        timeout: u64,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// List policies.
    List,
    /// Show what became of a policy.
    Get {
        /// Name of the policy.
        name: Name,
    },
    /// Print the text in force, byte for byte.
    Show {
        /// Name of the policy.
        name: Name,
    },
    /// List the texts that a policy had, oldest first; the last is in force.
    History {
        /// Name of the policy.
        name: Name,
    },
    /// Bring back an earlier text, resolved anew.
    Rollback {
        /// Name of the policy.
        name: Name,
        /// The revision to go back to; the one before the present one when absent.
        #[arg(long, value_name = "REVISION")]
        to: Option<u64>,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Delete policies: everything in their networks is dropped from then on.
    Delete {
        /// Names of the policies.
        #[arg(required = true)]
        names: Vec<Name>,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Say what a policy makes of one packet; exit code 1 when it is dropped.
    ///
    /// Prints the JSON array of the packets that come out, and on standard error which rule decided.
    /// Where nothing says who owns the destination, their endpoint is "owner". Fields: endpoint, node, ethSrc, ethDst,
    /// ethTyp, vlanId, vlanPcp, ipProto, dscp, ip4Src, ip4Dst, ip6Src, ip6Dst, srcPort, dstPort,
    /// icmpType, icmpCode, and their other names in the language. Absent ones read as zero.
    Eval {
        /// Policy file.
        file: PathBuf,
        /// The packet: a JSON object by field name.
        #[arg(long, value_name = "JSON")]
        packet: String,
        #[command(flatten)]
        names: NamesFrom,
    },
    /// Compile a policy to flow tables, and print them.
    Compile {
        /// Policy file.
        file: PathBuf,
        /// Print sizes and the time that it took, not the tables.
        #[arg(long)]
        stats: bool,
        #[command(flatten)]
        names: NamesFrom,
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
        Command::Eval {
            file,
            packet,
            names,
        } => eval::run(&connection, &names, &file, &packet),
        Command::Compile { file, stats, names } => {
            compile::run(&connection, &names, &file, stats, format)
        }
        stored => connection.run(|client| stored::run(client, stored, format)),
    }
}

/// Reads policy files and what they import, each with the name that its file gives it.
pub(crate) fn named_texts(files: &[PathBuf]) -> anyhow::Result<Vec<(Name, String)>> {
    let named = |file: &PathBuf| Ok((name_of(file)?, read_bundle(file)?.text().to_owned()));
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
