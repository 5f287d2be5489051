//! `sunwire connections`: what the agent of this node remembers of flows.

use std::path::PathBuf;

use anyhow::Context as _;
use sunwire_api::{Name, protocol_name};
use sunwire_userspace::connections::listing::{ConnectionEnd, ListedConnection};
use sunwire_userspace::control::{self, Answer, Request};

use crate::agent;
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Show the connections of the endpoints on this node.
///
/// A connection is shown as its endpoint here sees it: LOCAL is this side. The label is that of the
/// rule that lets through what LOCAL sends, as far as it is remembered; `-` means that the next packet
/// asks the policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire connections
  sunwire connections web1
  sunwire connections --output json")]
pub(crate) struct Args {
    /// An endpoint on this node: all of them when it is left out.
    endpoint: Option<Name>,
    /// Ask the agent of this node, where it has its local socket.
    #[arg(long, value_name = "DIR", default_value = "/run/sunwire/agent")]
    state_dir: PathBuf,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let request = Request::Connections {
        endpoint: args.endpoint.map(|name| name.to_string()),
    };
    let answers = control::listen(&args.state_dir, &request)
        .with_context(|| agent::unheard(&args.state_dir))?;
    let mut listed = Vec::new();
    for answer in answers {
        match answer.context("the agent went away")? {
            Answer::Connections {
                connections,
                is_last,
            } => {
                listed.extend(connections);
                if is_last {
                    output::show(format, &listed, |listed| table(listed))?;
                    return Ok(Outcome::Done);
                }
            }
            Answer::Refused { reason } => {
                eprintln!("error: the agent refused: {reason}");
                return Ok(Outcome::Negative);
            }
            other => anyhow::bail!("the agent answers out of turn: {other:?}"),
        }
    }
    anyhow::bail!("the agent went away")
}

fn table(listed: &[ListedConnection]) -> Table {
    let mut table = Table::new(&[
        "NETWORK", "PROTOCOL", "LOCAL", "REMOTE", "PHASE", "SILENT", "LABEL",
    ]);
    for connection in listed {
        let mut remote = end(&connection.remote);
        if let Some(translated) = &connection.translated {
            remote.push_str(&format!(" (as {})", end(translated)));
        }
        table.row([
            connection.network.clone(),
            protocol_name(connection.protocol),
            end(&connection.local),
            remote,
            connection.phase.name().to_owned(),
            silence(connection.silent_ms),
            connection.label.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// An end with its endpoint's name where it has one.
fn end(end: &ConnectionEnd) -> String {
    let at = match end.port {
        0 => end.address.to_string(),
        port => std::net::SocketAddr::new(end.address, port).to_string(),
    };
    match &end.endpoint {
        Some(endpoint) => format!("{endpoint} {at}"),
        None => at,
    }
}

/// A time in the largest unit that tells it well.
fn silence(ms: u64) -> String {
    match ms / 1000 {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sunwire_userspace::connections::listing::ConnectionPhase;

    #[test]
    fn a_connection_is_a_row_with_names() {
        let end = |endpoint: Option<&str>, address: &str, port| ConnectionEnd {
            endpoint: endpoint.map(str::to_owned),
            address: address.parse().unwrap(),
            port,
        };
        let connection = ListedConnection {
            network: "shop".to_owned(),
            protocol: 6,
            local: end(Some("web1"), "10.20.0.12", 80),
            remote: end(None, "fd00::1", 40_000),
            phase: ConnectionPhase::Established,
            silent_ms: 130_000,
            sent: true,
            received: true,
            label: None,
            translated: Some(end(Some("vip"), "fd00::2", 0)),
        };
        assert_eq!(
            table(&[connection]).render(),
            "NETWORK  PROTOCOL  LOCAL               REMOTE                            PHASE        SILENT  LABEL\n\
             shop     tcp       web1 10.20.0.12:80  [fd00::1]:40000 (as vip fd00::2)  established  2m      -\n"
        );
    }
}
