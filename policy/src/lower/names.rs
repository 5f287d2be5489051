//! Classes as tables name them.

use crate::atoms::Atoms;
use crate::tables::Digest;

/// The classes that packets can have, each with its name.
///
/// Diagrams number classes and tables name them. Edges of a table stand in the order of names, so
/// that equal tables are equal whatever the numbers were: a class has a *place* in that order.
pub(crate) struct ClassNames {
    /// Names in order.
    names: Vec<Digest>,
    /// Place of each number; `None` for a number that no packet has.
    places: Vec<Option<u32>>,
    /// Classes with lesser numbers, for every number and the one behind all.
    before: Vec<u32>,
}

impl ClassNames {
    /// All classes by their own names.
    pub(crate) fn new(atoms: &Atoms) -> Self {
        Self::renamed(
            atoms.count(),
            atoms.numbers().map(|class| (class, atoms.digest(class))),
        )
    }

    /// Some classes by these names; numbers are below `count`, ascending.
    pub(crate) fn renamed(count: u32, named: impl Iterator<Item = (u32, Digest)>) -> Self {
        let mut named: Vec<(u32, Digest)> = named.collect();
        let mut places = vec![None; count as usize];
        let mut before = vec![0; count as usize + 1];
        for (class, _) in &named {
            before[*class as usize + 1] = 1;
        }
        for class in 0..count as usize {
            before[class + 1] += before[class];
        }
        named.sort_unstable_by_key(|(_, name)| *name);
        for (place, (class, _)) in named.iter().enumerate() {
            places[*class as usize] = Some(place as u32);
        }
        ClassNames {
            names: named.into_iter().map(|(_, name)| name).collect(),
            places,
            before,
        }
    }

    /// The name at a place.
    pub(crate) fn name(&self, place: u32) -> Digest {
        self.names[place as usize]
    }

    /// How many classes have numbers from `start` up to and without `end`.
    pub(crate) fn count(&self, start: u64, end: u64) -> usize {
        // The greatest numbers stand for "no end".
        let end = end.min(self.places.len() as u64);
        let start = start.min(end);
        (self.before[end as usize] - self.before[start as usize]) as usize
    }

    /// The places of the classes with numbers from `start` up to and without `end`.
    pub(crate) fn places(&self, start: u64, end: u64) -> impl Iterator<Item = u32> + '_ {
        let end = end.min(self.places.len() as u64);
        let start = start.min(end);
        self.places[start as usize..end as usize]
            .iter()
            .filter_map(|place| *place)
    }
}
