//! One symbolic packet program after another, once or any number of times.

use super::options::Limit;
use super::spp::operation::{SEQUENCE, STAR};
use super::spp::{Diagrams, Spp};

impl Diagrams {
    /// What comes out of the second when what comes out of the first goes in.
    ///
    /// # Errors
    /// [`Limit`].
    #[inline]
    pub fn sequence(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if a.is_drop() || b == Spp::ID {
            return Ok(a);
        }
        if b.is_drop() || a == Spp::ID {
            return Ok(b);
        }
        self.sequence_of(a, b)
    }

    fn sequence_of(&mut self, a: Spp, b: Spp) -> Result<Spp, Limit> {
        if let Some(known) = self.memo.get(SEQUENCE, a.0, b.0) {
            return Ok(Spp(known));
        }
        let level = self.level(a).min(self.level(b));
        let (left, right) = (self.split(a, level), self.split(b, level));
        let mut next = [Spp::DROP; 4];
        for (at, next) in next.iter_mut().enumerate() {
            // A product of two by two matrices whose entries are programs over the bits below.
            let (row, column) = (at & 2, at & 1);
            let by_zero = self.sequence(left[row], right[column])?;
            let by_one = self.sequence(left[row + 1], right[column + 2])?;
            *next = self.union(by_zero, by_one)?;
        }
        let result = self.node(level, next)?;
        self.remember(SEQUENCE, a.0, b.0, result.0)?;
        Ok(result)
    }

    /// What comes out of it when it runs any number of times.
    ///
    /// No fixpoint is sought: a program over a bit is a two by two matrix of programs over the
    /// bits below, and the star of a matrix is a term over its entries (Kozen, 1994, lemma 2.5). So
    /// the depth is that of the diagram, however long the longest run is.
    ///
    /// # Errors
    /// [`Limit`].
    pub fn star(&mut self, body: Spp) -> Result<Spp, Limit> {
        if body.is_drop() || body == Spp::ID {
            return Ok(Spp::ID);
        }
        if let Some(known) = self.memo.get(STAR, body.0, 0) {
            return Ok(Spp(known));
        }
        let level = self.level(body);
        let [a, b, c, d] = self.split(body, level);
        let around_one = self.star(d)?;
        let leave = self.sequence(b, around_one)?;
        let back = self.sequence(around_one, c)?;
        let detour = self.sequence(leave, c)?;
        let round = self.union(a, detour)?;
        let zero_to_zero = self.star(round)?;
        let zero_to_one = self.sequence(zero_to_zero, leave)?;
        let one_to_zero = self.sequence(back, zero_to_zero)?;
        let through_zero = self.sequence(back, zero_to_one)?;
        let one_to_one = self.union(around_one, through_zero)?;
        let result = self.node(level, [zero_to_zero, zero_to_one, one_to_zero, one_to_one])?;
        self.remember(STAR, body.0, 0, result.0)?;
        Ok(result)
    }
}
