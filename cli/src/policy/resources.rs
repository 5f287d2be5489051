//! What this process used so far: processor time and memory.

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

/// What something used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Used {
    /// Processor time in seconds, of user and system together.
    cpu_seconds: f64,
    /// Greatest memory of the process so far in bytes.
    peak_memory_bytes: u64,
}

/// Measures from here on.
pub(super) struct Since(f64);

impl Since {
    pub(super) fn now() -> Self {
        Since(cpu_seconds())
    }

    pub(super) fn used(&self) -> Used {
        let peak_kib = getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss());
        Used {
            cpu_seconds: cpu_seconds() - self.0,
            peak_memory_bytes: u64::try_from(peak_kib).unwrap_or(0) << 10,
        }
    }
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = self.peak_memory_bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.6} s of processor time, {mib:.1} MiB at most",
            self.cpu_seconds
        )
    }
}

fn cpu_seconds() -> f64 {
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1_000_000.0;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}
