//! What changes in flow tables from one compilation to the next.

use std::collections::{BTreeMap, HashMap};
use sunwire_dataplane_common::limit::Limit;

use crate::address::Prefix;
use crate::atoms::RegionChange;
use crate::fdd::hash::FastMap;
use crate::lower::Lowered;
use crate::tables::{AddressClass, Digest, FlowTables};

/// The difference between two flow tables: all that has to be sent to whoever has the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Prefixes with another class than before, in order.
    pub prefixes: Vec<RegionChange>,
    /// Class of packets without addresses, when it is another now.
    pub class_none: Option<Digest>,
    /// The rate of `limit`, when it is another now.
    pub limit: Option<Limit>,
    /// What the bucket of `balance` is a hash of, when it is of something else now.
    pub bucket: Option<u32>,
    /// Inner nodes that are new.
    pub nodes_added: Vec<Digest>,
    /// Inner nodes that nothing leads to any more.
    pub nodes_removed: Vec<Digest>,
    /// Verdicts that are new.
    pub leaves_added: Vec<Digest>,
    /// Verdicts that nothing leads to any more.
    pub leaves_removed: Vec<Digest>,
    /// Where the walk starts, when that is elsewhere now.
    pub root: Option<Digest>,
}

impl Delta {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Delta::default()
    }

    /// Whether nothing but classes of prefixes changes.
    #[must_use]
    pub fn is_of_classes(&self) -> bool {
        let Delta {
            prefixes: _,
            class_none,
            limit,
            bucket,
            nodes_added,
            nodes_removed,
            leaves_added,
            leaves_removed,
            root,
        } = self;
        let digests = [nodes_added, nodes_removed, leaves_added, leaves_removed];
        class_none.is_none()
            && limit.is_none()
            && bucket.is_none()
            && root.is_none()
            && digests.iter().all(|all| all.is_empty())
    }
}

/// Flow tables in force, with how often each node is led to.
pub(super) struct Live {
    pub(super) tables: FlowTables,
    /// Edges, defaults and roots that lead to a node or verdict.
    uses: HashMap<Digest, usize>,
}

impl Live {
    /// No tables at all: the root leads nowhere, and there are no classes.
    pub(super) fn new() -> Self {
        Live {
            tables: FlowTables {
                root: Digest([0; 32]),
                nodes: Default::default(),
                leaves: Default::default(),
                classes: Vec::new(),
                class_none: Digest([0; 32]),
                limit: Limit::default(),
                bucket: 0,
            },
            uses: HashMap::new(),
        }
    }

    /// Starts at another root; notes which nodes come and go.
    pub(super) fn start_at(&mut self, root: Digest, lowered: &Lowered, delta: &mut Delta) {
        let before = self.tables.root;
        if before == root {
            return;
        }
        let mut open = vec![root];
        while let Some(digest) = open.pop() {
            let uses = self.uses.entry(digest).or_default();
            *uses += 1;
            if *uses > 1 {
                continue;
            }
            if let Some(node) = lowered.nodes.get(&digest) {
                open.extend(node.edges.iter().map(|(_, next)| *next));
                open.push(node.default);
                self.tables.nodes.insert(digest, node.clone());
                delta.nodes_added.push(digest);
            } else if let Some(leaf) = lowered.leaves.get(&digest) {
                self.tables.leaves.insert(digest, leaf.clone());
                delta.leaves_added.push(digest);
            }
        }
        let mut open = vec![before];
        while let Some(digest) = open.pop() {
            // The first root is nowhere.
            let Some(uses) = self.uses.get_mut(&digest) else {
                continue;
            };
            *uses -= 1;
            if *uses > 0 {
                continue;
            }
            self.uses.remove(&digest);
            if let Some(node) = self.tables.nodes.remove(&digest) {
                open.extend(node.edges.iter().map(|(_, next)| *next));
                open.push(node.default);
                delta.nodes_removed.push(digest);
            } else if self.tables.leaves.remove(&digest).is_some() {
                delta.leaves_removed.push(digest);
            }
        }
        self.tables.root = root;
        delta.root = Some(root);
        for list in [
            &mut delta.nodes_added,
            &mut delta.nodes_removed,
            &mut delta.leaves_added,
            &mut delta.leaves_removed,
        ] {
            list.sort_unstable();
        }
    }

    /// Takes changed classes over.
    pub(super) fn classify(
        &mut self,
        changes: Vec<RegionChange>,
        class_none: Digest,
        delta: &mut Delta,
    ) {
        let classes = &mut self.tables.classes;
        if changes.len() * 16 > classes.len() {
            // So many at once are cheaper to sort in than to insert one by one.
            let mut all: FastMap<_, AddressClass> = classes
                .drain(..)
                .map(|class| (key(&class), class))
                .collect();
            for change in &changes {
                match change.after {
                    Some(class) => all.insert(change.prefix, region(change, class)),
                    None => all.remove(&change.prefix),
                };
            }
            classes.extend(all.into_values());
            classes.sort_unstable_by_key(key);
        } else {
            for change in &changes {
                let place = classes.binary_search_by_key(&change.prefix, key);
                match (place, change.after) {
                    (Ok(at), Some(class)) => classes[at].class = class,
                    (Ok(at), None) => {
                        classes.remove(at);
                    }
                    (Err(at), Some(class)) => classes.insert(at, region(change, class)),
                    (Err(_), None) => {}
                }
            }
        }
        if self.tables.class_none != class_none {
            self.tables.class_none = class_none;
            delta.class_none = Some(class_none);
        }
        delta.prefixes = changes;
    }

    /// Nodes and verdicts.
    pub(super) fn len(&self) -> usize {
        self.uses.len()
    }

    /// Whether something leads to a node or verdict.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.uses.contains_key(digest)
    }
}

fn region(change: &RegionChange, class: Digest) -> AddressClass {
    let prefix = change.prefix;
    AddressClass {
        address: prefix.family.address(prefix.first),
        prefix: prefix.length,
        class,
    }
}

/// What makes one list of classes the other; both are in the order of prefixes.
pub(super) fn differences(before: &[AddressClass], after: &[AddressClass]) -> Vec<RegionChange> {
    let mut classes: BTreeMap<Prefix, (Option<Digest>, Option<Digest>)> = BTreeMap::new();
    for class in before {
        classes.entry(key(class)).or_default().0 = Some(class.class);
    }
    for class in after {
        classes.entry(key(class)).or_default().1 = Some(class.class);
    }
    let changed = classes
        .into_iter()
        .filter(|(_, (before, after))| before != after);
    changed
        .map(|(prefix, (before, after))| RegionChange {
            prefix,
            before,
            after,
        })
        .collect()
}

fn key(class: &AddressClass) -> Prefix {
    Prefix::new(class.address, class.prefix)
}
