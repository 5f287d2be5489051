//! Taking a pinned link off its device at once, by `BPF_LINK_DETACH` (Linux 5.9). Removing the pin is not enough: the
//! kernel frees the link behind it some time later, and until then the same program is refused there
//! as "already attached". The library has no such call. The only file of this module with unsafe code.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

/// Commands of `enum bpf_cmd` in linux/bpf.h.
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_DETACH: libc::c_long = 34;

/// What `union bpf_attr` is for `BPF_OBJ_GET`.
#[repr(C)]
#[derive(Default)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// What `union bpf_attr` is for `BPF_LINK_DETACH`.
#[repr(C)]
struct LinkDetach {
    link: u32,
}

/// Detaches the link that is pinned there; its pin stays. What is no link any more, because its device
/// is gone, counts as detached.
///
/// # Errors
/// When nothing is pinned there, or the kernel refuses.
pub(super) fn detach(pin: &Path) -> io::Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let mut get = ObjectGet {
        path: path.as_ptr().addr() as u64,
        ..ObjectGet::default()
    };
    let link = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    let mut attributes = LinkDetach {
        link: link.as_raw_fd() as u32,
    };
    match bpf(BPF_LINK_DETACH, &mut attributes) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        Err(error) => Err(error),
    }
}

fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<RawFd> {
    // SAFETY: the attributes are those of the command, initialised and of the size that is said; the kernel
    // takes what lies beyond for zero. The one pointer in them is to a string that outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
