//! From the kernel's receive times (`CLOCK_REALTIME`) to the scheduler's clock.
//!
//! Both clocks run at the same, equally corrected speed, so their difference
//! only changes when somebody steps the wall clock. It is kept until then:
//! measuring it anew for every frame would let its error swap frames that are
//! less than a microsecond apart.

use super::shaper::Nanos;
use crate::realtime::{monotonic_ns, unix_ns};

/// A difference that changed by more than this was stepped.
const STEP_NS: u64 = 200_000;
/// Readings taken for one measurement, of which the quickest counts.
const READINGS: usize = 16;

/// The difference between both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// Nanoseconds.
    pub(super) unix_minus_monotonic: u64,
}

impl Clocks {
    pub(super) fn measure() -> Self {
        let reading = || {
            let before = monotonic_ns();
            let unix = unix_ns();
            let after = monotonic_ns();
            // Too small rather than too large: a frame must not seem older
            // than it is and arrive before its delay.
            (after - before, unix.saturating_sub(after))
        };
        let best = (0..READINGS).map(|_| reading()).min();
        let (_, unix_minus_monotonic) = best.expect("there is at least one reading");
        Self {
            unix_minus_monotonic,
        }
    }

    /// Measures again when the wall clock was stepped; `now` has just been read.
    pub(super) fn look(&mut self, now: Nanos) {
        let difference = unix_ns().saturating_sub(now);
        if difference.abs_diff(self.unix_minus_monotonic) > STEP_NS {
            *self = Self::measure();
        }
    }

    /// The scheduler's time for a time of the wall clock.
    pub(super) fn monotonic(&self, unix: u64) -> Nanos {
        unix.saturating_sub(self.unix_minus_monotonic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_never_seems_older_than_it_is() {
        let clocks = Clocks::measure();
        for _ in 0..1_000 {
            let before = monotonic_ns();
            assert!(clocks.monotonic(unix_ns()) >= before);
        }
    }

    #[test]
    fn stepped_wall_clock_is_measured_anew() {
        let right = Clocks::measure().unix_minus_monotonic;
        let mut clocks = Clocks {
            unix_minus_monotonic: right - 3_600_000_000_000,
        };
        clocks.look(monotonic_ns());
        assert!(clocks.unix_minus_monotonic > right - 1_000_000_000);
    }
}
