//! Flow tables into the kernel: nodes, edges and verdicts, then all roots at once.
//!
//! ```text
//! check capacity -> write what is new -> roots and classes of generation g + 1
//!     -> flip the generation word -> the same for what is staged, and flip its word
//!     -> grace period -> delete what only generation g or the staged policies before reached
//! ```
//!
//! Two generations share every node that is equal in both, because a node's number belongs to its
//! network and digest; staged policies share them too. Up to the flip nothing that generation g
//! reaches is touched, so a failure at any step leaves the old policy in force, whole.

mod labels;
mod reach;
mod staged;
mod write;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
};

use rustix::thread::{MembarrierCommand, membarrier};
use sunwire_dataplane_common::{
    entries::{EndpointEntry, LabelKey, id_kind},
    tables::{EdgeKey, MAX_DEPTH, Next, RootKey, Verdict},
};

use self::reach::{Reached, of_network, reach};
use crate::{
    audit,
    class_map::{ClassMap, Lane, Wanted},
    groups::sets::Sets,
    ids::{Exhausted, Numbers, NumbersError},
    maps::Maps,
    shadow::ShadowError,
    state::{Desired, Digest, Program, Value},
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

impl InstallError {
    /// Whether another policy's leaving would make room.
    fn is_lack_of_room(&self) -> bool {
        matches!(
            self,
            InstallError::Exhausted(_)
                | InstallError::TooManyLabels { .. }
                | InstallError::Shadow(ShadowError::Full { .. })
        )
    }
}

impl From<NumbersError> for InstallError {
    fn from(error: NumbersError) -> Self {
        match error {
            NumbersError::Exhausted(error) => InstallError::Exhausted(error),
            NumbersError::Shadow(error) => InstallError::Shadow(error),
        }
    }
}

/// Policies in the kernel, and what they were made from.
#[derive(Default)]
pub(crate) struct Installed {
    programs: BTreeMap<u32, Program>,
    reached: Reached,
    /// Classes that their nodes compare with.
    compared: HashSet<Digest>,
    labels: BTreeSet<LabelKey>,
    wanted: Wanted,
}

impl Installed {
    fn new(desired: &Desired, programs: BTreeMap<u32, Program>) -> Result<Self, InstallError> {
        let reached = reach(desired, &programs)?;
        let nodes = reached
            .iter()
            .filter_map(|(_, digest)| desired.table_nodes.get(digest));
        let compared = nodes
            .flat_map(|node| &node.edges)
            .filter_map(|(value, _)| match value {
                Value::Class(class) => Some(*class),
                Value::Number(_) => None,
            })
            .collect();
        let labels = reached
            .iter()
            .filter_map(|(vni, digest)| Some((*vni, desired.leaves.get(digest)?)))
            .flat_map(|(vni, leaf)| labels::of_leaf(vni, leaf))
            .collect();
        let wanted = Wanted::new(&programs);
        Ok(Installed {
            programs,
            reached,
            compared,
            labels,
            wanted,
        })
    }
}

/// The flow tables of this node.
pub(crate) struct FlowMap {
    tables: Numbers,
    /// The sets that verdicts send to.
    pub(crate) sets: Sets,
    verdicts: Numbers,
    classes: ClassMap,
    /// What decides. `None` while it is what an earlier agent left.
    in_force: Option<Installed>,
    /// What is counted beside it. `None` while it is what an earlier agent left.
    staged: Option<Installed>,
    /// What was to be staged at last.
    to_stage: BTreeMap<u32, Program>,
    /// Networks whose candidate is not staged, and why.
    refused: BTreeMap<u32, (u64, String)>,
}

impl FlowMap {
    pub(crate) fn open(maps: &Maps) -> Self {
        let verdict_slots = maps.verdicts.len();
        FlowMap {
            sets: Sets::open(maps),
            tables: Numbers::open(
                &maps.ids,
                id_kind::TABLE,
                "flow table nodes",
                maps.nodes.len(),
            ),
            verdicts: Numbers::open(&maps.ids, id_kind::VERDICT, "verdicts", verdict_slots),
            classes: ClassMap::open(maps),
            in_force: None,
            staged: None,
            to_stage: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Makes the kernel decide by `desired`'s programs, all of them from one packet to the next,
    /// and count beside them what its staged ones would do. Returns whether anything was changed.
    ///
    /// A candidate that cannot be staged is no error here: see [`Self::refused`].
    pub(crate) fn install(
        &mut self,
        maps: &mut Maps,
        desired: &Desired,
    ) -> Result<bool, InstallError> {
        let is_in_force = self
            .in_force
            .as_ref()
            .is_some_and(|installed| installed.programs == desired.programs);
        let is_staged = self.staged.is_some() && self.to_stage == desired.staged;
        if is_in_force && is_staged {
            return Ok(false);
        }
        let mut outcome = Ok(());
        if !is_in_force {
            outcome = self.enforce(maps, desired);
            // What is staged never keeps a policy from coming into force.
            if outcome.as_ref().is_err_and(InstallError::is_lack_of_room) && self.unstage(maps)? {
                outcome = self.enforce(maps, desired);
            }
        }
        // There may be room now for what was refused.
        if !is_staged || self.staged.is_none() || !self.refused.is_empty() {
            self.stage(maps, desired)?;
            if !self.refused.is_empty() {
                // Perhaps only what goes is in the way.
                self.settle(maps)?;
                self.stage(maps, desired)?;
            }
        }
        self.settle(maps)?;
        outcome.map(|()| true)
    }

    /// Networks whose candidate is not staged, its revision, and why.
    pub(crate) fn refused(&self) -> &BTreeMap<u32, (u64, String)> {
        &self.refused
    }

    /// What is staged: the candidate's revision by VNI.
    pub(crate) fn staged(&self) -> BTreeMap<u32, u64> {
        let staged = self.staged.iter().flat_map(|staged| &staged.programs);
        staged
            .map(|(vni, program)| (*vni, program.revision))
            .collect()
    }

    /// Sets the classes of an endpoint that was attached since the last flip.
    pub(crate) fn classify(
        &mut self,
        maps: &mut Maps,
        entry: &mut EndpointEntry,
    ) -> Result<(), InstallError> {
        let control = maps.control.get(0);
        for (lane, installed, parity) in [
            (Lane::InForce, &self.in_force, control.generation & 1),
            (Lane::Staged, &self.staged, control.staged & 1),
        ] {
            if let Some(installed) = installed {
                let wanted = &installed.wanted;
                self.classes
                    .classify(maps, lane, wanted, entry, parity as usize)?;
            }
        }
        Ok(())
    }

    /// Puts `desired`'s programs in force, up to the flip.
    fn enforce(&mut self, maps: &mut Maps, desired: &Desired) -> Result<(), InstallError> {
        let coming = Installed::new(desired, desired.programs.clone())?;
        self.check_capacity(maps, desired, &coming, Lane::InForce)?;
        self.write_tables(maps, desired, &coming)?;
        let control = maps.control.get(0);
        let generation = after(control.generation);
        for (vni, program) in &coming.programs {
            if let Some(root) = program.root {
                let presets = (program.bucket, program.limit);
                let root = self.root(maps, desired, *vni, root, presets)?;
                maps.roots.set(
                    RootKey {
                        network: *vni,
                        generation,
                    },
                    root,
                )?;
            }
        }
        self.classes
            .stage(maps, Lane::InForce, &coming.wanted, generation)?;

        let mut flipped = control;
        flipped.generation = generation;
        maps.control.set(0, flipped)?;
        self.in_force = Some(coming);
        Ok(())
    }

    /// Waits until no packet goes by what was before the flips, and deletes it.
    fn settle(&mut self, maps: &mut Maps) -> Result<(), InstallError> {
        grace_period().map_err(InstallError::GracePeriod)?;
        self.sweep(maps)
    }

    /// Deletes what no root reaches. Runs after the grace period of the flips, and not before this
    /// agent knows what all roots reach.
    fn sweep(&mut self, maps: &mut Maps) -> Result<(), InstallError> {
        let (Some(in_force), Some(staged)) = (&self.in_force, &self.staged) else {
            return Ok(());
        };
        let control = maps.control.get(0);
        maps.roots
            .retain(|key| key.generation == control.generation)?;
        maps.staged_roots
            .retain(|key| key.generation == control.staged)?;
        let used = audit::forget(maps, &self.to_stage)?;
        labels::forget(maps, |key, slot| {
            in_force.labels.contains(key) || staged.labels.contains(key) || used.contains(&slot)
        })?;
        let live: HashSet<Digest> = in_force
            .reached
            .iter()
            .chain(&staged.reached)
            .map(|(vni, digest)| of_network(*vni, *digest))
            .collect();
        for (lane, installed) in [(Lane::InForce, in_force), (Lane::Staged, staged)] {
            self.classes.sweep(maps, lane, &installed.wanted)?;
        }
        let mut classes: HashSet<Digest> = HashSet::new();
        for installed in [in_force, staged] {
            classes.extend(&installed.compared);
            classes.extend(installed.wanted.classes());
        }
        self.classes.release(maps, &classes)?;
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

/// The generation after another. The first one of new maps is any: flows may be there with verdicts of
/// the generations that maps of an earlier layout had, and are to be decided anew. Its lowest bits, which
/// the marks of copies have, are the same each time, so that what is tested does not depend on chance.
fn after(generation: u32) -> u32 {
    match generation {
        0 => rand::random_range(0..1 << 25) << 6 | 1,
        generation => generation.wrapping_add(1),
    }
}

/// Returns once every program run that had started has ended: `MEMBARRIER_CMD_GLOBAL` waits for an
/// RCU grace period (`membarrier(2)`), and a TC program runs inside one RCU read-side section.
fn grace_period() -> io::Result<()> {
    Ok(membarrier(MembarrierCommand::Global)?)
}
