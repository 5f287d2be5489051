//! The owner's end of the control socket: one thread that accepts, one per
//! connection. All end when the lab goes down.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{LINE_BYTES_MAX, Request, Response, SOCKET};
use crate::error::{Doing, LabError};
use crate::lab::Inner;
use crate::state;

/// A running server; stops when dropped.
#[derive(Debug)]
pub(crate) struct ControlServer {
    stop: Arc<EventFd>,
    connections: Connections,
    thread: Option<JoinHandle<()>>,
}

type Connections = Arc<Mutex<Vec<(UnixStream, JoinHandle<()>)>>>;

impl ControlServer {
    pub(crate) fn start(lab: &Arc<Inner>) -> Result<Self, LabError> {
        let path = state::dir_of(lab.id()).join(SOCKET);
        let doing = || format!("serve {}", path.display());
        let listener = UnixListener::bind(&path).doing(doing)?;
        // A lab runs as root and does whatever it is asked.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).doing(doing)?;
        listener.set_nonblocking(true).doing(doing)?;
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let stop = Arc::new(EventFd::from_flags(flags).doing(doing)?);
        let connections = Connections::default();
        let (lab, wake, accepted) = (
            Arc::downgrade(lab),
            Arc::clone(&stop),
            Arc::clone(&connections),
        );
        let thread = thread::Builder::new()
            .name("sunwire-control".to_owned())
            .spawn(move || accept(&listener, &wake, &lab, &accepted))
            .doing(doing)?;
        Ok(Self {
            stop,
            connections,
            thread: Some(thread),
        })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (stream, thread) in connections.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

fn accept(listener: &UnixListener, stop: &EventFd, lab: &Weak<Inner>, connections: &Connections) {
    loop {
        let mut waited = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut waited, PollTimeout::NONE);
        if waited[1].any().unwrap_or(true) {
            return;
        }
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        if let Err(error) = serve(stream, lab.clone(), connections) {
            tracing::warn!(%error, "could not serve a control connection");
        }
    }
}

fn serve(stream: UnixStream, lab: Weak<Inner>, connections: &Connections) -> io::Result<()> {
    // Accepted sockets do not inherit non-blocking mode on Linux.
    let ours = stream.try_clone()?;
    let thread = thread::Builder::new()
        .name("sunwire-client".to_owned())
        .spawn(move || {
            // A client that goes away in the middle is no error of the lab.
            let _ = converse(&stream, &lab);
            let _ = stream.shutdown(Shutdown::Both);
        })?;
    let mut connections = connections.lock().unwrap_or_else(PoisonError::into_inner);
    connections.retain(|(_, thread)| !thread.is_finished());
    connections.push((ours, thread));
    Ok(())
}

fn converse(mut stream: &UnixStream, lab: &Weak<Inner>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let limited = reader.by_ref().take(LINE_BYTES_MAX);
        if { limited }.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(lab) = lab.upgrade() else {
            return Ok(());
        };
        let response = match serde_json::from_slice(&line) {
            Ok(request) => answer(&lab, request),
            Err(error) => Response::Error(format!("not a request: {error}")),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        stream.write_all(&text)?;
    }
}

fn answer(lab: &Inner, request: Request) -> Response {
    let result = match request {
        Request::Status => Ok(Response::Status(lab.record())),
        Request::Report => lab.report().map(Response::Report),
        Request::SetLink { from, to, change } => {
            lab.set_link(&from, &to, change).map(Response::Link)
        }
        Request::MoveHostSide { workload, to } => {
            lab.move_host_side(&workload, &to).map(Response::Moved)
        }
    };
    result.unwrap_or_else(|error| Response::Error(with_sources(&error)))
}

/// An error and its sources in one line.
fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
