//! The clock of the measuring examples.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time that the process has used.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
