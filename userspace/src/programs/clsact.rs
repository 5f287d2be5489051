//! Attachment as filters of a `clsact` queueing discipline, for kernels without TCX.
//!
//! A filter stays on its device by itself, so nothing is pinned. It is found again by its priority
//! and handle, which are the same on every device and no one else's, and what is noted beside the
//! pinned links is which device has one: a symbolic link whose target is the ifindex. A filter of that
//! priority and handle is replaced in one step (Linux `net/sched/cls_bpf.c`, `cls_bpf_change`).
//!
//! The discipline is left behind: others may have put filters into it meanwhile.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{
        NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcError, TcHandle,
        qdisc_add_clsact,
    },
};
use nix::{errno::Errno, net::if_};

use super::ProgramsError;

/// Follows the name of an attachment in the name of its note.
pub(super) const NOTE: &str = "-clsact";
/// Our place among a device's filters: behind whoever gave one of the small numbers that people
/// choose, in front of those that the kernel gives out from 49152 downwards.
const PRIORITY: u16 = 0x5357;
/// `SW` in the upper half, so that nobody else's filter has it by chance.
const HANDLE: TcHandle = TcHandle::new(0x5357, 1);
/// The filter, or the discipline it was in, went with its device or was taken off by hand.
const GONE: [Errno; 3] = [Errno::ENOENT, Errno::ENODEV, Errno::EINVAL];

/// See [`super::hook::attach`].
pub(super) fn attach(
    program: &mut SchedClassifier,
    device: &str,
    path: &Path,
) -> Result<(), ProgramsError> {
    let failed = |source| ProgramsError::Attach {
        device: device.to_owned(),
        source: Box::new(source),
    };
    let ifindex = if_::if_nametoindex(device)
        .map_err(|error| failed(ProgramError::from(TcError::IoError(error.into()))))?;
    match qdisc_add_clsact(device) {
        Ok(()) => {}
        // It, or `ingress`, which serves as well.
        Err(error) if errno(&error) == Some(Errno::EEXIST) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let link = match replace(program, device) {
        Ok(link) => link,
        Err(_) => {
            let options = TcAttachOptions::Netlink(NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            });
            program
                .attach_with_options(device, TcAttachType::Ingress, options)
                .map_err(failed)?
        }
    };
    // Dropping it would take the filter off.
    std::mem::forget(program.take_link(link).map_err(failed)?);
    remember(path, ifindex)
}

/// See [`super::hook::detach`].
pub(super) fn detach(path: &Path) -> Result<(), ProgramsError> {
    let path = note(path);
    let Some(ifindex) = noted(&path)? else {
        return Ok(());
    };
    if let Some(device) = name(ifindex) {
        take_off(&device).map_err(|source| ProgramsError::Attach {
            device,
            source: Box::new(source),
        })?;
    }
    fs::remove_file(&path).map_err(kept(&path))
}

/// Name of a device of this namespace; `None` when it is gone.
fn name(ifindex: u32) -> Option<String> {
    let name = if_::if_indextoname(ifindex).ok()?.into_string().ok()?;
    // nix tells a missing device by an empty name.
    (!name.is_empty()).then_some(name)
}

/// Puts the program into the filter that is there.
fn replace(
    program: &mut SchedClassifier,
    device: &str,
) -> Result<SchedClassifierLinkId, ProgramError> {
    program.attach_to_link(filter(device)?)
}

fn take_off(device: &str) -> Result<(), ProgramError> {
    use aya::programs::links::Link as _;
    match filter(device)?.detach() {
        Err(ProgramError::NetlinkError(error)) if is_gone(error.raw_os_error()) => Ok(()),
        other => other,
    }
}

fn filter(device: &str) -> Result<SchedClassifierLink, ProgramError> {
    SchedClassifierLink::attached(device, TcAttachType::Ingress, PRIORITY, HANDLE, None)
        .map_err(|error| TcError::IoError(error).into())
}

fn is_gone(code: Option<i32>) -> bool {
    code.is_some_and(|code| GONE.contains(&Errno::from_raw(code)))
}

fn errno(error: &TcError) -> Option<Errno> {
    let code = match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    };
    code.map(Errno::from_raw)
}

/// Notes that the device has our filter.
fn remember(path: &Path, ifindex: u32) -> Result<(), ProgramsError> {
    let path = note(path);
    match noted(&path)? {
        Some(earlier) if earlier == ifindex => return Ok(()),
        Some(_) => fs::remove_file(&path).map_err(kept(&path))?,
        None => {}
    }
    symlink(ifindex.to_string(), &path).map_err(kept(&path))
}

/// The ifindex in a note, if there is one.
fn noted(path: &Path) -> Result<Option<u32>, ProgramsError> {
    match fs::read_link(path) {
        // One that is no number names no device.
        Ok(target) => Ok(Some(
            target
                .to_str()
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(kept(path)(error)),
    }
}

fn note(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NOTE);
    PathBuf::from(name)
}

fn kept(path: &Path) -> impl FnOnce(io::Error) -> ProgramsError + use<> {
    let path = path.to_owned();
    move |source| ProgramsError::Link {
        path,
        source: source.into(),
    }
}
