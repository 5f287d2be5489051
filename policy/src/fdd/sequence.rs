//! Sequence and star: operations in which one policy sees what another has written.

use std::rc::Rc;

use super::store::{ActionId, EMPTY, IDENTITY, Id, Memo, Node, Store, TooLarge};
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
        let memo = Memo::Sequence(first, second);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let id = match self.node(first).clone() {
            Node::Leaf(leaf) => {
                let mut arms = Vec::with_capacity(leaf.copies.len() + 1);
                for (action, label) in leaf.copies.iter() {
                    arms.push(self.act(*action, *label, second)?);
                }
                arms.push(self.drop(leaf.dropped));
                self.union(&arms)?
            }
            Node::Test { rank, cuts } => {
                let mut out = Vec::with_capacity(cuts.len());
                for (start, child) in cuts.iter() {
                    out.push((*start, self.sequence(*child, second)?));
                }
                self.multiplex(rank, out)?
            }
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// Any number of times a policy, by squaring `id + p`.
    ///
    /// The result grows with each round: a leaf of the square has all actions of the leaf before,
    /// and with labels no greater. There are finitely many actions over the assigned values,
    /// finitely many labels and finitely many intervals, so some round changes nothing.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn star(&mut self, policy: Id) -> Result<Id, TooLarge> {
        let mut all = self.union(&[IDENTITY, policy])?;
        loop {
            let square = self.sequence(all, all)?;
            if square == all {
                return Ok(all);
            }
            all = square;
        }
    }

    /// A policy on packets that an action has changed.
    fn act(&mut self, action: ActionId, label: LabelId, policy: Id) -> Result<Id, TooLarge> {
        let memo = Memo::Act(action, label, policy);
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let id = match self.node(policy).clone() {
            Node::Leaf(leaf) => {
                let mut copies = Vec::with_capacity(leaf.copies.len());
                for (next, after) in leaf.copies.iter() {
                    copies.push((self.compose(action, *next), label.min(*after)));
                }
                self.leaf(copies, leaf.dropped)?
            }
            Node::Test { rank, cuts } => {
                let assigned = self
                    .assignments(action)
                    .iter()
                    .find(|(r, _)| *r == rank)
                    .copied();
                match assigned {
                    Some((_, value)) => self.act(action, label, Self::child(&cuts, value))?,
                    None => {
                        let mut out = Vec::with_capacity(cuts.len());
                        for (start, child) in cuts.iter() {
                            out.push((*start, self.act(action, label, *child)?));
                        }
                        self.test(rank, out)?
                    }
                }
            }
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// The action that does one after the other.
    fn compose(&mut self, first: ActionId, second: ActionId) -> ActionId {
        let later = self.assignments(second).clone();
        let mut assignments: Vec<(u8, u64)> = self
            .assignments(first)
            .iter()
            .filter(|(rank, _)| later.iter().all(|(other, _)| other != rank))
            .chain(later.iter())
            .copied()
            .collect();
        assignments.sort_unstable();
        self.action(assignments)
    }

    /// The test of a field whose children may test fields that come before it, or the same again.
    fn multiplex(&mut self, rank: u8, mut cuts: Vec<(u64, Id)>) -> Result<Id, TooLarge> {
        cuts.dedup_by_key(|(_, child)| *child);
        let first = cuts.iter().filter_map(|(_, child)| self.rank(*child)).min();
        match first {
            _ if cuts.len() == 1 => return Ok(cuts[0].1),
            Some(first) if first <= rank => {}
            _ => return self.test(rank, cuts),
        }
        let memo = Memo::Multiplex(rank, cuts.into());
        if let Some(id) = self.memo.get(&memo) {
            return Ok(*id);
        }
        let Memo::Multiplex(_, cuts) = &memo else {
            unreachable!("made above");
        };
        let cuts: Rc<[(u64, Id)]> = cuts.clone();
        let first = first.unwrap_or(rank);
        let id = if first == rank {
            let flat = self.flattened(rank, &cuts);
            self.test(rank, flat)?
        } else {
            let mut starts: Vec<u64> = Vec::new();
            for (_, child) in cuts.iter() {
                if let Node::Test { rank: r, cuts } = self.node(*child)
                    && *r == first
                {
                    starts.extend(cuts.iter().map(|(start, _)| *start));
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
            self.test(first, out)?
        };
        self.memo.insert(memo, id);
        Ok(id)
    }

    /// Replaces children that test the same field by their own intervals.
    fn flattened(&self, rank: u8, cuts: &[(u64, Id)]) -> Vec<(u64, Id)> {
        let mut out: Vec<(u64, Id)> = Vec::with_capacity(cuts.len());
        for (at, (start, child)) in cuts.iter().enumerate() {
            match self.node(*child) {
                Node::Test {
                    rank: r,
                    cuts: inner,
                } if *r == rank => {
                    let end = cuts.get(at + 1).map(|(next, _)| *next);
                    out.push((*start, Self::child(inner, *start)));
                    let within =
                        |(at, _): &&(u64, Id)| at > start && end.is_none_or(|end| *at < end);
                    out.extend(inner.iter().filter(within).copied());
                }
                _ => out.push((*start, *child)),
            }
        }
        out
    }

    fn rank(&self, id: Id) -> Option<u8> {
        match self.node(id) {
            Node::Leaf(_) => None,
            Node::Test { rank, .. } => Some(*rank),
        }
    }

    /// The diagram for one value of a field that it may test first.
    fn at(&self, id: Id, rank: u8, value: u64) -> Id {
        match self.node(id) {
            Node::Test { rank: r, cuts } if *r == rank => Self::child(cuts, value),
            _ => id,
        }
    }
}
