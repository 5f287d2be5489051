//! Operations that treat every packet by itself: union, filtering, choice, and maps of leaves.

use super::store::{EMPTY, IDENTITY, Id, Leaf, Memo, Node, Store, TooLarge, UNDECIDED};
use crate::packet::{LabelId, NO_LABEL};

/// An operation on two diagrams, leaf by leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The copies and drops of both.
    Union,
    /// The second where the first, a predicate, holds.
    Filter,
    /// The second where the first, a predicate, holds; undecided elsewhere.
    Arm,
    /// The first where it has decided, else the second.
    Override,
}

/// A map of leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum LeafMap {
    /// The opposite of a predicate.
    Negate,
    /// Forgets all labels.
    EraseLabels,
    /// Forgets assignments of a value to the field with this rank.
    Strip(u8, u64),
}

impl Store {
    /// All copies and drops of several diagrams.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn union(&mut self, arms: &[Id]) -> Result<Id, TooLarge> {
        self.balanced(Operation::Union, arms, EMPTY)
    }

    /// A policy where a predicate holds.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn filter(&mut self, predicate: Id, policy: Id) -> Result<Id, TooLarge> {
        self.apply(Operation::Filter, predicate, policy)
    }

    /// All of several predicates.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn all(&mut self, predicates: &[Id]) -> Result<Id, TooLarge> {
        self.balanced(Operation::Filter, predicates, IDENTITY)
    }

    /// The opposite of a predicate.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn negate(&mut self, predicate: Id) -> Result<Id, TooLarge> {
        self.map(LeafMap::Negate, predicate)
    }

    /// The policy of the first arm whose predicate holds, else the last one.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn choose(&mut self, arms: &[(Id, Id)], otherwise: Id) -> Result<Id, TooLarge> {
        let mut parts = Vec::with_capacity(arms.len() + 1);
        for (predicate, policy) in arms {
            parts.push(self.apply(Operation::Arm, *predicate, *policy)?);
        }
        parts.push(otherwise);
        self.balanced(Operation::Override, &parts, UNDECIDED)
    }

    /// The diagram without labels.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn erase_labels(&mut self, policy: Id) -> Result<Id, TooLarge> {
        self.map(LeafMap::EraseLabels, policy)
    }

    /// Folds an associative operation in halves, so that many small diagrams meet before large ones
    /// are made: a chain of n arms costs n log n instead of n².
    fn balanced(
        &mut self,
        operation: Operation,
        parts: &[Id],
        neutral: Id,
    ) -> Result<Id, TooLarge> {
        match parts {
            [] => Ok(neutral),
            [only] => Ok(*only),
            _ => {
                let (left, right) = parts.split_at(parts.len() / 2);
                let left = self.balanced(operation, left, neutral)?;
                let right = self.balanced(operation, right, neutral)?;
                self.apply(operation, left, right)
            }
        }
    }

    fn apply(&mut self, operation: Operation, left: Id, right: Id) -> Result<Id, TooLarge> {
        if let Some(id) = self.apply_at_once(operation, left, right) {
            return Ok(id);
        }
        // Union commutes.
        let memo = match operation {
            Operation::Union => Memo::Apply(operation, left.min(right), left.max(right)),
            _ => Memo::Apply(operation, left, right),
        };
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let id = match (self.node(left).clone(), self.node(right).clone()) {
            (Node::Leaf(left), Node::Leaf(right)) => self.merge(&left, &right)?,
            (
                Node::Test { rank, cuts },
                Node::Test {
                    rank: other,
                    cuts: others,
                },
            ) if rank == other => {
                let mut out = Vec::with_capacity(cuts.len().max(others.len()));
                let (mut i, mut j) = (0, 0);
                loop {
                    let start = cuts[i].0.max(others[j].0);
                    out.push((start, self.apply(operation, cuts[i].1, others[j].1)?));
                    let next = |cuts: &[(u64, Id)], at: usize| cuts.get(at + 1).map(|c| c.0);
                    match (next(&cuts, i), next(&others, j)) {
                        (None, None) => break,
                        (Some(a), Some(b)) if a == b => {
                            i += 1;
                            j += 1;
                        }
                        (Some(a), Some(b)) if a < b => i += 1,
                        (Some(_), None) => i += 1,
                        _ => j += 1,
                    }
                }
                self.test(rank, out)?
            }
            (Node::Test { rank, cuts }, right_node) if before(rank, &right_node) => {
                let mut out = Vec::with_capacity(cuts.len());
                for (start, child) in cuts.iter() {
                    out.push((*start, self.apply(operation, *child, right)?));
                }
                self.test(rank, out)?
            }
            (_, Node::Test { rank, cuts }) => {
                let mut out = Vec::with_capacity(cuts.len());
                for (start, child) in cuts.iter() {
                    out.push((*start, self.apply(operation, left, *child)?));
                }
                self.test(rank, out)?
            }
            (Node::Test { .. }, Node::Leaf(_)) => unreachable!("a test is before a leaf"),
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// Cases that need no descent.
    fn apply_at_once(&self, operation: Operation, left: Id, right: Id) -> Option<Id> {
        match operation {
            Operation::Union if left == right || right == EMPTY => Some(left),
            Operation::Union if left == EMPTY => Some(right),
            Operation::Filter if left == EMPTY || right == EMPTY => Some(EMPTY),
            Operation::Filter | Operation::Arm if left == IDENTITY => Some(right),
            Operation::Arm if left == EMPTY => Some(UNDECIDED),
            Operation::Override if left == right || right == UNDECIDED => Some(left),
            Operation::Override if left == UNDECIDED => Some(right),
            Operation::Override if matches!(self.node(left), Node::Leaf(_)) => Some(left),
            _ => None,
        }
    }

    /// The union of two leaves; the other operations never meet two leaves.
    fn merge(&mut self, left: &Leaf, right: &Leaf) -> Result<Id, TooLarge> {
        let copies = left
            .copies
            .iter()
            .chain(right.copies.iter())
            .copied()
            .collect();
        self.leaf(copies, left.dropped.min(right.dropped))
    }

    pub(super) fn map(&mut self, map: LeafMap, id: Id) -> Result<Id, TooLarge> {
        let memo = Memo::Map(map, id);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let mapped = match self.node(id).clone() {
            Node::Leaf(leaf) => self.map_leaf(map, id, &leaf)?,
            Node::Test { rank, cuts } => {
                let mut out = Vec::with_capacity(cuts.len());
                for (start, child) in cuts.iter() {
                    out.push((*start, self.map(map, *child)?));
                }
                self.test(rank, out)?
            }
        };
        self.memo.insert(memo, mapped);
        Ok(mapped)
    }

    fn map_leaf(&mut self, map: LeafMap, id: Id, leaf: &Leaf) -> Result<Id, TooLarge> {
        match map {
            LeafMap::Negate if id == EMPTY => Ok(IDENTITY),
            LeafMap::Negate => Ok(EMPTY),
            LeafMap::EraseLabels => {
                let copies = leaf
                    .copies
                    .iter()
                    .map(|(action, _)| (*action, NO_LABEL))
                    .collect();
                self.leaf(copies, NO_LABEL)
            }
            LeafMap::Strip(rank, value) => {
                let mut copies: Vec<(_, LabelId)> = Vec::with_capacity(leaf.copies.len());
                for (action, label) in leaf.copies.iter() {
                    let kept: Vec<(u8, u64)> = self
                        .assignments(*action)
                        .iter()
                        .filter(|assignment| **assignment != (rank, value))
                        .copied()
                        .collect();
                    copies.push((self.action(kept), *label));
                }
                self.leaf(copies, leaf.dropped)
            }
        }
    }
}

/// Whether a test with this rank is made before the node.
fn before(rank: u8, node: &Node) -> bool {
    match node {
        Node::Leaf(_) => true,
        Node::Test { rank: other, .. } => rank < *other,
    }
}
