//! Sets of packets with some fields forgotten, and of products.

use std::collections::HashMap;

use super::cubes::Cube;
use super::options::Limit;
use super::set::{Set, Sets};
use super::symbolic::Symbolic;

impl Sets {
    /// The packets that agree with one of the set in all bits above `level`: what the set says of
    /// the fields that come first in the order.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn forget_from(&mut self, set: Set, level: u32) -> Result<Set, Limit> {
        self.forget(set, level, &mut HashMap::new())
    }

    fn forget(&mut self, set: Set, level: u32, done: &mut HashMap<Set, Set>) -> Result<Set, Limit> {
        if set.is_empty() {
            return Ok(set);
        }
        let own = self.level(set);
        if own >= level {
            return Ok(Set::ALL);
        }
        if let Some(known) = done.get(&set) {
            return Ok(*known);
        }
        let [low, high] = self.split(set, own);
        let next = [
            self.forget(low, level, done)?,
            self.forget(high, level, done)?,
        ];
        let made = self.node(own, next)?;
        done.insert(set, made);
        Ok(made)
    }
}

impl Symbolic<'_> {
    /// The packets of a product; fields that no node tells apart are left open.
    ///
    /// # Errors
    /// [`Limit`], as everywhere here.
    pub fn set_of_cube(&mut self, cube: &Cube) -> Result<Set, Limit> {
        let mut set = self.valid();
        for (field, ranges) in &cube.fields {
            let Some(coded) = self.space().field(*field) else {
                continue;
            };
            let (level, width, codes) = (coded.level, coded.width, coded.codes(ranges));
            let sets = &mut self.diagrams.sets;
            let part = sets.of_numbers(level, width, &codes)?;
            set = sets.intersection(set, part)?;
        }
        Ok(set)
    }
}
