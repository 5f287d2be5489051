//! `sunwire agent`: runs one, or talks to one on this node.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sunwire_api::{DeviceName, Name, NodeLocation};
use sunwire_userspace::agent::{self, Config, OutboundPorts};
use sunwire_userspace::connections::sweep::Usage;
use sunwire_userspace::control::{self, Answer, Request};
use sunwire_userspace::crypt::keeper::{Choice, Settings};
use sunwire_userspace::crypt::supervisor::PORT;
use sunwire_userspace::maps::Capacity;
use sunwire_userspace::programs::Hook;

use crate::exit::Outcome;
use crate::output::{self, Format, Table};
use crate::{shutdown, tunnels};

/// Where the agent has its local socket unless told otherwise.
const STATE_DIR: &str = "/run/sunwire/agent";

/// Where metrics are served when nothing else is said.
const METRICS: &str = "127.0.0.1:7512";

/// Run the agent of a node, or ask a running one.
///
/// The agent makes this node's kernel be what the controller wants. Forwarding goes on while it
/// restarts and after it has ended. Needs root.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  sunwire agent --node aws1 --location aws:us-east-1 --underlay eth0 \\
      --controller http://127.0.0.1:7511
  sunwire agent status
  sunwire agent tunnels             # round trip, loss and rates, by node
  sunwire agent rotate-key
  sunwire agent release web1        # its device may then be moved to another node"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Option<RunArgs>,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    /// Name of this node, unique in the cloud.
    #[arg(long)]
    node: Name,
    /// Where this node is, like aws:us-east-1.
    #[arg(long, value_name = "CLOUD:REGION")]
    location: NodeLocation,
    /// The device that leads to the other nodes.
    #[arg(long, value_name = "DEVICE")]
    underlay: DeviceName,
    /// This node's address on the underlay; may be given twice, once of IPv4 and once of IPv6. By default
    /// the device's first IPv4 and first IPv6 address, whichever it has. Two nodes that have both use IPv4.
    #[arg(long, value_name = "IP")]
    address: Vec<IpAddr>,
    /// Where the controller serves agents.
    #[arg(long, value_name = "http://ADDR:PORT")]
    controller: String,
    /// Where in the kernel programs are attached: `auto` is TCX where the kernel has it (Linux 6.6),
    /// else filters of a clsact queueing discipline.
    #[arg(long, value_enum, value_name = "HOOK", default_value_t = Attach::Auto)]
    attach: Attach,
    /// Where maps and links are pinned, in a BPF file system; this node's alone.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sunwire")]
    bpf_dir: PathBuf,
    /// A resolver for names that are not of the workloads' networks; may be given several times.
    ///
    /// By default those of /etc/resolv.conf, which is read again when it changes. The port is 53
    /// unless given, as in 192.0.2.53:5353 or [2001:db8::53]:5353.
    #[arg(long, value_name = "IP[:PORT]", value_parser = resolver)]
    upstream_dns: Vec<SocketAddr>,
    // Not a flattened StateDir: clap finds an optional group by its direct arguments only when
    // nothing is flattened into it.
    /// Where the agent has its local socket and its private keys.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
    /// Ports under which packets of endpoints leave the cloud at this node, the first and the last; the
    /// node's own sockets must not get them (net.ipv4.ip_local_port_range). 61001-65000 when absent.
    #[arg(long, value_name = "FIRST-LAST")]
    outbound_ports: Option<OutboundPorts>,
    /// Where Prometheus finds metrics, at /metrics; `none` serves them nowhere. Whoever reaches the
    /// address can read them.
    #[arg(long, value_name = "ADDR:PORT|none", default_value = METRICS, value_parser = metrics)]
    metrics: Metrics,
    /// UDP port on which encrypted packets are received; the next one is used as well, by every
    /// second key.
    #[arg(long, value_name = "PORT", default_value_t = PORT,
          value_parser = clap::value_parser!(u16).range(1..65_535))]
    tunnel_port: u16,
    /// Age at which the node's key is replaced by a new one.
    #[arg(long, value_name = "DAYS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..))]
    key_lifetime_days: u32,
    /// Whose WireGuard encrypts: a process's (user), the kernel's, or the kernel's where it has one
    /// (auto).
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t = Wireguard::User)]
    wireguard: Wireguard,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Wireguard {
    Auto,
    Kernel,
    User,
}

impl From<Wireguard> for Choice {
    fn from(wireguard: Wireguard) -> Self {
        match wireguard {
            Wireguard::Auto => Choice::Auto,
            Wireguard::Kernel => Choice::Kernel,
            Wireguard::User => Choice::User,
        }
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Attach {
    Auto,
    Tcx,
    Clsact,
}

impl Attach {
    fn hook(self) -> Option<Hook> {
        match self {
            Attach::Auto => None,
            Attach::Tcx => Some(Hook::Tcx),
            Attach::Clsact => Some(Hook::Clsact),
        }
    }
}

#[derive(Debug, clap::Args)]
struct StateDir {
    /// Where the agent has its local socket.
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    state_dir: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what the agent on this node has applied.
    Status(StateDir),
    /// Show how the tunnels from this node to the others are, also without the controller.
    Tunnels(StateDir),
    /// Replace the node's key by a new one.
    ///
    /// Both are in use until all other nodes have taken the new one up: no packet is lost.
    RotateKey(StateDir),
    /// Take an endpoint that is moving away off its device.
    ///
    /// From then on its packets are forwarded to where it goes, and the device may be moved.
    Release {
        /// Name of the endpoint.
        endpoint: Name,
        #[command(flatten)]
        state: StateDir,
    },
}

impl Args {
    /// Whether this runs the agent.
    pub(crate) fn is_server(&self) -> bool {
        self.command.is_none()
    }
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    match (args.command, args.run) {
        (Some(Command::Status(state)), _) => {
            let answer = call(&state.state_dir, &Request::Status)?;
            show(format, &answer)
        }
        (Some(Command::Tunnels(state)), _) => match call(&state.state_dir, &Request::Status)? {
            Answer::Status { tunnels, .. } => {
                output::show(format, &tunnels[..], tunnels::of_node)?;
                Ok(Outcome::Done)
            }
            answer => show(format, &answer),
        },
        (Some(Command::RotateKey(state)), _) => {
            let answer = call(&state.state_dir, &Request::RotateKey)?;
            show(format, &answer)
        }
        (Some(Command::Release { endpoint, state }), _) => {
            let mut released = None;
            let request = Request::Release {
                endpoint: endpoint.to_string(),
                since: None,
            };
            let answers = control::listen(&state.state_dir, &request)
                .with_context(|| unheard(&state.state_dir))?;
            for answer in answers {
                match answer.context("the agent went away")? {
                    Answer::Parcel { .. } => {}
                    answer => {
                        released = Some(answer);
                        break;
                    }
                }
            }
            show(format, &released.context("the agent went away")?)
        }
        (None, Some(run)) => serve(run),
        (None, None) => unreachable!("without a subcommand, --node is required"),
    }
}

/// Where metrics are served, if anywhere.
#[derive(Clone, Copy, Debug)]
struct Metrics(Option<SocketAddr>);

fn metrics(text: &str) -> Result<Metrics, String> {
    if text == "none" {
        return Ok(Metrics(None));
    }
    let address = text.parse().map(|address| Metrics(Some(address)));
    address.map_err(|_| format!("write an address with a port, like {METRICS}, or `none`"))
}

/// An address with or without a port.
fn resolver(text: &str) -> Result<SocketAddr, String> {
    const DNS_PORT: u16 = 53;
    let address = text.parse::<IpAddr>();
    let address = address.map(|address| SocketAddr::new(address, DNS_PORT));
    address.or_else(|_| text.parse()).map_err(|_| {
        "write an address, like 192.0.2.53, or one with a port, like 192.0.2.53:5353".to_owned()
    })
}

fn serve(args: RunArgs) -> anyhow::Result<Outcome> {
    let config = Config {
        node: args.node.to_string(),
        location: args.location.to_string(),
        underlay: args.underlay.to_string(),
        addresses: args.address,
        controller: args.controller,
        bpf_directory: args.bpf_dir,
        state_directory: args.state_dir,
        upstream_dns: args.upstream_dns,
        capacity: Capacity::default(),
        hook: args.attach.hook(),
        metrics: args.metrics.0,
        outbound_ports: args.outbound_ports,
        encryption: Settings {
            port: args.tunnel_port,
            key_lifetime: Duration::from_secs(u64::from(args.key_lifetime_days) * 86_400),
            wireguard: args.wireguard.into(),
        },
    };
    shutdown::until_signal(async |shutdown| {
        agent::run(config, shutdown).await?;
        tracing::info!("stopped; forwarding goes on");
        Ok(())
    })?;
    Ok(Outcome::Done)
}

fn call(state_dir: &Path, request: &Request) -> anyhow::Result<Answer> {
    control::call(state_dir, request).with_context(|| unheard(state_dir))
}

/// That no agent answers, where one was sought, and what to look at.
pub(crate) fn unheard(state_dir: &Path) -> String {
    let socket = state_dir.join(control::SOCKET);
    format!(
        "no agent answers at {}: is one running on this node, with this state directory?",
        socket.display()
    )
}

fn show(format: Format, answer: &Answer) -> anyhow::Result<Outcome> {
    match answer {
        Answer::Refused { reason } => {
            if format == Format::Json {
                output::json(answer)?;
            }
            eprintln!("error: the agent refused: {reason}");
            Ok(Outcome::Negative)
        }
        Answer::Told(_)
        | Answer::Parcel { .. }
        | Answer::Exported { .. }
        | Answer::Adopted { .. }
        | Answer::Connections { .. } => {
            anyhow::bail!("the agent answers out of turn: {answer:?}")
        }
        Answer::Accepted => {
            output::tell(format, answer, |_| "the new key will take over".to_owned())?;
            Ok(Outcome::Done)
        }
        Answer::Released => {
            output::tell(format, answer, |_| "released".to_owned())?;
            Ok(Outcome::Done)
        }
        Answer::Status {
            node,
            connected,
            revision,
            generation,
            hook,
            wireguard,
            attached,
            flows,
            tunnels: _,
        } => {
            output::show(format, answer, |_| {
                let mut table = Table::new(&[
                    "NODE",
                    "CONNECTED",
                    "REVISION",
                    "GENERATION",
                    "HOOK",
                    "WIREGUARD",
                    "ATTACHED",
                    "FLOWS",
                ]);
                table.row([
                    node.clone(),
                    output::yes_no(*connected),
                    revision.to_string(),
                    generation.to_string(),
                    hook.to_string(),
                    wireguard.map_or(String::from("-"), |backend| backend.to_string()),
                    attached.join(","),
                    in_use(flows),
                ]);
                table
            })?;
            Ok(Outcome::Done)
        }
    }
}

/// How much of the room for flows is in use, and whether it was enough.
fn in_use(flows: &Usage) -> String {
    let mut text = format!(
        "{}+{} of {}",
        flows.in_use_v4, flows.in_use_v6, flows.capacity
    );
    if flows.is_overflowing {
        text.push_str(" (full)");
    }
    if flows.outbound != 0 {
        text.push_str(&format!(
            ", outbound {} of {}",
            flows.outbound, flows.outbound_capacity
        ));
    }
    text
}
