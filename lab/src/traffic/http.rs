//! A small HTTP/1.1 server and client for workloads.
//!
//! The server answers `GET /` with its name and `POST` with the number of bytes
//! received, keeps connections open, and serves each on its own thread: made
//! for a lab's few connections, not for the Internet.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Doing, LabError};
use crate::netns::Namespace;

/// Bytes of a request's or response's head at most.
const HEAD_BYTES_MAX: u64 = 16 << 10;
/// Bytes of a body at most.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// A running server; stops when dropped.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    namespace: Namespace,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    stop: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Body, which must be UTF-8.
    pub body: String,
    /// From before connecting to the last byte of the body.
    pub elapsed: Duration,
}

impl HttpServer {
    /// Listens on `address` inside `namespace` before it returns; port 0 takes
    /// a free one. `name` is what `GET /` answers.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr, name: &str) -> Result<Self, LabError> {
        let doing = || format!("serve HTTP on {address} in {}", namespace.name());
        let listener = namespace.run(|| TcpListener::bind(address))?.doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sunwire-http".to_owned())
            .spawn(move || accept(&listener, &for_thread))
            .doing(doing)?;
        Ok(Self {
            address,
            namespace: namespace.clone(),
            shared,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for stream in self.shared.locked().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        // A connection of our own makes accept look at the flag. It goes to
        // the address served, over the namespace's loopback.
        let address = self.address;
        let woken = self
            .namespace
            .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(1)));
        if matches!(woken, Ok(Ok(_)))
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn locked(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: let connections end first.
            std::thread::sleep(Duration::from_millis(10));
            continue;
        };
        if let Ok(ours) = stream.try_clone() {
            let mut open = shared.locked();
            open.retain(|stream| stream.peer_addr().is_ok());
            open.push(ours);
        }
        let shared = Arc::clone(shared);
        let serving = std::thread::Builder::new().name("sunwire-http-client".to_owned());
        // A client that breaks off, or that no thread can be had for, is
        // simply disconnected.
        let _ = serving.spawn(move || {
            let _ = serve(&stream, &shared);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while !shared.stop.load(Ordering::Acquire) {
        let Some(head) = Head::read(&mut reader)? else {
            return Ok(());
        };
        let length = head.content_length;
        if length > BODY_BYTES_MAX {
            return respond(stream, "413 Content Too Large", "too large\n");
        }
        let copied = io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
        if copied < length {
            return Ok(());
        }
        let mut words = head.first_line.split(' ');
        match (words.next(), words.next()) {
            (Some("GET"), Some("/")) => respond(stream, "200 OK", &shared.name)?,
            (Some("POST"), Some(_)) => respond(stream, "200 OK", &copied.to_string())?,
            (Some("GET"), Some(_)) => respond(stream, "404 Not Found", "not found\n")?,
            _ => return respond(stream, "400 Bad Request", "bad request\n"),
        }
        if head.close {
            return Ok(());
        }
    }
    Ok(())
}

fn respond(mut stream: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes())
}

/// The first line and the headers that matter here.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    first_line: String,
    content_length: u64,
    close: bool,
}

impl Head {
    /// Reads a head; `None` at an end before its first byte.
    fn read(reader: &mut impl BufRead) -> io::Result<Option<Self>> {
        let malformed = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut limited = reader.take(HEAD_BYTES_MAX);
        let mut first_line = String::new();
        if limited.read_line(&mut first_line)? == 0 {
            return Ok(None);
        }
        let mut head = Self {
            first_line: first_line.trim_end().to_owned(),
            content_length: 0,
            close: false,
        };
        loop {
            let mut line = String::new();
            if limited.read_line(&mut line)? == 0 {
                return Err(malformed("the head ends early or is too long"));
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(Some(head));
            }
            let (name, value) = line
                .split_once(':')
                .ok_or(malformed("a header without colon"))?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.content_length = value
                    .parse()
                    .map_err(|_| malformed("a bad content length"))?;
            } else if name.eq_ignore_ascii_case("connection") {
                head.close = value.eq_ignore_ascii_case("close");
            }
        }
    }
}

/// Sends `GET /` from inside `namespace` over a fresh connection.
///
/// # Errors
/// No connection, a malformed answer, or `timeout` between two bytes.
pub fn get(
    namespace: &Namespace,
    address: SocketAddr,
    timeout: Duration,
) -> Result<HttpResponse, LabError> {
    exchange(namespace, address, timeout, "GET", &[])
}

/// Sends `POST /` with `body` from inside `namespace` over a fresh connection.
///
/// # Errors
/// As [`get`].
pub fn post(
    namespace: &Namespace,
    address: SocketAddr,
    timeout: Duration,
    body: &[u8],
) -> Result<HttpResponse, LabError> {
    exchange(namespace, address, timeout, "POST", body)
}

fn exchange(
    namespace: &Namespace,
    address: SocketAddr,
    timeout: Duration,
    method: &str,
    body: &[u8],
) -> Result<HttpResponse, LabError> {
    let talk = || -> io::Result<HttpResponse> {
        let started = Instant::now();
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut request = format!(
            "{method} / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request)?;
        let mut reader = BufReader::new(stream);
        let head = Head::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head
            .first_line
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        if head.content_length > BODY_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = String::new();
        reader.take(head.content_length).read_to_string(&mut body)?;
        if (body.len() as u64) < head.content_length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let elapsed = started.elapsed();
        Ok(HttpResponse {
            status,
            body,
            elapsed,
        })
    };
    let from = namespace.name();
    namespace
        .run(talk)?
        .doing(|| format!("{method} http://{address}/ from {from}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_ends_at_the_empty_line() {
        let mut text = &b"GET / HTTP/1.1\r\ncontent-length: 3\r\nConnection: Close\r\n\r\nabc"[..];
        let head = Head::read(&mut text).unwrap().unwrap();
        assert_eq!((head.content_length, head.close), (3, true));
        assert_eq!(text, b"abc");
    }

    #[test]
    fn truncated_and_endless_heads_are_errors() {
        assert_eq!(Head::read(&mut &b""[..]).unwrap(), None);
        assert!(Head::read(&mut &b"GET / HTTP/1.1\r\nHost: x\r\n"[..]).is_err());
        let endless = [b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(10_000)].concat();
        assert!(Head::read(&mut &endless[..]).is_err());
    }
}
