//! Splitting diagrams at assigned values, where an assignment may change nothing.
//!
//! On a packet whose field already has the value, an assignment is the identity. So `f = 1; f := 1`
//! and `f = 1` mean the same and are different diagrams, and a leaf with the actions `id` and
//! `f := 1` stands for one packet where `f` is 1 and for two elsewhere. Testing `f` against 1 above
//! such leaves, and forgetting the assignment on that side, resolves both:
//!
//! - with all assigned values, equal meaning is equal id ([`Store::canonical`]);
//! - with the values that could make two copies one, every leaf holds exactly the packets that come
//!   out ([`Store::separated`]), without tests that do not matter to a table.

use std::sync::Arc;

use super::apply::{LeafMap, Remembered};
use super::store::{Action, Head, Id, Memo, Store, TooLarge};
use crate::field::{Field, OWNER};

/// At which values to split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mode {
    /// At all that are assigned.
    All,
    /// Where two copies may be one, and where a copy may go to where it came in.
    Ambiguous,
}

impl Store {
    /// The form of a diagram that is equal for all diagrams with the same meaning.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn canonical(&mut self, policy: Id) -> Result<Id, TooLarge> {
        self.split(Mode::All, 0, policy)
    }

    /// The same diagram with leaves whose actions make as many distinct packets, none of which is
    /// assigned to the endpoint where it came in.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn separated(&mut self, policy: Id) -> Result<Id, TooLarge> {
        self.split(Mode::Ambiguous, 0, policy)
    }

    fn split(&mut self, mode: Mode, rank: u8, id: Id) -> Result<Id, TooLarge> {
        let splits = self.splits(mode, id)?;
        // Fields in front of the first that is tested or split stay as they are.
        let Some((wanted, _)) = splits.iter().find(|(split, _)| *split >= rank) else {
            return Ok(id);
        };
        let rank = match self.head(id) {
            Head::Test { rank: tested, .. } => tested.min(*wanted),
            Head::Leaf(_) => *wanted,
        };
        let kind = match mode {
            Mode::All => Remembered::SplitAll,
            Mode::Ambiguous => Remembered::SplitAmbiguous,
        };
        let memo = Memo(kind.tag(), id.0, rank.into(), 0);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let cuts: Vec<(u64, Id)> = match self.head(id) {
            Head::Test {
                rank: r,
                first,
                end,
            } if r == rank => self.cuts(first, end).to_vec(),
            _ => vec![(0, id)],
        };
        let greatest = self.greatest(rank);
        let base = self.begin();
        for (at, (start, child)) in cuts.iter().enumerate() {
            let last = cuts.get(at + 1).map_or(greatest, |(next, _)| next - 1);
            let rest = self.split(mode, rank + 1, *child)?;
            let mut next = *start;
            for (r, value) in self.splits(mode, *child)?.iter() {
                if *r != rank || !(*start..=last).contains(value) {
                    continue;
                }
                if next < *value {
                    self.push_edge(base, next, rest);
                }
                let assignment = self.action(&[(rank, *value)]);
                let stripped = self.map(LeafMap::Strip(assignment), *child)?;
                let there = self.split(mode, rank + 1, stripped)?;
                self.push_edge(base, *value, there);
                next = value + 1;
            }
            if next <= last {
                self.push_edge(base, next, rest);
            }
        }
        let split = self.test(rank, base)?;
        self.memo.insert(memo, split);
        Ok(split)
    }

    /// The fields and values at which a diagram has to be split, in order.
    fn splits(&mut self, mode: Mode, id: Id) -> Result<Arc<Action>, TooLarge> {
        if let Some(splits) = self.splits.get(&(mode, id)) {
            return Ok(splits.clone());
        }
        let mut all: Vec<(u8, u64)> = Vec::new();
        match self.head(id) {
            Head::Leaf(leaf) => {
                let leaf = self.leaf_at(leaf);
                let port = self.order().rank(Field::Port);
                for (action, _) in leaf.copies.iter() {
                    for assignment in self.assignments(*action).iter() {
                        let (rank, value) = *assignment;
                        let wanted = match mode {
                            Mode::All => true,
                            Mode::Ambiguous if rank == port => true,
                            // Another copy keeps the field as it is.
                            Mode::Ambiguous => leaf.copies.iter().any(|(other, _)| {
                                self.assignments(*other).iter().all(|(r, _)| *r != rank)
                            }),
                        };
                        // No packet enters at the owner of its destination as such, which a
                        // table need not test; in an equation it is a value like any other.
                        let entered = mode == Mode::All || *assignment != (port, OWNER);
                        if wanted && entered {
                            all.push((rank, value));
                        }
                    }
                }
            }
            Head::Test { first, end, .. } => {
                for at in first..end {
                    let (_, child) = self.edge(at);
                    let below = self.splits(mode, child)?;
                    self.spend(below.len())?;
                    all.extend(below.iter());
                }
            }
        }
        all.sort_unstable();
        all.dedup();
        let splits: Arc<Action> = all.into();
        self.splits.insert((mode, id), splits.clone());
        Ok(splits)
    }
}
