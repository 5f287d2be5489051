//! Which frames a link did not deliver, by reason, with the latest in detail.

use std::collections::{BTreeMap, VecDeque};

use super::shaper::{DropReason, Nanos};

/// Records kept per log; older ones are only counted.
pub(crate) const RECENT: usize = 64;

/// One dropped frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drop {
    pub(crate) at: Nanos,
    pub(crate) length: u32,
    pub(crate) reason: DropReason,
}

/// Counts by reason and the last [`RECENT`] drops.
#[derive(Clone, Debug, Default)]
pub(crate) struct DropLog {
    counts: BTreeMap<DropReason, u64>,
    recent: VecDeque<Drop>,
}

impl DropLog {
    pub(crate) fn record(&mut self, at: Nanos, length: u32, reason: DropReason) {
        *self.counts.entry(reason).or_default() += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(Drop { at, length, reason });
    }

    pub(crate) fn counts(&self) -> &BTreeMap<DropReason, u64> {
        &self.counts
    }

    /// The latest drops, oldest first.
    pub(crate) fn recent(&self) -> impl Iterator<Item = &Drop> {
        self.recent.iter()
    }
}
