//! `sunwire tunnels`: how tunnels between all nodes are, and how those of one node are shown.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_api::{Name, Tunnel, TunnelLiveness, TunnelState, TunnelStatus, Tunnels};

use crate::exit::Outcome;
use crate::output::{self, Format, Table};
use crate::rest::Connection;

/// Show how tunnels between nodes are: up or down, round trip, loss, rates, encrypted or not.
///
/// Every node asks every other one once a second, by the way that packets of workloads take. What is shown
/// is of the last minute, and of the last ten seconds for rates.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire tunnels
  sunwire tunnels --from aws1
  sunwire tunnels --down                # those that carry nothing; exit code 1 when there are any
  sunwire tunnels --matrix              # round trips in ms, from rows to columns
  sunwire tunnels -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    /// Tunnels from this node alone.
    #[arg(long, value_name = "NODE")]
    from: Option<Name>,
    /// Tunnels to this node alone.
    #[arg(long, value_name = "NODE")]
    to: Option<Name>,
    /// Tunnels that are down alone; the exit code is 1 when there are any.
    #[arg(long)]
    down: bool,
    /// A table of round trips, from rows to columns.
    #[arg(long)]
    matrix: bool,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    args.connection.run(|client| {
        let mut all = client.tunnels()?;
        for name in [&args.from, &args.to].into_iter().flatten() {
            // A node without tunnels has none to show; an unknown one is refused.
            client.node(name)?;
        }
        let is = |wanted: &Option<Name>, name: &Name| wanted.as_ref().is_none_or(|w| w == name);
        all.tunnels.retain(|tunnel| {
            is(&args.from, &tunnel.from)
                && is(&args.to, &tunnel.to)
                && (!args.down || is_down(&tunnel.status))
        });
        output::show(format, &all, |all| match args.matrix {
            true => matrix(all),
            false => table(all),
        })?;
        Ok(match args.down && !all.tunnels.is_empty() {
            true => Outcome::Negative,
            false => Outcome::Done,
        })
    })
}

fn is_down(status: &TunnelStatus) -> bool {
    let probed = status.probes.as_ref();
    status.state == TunnelState::Down
        || probed.is_some_and(|probes| probes.liveness == TunnelLiveness::Down)
}

/// The columns that say how a tunnel is, wherever it leads.
const COLUMNS: [&str; 9] = [
    "PATH",
    "PROBES",
    "RTT",
    "MIN",
    "MAX",
    "LOSS",
    "SENT/s",
    "RECEIVED/s",
    "ANSWER",
];

fn columns(status: &TunnelStatus) -> [String; 9] {
    let probes = status.probes.as_ref();
    let rtt = probes.and_then(|probes| probes.rtt);
    let ms = |seconds: Option<f64>| output::option(&seconds.map(milliseconds));
    let loss = probes.and_then(|probes| probes.loss());
    let age = probes.and_then(|probes| probes.answer_age_s);
    [
        match status.state {
            TunnelState::Plaintext => "clear".to_owned(),
            state => state.to_string(),
        },
        output::option(&probes.map(|probes| probes.liveness)),
        ms(rtt.map(|rtt| rtt.median_s)),
        ms(rtt.map(|rtt| rtt.min_s)),
        ms(rtt.map(|rtt| rtt.max_s)),
        output::option(&loss.map(|loss| format!("{:.1} %", loss * 100.0))),
        rate(status.transmitted.bytes_per_s),
        rate(status.arrived.bytes_per_s),
        output::option(&age.map(|age| format!("{age:.0} s ago"))),
    ]
}

/// A time in milliseconds, with three digits that say something.
pub(crate) fn milliseconds(seconds: f64) -> String {
    let ms = seconds * 1e3;
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 100.0 => format!("{ms:.1} ms"),
        ms => format!("{ms:.0} ms"),
    }
}

/// Bytes per second, in units that fit.
fn rate(bytes_per_s: f64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.iter().find(|(size, _)| bytes_per_s >= *size);
    match unit {
        Some((size, name)) => format!("{:.1} {name}", bytes_per_s / size),
        None => format!("{bytes_per_s:.0} B"),
    }
}

/// Tunnels of one node.
pub(crate) fn of_node(tunnels: &[TunnelStatus]) -> Table {
    let mut table = Table::new(&[&["TO"][..], &COLUMNS, &["DETAIL"]].concat());
    for status in tunnels {
        let mut row = vec![status.node.to_string()];
        row.extend(columns(status));
        row.push(output::option(&status.detail));
        table.row(row);
    }
    table
}

fn table(all: &Tunnels) -> Table {
    let mut table = Table::new(&[&["FROM", "TO"][..], &COLUMNS, &["DETAIL"]].concat());
    for tunnel in &all.tunnels {
        let mut row = vec![tunnel.from.to_string(), tunnel.to.to_string()];
        row.extend(columns(&tunnel.status));
        row.push(detail(tunnel));
        table.row(row);
    }
    table
}

fn detail(tunnel: &Tunnel) -> String {
    match tunnel.is_current {
        true => output::option(&tunnel.status.detail),
        false => format!("as of when {} was last heard", tunnel.from),
    }
}

fn matrix(all: &Tunnels) -> Table {
    let cells: BTreeMap<(&Name, &Name), String> = all
        .tunnels
        .iter()
        .map(|tunnel| ((&tunnel.from, &tunnel.to), cell(tunnel)))
        .collect();
    let columns: BTreeSet<&Name> = all.tunnels.iter().map(|tunnel| &tunnel.to).collect();
    let rows: BTreeSet<&Name> = all.tunnels.iter().map(|tunnel| &tunnel.from).collect();
    let names: Vec<&str> = columns.iter().map(|name| name.as_str()).collect();
    let mut table = Table::new(&[&["FROM"][..], &names].concat());
    for from in rows {
        let mut row = vec![from.to_string()];
        row.extend(columns.iter().map(|to| match cells.get(&(from, *to)) {
            Some(cell) => cell.clone(),
            None => String::new(),
        }));
        table.row(row);
    }
    table
}

/// The round trip, and the loss where there is some.
fn cell(tunnel: &Tunnel) -> String {
    let status = &tunnel.status;
    if is_down(status) {
        return "down".to_owned();
    }
    let probes = status.probes.as_ref();
    let Some(rtt) = probes.and_then(|probes| probes.rtt) else {
        return "?".to_owned();
    };
    let mut text = milliseconds(rtt.median_s);
    if let Some(loss) = probes.and_then(|probes| probes.loss()).filter(|l| *l > 0.0) {
        text.push_str(&format!(" -{:.0}%", loss * 100.0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_have_the_digits_that_say_something() {
        let times = [0.000_123, 0.0401, 0.2504].map(milliseconds);
        assert_eq!(times, ["0.12 ms", "40.1 ms", "250 ms"]);
        assert_eq!(
            [0.0, 999.0, 1.5e3, 2.5e6, 3e9].map(rate),
            ["0 B", "999 B", "1.5 kB", "2.5 MB", "3.0 GB"]
        );
    }
}
