//! Items of the controller's messages, each checked once on its way in.

use std::net::IpAddr;

use sunwire_api::{EncryptionMode, NetworkEncryption, agent as wire};
use sunwire_dataplane_common::{
    address::{Address, Mac},
    entries::LABEL_BYTES,
    flow_key::Field,
    group::MAX_MEMBERS,
    limit::{Limit, RATE_MAX},
    tables::{Copied, MAX_COPIES, MAX_COUNTS, OUT_ENDPOINT, OUT_GROUP, OUT_NONE, OUT_OWNER, set},
    wire::NUMBER_MAX,
};

use crate::{groups::sets::Members, wires::Wire};

use super::{BadMessage, Digest, Endpoint, Leaf, Program, TableNode, Value};

/// A program, its VNI in front, and the table nodes and leaves that came with it.
type WithTables = (u32, Program, Vec<(Digest, TableNode)>, Vec<(Digest, Leaf)>);

/// A program, in force or staged.
pub(super) fn program(program: wire::Program) -> Result<WithTables, BadMessage> {
    let bad = |field| BadMessage {
        item: "program",
        field,
    };
    let nodes = program.nodes.into_iter().map(table_node);
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    let leaves = program.leaves.into_iter().map(leaf);
    let leaves = leaves.collect::<Result<Vec<_>, _>>()?;
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
    if program.limit_rate > RATE_MAX {
        return Err(bad("limit_rate"));
    }
    let parsed = Program {
        revision: program.revision,
        root,
        classes,
        class_none,
        limit: Limit::new(program.limit_rate, program.limit_key),
        bucket: program.bucket,
        translates: program.translates,
    };
    Ok((program.vni, parsed, nodes, leaves))
}

/// A prefix length in bits.
pub(super) fn prefix(length: u32, bits: u8) -> Option<u8> {
    u8::try_from(length).ok().filter(|length| *length <= bits)
}

/// An endpoint with its number.
pub(super) fn endpoint(endpoint: wire::Endpoint) -> Result<(u32, Endpoint), BadMessage> {
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

/// A wire with its number.
pub(super) fn wire(wire: wire::Wire) -> Result<(u32, Wire), BadMessage> {
    let bad = |field| BadMessage {
        item: "wire",
        field,
    };
    if wire.number == 0 || wire.number > NUMBER_MAX {
        return Err(bad("number"));
    }
    if wire.a == 0 || wire.b == 0 || wire.a == wire.b {
        return Err(bad("a or b"));
    }
    let parsed = Wire {
        name: wire.name,
        vni: Some(wire.vni)
            .filter(|vni| *vni != 0 && *vni < 1 << 24)
            .ok_or(bad("vni"))?,
        ends: [wire.a, wire.b],
    };
    Ok((wire.number, parsed))
}

fn table_node(node: wire::TableNode) -> Result<(Digest, TableNode), BadMessage> {
    let bad = |field| BadMessage {
        item: "table node",
        field,
    };
    let field = u8::try_from(node.field)
        .ok()
        .and_then(Field::from_number)
        .ok_or(bad("field"))?;
    if node.shift > 31 || !(1..=32).contains(&node.width) {
        return Err(bad("shift or width"));
    }
    // Fields that share a slot: bits of another one must not be looked at.
    if field.bits() < 32 && node.shift + node.width > u32::from(field.bits()) {
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

fn leaf(leaf: wire::Leaf) -> Result<(Digest, Leaf), BadMessage> {
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
    if leaf.counts.len() > MAX_COUNTS || leaf.counts.iter().any(|name| name.len() > LABEL_BYTES) {
        return Err(bad("counts"));
    }
    if leaf
        .log
        .as_ref()
        .is_some_and(|text| text.len() > LABEL_BYTES)
    {
        return Err(bad("log"));
    }
    let mut members = Vec::new();
    let copies = leaf
        .copies
        .iter()
        .map(|copy| copied(copy, &mut members))
        .collect::<Result<Vec<_>, _>>()?;
    if copies
        .iter()
        .skip(1)
        .any(|copy| copy.set & set::TRANSLATE != 0)
    {
        return Err(bad("translated"));
    }
    let digest = digest(&leaf.digest).ok_or(bad("digest"))?;
    Ok((
        digest,
        Leaf {
            label: leaf.label,
            counts: leaf.counts,
            log: leaf.log,
            copies,
            members,
        },
    ))
}

fn copied(copy: &wire::Copy, sets: &mut Vec<Members>) -> Result<Copied, BadMessage> {
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
        Some(wire::copy::Out::Members(ref members)) => {
            let numbers = &members.endpoints;
            let is_set = numbers.is_sorted_by(|a, b| a < b) && !numbers.is_empty();
            if !is_set || numbers.len() > MAX_MEMBERS {
                return Err(bad("members"));
            }
            copied.out = OUT_GROUP;
            copied.endpoint = sets.len() as u32;
            sets.push(numbers.as_slice().into());
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
    if let Some(bytes) = &copy.ip6_src {
        let bytes = <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| bad("ip6_src"))?;
        copied.ip6_src = Address::v6(bytes);
        copied.set |= set::IP6_SRC;
    }
    if let Some(bytes) = &copy.ip6_dst {
        let bytes = <[u8; 16]>::try_from(bytes.as_slice()).map_err(|_| bad("ip6_dst"))?;
        copied.ip6_dst = Address::v6(bytes);
        copied.set |= set::IP6_DST;
    }
    if copy.translated {
        copied.set |= set::TRANSLATE;
    }
    Ok(copied)
}

fn digest(bytes: &[u8]) -> Option<Digest> {
    bytes.try_into().ok().map(Digest)
}

/// A mode that this version does not know is taken for the strictest: what it leaves open is sent
/// encrypted or not at all.
pub(super) fn encryption(encryption: wire::Encryption) -> EncryptionMode {
    match encryption.mode() {
        wire::encryption::Mode::Never => EncryptionMode::Never,
        wire::encryption::Mode::BetweenClouds => EncryptionMode::BetweenClouds,
        wire::encryption::Mode::Always | wire::encryption::Mode::Unspecified => {
            EncryptionMode::Always
        }
    }
}

/// Whether a network's packets are encrypted. What contradicts itself is taken for the stricter.
pub(super) fn network_encryption(network: &wire::Network) -> NetworkEncryption {
    match (network.encrypted, network.plaintext) {
        (true, _) => NetworkEncryption::Required,
        (false, true) => NetworkEncryption::Never,
        (false, false) => NetworkEncryption::Default,
    }
}

/// A MAC address.
pub(super) fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().map(Mac::new)
}

/// An IPv4 address, or no address when there are no bytes.
pub(super) fn address_v4(bytes: &[u8]) -> Option<Address> {
    match bytes {
        [] => Some(Address::ZERO),
        _ => <[u8; 4]>::try_from(bytes).ok().map(Address::v4),
    }
}

/// An IPv6 address, or no address when there are no bytes.
pub(super) fn address_v6(bytes: &[u8]) -> Option<Address> {
    match bytes {
        [] => Some(Address::ZERO),
        _ => <[u8; 16]>::try_from(bytes).ok().map(Address::v6),
    }
}
