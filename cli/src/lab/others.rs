//! Labs of other processes.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use sunwire_lab::traffic::{self, ping::PingOptions};
use sunwire_lab::{EmulatorReport, LabRecord, LinkChange, LinkParams, client, sweep as sweep_all};

use crate::exit::{Outcome, Usage};
use crate::output::{self, Format, Table};

pub(super) fn list(format: Format) -> anyhow::Result<Outcome> {
    output::show(format, &client::list()?[..], |labs| {
        let mut table = Table::new(&["ID", "OWNER", "NODES", "WORKLOADS", "DIRECTORY"]);
        for lab in labs {
            table.row([
                lab.id.clone(),
                lab.owner.pid.to_string(),
                lab.nodes.len().to_string(),
                lab.workloads.len().to_string(),
                lab.dir().display().to_string(),
            ]);
        }
        table
    })?;
    Ok(Outcome::Done)
}

/// A lab as its owner has it.
#[derive(Debug, Serialize)]
struct Status {
    lab: LabRecord,
    emulator: EmulatorReport,
}

pub(super) fn status(id: &str, format: Format) -> anyhow::Result<Outcome> {
    let status = Status {
        lab: client::status(id)?,
        emulator: client::report(id)?,
    };
    match format {
        Format::Json => output::json(&status)?,
        Format::Table => {
            let parts = [places(&status.lab), links(&status.emulator)];
            output::text(&parts.map(|table| table.render()).join("\n"))?;
            if let Some(reason) = &status.emulator.realtime_refused {
                eprintln!("warning: the link emulator is not in real time: {reason}");
            }
        }
    }
    Ok(Outcome::Done)
}

fn places(lab: &LabRecord) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "WHERE", "UNDERLAY", "NETWORK", "NAMESPACE"]);
    for node in &lab.nodes {
        table.row([
            node.name.clone(),
            "node".to_owned(),
            node.region.clone(),
            node.address.to_string(),
            String::new(),
            node.namespace.clone(),
        ]);
    }
    for workload in &lab.workloads {
        table.row([
            workload.name.clone(),
            "workload".to_owned(),
            workload.node.clone(),
            String::new(),
            workload.network.clone(),
            workload.namespace.clone(),
        ]);
    }
    table
}

fn links(report: &EmulatorReport) -> Table {
    let mut table = Table::new(&[
        "FROM",
        "TO",
        "UP",
        "DELAY MS",
        "JITTER MS",
        "LOSS",
        "MBIT/S",
        "FRAMES",
        "DROPPED",
        "LATE P99 US",
    ]);
    for link in &report.links {
        let [delay, jitter, loss, rate] = cells(&link.params);
        table.row([
            link.from.clone(),
            link.to.clone(),
            output::yes_no(link.params.up),
            delay,
            jitter,
            loss,
            rate,
            link.delivered_frames.to_string(),
            link.dropped.values().sum::<u64>().to_string(),
            format!("{:.1}", link.lateness.p99_us),
        ]);
    }
    table
}

fn cells(params: &LinkParams) -> [String; 4] {
    let milliseconds = |time: Duration| (time.as_nanos() as f64 / 1e6).to_string();
    [
        milliseconds(params.delay),
        milliseconds(params.jitter),
        params.loss.to_string(),
        params
            .rate_bits_per_s
            .map(|rate| (rate as f64 / 1e6).to_string())
            .unwrap_or_default(),
    ]
}

/// Becomes the command, inside the namespace: signals, terminal and exit code are the command's.
pub(super) fn exec(id: &str, name: &str, command: &[OsString]) -> anyhow::Result<Outcome> {
    let (program, arguments) = command.split_first().expect("clap requires a command");
    let mut command = Command::new(program);
    command.args(arguments);
    // The kernel ends all other threads, and the one that entered the namespace goes on as the
    // process: only returns when the program cannot be started.
    let error = client::namespace(id, name)?.run(|| command.exec())?;
    let hint = match error.kind() {
        // A namespace of a lab has the file system of its host.
        io::ErrorKind::NotFound => ": it is not installed on this machine, or is not in PATH",
        io::ErrorKind::PermissionDenied => ": the file may not be executed",
        _ => "",
    };
    Err(error).with_context(|| format!("cannot run {} on {name}{hint}", program.display()))
}

/// Pings from inside of a lab; nobody answering is a negative outcome.
pub(super) fn ping(
    id: &str,
    from: &str,
    to: IpAddr,
    count: u32,
    format: Format,
) -> anyhow::Result<Outcome> {
    let options = PingOptions {
        count,
        ..PingOptions::default()
    };
    let report = traffic::ping::ping(&client::namespace(id, from)?, to, options)?;
    output::tell(
        format,
        &json!({"from": from, "to": to, "report": &report}),
        |_| {
            let answered = format!("{} of {} answered", report.received(), report.sent);
            match (report.min_ms(), report.median_ms(), report.max_ms()) {
                (Some(min), Some(median), Some(max)) => format!(
                    "{from} to {to}: {answered}, round trip {min:.3} to {max:.3} ms, median {median:.3} ms"
                ),
                _ => format!("{from} to {to}: {answered}"),
            }
        },
    )?;
    Ok(if report.received() > 0 {
        Outcome::Done
    } else {
        Outcome::Negative
    })
}

pub(super) fn link(
    id: &str,
    from: &str,
    to: &str,
    one_way: bool,
    change: LinkChange,
    format: Format,
) -> anyhow::Result<Outcome> {
    change
        .validate()
        .map_err(|error| Usage(error.to_string()))?;
    if from == to {
        return Err(Usage(format!("a link has two ends: {from} is both of them")).into());
    }
    let mut changed = vec![(from, to, client::set_link(id, from, to, change)?)];
    if !one_way {
        changed.push((to, from, client::set_link(id, to, from, change)?));
    }
    if format == Format::Json {
        let links = changed
            .iter()
            .map(|(from, to, params)| json!({"from": from, "to": to, "params": params}));
        output::json(&links.collect::<Vec<_>>())?;
        return Ok(Outcome::Done);
    }
    let mut table = Table::new(&[
        "FROM",
        "TO",
        "UP",
        "DELAY MS",
        "JITTER MS",
        "LOSS",
        "MBIT/S",
    ]);
    for (from, to, params) in changed {
        let [delay, jitter, loss, rate] = cells(&params);
        table.row([
            from.to_owned(),
            to.to_owned(),
            output::yes_no(params.up),
            delay,
            jitter,
            loss,
            rate,
        ]);
    }
    output::text(&table.render())?;
    Ok(Outcome::Done)
}

pub(super) fn down(id: &str, timeout_seconds: u64, format: Format) -> anyhow::Result<Outcome> {
    client::down(id, Duration::from_secs(timeout_seconds))?;
    output::tell(format, &json!({"id": id}), |_| format!("lab {id} is down"))?;
    Ok(Outcome::Done)
}

pub(super) fn sweep(format: Format) -> anyhow::Result<Outcome> {
    let swept = sweep_all()?;
    output::tell(format, &json!({"swept": &swept}), |_| match &swept[..] {
        [] => "nothing was left behind".to_owned(),
        ids => format!("removed what was left of {}", ids.join(", ")),
    })?;
    Ok(Outcome::Done)
}
