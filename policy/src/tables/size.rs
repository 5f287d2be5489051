//! How large flow tables are, and how many tests a packet meets in them.

use std::collections::{HashMap, HashSet};

use super::{Digest, FlowTables};

impl FlowTables {
    /// Tests on the longest way from the root to a verdict.
    #[must_use]
    pub fn depth(&self) -> usize {
        let order = self.in_order();
        let mut depths: HashMap<Digest, usize> = HashMap::new();
        for digest in order.iter().rev() {
            let below = self
                .next_of(digest)
                .map(|next| depths.get(next).copied().unwrap_or(0));
            let depth = below.max().unwrap_or(0) + 1;
            depths.insert(*digest, depth);
        }
        depths.get(&self.root).copied().unwrap_or(0)
    }

    /// Exact edges of all nodes.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.nodes.values().map(|node| node.edges.len()).sum()
    }

    /// Where a node leads; nowhere for a leaf.
    fn next_of(&self, digest: &Digest) -> impl Iterator<Item = &Digest> {
        let node = self.nodes.get(digest).into_iter();
        node.flat_map(|node| {
            node.edges
                .iter()
                .map(|(_, next)| next)
                .chain([&node.default])
        })
    }

    /// The nodes that are reached from the root, each before those that it leads to.
    fn in_order(&self) -> Vec<Digest> {
        let mut order = Vec::new();
        let mut done: HashSet<Digest> = HashSet::new();
        // A node is visited twice: to open what it leads to, and when all of that is done.
        let mut open = vec![(self.root, false)];
        while let Some((digest, finished)) = open.pop() {
            if finished {
                order.push(digest);
                continue;
            }
            if !self.nodes.contains_key(&digest) || !done.insert(digest) {
                continue;
            }
            open.push((digest, true));
            for next in self.next_of(&digest) {
                if open.last() != Some(&(*next, false)) && !done.contains(next) {
                    open.push((*next, false));
                }
            }
        }
        order.reverse();
        order
    }
}
