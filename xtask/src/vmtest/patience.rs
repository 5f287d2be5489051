//! How long to wait for a machine whose time this one shares with others.
//!
//! A second is counted in full only while nobody waits for a processor: with four runnable tasks on
//! two processors it counts as half a second. So a limit means the same on an idle machine and on a
//! busy one, and a hanging guest, which waits without running, is still found.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// A limit that runs out more slowly the busier this machine is.
pub(super) struct Patience {
    left: Duration,
    last: Instant,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Patience {
            left: limit,
            last: Instant::now(),
        }
    }

    /// Whether the time is over. To be called often: each call counts the time since the one before
    /// by the load of now.
    pub(super) fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let counted = counted(now - self.last, share());
        self.last = now;
        self.left = self.left.saturating_sub(counted);
        self.left.is_zero()
    }
}

fn counted(time: Duration, share: f64) -> Duration {
    time.mul_f64(share.clamp(0.01, 1.0))
}

/// Processors for each task that wants one, by the load average of the last minute.
fn share() -> f64 {
    let processors = thread::available_parallelism().map_or(1.0, |count| count.get() as f64);
    let load = fs::read_to_string("/proc/loadavg")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .unwrap_or(0.0);
    processors / load.max(1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Patience, counted};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_busy_second_counts_for_less_and_an_idle_one_in_full() {
        assert_eq!(counted(SECOND, 2.0), SECOND);
        assert_eq!(counted(SECOND, 0.5), SECOND / 2);
        assert!(counted(SECOND, 0.0) > Duration::ZERO, "it ends one day");
    }

    #[test]
    fn patience_without_time_is_over_at_once() {
        assert!(Patience::new(Duration::ZERO).is_over());
        assert!(!Patience::new(3600 * SECOND).is_over());
    }
}
