//! UDP: small datagrams as fast as they go, and requests one at a time.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

use super::{LOOK_EVERY, PORT, Side, Threads, unless_timed_out};
use crate::bench::metric::DATAGRAM_BYTES;
use crate::bench::namespace::Namespace;
use crate::bench::rigs::{CLIENT, SERVER};

/// Datagrams given to or taken from the kernel by one system call.
const BATCH: usize = 64;
/// Buffer of the receiving socket, bytes: what the sender is ahead by is not lost at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Datagrams of [`DATAGRAM_BYTES`] in batches from one socket; the server counts what arrives.
pub(super) fn datagrams(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let (sender, receiver) = pair(client, server)?;
    setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .context("cannot enlarge the receive buffer")?;
    threads.start(Side::Server, server, move |shared| {
        let mut buffers = [[0_u8; 2 * DATAGRAM_BYTES]; BATCH];
        let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
        while !shared.is_stopped() {
            let mut slices = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let received = recvmmsg(
                receiver.as_raw_fd(),
                &mut headers,
                slices.iter_mut(),
                // The first is waited for, up to the socket's time limit.
                MsgFlags::MSG_WAITFORONE,
                None,
            );
            let received = received.map(Iterator::count).map_err(io::Error::from);
            if let Some(count) = unless_timed_out(received)? {
                shared.add(count as u64);
            }
        }
        Ok(())
    });
    threads.start(Side::Client, client, move |shared| {
        let data = [0x5a_u8; DATAGRAM_BYTES];
        let slices = [(); BATCH].map(|()| [IoSlice::new(&data)]);
        // Connected: no datagram needs an address.
        let addresses = [None::<SockaddrIn>; BATCH];
        while !shared.is_stopped() {
            let mut headers = MultiHeaders::preallocate(BATCH, None);
            let sent = sendmmsg(
                sender.as_raw_fd(),
                &mut headers,
                slices.iter(),
                addresses,
                [],
                MsgFlags::empty(),
            );
            match sent {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot send datagrams"),
            }
        }
        Ok(())
    });
    Ok(())
}

/// A byte there and a byte back, again and again. What is lost is asked for again.
pub(super) fn request_response(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let (asking, answering) = pair(client, server)?;
    threads.start(Side::Server, server, move |shared| {
        let mut buffer = [0];
        while !shared.is_stopped() {
            if unless_timed_out(answering.recv(&mut buffer))?.is_some() {
                answering.send(&buffer)?;
            }
        }
        Ok(())
    });
    threads.start(Side::Client, client, move |shared| {
        let mut buffer = [0];
        while !shared.is_stopped() {
            asking.send(&[1])?;
            if unless_timed_out(asking.recv(&mut buffer))?.is_some() {
                shared.add(1);
            }
        }
        Ok(())
    });
    Ok(())
}

/// Two sockets connected to each other: the client's and the server's.
fn pair(client: &Namespace, server: &Namespace) -> Result<(UdpSocket, UdpSocket)> {
    let asking = client.run(|| UdpSocket::bind((CLIENT, 0)).context("cannot open a socket"))?;
    let answering =
        server.run(|| UdpSocket::bind((SERVER, PORT)).context("cannot open a socket"))?;
    asking.connect((SERVER, PORT))?;
    answering.connect(asking.local_addr()?)?;
    for end in [&asking, &answering] {
        end.set_read_timeout(Some(LOOK_EVERY))?;
    }
    Ok((asking, answering))
}
