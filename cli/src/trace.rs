//! `sunwire trace`: where a given packet goes, as the nodes' own programs say.

use std::fmt::Write as _;
use std::net::IpAddr;

use sunwire_api::client::ClientError;
use sunwire_api::{
    FlowVerdict, Name, Question, Telling, Trace, TraceEntry, TraceHop, TraceOutcome, TraceRequest,
    from_hex,
};

use crate::exit::{Outcome, Usage};
use crate::flows::{self, Source};
use crate::output::{self, Format};

/// Bytes of an Ethernet header.
const ETHERNET_BYTES: usize = 14;

/// Show where a packet goes, hop by hop, and why.
///
/// Every node on its way runs its own programs on the packet, without sending, counting or keeping
/// anything: what is shown is what the data plane does at this moment.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire trace client1 web1                         # an echo request
  sunwire trace client1 web1 tcp 443
  sunwire trace client1 10.20.0.12 udp 53 --source-port 5353 --dscp 46
  sunwire trace client1 web1 tcp 443 --source 10.20.0.99      # would a forged one pass?
  sunwire trace --packet '{\"from\": \"client1\", \"to\": \"web1\", \"icmp\": [3, 4]}'

Exit codes:
  0  the packet is delivered
  1  it is denied: by a policy, or because its sender may not send it
  2  it may pass and does not arrive, or could not be traced
  3  wrong usage")]
pub(crate) struct Args {
    /// The endpoint that would send it.
    #[arg(required_unless_present = "packet")]
    from: Option<Name>,
    /// Where it is to: an endpoint of the same network, or an IP address.
    #[arg(required_unless_present_any = ["packet", "frame"])]
    to: Option<String>,
    /// tcp, udp, icmp, icmpv6 or an IP protocol number.
    protocol: Option<String>,
    /// Destination port.
    port: Option<u16>,
    /// Source port; 40000 when not given.
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// Source address, when it is not the endpoint's own.
    #[arg(long, value_name = "IP")]
    source: Option<IpAddr>,
    /// Differentiated services code point.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..64))]
    dscp: u8,
    /// TCP flags as letters, like SA; S when not given.
    #[arg(long, value_name = "LETTERS")]
    flags: Option<String>,
    /// Bytes of payload.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    payload: u16,
    /// The whole frame in hexadecimal.
    #[arg(long, value_name = "HEX", conflicts_with_all = ["to", "protocol", "port", "packet"])]
    frame: Option<String>,
    /// All fields as JSON, as the REST API takes them.
    #[arg(long, value_name = "JSON", conflicts_with = "from")]
    packet: Option<String>,
    #[command(flatten)]
    source_of_truth: Source,
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let request = request(&args)?;
    let trace = if let Some(state_dir) = &args.source_of_truth.local {
        let mut hops = Vec::new();
        let question = Question::Trace(TraceEntry::Endpoint(request));
        let outcome = flows::of_agent(state_dir, question, |telling| match telling {
            Telling::Traced { hops: told } => {
                hops = told;
                Ok(())
            }
            other => anyhow::bail!("the agent answers out of turn: {other:?}"),
        })?;
        if outcome != Outcome::Done {
            return Ok(Outcome::Failed);
        }
        let next = hops.iter().find_map(|hop| hop.flow.next_node.clone());
        Trace {
            outcome: TraceOutcome::of(&hops),
            unfinished: next
                .map(|node| format!("node {node} goes on, and only the controller can ask it")),
            hops,
        }
    } else {
        let asked = args
            .source_of_truth
            .connection
            .run(|client| Ok(client.trace(&request)?));
        match asked {
            Ok(trace) => trace,
            Err(error) => {
                let problem = error.downcast_ref().and_then(ClientError::problem);
                let Some(problem) = problem else {
                    return Err(error);
                };
                // Not 1: that says what became of the packet.
                eprintln!("error: {}: {}", problem.title, problem.detail);
                eprintln!("  code: {}", problem.code);
                return Ok(Outcome::Failed);
            }
        }
    };
    match format {
        Format::Json => output::json(&trace)?,
        Format::Table => output::text(&text(&trace))?,
    }
    Ok(match trace.outcome {
        TraceOutcome::Delivered => Outcome::Done,
        TraceOutcome::Denied => Outcome::Negative,
        TraceOutcome::Lost => Outcome::Failed,
    })
}

fn request(args: &Args) -> anyhow::Result<TraceRequest> {
    if let Some(packet) = &args.packet {
        let parsed = serde_json::from_str(packet);
        return parsed.map_err(|error| Usage(format!("--packet is wrong: {error}")).into());
    }
    let from = args.from.clone().expect("it is required without --packet");
    let flags = args.flags.as_deref().map(flag_byte).transpose()?;
    check(args)?;
    Ok(TraceRequest {
        protocol: args.protocol.clone(),
        source_port: args.source_port,
        destination_port: args.port,
        tcp_flags: flags,
        dscp: args.dscp,
        source: args.source,
        payload_bytes: args.payload,
        frame: args.frame.clone(),
        ..TraceRequest::new(from, args.to.as_deref().unwrap_or_default())
    })
}

/// Refuses what makes no packet, whichever node it would begin at.
fn check(args: &Args) -> Result<(), Usage> {
    let refuse = |why: &str| Err(Usage(why.to_owned()));
    if let Some(frame) = &args.frame {
        return match from_hex(frame) {
            None => refuse("--frame is pairs of hexadecimal digits, without blanks between them"),
            Some(bytes) if bytes.len() < ETHERNET_BYTES => {
                refuse("--frame begins with an Ethernet header: it has at least 14 bytes")
            }
            Some(_) => Ok(()),
        };
    }
    let number = match args.protocol.as_deref() {
        None => return Ok(()),
        Some("tcp") => 6,
        Some("udp") => 17,
        Some("icmp") => 1,
        Some("icmpv6") => 58,
        Some(other) => other.parse::<u8>().map_err(|_| {
            Usage(format!(
                "{other:?} is no protocol: tcp, udp, icmp, icmpv6 and 0 to 255 are"
            ))
        })?,
    };
    let has_ports = matches!(number, 6 | 17);
    match args.port {
        None if has_ports => refuse("TCP and UDP need a destination port, after the protocol"),
        Some(_) if !has_ports => refuse(
            "only TCP and UDP have ports; of ICMP, --packet '{\"icmp\": [TYPE, CODE], …}' says type and code",
        ),
        _ if args.flags.is_some() && number != 6 => refuse("only TCP has --flags"),
        _ => Ok(()),
    }
}

fn flag_byte(letters: &str) -> anyhow::Result<u8> {
    let bits = letters
        .chars()
        .map(|letter| match letter.to_ascii_uppercase() {
            'F' => Ok(0x01),
            'S' => Ok(0x02),
            'R' => Ok(0x04),
            'P' => Ok(0x08),
            'A' => Ok(0x10),
            'U' => Ok(0x20),
            other => Err(Usage(format!(
                "{other:?} is no TCP flag: F, S, R, P, A and U are"
            ))),
        });
    let bits = bits.collect::<Result<Vec<u8>, _>>()?;
    Ok(bits.iter().fold(0, |all, bit| all | bit))
}

fn text(trace: &Trace) -> String {
    let mut text = String::new();
    for (number, hop) in trace.hops.iter().enumerate() {
        describe(&mut text, number, hop);
    }
    if let Some(why) = &trace.unfinished {
        let _ = writeln!(text, "unfinished: {why}");
    }
    let _ = writeln!(text, "{}", trace.outcome.name());
    text
}

/// A hop: the packet as it comes in, what the node does, and why.
fn describe(text: &mut String, number: usize, hop: &TraceHop) {
    let flow = &hop.flow;
    // Writing to a string cannot fail.
    let _ = write!(text, "{}. {}", number + 1, flow.node);
    match (&flow.previous_node, hop.after) {
        (Some(node), Some(after)) => {
            let _ = write!(text, ", from {node} (after {})", after + 1);
        }
        _ => text.push_str(", from the endpoint"),
    }
    let _ = write!(text, ": {} -> {}", flow.from, flow.to);
    if let Some(protocol) = flow.protocol {
        let _ = write!(text, " {}", sunwire_api::protocol_name(protocol));
    }
    let _ = writeln!(text, ", {} B", flow.bytes);
    if let Some(label) = &flow.label {
        let _ = writeln!(text, "     decided by {label:?}");
    }
    if let Some(wire) = &flow.wire {
        let _ = writeln!(text, "     goes by wire {wire}, past policy");
    }
    for rewrite in &hop.rewrites {
        let (field, before, after) = (&rewrite.field, &rewrite.before, &rewrite.after);
        let _ = writeln!(text, "     {field}: {before} becomes {after}");
    }
    match flow.verdict {
        FlowVerdict::Dropped => {
            let reason = flow.reason.as_deref().unwrap_or("no reason");
            let description = hop.description.as_deref().unwrap_or_default();
            let _ = writeln!(text, "     dropped, {reason}: {description}");
        }
        FlowVerdict::Answered => text.push_str("     answered by the node\n"),
        FlowVerdict::Passed => {
            text.push_str("     not the switch's: the node's own network stack goes on with it\n");
        }
        FlowVerdict::Forwarded if flow.egress.is_some() => {
            let _ = match &flow.next_node {
                Some(node) => writeln!(text, "     through the tunnel to {node}, where it leaves"),
                None => writeln!(text, "     leaves the cloud here"),
            };
        }
        FlowVerdict::Forwarded => {
            let destination = flow.destination.as_deref().unwrap_or("?");
            match (&flow.next_node, &hop.device) {
                (Some(node), _) => {
                    // A copy for several is for those of them that are there.
                    let destination = flow.destination.as_deref().unwrap_or("members of the set");
                    let _ = write!(text, "     for {destination}, through the tunnel to {node}");
                    if let Some(rtt_s) = flow.tunnel_rtt_s {
                        let rtt = crate::tunnels::milliseconds(rtt_s);
                        let _ = write!(text, ", {rtt} there and back");
                    }
                    text.push('\n');
                }
                (None, Some(device)) => {
                    let _ = writeln!(text, "     delivered to {destination}, device {device}");
                }
                (None, None) => {
                    let what = format!("for {destination}");
                    let what = hop.description.as_ref().unwrap_or(&what);
                    let _ = writeln!(text, "     {what}");
                }
            }
        }
    }
}
