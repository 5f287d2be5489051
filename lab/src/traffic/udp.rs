//! Numbered UDP datagrams: what arrives, in what order, with what gaps.
//!
//! A datagram begins with its number (u64, big-endian); the rest is padding.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError};
use crate::netns::Namespace;
use crate::realtime::{measure_in_real_time, monotonic_ns};

/// Smallest datagram: the number alone.
pub const DATAGRAM_BYTES_MIN: usize = 8;
/// How often a waiting thread looks whether it should stop.
const STOP_LOOK: Duration = Duration::from_millis(50);

/// What the sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UdpSenderReport {
    /// Datagrams the kernel took, numbered from 0 without holes.
    pub sent: u64,
    /// Attempts the kernel refused; a refused number is tried again.
    pub refused: u64,
}

/// What the receiver saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UdpReceiverReport {
    /// Different datagrams received.
    pub received: u64,
    /// Datagrams received again.
    pub duplicates: u64,
    /// Datagrams that came after one with a higher number.
    pub reordered: u64,
    /// Highest number received, plus one.
    pub highest: u64,
    /// Longest time between two datagrams, ms.
    pub largest_gap_ms: f64,
    /// When that gap began, nanoseconds of `CLOCK_MONOTONIC`.
    pub largest_gap_at_ns: u64,
    /// Too short to carry a number.
    pub malformed: u64,
}

impl UdpReceiverReport {
    /// Datagrams of `sent` that did not arrive.
    #[must_use]
    pub fn lost(&self, sent: &UdpSenderReport) -> u64 {
        sent.sent.saturating_sub(self.received)
    }
}

/// A running receiver.
#[derive(Debug)]
pub struct UdpReceiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<UdpReceiverReport>>,
}

/// A running sender.
#[derive(Debug)]
pub struct UdpSender {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<UdpSenderReport>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    count: AtomicU64,
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl UdpReceiver {
    /// Binds `address` inside `namespace` before it returns; port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self, LabError> {
        let doing = || format!("receive UDP on {address} in {}", namespace.name());
        let socket = namespace.run(|| UdpSocket::bind(address))?.doing(doing)?;
        let address = socket.local_addr().doing(doing)?;
        socket.set_read_timeout(Some(STOP_LOOK)).doing(doing)?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let thread = namespace
            .start_thread("sunwire-udp-in", move || receive(&socket, &for_thread))
            .doing(doing)?;
        Ok(Self {
            address,
            shared,
            thread: Some(thread),
        })
    }

    /// Where it is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Different datagrams received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Stops and reports. Datagrams under way count as lost: let the last
    /// ones arrive first, for instance with [`eventually`](crate::eventually).
    #[must_use]
    pub fn stop(mut self) -> UdpReceiverReport {
        self.shared.stop.store(true, Ordering::Release);
        join(self.thread.take())
    }
}

impl UdpSender {
    /// Sends datagrams of `datagram_bytes` (at least 8) from `namespace` to
    /// `address`, evenly at `per_second`, until stopped or `limit` are sent.
    ///
    /// # Errors
    /// No socket could be made or connected.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        datagram_bytes: usize,
        per_second: f64,
        limit: Option<u64>,
    ) -> Result<Self, LabError> {
        let doing = || format!("send UDP to {address} from {}", namespace.name());
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = namespace
            .run(|| {
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                io::Result::Ok(socket)
            })?
            .doing(doing)?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let bytes = datagram_bytes.max(DATAGRAM_BYTES_MIN);
        let limit = limit.unwrap_or(u64::MAX);
        let thread = namespace
            .start_thread("sunwire-udp-out", move || {
                send(&socket, bytes, per_second, limit, &for_thread)
            })
            .doing(doing)?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Datagrams sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }

    /// Stops and reports.
    #[must_use]
    pub fn stop(mut self) -> UdpSenderReport {
        self.shared.stop.store(true, Ordering::Release);
        join(self.thread.take())
    }

    /// Waits until `limit` datagrams are sent and reports.
    #[must_use]
    pub fn finish(mut self) -> UdpSenderReport {
        join(self.thread.take())
    }
}

impl Drop for UdpReceiver {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        join(self.thread.take());
    }
}

impl Drop for UdpSender {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        join(self.thread.take());
    }
}

fn join<T: Default>(thread: Option<JoinHandle<T>>) -> T {
    match thread.map(JoinHandle::join) {
        None => T::default(),
        Some(Ok(report)) => report,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn receive(socket: &UdpSocket, shared: &Shared) -> UdpReceiverReport {
    // A refusal only makes the figures noisier.
    let _ = measure_in_real_time();
    let mut book = Book::default();
    let mut buffer = vec![0; 65_536];
    while !shared.stopped() {
        if let Ok(length) = socket.recv(&mut buffer) {
            book.note(monotonic_ns(), &buffer[..length]);
            shared.count.store(book.report.received, Ordering::Relaxed);
        }
    }
    book.report
}

/// The receiver's account, kept without a clock or socket.
#[derive(Debug, Default)]
struct Book {
    report: UdpReceiverReport,
    /// Numbers below `highest` that have not come yet.
    missing: HashSet<u64>,
    last_at: Option<u64>,
}

impl Book {
    fn note(&mut self, now: u64, datagram: &[u8]) {
        let report = &mut self.report;
        let Some(number) = datagram.first_chunk() else {
            report.malformed += 1;
            return;
        };
        let number = u64::from_be_bytes(*number);
        // A stray number far ahead would fill the memory with missing ones.
        if number >= report.highest.saturating_add(1 << 24) {
            report.malformed += 1;
            return;
        }
        let gap_ms = (now - self.last_at.unwrap_or(now)) as f64 / 1e6;
        if gap_ms > report.largest_gap_ms {
            report.largest_gap_ms = gap_ms;
            report.largest_gap_at_ns = self.last_at.unwrap_or(now);
        }
        self.last_at = Some(now);
        if number >= report.highest {
            self.missing.extend(report.highest..number);
            report.highest = number + 1;
            report.received += 1;
        } else if self.missing.remove(&number) {
            report.reordered += 1;
            report.received += 1;
        } else {
            report.duplicates += 1;
        }
    }
}

fn send(
    socket: &UdpSocket,
    bytes: usize,
    per_second: f64,
    limit: u64,
    shared: &Shared,
) -> UdpSenderReport {
    let mut report = UdpSenderReport::default();
    let mut datagram = vec![0; bytes];
    let started = Instant::now();
    let mut attempts = 0_u64;
    while !shared.stopped() && report.sent < limit {
        datagram[..8].copy_from_slice(&report.sent.to_be_bytes());
        match socket.send(&datagram) {
            Ok(_) => report.sent += 1,
            // For instance an ICMP error for an earlier datagram.
            Err(_) => report.refused += 1,
        }
        shared.count.store(report.sent, Ordering::Relaxed);
        attempts += 1;
        let due = Duration::from_secs_f64(attempts as f64 / per_second.max(0.001));
        let mut ahead = due.saturating_sub(started.elapsed());
        // Below the precision of a sleep, several go out at once.
        while ahead > Duration::from_micros(100) && !shared.stopped() {
            std::thread::sleep(ahead.min(STOP_LOOK));
            ahead = due.saturating_sub(started.elapsed());
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(numbers: &[(u64, u64)]) -> UdpReceiverReport {
        let mut book = Book::default();
        for (at_ms, number) in numbers {
            book.note(at_ms * 1_000_000, &number.to_be_bytes());
        }
        book.report
    }

    #[test]
    fn late_datagrams_are_reordered_and_not_lost() {
        let report = book(&[(1, 0), (2, 3), (9, 1), (10, 1), (11, 4)]);
        assert_eq!(
            (report.received, report.reordered, report.duplicates),
            (4, 1, 1)
        );
        let sent = UdpSenderReport {
            sent: 6,
            refused: 0,
        };
        assert_eq!(report.lost(&sent), 2);
        assert_eq!(
            (report.largest_gap_ms, report.largest_gap_at_ns),
            (7.0, 2_000_000)
        );
    }

    #[test]
    fn garbage_is_counted_apart() {
        let mut book = Book::default();
        book.note(1, b"short");
        book.note(2, &u64::MAX.to_be_bytes());
        assert_eq!((book.report.malformed, book.report.received), (2, 0));
    }
}
