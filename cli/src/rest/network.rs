//! `sunwire network`.

use clap::ValueEnum;
use sunwire_api::client::Guard;
use sunwire_api::{
    Cidr, Name, Network, NetworkChecksum, NetworkCreate, NetworkEncryption, NetworkEnforcement,
    NetworkOutbound, NetworkPatch, Vni,
};

use super::encryption::OfNetwork;
use super::{Connection, ForceArgs, GuardArgs};
use crate::exit::Outcome;
use crate::output::{self, Format, Table};

/// Virtual networks: list, get, create, set, peer, unpeer, enforce, delete.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sunwire network create shop --subnet 10.20.0.0/16 --subnet fd00:20::/64
  sunwire network create cables --no-subnet          # frames alone, and for wires
  sunwire network list -o json
  sunwire network peer shop lab
  sunwire network enforce shop both    # receivers decide, too
  sunwire network set shop --outbound local          # out by each endpoint's node
  sunwire network set shop --checksum udp            # for peers that want outer checksums
  sunwire network set shop --encryption never        # readable on its way, between clouds too
  sunwire network delete shop")]
pub(crate) struct Args {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List networks.
    List,
    /// Show a network.
    Get {
        /// Name of the network.
        name: Name,
    },
    /// Create a network.
    ///
    /// Its gateways are the first host addresses of its subnets. Without a policy everything in
    /// it is dropped.
    #[command(group(clap::ArgGroup::new("kind").args(["subnets", "no_subnet"]).required(true)))]
    Create {
        /// Name of the network.
        name: Name,
        /// A subnet; one, or one of each address family.
        #[arg(long = "subnet", value_name = "PREFIX")]
        subnets: Vec<Cidr>,
        /// Without subnet: nodes answer nothing, ARP and DHCP pass between endpoints, and policy
        /// goes by MAC address and EtherType. Ends of wires are in such a network.
        #[arg(long)]
        no_subnet: bool,
        /// VXLAN network identifier; chosen when absent.
        #[arg(long, value_parser = vni)]
        vni: Option<Vni>,
        /// Greatest IP packet in bytes, fixed for the network's life; 1300 when absent.
        #[arg(long, value_name = "BYTES")]
        mtu: Option<u16>,
        /// Whether its packets are encrypted on their way to other nodes. `never` holds whatever the
        /// cloud's setting says, between clouds too.
        #[arg(long, value_enum, default_value_t)]
        encryption: OfNetwork,
        /// Send broadcast and multicast once to each other region, where a node sends them on,
        /// and not to each node there.
        #[arg(long)]
        relay: bool,
        /// Which nodes decide about its packets.
        #[arg(long, value_enum, default_value_t)]
        enforce: Enforce,
        /// UDP port that its packets are sent to in the clear, fixed for the network's life; 4789
        /// when absent.
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        vxlan_port: Option<u16>,
        /// UDP checksum in the outer header of its packets in the clear.
        #[arg(long, value_enum, default_value_t)]
        checksum: Checksum,
        /// Where packets leave the cloud for addresses outside: `none`, `local` (at the node where
        /// the endpoint is), or the name of a node.
        #[arg(long, value_name = "WHERE", default_value_t)]
        outbound: NetworkOutbound,
    },
    /// Change a network.
    #[command(group(
        clap::ArgGroup::new("change").args(["outbound", "checksum", "encryption"]).required(true).multiple(true)
    ))]
    Set {
        /// Name of the network.
        name: Name,
        /// Where packets leave the cloud for addresses outside from now on: `none`, `local` (at the
        /// node where the endpoint is), or the name of a node. Connections that are up go on where
        /// they leave, unless it is `none`.
        #[arg(long, value_name = "WHERE")]
        outbound: Option<NetworkOutbound>,
        /// UDP checksum in the outer header of its packets in the clear, from now on.
        #[arg(long, value_enum)]
        checksum: Option<Checksum>,
        /// Whether its packets are encrypted on their way to other nodes, from now on. `never` holds
        /// whatever the cloud's setting says, between clouds too. While nodes hear of it, packets are lost.
        #[arg(long, value_enum)]
        encryption: Option<OfNetwork>,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Have packets routed between two networks, as far as both their policies let them.
    ///
    /// Their subnets must be apart, and apart from those of networks that either is peered with.
    Peer {
        /// Name of one network.
        name: Name,
        /// Name of the other one.
        peer: Name,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Have no packets routed between two networks any more.
    Unpeer {
        /// Name of one network.
        name: Name,
        /// Name of the other one.
        peer: Name,
        #[command(flatten)]
        force: ForceArgs,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Say which nodes decide about a network's packets.
    ///
    /// With `both`, a node that is taken over, or stuck at an old policy, reaches no endpoint that the
    /// policy in force at the endpoint's own node does not let it reach. Policies that rewrite packets
    /// are refused then.
    Enforce {
        /// Name of the network.
        name: Name,
        /// Which nodes.
        enforce: Enforce,
        #[command(flatten)]
        guard: GuardArgs,
    },
    /// Delete a network that has neither endpoints nor a policy.
    Delete {
        /// Name of the network.
        name: Name,
        #[command(flatten)]
        guard: GuardArgs,
    },
}

/// The outer UDP checksum of a network's packets.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Checksum {
    /// None: what is inside has its own.
    #[default]
    Zero,
    /// Over the whole packet, for peers and paths that drop packets without; slower.
    Udp,
}

impl From<Checksum> for NetworkChecksum {
    fn from(value: Checksum) -> Self {
        match value {
            Checksum::Zero => NetworkChecksum::Zero,
            Checksum::Udp => NetworkChecksum::Udp,
        }
    }
}

/// Which nodes decide about a network's packets.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Enforce {
    /// The node where a packet enters, alone.
    #[default]
    Entry,
    /// The node that it is for, too.
    Both,
}

impl From<Enforce> for NetworkEnforcement {
    fn from(value: Enforce) -> Self {
        match value {
            Enforce::Entry => NetworkEnforcement::Entry,
            Enforce::Both => NetworkEnforcement::Both,
        }
    }
}

fn vni(text: &str) -> Result<Vni, String> {
    let number: u32 = text.parse().map_err(|_| "not a number".to_owned())?;
    Vni::try_from(number).map_err(|error| error.to_string())
}

pub(crate) fn run(args: Args, format: Format) -> anyhow::Result<Outcome> {
    let Args {
        connection,
        command,
    } = args;
    connection.run(|client| {
        match command {
            Command::List => output::show(format, &client.networks()?[..], table)?,
            Command::Get { name } => output::show(format, &client.network(&name)?, one)?,
            Command::Create {
                name,
                subnets,
                no_subnet: _,
                vni,
                mtu,
                encryption,
                relay,
                enforce,
                vxlan_port,
                checksum,
                outbound,
            } => {
                let body = NetworkCreate {
                    name,
                    vni,
                    subnets,
                    mtu,
                    encryption: encryption.into(),
                    relay,
                    enforce: enforce.into(),
                    vxlan_port,
                    checksum: checksum.into(),
                    outbound,
                };
                let network = client.create_network(&body, Guard::None)?;
                output::show(format, &network, one)?;
            }
            Command::Set {
                name,
                outbound,
                checksum,
                encryption,
                guard,
            } => {
                let patch = NetworkPatch {
                    outbound,
                    checksum: checksum.map(NetworkChecksum::from),
                    encryption: encryption.map(NetworkEncryption::from),
                };
                let network = client.patch_network(&name, &patch, guard.guard())?;
                output::show(format, &network, one)?;
            }
            Command::Peer {
                name,
                peer,
                force,
                guard,
            } => {
                let client = force.client(client);
                let network = client.peer_networks(&name, &peer, guard.guard())?;
                output::show(format, &network, one)?;
            }
            Command::Unpeer {
                name,
                peer,
                force,
                guard,
            } => {
                let client = force.client(client);
                let network = client.unpeer_networks(&name, &peer, guard.guard())?;
                output::show(format, &network, one)?;
            }
            Command::Enforce {
                name,
                enforce,
                guard,
            } => {
                let network = client.enforce_network(&name, enforce.into(), guard.guard())?;
                output::show(format, &network, one)?;
            }
            Command::Delete { name, guard } => {
                let deleted = client.delete_network(&name, guard.guard())?;
                output::tell(format, &deleted, |_| format!("deleted network {name}"))?;
            }
        }
        Ok(Outcome::Done)
    })
}

fn one(network: &Network) -> Table {
    table(std::slice::from_ref(network))
}

fn table(networks: &[Network]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "VNI",
        "SUBNETS",
        "MTU",
        "GATEWAYS",
        "ENDPOINTS",
        "POLICY",
        "ENFORCE",
        "PEERS",
        "OUTBOUND",
        "CHECKSUM",
        "ENCRYPTION",
        "REVISION",
    ]);
    for network in networks {
        let (spec, status) = (&network.spec, &network.status);
        table.row([
            network.name.to_string(),
            spec.vni.to_string(),
            output::list(&spec.subnets),
            spec.mtu.to_string(),
            output::list(&status.gateways),
            status.endpoints.to_string(),
            output::option(&status.policy),
            match spec.enforce {
                NetworkEnforcement::Entry => "entry".to_owned(),
                NetworkEnforcement::Both => "both".to_owned(),
            },
            output::list(&spec.peers),
            spec.outbound.to_string(),
            match spec.checksum {
                NetworkChecksum::Zero => "zero".to_owned(),
                NetworkChecksum::Udp => "udp".to_owned(),
            },
            spec.encryption.to_string(),
            network.revision.to_string(),
        ]);
    }
    table
}
