//! Symbolic packet programs (Moeller et al., PLDI 2024) at bit level: relations between the packet
//! that goes in and the packets that come out, as hash-consed diagrams.
//!
//! A node has four children, for each value of its bit in the packet that goes in and in the packet
//! that comes out. A level that a diagram skips leaves its bit as it is. So equal relations are one
//! [`Spp`], and what a program does not touch costs nothing.

use super::options::{Limit, Options};
use super::set::{BOTTOM, Set, Sets};
use super::table::{Memo, Unique, hash3};

/// A symbolic packet program, of the [`Diagrams`] that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spp(pub(super) u32);

impl Spp {
    /// Nothing comes out.
    pub const DROP: Spp = Spp(0);
    /// The packet comes out as it is.
    pub const ID: Spp = Spp(1);

    /// Whether nothing comes out, whatever goes in.
    #[must_use]
    pub fn is_drop(self) -> bool {
        self == Spp::DROP
    }
}

/// Children in the order (in, out): 00, 01, 10, 11.
pub(super) type Children = [Spp; 4];

#[derive(Clone, Copy, PartialEq, Eq)]
struct SppNode {
    level: u32,
    next: Children,
}

/// Operations that are remembered, of this file and the ones beside it.
pub(super) mod operation {
    pub(in super::super) const UNION: u32 = 1;
    pub(in super::super) const INTERSECTION: u32 = 2;
    pub(in super::super) const DIFFERENCE: u32 = 3;
    pub(in super::super) const SYMMETRIC: u32 = 4;
    pub(in super::super) const SEQUENCE: u32 = 5;
    pub(in super::super) const STAR: u32 = 6;
    pub(in super::super) const TEST: u32 = 7;
    pub(in super::super) const PUSH: u32 = 8;
    pub(in super::super) const PULL: u32 = 9;
    pub(in super::super) const RESTRICT_INPUT: u32 = 10;
    pub(in super::super) const RESTRICT_OUTPUT: u32 = 11;
}

use operation::{DIFFERENCE, INTERSECTION, SYMMETRIC, UNION};

/// All diagrams of one question: sets, and programs.
pub struct Diagrams {
    /// The sets.
    pub sets: Sets,
    nodes: Vec<SppNode>,
    unique: Unique,
    pub(super) memo: Memo,
    /// Bits of a packet.
    pub(super) levels: u32,
}

impl SppNode {
    #[inline]
    fn hash(self) -> u64 {
        let [a, b, c, d] = self.next.map(|next| u64::from(next.0));
        hash3(a << 32 | b, c << 32 | d, u64::from(self.level))
    }
}

impl Diagrams {
    pub(super) fn new(levels: u32, expected: usize, options: &Options) -> Self {
        let end = |spp| SppNode {
            level: BOTTOM,
            next: [spp; 4],
        };
        Diagrams {
            sets: Sets::new(expected / 4, options),
            nodes: vec![end(Spp::DROP), end(Spp::ID)],
            unique: Unique::new(expected),
            memo: Memo::new(expected),
            levels,
        }
    }

    /// How many nodes of programs there are; [`Sets::len`] counts those of sets.
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
    pub(super) fn level(&self, spp: Spp) -> u32 {
        self.nodes[spp.0 as usize].level
    }

    /// What remains of the program at `level`, which is not below its own.
    #[inline]
    pub(super) fn split(&self, spp: Spp, level: u32) -> Children {
        let node = self.nodes[spp.0 as usize];
        if node.level == level {
            node.next
        } else {
            [spp, Spp::DROP, Spp::DROP, spp]
        }
    }

    #[inline]
    pub(super) fn node(&mut self, level: u32, next: Children) -> Result<Spp, Limit> {
        if next[1].is_drop() && next[2].is_drop() && next[0] == next[3] {
            return Ok(next[0]);
        }
        let node = SppNode { level, next };
        let nodes = &self.nodes;
        match self
            .unique
            .find(node.hash(), |id| nodes[id as usize] == node)
        {
            Ok(id) => Ok(Spp(id)),
            Err(place) => {
                self.sets.meter.node()?;
                let id = self.nodes.len() as u32;
                self.nodes.push(node);
                let nodes = &self.nodes;
                self.unique
                    .insert(place, id, |id| nodes[id as usize].hash());
                Ok(Spp(id))
            }
        }
    }

    /// What comes out of either.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    #[inline]
    pub fn union(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if a == b || b.is_drop() {
            return Ok(a);
        }
        if a.is_drop() {
            return Ok(b);
        }
        self.apply::<UNION>(a.min(b), a.max(b))
    }

    /// What comes out of both.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn intersection(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if a == b {
            return Ok(a);
        }
        if a.is_drop() || b.is_drop() {
            return Ok(Spp::DROP);
        }
        self.apply::<INTERSECTION>(a.min(b), a.max(b))
    }

    /// What comes out of the first and not of the second.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn difference(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if a == b || a.is_drop() {
            return Ok(Spp::DROP);
        }
        if b.is_drop() {
            return Ok(a);
        }
        self.apply::<DIFFERENCE>(a, b)
    }

    /// What comes out of exactly one.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn symmetric_difference(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if a == b {
            return Ok(Spp::DROP);
        }
        if a.is_drop() {
            return Ok(b);
        }
        if b.is_drop() {
            return Ok(a);
        }
        self.apply::<SYMMETRIC>(a.min(b), a.max(b))
    }

    /// What comes out of any of them, joined as a balanced tree.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn union_all(&mut self, mut spps: Vec<Spp>) -> Result<Spp, Limit> {
        while spps.len() > 1 {
            let mut kept = 0;
            for at in (0..spps.len()).step_by(2) {
                let joined = match spps.get(at + 1) {
                    Some(second) => self.union(spps[at], *second)?,
                    None => spps[at],
                };
                spps[kept] = joined;
                kept += 1;
            }
            spps.truncate(kept);
        }
        Ok(spps.first().copied().unwrap_or(Spp::DROP))
    }

    fn apply<const OPERATION: u32>(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if let Some(known) = self.memo.get(OPERATION, a.0, b.0) {
            return Ok(Spp(known));
        }
        let level = self.level(a).min(self.level(b));
        let (left, right) = (self.split(a, level), self.split(b, level));
        let mut next = [Spp::DROP; 4];
        for ((next, a), b) in next.iter_mut().zip(left).zip(right) {
            *next = match OPERATION {
                UNION => self.union(a, b)?,
                INTERSECTION => self.intersection(a, b)?,
                DIFFERENCE => self.difference(a, b)?,
                _ => self.symmetric_difference(a, b)?,
            };
        }
        let result = self.node(level, next)?;
        self.remember(OPERATION, a.0, b.0, result.0)?;
        Ok(result)
    }

    #[inline]
    pub(super) fn remember(
        &mut self,
        operation: u32,
        left: u32,
        right: u32,
        result: u32,
    ) -> Result<(), Limit> {
        self.sets.meter.tick()?;
        self.memo.put(operation, left, right, result);
        Ok(())
    }

    /// Lets the packets of a set through.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn test(&mut self, set: Set) -> Result<Spp, Limit> {
        if set.is_empty() {
            return Ok(Spp::DROP);
        }
        if set == Set::ALL {
            return Ok(Spp::ID);
        }
        if let Some(known) = self.memo.get(operation::TEST, set.0, 0) {
            return Ok(Spp(known));
        }
        let level = self.sets.level(set);
        let [low, high] = self.sets.split(set, level);
        let next = [self.test(low)?, Spp::DROP, Spp::DROP, self.test(high)?];
        let result = self.node(level, next)?;
        self.remember(operation::TEST, set.0, 0, result.0)?;
        Ok(result)
    }

    /// Gives the bits from `level` on, `width` of them, most significant first, the value `number`.
    pub(super) fn assign_number(
        &mut self,
        level: u32,
        width: u32,
        number: u32,
    ) -> Result<Spp, Limit> {
        let mut spp = Spp::ID;
        for bit in 0..width {
            let next = if number >> bit & 1 == 0 {
                [spp, Spp::DROP, spp, Spp::DROP]
            } else {
                [Spp::DROP, spp, Spp::DROP, spp]
            };
            spp = self.node(level + width - 1 - bit, next)?;
        }
        Ok(spp)
    }
}
