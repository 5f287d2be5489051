//! Steps of an automaton made deterministic: for which pairs of packets it can go to which states.

use std::collections::HashMap;

use super::automaton::{Budget, StateId};
use super::options::Limit;
use super::spp::{Diagrams, Spp};

/// Where packets go, and the states of both sides then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The packet before the step and the one recorded by it.
    pub(super) region: Spp,
    /// States of the left side, in order.
    pub(super) left: Vec<StateId>,
    /// States of the right side, in order.
    pub(super) right: Vec<StateId>,
}

impl Block {
    fn add(&mut self, on_left: bool, state: StateId) {
        if on_left {
            self.left.push(state);
        } else {
            self.right.push(state);
        }
    }
}

/// Disjoint blocks that are together all steps; each has the states of all steps it lies in. Every
/// state occurs once per side.
pub(super) fn partition<'s>(
    diagrams: &mut Diagrams,
    budget: &mut Budget,
    left: impl IntoIterator<Item = &'s (StateId, Spp)>,
    right: impl IntoIterator<Item = &'s (StateId, Spp)>,
) -> Result<Vec<Block>, Limit> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut by_region: HashMap<Spp, usize> = HashMap::new();
    let mut covered = Spp::DROP;
    let steps = (left.into_iter().map(|step| (true, step)))
        .chain(right.into_iter().map(|step| (false, step)));
    for (on_left, (state, step)) in steps {
        // Mostly a step is a block already, or apart from all of them: both take no look at each.
        if let Some(same) = by_region.get(step) {
            blocks[*same].add(on_left, *state);
            continue;
        }
        let mut overlap = diagrams.intersection(*step, covered)?;
        let fresh = diagrams.difference(*step, covered)?;
        covered = diagrams.union(covered, fresh)?;
        budget.spend(1)?;
        let mut at = 0;
        while !overlap.is_drop() {
            let region = blocks[at].region;
            let shared = diagrams.intersection(region, overlap)?;
            if shared == region {
                blocks[at].add(on_left, *state);
            } else if !shared.is_drop() {
                let rest = diagrams.difference(region, shared)?;
                let mut split = blocks[at].clone();
                split.region = shared;
                split.add(on_left, *state);
                budget.spend(1 + split.left.len() + split.right.len())?;
                blocks[at].region = rest;
                by_region.remove(&region);
                by_region.insert(rest, at);
                by_region.insert(shared, blocks.len());
                blocks.push(split);
            }
            overlap = diagrams.difference(overlap, shared)?;
            at += 1;
        }
        if !fresh.is_drop() {
            let mut block = Block {
                region: fresh,
                left: Vec::new(),
                right: Vec::new(),
            };
            block.add(on_left, *state);
            by_region.insert(fresh, blocks.len());
            blocks.push(block);
        }
    }
    for block in &mut blocks {
        block.left.sort_unstable();
        block.right.sort_unstable();
    }
    Ok(blocks)
}
