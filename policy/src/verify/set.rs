//! Sets of packets: hash-consed binary decision diagrams over the bits of a packet.
//!
//! A level that a diagram skips may be either bit. Equal sets are one [`Set`].

use super::options::{Limit, Meter, Options};
use super::table::{Memo, Unique, hash3};

/// A set of packets, of the [`Sets`] that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set(pub(super) u32);

impl Set {
    /// No packet.
    pub const EMPTY: Set = Set(0);
    /// Every packet.
    pub const ALL: Set = Set(1);

    /// Whether no packet is in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Set::EMPTY
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SetNode {
    /// Greater than any level for the two ends.
    pub(super) level: u32,
    /// Where the bits 0 and 1 lead.
    pub(super) next: [Set; 2],
}

/// A level below all others.
pub(super) const BOTTOM: u32 = u32::MAX;

const INTERSECTION: u32 = 1;
const UNION: u32 = 2;
const DIFFERENCE: u32 = 3;

/// All sets of one question.
pub struct Sets {
    nodes: Vec<SetNode>,
    unique: Unique,
    memo: Memo,
    pub(super) meter: Meter,
}

impl SetNode {
    #[inline]
    fn hash(self) -> u64 {
        let next = u64::from(self.next[0].0) << 32 | u64::from(self.next[1].0);
        hash3(next, u64::from(self.level), 0)
    }
}

impl Sets {
    pub(super) fn new(expected: usize, options: &Options) -> Self {
        let end = |set| SetNode {
            level: BOTTOM,
            next: [set; 2],
        };
        Sets {
            nodes: vec![end(Set::EMPTY), end(Set::ALL)],
            unique: Unique::new(expected),
            memo: Memo::new(expected),
            meter: Meter::new(options),
        }
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Never: the two ends are nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    #[inline]
    pub(super) fn level(&self, set: Set) -> u32 {
        self.nodes[set.0 as usize].level
    }

    /// What remains of the set for each value of the bit `level`, which is not below its own.
    #[inline]
    pub(super) fn split(&self, set: Set, level: u32) -> [Set; 2] {
        let node = self.nodes[set.0 as usize];
        if node.level == level {
            node.next
        } else {
            [set; 2]
        }
    }

    /// Packets whose bit `level` leads to a set that holds the rest.
    #[inline]
    pub(super) fn node(&mut self, level: u32, next: [Set; 2]) -> Result<Set, Limit> {
        if next[0] == next[1] {
            return Ok(next[0]);
        }
        let node = SetNode { level, next };
        let nodes = &self.nodes;
        match self
            .unique
            .find(node.hash(), |id| nodes[id as usize] == node)
        {
            Ok(id) => Ok(Set(id)),
            Err(place) => {
                self.meter.node()?;
                let id = self.nodes.len() as u32;
                self.nodes.push(node);
                let nodes = &self.nodes;
                self.unique
                    .insert(place, id, |id| nodes[id as usize].hash());
                Ok(Set(id))
            }
        }
    }

    /// Packets in both.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn intersection(&mut self, a: Set, b: Set) -> Result<Set, Limit> {
        if a == b || b == Set::ALL {
            return Ok(a);
        }
        if a == Set::ALL {
            return Ok(b);
        }
        if a.is_empty() || b.is_empty() {
            return Ok(Set::EMPTY);
        }
        self.apply::<INTERSECTION>(a.min(b), a.max(b))
    }

    /// Packets in one or both.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn union(&mut self, a: Set, b: Set) -> Result<Set, Limit> {
        if a == b || b.is_empty() {
            return Ok(a);
        }
        if a.is_empty() {
            return Ok(b);
        }
        if a == Set::ALL || b == Set::ALL {
            return Ok(Set::ALL);
        }
        self.apply::<UNION>(a.min(b), a.max(b))
    }

    /// Packets in the first and not in the second.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn difference(&mut self, a: Set, b: Set) -> Result<Set, Limit> {
        if a == b || a.is_empty() || b == Set::ALL {
            return Ok(Set::EMPTY);
        }
        if b.is_empty() {
            return Ok(a);
        }
        self.apply::<DIFFERENCE>(a, b)
    }

    /// Packets in exactly one.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn symmetric_difference(&mut self, a: Set, b: Set) -> Result<Set, Limit> {
        let (left, right) = (self.difference(a, b)?, self.difference(b, a)?);
        self.union(left, right)
    }

    /// Packets not in it.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn complement(&mut self, a: Set) -> Result<Set, Limit> {
        self.difference(Set::ALL, a)
    }

    /// Packets in any of them, joined as a balanced tree.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn union_all(&mut self, mut sets: Vec<Set>) -> Result<Set, Limit> {
        while sets.len() > 1 {
            let mut joined = Vec::with_capacity(sets.len().div_ceil(2));
            for pair in sets.chunks(2) {
                joined.push(match *pair {
                    [a, b] => self.union(a, b)?,
                    _ => pair[0],
                });
            }
            sets = joined;
        }
        Ok(sets.first().copied().unwrap_or(Set::EMPTY))
    }

    fn apply<const OPERATION: u32>(&mut self, a: Set, b: Set) -> Result<Set, Limit> {
        if let Some(known) = self.memo.get(OPERATION, a.0, b.0) {
            return Ok(Set(known));
        }
        let level = self.level(a).min(self.level(b));
        let ([a0, a1], [b0, b1]) = (self.split(a, level), self.split(b, level));
        let next = match OPERATION {
            INTERSECTION => [self.intersection(a0, b0)?, self.intersection(a1, b1)?],
            UNION => [self.union(a0, b0)?, self.union(a1, b1)?],
            _ => [self.difference(a0, b0)?, self.difference(a1, b1)?],
        };
        let result = self.node(level, next)?;
        self.meter.tick()?;
        self.memo.put(OPERATION, a.0, b.0, result.0);
        Ok(result)
    }

    /// The packets whose bits from `level` on, `width` of them, most significant first, are a
    /// number in `numbers` (in order, each once).
    pub(super) fn of_numbers(
        &mut self,
        level: u32,
        width: u32,
        numbers: &[u32],
    ) -> Result<Set, Limit> {
        if numbers.is_empty() {
            return Ok(Set::EMPTY);
        }
        if numbers.len() == 1 << width {
            return Ok(Set::ALL);
        }
        let half = 1 << (width - 1);
        let upper = numbers.partition_point(|number| number & half == 0);
        let low = self.of_numbers(level + 1, width - 1, &numbers[..upper])?;
        let high = self.of_numbers(level + 1, width - 1, &numbers[upper..])?;
        self.node(level, [low, high])
    }

    /// The one packet with these bits.
    pub(super) fn point(&mut self, bits: &[bool]) -> Result<Set, Limit> {
        let mut set = Set::ALL;
        for (level, bit) in bits.iter().enumerate().rev() {
            let next = if *bit {
                [Set::EMPTY, set]
            } else {
                [set, Set::EMPTY]
            };
            set = self.node(level as u32, next)?;
        }
        Ok(set)
    }

    /// The bits of some packet of the set, 0 where both are possible; `None` when it is empty.
    pub(super) fn pick(&self, set: Set, levels: u32) -> Option<Vec<bool>> {
        if set.is_empty() {
            return None;
        }
        let mut bits = vec![false; levels as usize];
        let mut at = set;
        while at != Set::ALL {
            let node = self.nodes[at.0 as usize];
            let bit = node.next[0].is_empty();
            bits[node.level as usize] = bit;
            at = node.next[usize::from(bit)];
        }
        Some(bits)
    }
}
