//! `sunwire lab`.
//!
//! ```text
//! up.rs       brings a topology up, with controller and agents, and stays until Ctrl-C
//! cloud.rs    controller and agents as processes inside a lab
//! register.rs networks, endpoints and a policy at that controller
//! moving.rs   moves an endpoint, with its device and its connections
//! others.rs   labs of other processes: list, status, exec, ping, link, down, sweep
//! ```

mod cloud;
mod moving;
mod others;
mod register;
mod up;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sunwire_api::{EncryptionMode, Name};
use sunwire_lab::{LinkChange, Topology};

use crate::exit::Outcome;
use crate::output::Format;
use crate::rest::encryption::Mode;

/// Many clouds on this machine: up, list, status, exec, ping, link, move, down, sweep. Needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire lab up shop.toml --policy shop.nk       # Ctrl-C takes it down
  sunwire lab ping shop client1 10.20.0.12
  sunwire lab exec shop client1 -- ip address
  sunwire --output json lab status shop
  sunwire lab link shop aws gcp --delay-ms 80 --loss 0.01
  sunwire lab move shop web1 gcp
  sunwire endpoint list --lab shop
  sunwire lab down shop")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring a topology up, and take it down at Ctrl-C.
    ///
    /// When the topology has a [controller], a controller runs there and an agent on every other
    /// node; networks and endpoints are made of its workloads, with the subnets that their
    /// addresses are in. Without a policy everything between workloads is dropped.
    Up {
        /// Topology file.
        file: PathBuf,
        /// Id of the lab, in place of the file's.
        #[arg(long)]
        id: Option<String>,
        /// A policy to put in force, under the file's name without the ending; may be repeated.
        #[arg(long = "policy", value_name = "FILE")]
        policies: Vec<PathBuf>,
        /// Namespaces and links alone: no controller, no agents.
        #[arg(long, conflicts_with_all = ["policies", "encryption"])]
        bare: bool,
        /// Which tunnels between nodes are encrypted [default: between-clouds]
        #[arg(long, value_enum, value_name = "MODE")]
        encryption: Option<Mode>,
    },
    /// List the labs that are up.
    List,
    /// Show a lab's nodes, workloads and links.
    Status {
        /// Id of the lab.
        id: String,
    },
    /// Run a command on a node or in a workload.
    Exec {
        /// Id of the lab.
        id: String,
        /// A node or workload.
        node: String,
        /// The command, after --.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Ping an address from a node or a workload.
    Ping {
        /// Id of the lab.
        id: String,
        /// A node or workload.
        from: String,
        /// The address.
        to: IpAddr,
        /// Requests to send, one after the other.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        count: u32,
    },
    /// Change the link between two nodes of a running lab, in both directions.
    Link {
        /// Id of the lab.
        id: String,
        /// A node.
        from: String,
        /// Another node.
        to: String,
        /// In this direction alone.
        #[arg(long)]
        one_way: bool,
        #[command(flatten)]
        change: Change,
    },
    /// Move an endpoint to another node, with its device and its connections.
    ///
    /// Begins the move at the controller, hands the connections from agent to agent, has the device
    /// released and moved, and waits until every node sends to the new place; then it says how
    /// long packets had to wait. Ctrl-C gives the move up as long as the device has not been
    /// released, and is ignored for the moment that the rest takes. Should this be killed half-way,
    /// the same command takes the move up again.
    Move {
        /// Id of the lab.
        id: String,
        /// The endpoint, by the name of its workload.
        endpoint: Name,
        /// The node to move to.
        node: Name,
    },
    /// Take a lab down.
    Down {
        /// Id of the lab.
        id: String,
        /// How long its owner may take, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        timeout: u64,
    },
    /// Remove what labs left whose owners were killed.
    Sweep,
}

/// What changes of a link; what is not named stays.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Change {
    /// One-way delay.
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    delay_ms: Option<f64>,
    /// Extra delay for each frame, uniform between 0 and this.
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    jitter_ms: Option<f64>,
    /// Probability that a frame is lost: 1 % is 0.01.
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    loss: Option<f64>,
    /// Rate in 10^6 bit/s; 0 is unlimited.
    #[arg(long, value_name = "MBIT/S", allow_negative_numbers = true)]
    rate_mbps: Option<f64>,
    /// Frames that may wait for the rate.
    #[arg(long, value_name = "FRAMES", conflicts_with = "queue_bytes")]
    queue_packets: Option<u32>,
    /// Bytes of frames that may wait for the rate.
    #[arg(long, value_name = "BYTES")]
    queue_bytes: Option<u64>,
    /// Whether the link is up.
    #[arg(long, value_name = "true|false")]
    up: Option<bool>,
}

impl From<Change> for LinkChange {
    fn from(change: Change) -> Self {
        LinkChange {
            delay_ms: change.delay_ms,
            jitter_ms: change.jitter_ms,
            loss: change.loss,
            rate_mbps: change.rate_mbps,
            queue_packets: change.queue_packets,
            queue_bytes: change.queue_bytes,
            up: change.up,
        }
    }
}

/// Reads a topology file; errors name it.
pub(crate) fn topology(file: &Path) -> anyhow::Result<Topology> {
    Topology::from_file(file).with_context(|| format!("{} is no topology", file.display()))
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    match args.command {
        Command::Up {
            file,
            id,
            policies,
            bare,
            encryption,
        } => {
            let encryption = encryption.map(EncryptionMode::from);
            up::run(&file, id.as_deref(), &policies, bare, encryption, format)
        }
        Command::List => others::list(format),
        Command::Status { id } => others::status(&id, format),
        Command::Exec { id, node, command } => others::exec(&id, &node, &command),
        Command::Ping {
            id,
            from,
            to,
            count,
        } => others::ping(&id, &from, to, count, format),
        Command::Link {
            id,
            from,
            to,
            one_way,
            change,
        } => others::link(&id, &from, &to, one_way, change.into(), format),
        Command::Move { id, endpoint, node } => moving::run(&id, &endpoint, &node, format),
        Command::Down { id, timeout } => others::down(&id, timeout, format),
        Command::Sweep => others::sweep(format),
    }
}
