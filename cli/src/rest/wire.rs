//! `sunwire wire`.

use std::time::Duration;

use sunwire_api::client::Guard;
use sunwire_api::{Name, Wire, WireCreate, WireState};

use super::{Connection, GuardArgs, WAIT_SECONDS_MAX};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Wires, point-to-point connectors between two endpoints: list, show, connect, wait, disconnect.
///
/// Everything that one end sends comes out of the other end unchanged, whatever it is, and nothing
/// else does. A wire follows both ends wherever they move, and needs no policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire network create cables --no-subnet
  sunwire endpoint create vm1-left --network cables --node aws1
  sunwire endpoint create vm2-right --network cables --node gcp1
  sunwire wire connect patch1 vm1-left vm2-right
  sunwire wire wait patch1 up
  sunwire wire disconnect patch1")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List wires.
    List {
        /// Those of this network alone.
        #[arg(long)]
        network: Option<Name>,
    },
    /// Show a wire: its ends, whether it is up, and what each end has sent.
    #[command(alias = "get")]
    Show {
        /// Name of the wire.
        name: Name,
    },
    /// Connect two endpoints of one network without subnet. Each is in one wire at most.
    Connect {
        /// Name of the wire.
        name: Name,
        /// One end: an endpoint.
        a: Name,
        /// The other end.
        b: Name,
    },
    /// Wait until a wire is up or down; exit code 1 when it is not in time.
    Wait {
        /// Name of the wire.
        name: Name,
        /// The state.
        state: State,
        /// How long to wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30,
            value_parser = clap::value_parser!(u64).range(..=WAIT_SECONDS_MAX))]
        timeout: u64,
    },
    /// Disconnect the ends of a wire. Nothing passes between them from then on.
    #[command(alias = "delete")]
    Disconnect {
        /// Name of the wire.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

/// States that can be waited for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    /// Both ends have their device.
    Up,
    /// An end has none.
    Down,
}

impl From<State> for WireState {
    fn from(state: State) -> Self {
        match state {
            State::Up => WireState::Up,
            State::Down => WireState::Down,
        }
    }
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    connection.run(|client| {
        let wire = match command {
            Command::List { network } => {
                let mut wires = client.wires()?;
                wires.retain(|wire| network.as_ref().is_none_or(|n| wire.status.network == *n));
                output::show(format, &wires[..], table)?;
                return Ok(Outcome::Done);
            }
            Command::Disconnect { name, guard } => {
                let deleted = client.disconnect_wire(&name, guard.guard())?;
                output::tell(format, &deleted, |_| format!("disconnected wire {name}"))?;
                return Ok(Outcome::Done);
            }
            Command::Wait {
                name,
                state,
                timeout,
            } => {
                let state = WireState::from(state);
                let wire = client.wait_wire(&name, state, Duration::from_secs(timeout))?;
                output::show(format, &wire, one)?;
                return Ok(if wire.status.state == state {
                    Outcome::Done
                } else {
                    Outcome::Negative
                });
            }
            Command::Show { name } => client.wire(&name)?,
            Command::Connect { name, a, b } => {
                client.connect_wire(&WireCreate { name, a, b }, Guard::None)?
            }
        };
        output::show(format, &wire, one)?;
        Ok(Outcome::Done)
    })
}

fn one(wire: &Wire) -> Table {
    table(std::slice::from_ref(wire))
}

fn table(wires: &[Wire]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "NETWORK",
        "A",
        "B",
        "STATE",
        "PACKETS A>B",
        "BYTES A>B",
        "PACKETS B>A",
        "BYTES B>A",
        "REVISION",
        "DETAIL",
    ]);
    for wire in wires {
        let status = &wire.status;
        table.row([
            wire.name.to_string(),
            status.network.to_string(),
            wire.spec.a.to_string(),
            wire.spec.b.to_string(),
            status.state.to_string(),
            status.from_a.packets.to_string(),
            status.from_a.bytes.to_string(),
            status.from_b.packets.to_string(),
            status.from_b.bytes.to_string(),
            wire.revision.to_string(),
            status.detail.clone(),
        ]);
    }
    table
}
