//! Flow tables into the kernel: nodes, edges and verdicts, then all roots at once.
//!
//! ```text
//! check capacity -> write what is new -> roots and classes of generation g + 1
//!     -> flip the generation word -> grace period -> delete what only generation g reached
//! ```
//!
//! Two generations share every node that is equal in both, because a node's number belongs to its
//! network and digest. Up to the flip nothing that generation g reaches is touched, so a failure at any step
//! leaves the old policy in force, whole.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
};

use rustix::thread::{MembarrierCommand, membarrier};
use sunwire_dataplane_common::{
    entries::{EndpointEntry, LABEL_BYTES, LabelKey, id_kind},
    tables::{EdgeKey, KIND_NODE, MAX_COPIES, MAX_DEPTH, Next, RootKey, Verdict},
};

use crate::{
    class_map::{ClassMap, Wanted},
    ids::{Exhausted, Numbers, NumbersError},
    maps::Maps,
    shadow::ShadowError,
    state::{Desired, Digest, Leaf, Program, TableNode, Value},
};

/// A policy could not be installed; the one before it is still in force.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The policy does not fit.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A map could not be written.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A pointer leads to a node that was never sent.
    #[error("the policy of network {vni} points to a table node that was not sent")]
    Incomplete {
        /// VNI of the network.
        vni: u32,
    },
    /// The tables are deeper than the kernel walks.
    #[error(
        "the policy of network {vni} needs {depth} tests in a row and the kernel does {MAX_DEPTH}"
    )]
    TooDeep {
        /// VNI of the network.
        vni: u32,
        /// Tests on its longest path.
        depth: usize,
    },
    /// There are more labels than counters.
    #[error("{capacity} labels are in use and each needs a counter of its own")]
    TooManyLabels {
        /// Labels there is room for.
        capacity: usize,
    },
    /// The kernel has no membarrier system call.
    #[error("cannot wait for running programs to end; the kernel needs CONFIG_MEMBARRIER")]
    GracePeriod(#[source] io::Error),
}

impl From<NumbersError> for InstallError {
    fn from(error: NumbersError) -> Self {
        match error {
            NumbersError::Exhausted(error) => InstallError::Exhausted(error),
            NumbersError::Shadow(error) => InstallError::Shadow(error),
        }
    }
}

/// The flow tables of this node.
pub(crate) struct FlowMap {
    tables: Numbers,
    verdicts: Numbers,
    classes: ClassMap,
    /// The classes of the generation in force.
    wanted: Wanted,
    /// What the generation in force was made from.
    installed: Option<BTreeMap<u32, Program>>,
}

impl FlowMap {
    pub(crate) fn open(maps: &Maps) -> Self {
        let verdict_slots = maps.verdicts.len();
        FlowMap {
            tables: Numbers::open(
                &maps.ids,
                id_kind::TABLE,
                "flow table nodes",
                maps.nodes.len(),
            ),
            verdicts: Numbers::open(&maps.ids, id_kind::VERDICT, "verdicts", verdict_slots),
            classes: ClassMap::open(maps),
            wanted: Wanted::default(),
            installed: None,
        }
    }

    /// Makes the kernel decide by `desired`'s programs, all of them from one packet to the next.
    /// Returns whether a new generation was needed.
    pub(crate) fn install(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
    ) -> Result<bool, InstallError> {
        if self.installed.as_ref() == Some(&desired.programs) {
            return Ok(false);
        }
        let reached = reach(desired)?;
        let wanted = Wanted::new(&desired.programs);
        self.check_capacity(maps, desired, &reached, &wanted)?;

        for (vni, digest) in &reached {
            if let Some(leaf) = desired.leaves.get(digest) {
                self.write_leaf(maps, *vni, *digest, leaf)?;
            }
        }
        for (vni, digest) in &reached {
            if let Some(node) = desired.table_nodes.get(digest) {
                self.write_node(maps, desired, *vni, *digest, node)?;
            }
        }
        let control = maps.control.get(0);
        let generation = control.generation.wrapping_add(1);
        for (vni, program) in &desired.programs {
            if let Some(root) = program.root {
                let next = self.pointer(maps, desired, *vni, root)?;
                maps.roots.set(
                    RootKey {
                        network: *vni,
                        generation,
                    },
                    next,
                )?;
            }
        }
        self.classes.stage(maps, &wanted, generation)?;

        let mut flipped = control;
        flipped.generation = generation;
        maps.control.set(0, flipped)?;
        self.installed = Some(desired.programs.clone());
        self.wanted = wanted;

        grace_period().map_err(InstallError::GracePeriod)?;
        self.sweep(maps, desired, &reached, generation)?;
        Ok(true)
    }

    /// Sets the classes of an endpoint that was attached since the last flip.
    pub(crate) fn classify(
        &mut self,
        maps: &mut Maps,
        entry: &mut EndpointEntry,
        generation: u32,
    ) -> Result<(), InstallError> {
        let wanted = &self.wanted;
        self.classes
            .classify(maps, wanted, entry, (generation & 1) as usize)
    }

    fn check_capacity(
        &self,
        maps: &Maps,
        desired: &Desired,
        reached: &Reached,
        wanted: &Wanted,
    ) -> Result<(), InstallError> {
        let new = |(vni, digest): &&(u32, Digest)| {
            let digest = of_network(*vni, *digest);
            self.tables.get(&maps.ids, digest).is_none()
        };
        let nodes = reached.iter().filter(new).count();
        self.tables.check_available(nodes)?;
        let leaves = reached.iter().filter(|(vni, digest)| {
            desired.leaves.contains_key(digest)
                && self
                    .verdicts
                    .get(&maps.ids, of_network(*vni, *digest))
                    .is_none()
        });
        self.verdicts.check_available(leaves.count())?;
        let edges: usize = reached
            .iter()
            .filter(new)
            .filter_map(|(_, digest)| desired.table_nodes.get(digest))
            .map(|node| node.edges.len())
            .sum();
        maps.edges
            .check_capacity(maps.edges.content().len() + edges)?;
        maps.roots
            .check_capacity(maps.roots.content().len() + desired.programs.len())?;
        self.classes.check_capacity(maps, wanted)?;
        Ok(())
    }

    fn write_leaf(
        &mut self,
        maps: &mut Maps,
        vni: u32,
        digest: Digest,
        leaf: &Leaf,
    ) -> Result<(), InstallError> {
        let label = label_slot(maps, vni, &leaf.label)?;
        let digest = of_network(vni, digest);
        let slot = self.verdicts.number(&mut maps.ids, digest)?;
        let mut verdict = Verdict {
            label,
            copies: leaf.copies.len() as u32,
            ..Verdict::default()
        };
        for (target, copied) in verdict
            .copied
            .iter_mut()
            .zip(leaf.copies.iter().take(MAX_COPIES))
        {
            *target = *copied;
        }
        maps.verdicts.set(slot, verdict)?;
        let number = self.tables.number(&mut maps.ids, digest)?;
        maps.nodes.set(number, Next::leaf(slot))?;
        Ok(())
    }

    fn write_node(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        vni: u32,
        digest: Digest,
        node: &TableNode,
    ) -> Result<(), InstallError> {
        let pointer = self.pointer(maps, desired, vni, digest)?;
        for (value, next) in &node.edges {
            let value = match value {
                Value::Number(number) => *number,
                Value::Class(class) => self.classes.number(maps, *class)?,
            };
            let next = self.pointer(maps, desired, vni, *next)?;
            maps.edges.set(
                EdgeKey {
                    node: pointer.node,
                    value,
                },
                next,
            )?;
        }
        maps.nodes.set(pointer.node, pointer)?;
        Ok(())
    }

    /// The pointer to a node or leaf.
    fn pointer(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        vni: u32,
        digest: Digest,
    ) -> Result<Next, InstallError> {
        let scoped = of_network(vni, digest);
        let number = self.tables.number(&mut maps.ids, scoped)?;
        match desired.table_nodes.get(&digest) {
            Some(node) => Ok(Next {
                node: number,
                default: self
                    .tables
                    .number(&mut maps.ids, of_network(vni, node.default))?,
                field: node.field as u8,
                shift: node.shift,
                width: node.width,
                kind: KIND_NODE,
            }),
            None => Ok(Next::leaf(self.verdicts.number(&mut maps.ids, scoped)?)),
        }
    }

    /// Deletes what no root in force reaches. Runs after the grace period of the flip.
    fn sweep(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
        reached: &Reached,
        generation: u32,
    ) -> Result<(), InstallError> {
        maps.roots.retain(|key| key.generation == generation)?;
        forget_labels(maps, desired, reached)?;
        let live: HashSet<Digest> = reached
            .iter()
            .map(|(vni, digest)| of_network(*vni, *digest))
            .collect();
        let used_classes: HashSet<Digest> = reached
            .iter()
            .filter_map(|(_, digest)| desired.table_nodes.get(digest))
            .flat_map(|node| &node.edges)
            .filter_map(|(value, _)| match value {
                Value::Class(class) => Some(*class),
                Value::Number(_) => None,
            })
            .collect();
        self.classes.sweep(maps, &self.wanted, &used_classes)?;
        for (digest, number) in self.tables.dead(&maps.ids, |digest| live.contains(&digest)) {
            let edges: Vec<EdgeKey> = maps
                .edges
                .content()
                .range(
                    EdgeKey {
                        node: number,
                        value: 0,
                    }..=EdgeKey {
                        node: number,
                        value: u32::MAX,
                    },
                )
                .map(|(key, _)| *key)
                .collect();
            edges.iter().try_for_each(|key| maps.edges.remove(key))?;
            maps.nodes.set(number, Next::default())?;
            self.tables.release(&mut maps.ids, digest, number)?;
        }
        for (digest, number) in self
            .verdicts
            .dead(&maps.ids, |digest| live.contains(&digest))
        {
            maps.verdicts.set(number, Verdict::default())?;
            self.verdicts.release(&mut maps.ids, digest, number)?;
        }
        Ok(())
    }
}

/// Every node and leaf that roots in force reach, with the network it is reached in.
type Reached = BTreeSet<(u32, Digest)>;

/// The name under which a network's node or leaf has its number: two networks may have equal ones,
/// and each counts under labels of its own.
fn of_network(vni: u32, Digest(mut bytes): Digest) -> Digest {
    for (byte, vni) in bytes.iter_mut().zip(vni.to_be_bytes()) {
        *byte ^= vni;
    }
    Digest(bytes)
}

/// What the programs reach; also proves that nothing is missing or too deep.
fn reach(desired: &Desired) -> Result<Reached, InstallError> {
    let mut reached = Reached::new();
    for (vni, program) in &desired.programs {
        let Some(root) = program.root else { continue };
        let mut depths: HashMap<Digest, usize> = HashMap::new();
        let depth = depth(desired, *vni, root, &mut depths)?;
        if depth > MAX_DEPTH {
            return Err(InstallError::TooDeep { vni: *vni, depth });
        }
        reached.extend(depths.into_keys().map(|digest| (*vni, digest)));
    }
    Ok(reached)
}

/// Tests on the longest path from a node or leaf. Iterative: the depth of what was sent is not
/// yet known to be bounded, and a cycle would never end a recursion.
fn depth(
    desired: &Desired,
    vni: u32,
    root: Digest,
    depths: &mut HashMap<Digest, usize>,
) -> Result<usize, InstallError> {
    let mut stack = vec![(root, false)];
    let mut open: HashSet<Digest> = HashSet::new();
    while let Some((digest, children_done)) = stack.pop() {
        if depths.contains_key(&digest) {
            continue;
        }
        if desired.leaves.contains_key(&digest) {
            depths.insert(digest, 0);
            continue;
        }
        let node = desired
            .table_nodes
            .get(&digest)
            .ok_or(InstallError::Incomplete { vni })?;
        let children = || {
            node.edges
                .iter()
                .map(|(_, next)| *next)
                .chain([node.default])
        };
        if children_done {
            let deepest = children().filter_map(|child| depths.get(&child)).max();
            depths.insert(digest, 1 + deepest.copied().unwrap_or(0));
            open.remove(&digest);
            continue;
        }
        if !open.insert(digest) {
            // Reached again below itself: no walk would end.
            return Err(InstallError::TooDeep {
                vni,
                depth: usize::MAX,
            });
        }
        stack.push((digest, true));
        for child in children() {
            if !depths.contains_key(&child) {
                if open.contains(&child) {
                    return Err(InstallError::TooDeep {
                        vni,
                        depth: usize::MAX,
                    });
                }
                stack.push((child, false));
            }
        }
    }
    Ok(depths.get(&root).copied().unwrap_or(0))
}

/// Returns once every program run that had started has ended: `MEMBARRIER_CMD_GLOBAL` waits for an
/// RCU grace period (`membarrier(2)`), and a TC program runs inside one RCU read-side section.
fn grace_period() -> io::Result<()> {
    Ok(membarrier(MembarrierCommand::Global)?)
}

/// The counter slot of a label, given out now if it has none.
fn label_slot(maps: &mut Maps, vni: u32, label: &str) -> Result<u32, InstallError> {
    let key = label_key(vni, label);
    if let Some(slot) = maps.labels.content().get(&key) {
        return Ok(*slot);
    }
    let capacity = maps.labels.capacity();
    let used: BTreeSet<u32> = maps.labels.content().values().copied().collect();
    let slot = (0..capacity as u32)
        .find(|slot| !used.contains(slot))
        .ok_or(InstallError::TooManyLabels { capacity })?;
    maps.reset_label_counter(slot)?;
    maps.labels.set(key, slot)?;
    Ok(slot)
}

fn label_key(vni: u32, label: &str) -> LabelKey {
    let mut text = [0; LABEL_BYTES];
    let bytes = label.as_bytes();
    let length = bytes.len().min(LABEL_BYTES);
    text[..length].copy_from_slice(&bytes[..length]);
    LabelKey { network: vni, text }
}

/// Forgets labels that no rule in force has, once half of the counters are taken. Until then they
/// are kept: their totals outlive the rule, and a roll-back finds them again.
fn forget_labels(
    maps: &mut Maps,
    desired: &Desired,
    reached: &Reached,
) -> Result<(), InstallError> {
    if maps.labels.content().len() <= maps.labels.capacity() / 2 {
        return Ok(());
    }
    let in_force: BTreeSet<LabelKey> = reached
        .iter()
        .filter_map(|(vni, digest)| Some(label_key(*vni, &desired.leaves.get(digest)?.label)))
        .collect();
    maps.labels.retain(|key| in_force.contains(key))?;
    Ok(())
}
