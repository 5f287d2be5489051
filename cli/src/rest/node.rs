//! `sunwire node`.

use sunwire_api::{Name, Node, TunnelStatus};

use super::{Connection, GuardArgs};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Nodes: list, get, tunnels, delete. A node comes into being when its agent first connects.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire node list
  sunwire node get aws1 -o json
  sunwire node tunnels aws1         # encrypted or not, since when, and what is wrong
  sunwire node delete aws1          # once its agent has stopped and no endpoint is there")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List nodes.
    List,
    /// Show a node.
    Get {
        /// Name of the node.
        name: Name,
    },
    /// Show how packets travel from a node to the others.
    Tunnels {
        /// Name of the node.
        name: Name,
    },
    /// Forget a node whose agent has stopped and that has no endpoint.
    Delete {
        /// Name of the node.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    connection.run(|client| {
        match command {
            Command::List => output::show(format, &client.nodes()?[..], table)?,
            Command::Get { name } => output::show(format, &client.node(&name)?, |node| {
                table(std::slice::from_ref(node))
            })?,
            Command::Tunnels { name } => {
                let node = client.node(&name)?;
                output::show(format, &node.status.tunnels[..], tunnels)?;
            }
            Command::Delete { name, guard } => {
                let deleted = client.delete_node(&name, guard.guard())?;
                output::tell(format, &deleted, |_| format!("deleted node {name}"))?;
            }
        }
        Ok(Outcome::Done)
    })
}

fn tunnels(tunnels: &[TunnelStatus]) -> Table {
    let mut table = Table::new(&[
        "TO",
        "STATE",
        "HANDSHAKE",
        "HANDSHAKES",
        "SENT",
        "RECEIVED",
        "ERRORS",
        "UNSENT",
        "DETAIL",
    ]);
    for tunnel in tunnels {
        let age = tunnel.handshake_age_s.map(|age| format!("{age:.0} s ago"));
        table.row([
            tunnel.node.to_string(),
            tunnel.state.to_string(),
            output::option(&age),
            tunnel.handshakes.to_string(),
            tunnel.sent.packets.to_string(),
            tunnel.received.packets.to_string(),
            tunnel.decrypt_errors.to_string(),
            tunnel.unsent_packets.to_string(),
            output::option(&tunnel.detail),
        ]);
    }
    table
}

fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "NUMBER",
        "LOCATION",
        "UNDERLAY",
        "CONNECTED",
        "APPLIED",
        "AGENT",
        "DROPPED",
        "ERROR",
    ]);
    for node in nodes {
        let status = &node.status;
        table.row([
            node.name.to_string(),
            status.number.to_string(),
            node.spec.location.to_string(),
            node.spec.underlay_address.to_string(),
            output::yes_no(status.connected),
            status.acknowledged_revision.to_string(),
            output::option(&status.agent_version),
            status.dropped.packets.to_string(),
            status
                .error
                .as_ref()
                .map(|error| error.detail.clone())
                .unwrap_or_default(),
        ]);
    }
    table
}
