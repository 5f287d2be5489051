//! The local socket of the process that encrypts, and the agent's end of it.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use super::{
    protocol::{Answer, Request},
    worker::Shared,
};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "crypt.sock";
/// Name of the file with the process number.
pub const PID: &str = "crypt.pid";
/// Bytes of a request; keys of ten thousand nodes fit.
const REQUEST_BYTES: u64 = 4 << 20;
/// How long the agent waits for an answer: the process does nothing that takes long.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Binds the socket in place of one that a dead process left, and writes the process number.
///
/// # Errors
/// When another process answers there, or the directory cannot be written.
pub(super) fn bind(directory: &Path) -> io::Result<(UnixListener, PathBuf)> {
    let path = directory.join(SOCKET);
    if UnixStream::connect(&path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process encrypts for this node",
        ));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Private keys come this way: nobody else may connect.
    let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let listener = UnixListener::bind(&path);
    nix::sys::stat::umask(before);
    let listener = listener?;
    fs::write(directory.join(PID), format!("{}\n", std::process::id()))?;
    Ok((listener, path))
}

/// Removes what [`bind`] made.
pub(super) fn remove(directory: &Path) {
    for name in [SOCKET, PID] {
        if let Err(error) = fs::remove_file(directory.join(name)) {
            tracing::debug!(%error, name, "not removed");
        }
    }
}

/// Serves callers until one asks for the end.
pub(super) fn serve(listener: &UnixListener, shared: &Arc<Shared>, end: &mpsc::Sender<()>) {
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a caller");
                thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        let (shared, end) = (Arc::clone(shared), end.clone());
        let served = thread::Builder::new()
            .name("caller".to_owned())
            .spawn(move || {
                if let Err(error) = converse(stream, &shared, &end) {
                    tracing::debug!(%error, "a caller went away");
                }
            });
        if let Err(error) = served {
            tracing::warn!(%error, "cannot serve a caller");
        }
    }
}

fn converse(stream: UnixStream, shared: &Shared, end: &mpsc::Sender<()>) -> io::Result<()> {
    let mut write = stream.try_clone()?;
    let mut read = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let length = (&mut read).take(REQUEST_BYTES).read_line(&mut line)?;
        if length == 0 {
            return Ok(());
        }
        let mut is_end = false;
        let answer = match serde_json::from_str(&line) {
            Ok(Request::Configure(configuration)) => {
                shared.configure(&configuration);
                Answer::Done
            }
            Ok(Request::Status) => Answer::Status(shared.status()),
            Ok(Request::End) => {
                is_end = true;
                Answer::Done
            }
            // Not the line itself, which may have keys in it.
            Err(error) => Answer::Refused {
                reason: format!("the request is not understood: {error}"),
            },
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        write.write_all(text.as_bytes())?;
        if is_end {
            // Whoever waits for it may be gone already.
            let _ = end.send(());
        }
        if length as u64 == REQUEST_BYTES {
            // The rest of an overlong line would be read as requests of its own.
            return Ok(());
        }
    }
}

/// Asks the process of a state directory.
///
/// # Errors
/// When none answers there.
pub fn call(directory: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(directory.join(SOCKET))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
