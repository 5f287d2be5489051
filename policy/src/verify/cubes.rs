//! Sets of packets as people read them: products of values per field.

use std::collections::HashMap;

use super::program::{FieldId, Program, Range};
use super::set::Set;
use super::space::FieldSpace;
use super::symbolic::Symbolic;

/// A product: each field that is named has one of the values given, others any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cube {
    /// Values per field: ranges in order, disjoint, not adjacent.
    pub fields: Vec<(FieldId, Vec<Range>)>,
}

/// The cubes of a set, disjoint and together all of it.
pub struct Cubes<'s> {
    symbolic: &'s Symbolic<'s>,
    /// Where to go on: what remains from the field at this position on, and the cube so far.
    waiting: Vec<(Set, usize, Cube)>,
}

impl<'s> Cubes<'s> {
    pub(super) fn new(symbolic: &'s Symbolic<'_>, set: Set) -> Self {
        let cube = Cube { fields: Vec::new() };
        Cubes {
            symbolic,
            waiting: vec![(set, 0, cube)],
        }
    }
}

impl Iterator for Cubes<'_> {
    type Item = Cube;

    fn next(&mut self) -> Option<Cube> {
        while let Some((set, position, cube)) = self.waiting.pop() {
            if set.is_empty() {
                continue;
            }
            let sets = &self.symbolic.diagrams.sets;
            // Fields that the set skips have any value.
            let Some((at, field)) = (self.symbolic.space().fields().iter().enumerate())
                .skip(position)
                .find(|(_, field)| sets.level(set) < field.level + field.width)
            else {
                return Some(cube);
            };
            // Values that lead to the same rest stay together.
            let mut rests: Vec<(Set, Vec<u32>)> = Vec::new();
            let mut index: HashMap<Set, usize> = HashMap::new();
            let mut codes = vec![(set, 0u32, 0u32)];
            while let Some((set, bit, code)) = codes.pop() {
                if set.is_empty() {
                } else if bit < field.width {
                    let [low, high] = sets.split(set, field.level + bit);
                    codes.push((high, bit + 1, code << 1 | 1));
                    codes.push((low, bit + 1, code << 1));
                } else {
                    let at = *index.entry(set).or_insert(rests.len());
                    if at == rests.len() {
                        rests.push((set, Vec::new()));
                    }
                    rests[at].1.push(code);
                }
            }
            for (rest, codes) in rests.into_iter().rev() {
                let ranges = ranges(field, &codes);
                let mut cube = cube.clone();
                if ranges != field.domain.all() {
                    cube.fields.push((field.field, ranges));
                }
                self.waiting.push((rest, at + 1, cube));
            }
        }
        None
    }
}

impl Cube {
    /// `field in ranges, …` with the names of the program; `any packet` for the whole space.
    #[must_use]
    pub fn to_string(&self, program: &Program) -> String {
        if self.fields.is_empty() {
            return "any packet".to_owned();
        }
        let fields = self.fields.iter().map(|(field, ranges)| {
            let declared = &program.fields()[usize::from(field.0)];
            let shown = declared.domain.show_ranges(ranges);
            let single = matches!(ranges[..], [(first, last)] if first == last);
            let relation = if single { "=" } else { "in" };
            format!("{} {relation} {}", declared.name, shown.join(", "))
        });
        fields.collect::<Vec<_>>().join("; ")
    }
}

/// The values of these codes: in order, adjacent ranges joined.
fn ranges(field: &FieldSpace, codes: &[u32]) -> Vec<Range> {
    let mut ranges: Vec<Range> = (codes.iter())
        .filter(|code| (**code as usize) < field.classes.len())
        .flat_map(|code| field.values(*code))
        .copied()
        .collect();
    ranges.sort_unstable();
    let mut joined: Vec<Range> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if end.kind == first.kind && end.number + 1 == first.number => {
                *end = last;
            }
            _ => joined.push((first, last)),
        }
    }
    joined
}
