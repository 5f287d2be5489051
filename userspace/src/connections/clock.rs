//! The clock of the flow entries, jiffies, in seconds.

use std::time::Duration;

use nix::time::{ClockId, clock_getres};

/// How fast jiffies count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hertz(u32);

/// Rates that kernels are built with (`kernel/Kconfig.hz`; Alpha has 1024).
const KNOWN: [u32; 5] = [100, 250, 300, 1000, 1024];

impl Hertz {
    /// The running kernel's: the coarse clock advances with each jiffy, and says how far.
    ///
    /// # Errors
    /// When the kernel has no such clock.
    pub fn of_kernel() -> nix::Result<Self> {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
        Ok(Self::of_tick(Duration::from(tick)))
    }

    /// The known rate that is nearest to a tick's.
    fn of_tick(tick: Duration) -> Self {
        let rate = 1e9 / (tick.as_nanos().max(1) as f64);
        let off = |known: &u32| (f64::from(*known) - rate).abs();
        let nearest = KNOWN.into_iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        Hertz(nearest.expect("there are some"))
    }

    /// Jiffies per second.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Seconds as jiffies.
    #[must_use]
    pub fn jiffies(self, seconds: u32) -> u32 {
        // What is longer would be taken for the future.
        seconds.saturating_mul(self.0).min(i32::MAX as u32)
    }

    /// When something was seen that is silent for `silent_ms`, on a clock that shows `now`.
    #[must_use]
    pub fn seen(self, now: u32, silent_ms: u64) -> u32 {
        let jiffies = silent_ms.saturating_mul(u64::from(self.0)) / 1000;
        now.wrapping_sub(jiffies.min(i32::MAX as u64) as u32)
    }

    /// How long something is silent that was `seen`, in ms, on a clock that shows `now`.
    #[must_use]
    pub fn silent_ms(self, now: u32, seen: u32) -> u64 {
        let jiffies = (now.wrapping_sub(seen) as i32).max(0);
        u64::from(jiffies as u32) * 1000 / u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_of_every_rate_is_recognised() {
        for rate in KNOWN {
            // TICK_NSEC of `include/linux/jiffies.h`.
            let tick = (1_000_000_000 + rate / 2) / rate;
            assert_eq!(
                Hertz::of_tick(Duration::from_nanos(tick.into())),
                Hertz(rate)
            );
        }
    }

    #[test]
    fn silence_survives_the_way_to_another_clock() {
        for (from, to) in [(100, 1000), (1000, 300), (250, 250)] {
            let (from, to) = (Hertz(from), Hertz(to));
            let silent_ms = from.silent_ms(7, from.seen(7, 432_000_000));
            assert!(silent_ms.abs_diff(432_000_000) <= 10);
            let there = to.silent_ms(9, to.seen(9, silent_ms));
            assert!(there.abs_diff(silent_ms) <= 10, "{there} {silent_ms}");
            // The future is now.
            assert_eq!(from.silent_ms(7, 8), 0);
        }
    }
}
