//! Labs as another process sees them: list, look inside, change links, take
//! down.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LINE_BYTES_MAX, Request, Response, SOCKET};
use crate::emulator::EmulatorReport;
use crate::error::{Doing, LabError};
use crate::link::{LinkChange, LinkParams};
use crate::netns::Namespace;
use crate::state::{self, LabRecord};
use crate::workload::MoveTimes;

/// How long an owner may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The labs whose owners are alive, by id.
///
/// # Errors
/// The labs' directory could not be read.
pub fn list() -> Result<Vec<LabRecord>, LabError> {
    let mut records = state::all()?;
    records.retain(|record| record.owner.is_alive());
    Ok(records)
}

/// The live lab of this id.
///
/// # Errors
/// [`LabError::NoSuchLab`], [`LabError::OwnerKilled`].
pub fn find(id: &str) -> Result<LabRecord, LabError> {
    let missing = || LabError::NoSuchLab(id.to_owned());
    // An id becomes part of a path and must not lead elsewhere.
    crate::topology::check_lab_id(id).map_err(|_| missing())?;
    let record = state::read(id)?.ok_or_else(missing)?;
    if record.owner.is_alive() {
        Ok(record)
    } else {
        Err(LabError::OwnerKilled(id.to_owned()))
    }
}

/// The namespace of a lab's node or workload.
///
/// # Errors
/// [`LabError::NoSuchLab`], [`LabError::NoSuchName`].
pub fn namespace(id: &str, name: &str) -> Result<Namespace, LabError> {
    let record = find(id)?;
    let namespace = record.namespace_of(name).ok_or(LabError::NoSuchName {
        lab: id.to_owned(),
        kind: "node or workload",
        name: name.to_owned(),
    })?;
    Namespace::open(namespace)
}

/// Runs a command in the namespace of a lab's node or workload and collects
/// its output.
///
/// # Errors
/// As [`namespace`] and [`Namespace::exec`].
pub fn exec(id: &str, name: &str, command: Command) -> Result<Output, LabError> {
    namespace(id, name)?.exec(command)
}

/// The record as the owner has it now.
///
/// # Errors
/// [`LabError::NoSuchLab`], [`LabError::Refused`], [`LabError::Io`].
pub fn status(id: &str) -> Result<LabRecord, LabError> {
    match ask(id, &Request::Status)? {
        Response::Status(record) => Ok(record),
        other => Err(unexpected(id, other)),
    }
}

/// The emulator's report.
///
/// # Errors
/// As [`status`].
pub fn report(id: &str) -> Result<EmulatorReport, LabError> {
    match ask(id, &Request::Report)? {
        Response::Report(report) => Ok(report),
        other => Err(unexpected(id, other)),
    }
}

/// Changes the link from one node to another; returns what is in force.
///
/// # Errors
/// As [`status`]; [`LabError::Refused`] for a value out of range.
pub fn set_link(
    id: &str,
    from: &str,
    to: &str,
    change: LinkChange,
) -> Result<LinkParams, LabError> {
    let (from, to) = (from.to_owned(), to.to_owned());
    match ask(id, &Request::SetLink { from, to, change })? {
        Response::Link(params) => Ok(params),
        other => Err(unexpected(id, other)),
    }
}

/// Moves a workload's host-side device to another node; it arrives down and with a new index.
///
/// # Errors
/// As [`status`]; [`LabError::Refused`] for a name that the lab does not have, and for what the
/// kernel refused.
pub fn move_host_side(id: &str, workload: &str, to: &str) -> Result<MoveTimes, LabError> {
    let (workload, to) = (workload.to_owned(), to.to_owned());
    match ask(id, &Request::MoveHostSide { workload, to })? {
        Response::Moved(times) => Ok(times),
        other => Err(unexpected(id, other)),
    }
}

/// Asks the owner to stop (`SIGTERM`), waits until it has ended, and removes
/// what it may have left.
///
/// # Errors
/// [`LabError::NoSuchLab`]; [`LabError::TimedOut`] when the owner goes on.
pub fn down(id: &str, timeout: Duration) -> Result<(), LabError> {
    let record = find(id)?;
    let owner = record.owner;
    let doing = || format!("stop process {}, the owner of lab {id}", owner.pid);
    // The descriptor names this very process even when its id is used again;
    // the start time is therefore checked after opening it.
    let process = crate::sys::pidfd(owner.pid).doing(doing)?;
    if owner.is_alive() {
        kill(Pid::from_raw(owner.pid as i32), Signal::SIGTERM).doing(doing)?;
    }
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut waited = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let milliseconds = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        let timeout_left = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::ZERO);
        match poll(&mut waited, timeout_left) {
            Ok(0) => {
                return Err(LabError::TimedOut {
                    what: format!("the end of process {}", owner.pid),
                    seconds: timeout.as_secs_f64(),
                    last: String::new(),
                });
            }
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).doing(doing),
            Ok(_) => return state::sweep().map(drop),
        }
    }
}

fn ask(id: &str, request: &Request) -> Result<Response, LabError> {
    let path = find(id)?.dir().join(SOCKET);
    let talk = || -> io::Result<Response> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = Vec::new();
        BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    };
    talk().doing(|| format!("ask the owner of lab {id} at {}", path.display()))
}

fn unexpected(id: &str, response: Response) -> LabError {
    let reason = match response {
        Response::Error(reason) => reason,
        other => format!("an answer to another question: {other:?}"),
    };
    LabError::Refused {
        id: id.to_owned(),
        reason,
    }
}
