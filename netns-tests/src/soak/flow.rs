//! Numbered datagrams of which is known when each was sent and whether it arrived.
//!
//! A flow goes from one endpoint to another, from several source ports in turn, so that it is several
//! entries in the tables of the nodes. Its datagrams can be told in a frame of the underlay.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use sunwire_lab::{Workload, measure_in_real_time, monotonic_ns};

use super::judge::Book;

/// Begins every datagram of a soak.
const MAGIC: [u8; 8] = *b"SwSoak\x01\x7f";
/// Magic, flow (u32), number (u64), big-endian.
const HEADER_BYTES: usize = 20;
/// Bytes of a datagram.
pub const DATAGRAM_BYTES: usize = 200;
/// Source ports of a flow.
const PORTS: usize = 4;
/// How often a waiting thread looks whether it should stop.
const STOP_LOOK: Duration = Duration::from_millis(50);
/// Room for what arrives while a receiver is not scheduled.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Flow and number of the datagram that a frame or a datagram has in it in the clear.
#[must_use]
pub fn find(bytes: &[u8]) -> Option<(u32, u64)> {
    let at = bytes
        .windows(MAGIC.len())
        .position(|window| window == MAGIC)?;
    let header = bytes.get(at..at + HEADER_BYTES)?;
    let flow = u32::from_be_bytes(header[8..12].try_into().ok()?);
    Some((flow, u64::from_be_bytes(header[12..20].try_into().ok()?)))
}

fn datagram(flow: u32, number: u64) -> [u8; DATAGRAM_BYTES] {
    let mut bytes = [0; DATAGRAM_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&flow.to_be_bytes());
    bytes[12..20].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// What a flow is.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its number, which is in every datagram.
    pub flow: u32,
    /// Number of the endpoint that sends.
    pub from: usize,
    /// Number of the endpoint that receives.
    pub to: usize,
    /// Address of the receiver.
    pub address: IpAddr,
    /// Datagrams a second.
    pub per_second: f64,
}

/// A running flow.
pub struct Flow {
    spec: Spec,
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<Sent>,
    receiver: JoinHandle<Received>,
}

#[derive(Default)]
struct Sent {
    at_ns: Vec<u64>,
    refused: u64,
}

#[derive(Default)]
struct Received {
    at_ns: Vec<u64>,
    duplicates: u64,
    strange: u64,
}

/// A flow whose sender has stopped.
pub struct Ending {
    flow: Spec,
    sent: Sent,
    stop_receiving: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    receiver: JoinHandle<Received>,
}

impl Flow {
    /// Starts both ends.
    ///
    /// # Errors
    /// When a socket or thread cannot be made.
    pub fn start(spec: Spec, from: &Workload, to: &Workload) -> Result<Self> {
        let port = 20_000 + u16::try_from(spec.flow).context("that many flows have no ports")?;
        let address = SocketAddr::new(spec.address, port);
        let listening = to.namespace().run(|| UdpSocket::bind(address))?;
        let listening = listening.with_context(|| format!("cannot receive on {address}"))?;
        setsockopt(&listening, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        listening.set_read_timeout(Some(STOP_LOOK))?;
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let bind = || (0..PORTS).map(|_| UdpSocket::bind(any)).collect();
        let speaking: Vec<UdpSocket> = from.namespace().run::<io::Result<_>>(bind)??;

        let (stop_sending, stop_receiving) = (Arc::<AtomicBool>::default(), Arc::default());
        let received = Arc::<AtomicU64>::default();
        let (stop, count) = (Arc::clone(&stop_receiving), Arc::clone(&received));
        let receiver = to.namespace().start_thread("soak-in", move || {
            receive(&listening, spec.flow, &stop, &count)
        })?;
        let stop = Arc::clone(&stop_sending);
        let sender = from
            .namespace()
            .start_thread("soak-out", move || send(&speaking, address, spec, &stop))?;
        Ok(Flow {
            spec,
            stop_sending,
            stop_receiving,
            received,
            sender,
            receiver,
        })
    }

    /// Datagrams received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Sends no more; what is under way may still arrive.
    #[must_use]
    pub fn stop_sending(self) -> Ending {
        self.stop_sending.store(true, Ordering::Release);
        Ending {
            flow: self.spec,
            sent: join(self.sender),
            stop_receiving: self.stop_receiving,
            received: self.received,
            receiver: self.receiver,
        }
    }
}

impl Ending {
    /// Whether everything sent has arrived.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.received.load(Ordering::Relaxed) >= self.sent.at_ns.len() as u64
    }

    /// The account of the flow.
    #[must_use]
    pub fn finish(self) -> Book {
        self.stop_receiving.store(true, Ordering::Release);
        let received = join(self.receiver);
        Book {
            flow: self.flow.flow,
            from: self.flow.from,
            to: self.flow.to,
            is_ipv4: self.flow.address.is_ipv4(),
            sent_at_ns: self.sent.at_ns,
            arrived_at_ns: received.at_ns,
            refused: self.sent.refused,
            duplicates: received.duplicates,
            strange: received.strange,
        }
    }
}

fn join<T>(thread: JoinHandle<T>) -> T {
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn send(sockets: &[UdpSocket], to: SocketAddr, spec: Spec, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    let started = Instant::now();
    let mut attempts = 0_u64;
    while !stop.load(Ordering::Acquire) {
        let number = sent.at_ns.len() as u64;
        let socket = &sockets[number as usize % sockets.len()];
        let at = monotonic_ns();
        match socket.send_to(&datagram(spec.flow, number), to) {
            Ok(_) => sent.at_ns.push(at),
            // The device is away, or an ICMP error tells of an earlier datagram: it is tried again.
            Err(_) => sent.refused += 1,
        }
        attempts += 1;
        let due = Duration::from_secs_f64(attempts as f64 / spec.per_second);
        let ahead = due.saturating_sub(started.elapsed());
        std::thread::sleep(ahead.min(STOP_LOOK));
    }
    sent
}

fn receive(socket: &UdpSocket, flow: u32, stop: &AtomicBool, count: &AtomicU64) -> Received {
    // A refusal only makes overflows likelier, and they would be told as losses.
    let _ = measure_in_real_time();
    let mut received = Received::default();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Acquire) {
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let number = match find(&buffer[..length]) {
            Some((of, number)) if of == flow && number < 1 << 32 => number as usize,
            _ => {
                received.strange += 1;
                continue;
            }
        };
        if received.at_ns.len() <= number {
            received.at_ns.resize(number + 1, 0);
        }
        if received.at_ns[number] == 0 {
            received.at_ns[number] = monotonic_ns();
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            received.duplicates += 1;
        }
    }
    received
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_found_in_a_frame_and_its_beginning_alone_is_not() {
        let mut frame = vec![0x5a; 110];
        frame.extend(datagram(7, 1 << 33));
        assert_eq!(find(&frame), Some((7, 1 << 33)));
        assert_eq!(find(&frame[..129]), None);
        assert_eq!(find(&frame[..110]), None);
        assert_eq!(find(&[]), None);
    }
}
