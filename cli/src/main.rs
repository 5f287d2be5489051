//! The one binary of Sunwire: everything a node runs, and everything a person types.
//!
//! ```text
//! main.rs --> logging.rs
//!         --> controller.rs          runs sunwire-controller
//!         --> agent.rs               runs sunwire-userspace's agent, talks to a running one
//!         --> rest/, policy/         ask the controller; policies also without one
//!         --> flows.rs, capture.rs   what becomes of packets
//!         --> trace.rs               what would become of one
//!         --> tunnels.rs             how tunnels are
//!         --> connections.rs         what an agent remembers of flows
//!         --> lab/                   labs, with controller and agents inside
//!         --> output.rs              answers as tables or JSON
//!         --> exit.rs                what the shell learns
//! ```
//! Nothing is decided here: commands are parsed, carried to where they belong, and answers shown.
#![forbid(unsafe_code)]

mod agent;
mod capture;
mod connections;
mod controller;
mod crypt;
mod exit;
mod flows;
mod lab;
mod logging;
mod output;
mod policy;
mod rest;
mod shutdown;
mod trace;
mod tunnels;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::exit::Outcome;
use crate::output::Format;

/// One private cloud over many public ones.
///
/// Nodes in any cloud join one virtual network; one program says what may pass; endpoints move
/// between clouds and keep their addresses.
#[derive(Debug, Parser)]
#[command(name = "sunwire", version, after_help = exit::HELP)]
struct Cli {
    /// How answers are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
    /// What is logged to standard error: a level (error, warn, info, debug, trace) or a filter
    /// like sunwire_userspace=debug,info. By default info for servers, warn for the rest.
    #[arg(long, global = true, env = "SUNWIRE_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Controller(controller::Args),
    Agent(agent::Args),
    #[command(hide = true)]
    Crypt(crypt::Args),
    Network(rest::network::Args),
    Node(rest::node::Args),
    Endpoint(rest::endpoint::Args),
    Wire(rest::wire::Args),
    Policy(policy::Args),
    Encryption(rest::encryption::Args),
    Status(rest::status::Args),
    Counters(rest::counters::Args),
    Tunnels(tunnels::Args),
    Flows(flows::Args),
    Trace(trace::Args),
    Capture(capture::Args),
    Connections(connections::Args),
    Lab(lab::Args),
}

impl Command {
    /// Servers tell what they do; commands answer what they are asked.
    fn is_server(&self) -> bool {
        match self {
            Command::Controller(_) | Command::Crypt(_) => true,
            Command::Agent(args) => args.is_server(),
            _ => false,
        }
    }

    fn run(self, format: Format) -> anyhow::Result<Outcome> {
        match self {
            Command::Controller(args) => controller::run(args),
            Command::Agent(args) => agent::run(args, format),
            Command::Crypt(args) => crypt::run(args),
            Command::Network(args) => rest::network::run(args, format),
            Command::Node(args) => rest::node::run(args, format),
            Command::Endpoint(args) => rest::endpoint::run(args, format),
            Command::Wire(args) => rest::wire::run(args, format),
            Command::Policy(args) => policy::run(args, format),
            Command::Encryption(args) => rest::encryption::run(args, format),
            Command::Status(args) => rest::status::run(args, format),
            Command::Counters(args) => rest::counters::run(args, format),
            Command::Tunnels(args) => tunnels::run(args, format),
            Command::Flows(args) => flows::run(args, format),
            Command::Trace(args) => trace::run(args, format),
            Command::Capture(args) => capture::run(args, format),
            Command::Connections(args) => connections::run(args, format),
            Command::Lab(args) => lab::run(args, format),
        }
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let outcome = logging::start(cli.log.as_deref(), cli.command.is_server())
        .and_then(|()| cli.command.run(cli.output));
    exit::code(outcome, cli.output)
}
