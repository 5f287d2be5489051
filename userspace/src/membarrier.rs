//! Waits until no program still runs that started before: the grace period between unpublishing
//! something the kernel reads and freeing it.

use std::io;

/// `MEMBARRIER_CMD_GLOBAL`, `membarrier(2)`: it waits for an RCU grace period, and a TC program
/// runs inside one RCU read-side section.
const COMMAND_GLOBAL: libc::c_int = 1;

/// Returns once every program run that had started has ended.
///
/// # Errors
/// When the kernel was built without `CONFIG_MEMBARRIER`.
pub fn grace_period() -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory of ours.
    let status = unsafe { libc::syscall(libc::SYS_membarrier, COMMAND_GLOBAL, 0, 0) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
