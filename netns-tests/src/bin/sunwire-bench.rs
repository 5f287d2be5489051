//! `sunwire-bench`: Sunwire beside its peers, measured alternately in one run.
//!
//! Results go to standard output, progress to standard error. Ctrl-C ends it at once; nothing is
//! left behind.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sunwire_netns_tests::bench::dataplane::{self, Options};

/// Measures Sunwire beside its peers.
#[derive(Parser)]
#[command(name = "sunwire-bench", version)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Throughput, packet rate and transactions over Sunwire, a bridge with kernel VXLAN, and veth
    Dataplane(DataplaneOptions),
}

#[derive(clap::Args)]
struct DataplaneOptions {
    /// Print one JSON object a line instead of the table, which goes to standard error
    #[arg(long)]
    json: bool,
    /// Fewer and shorter samples of the same workload
    #[arg(long)]
    quick: bool,
    /// Samples of every figure
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only this case, for example wire-like-1500
    #[arg(long)]
    case: Option<String>,
    /// Only this metric, for example tcp1_gbps
    #[arg(long)]
    metric: Option<String>,
    /// Folder for the raw measurements
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Bench::Dataplane(arguments) = Cli::parse().bench;
    let options = Options {
        quick: arguments.quick,
        rounds: arguments.rounds,
        case: arguments.case,
        metric: arguments.metric,
        data: arguments.data,
    };
    match dataplane::run(&options) {
        Ok(report) if arguments.json => {
            print!("{}", report.json_lines());
            eprint!("{}", report.table());
        }
        Ok(report) => print!("{}", report.table()),
        Err(error) => {
            eprintln!("error: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
