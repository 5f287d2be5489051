//! UDP: small datagrams as fast as they go, and requests one at a time.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt,
};

use super::{LOOK_EVERY, PORT, Shared, Side, Threads, unless_timed_out};
use crate::bench::metric::DATAGRAM_BYTES;
use crate::bench::namespace::Namespace;
use crate::bench::rigs::{CLIENT, SERVER};

/// Datagrams given to or taken from the kernel by one system call.
pub(super) const BATCH: usize = 64;
/// Buffer of a receiving socket, bytes: it holds what comes while nobody takes anything out.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long a receiver leaves its socket alone once it is empty. At a million datagrams per second
/// a tenth of the buffer fills meanwhile.
const LEAVE_ALONE: Duration = Duration::from_micros(200);
/// Tries to open a flow.
const TRIES: usize = 20;

/// Datagrams of [`DATAGRAM_BYTES`] in batches from one socket; the server counts what arrives.
pub(super) fn datagrams(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let (sender, receiver) = opened_pair(threads, client, server)?;
    threads.start(Side::Server, server, move |shared| {
        count_arrivals(&receiver, shared)
    });
    threads.start(Side::Client, client, move |shared| {
        let mut batch = Batch::new();
        while !shared.is_stopped() {
            batch.send(&sender)?;
        }
        Ok(())
    });
    Ok(())
}

/// As [`datagrams`], in both directions at once; each side counts what arrives.
pub(super) fn both_ways(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let (asking, answering) = opened_pair(threads, client, server)?;
    for (side, namespace, socket) in [
        (Side::Server, server, answering),
        (Side::Client, client, asking),
    ] {
        threads.start(side, namespace, move |shared| {
            let mut batch = Batch::new();
            let mut arrivals = Arrivals::new();
            while !shared.is_stopped() {
                batch.send(&socket)?;
                arrivals.take_all(&socket, shared)?;
            }
            Ok(())
        });
    }
    Ok(())
}

/// A byte there and a byte back, again and again. What is lost is asked for again.
pub(super) fn request_response(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<()> {
    let (asking, answering) = opened_pair(threads, client, server)?;
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

/// Counts what arrives at a socket.
pub(super) fn count_arrivals(socket: &UdpSocket, shared: &Shared) -> Result<()> {
    let mut arrivals = Arrivals::new();
    while !shared.is_stopped() {
        arrivals.take_all(socket, shared)?;
        thread::sleep(LEAVE_ALONE);
    }
    Ok(())
}

/// The server's socket, for any sender.
pub(super) fn receiver(server: &Namespace) -> Result<UdpSocket> {
    let socket = server.run(|| UdpSocket::bind((SERVER, PORT)).context("cannot open a socket"))?;
    prepare(&socket)?;
    Ok(socket)
}

/// Sends one datagram there and one back, so that the flow is an established one to whoever tracks
/// connections.
pub(super) fn open(asking: &UdpSocket, answering: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 1];
    for _ in 0..TRIES {
        asking.send(&[0])?;
        let Some((_, from)) = unless_timed_out(answering.recv_from(&mut buffer))? else {
            continue;
        };
        answering.send_to(&[0], from)?;
        if unless_timed_out(asking.recv(&mut buffer))?.is_some() {
            return Ok(());
        }
    }
    ensure!(false, "no datagram comes back");
    Ok(())
}

/// Waiting on the socket ends after [`LOOK_EVERY`], and it has room.
pub(super) fn prepare(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(LOOK_EVERY))?;
    setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .context("cannot enlarge the receive buffer")
}

/// Two sockets connected to each other, the client's and the server's, that have exchanged a
/// datagram. Both stay open until both sides have ended.
fn opened_pair(
    threads: &mut Threads,
    client: &Namespace,
    server: &Namespace,
) -> Result<(Arc<UdpSocket>, Arc<UdpSocket>)> {
    let answering = receiver(server)?;
    let asking = client.run(|| UdpSocket::bind((CLIENT, 0)).context("cannot open a socket"))?;
    prepare(&asking)?;
    asking.connect((SERVER, PORT))?;
    open(&asking, &answering)?;
    answering.connect(asking.local_addr()?)?;
    Ok((threads.keep(asking), threads.keep(answering)))
}

/// Datagrams to send by one system call from a connected socket.
struct Batch {
    data: [u8; DATAGRAM_BYTES],
}

impl Batch {
    fn new() -> Self {
        Batch {
            data: [0x5a; DATAGRAM_BYTES],
        }
    }

    fn send(&mut self, socket: &UdpSocket) -> Result<()> {
        let slices = [(); BATCH].map(|()| [IoSlice::new(&self.data)]);
        // Connected: no datagram needs an address.
        let addresses = [None::<SockaddrIn>; BATCH];
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let flags = MsgFlags::empty();
        let sent = sendmmsg(
            socket.as_raw_fd(),
            &mut headers,
            slices.iter(),
            addresses,
            [],
            flags,
        );
        match sent {
            Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot send datagrams"),
        }
    }
}

/// Room for datagrams taken by one system call.
struct Arrivals {
    buffers: Box<[[u8; 2 * DATAGRAM_BYTES]; BATCH]>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Arrivals {
    fn new() -> Self {
        Arrivals {
            buffers: Box::new([[0; 2 * DATAGRAM_BYTES]; BATCH]),
            headers: MultiHeaders::preallocate(BATCH, None),
        }
    }

    /// Takes and counts everything that is there, without waiting.
    fn take_all(&mut self, socket: &UdpSocket, shared: &Shared) -> Result<()> {
        loop {
            let mut slices = self
                .buffers
                .each_mut()
                .map(|buffer| [IoSliceMut::new(buffer)]);
            let received = recvmmsg(
                socket.as_raw_fd(),
                &mut self.headers,
                slices.iter_mut(),
                MsgFlags::MSG_DONTWAIT,
                None,
            );
            let received = received.map(Iterator::count).map_err(io::Error::from);
            let count = unless_timed_out(received)?.unwrap_or(0);
            shared.add(count as u64);
            if count < BATCH {
                return Ok(());
            }
        }
    }
}
