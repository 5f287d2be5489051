//! `sunwire counters`.

use sunwire_api::{CountTotals, DropTotals, LabelTotals, Name, NamedTotals, NodeCounters};

use super::Connection;
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Show packets counted by the labels of rules and by `count`, packets dropped by reason, what workloads
/// asked of their nodes, and copies of packets for several.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Agents report once a second; the counts are totals since a node's maps were made.

Examples:
  sunwire counters
  sunwire counters --node aws1 -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Of this node alone; without it, summed over all nodes.
    #[arg(long)]
    node: Option<Name>,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    args.connection.run(|client| {
        let counters = client.counters()?;
        let Some(name) = &args.node else {
            output::show(format, &counters, |all| {
                table(
                    &all.labels,
                    &all.counts,
                    &all.drops,
                    [&all.asked, &all.copies],
                )
            })?;
            return Ok(Outcome::Done);
        };
        let of_node = counters.nodes.into_iter().find(|node| node.node == *name);
        let of_node = match of_node {
            Some(of_node) => of_node,
            None => {
                // A node that has not reported yet has counted nothing; an unknown one is refused.
                client.node(name)?;
                NodeCounters {
                    node: name.clone(),
                    labels: Vec::new(),
                    counts: Vec::new(),
                    drops: Vec::new(),
                    asked: Vec::new(),
                    copies: Vec::new(),
                }
            }
        };
        output::show(format, &of_node, |node| {
            table(
                &node.labels,
                &node.counts,
                &node.drops,
                [&node.asked, &node.copies],
            )
        })?;
        Ok(Outcome::Done)
    })
}

fn table(
    labels: &[LabelTotals],
    counts: &[CountTotals],
    drops: &[DropTotals],
    named: [&[NamedTotals]; 2],
) -> Table {
    let mut table = Table::new(&["KIND", "NETWORK", "NAME", "PACKETS", "BYTES"]);
    for label in labels {
        let network = label.network.as_ref();
        table.row([
            "label".to_owned(),
            network.map_or_else(|| format!("VNI {}", label.vni), Name::to_string),
            label.label.clone(),
            label.totals.packets.to_string(),
            label.totals.bytes.to_string(),
        ]);
    }
    for count in counts {
        let network = count.network.as_ref();
        table.row([
            "count".to_owned(),
            network.map_or_else(|| format!("VNI {}", count.vni), Name::to_string),
            count.name.clone(),
            count.totals.packets.to_string(),
            count.totals.bytes.to_string(),
        ]);
    }
    for reason in drops {
        table.row([
            "drop".to_owned(),
            String::new(),
            reason.reason.clone(),
            reason.totals.packets.to_string(),
            reason.totals.bytes.to_string(),
        ]);
    }
    for (kind, named) in ["asked", "copied"].into_iter().zip(named) {
        for named in named.iter().filter(|named| named.totals.packets > 0) {
            table.row([
                kind.to_owned(),
                String::new(),
                named.name.clone(),
                named.totals.packets.to_string(),
                named.totals.bytes.to_string(),
            ]);
        }
    }
    table
}
