//! Chains of conditionals: what the first arm says that takes a packet.
//!
//! Arm by arm from the last, each replaces what stands where its guard holds. That is the least work
//! when guards test the fields that come first in the order. An arm whose guard tests only later
//! fields goes through all that stands there, and many such arms would take quadratic time: then
//! the arms that remain are joined in halves, which costs what they cost times the logarithm of
//! their number.

use super::options::Limit;
use super::set::Set;
use super::spp::{Diagrams, Spp};

/// Steps of an arm that are no reason to join in halves, on the average.
const STEPS_PER_ARM: u64 = 2_000;

/// Steps that are none in any case.
const STEPS: u64 = 200_000;

/// What an arm says: a set or a program.
pub(super) trait Choice: Copy {
    /// The first where the guard holds, the second elsewhere.
    fn choose(
        diagrams: &mut Diagrams,
        guard: Set,
        then: Self,
        otherwise: Self,
    ) -> Result<Self, Limit>;
}

impl Choice for Set {
    fn choose(
        diagrams: &mut Diagrams,
        guard: Set,
        then: Set,
        otherwise: Set,
    ) -> Result<Set, Limit> {
        let then = diagrams.sets.intersection(guard, then)?;
        let otherwise = diagrams.sets.difference(otherwise, guard)?;
        diagrams.sets.union(then, otherwise)
    }
}

impl Choice for Spp {
    fn choose(
        diagrams: &mut Diagrams,
        guard: Set,
        then: Spp,
        otherwise: Spp,
    ) -> Result<Spp, Limit> {
        diagrams.choose(guard, then, otherwise)
    }
}

/// What the first arm says whose guard holds, else `otherwise`.
pub(super) fn first<C: Choice>(
    diagrams: &mut Diagrams,
    mut arms: Vec<(Set, C)>,
    otherwise: C,
) -> Result<C, Limit> {
    let mut chosen = otherwise;
    let mut permitted = diagrams.sets.meter.steps() + STEPS;
    while let Some((guard, then)) = arms.pop() {
        chosen = C::choose(diagrams, guard, then, chosen)?;
        permitted += STEPS_PER_ARM;
        if diagrams.sets.meter.steps() > permitted {
            break;
        }
    }
    while arms.len() > 1 {
        let mut joined = Vec::with_capacity(arms.len().div_ceil(2));
        for pair in arms.chunks(2) {
            joined.push(match *pair {
                [(guard, first), (other, second)] => {
                    let chosen = C::choose(diagrams, guard, first, second)?;
                    (diagrams.sets.union(guard, other)?, chosen)
                }
                _ => pair[0],
            });
        }
        arms = joined;
    }
    match arms.pop() {
        Some((guard, then)) => C::choose(diagrams, guard, then, chosen),
        None => Ok(chosen),
    }
}
