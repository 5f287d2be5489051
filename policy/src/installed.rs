//! Flow tables in memory, walked by the code that the kernel runs.
//!
//! For tests and for explaining a decision: digests become dense numbers, and
//! [`walk`] goes from the root to a verdict.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use sunwire_dataplane_common::flow_key::{FLOW_KEY_SLOTS, Field as TableField, FlowKey};
use sunwire_dataplane_common::tables::{EdgeKey, KIND_NODE, Next, Tables, walk};

use crate::address::{Address, Family, Prefix, number};
use crate::field::Field;
use crate::packet::{Packet, Place};
use crate::tables::{Digest, FlowTables, Leaf, Out, TableNode, Value};

/// Flow tables with dense numbers.
pub struct Installed {
    root: Next,
    edges: HashMap<EdgeKey, Next>,
    defaults: HashMap<u32, Next>,
    verdicts: Vec<Leaf>,
    classes: HashMap<Prefix, u32>,
    class_none: u32,
}

/// Tables that refer to a node or leaf that they do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flow tables lack {0:?}")]
pub struct Incomplete(pub Digest);

impl Installed {
    /// Gives numbers to everything in the tables.
    ///
    /// # Errors
    /// [`Incomplete`] when something that is referred to is not there.
    pub fn new(tables: &FlowTables) -> Result<Self, Incomplete> {
        let classes: BTreeSet<Digest> = tables
            .classes
            .iter()
            .map(|c| c.class)
            .chain([tables.class_none])
            .collect();
        // Numbers start at 1: zero is no class.
        let class_ids: HashMap<Digest, u32> = classes.into_iter().zip(1..).collect();
        let mut pointers: HashMap<Digest, Next> = HashMap::new();
        for (slot, digest) in tables.leaves.keys().enumerate() {
            pointers.insert(*digest, Next::leaf(slot as u32));
        }
        for (slot, (digest, node)) in tables.nodes.iter().enumerate() {
            pointers.insert(*digest, pointer(slot as u32, node));
        }
        let find = |digest: &Digest| pointers.get(digest).copied().ok_or(Incomplete(*digest));
        let mut edges = HashMap::new();
        let mut defaults = HashMap::new();
        for (digest, node) in &tables.nodes {
            let own = find(digest)?;
            defaults.insert(own.default, find(&node.default)?);
            for (value, child) in &node.edges {
                let value = match value {
                    Value::Number(number) => *number,
                    // No address has a class that no prefix names.
                    Value::Class(class) => match class_ids.get(class) {
                        Some(id) => *id,
                        None => continue,
                    },
                };
                edges.insert(
                    EdgeKey {
                        node: own.node,
                        value,
                    },
                    find(child)?,
                );
            }
        }
        Ok(Installed {
            root: find(&tables.root)?,
            edges,
            defaults,
            verdicts: tables.leaves.values().cloned().collect(),
            classes: tables
                .classes
                .iter()
                .map(|c| (Prefix::new(c.address, c.prefix), class_ids[&c.class]))
                .collect(),
            class_none: class_ids[&tables.class_none],
        })
    }

    /// The verdict on a packet; `None` when the walk does not end, which complete tables exclude.
    #[must_use]
    pub fn verdict(&self, packet: &Packet) -> Option<&Leaf> {
        let slot = walk(self, self.root, &self.key(packet))?;
        self.verdicts.get(slot as usize)
    }

    /// What the tables see of a packet.
    #[must_use]
    pub fn key(&self, packet: &Packet) -> FlowKey {
        let mut key = FlowKey::default();
        let mut set = |field: TableField, value: u64| {
            let (slot, shift) = field.place();
            key.slots[usize::from(slot) % FLOW_KEY_SLOTS] |= (value as u32) << shift;
        };
        set(TableField::SourceClass, self.class(packet.src).into());
        set(TableField::DestinationClass, self.class(packet.dst).into());
        for (slot, field) in [
            (TableField::Endpoint, Field::Port),
            (TableField::Node, Field::Node),
            (TableField::EtherType, Field::EtherType),
            (TableField::Protocol, Field::Protocol),
            (TableField::Dscp, Field::Dscp),
            (TableField::SourcePort, Field::SourcePort),
            (TableField::DestinationPort, Field::DestinationPort),
            (TableField::IcmpType, Field::IcmpType),
            (TableField::IcmpCode, Field::IcmpCode),
            (TableField::EthSrcLow, Field::EthSource),
            (TableField::EthDstLow, Field::EthDestination),
            (TableField::Connection, Field::Connection),
            (TableField::Token, Field::Token),
            (TableField::Bucket, Field::Bucket),
        ] {
            set(slot, packet.number(field));
        }
        set(TableField::EthSrcHigh, packet.eth_src >> 32);
        set(TableField::EthDstHigh, packet.eth_dst >> 32);
        key
    }

    fn class(&self, address: Address) -> u32 {
        let address: IpAddr = match address {
            Address::None => return self.class_none,
            Address::V4(v4) => v4.into(),
            Address::V6(v6) => v6.into(),
        };
        let (family, _) = number(address);
        let lengths = match family {
            Family::V4 => 0..=32,
            Family::V6 => 0..=128,
        };
        let found = lengths
            .rev()
            .find_map(|length| self.classes.get(&Prefix::new(address, length)));
        found.copied().unwrap_or(0)
    }
}

impl Tables for Installed {
    fn edge(&self, key: &EdgeKey) -> Option<Next> {
        self.edges.get(key).copied()
    }

    fn node(&self, slot: u32) -> Option<Next> {
        self.defaults.get(&slot).copied()
    }
}

fn pointer(slot: u32, node: &TableNode) -> Next {
    let (field, shift) = node.field.place();
    Next {
        node: slot,
        default: slot,
        field,
        shift: node.shift + shift,
        width: node.width,
        kind: KIND_NODE,
    }
}

impl Leaf {
    /// The copies that leave when a packet gets this verdict, each with where it goes.
    #[must_use]
    pub fn emit(&self, packet: &Packet) -> Vec<(Packet, Place)> {
        let mac = |mac: [u8; 6]| mac.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let emit = |copy: &crate::tables::Copied| {
            let mut out = *packet;
            out.eth_src = copy.eth_src.map_or(out.eth_src, mac);
            out.eth_dst = copy.eth_dst.map_or(out.eth_dst, mac);
            out.dscp = copy.dscp.unwrap_or(out.dscp);
            out.src_port = copy.src_port.unwrap_or(out.src_port);
            out.dst_port = copy.dst_port.unwrap_or(out.dst_port);
            out.src = copy.ip4_src.map_or(out.src, Address::V4);
            out.dst = copy.ip4_dst.map_or(out.dst, Address::V4);
            out.src = copy.ip6_src.map_or(out.src, Address::V6);
            out.dst = copy.ip6_dst.map_or(out.dst, Address::V6);
            out.translated |= u8::from(copy.translated);
            let place = match copy.out {
                None => Place::Entry,
                Some(Out::Owner) => Place::Owner,
                Some(Out::Endpoint(number)) => Place::Endpoint(number),
            };
            (out, place)
        };
        let copies = self.copies.iter();
        copies
            .flat_map(|copy| {
                let (out, place) = emit(copy);
                let to = copy.members.iter().filter(|m| **m != packet.port);
                let several = to.map(move |m| (out, Place::Endpoint(*m)));
                let one = copy.members.is_empty().then_some((out, place));
                one.into_iter().chain(several)
            })
            .collect()
    }
}
