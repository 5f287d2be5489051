//! Compiled policies in the form that an agent takes from the controller's messages.

use sunwire_dataplane_common::address::{Address, Mac};
use sunwire_dataplane_common::tables::{Copied, OUT_ENDPOINT, OUT_GROUP, OUT_NONE, OUT_OWNER, set};
use sunwire_policy::tables::{self, FlowTables, Out};
use sunwire_userspace::state::{Desired, Digest, Leaf, Program, TableNode, Value};

/// Puts tables in force for network `vni` in `desired`.
pub(super) fn install(tables: &FlowTables, vni: u32, desired: &mut Desired) {
    for (key, node) in &tables.nodes {
        desired.table_nodes.insert(digest(key), table_node(node));
    }
    for (key, leaf) in &tables.leaves {
        desired.leaves.insert(digest(key), self::leaf(leaf));
    }
    let classes = tables.classes.iter();
    let program = Program {
        revision: 1,
        root: Some(digest(&tables.root)),
        classes: classes
            .map(|class| (class.address, class.prefix, digest(&class.class)))
            .collect(),
        class_none: digest(&tables.class_none),
        limit: tables.limit,
        bucket: tables.bucket,
        translates: tables.translates(),
    };
    desired.programs.insert(vni, program);
}

fn table_node(node: &tables::TableNode) -> TableNode {
    let edges = node.edges.iter().map(|(value, next)| {
        let value = match value {
            tables::Value::Number(number) => Value::Number(*number),
            tables::Value::Class(class) => Value::Class(digest(class)),
        };
        (value, digest(next))
    });
    TableNode {
        field: node.field,
        shift: node.shift,
        width: node.width,
        edges: edges.collect(),
        default: digest(&node.default),
    }
}

fn leaf(leaf: &tables::Leaf) -> Leaf {
    let mut members = Vec::new();
    let copies = leaf.copies.iter().map(|copy| {
        let mut made = copied(copy);
        if !copy.members.is_empty() {
            made.out = OUT_GROUP;
            made.endpoint = members.len() as u32;
            members.push(copy.members.as_slice().into());
        }
        made
    });
    let copies = copies.collect();
    Leaf {
        label: leaf.label.clone(),
        counts: leaf.counts.clone(),
        log: leaf.log.clone(),
        copies,
        members,
    }
}

fn copied(copy: &tables::Copied) -> Copied {
    let (out, endpoint) = match copy.out {
        None => (OUT_NONE, 0),
        Some(Out::Owner) => (OUT_OWNER, 0),
        Some(Out::Endpoint(number)) => (OUT_ENDPOINT, number),
    };
    let mut copied = Copied {
        out,
        endpoint,
        ..Copied::default()
    };
    let mut mark = |given: bool, bit| copied.set |= if given { bit } else { 0 };
    mark(copy.eth_src.is_some(), set::ETH_SRC);
    mark(copy.eth_dst.is_some(), set::ETH_DST);
    mark(copy.dscp.is_some(), set::DSCP);
    mark(copy.src_port.is_some(), set::SRC_PORT);
    mark(copy.dst_port.is_some(), set::DST_PORT);
    mark(copy.ip4_src.is_some(), set::IP4_SRC);
    mark(copy.ip4_dst.is_some(), set::IP4_DST);
    mark(copy.ip6_src.is_some(), set::IP6_SRC);
    mark(copy.ip6_dst.is_some(), set::IP6_DST);
    mark(copy.translated, set::TRANSLATE);
    copied.eth_src = copy.eth_src.map(Mac::new).unwrap_or_default();
    copied.eth_dst = copy.eth_dst.map(Mac::new).unwrap_or_default();
    copied.dscp = copy.dscp.unwrap_or_default();
    copied.src_port = copy.src_port.unwrap_or_default();
    copied.dst_port = copy.dst_port.unwrap_or_default();
    let word = |address: std::net::Ipv4Addr| u32::from_ne_bytes(address.octets());
    copied.ip4_src = copy.ip4_src.map(word).unwrap_or_default();
    copied.ip4_dst = copy.ip4_dst.map(word).unwrap_or_default();
    let words = |address: std::net::Ipv6Addr| Address::v6(address.octets());
    copied.ip6_src = copy.ip6_src.map(words).unwrap_or_default();
    copied.ip6_dst = copy.ip6_dst.map(words).unwrap_or_default();
    copied
}

fn digest(digest: &tables::Digest) -> Digest {
    Digest(digest.0)
}
