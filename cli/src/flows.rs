//! `sunwire flows`: what becomes of packets, as it happens and shortly before.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sunwire_api::{
    Flow, FlowCause, FlowConnection, FlowFilter, FlowItem, FlowLosses, FlowQuery, Question,
    Telling, protocol_name, tcp_flag_letters,
};
use sunwire_userspace::control::{self, Answer, Request};

use crate::agent;
use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};
use crate::rest::Connection;

/// Show what became of packets: drops, first packets of flows, and samples on demand.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Filters:
  from NAME|ADDRESS|CIDR, to ..., with ...      either end; a name may have * in it
  port N[-M], source-port ..., destination-port ...
  network NAME, wire NAME, node NAME, next NAME, label TEXT, log TEXT, reason NAME
  tcp, udp, icmp, icmpv6, protocol N, ipv4, ipv6
  drop, forwarded, answered, new, sample, logged, established
  and, or, not and parentheses; `and` may be left out

Examples:
  sunwire flows drop
  sunwire flows --follow from web1 and port 443 and not drop
  sunwire flows --follow 'reason policy and not to 10.20.0.0/24' -o json
  sunwire flows --follow --sample 1 with web1       # every packet of web1")]
pub(crate) struct Args {
    /// What to show: all when there is no filter.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Go on with what happens from now on.
    #[arg(short, long)]
    follow: bool,
    /// How many to show of those that happened before: 20, or none with --follow.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Also tell one of N packets at random, whatever becomes of it; every one with 1.
    #[arg(long, value_name = "N", requires = "follow", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    #[command(flatten)]
    from: Source,
}

/// Whom to ask: all nodes through the controller, or the agent on this node.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Ask the agent on this node instead of the controller, by its socket in DIR.
    #[arg(
        long,
        value_name = "DIR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "/run/sunwire/agent",
        conflicts_with_all = ["server", "lab"]
    )]
    pub(crate) local: Option<PathBuf>,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let filter = parse_filter(&args.filter)?;
    let query = FlowQuery {
        filter: filter.as_str().to_owned(),
        last: args.last.unwrap_or(if args.follow { 0 } else { 20 }),
        follow: args.follow,
        sample: args.sample.unwrap_or(0),
    };
    if let Some(state_dir) = &args.from.local {
        return of_agent(state_dir, Question::Flows(query), |telling| match telling {
            Telling::Flow { item } => show(format, &item),
            other => anyhow::bail!("the agent answers out of turn: {other:?}"),
        });
    }
    let last = query.last;
    args.from.connection.run(|client| {
        let mut items = client.flows(&query)?;
        if args.follow {
            items.try_for_each(|item| show(format, &item?))?;
            return Ok(Outcome::Done);
        }
        // Each node tells its own last ones.
        let mut earlier = Vec::new();
        for item in items {
            match item? {
                FlowItem::Flow(flow) => earlier.push(flow),
                other => show(format, &other)?,
            }
        }
        earlier.sort_by_key(|flow| flow.time_unix_ns);
        let skipped = earlier.len().saturating_sub(last);
        for flow in earlier.into_iter().skip(skipped) {
            show(format, &FlowItem::Flow(flow))?;
        }
        Ok(Outcome::Done)
    })
}

/// The filter that the words on the command line make.
pub(crate) fn parse_filter(words: &[String]) -> anyhow::Result<FlowFilter> {
    let text = words.join(" ");
    text.parse::<FlowFilter>()
        .map_err(|error| Usage(error.to_string()).into())
}

/// Hands out the answers of the agent on this node.
pub(crate) fn of_agent(
    state_dir: &Path,
    question: Question,
    mut each: impl FnMut(Telling) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let answers = control::listen(state_dir, &Request::Ask(question))
        .with_context(|| agent::unheard(state_dir))?;
    for answer in answers {
        match answer.context("the agent went away")? {
            Answer::Told(Telling::Refused { reason }) | Answer::Refused { reason } => {
                eprintln!("error: the agent refused: {reason}");
                return Ok(Outcome::Negative);
            }
            Answer::Told(telling) => each(telling)?,
            other => anyhow::bail!("the agent answers out of turn: {other:?}"),
        }
    }
    Ok(Outcome::Done)
}

/// Shows one thing on a line of its own.
pub(crate) fn show(format: Format, item: &FlowItem) -> anyhow::Result<()> {
    if format == Format::Json {
        return output::text(&format!("{}\n", serde_json::to_string(item)?));
    }
    match item {
        FlowItem::Flow(flow) => output::text(&format!("{}\n", line(flow))),
        FlowItem::Lost { node, losses } => {
            eprintln!("{node}: {} are missing so far", lost(losses));
            Ok(())
        }
        FlowItem::Silent { node } => {
            eprintln!("{node}: is not heard");
            Ok(())
        }
    }
}

fn lost(losses: &FlowLosses) -> String {
    let counts = [
        (losses.limited, "above the node's limit"),
        (losses.ring_full, "for which the ring was full"),
        (
            losses.capture_ring_full,
            "for which the capture's ring was full",
        ),
        (
            losses.listener_slow,
            "that came faster than they were taken",
        ),
    ];
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let texts: Vec<String> = counts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    format!("events ({})", texts.join(", "))
}

/// A flow on a line: when, where, what became of it, from where to where, and why.
pub(crate) fn line(flow: &Flow) -> String {
    let mut text = format!(
        "{} {} {:<9}",
        time(flow.time_unix_ns),
        flow.node,
        flow.verdict.name()
    );
    // Writing to a string cannot fail.
    if let Some(network) = &flow.network {
        let _ = write!(text, " {network}");
    }
    let _ = write!(text, " {} -> {}", flow.from, flow.to);
    match (flow.protocol, flow.ether_type) {
        (Some(protocol), _) => {
            let _ = write!(text, " {}", protocol_name(protocol));
        }
        (None, Some(0x0806)) => text.push_str(" arp"),
        (None, Some(ether_type)) => {
            let _ = write!(text, " ethertype {ether_type:#06x}");
        }
        (None, None) => {}
    }
    if let Some(flags) = flow.tcp_flags {
        let _ = write!(text, " [{}]", tcp_flag_letters(flags));
    }
    if let Some((kind, code)) = flow.icmp {
        let _ = write!(text, " {kind}/{code}");
    }
    let _ = write!(text, " {} B", flow.bytes);
    if flow.packets > 1 {
        let _ = write!(text, " in {} packets", flow.packets);
    }
    if let Some(reason) = &flow.reason {
        let _ = write!(text, ", {reason}");
    }
    if let Some(label) = &flow.label {
        let _ = write!(text, ", by {label:?}");
    }
    if let Some(wire) = &flow.wire {
        let _ = write!(text, ", by wire {wire}");
    }
    if let Some(log) = &flow.log {
        let _ = write!(text, ", logged {log:?}");
    }
    if let Some(node) = &flow.previous_node {
        let _ = write!(text, ", from node {node}");
    }
    if let Some(node) = &flow.next_node {
        let _ = write!(text, ", to node {node}");
    }
    if let Some(rtt_s) = flow.tunnel_rtt_s {
        let _ = write!(text, " ({})", crate::tunnels::milliseconds(rtt_s));
    }
    if let Some(destination) = &flow.destination
        && flow.to.endpoint.as_ref() != Some(destination)
    {
        let _ = write!(text, ", for {destination}");
    }
    if let Some(egress) = &flow.egress {
        let _ = write!(text, ", out by {egress}");
    }
    match flow.connection {
        Some(FlowConnection::New) => text.push_str(", new"),
        Some(FlowConnection::Established) => text.push_str(", established"),
        None if flow.causes.contains(&FlowCause::New) => text.push_str(", new"),
        None => {}
    }
    text
}

/// The time of day in UTC, to the microsecond.
fn time(unix_ns: u64) -> String {
    let (seconds, micros) = (unix_ns / 1_000_000_000, unix_ns / 1000 % 1_000_000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{micros:06}")
}
