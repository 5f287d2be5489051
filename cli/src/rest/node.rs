//! `sunwire node`.

use std::net::IpAddr;

use sunwire_api::client::Guard;
use sunwire_api::{Name, Node, NodeCreate, NodeKind, NodeLocation, TunnelStatus};

use super::{Connection, GuardArgs};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Nodes: list, get, tunnels, declare, delete. A node comes into being when its agent first connects.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire node list
  sunwire node get aws1 -o json
  sunwire node tunnels aws1         # encrypted or not, since when, and what is wrong
  sunwire node declare rack7 --location onprem:dc1 --address 198.18.0.21    # a plain VXLAN peer
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
    /// Declare a node that runs no agent: a plain VXLAN peer, such as another system's host.
    ///
    /// Endpoints can then be created there, without a device. What they send is decided about by the
    /// policy of their network at the node where it arrives. The peer has to send to that node what
    /// is for its endpoints: nothing of it is configured from here.
    Declare {
        /// Name of the node.
        name: Name,
        /// Where it is, like aws:us-east-1.
        #[arg(long)]
        location: NodeLocation,
        /// Its address on the underlay, of IPv4 or IPv6.
        #[arg(long)]
        address: IpAddr,
        /// Never encrypt packets to and from it, whatever the cloud's setting says. Without it, what
        /// the setting wants encrypted is not sent.
        #[arg(long)]
        plaintext: bool,
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
            Command::Declare {
                name,
                location,
                address,
                plaintext,
            } => {
                let body = NodeCreate {
                    name,
                    kind: NodeKind::Vxlan,
                    location,
                    underlay_address: address,
                    plaintext,
                };
                let node = client.create_node(&body, Guard::None)?;
                output::show(format, &node, |node| table(std::slice::from_ref(node)))?;
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
        let addresses = node.spec.underlay_addresses.iter();
        let addresses: Vec<String> = addresses.map(ToString::to_string).collect();
        table.row([
            node.name.to_string(),
            status.number.to_string(),
            node.spec.location.to_string(),
            addresses.join(","),
            match node.spec.kind {
                NodeKind::Agent => output::yes_no(status.connected),
                NodeKind::Vxlan => "no agent".to_owned(),
            },
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
