//! Runs a soak: `sunwire-soak --minutes 10 --seed N`. Exit code 0 when everything held, 1 when not, 2
//! when it could not run, 3 for wrong usage.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use sunwire_lab::{Shutdown, unix_ns};
use sunwire_netns_tests::soak::{self, Options};

/// Traffic under endpoint moves, policy flips, restarts and link faults: nothing may be lost that need
/// not be.
#[derive(Parser)]
#[command(name = "sunwire-soak", bin_name = "cargo xtask soak")]
struct Arguments {
    /// How long events are made.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// What happens; a random one when absent. The report says which, and the same gives the same
    /// events.
    #[arg(long)]
    seed: Option<u64>,
    /// Which tunnels are encrypted.
    #[arg(long, value_enum, default_value_t = Encryption::Off)]
    encryption: Encryption,
    /// Where the report is written as JSON; by default target/soak/SEED.json.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Encryption {
    /// None.
    Off,
    /// Those between clouds.
    Clouds,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if (0.0..=100_000.0).contains(&minutes) => Ok(minutes),
        _ => Err("write a number of minutes, like 10 or 0.5".to_owned()),
    }
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 3 } else { 0 });
        }
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the soak could not run: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "it needs root: it makes network namespaces and loads kernel programs"
    );
    let seed = arguments.seed.unwrap_or_else(|| unix_ns() % 1_000_000);
    eprintln!("seed {seed}");
    let shutdown = Shutdown::on_signals()?;
    let options = Options {
        seed,
        duration: Duration::from_secs_f64(arguments.minutes * 60.0),
        is_encrypted: arguments.encryption == Encryption::Clouds,
        is_told: true,
    };
    let report = soak::run(options, Some(&shutdown))?;
    print!("{}", report.text());
    let path = arguments.report.clone();
    let path = path.unwrap_or_else(|| PathBuf::from(format!("target/soak/{seed}.json")));
    report.write(&path)?;
    println!("report in {}", path.display());
    Ok(report.held)
}
