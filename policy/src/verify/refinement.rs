//! Partitions of values, made finer by each set that tells some of them from others.

/// A partition of 0..n that is refined by sets.
pub(super) struct Refinement {
    pub(super) class_of: Vec<usize>,
    pub(super) sizes: Vec<usize>,
    /// Per class: how many of its members the set at hand holds, and the class they move to.
    moves: Vec<(usize, usize)>,
}

impl Refinement {
    pub(super) fn new(members: usize) -> Self {
        Refinement {
            class_of: vec![0; members],
            sizes: vec![members],
            moves: vec![(0, 0)],
        }
    }

    /// Separates the members of a set, each named once, from the others.
    pub(super) fn refine(&mut self, set: impl Iterator<Item = usize> + Clone) {
        let mut touched = Vec::new();
        for member in set.clone() {
            let class = self.class_of[member];
            if self.moves[class].0 == 0 {
                touched.push(class);
            }
            self.moves[class].0 += 1;
        }
        for class in &touched {
            let count = self.moves[*class].0;
            let to = if count == self.sizes[*class] {
                *class
            } else {
                self.sizes[*class] -= count;
                self.sizes.push(count);
                self.moves.push((0, 0));
                self.sizes.len() - 1
            };
            self.moves[*class] = (0, to);
        }
        for member in set {
            self.class_of[member] = self.moves[self.class_of[member]].1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_together_while_no_set_tells_them_apart() {
        let mut refinement = Refinement::new(6);
        refinement.refine([0, 1, 2].into_iter());
        refinement.refine([1, 2, 3].into_iter());
        refinement.refine([0, 1, 2, 3, 4, 5].into_iter());
        refinement.refine(std::iter::empty());
        let class = |member: usize| refinement.class_of[member];
        assert_eq!(class(1), class(2));
        assert_eq!(class(4), class(5));
        let distinct = std::collections::BTreeSet::from([0, 1, 3, 4].map(class));
        assert_eq!(distinct.len(), 4);
        assert_eq!(refinement.sizes.iter().sum::<usize>(), 6);
    }
}
