//! Diagrams for some packets only.
//!
//! A node of the mesh sees the packets of its own endpoints. For these, a diagram may leave out
//! every test whose other outcomes cannot happen.

use super::hash::FastMap;
use super::store::{Head, Id, Store, TooLarge};
use crate::field::Field;

/// Values that a field can have, as ranges: sorted, disjoint, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The field; of an address, the values are classes.
    pub field: Field,
    /// Its values.
    pub ranges: Vec<(u64, u64)>,
}

impl Store {
    /// A diagram that does as `policy` does to all packets whose fields have allowed values. Of two
    /// diagrams that do, it is the one with fewer tests.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn restrict(&mut self, policy: Id, allowed: &[Allowed]) -> Result<Id, TooLarge> {
        let mut by_rank: Vec<Option<&[(u64, u64)]>> = vec![None; super::TESTED];
        for allowed in allowed {
            let rank = usize::from(self.order().rank(allowed.field));
            if let Some(place) = by_rank.get_mut(rank) {
                *place = Some(&allowed.ranges);
            }
        }
        self.restrict_by(policy, &by_rank, &mut FastMap::default())
    }

    fn restrict_by(
        &mut self,
        id: Id,
        allowed: &[Option<&[(u64, u64)]>],
        done: &mut FastMap<Id, Id>,
    ) -> Result<Id, TooLarge> {
        let Head::Test { rank, first, end } = self.head(id) else {
            return Ok(id);
        };
        if let Some(id) = done.get(&id) {
            return Ok(*id);
        }
        let base = self.begin();
        for at in first..end {
            let (start, child) = self.edge(at);
            if let Some(ranges) = allowed[usize::from(rank)] {
                let next = (at + 1 < end).then(|| self.edge(at + 1).0);
                let possible = ranges
                    .iter()
                    .any(|(low, high)| *high >= start && next.is_none_or(|next| *low < next));
                if !possible {
                    continue;
                }
            }
            let child = self.restrict_by(child, allowed, done)?;
            // What no packet has goes the way of its neighbour.
            let start = if self.begin() == base { 0 } else { start };
            self.push_edge(base, start, child);
        }
        let restricted = if self.begin() == base {
            // No packet comes here.
            super::store::EMPTY
        } else {
            self.test(rank, base)?
        };
        done.insert(id, restricted);
        Ok(restricted)
    }
}
