//! The state and its changes as agents hear them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use sunwire_api::agent::{self, controller_message::Message, copy, edge};
use sunwire_api::{
    AuditTotals, EncryptionMode, Name, NetworkChecksum, NetworkEncryption, NetworkEnforcement,
    NetworkOutbound, NodeKind, TunnelStatus, Vni,
};
use sunwire_policy::tables::{self, Digest, FlowTables, Out, Value};

use crate::effects::Effects;
use crate::state::{EndpointRecord, GATEWAY_MAC, NetworkRecord, NodeRecord, State, WireRecord};

/// Everything, at the state's revision.
pub(crate) fn snapshot(state: &State) -> agent::ControllerMessage {
    let programs = state.programs().iter().map(|(network, program)| {
        let revision = state.policies()[&program.policy].tables_revision;
        let vni = state.networks()[network].vni;
        program_of(vni, revision, &program.tables, [None, None])
    });
    let staged = state.staged().iter().map(|(network, staged)| {
        let vni = state.networks()[network].vni;
        program_of(vni, staged.revision, &staged.tables, [None, None])
    });
    let all = agent::State {
        nodes: state
            .nodes()
            .iter()
            .map(|(name, record)| node(name, record))
            .collect(),
        networks: state
            .networks()
            .iter()
            .map(|(name, record)| network(state, name, record))
            .collect(),
        endpoints: state
            .endpoints()
            .iter()
            .map(|(name, record)| endpoint(state, name, record))
            .collect(),
        wires: state
            .wires()
            .iter()
            .map(|(name, record)| connector(state, name, record))
            .collect(),
        programs: programs.collect(),
        staged: staged.collect(),
        encryption: Some(encryption(state)),
    };
    agent::ControllerMessage {
        message: Some(Message::Snapshot(agent::Snapshot {
            revision: state.revision(),
            state: Some(all),
        })),
    }
}

/// What changed. `state` is the state right after the change.
pub(crate) fn delta(state: &State, effects: &Effects) -> agent::ControllerMessage {
    let programs = effects.programs.keys().map(|network| {
        let vni = state.networks()[network].vni;
        match state.programs().get(network) {
            Some(program) => {
                let before = before(state, effects, network);
                program_of(vni, effects.revision, &program.tables, before)
            }
            // No policy, everything is dropped.
            None => rootless(vni, effects.revision),
        }
    });
    let staged = effects.staged.keys().map(|network| {
        let vni = state.networks()[network].vni;
        match state.staged().get(network) {
            Some(staged) => {
                let before = before(state, effects, network);
                program_of(vni, staged.revision, &staged.tables, before)
            }
            None => rootless(vni, effects.revision),
        }
    });
    let changed = agent::State {
        nodes: effects
            .nodes
            .iter()
            .map(|name| node(name, &state.nodes()[name]))
            .collect(),
        networks: effects
            .networks
            .iter()
            .map(|name| network(state, name, &state.networks()[name]))
            .collect(),
        endpoints: effects
            .endpoints
            .iter()
            .map(|name| endpoint(state, name, &state.endpoints()[name]))
            .collect(),
        wires: effects
            .wires
            .iter()
            .map(|name| connector(state, name, &state.wires()[name]))
            .collect(),
        programs: programs.collect(),
        staged: staged.collect(),
        encryption: effects.encryption.then(|| encryption(state)),
    };
    let removed = effects.removed_networks.iter();
    agent::ControllerMessage {
        message: Some(Message::Delta(agent::Delta {
            revision: effects.revision,
            changed: Some(changed),
            removed_nodes: effects.removed_nodes.clone(),
            removed_endpoints: effects.removed_endpoints.clone(),
            removed_networks: removed.map(|vni| vni.get()).collect(),
            removed_wires: effects.removed_wires.clone(),
        })),
    }
}

fn encryption(state: &State) -> agent::Encryption {
    let mode = match state.encryption().mode {
        EncryptionMode::Never => agent::encryption::Mode::Never,
        EncryptionMode::BetweenClouds => agent::encryption::Mode::BetweenClouds,
        EncryptionMode::Always => agent::encryption::Mode::Always,
    };
    agent::Encryption { mode: mode.into() }
}

fn node(name: &Name, record: &NodeRecord) -> agent::Node {
    agent::Node {
        number: record.number,
        name: name.to_string(),
        underlay_address: record
            .underlay_address
            .map_or(Vec::new(), |address| address.octets().to_vec()),
        underlay_address_v6: record
            .underlay_address_v6
            .map_or(Vec::new(), |address| address.octets().to_vec()),
        cloud: record.location.cloud().to_owned(),
        region: record.location.to_string(),
        public_keys: record
            .public_keys
            .iter()
            .map(|key| key.0.to_vec())
            .collect(),
        tunnel_port: u32::from(record.tunnel_port),
        foreign: record.kind != NodeKind::Agent,
        plaintext: record.plaintext,
    }
}

fn network(state: &State, name: &Name, record: &NetworkRecord) -> agent::Network {
    let (gateway_v4, gateway_v6) = by_family(record.gateways());
    agent::Network {
        vni: record.vni.get(),
        name: name.to_string(),
        mtu: u32::from(record.mtu),
        gateway_v4,
        gateway_v6,
        gateway_mac: GATEWAY_MAC.0.to_vec(),
        prefix_v4: prefix(record, IpAddr::is_ipv4),
        prefix_v6: prefix(record, IpAddr::is_ipv6),
        encrypted: record.encryption == NetworkEncryption::Required,
        plaintext: record.encryption == NetworkEncryption::Never,
        relayed: record.relay,
        enforced: record.enforce == NetworkEnforcement::Both,
        vxlan_port: u32::from(record.vxlan_port),
        udp_checksum: record.checksum == NetworkChecksum::Udp,
        peers: record
            .peers
            .iter()
            .map(|peer| state.networks()[peer].vni.get())
            .collect(),
        outbound: match &record.outbound {
            NetworkOutbound::None => 0,
            NetworkOutbound::Local => OUTBOUND_LOCAL,
            NetworkOutbound::Node(node) => state.nodes()[node].number,
        },
    }
}

/// In place of a node's number: packets leave where their endpoint is.
const OUTBOUND_LOCAL: u32 = u32::MAX;

/// Length of the prefix of a network's subnet of one family; 0 where there is none.
fn prefix(record: &NetworkRecord, is_of: fn(&IpAddr) -> bool) -> u32 {
    let mut subnets = record.subnets.iter();
    let subnet = subnets.find(|subnet| is_of(&subnet.address()));
    subnet.map_or(0, |subnet| u32::from(subnet.prefix()))
}

fn endpoint(state: &State, name: &Name, record: &EndpointRecord) -> agent::Endpoint {
    let number_of = |node: &Name| state.nodes()[node].number;
    let (ipv4, ipv6) = by_family(record.addresses.iter().copied());
    let other = record.moving_to.as_ref().or(record.previous.as_ref());
    agent::Endpoint {
        number: record.number,
        name: name.to_string(),
        vni: state.networks()[&record.network].vni.get(),
        device: record.device.to_string(),
        mac: record.mac.0.to_vec(),
        ipv4,
        ipv6,
        node: number_of(&record.node),
        other: other.map_or(0, number_of),
        moving: record.moving_to.is_some(),
        epoch: record.epoch,
    }
}

fn connector(state: &State, name: &Name, record: &WireRecord) -> agent::Wire {
    let [a, b] = [&record.a, &record.b].map(|end| &state.endpoints()[end]);
    agent::Wire {
        number: record.number,
        name: name.to_string(),
        vni: state.networks()[&a.network].vni.get(),
        a: a.number,
        b: b.number,
    }
}

/// The IPv4 and the IPv6 address as bytes; empty where there is none.
fn by_family(addresses: impl Iterator<Item = IpAddr>) -> (Vec<u8>, Vec<u8>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for address in addresses {
        match address {
            IpAddr::V4(address) => v4 = address.octets().to_vec(),
            IpAddr::V6(address) => v6 = address.octets().to_vec(),
        }
    }
    (v4, v6)
}

/// The tables of a network that agents have from before a change: of its program and of its
/// candidate, in force or not any more.
fn before<'a>(
    state: &'a State,
    effects: &'a Effects,
    network: &Name,
) -> [Option<&'a FlowTables>; 2] {
    let program = match effects.programs.get(network) {
        Some(before) => before.tables.as_deref(),
        None => state.programs().get(network).map(|now| &*now.tables),
    };
    let staged = match effects.staged.get(network) {
        Some(before) => before.tables.as_deref(),
        None => state.staged().get(network).map(|now| &*now.tables),
    };
    [program, staged]
}

/// Says that a network has no program, or no candidate.
fn rootless(vni: Vni, revision: u64) -> agent::Program {
    agent::Program {
        vni: vni.get(),
        revision,
        ..agent::Program::default()
    }
}

/// A program, without the nodes and leaves that agents have from before.
fn program_of(
    vni: Vni,
    revision: u64,
    tables: &FlowTables,
    before: [Option<&FlowTables>; 2],
) -> agent::Program {
    let known = |digest: &Digest| {
        before
            .iter()
            .flatten()
            .any(|before| before.nodes.contains_key(digest) || before.leaves.contains_key(digest))
    };
    let nodes = tables.nodes.iter().filter(|(digest, _)| !known(digest));
    let leaves = tables.leaves.iter().filter(|(digest, _)| !known(digest));
    agent::Program {
        vni: vni.get(),
        revision,
        root: bytes(&tables.root),
        nodes: nodes
            .map(|(digest, node)| table_node(digest, node))
            .collect(),
        leaves: leaves
            .map(|(digest, leaf)| agent::Leaf {
                digest: bytes(digest),
                label: leaf.label.clone(),
                counts: leaf.counts.clone(),
                log: leaf.log.clone(),
                copies: leaf.copies.iter().map(copied).collect(),
            })
            .collect(),
        classes: tables.classes.iter().map(address_class).collect(),
        class_none: bytes(&tables.class_none),
        limit_rate: tables.limit.per_second(),
        limit_key: tables.limit.key,
        bucket: tables.bucket,
        translates: tables.translates(),
    }
}

fn table_node(digest: &Digest, node: &tables::TableNode) -> agent::TableNode {
    let edges = node.edges.iter().map(|(value, next)| agent::Edge {
        value: Some(match value {
            Value::Number(number) => edge::Value::Number(*number),
            Value::Class(class) => edge::Value::Class(bytes(class)),
        }),
        next: bytes(next),
    });
    agent::TableNode {
        digest: bytes(digest),
        field: node.field as u32,
        shift: u32::from(node.shift),
        width: u32::from(node.width),
        edges: edges.collect(),
        default: bytes(&node.default),
    }
}

fn copied(copied: &tables::Copied) -> agent::Copy {
    agent::Copy {
        out: match copied.out {
            Some(Out::Owner) => Some(copy::Out::Owner(true)),
            Some(Out::Endpoint(number)) => Some(copy::Out::Endpoint(number)),
            None if copied.members.is_empty() => None,
            None => Some(copy::Out::Members(agent::Members {
                endpoints: copied.members.clone(),
            })),
        },
        eth_src: copied.eth_src.map(|mac| mac.to_vec()),
        eth_dst: copied.eth_dst.map(|mac| mac.to_vec()),
        dscp: copied.dscp.map(u32::from),
        src_port: copied.src_port.map(u32::from),
        dst_port: copied.dst_port.map(u32::from),
        ip4_src: copied.ip4_src.map(|address| address.octets().to_vec()),
        ip4_dst: copied.ip4_dst.map(|address| address.octets().to_vec()),
        ip6_src: copied.ip6_src.map(|address| address.octets().to_vec()),
        ip6_dst: copied.ip6_dst.map(|address| address.octets().to_vec()),
        translated: copied.translated,
    }
}

fn address_class(class: &tables::AddressClass) -> agent::AddressClass {
    agent::AddressClass {
        address: match class.address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        },
        prefix: u32::from(class.prefix),
        class: bytes(&class.class),
    }
}

/// What an agent counts of a candidate: its network, and the counts or why it counts nothing.
/// `None` when the candidate is not the present one.
pub(crate) fn audited(
    state: &State,
    staged: agent::StagedAudit,
) -> Option<(Name, Result<Vec<AuditTotals>, String>)> {
    let network = state
        .networks()
        .iter()
        .find(|(_, network)| network.vni.get() == staged.vni)
        .map(|(name, _)| name)?;
    if state.staged().get(network)?.revision != staged.revision {
        return None;
    }
    if !staged.refused.is_empty() {
        return Some((network.clone(), Err(staged.refused)));
    }
    let counts = staged.counts.into_iter().map(|count| AuditTotals {
        live_label: count.live_label,
        staged_label: count.staged_label,
        live_allowed: count.live_allowed,
        staged_allowed: count.staged_allowed,
        packets: count.packets,
        bytes: count.bytes,
    });
    Some((network.clone(), Ok(counts.collect())))
}

/// How packets travel from a node to the others, as its agent says. Nodes that are gone are left
/// out.
pub(crate) fn tunnels(state: &State, tunnels: &[agent::Tunnel]) -> Vec<TunnelStatus> {
    let named: BTreeMap<u32, &Name> = state
        .nodes()
        .iter()
        .map(|(name, node)| (node.number, name))
        .collect();
    let status = |tunnel: &agent::Tunnel| {
        let node = (*named.get(&tunnel.node)?).clone();
        Some(TunnelStatus::told(node, tunnel))
    };
    let mut tunnels: Vec<TunnelStatus> = tunnels.iter().filter_map(status).collect();
    tunnels.sort_by(|a, b| a.node.cmp(&b.node));
    tunnels
}

fn bytes(digest: &Digest) -> Vec<u8> {
    digest.0.to_vec()
}
