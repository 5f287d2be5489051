//! Real-time scheduling for threads that keep or measure time.
//!
//! The link emulator runs above the measuring threads so that a measurement
//! never delays what it measures. None of the priorities is inherited by
//! children (`SCHED_RESET_ON_FORK`).

use std::io;

use nix::time::{ClockId, clock_gettime};

/// `SCHED_FIFO` priority of the link emulator.
pub const EMULATOR_PRIORITY: i32 = 20;
/// `SCHED_FIFO` priority of threads that measure (ping, bulk transfer).
pub const MEASURING_PRIORITY: i32 = 10;

/// Gives the calling thread `SCHED_FIFO` at [`MEASURING_PRIORITY`].
///
/// # Errors
/// The kernel's refusal (`EPERM` without `CAP_SYS_NICE`); the thread then keeps
/// its ordinary scheduling and measurements include scheduling noise.
pub fn measure_in_real_time() -> io::Result<()> {
    crate::sys::set_fifo(MEASURING_PRIORITY)
}

/// `CLOCK_MONOTONIC`, nanoseconds: one time base for all processes of a machine.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// `CLOCK_REALTIME`, nanoseconds since the Unix epoch.
#[must_use]
pub fn unix_ns() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("both clocks exist on every Linux kernel");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
