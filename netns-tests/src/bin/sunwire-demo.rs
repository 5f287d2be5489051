//! Runs a demo: `sunwire-demo [NAME]`. Exit code 0 when every claim held, 1 when one did not, 2
//! when the demo could not run, 3 for wrong usage.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sunwire_netns_tests::demo::first_light;

/// Stories of what Sunwire does, measured.
#[derive(Parser)]
#[command(name = "sunwire-demo")]
struct Arguments {
    /// Which demo.
    #[arg(default_value = "first-light")]
    name: Demo,
}

#[derive(Clone, Copy, ValueEnum)]
enum Demo {
    /// One virtual network over three clouds.
    FirstLight,
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 3 } else { 0 });
        }
    };
    if !nix::unistd::geteuid().is_root() {
        eprintln!("the demo needs root: it makes network namespaces and loads kernel programs");
        return ExitCode::from(2);
    }
    let outcome = match arguments.name {
        Demo::FirstLight => first_light::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo could not run: {error:#}");
            ExitCode::from(2)
        }
    }
}
