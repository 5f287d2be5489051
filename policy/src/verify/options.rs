//! What the prover may use, and what it says when that is not enough.

use std::fmt;
use std::sync::Arc;

use super::program::FieldId;

/// Asked now and then during long work; `true` ends it with [`Limit::Cancelled`].
pub type Cancelled = Arc<dyn Fn() -> bool + Send + Sync>;

/// Bounds of one [`Symbolic`](super::symbolic::Symbolic): with them, no program can exhaust memory
/// or stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes of all diagrams together. A node takes 40 to 80 bytes with its share of the tables.
    pub nodes: usize,
    /// States of the automaton, steps between them, and places where states are compared, together;
    /// one takes some 100 bytes.
    pub states: usize,
    /// Bits of a packet, which bound the depth of recursion.
    pub bits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            nodes: 16 << 20,
            states: 4 << 20,
            bits: 1024,
        }
    }
}

/// How to answer a question.
#[derive(Clone, Default)]
pub struct Options {
    /// What it may use.
    pub limits: Limits,
    /// The order in which diagrams test fields. Fields that are not named here come after those
    /// that are; without any, an order is chosen for the question.
    pub order: Vec<FieldId>,
    /// Ends the work early.
    pub cancelled: Option<Cancelled>,
}

impl fmt::Debug for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Options")
            .field("limits", &self.limits)
            .field("order", &self.order)
            .field("cancelled", &self.cancelled.is_some())
            .finish()
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// More than [`Limits::nodes`].
    #[error("the question takes more diagram nodes than the limit permits")]
    Nodes,
    /// More than [`Limits::states`].
    #[error("the question takes more automaton states than the limit permits")]
    States,
    /// More than [`Limits::bits`].
    #[error("the question tells apart more values of fields than the limit permits")]
    Bits,
    /// [`Options::cancelled`] said so.
    #[error("the question was cancelled")]
    Cancelled,
}

/// How often the callback is asked: every so many remembered results.
const TICKS: u32 = 1 << 14;

/// Counts what is used against the limits.
pub(super) struct Meter {
    nodes_left: usize,
    ticks_left: u32,
    rounds: u64,
    cancelled: Option<Cancelled>,
}

impl Meter {
    pub(super) fn new(options: &Options) -> Self {
        Meter {
            // Ids are 32 bits, and the greatest marks an empty place.
            nodes_left: options.limits.nodes.min(u32::MAX as usize / 2),
            ticks_left: TICKS,
            rounds: 0,
            cancelled: options.cancelled.clone(),
        }
    }

    /// One more node.
    #[inline]
    pub(super) fn node(&mut self) -> Result<(), Limit> {
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(Limit::Nodes)?;
        Ok(())
    }

    /// How many steps there were.
    pub(super) fn steps(&self) -> u64 {
        self.rounds * u64::from(TICKS) + u64::from(TICKS - self.ticks_left)
    }

    /// One more step.
    #[inline]
    pub(super) fn tick(&mut self) -> Result<(), Limit> {
        self.ticks_left -= 1;
        if self.ticks_left == 0 {
            self.ticks_left = TICKS;
            self.rounds += 1;
            if self.cancelled.as_ref().is_some_and(|cancelled| cancelled()) {
                return Err(Limit::Cancelled);
            }
        }
        Ok(())
    }
}
