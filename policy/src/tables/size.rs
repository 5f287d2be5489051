//! How large flow tables are, and how many tests a packet meets in them.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashSet};

use super::{Digest, FlowTables, Leaf, TableNode};
use crate::fdd::hash::FastMap;

/// What tables take of the data plane's room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Inner nodes.
    pub nodes: usize,
    /// Exact edges of all nodes.
    pub edges: usize,
    /// Verdicts.
    pub leaves: usize,
    /// Distinct labels of verdicts, names of `count`, and texts of `log`: each has a counter.
    pub labels: usize,
    /// Tests on the longest way from the root to a verdict.
    pub depth: usize,
    /// Prefixes with a class.
    pub prefixes: usize,
}

impl FlowTables {
    /// How large the tables are.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            prefixes: self.classes.len(),
            ..Size::of(self.root, &self.nodes, &self.leaves)
        }
    }
}

impl Size {
    /// The size of what is reached from a root; nothing is said of prefixes.
    pub(crate) fn of(
        root: Digest,
        nodes: &BTreeMap<Digest, TableNode>,
        leaves: &BTreeMap<Digest, Leaf>,
    ) -> Self {
        let order = in_order(root, nodes);
        let mut size = Size {
            nodes: order.len(),
            ..Size::default()
        };
        let mut depths: FastMap<Digest, usize> = FastMap::default();
        depths.reserve(order.len());
        let mut verdicts: FastMap<Digest, &Leaf> = FastMap::default();
        if let Some(leaf) = leaves.get(&root) {
            verdicts.insert(root, leaf);
        }
        for (digest, node) in &order {
            size.edges += node.edges.len();
            let mut deepest = 0;
            let mut last = None;
            for next in nexts(node) {
                // Neighbours often lead to the same.
                if last == Some(next) {
                    continue;
                }
                last = Some(next);
                if let Some(depth) = depths.get(next) {
                    deepest = deepest.max(*depth);
                } else if let Entry::Vacant(new) = verdicts.entry(*next)
                    && let Some(leaf) = leaves.get(next)
                {
                    new.insert(leaf);
                }
            }
            depths.insert(*digest, deepest + 1);
        }
        size.depth = depths.get(&root).copied().unwrap_or(0);
        size.leaves = verdicts.len();
        let names = verdicts.values().flat_map(|leaf| {
            let counts = leaf.counts.iter().map(|name| (1, name.as_str()));
            let log = leaf.log.iter().map(|text| (2, text.as_str()));
            [(0, leaf.label.as_str())]
                .into_iter()
                .chain(counts)
                .chain(log)
        });
        size.labels = names.collect::<HashSet<_>>().len();
        size
    }
}

fn nexts(node: &TableNode) -> impl Iterator<Item = &Digest> {
    let edges = node.edges.iter().map(|(_, next)| next);
    edges.chain([&node.default])
}

/// The nodes that are reached from the root, each behind those that it leads to.
fn in_order(root: Digest, nodes: &BTreeMap<Digest, TableNode>) -> Vec<(Digest, &TableNode)> {
    // Most edges lead to verdicts: to find that out takes one look here, and many there.
    let nodes: FastMap<Digest, &TableNode> = nodes.iter().map(|(d, node)| (*d, node)).collect();
    let mut order = Vec::with_capacity(nodes.len());
    let mut seen: FastMap<Digest, ()> = FastMap::default();
    seen.reserve(nodes.len());
    // A node is visited twice: to open what it leads to, and when all of that is done.
    let mut open = vec![(root, false)];
    while let Some((digest, finished)) = open.pop() {
        let Some(node) = nodes.get(&digest).copied() else {
            continue;
        };
        if finished {
            order.push((digest, node));
            continue;
        }
        if seen.insert(digest, ()).is_some() {
            continue;
        }
        open.push((digest, true));
        for next in nexts(node) {
            if open.last() != Some(&(*next, false)) {
                open.push((*next, false));
            }
        }
    }
    order
}
