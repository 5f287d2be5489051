//! Operations that treat every packet by itself: union, filtering, choice, and maps of leaves.

use std::sync::Arc;

use super::TESTED;
use super::hash::hash_of;
use super::store::{
    ActionId, EMPTY, Head, IDENTITY, Id, Memo, NOTHING_NOTED, Node, Store, TooLarge, UNDECIDED,
};
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
    /// Forgets all labels and notes.
    EraseLabels,
    /// Forgets the assignment that this action does.
    Strip(ActionId),
}

/// What the results of operations are remembered by; see [`Memo`].
#[derive(Clone, Copy)]
pub(super) enum Remembered {
    Apply(Operation),
    Map(LeafMap),
    Sequence,
    Act,
    SplitAll,
    SplitAmbiguous,
}

impl Remembered {
    pub(super) const fn tag(self) -> u32 {
        match self {
            Remembered::Apply(Operation::Union) => 0,
            Remembered::Apply(Operation::Filter) => 1,
            Remembered::Apply(Operation::Arm) => 2,
            Remembered::Apply(Operation::Override) => 3,
            Remembered::Map(LeafMap::Negate) => 4,
            Remembered::Map(LeafMap::EraseLabels) => 5,
            Remembered::Map(LeafMap::Strip(_)) => 6,
            Remembered::Sequence => 7,
            Remembered::Act => 8,
            Remembered::SplitAll => 9,
            Remembered::SplitAmbiguous => 10,
        }
    }
}

impl Store {
    /// All copies and drops of several diagrams.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn union(&mut self, arms: &[Id]) -> Result<Id, TooLarge> {
        self.fold(Operation::Union, arms, EMPTY)
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
        self.fold(Operation::Filter, predicates, IDENTITY)
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
        self.fold(Operation::Override, &parts, UNDECIDED)
    }

    /// The diagram without labels and notes.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn erase_labels(&mut self, policy: Id) -> Result<Id, TooLarge> {
        self.map(LeafMap::EraseLabels, policy)
    }

    /// Folds an associative operation over small groups of neighbours, then over their results, and
    /// so on: many small diagrams meet before large ones are made, and a chain of n arms costs
    /// n log n instead of n².
    ///
    /// What is in an arm decides whether a group ends there, not its position. So an arm that is
    /// added or removed changes the groups around it alone, and a session finds all others done.
    fn fold(&mut self, operation: Operation, parts: &[Id], neutral: Id) -> Result<Id, TooLarge> {
        const LONGEST: usize = 6;
        let Some((first, rest)) = parts.split_first() else {
            return Ok(neutral);
        };
        if rest.is_empty() {
            return Ok(*first);
        }
        let mut level = parts.to_vec();
        while level.len() > 1 {
            let mut next = Vec::with_capacity(level.len() / 2 + 1);
            let mut group = 0;
            for id in &level {
                match next.last_mut() {
                    Some(result) if group > 0 => *result = self.apply(operation, *result, *id)?,
                    _ => next.push(*id),
                }
                group += 1;
                if group > 1 && (hash_of(id) & 1 == 0 || group == LONGEST) {
                    group = 0;
                }
            }
            level = next;
        }
        Ok(level[0])
    }

    fn apply(&mut self, operation: Operation, left: Id, right: Id) -> Result<Id, TooLarge> {
        if let Some(id) = self.apply_at_once(operation, left, right) {
            return Ok(id);
        }
        // Union commutes.
        let (low, high) = match operation {
            Operation::Union => (left.min(right), left.max(right)),
            _ => (left, right),
        };
        let memo = Memo(Remembered::Apply(operation).tag(), low.0, high.0, 0);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let rank = self.rank(left).min(self.rank(right));
        let id = if usize::from(rank) == TESTED {
            self.merge(left, right)?
        } else {
            let (mut lefts, mut rights) = (self.span(left, rank), self.span(right, rank));
            let base = self.begin();
            let mut start = 0;
            loop {
                let child = self.apply(operation, lefts.child(self), rights.child(self))?;
                self.push_edge(base, start, child);
                start = match (lefts.next_start(self), rights.next_start(self)) {
                    (None, None) => break,
                    (Some(a), Some(b)) if a == b => {
                        lefts.advance();
                        rights.advance();
                        a
                    }
                    (Some(a), b) if b.is_none_or(|b| a < b) => {
                        lefts.advance();
                        a
                    }
                    (_, Some(b)) => {
                        rights.advance();
                        b
                    }
                    (Some(_), None) => unreachable!("the arm before took it"),
                };
            }
            self.test(rank, base)?
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
            Operation::Override if matches!(self.head(left), Head::Leaf(_)) => Some(left),
            _ => None,
        }
    }

    /// The intervals of a diagram for a field that it may test first.
    fn span(&self, id: Id, rank: u8) -> Span {
        match self.head(id) {
            Head::Test {
                rank: r,
                first,
                end,
            } if r == rank => Span::Edges(first, end),
            _ => Span::Whole(id),
        }
    }

    /// The union of two leaves; the other operations never meet two leaves.
    fn merge(&mut self, left: Id, right: Id) -> Result<Id, TooLarge> {
        let (Node::Leaf(left), Node::Leaf(right)) = (self.node(left), self.node(right)) else {
            unreachable!("only leaves test nothing");
        };
        let copies = left.copies.iter().chain(right.copies.iter());
        let copies = copies.copied().collect();
        let dropped = left.dropped.min(right.dropped);
        let (left, right) = (left.notes, right.notes);
        let notes = self.join_notes(left, right);
        self.leaf(copies, dropped, notes)
    }

    pub(super) fn map(&mut self, map: LeafMap, id: Id) -> Result<Id, TooLarge> {
        let what = match map {
            LeafMap::Strip(action) => action.0,
            _ => 0,
        };
        let memo = Memo(Remembered::Map(map).tag(), id.0, what, 0);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let mapped = match self.head(id) {
            Head::Leaf(leaf) => self.map_leaf(map, id, leaf)?,
            Head::Test { rank, first, end } => {
                let base = self.begin();
                for at in first..end {
                    let (start, child) = self.edge(at);
                    let child = self.map(map, child)?;
                    self.push_edge(base, start, child);
                }
                self.test(rank, base)?
            }
        };
        self.memo.insert(memo, mapped);
        Ok(mapped)
    }

    fn map_leaf(&mut self, map: LeafMap, id: Id, leaf: u32) -> Result<Id, TooLarge> {
        let leaf = self.leaf_at(leaf);
        let (dropped, notes) = (leaf.dropped, leaf.notes);
        match map {
            LeafMap::Negate if id == EMPTY => Ok(IDENTITY),
            LeafMap::Negate => Ok(EMPTY),
            LeafMap::EraseLabels => {
                let copies = leaf.copies.iter();
                let copies = copies.map(|(action, _)| (*action, NO_LABEL)).collect();
                self.leaf(copies, NO_LABEL, NOTHING_NOTED)
            }
            LeafMap::Strip(stripped) => {
                let old: Arc<[(ActionId, LabelId)]> = leaf.copies.clone();
                let mut copies = Vec::with_capacity(old.len());
                for (action, label) in old.iter() {
                    let gone = self.assignments(stripped);
                    let kept: Vec<(u8, u64)> = self
                        .assignments(*action)
                        .iter()
                        .filter(|assignment| !gone.contains(assignment))
                        .copied()
                        .collect();
                    copies.push((self.action(&kept), *label));
                }
                self.leaf(copies, dropped, notes)
            }
        }
    }
}

/// The intervals of one operand.
enum Span {
    /// It does not test the field.
    Whole(Id),
    /// The edges that are left, the current one first.
    Edges(u32, u32),
}

impl Span {
    fn child(&self, store: &Store) -> Id {
        match self {
            Span::Whole(id) => *id,
            Span::Edges(at, _) => store.edge(*at).1,
        }
    }

    /// Where the interval after the current one starts.
    fn next_start(&self, store: &Store) -> Option<u64> {
        match self {
            Span::Edges(at, end) if at + 1 < *end => Some(store.edge(at + 1).0),
            _ => None,
        }
    }

    fn advance(&mut self) {
        if let Span::Edges(at, _) = self {
            *at += 1;
        }
    }
}
