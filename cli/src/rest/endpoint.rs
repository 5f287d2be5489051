//! `sunwire endpoint`.

use std::net::IpAddr;
use std::time::Duration;

use sunwire_api::client::{Client, Guard};
use sunwire_api::{
    DeviceName, Endpoint, EndpointCreate, EndpointPatch, EndpointState, MacAddress, Name,
};

use super::{Connection, ForceArgs, GuardArgs, WAIT_SECONDS_MAX};
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format, Table};

/// Endpoints, the virtual NICs: list, get, create, label, move, wait, delete.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire endpoint create web1 --network shop --node aws1 --address 10.20.0.10 --label tier=web
  sunwire endpoint label web1 tier=web canary-       # sets tier, takes canary away
  sunwire endpoint move web1 gcp1                    # then release and move its device
  sunwire endpoint wait web1 attached --timeout 60
  sunwire endpoint list --node gcp1 -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List endpoints.
    List {
        /// Of this network alone.
        #[arg(long)]
        network: Option<Name>,
        /// On this node alone.
        #[arg(long)]
        node: Option<Name>,
    },
    /// Show an endpoint.
    Get {
        /// Name of the endpoint.
        name: Name,
    },
    /// Create an endpoint. It is attached once its device is on its node.
    Create(Create),
    /// Set labels (KEY=VALUE) and take labels away (KEY-).
    Label {
        /// Name of the endpoint.
        name: Name,
        /// Changes.
        #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = label_change)]
        changes: Vec<(String, Option<String>)>,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Begin to move an endpoint to another node.
    ///
    /// From now on every node knows where it goes. Whoever moves its device then asks the agent
    /// that it leaves for `sunwire agent release`; the move is over when the agent at the
    /// destination has attached the device.
    Move {
        /// Name of the endpoint.
        name: Name,
        /// The node to move to.
        node: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Give up a move that is under way.
    AbortMove {
        /// Name of the endpoint.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Wait until an endpoint is in a state; exit code 1 when it is not in time.
    Wait {
        /// Name of the endpoint.
        name: Name,
        /// The state.
        state: State,
        /// How long to wait, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = 30,
            value_parser = clap::value_parser!(u64).range(..=WAIT_SECONDS_MAX))]
        timeout: u64,
    },
    /// Delete an endpoint.
    Delete {
        /// Name of the endpoint.
        name: Name,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Name of the endpoint.
    name: Name,
    /// Its network.
    #[arg(long)]
    network: Name,
    /// The node where it is.
    #[arg(long)]
    node: Name,
    /// Its device on the node; derived from the name when absent.
    #[arg(long)]
    device: Option<DeviceName>,
    /// An address, at most one of each family; the lowest free ones when absent.
    #[arg(long = "address", value_name = "IP")]
    addresses: Vec<IpAddr>,
    /// Its MAC address; derived from its number when absent.
    #[arg(long)]
    mac: Option<MacAddress>,
    /// A label.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    force: ForceArgs,
}

/// States that can be waited for.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum State {
    /// Its device has not been seen on its node.
    Pending,
    /// Its device is on its node and its packets pass.
    Attached,
    /// It is on its way to another node.
    Moving,
    /// Its device cannot be attached.
    Failed,
}

impl From<State> for EndpointState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => EndpointState::Pending,
            State::Attached => EndpointState::Attached,
            State::Moving => EndpointState::Moving,
            State::Failed => EndpointState::Failed,
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn label_change(text: &str) -> Result<(String, Option<String>), String> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => Err("write KEY=VALUE to set a label, KEY- to take it away".to_owned()),
    }
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    connection.run(|client| ask(client, command, format))
}

fn ask(client: &Client, command: Command, format: Format) -> anyhow::Result<Outcome> {
    let endpoint = match command {
        Command::List { network, node } => {
            let mut endpoints = client.endpoints()?;
            endpoints.retain(|endpoint| {
                network.as_ref().is_none_or(|n| endpoint.spec.network == *n)
                    && node.as_ref().is_none_or(|n| endpoint.status.node == *n)
            });
            output::show(format, &endpoints[..], table)?;
            return Ok(Outcome::Done);
        }
        Command::Delete { name, force, guard } => {
            let client = force.client(client);
            let deleted = client.delete_endpoint(&name, guard.guard())?;
            output::tell(format, &deleted, |_| format!("deleted endpoint {name}"))?;
            return Ok(Outcome::Done);
        }
        Command::Wait {
            name,
            state,
            timeout,
        } => {
            let state = EndpointState::from(state);
            let endpoint = client.wait_endpoint(&name, state, Duration::from_secs(timeout))?;
            output::show(format, &endpoint, one)?;
            return Ok(if endpoint.status.state == state {
                Outcome::Done
            } else {
                Outcome::Negative
            });
        }
        Command::Get { name } => client.endpoint(&name)?,
        Command::Create(create) => {
            let client = create.force.client(client);
            client.create_endpoint(&body(create)?, Guard::None)?
        }
        Command::Label {
            name,
            changes,
            force,
            guard,
        } => {
            let labels = changes.into_iter().collect();
            let client = force.client(client);
            client.patch_endpoint(&name, &EndpointPatch { labels }, guard.guard())?
        }
        Command::Move { name, node, guard } => client.move_endpoint(&name, &node, guard.guard())?,
        Command::AbortMove { name, guard } => client.abort_move(&name, guard.guard())?,
    };
    output::show(format, &endpoint, one)?;
    Ok(Outcome::Done)
}

fn body(create: Create) -> Result<EndpointCreate, Usage> {
    let mut labels = std::collections::BTreeMap::new();
    for (key, value) in create.labels {
        if labels.insert(key.clone(), value).is_some() {
            return Err(Usage(format!("--label gives {key} two values")));
        }
    }
    Ok(EndpointCreate {
        name: create.name,
        network: create.network,
        node: create.node,
        device: create.device,
        addresses: (!create.addresses.is_empty()).then_some(create.addresses),
        mac: create.mac,
        labels,
    })
}

fn one(endpoint: &Endpoint) -> Table {
    table(std::slice::from_ref(endpoint))
}

fn table(endpoints: &[Endpoint]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "NETWORK",
        "NODE",
        "STATE",
        "ADDRESSES",
        "DEVICE",
        "MAC",
        "LABELS",
        "REVISION",
        "DETAIL",
    ]);
    for endpoint in endpoints {
        let (spec, status) = (&endpoint.spec, &endpoint.status);
        let node = match &status.moving_to {
            Some(to) => format!("{} -> {to}", status.node),
            None => status.node.to_string(),
        };
        let labels: Vec<String> = spec
            .labels
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        table.row([
            endpoint.name.to_string(),
            spec.network.to_string(),
            node,
            status.state.to_string(),
            output::list(&spec.addresses),
            spec.device.to_string(),
            spec.mac.to_string(),
            labels.join(","),
            endpoint.revision.to_string(),
            status.detail.clone(),
        ]);
    }
    table
}
