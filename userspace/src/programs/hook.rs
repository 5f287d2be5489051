//! Where in the kernel a program is put on a device's incoming packets, and how it is kept there
//! without an agent.
//!
//! Both ways a new agent takes over in one step: every packet is handled by the old program or by the
//! new one. What an agent left behind is found by a name in the directory of links: [`tcx`] pins the
//! link itself there, [`clsact`] leaves a note of the device.

use std::{fmt, fs, path::Path};

use aya::{
    programs::{ProgramError, SchedClassifier, TcAttachType},
    sys::SyscallError,
};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::{ProgramsError, clsact, tcx};

/// A device that every network namespace has.
const LOOPBACK: &str = "lo";

/// Where programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// By links, in front of all traffic control (Linux 6.6).
    Tcx,
    /// As filters of a `clsact` queueing discipline.
    Clsact,
}

impl Hook {
    /// The stable name used in JSON and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Hook::Tcx => "tcx",
            Hook::Clsact => "clsact",
        }
    }

    /// The best one that this kernel has. It is asked rather than judged by its version, since
    /// distributions add to old kernels and leave things out of new ones.
    pub(crate) fn probe() -> Self {
        match SchedClassifier::query_tcx(LOOPBACK, TcAttachType::Ingress) {
            Ok(_) => Hook::Tcx,
            // The first kernels with TCX answer so for a device that nothing was ever attached to.
            Err(ProgramError::SyscallError(SyscallError { io_error, .. }))
                if io_error.raw_os_error() == Some(Errno::ENOENT as i32) =>
            {
                Hook::Tcx
            }
            Err(_) => Hook::Clsact,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Runs `program` on the packets that come in on `device`, from now on or instead of what an earlier
/// agent attached under the name `path`, at this hook or another.
pub(super) fn attach(
    hook: Hook,
    program: &mut SchedClassifier,
    device: &str,
    path: &Path,
) -> Result<(), ProgramsError> {
    // The other one goes last, so that no packet passes without a program. Meanwhile both are there,
    // and TCX is asked first: it leaves nothing to a filter but what it drops or redirects.
    match hook {
        Hook::Tcx => {
            tcx::attach(program, device, path)?;
            clsact::detach(path)
        }
        Hook::Clsact => {
            clsact::attach(program, device, path)?;
            tcx::detach(path)
        }
    }
}

/// Takes off what was attached under the name `path`. The device may be gone already.
pub(super) fn detach(path: &Path) -> Result<(), ProgramsError> {
    tcx::detach(path)?;
    clsact::detach(path)
}

/// Names of all that is attached, by either hook.
pub(super) fn attached(links: &Path) -> Vec<String> {
    let entries = fs::read_dir(links).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_suffix(clsact::NOTE).unwrap_or(&name);
            Some(name.to_owned())
        })
        .collect()
}
