//! Which processor a thread runs on.

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::Side;

/// Pins the calling thread: clients to the first processor that this process may use, servers to
/// the last, or to the clients' when `together`.
pub(super) fn pin(side: Side, together: bool) -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("cannot ask for the processors")?;
    let mut usable = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let chosen = match side {
        Side::Server if !together => usable.next_back(),
        Side::Client | Side::Server => usable.next(),
    };
    let mut one = CpuSet::new();
    one.set(chosen.context("there is no processor")?)
        .and_then(|()| sched_setaffinity(this, &one))
        .context("cannot choose a processor")
}
