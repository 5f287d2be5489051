//! What the controller wants of this node, parsed once into types that cannot be wrong.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey, agent as wire};
use sunwire_dataplane_common::{
    address::{Address, Mac},
    entries::endpoint,
    flow_key::Field,
    limit::Limit,
    tables::Copied,
    vxlan,
};

use crate::{groups::sets::Members, wires::Wires};

mod parse;

/// BLAKE3-256 of a table node, leaf or class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A node of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// IPv4 address on the underlay; of one that has none, what it is called within encrypted tunnels:
    /// see [`Node::has_ipv4`].
    pub address: Ipv4Addr,
    /// IPv6 address on the underlay.
    pub address_v6: Option<Ipv6Addr>,
    /// The cloud that it is in.
    pub cloud: String,
    /// Where it is, the cloud in front; empty when that is not known.
    pub region: String,
    /// Its public keys, the oldest first; none when it announced none.
    pub public_keys: Vec<PublicKey>,
    /// UDP port of encrypted packets.
    pub tunnel_port: u16,
    /// It has no agent: a plain VXLAN peer.
    pub foreign: bool,
    /// Packets to and from it are never encrypted.
    pub plaintext: bool,
}

impl Node {
    /// A node that has announced no key, in a cloud without a name.
    #[must_use]
    pub fn without_key(name: &str, address: Ipv4Addr) -> Self {
        Node {
            name: name.to_owned(),
            address,
            address_v6: None,
            cloud: String::new(),
            region: String::new(),
            public_keys: Vec::new(),
            tunnel_port: 0,
            foreign: false,
            plaintext: false,
        }
    }

    /// The address within encrypted tunnels of a node without an IPv4 address on the underlay.
    ///
    /// What encrypted tunnels carry is wrapped for IPv4 whatever they go over: it costs 20 bytes less,
    /// and such an address names the node as well as any. It is of the reserved range 240.0.0.0/4
    /// (RFC 1112, 4), which no underlay delivers; where it is seen outside of a tunnel it is not believed.
    #[must_use]
    pub fn called(number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(CALLED | number & !CALLED)
    }

    /// Whether it has an IPv4 address on the underlay.
    #[must_use]
    pub fn has_ipv4(&self) -> bool {
        self.address.to_bits() & CALLED != CALLED
    }

    /// Its addresses on the underlay.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.has_ipv4().then_some(IpAddr::V4(self.address));
        v4.into_iter().chain(self.address_v6.map(IpAddr::V6))
    }

    /// The address by which a node with these families reaches it: over IPv4 where both can, since its
    /// headers are shorter.
    #[must_use]
    pub fn reached_at(&self, has_ipv4: bool, has_ipv6: bool) -> Option<IpAddr> {
        if has_ipv4 && self.has_ipv4() {
            return Some(self.address.into());
        }
        self.address_v6.filter(|_| has_ipv6).map(IpAddr::V6)
    }
}

/// Bits of the reserved IPv4 range.
const CALLED: u32 = 0xf000_0000;

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Unique name.
    pub name: String,
    /// MTU in bytes from the IP header on.
    pub mtu: u32,
    /// IPv4 gateway, if the network has an IPv4 subnet.
    pub gateway_v4: Address,
    /// IPv6 gateway, if the network has an IPv6 subnet.
    pub gateway_v6: Address,
    /// MAC address of the gateway.
    pub gateway_mac: Mac,
    /// Length of the IPv4 subnet's prefix, in bits; the gateway is in the subnet.
    pub prefix_v4: u8,
    /// Length of the IPv6 subnet's prefix, in bits.
    pub prefix_v6: u8,
    /// Whether its packets are encrypted on their way to other nodes.
    pub encryption: NetworkEncryption,
    /// What is for several goes once to each other region, where a node sends it on.
    pub relayed: bool,
    /// The node that a packet is for decides, too, before it delivers.
    pub enforced: bool,
    /// UDP port that its packets are sent to in the clear.
    pub port: u16,
    /// Its packets in the clear have an outer UDP checksum.
    pub checksum: bool,
    /// VNIs of the networks that packets are routed to and from.
    pub peers: Vec<u32>,
    /// Number of the node where packets leave the cloud, or one of
    /// [`by`](sunwire_dataplane_common::outbound::by).
    pub outbound: u32,
}

impl Network {
    /// What the kernel is told of its endpoints, bits of
    /// [`endpoint`](sunwire_dataplane_common::entries::endpoint).
    pub(crate) fn endpoint_flags(&self) -> u32 {
        match self.is_link() {
            true => endpoint::LINK,
            false => 0,
        }
    }

    /// Whether its packets are encrypted on their way to any other node.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encryption == NetworkEncryption::Required
    }

    /// Whether it has no subnet: nodes answer nothing in it, and know its endpoints by their MAC
    /// addresses alone.
    #[must_use]
    pub fn is_link(&self) -> bool {
        self.gateway_v4 == Address::ZERO && self.gateway_v6 == Address::ZERO
    }
}

#[cfg(test)]
impl Network {
    pub(crate) fn for_tests() -> Self {
        Network {
            name: "shop".to_owned(),
            mtu: 1300,
            gateway_v4: Address::ZERO,
            gateway_v6: Address::ZERO,
            gateway_mac: Mac::default(),
            prefix_v4: 0,
            prefix_v6: 0,
            encryption: NetworkEncryption::Default,
            relayed: false,
            enforced: false,
            port: vxlan::PORT,
            checksum: false,
            peers: Vec::new(),
            outbound: 0,
        }
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Unique name.
    pub name: String,
    /// VNI of its network.
    pub vni: u32,
    /// Name of its host-side device.
    pub device: String,
    /// MAC address.
    pub mac: Mac,
    /// IPv4 address, or zero.
    pub ipv4: Address,
    /// IPv6 address, or zero.
    pub ipv6: Address,
    /// Number of the node where it is.
    pub node: u32,
    /// Number of the node it moves to or came from, or zero.
    pub other: u32,
    /// Whether it is moving to `other`.
    pub moving: bool,
    /// Rises with every completed move.
    pub epoch: u32,
}

/// The compiled policy of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Revision of the policy.
    pub revision: u64,
    /// Where the walk starts; `None` when there is no policy.
    pub root: Option<Digest>,
    /// Classes of all addresses.
    pub classes: Vec<(IpAddr, u8, Digest)>,
    /// Class of a packet without addresses.
    pub class_none: Digest,
    /// The rate of `limit`; zeroed when there is none.
    pub limit: Limit,
    /// What the bucket of `balance` is a hash of, bits of
    /// [`key`](sunwire_dataplane_common::tables::key); zero when there is no bucket.
    pub bucket: u32,
    /// Some verdict translates addresses.
    pub translates: bool,
}

/// A node of the flow tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNode {
    /// Field tested.
    pub field: Field,
    /// Bits to shift right by.
    pub shift: u8,
    /// Bits compared.
    pub width: u8,
    /// Exact edges.
    pub edges: Vec<(Value, Digest)>,
    /// Where every other value goes.
    pub default: Digest,
}

/// What an edge compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The projected bits.
    Number(u32),
    /// An address class.
    Class(Digest),
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Which rule decided.
    pub label: String,
    /// Names under which the packet is counted too.
    pub counts: Vec<String>,
    /// What the event says that every new flow is told by.
    pub log: Option<String>,
    /// The copies, in kernel layout.
    pub copies: Vec<Copied>,
    /// The sets that copies to several endpoints go to: `Copied::endpoint` is an index of these for
    /// `OUT_GROUP`, until the set has its number on this node.
    pub members: Vec<Members>,
}

/// Everything the controller wants.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// Nodes by number.
    pub nodes: BTreeMap<u32, Node>,
    /// Networks by VNI.
    pub networks: BTreeMap<u32, Network>,
    /// Endpoints by number.
    pub endpoints: BTreeMap<u32, Endpoint>,
    /// Wires.
    pub wires: Wires,
    /// Policies by VNI.
    pub programs: BTreeMap<u32, Program>,
    /// Staged policies by VNI; each has a root, and its revision is the candidate's.
    pub staged: BTreeMap<u32, Program>,
    /// Every table node that a program may reach.
    pub table_nodes: HashMap<Digest, TableNode>,
    /// Every leaf that a program may reach.
    pub leaves: HashMap<Digest, Leaf>,
    /// Which tunnels are encrypted, whatever networks ask for.
    pub encryption: EncryptionMode,
}

/// A message from the controller that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("the controller's {item} has a bad {field}")]
pub struct BadMessage {
    /// What kind of item.
    pub item: &'static str,
    /// Which of its fields.
    pub field: &'static str,
}

impl Desired {
    /// The state of a snapshot.
    ///
    /// # Errors
    /// [`BadMessage`] when an item is not well formed.
    pub fn from_snapshot(state: wire::State) -> Result<Self, BadMessage> {
        let mut desired = Desired::default();
        desired.merge(state)?;
        Ok(desired)
    }

    /// Applies a delta.
    ///
    /// # Errors
    /// [`BadMessage`] when an item is not well formed; nothing may be concluded from `self` then.
    pub fn apply(&mut self, delta: wire::Delta) -> Result<(), BadMessage> {
        for number in &delta.removed_wires {
            self.wires.remove(*number);
        }
        for number in &delta.removed_endpoints {
            self.endpoints.remove(number);
        }
        for vni in &delta.removed_networks {
            self.networks.remove(vni);
            self.programs.remove(vni);
            self.staged.remove(vni);
        }
        for number in &delta.removed_nodes {
            self.nodes.remove(number);
        }
        self.merge(delta.changed.unwrap_or_default())
    }

    fn merge(&mut self, state: wire::State) -> Result<(), BadMessage> {
        for node in state.nodes {
            let bad = |field| BadMessage {
                item: "node",
                field,
            };
            if node.number == 0 {
                return Err(bad("number"));
            }
            let address = match node.underlay_address.as_slice() {
                [] => None,
                bytes => Some(<[u8; 4]>::try_from(bytes).map_err(|_| bad("underlay_address"))?),
            };
            let address_v6 = match node.underlay_address_v6.as_slice() {
                [] => None,
                bytes => Some(<[u8; 16]>::try_from(bytes).map_err(|_| bad("underlay_address_v6"))?),
            };
            if address.is_none() && address_v6.is_none() {
                return Err(bad("underlay_address"));
            }
            let keys = node.public_keys.iter();
            let keys = keys.map(|key| <[u8; 32]>::try_from(key.as_slice()).map(PublicKey));
            let parsed = Node {
                name: node.name,
                address: address.map_or(Node::called(node.number), Ipv4Addr::from),
                address_v6: address_v6.map(Ipv6Addr::from),
                cloud: node.cloud,
                region: node.region,
                public_keys: keys
                    .collect::<Result<_, _>>()
                    .map_err(|_| bad("public_keys"))?,
                tunnel_port: u16::try_from(node.tunnel_port).map_err(|_| bad("tunnel_port"))?,
                foreign: node.foreign,
                plaintext: node.foreign && node.plaintext,
            };
            self.nodes.insert(node.number, parsed);
        }
        for network in state.networks {
            let bad = |field| BadMessage {
                item: "network",
                field,
            };
            let vni = Some(network.vni).filter(|vni| *vni != 0 && *vni < 1 << 24);
            let encryption = parse::network_encryption(&network);
            let parsed = Network {
                name: network.name,
                mtu: Some(network.mtu)
                    .filter(|mtu| (576..=65_000).contains(mtu))
                    .ok_or(bad("mtu"))?,
                gateway_v4: parse::address_v4(&network.gateway_v4).ok_or(bad("gateway_v4"))?,
                gateway_v6: parse::address_v6(&network.gateway_v6).ok_or(bad("gateway_v6"))?,
                gateway_mac: parse::mac(&network.gateway_mac).ok_or(bad("gateway_mac"))?,
                prefix_v4: parse::prefix(network.prefix_v4, 32).ok_or(bad("prefix_v4"))?,
                prefix_v6: parse::prefix(network.prefix_v6, 128).ok_or(bad("prefix_v6"))?,
                encryption,
                relayed: network.relayed,
                enforced: network.enforced,
                port: match network.vxlan_port {
                    0 => vxlan::PORT,
                    port => u16::try_from(port).map_err(|_| bad("vxlan_port"))?,
                },
                checksum: network.udp_checksum,
                peers: network.peers,
                outbound: network.outbound,
            };
            self.networks.insert(vni.ok_or(bad("vni"))?, parsed);
        }
        if let Some(encryption) = state.encryption {
            self.encryption = parse::encryption(encryption);
        }
        for endpoint in state.endpoints {
            let (number, parsed) = parse::endpoint(endpoint)?;
            self.endpoints.insert(number, parsed);
        }
        for wire in state.wires {
            let (number, parsed) = parse::wire(wire)?;
            self.wires.insert(number, parsed);
        }
        for program in state.programs {
            let (vni, program) = self.merge_program(program)?;
            self.programs.insert(vni, program);
        }
        for program in state.staged {
            let (vni, program) = self.merge_program(program)?;
            if program.root.is_some() {
                self.staged.insert(vni, program);
            } else {
                self.staged.remove(&vni);
            }
        }
        Ok(())
    }

    fn merge_program(&mut self, program: wire::Program) -> Result<(u32, Program), BadMessage> {
        let (vni, parsed, nodes, leaves) = parse::program(program)?;
        self.table_nodes.extend(nodes);
        self.leaves.extend(leaves);
        Ok((vni, parsed))
    }

    /// Forgets table nodes and leaves that no program reaches.
    pub fn forget_unreachable(&mut self) {
        let mut reached = std::collections::HashSet::new();
        let programs = self.programs.values().chain(self.staged.values());
        let mut queue: Vec<Digest> = programs.filter_map(|program| program.root).collect();
        while let Some(digest) = queue.pop() {
            if reached.insert(digest)
                && let Some(node) = self.table_nodes.get(&digest)
            {
                queue.push(node.default);
                queue.extend(node.edges.iter().map(|(_, next)| *next));
            }
        }
        self.table_nodes
            .retain(|digest, _| reached.contains(digest));
        self.leaves.retain(|digest, _| reached.contains(digest));
    }
}

/// An address of either family as the kernel has it.
pub(crate) fn kernel_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(Ipv6Addr::octets(&address)),
    }
}
