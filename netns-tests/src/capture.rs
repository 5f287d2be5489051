//! What packets arrive at a workload, by DSCP and destination port: an AF_PACKET socket that reads
//! headers as they are on the workload's device.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::sys::{
    socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt, socket,
        sockopt,
    },
    time::TimeVal,
};
use sunwire_dataplane_common::headers::{Headers, PROTOCOL_UDP};
use sunwire_lab::Namespace;

/// How often a waiting capture looks whether it should stop.
const STOP_LOOK_US: i64 = 50_000;
/// Kernel buffer, bytes: what arrives while the thread does not run.
const BUFFER_BYTES: usize = 32 << 20;
/// How long packets still under way are waited for.
pub const SETTLE: Duration = Duration::from_millis(500);

/// Packets by DSCP and destination port.
pub type Marks = BTreeMap<(u8, u16), u64>;

/// A running capture of UDP packets that come in.
pub struct Capture {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<io::Result<Marks>>>,
}

impl Capture {
    /// Captures in `namespace`, from before it returns.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let socket = namespace.run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        })?;
        let socket = socket.context("cannot open a packet socket")?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)?;
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::new(0, STOP_LOOK_US),
        )?;
        let (stop_seen, counter) = (Arc::clone(&stop), Arc::clone(&count));
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || read(&socket, &stop_seen, &counter))?;
        Ok(Capture {
            stop,
            count,
            thread: Some(thread),
        })
    }

    /// UDP packets captured so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Stops and returns what was captured.
    ///
    /// # Errors
    /// When reading failed.
    pub fn finish(mut self) -> Result<Marks> {
        self.stop.store(true, Ordering::Release);
        let thread = self.thread.take().context("a capture is finished once")?;
        let marks = thread
            .join()
            .map_err(|_| anyhow::anyhow!("the capture panicked"))?;
        marks.context("cannot read captured packets")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn read(socket: &std::os::fd::OwnedFd, stop: &AtomicBool, count: &AtomicU64) -> io::Result<Marks> {
    let mut marks = Marks::new();
    let mut buffer = [0u8; 256];
    while !stop.load(Ordering::Acquire) {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<nix::sys::socket::LinkAddr>(
            socket.as_raw_fd(),
            &mut parts,
            None,
            MsgFlags::empty(),
        );
        let (length, outgoing) = match received {
            // PACKET_OUTGOING, packet(7): what this workload sends itself.
            Ok(message) => (
                message.bytes,
                message.address.is_some_and(|from| from.pkttype() == 4),
            ),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if outgoing {
            continue;
        }
        if let Ok(parsed) = Headers::parse(&buffer.get(..length).unwrap_or_default())
            && parsed.headers.protocol == PROTOCOL_UDP
        {
            *marks
                .entry((parsed.headers.dscp, parsed.headers.dst_port))
                .or_default() += 1;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(marks)
}
