//! Forwarding decision diagram to flow tables.
//!
//! Every diagram node becomes one table node where few exact edges suffice, and a few levels of
//! them where intervals are wide. A MAC address is tested in two halves. What the data plane cannot
//! do is refused by name, and nothing is ever left out to make a policy fit.

mod leaf;
mod radix;
mod refused;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sunwire_dataplane_common::flow_key::Field as TableField;
use sunwire_dataplane_common::tables::MAX_DEPTH;

use crate::compile::Fdd;
use crate::fdd::{Id, Node};
use crate::feature::Feature;
use crate::field::Field;
use crate::tables::{AddressClass, Digest, FlowTables, TableNode, Value};
use crate::term::Resolved;
pub use refused::Refused;

/// What the data plane has room for, per network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Inner nodes.
    pub nodes: usize,
    /// Exact edges of all nodes.
    pub edges: usize,
    /// Verdicts.
    pub leaves: usize,
    /// Prefixes with a class.
    pub prefixes: usize,
    /// Distinct labels.
    pub labels: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            nodes: 1 << 16,
            edges: 1 << 17,
            leaves: 1 << 13,
            prefixes: 1 << 16,
            labels: 1 << 12,
        }
    }
}

/// Lowers a compiled policy to flow tables.
///
/// # Errors
/// [`Refused`] when the data plane cannot do what the policy says.
pub fn lower(fdd: &Fdd, policy: &Resolved, capacity: &Capacity) -> Result<FlowTables, Refused> {
    if let Some((feature, _)) = policy.needs().first() {
        return Err(Refused::NotSupported(*feature));
    }
    let mut lowering = Lowering {
        fdd,
        policy,
        done: HashMap::new(),
        depths: HashMap::new(),
        tables: FlowTables {
            root: Digest([0; 32]),
            nodes: BTreeMap::new(),
            leaves: BTreeMap::new(),
            classes: Vec::new(),
            class_none: fdd.atoms.digests[fdd.atoms.none as usize],
        },
    };
    let root = lowering.node(fdd.root)?;
    let depth = lowering.depth(root);
    let mut tables = lowering.tables;
    tables.root = root;
    let regions = fdd.atoms.regions.iter();
    tables.classes = regions
        .map(|(prefix, class)| AddressClass {
            address: prefix.family.address(prefix.first),
            prefix: prefix.length,
            class: fdd.atoms.digests[*class as usize],
        })
        .collect();
    check(&tables, depth, capacity)?;
    Ok(tables)
}

fn check(tables: &FlowTables, depth: usize, capacity: &Capacity) -> Result<(), Refused> {
    if depth > MAX_DEPTH {
        return Err(Refused::TooDeep { depth });
    }
    let labels: BTreeSet<&str> = tables
        .leaves
        .values()
        .map(|leaf| leaf.label.as_str())
        .collect();
    let edges = tables.nodes.values().map(|node| node.edges.len()).sum();
    for (what, count, limit) in [
        ("table nodes", tables.nodes.len(), capacity.nodes),
        ("table edges", edges, capacity.edges),
        ("verdicts", tables.leaves.len(), capacity.leaves),
        ("address prefixes", tables.classes.len(), capacity.prefixes),
        ("labels", labels.len(), capacity.labels),
    ] {
        if count > limit {
            return Err(Refused::TooLarge { what, count, limit });
        }
    }
    Ok(())
}

struct Lowering<'a> {
    fdd: &'a Fdd,
    policy: &'a Resolved,
    done: HashMap<Id, Digest>,
    depths: HashMap<Digest, usize>,
    tables: FlowTables,
}

impl Lowering<'_> {
    fn node(&mut self, id: Id) -> Result<Digest, Refused> {
        if let Some(done) = self.done.get(&id) {
            return Ok(*done);
        }
        let digest = match self.fdd.store.node(id).clone() {
            Node::Leaf(leaf) => {
                let leaf = leaf::lower_leaf(self.fdd, self.policy, &leaf)?;
                let digest = leaf::digest(&leaf);
                self.tables.leaves.insert(digest, leaf);
                digest
            }
            Node::Test { rank, cuts } => {
                let mut parts = Vec::with_capacity(cuts.len());
                for (start, child) in cuts.iter() {
                    parts.push((*start, self.node(*child)?));
                }
                // Different diagrams may lower to one table, when they differ by unused labels.
                parts.dedup_by_key(|(_, child)| *child);
                match parts.as_slice() {
                    [(_, only)] => *only,
                    _ => self.test(self.fdd.store.order().0[usize::from(rank)], &parts)?,
                }
            }
        };
        self.done.insert(id, digest);
        Ok(digest)
    }

    fn test(&mut self, field: Field, parts: &[(u64, Digest)]) -> Result<Digest, Refused> {
        let table = match field {
            Field::Source => return Ok(self.class_test(TableField::SourceClass, parts)),
            Field::Destination => {
                return Ok(self.class_test(TableField::DestinationClass, parts));
            }
            Field::EthSource => {
                return Ok(self.mac_test(TableField::EthSrcHigh, TableField::EthSrcLow, parts));
            }
            Field::EthDestination => {
                return Ok(self.mac_test(TableField::EthDstHigh, TableField::EthDstLow, parts));
            }
            Field::Port => TableField::Endpoint,
            Field::Node => TableField::Node,
            Field::EtherType => TableField::EtherType,
            Field::Protocol => TableField::Protocol,
            Field::Dscp => TableField::Dscp,
            Field::SourcePort => TableField::SourcePort,
            Field::DestinationPort => TableField::DestinationPort,
            Field::IcmpType => TableField::IcmpType,
            Field::IcmpCode => TableField::IcmpCode,
            Field::VlanId | Field::VlanPriority => {
                unreachable!("tests of tags are decided when compiling")
            }
            Field::Connection | Field::Bucket | Field::Token => {
                return Err(Refused::NotSupported(Feature::of_field(field)));
            }
        };
        let width = field.bits();
        Ok(radix::lower(parts, width, &mut |node| {
            self.insert(table, node)
        }))
    }

    /// A test of an address class: one exact node, with the most frequent child as default.
    fn class_test(&mut self, field: TableField, parts: &[(u64, Digest)]) -> Digest {
        let count = u64::from(self.fdd.atoms.count());
        let default = radix::most_frequent(parts, count);
        let mut edges = Vec::new();
        for (at, (start, child)) in parts.iter().enumerate() {
            let end = parts.get(at + 1).map_or(count, |(next, _)| *next);
            if *child != default {
                edges.extend((*start..end).map(|class| {
                    let class = self.fdd.atoms.digests[class as usize];
                    (Value::Class(class), *child)
                }));
            }
        }
        edges.sort_unstable();
        self.insert_node(TableNode {
            field,
            shift: 0,
            width: 32,
            edges,
            default,
        })
    }

    /// A test of a MAC address: its first two bytes, then its last four.
    fn mac_test(&mut self, high: TableField, low: TableField, parts: &[(u64, Digest)]) -> Digest {
        let upper = radix::upper_part(parts, 48, 32, &mut |inner| {
            radix::lower(inner, 32, &mut |node| self.insert(low, node))
        });
        radix::lower(&upper, 16, &mut |node| self.insert(high, node))
    }

    fn insert(&mut self, field: TableField, node: radix::Exact) -> Digest {
        let edges = node.edges.into_iter();
        self.insert_node(TableNode {
            field,
            shift: node.shift,
            width: node.width,
            edges: edges
                .map(|(value, child)| (Value::Number(value), child))
                .collect(),
            default: node.default,
        })
    }

    fn insert_node(&mut self, node: TableNode) -> Digest {
        let digest = node_digest(&node);
        self.tables.nodes.insert(digest, node);
        digest
    }

    /// Nodes on the longest path from here.
    fn depth(&mut self, digest: Digest) -> usize {
        if let Some(depth) = self.depths.get(&digest) {
            return *depth;
        }
        let Some(node) = self.tables.nodes.get(&digest) else {
            return 0;
        };
        let edges = node.edges.iter().map(|(_, child)| *child);
        let children: BTreeSet<Digest> = edges.chain([node.default]).collect();
        let below = children.into_iter().map(|child| self.depth(child)).max();
        let depth = below.unwrap_or(0) + 1;
        self.depths.insert(digest, depth);
        depth
    }
}

fn node_digest(node: &TableNode) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("sunwire node v1");
    hasher.update(&[node.field as u8, node.shift, node.width]);
    hasher.update(&node.default.0);
    for (value, child) in &node.edges {
        match value {
            Value::Number(number) => {
                hasher.update(&[0]);
                hasher.update(&number.to_le_bytes());
            }
            Value::Class(class) => {
                hasher.update(&[1]);
                hasher.update(&class.0);
            }
        }
        hasher.update(&child.0);
    }
    Digest(*hasher.finalize().as_bytes())
}
