//! `sunwire status`.

use std::time::Duration;

use sunwire_api::Status;

use super::{Connection, WAIT_SECONDS_MAX};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Show how far the controller and its nodes are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --wait-revision the exit code is 1 when a connected node has not applied it in time, or could
not.

Examples:
  sunwire status
  sunwire status --wait-revision 17 --timeout 30 -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Answer once every connected node has applied this revision.
    #[arg(long, value_name = "REVISION")]
    wait_revision: Option<u64>,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "wait_revision",
        value_parser = clap::value_parser!(u64).range(..=WAIT_SECONDS_MAX))]
    timeout: u64,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let status = args.connection.run(|client| {
        let status = match args.wait_revision {
            Some(revision) => client.wait_revision(revision, Duration::from_secs(args.timeout))?,
            None => client.status()?,
        };
        Ok(status)
    })?;
    match format {
        Format::Json => output::json(&status)?,
        Format::Table => {
            let (version, revision) = (&status.version, status.revision);
            let head = format!("controller {version}, revision {revision}\n");
            output::text(&(head + &table(&status).render()))?;
        }
    }
    let could_not = status.nodes.iter().any(|node| node.error.is_some());
    let waited_in_vain = args.wait_revision.is_some() && (status.timed_out || could_not);
    Ok(if waited_in_vain {
        Outcome::Negative
    } else {
        Outcome::Done
    })
}

fn table(status: &Status) -> Table {
    let mut table = Table::new(&["NODE", "NUMBER", "CONNECTED", "APPLIED", "ERROR"]);
    for node in &status.nodes {
        table.row([
            node.name.to_string(),
            node.number.to_string(),
            output::yes_no(node.connected),
            node.acknowledged_revision.to_string(),
            node.error
                .as_ref()
                .map(|error| format!("revision {}: {}", error.revision, error.detail))
                .unwrap_or_default(),
        ]);
    }
    table
}
