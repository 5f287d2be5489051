//! Sets through symbolic packet programs: images, preimages, restrictions, single packets.

use super::options::Limit;
use super::set::Set;
use super::spp::operation::{PULL, PUSH, RESTRICT_INPUT, RESTRICT_OUTPUT};
use super::spp::{Diagrams, Spp};

/// The bits of a packet.
pub(super) type Bits = Vec<bool>;

impl Diagrams {
    /// What comes out when the packets of a set go in.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn push(&mut self, set: Set, spp: Spp) -> Result<Set, Limit> {
        if set.is_empty() || spp.is_drop() {
            return Ok(Set::EMPTY);
        }
        if spp == Spp::ID {
            return Ok(set);
        }
        if let Some(known) = self.memo.get(PUSH, set.0, spp.0) {
            return Ok(Set(known));
        }
        let level = self.level(spp).min(self.sets.level(set));
        let ([s0, s1], [a, b, c, d]) = (self.sets.split(set, level), self.split(spp, level));
        let zero = (self.push(s0, a)?, self.push(s1, c)?);
        let one = (self.push(s0, b)?, self.push(s1, d)?);
        let next = [
            self.sets.union(zero.0, zero.1)?,
            self.sets.union(one.0, one.1)?,
        ];
        let result = self.sets.node(level, next)?;
        self.remember(PUSH, set.0, spp.0, result.0)?;
        Ok(result)
    }

    /// What must go in for something of a set to come out.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn pull(&mut self, spp: Spp, set: Set) -> Result<Set, Limit> {
        if set.is_empty() || spp.is_drop() {
            return Ok(Set::EMPTY);
        }
        if spp == Spp::ID {
            return Ok(set);
        }
        if let Some(known) = self.memo.get(PULL, set.0, spp.0) {
            return Ok(Set(known));
        }
        let level = self.level(spp).min(self.sets.level(set));
        let ([s0, s1], [a, b, c, d]) = (self.sets.split(set, level), self.split(spp, level));
        let zero = (self.pull(a, s0)?, self.pull(b, s1)?);
        let one = (self.pull(c, s0)?, self.pull(d, s1)?);
        let next = [
            self.sets.union(zero.0, zero.1)?,
            self.sets.union(one.0, one.1)?,
        ];
        let result = self.sets.node(level, next)?;
        self.remember(PULL, set.0, spp.0, result.0)?;
        Ok(result)
    }

    /// The packets for which something comes out.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn domain(&mut self, spp: Spp) -> Result<Set, Limit> {
        self.pull(spp, Set::ALL)
    }

    /// The packets that can come out.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn range(&mut self, spp: Spp) -> Result<Set, Limit> {
        self.push(Set::ALL, spp)
    }

    /// The program for packets of a set, nothing for others.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn restrict_input(&mut self, set: Set, spp: Spp) -> Result<Spp, Limit> {
        self.restrict(RESTRICT_INPUT, set, spp)
    }

    /// Of what comes out, only the packets of a set.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn restrict_output(&mut self, spp: Spp, set: Set) -> Result<Spp, Limit> {
        self.restrict(RESTRICT_OUTPUT, set, spp)
    }

    /// The program on one side only for packets of a set.
    fn restrict(&mut self, side: u32, set: Set, spp: Spp) -> Result<Spp, Limit> {
        if set.is_empty() || spp.is_drop() {
            return Ok(Spp::DROP);
        }
        if set == Set::ALL {
            return Ok(spp);
        }
        if spp == Spp::ID {
            return self.test(set);
        }
        if let Some(known) = self.memo.get(side, set.0, spp.0) {
            return Ok(Spp(known));
        }
        let level = self.level(spp).min(self.sets.level(set));
        let ([s0, s1], [a, b, c, d]) = (self.sets.split(set, level), self.split(spp, level));
        // The bit that goes in changes last, the one that comes out first.
        let [low, high] = match side {
            RESTRICT_INPUT => [[s0, s0], [s1, s1]],
            _ => [[s0, s1], [s0, s1]],
        };
        let next = [
            self.restrict(side, low[0], a)?,
            self.restrict(side, low[1], b)?,
            self.restrict(side, high[0], c)?,
            self.restrict(side, high[1], d)?,
        ];
        let result = self.node(level, next)?;
        self.remember(side, set.0, spp.0, result.0)?;
        Ok(result)
    }

    /// The first program for packets of a set, the second for others.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn choose(&mut self, set: Set, then: Spp, otherwise: Spp) -> Result<Spp, Limit> {
        let then = self.restrict_input(set, then)?;
        let others = self.sets.complement(set)?;
        let otherwise = self.restrict_input(others, otherwise)?;
        self.union(then, otherwise)
    }

    /// Some packet that goes in with one that then comes out; `None` when nothing ever does.
    pub(super) fn pick(&self, spp: Spp) -> Option<(Bits, Bits)> {
        if spp.is_drop() {
            return None;
        }
        let mut bits = (
            vec![false; self.levels as usize],
            vec![false; self.levels as usize],
        );
        let mut at = spp;
        while at != Spp::ID {
            let level = self.level(at);
            let next = self.split(at, level);
            // First what leaves the bit alone: such examples are easier to read.
            let child = [0, 3, 1, 2]
                .into_iter()
                .find(|child| !next[*child].is_drop())
                .expect("a node has a child that is not drop, or it would be drop");
            bits.0[level as usize] = child & 2 != 0;
            bits.1[level as usize] = child & 1 != 0;
            at = next[child];
        }
        Some(bits)
    }

    /// All packets that come out for one, each once.
    pub(super) fn outputs(&self, spp: Spp, input: &[bool]) -> Vec<Bits> {
        let mut outputs = Vec::new();
        let mut waiting = vec![(spp, input.to_vec())];
        while let Some((spp, bits)) = waiting.pop() {
            if spp == Spp::ID {
                outputs.push(bits);
            } else if !spp.is_drop() {
                let level = self.level(spp);
                let row = usize::from(input[level as usize]) * 2;
                let next = self.split(spp, level);
                for bit in 0..2 {
                    let mut bits = bits.clone();
                    bits[level as usize] = bit == 1;
                    waiting.push((next[row + bit], bits));
                }
            }
        }
        outputs
    }
}
