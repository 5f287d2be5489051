//! TCP: streams, and requests over one connection or one each.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};

use super::{LOOK_EVERY, PORT, Shared, Side, Threads, unless_timed_out};
use crate::bench::namespace::Namespace;
use crate::bench::rigs::SERVER;

/// Bytes given to the kernel by one write of a stream.
const WRITE_BYTES: usize = 128 << 10;
/// Bytes asked of the kernel by one read of a stream.
const READ_BYTES: usize = 256 << 10;

/// `connections` at once, each as fast as it goes, from the client to the server, which counts.
pub(super) fn stream(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
    connections: usize,
) -> Result<()> {
    let listener = listen(server)?;
    for _ in 0..connections {
        let (mut sender, mut receiver) = pair(&listener, client)?;
        threads.start(Side::Server, server, move |shared| {
            let mut buffer = vec![0; READ_BYTES];
            while !shared.is_stopped() {
                match unless_timed_out(receiver.read(&mut buffer))? {
                    Some(0) => break,
                    Some(bytes) => shared.add(bytes as u64),
                    None => {}
                }
            }
            Ok(())
        });
        threads.start(Side::Client, client, move |shared| {
            let data = vec![0x5a; WRITE_BYTES];
            while !shared.is_stopped() {
                match unless_timed_out(sender.write(&data)) {
                    // The server has stopped first.
                    Err(error) if shared.is_stopped() && is_end(&error) => break,
                    written => drop(written?),
                }
            }
            Ok(())
        });
    }
    Ok(())
}

/// A byte there and a byte back, again and again over one connection.
pub(super) fn request_response(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let listener = listen(server)?;
    let (mut asking, mut answering) = pair(&listener, client)?;
    for end in [&asking, &answering] {
        end.set_nodelay(true)?;
    }
    threads.start(Side::Server, server, move |shared| {
        while let Some(byte) = read_byte(&mut answering, shared)? {
            answering.write_all(&[byte])?;
        }
        Ok(())
    });
    threads.start(Side::Client, client, move |shared| {
        while !shared.is_stopped() {
            asking.write_all(&[1])?;
            if read_byte(&mut asking, shared)?.is_none() {
                break;
            }
            shared.add(1);
        }
        Ok(())
    });
    Ok(())
}

/// A connection for every byte there and back. The server ends it first, so that the client's ports
/// are free again at once.
pub(super) fn connect_request_response(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let listener = listen(server)?;
    threads.start(Side::Server, server, move |shared| {
        while !shared.is_stopped() {
            let Some((mut connection, _)) = unless_timed_out(listener.accept())? else {
                continue;
            };
            connection.set_read_timeout(Some(LOOK_EVERY))?;
            if let Some(byte) = read_byte(&mut connection, shared)? {
                connection.write_all(&[byte])?;
            }
        }
        Ok(())
    });
    threads.start(Side::Client, client, move |shared| {
        while !shared.is_stopped() {
            let mut connection = TcpStream::connect_timeout(&address(), super::CONNECT_LIMIT)
                .context("cannot connect")?;
            connection.set_read_timeout(Some(LOOK_EVERY))?;
            connection.write_all(&[1])?;
            if read_byte(&mut connection, shared)?.is_none() {
                break;
            }
            // Wait for the server's end, then end the other half.
            if unless_timed_out(connection.read(&mut [0]))?.is_some() {
                shared.add(1);
            }
        }
        Ok(())
    });
    Ok(())
}

/// The next byte; `None` when the other side has ended, or when told to stop.
fn read_byte(stream: &mut TcpStream, shared: &Shared) -> io::Result<Option<u8>> {
    let mut byte = [0];
    loop {
        match unless_timed_out(stream.read(&mut byte)) {
            Ok(Some(0)) => return Ok(None),
            Ok(Some(_)) => return Ok(Some(byte[0])),
            Ok(None) if shared.is_stopped() => return Ok(None),
            Ok(None) => {}
            Err(error) if shared.is_stopped() && is_end(&error) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

fn address() -> SocketAddr {
    SocketAddr::from((SERVER, PORT))
}

fn listen(server: &Namespace) -> Result<TcpListener> {
    let listener = server.run(|| TcpListener::bind(address()).context("cannot listen"))?;
    let limit = TimeVal::milliseconds(LOOK_EVERY.as_millis() as i64);
    setsockopt(&listener, sockopt::ReceiveTimeout, &limit).context("cannot limit waiting")?;
    Ok(listener)
}

/// A connection: the client's end and the server's.
fn pair(listener: &TcpListener, client: &Namespace) -> Result<(TcpStream, TcpStream)> {
    let asking = client.run(|| {
        TcpStream::connect_timeout(&address(), super::CONNECT_LIMIT).context("cannot connect")
    })?;
    let (answering, _) = listener.accept().context("cannot accept a connection")?;
    for end in [&asking, &answering] {
        end.set_read_timeout(Some(LOOK_EVERY))?;
        end.set_write_timeout(Some(LOOK_EVERY))?;
    }
    Ok((asking, answering))
}
