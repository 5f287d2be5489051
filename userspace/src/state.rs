//! What the controller wants of this node, parsed once into types that cannot be wrong.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sunwire_api::agent as wire;
use sunwire_dataplane_common::{
    address::{Address, Mac},
    entries::LABEL_BYTES,
    flow_key::Field,
    tables::{Copied, MAX_COPIES, OUT_ENDPOINT, OUT_NONE, OUT_OWNER, set},
};

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
    /// Address on the underlay.
    pub address: Ipv4Addr,
}

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
    /// The copies, in kernel layout.
    pub copies: Vec<Copied>,
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
    /// Policies by VNI.
    pub programs: BTreeMap<u32, Program>,
    /// Every table node that a program may reach.
    pub table_nodes: HashMap<Digest, TableNode>,
    /// Every leaf that a program may reach.
    pub leaves: HashMap<Digest, Leaf>,
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
        for number in &delta.removed_endpoints {
            self.endpoints.remove(number);
        }
        for vni in &delta.removed_networks {
            self.networks.remove(vni);
            self.programs.remove(vni);
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
            let address = <[u8; 4]>::try_from(node.underlay_address.as_slice())
                .map_err(|_| bad("underlay_address"))?;
            if node.number == 0 {
                return Err(bad("number"));
            }
            let address = Ipv4Addr::from(address);
            self.nodes.insert(
                node.number,
                Node {
                    name: node.name,
                    address,
                },
            );
        }
        for network in state.networks {
            let bad = |field| BadMessage {
                item: "network",
                field,
            };
            let vni = Some(network.vni).filter(|vni| *vni != 0 && *vni < 1 << 24);
            let parsed = Network {
                name: network.name,
                mtu: Some(network.mtu)
                    .filter(|mtu| (576..=65_000).contains(mtu))
                    .ok_or(bad("mtu"))?,
                gateway_v4: address_v4(&network.gateway_v4).ok_or(bad("gateway_v4"))?,
                gateway_v6: address_v6(&network.gateway_v6).ok_or(bad("gateway_v6"))?,
                gateway_mac: mac(&network.gateway_mac).ok_or(bad("gateway_mac"))?,
            };
            self.networks.insert(vni.ok_or(bad("vni"))?, parsed);
        }
        for endpoint in state.endpoints {
            let (number, parsed) = parse_endpoint(endpoint)?;
            self.endpoints.insert(number, parsed);
        }
        for program in state.programs {
            self.merge_program(program)?;
        }
        Ok(())
    }

    fn merge_program(&mut self, program: wire::Program) -> Result<(), BadMessage> {
        let bad = |field| BadMessage {
            item: "program",
            field,
        };
        for node in program.nodes {
            let (digest, parsed) = parse_table_node(node)?;
            self.table_nodes.insert(digest, parsed);
        }
        for leaf in program.leaves {
            let (digest, parsed) = parse_leaf(leaf)?;
            self.leaves.insert(digest, parsed);
        }
        let root = if program.root.is_empty() {
            None
        } else {
            Some(digest(&program.root).ok_or(bad("root"))?)
        };
        let classes = program
            .classes
            .iter()
            .map(|class| {
                let address = match class.address.len() {
                    4 => <[u8; 4]>::try_from(class.address.as_slice()).map(IpAddr::from),
                    _ => <[u8; 16]>::try_from(class.address.as_slice()).map(IpAddr::from),
                };
                let address = address.map_err(|_| bad("classes.address"))?;
                let bits = if address.is_ipv4() { 32 } else { 128 };
                if class.prefix > bits {
                    return Err(bad("classes.prefix"));
                }
                let class_digest = digest(&class.class).ok_or(bad("classes.class"))?;
                Ok((address, class.prefix as u8, class_digest))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let class_none = match (root, program.class_none.is_empty()) {
            (None, true) => Digest([0; 32]),
            _ => digest(&program.class_none).ok_or(bad("class_none"))?,
        };
        let parsed = Program {
            revision: program.revision,
            root,
            classes,
            class_none,
        };
        self.programs.insert(program.vni, parsed);
        Ok(())
    }

    /// Forgets table nodes and leaves that no program reaches.
    pub fn forget_unreachable(&mut self) {
        let mut reached = std::collections::HashSet::new();
        let mut queue: Vec<Digest> = self.programs.values().filter_map(|p| p.root).collect();
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

fn parse_endpoint(endpoint: wire::Endpoint) -> Result<(u32, Endpoint), BadMessage> {
    let bad = |field| BadMessage {
        item: "endpoint",
        field,
    };
    if endpoint.number == 0 {
        return Err(bad("number"));
    }
    // IFNAMSIZ counts the terminating zero.
    if endpoint.device.is_empty() || endpoint.device.len() > 15 {
        return Err(bad("device"));
    }
    let parsed = Endpoint {
        name: endpoint.name,
        vni: endpoint.vni,
        device: endpoint.device,
        mac: mac(&endpoint.mac).ok_or(bad("mac"))?,
        ipv4: address_v4(&endpoint.ipv4).ok_or(bad("ipv4"))?,
        ipv6: address_v6(&endpoint.ipv6).ok_or(bad("ipv6"))?,
        node: endpoint.node,
        other: endpoint.other,
        moving: endpoint.moving,
        epoch: endpoint.epoch,
    };
    Ok((endpoint.number, parsed))
}

fn parse_table_node(node: wire::TableNode) -> Result<(Digest, TableNode), BadMessage> {
    let bad = |field| BadMessage {
        item: "table node",
        field,
    };
    let field = u8::try_from(node.field)
        .ok()
        .and_then(Field::from_slot)
        .ok_or(bad("field"))?;
    if node.shift > 31 || !(1..=32).contains(&node.width) {
        return Err(bad("shift or width"));
    }
    let edges = node
        .edges
        .iter()
        .map(|edge| {
            let value = match (&edge.value, field.is_class()) {
                (Some(wire::edge::Value::Number(number)), false) => Value::Number(*number),
                (Some(wire::edge::Value::Class(class)), true) => {
                    Value::Class(digest(class).ok_or(bad("edges.class"))?)
                }
                _ => return Err(bad("edges.value")),
            };
            Ok((value, digest(&edge.next).ok_or(bad("edges.next"))?))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let parsed = TableNode {
        field,
        shift: node.shift as u8,
        width: node.width as u8,
        edges,
        default: digest(&node.default).ok_or(bad("default"))?,
    };
    Ok((digest(&node.digest).ok_or(bad("digest"))?, parsed))
}

fn parse_leaf(leaf: wire::Leaf) -> Result<(Digest, Leaf), BadMessage> {
    let bad = |field| BadMessage {
        item: "leaf",
        field,
    };
    if leaf.copies.len() > MAX_COPIES {
        return Err(bad("copies"));
    }
    if leaf.label.len() > LABEL_BYTES {
        return Err(bad("label"));
    }
    let copies = leaf
        .copies
        .iter()
        .map(parse_copy)
        .collect::<Result<Vec<_>, _>>()?;
    let digest = digest(&leaf.digest).ok_or(bad("digest"))?;
    Ok((
        digest,
        Leaf {
            label: leaf.label,
            copies,
        },
    ))
}

fn parse_copy(copy: &wire::Copy) -> Result<Copied, BadMessage> {
    let bad = |field| BadMessage {
        item: "copy",
        field,
    };
    let mut copied = Copied::default();
    match copy.out {
        None | Some(wire::copy::Out::Owner(false)) => copied.out = OUT_NONE,
        Some(wire::copy::Out::Owner(true)) => copied.out = OUT_OWNER,
        Some(wire::copy::Out::Endpoint(number)) => {
            copied.out = OUT_ENDPOINT;
            copied.endpoint = number;
        }
    }
    if let Some(bytes) = &copy.eth_src {
        copied.eth_src = mac(bytes).ok_or(bad("eth_src"))?;
        copied.set |= set::ETH_SRC;
    }
    if let Some(bytes) = &copy.eth_dst {
        copied.eth_dst = mac(bytes).ok_or(bad("eth_dst"))?;
        copied.set |= set::ETH_DST;
    }
    if let Some(dscp) = copy.dscp {
        copied.dscp = u8::try_from(dscp)
            .ok()
            .filter(|dscp| *dscp < 64)
            .ok_or(bad("dscp"))?;
        copied.set |= set::DSCP;
    }
    if let Some(port) = copy.src_port {
        copied.src_port = u16::try_from(port).map_err(|_| bad("src_port"))?;
        copied.set |= set::SRC_PORT;
    }
    if let Some(port) = copy.dst_port {
        copied.dst_port = u16::try_from(port).map_err(|_| bad("dst_port"))?;
        copied.set |= set::DST_PORT;
    }
    if let Some(bytes) = &copy.ip4_src {
        let bytes = <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| bad("ip4_src"))?;
        copied.ip4_src = u32::from_ne_bytes(bytes);
        copied.set |= set::IP4_SRC;
    }
    if let Some(bytes) = &copy.ip4_dst {
        let bytes = <[u8; 4]>::try_from(bytes.as_slice()).map_err(|_| bad("ip4_dst"))?;
        copied.ip4_dst = u32::from_ne_bytes(bytes);
        copied.set |= set::IP4_DST;
    }
    Ok(copied)
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest)
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac::new)
}

/// An IPv4 address, or no address when there are no bytes.
fn address_v4(bytes: &[u8]) -> Option<Address> {
    match bytes {
        [] => Some(Address::ZERO),
        _ => <[u8; 4]>::try_from(bytes).ok().map(Address::v4),
    }
}

/// An IPv6 address, or no address when there are no bytes.
fn address_v6(bytes: &[u8]) -> Option<Address> {
    match bytes {
        [] => Some(Address::ZERO),
        _ => <[u8; 16]>::try_from(bytes).ok().map(Address::v6),
    }
}

/// An address of either family as the kernel has it.
pub(crate) fn kernel_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::v4(address.octets()),
        IpAddr::V6(address) => Address::v6(Ipv6Addr::octets(&address)),
    }
}
