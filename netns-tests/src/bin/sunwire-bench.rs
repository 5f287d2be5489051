//! `sunwire-bench`: Sunwire beside its peers, measured alternately in one run, or beside figures of
//! others.
//!
//! Results go to standard output, progress to standard error. Ctrl-C ends it at once; nothing is
//! left behind.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use sunwire_netns_tests::bench::{dataplane, policy, scale};

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
    /// What packets cost Sunwire with more endpoints, nodes, rules and flows
    DataplaneScale(ScaleOptions),
    /// What policies cost: to prove, to compile, to change, and in the kernel
    Policy(PolicyOptions),
    /// Run a program, and say what it used on the first line
    #[command(hide = true)]
    Measure {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
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
    /// Only these metrics, for example tcp1_gbps,udp_rr_per_s
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    metric: Vec<String>,
    /// Only these systems, for example sunwire,kernel-vxlan
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    system: Vec<String>,
    /// Instead of figures, say where the time of one goes (--case and --metric), with perf
    #[arg(long)]
    profile: bool,
    /// Folder for the raw measurements
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(clap::Args)]
struct ScaleOptions {
    /// Print one JSON object a line instead of the table, which goes to standard error
    #[arg(long)]
    json: bool,
    /// Fewer samples of the same workload
    #[arg(long)]
    quick: bool,
    /// Samples of every figure
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only this part: endpoints, nodes, rules, flows or syn-load
    #[arg(long)]
    part: Option<String>,
}

#[derive(clap::Args)]
struct PolicyOptions {
    /// Print one JSON object a line instead of the table, which goes to standard error
    #[arg(long)]
    json: bool,
    /// Fewer samples of the same workload
    #[arg(long)]
    quick: bool,
    /// Samples of every figure
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only this part: proofs, generated, fat-tree, changes, validation, moves or walk
    #[arg(long)]
    part: Option<String>,
    /// Folder with the networks (netkat/checks) and equivalences (netkat/equivalence.tsv) to ask about
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// What is shown of a run.
struct Results {
    json_lines: String,
    table: String,
    /// Whether the table is not what standard output is for.
    as_json: bool,
}

impl Results {
    fn print(&self) {
        if self.as_json {
            print!("{}", self.json_lines);
            eprint!("{}", self.table);
        } else {
            print!("{}", self.table);
        }
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().bench {
        Bench::Dataplane(arguments) => measure_dataplane(arguments).map(|results| results.print()),
        Bench::DataplaneScale(arguments) => measure_scale(arguments).map(|results| results.print()),
        Bench::Policy(arguments) => measure_policy(arguments).map(|results| results.print()),
        Bench::Measure { command } => policy::measure::tell(&command),
    };
    if let Err(error) = done {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn measure_dataplane(arguments: DataplaneOptions) -> Result<Results> {
    let options = dataplane::Options {
        quick: arguments.quick,
        rounds: arguments.rounds,
        case: arguments.case,
        metrics: arguments.metric,
        systems: arguments.system,
        data: arguments.data,
    };
    if arguments.profile {
        return Ok(Results {
            json_lines: String::new(),
            table: dataplane::profile(&options)?,
            as_json: false,
        });
    }
    let report = dataplane::run(&options)?;
    Ok(Results {
        json_lines: report.json_lines(),
        table: report.table(),
        as_json: arguments.json,
    })
}

fn measure_scale(arguments: ScaleOptions) -> Result<Results> {
    let report = scale::run(&scale::Options {
        quick: arguments.quick,
        rounds: arguments.rounds,
        part: arguments.part,
    })?;
    Ok(Results {
        json_lines: report.json_lines(),
        table: report.table(),
        as_json: arguments.json,
    })
}

fn measure_policy(arguments: PolicyOptions) -> Result<Results> {
    let report = policy::run(&policy::Options {
        quick: arguments.quick,
        rounds: arguments.rounds,
        part: arguments.part,
        data: arguments.data,
    })?;
    Ok(Results {
        json_lines: report.json_lines(),
        table: report.table(),
        as_json: arguments.json,
    })
}
