//! Sequence and star: operations in which one policy sees what another has written.

use super::apply::Remembered;
use super::store::{ActionId, Cut, EMPTY, Head, IDENTITY, Id, Memo, Store, TooLarge};
use crate::packet::LabelId;

impl Store {
    /// One policy after another.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn sequence(&mut self, first: Id, second: Id) -> Result<Id, TooLarge> {
        if first == EMPTY || second == IDENTITY {
            return Ok(first);
        }
        if first == IDENTITY {
            return Ok(second);
        }
        let memo = Memo(Remembered::Sequence.tag(), first.0, second.0, 0);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let id = match self.head(first) {
            Head::Leaf(leaf) => {
                let leaf = self.leaf_at(leaf).clone();
                let mut arms = Vec::with_capacity(leaf.copies.len() + 1);
                for (action, label) in leaf.copies.iter() {
                    arms.push(self.act(*action, *label, second)?);
                }
                arms.push(self.drop_noting(leaf.dropped, leaf.notes));
                self.union(&arms)?
            }
            Head::Test { rank, first, end } => {
                let base = self.begin();
                for at in first..end {
                    let (start, child) = self.edge(at);
                    let child = self.sequence(child, second)?;
                    self.push_edge(base, start, child);
                }
                let cuts = self.take_edges(base);
                self.multiplex(rank, cuts)?
            }
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// Any number of times a policy: the least solution of `x = id + p; x`.
    ///
    /// Each round only adds: a leaf has all actions of the leaf before, and with labels no greater.
    /// There are finitely many actions over the assigned values, finitely many labels and finitely
    /// many intervals, so some round changes nothing. Squaring takes fewer rounds, but composes every
    /// action with every other in each: a walk through n values costs it n³ in the last round alone.
    /// Here a round looks at what the round before has changed, since all else is remembered.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn star(&mut self, policy: Id) -> Result<Id, TooLarge> {
        let mut all = IDENTITY;
        loop {
            let once_more = self.sequence(policy, all)?;
            let next = self.union(&[IDENTITY, once_more])?;
            if next == all {
                return Ok(all);
            }
            all = next;
        }
    }

    /// A policy on packets that an action has changed.
    fn act(&mut self, action: ActionId, label: LabelId, policy: Id) -> Result<Id, TooLarge> {
        let memo = Memo(Remembered::Act.tag(), action.0, label, policy.0);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let id = match self.head(policy) {
            Head::Leaf(leaf) => {
                let leaf = self.leaf_at(leaf).clone();
                let mut copies = Vec::with_capacity(leaf.copies.len());
                for (next, after) in leaf.copies.iter() {
                    copies.push((self.compose(action, *next), label.min(*after)));
                }
                self.leaf(copies, leaf.dropped, leaf.notes)?
            }
            Head::Test { rank, first, end } => {
                let assigned = self.assignments(action).iter().find(|(r, _)| *r == rank);
                match assigned.map(|(_, value)| *value) {
                    Some(value) => {
                        let child = Self::child(self.cuts(first, end), value);
                        self.act(action, label, child)?
                    }
                    None => {
                        let base = self.begin();
                        for at in first..end {
                            let (start, child) = self.edge(at);
                            let child = self.act(action, label, child)?;
                            self.push_edge(base, start, child);
                        }
                        self.test(rank, base)?
                    }
                }
            }
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// The action that does one after the other.
    fn compose(&mut self, first: ActionId, second: ActionId) -> ActionId {
        let later = self.assignments(second);
        let mut assignments: Vec<(u8, u64)> = self
            .assignments(first)
            .iter()
            .filter(|(rank, _)| later.iter().all(|(other, _)| other != rank))
            .chain(later)
            .copied()
            .collect();
        assignments.sort_unstable();
        self.action(&assignments)
    }

    /// The test of a field whose children may test fields that come before it, or the same again.
    ///
    /// The first field that any child tests is tested first; each level of the recursion takes one
    /// field away, so it is no deeper than there are fields.
    fn multiplex(&mut self, rank: u8, mut cuts: Vec<Cut>) -> Result<Id, TooLarge> {
        cuts.dedup_by_key(|(_, child)| *child);
        if let [(_, only)] = cuts.as_slice() {
            return Ok(*only);
        }
        let children = cuts.iter().map(|(_, child)| self.rank(*child));
        let first = children.min().unwrap_or(rank);
        if first > rank {
            return self.assemble(rank, &cuts);
        }
        let key = (rank, cuts.into_boxed_slice());
        if let Some(id) = self.multiplexed.get(&key) {
            return Ok(*id);
        }
        let cuts = &key.1;
        let id = if first == rank {
            let flat = self.flattened(rank, cuts);
            self.assemble(rank, &flat)?
        } else {
            let mut starts: Vec<u64> = Vec::new();
            for (_, child) in cuts {
                if let Head::Test {
                    rank: r,
                    first: from,
                    end,
                } = self.head(*child)
                    && r == first
                {
                    starts.extend(self.cuts(from, end).iter().map(|(start, _)| *start));
                }
            }
            starts.sort_unstable();
            starts.dedup();
            let mut out = Vec::with_capacity(starts.len());
            for start in starts {
                self.spend(cuts.len())?;
                let inner = cuts
                    .iter()
                    .map(|(at, child)| (*at, self.at(*child, first, start)))
                    .collect();
                out.push((start, self.multiplex(rank, inner)?));
            }
            self.assemble(first, &out)?
        };
        self.multiplexed.insert(key, id);
        Ok(id)
    }

    /// The test of a field before all fields that its children test.
    fn assemble(&mut self, rank: u8, cuts: &[Cut]) -> Result<Id, TooLarge> {
        let base = self.begin();
        for (start, child) in cuts {
            self.push_edge(base, *start, *child);
        }
        self.test(rank, base)
    }

    /// Replaces children that test the same field by their own intervals.
    fn flattened(&self, rank: u8, cuts: &[Cut]) -> Vec<Cut> {
        let mut out: Vec<Cut> = Vec::with_capacity(cuts.len());
        for (at, (start, child)) in cuts.iter().enumerate() {
            match self.head(*child) {
                Head::Test {
                    rank: r,
                    first,
                    end,
                } if r == rank => {
                    let inner = self.cuts(first, end);
                    let stop = cuts.get(at + 1).map(|(next, _)| *next);
                    out.push((*start, Self::child(inner, *start)));
                    let within = |(at, _): &&Cut| at > start && stop.is_none_or(|stop| *at < stop);
                    out.extend(inner.iter().filter(within).copied());
                }
                _ => out.push((*start, *child)),
            }
        }
        out
    }

    /// The diagram for one value of a field that it may test first.
    fn at(&self, id: Id, rank: u8, value: u64) -> Id {
        match self.head(id) {
            Head::Test {
                rank: r,
                first,
                end,
            } if r == rank => Self::child(self.cuts(first, end), value),
            _ => id,
        }
    }
}
