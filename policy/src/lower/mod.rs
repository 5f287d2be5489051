//! Forwarding decision diagram to flow tables.
//!
//! Every diagram node becomes one table node where few exact edges suffice, and a few levels of
//! them where intervals are wide. A MAC address is tested in two halves. What the data plane cannot
//! do is refused by name, and nothing is ever left out to make a policy fit.

pub(crate) mod group;
mod leaf;
mod names;
mod radix;
mod refused;
mod specialise;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use sunwire_dataplane_common::capacity;
use sunwire_dataplane_common::flow_key::Field as TableField;
use sunwire_dataplane_common::tables::MAX_DEPTH;

use crate::compile::{Fdd, is_address};
use crate::fdd::hash::FastMap;
use crate::fdd::{Id, Node};
use crate::field::Field;
use crate::tables::size::Size;
use crate::tables::{AddressClass, Digest, FlowTables, Leaf, TableNode, Value};
use crate::term::Resolved;
pub(crate) use names::ClassNames;
pub use refused::Refused;
pub use specialise::{Hosted, HostedEndpoint, Specialiser, Unspecialised, specialise};

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
            nodes: capacity::TABLE_NODES as usize,
            edges: capacity::EDGES as usize,
            leaves: capacity::VERDICTS as usize,
            prefixes: capacity::PREFIXES as usize,
            labels: capacity::LABELS as usize,
        }
    }
}

/// Lowers a compiled policy to flow tables.
///
/// # Errors
/// [`Refused`] when the data plane cannot do what the policy says.
pub fn lower(fdd: &Fdd, policy: &Resolved, capacity: &Capacity) -> Result<FlowTables, Refused> {
    let needs = policy.needs();
    if let Some((feature, _)) = needs.iter().find(|(feature, _)| !feature.is_there()) {
        return Err(Refused::NotSupported(*feature));
    }
    let mut lowered = Lowered::default();
    let root = lowered.lower(fdd, policy, fdd.root, &ClassNames::new(&fdd.atoms))?;
    let tables = FlowTables {
        root,
        nodes: lowered.nodes,
        leaves: lowered.leaves,
        classes: classes(fdd),
        class_none: fdd.atoms.digest(fdd.atoms.none()),
        limit: policy.limit,
        bucket: policy.bucket,
    };
    check(&tables.size(), capacity)?;
    Ok(tables)
}

/// The class of every prefix.
pub(crate) fn classes(fdd: &Fdd) -> Vec<AddressClass> {
    let regions = fdd.atoms.regions().iter();
    regions
        .map(|(prefix, class)| AddressClass {
            address: prefix.family.address(prefix.first),
            prefix: prefix.length,
            class: fdd.atoms.digest(*class),
        })
        .collect()
}

/// Refuses tables that do not fit.
pub(crate) fn check(size: &Size, capacity: &Capacity) -> Result<(), Refused> {
    if size.depth > MAX_DEPTH {
        return Err(Refused::TooDeep { depth: size.depth });
    }
    for (what, count, limit) in [
        ("table nodes", size.nodes, capacity.nodes),
        ("table edges", size.edges, capacity.edges),
        ("verdicts", size.leaves, capacity.leaves),
        ("address prefixes", size.prefixes, capacity.prefixes),
        ("labels", size.labels, capacity.labels),
    ] {
        if count > limit {
            return Err(Refused::TooLarge { what, count, limit });
        }
    }
    Ok(())
}

/// Everything that was lowered: tables, and which diagram each is of.
#[derive(Default)]
pub(crate) struct Lowered {
    done: FastMap<Id, Digest>,
    /// The tables of diagrams that depend on who sends, by sender.
    done_for: FastMap<(Id, u32), Digest>,
    /// Whether a diagram's tables may be others for another sender.
    dependent: FastMap<Id, bool>,
    pub(crate) nodes: BTreeMap<Digest, TableNode>,
    pub(crate) leaves: BTreeMap<Digest, Leaf>,
}

impl Lowered {
    /// The tables of a diagram, by their root.
    pub(crate) fn lower(
        &mut self,
        fdd: &Fdd,
        policy: &Resolved,
        root: Id,
        names: &ClassNames,
    ) -> Result<Digest, Refused> {
        let mut lowering = Lowering {
            fdd,
            policy,
            names,
            lowered: self,
        };
        lowering.node(root, None)
    }

    /// Forgets which diagram each table is of, when the same diagram would be another table now.
    pub(crate) fn forget_diagrams(&mut self) {
        self.done.clear();
        self.done_for.clear();
        self.dependent.clear();
    }

    /// Forgets tables for which `keep` does not hold.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Digest) -> bool) {
        self.done.retain(|_, digest| keep(digest));
        self.done_for.retain(|_, digest| keep(digest));
        self.nodes.retain(|digest, _| keep(digest));
        self.leaves.retain(|digest, _| keep(digest));
    }

    /// Nodes and leaves that are kept.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len() + self.leaves.len()
    }
}

struct Lowering<'a> {
    fdd: &'a Fdd,
    policy: &'a Resolved,
    names: &'a ClassNames,
    lowered: &'a mut Lowered,
}

impl Lowering<'_> {
    /// A diagram is no deeper than there are fields, and so is this recursion.
    fn node(&mut self, id: Id, sender: Option<u32>) -> Result<Digest, Refused> {
        let sender = sender.filter(|_| self.depends_on_sender(id));
        let done = match sender {
            None => self.lowered.done.get(&id),
            Some(sender) => self.lowered.done_for.get(&(id, sender)),
        };
        if let Some(done) = done {
            return Ok(*done);
        }
        let fdd = self.fdd;
        let digest = match fdd.store.node(id) {
            Node::Leaf(leaf) => {
                let leaf = leaf::lower_leaf(fdd, self.policy, leaf, sender)?;
                let digest = leaf::digest(&leaf);
                self.lowered.leaves.insert(digest, leaf);
                digest
            }
            Node::Test { rank, cuts } => {
                let mut parts: Vec<(u64, Digest)> = Vec::with_capacity(cuts.len());
                let field = fdd.store.order().0[usize::from(rank)];
                // No packet is translated when it comes to a policy.
                let cuts = match field {
                    Field::Translated => &cuts[..1],
                    _ => cuts,
                };
                for (at, (start, child)) in cuts.iter().enumerate() {
                    // No packet has these classes: what becomes of it may be anything.
                    let end = cuts.get(at + 1).map_or(u64::MAX, |(next, _)| *next);
                    if is_address(field) && self.names.count(*start, end) == 0 {
                        continue;
                    }
                    let is_sender = field == Field::Port && end == *start + 1;
                    let child = self.node(*child, is_sender.then_some(*start as u32).or(sender))?;
                    // Different diagrams may lower to one table, when they differ by unused labels.
                    if parts.last().is_none_or(|(_, last)| *last != child) {
                        let start = if parts.is_empty() { 0 } else { *start };
                        parts.push((start, child));
                    }
                }
                match parts.as_slice() {
                    [(_, only)] => *only,
                    _ => self.test(field, &parts)?,
                }
            }
        };
        match sender {
            None => self.lowered.done.insert(id, digest),
            Some(sender) => self.lowered.done_for.insert((id, sender), digest),
        };
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
            Field::Connection => TableField::Connection,
            Field::Bucket => TableField::Bucket,
            Field::Token => TableField::Token,
            Field::Translated => {
                unreachable!("no packet is translated when it comes to a policy")
            }
        };
        let width = field.bits();
        Ok(radix::lower(parts, width, &mut |node| {
            self.insert(table, node)
        }))
    }

    /// A test of an address class: one exact node, with the most frequent child as default.
    fn class_test(&mut self, field: TableField, parts: &[(u64, Digest)]) -> Digest {
        let names = self.names;
        let end = |at: usize| parts.get(at + 1).map_or(u64::MAX, |(next, _)| *next);
        let mut covered: Vec<(Digest, usize)> = Vec::new();
        let mut places: FastMap<u64, usize> = FastMap::default();
        for (at, (start, child)) in parts.iter().enumerate() {
            let classes = names.count(*start, end(at));
            if classes == 0 {
                continue;
            }
            // Digests are hashes, and few: equal first words of different ones are found out below.
            let place = *places.entry(child.first_word()).or_insert(covered.len());
            match covered.get_mut(place) {
                Some((known, count)) if known == child => *count += classes,
                _ => covered.push((*child, classes)),
            }
        }
        let default = most_frequent(covered.iter().copied());
        if covered.iter().all(|(child, _)| *child == default) {
            return default;
        }
        let mut edges: Vec<(u32, Digest)> = Vec::new();
        for (at, (start, child)) in parts.iter().enumerate() {
            if *child != default {
                edges.extend(names.places(*start, end(at)).map(|place| (place, *child)));
            }
        }
        edges.sort_unstable_by_key(|(place, _)| *place);
        let edges = edges.into_iter();
        self.insert_node(TableNode {
            field,
            shift: 0,
            width: 32,
            edges: edges
                .map(|(place, child)| (Value::Class(names.name(place)), child))
                .collect(),
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
        self.lowered.nodes.insert(digest, node);
        digest
    }
}

/// The child that most values lead to; of several, the least digest.
fn most_frequent(covered: impl Iterator<Item = (Digest, usize)>) -> Digest {
    let best = covered.max_by_key(|(child, values)| (*values, std::cmp::Reverse(*child)));
    best.map_or(Digest([0; 32]), |(child, _)| child)
}

fn node_digest(node: &TableNode) -> Digest {
    // The key costs as much as a small node, and is the same for all.
    static KEYED: LazyLock<blake3::Hasher> =
        LazyLock::new(|| blake3::Hasher::new_derive_key("sunwire node v1"));
    let mut hasher = KEYED.clone();
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
