//! One-way bulk TCP: how much arrives, how steadily, with how many
//! retransmissions.
//!
//! The receiver notes progress per interval and the largest gap between two
//! reads, on a real-time thread. The sender can be held to a rate, so that a
//! gap shows and is not hidden in a full queue.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError};
use crate::netns::Namespace;
use crate::realtime::{measure_in_real_time, monotonic_ns};
use crate::sys;

/// Width of the intervals that the receiver counts bytes in.
pub const INTERVAL: Duration = Duration::from_millis(100);
/// Bytes written or read at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// How often a waiting thread looks whether it should stop.
const STOP_LOOK: Duration = Duration::from_millis(100);
/// How long a stopped sender lets its last bytes be acknowledged.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the sending end saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SenderReport {
    /// Bytes handed to the kernel.
    pub bytes: u64,
    /// Segments retransmitted over the connection's life (`TCP_INFO`).
    pub retransmits: u32,
    /// Why the connection broke, when it did.
    pub broken: Option<String>,
}

/// What the receiving end saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReceiverReport {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes per [`INTERVAL`] since the first.
    pub bytes_per_interval: Vec<u64>,
    /// Longest time without a byte between the first and the last, ms.
    pub largest_gap_ms: f64,
    /// When that gap began, nanoseconds of `CLOCK_MONOTONIC`.
    pub largest_gap_at_ns: u64,
    /// First to last byte, ms.
    pub duration_ms: f64,
    /// Why the connection broke, when it did.
    pub broken: Option<String>,
}

impl ReceiverReport {
    /// Mean rate between the first and the last byte, Mbit/s.
    #[must_use]
    pub fn mean_mbps(&self) -> f64 {
        if self.duration_ms > 0.0 {
            self.bytes as f64 * 8.0 / self.duration_ms / 1e3
        } else {
            0.0
        }
    }

    fn note(&mut self, now: u64, first: u64, last: u64, bytes: u64) {
        let gap_ms = (now - last) as f64 / 1e6;
        if gap_ms > self.largest_gap_ms {
            self.largest_gap_ms = gap_ms;
            self.largest_gap_at_ns = last;
        }
        let interval = ((now - first) / INTERVAL.as_nanos() as u64) as usize;
        if self.bytes_per_interval.len() <= interval {
            self.bytes_per_interval.resize(interval + 1, 0);
        }
        self.bytes_per_interval[interval] += bytes;
        self.bytes += bytes;
        self.duration_ms = (now - first) as f64 / 1e6;
    }
}

/// A receiver of one connection.
#[derive(Debug)]
pub struct BulkReceiver {
    address: SocketAddr,
    progress: Arc<Progress>,
    thread: Option<JoinHandle<io::Result<ReceiverReport>>>,
}

/// A sender over one connection.
#[derive(Debug)]
pub struct BulkSender {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<io::Result<SenderReport>>>,
}

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

impl BulkReceiver {
    /// Listens on `address` inside `namespace` before it returns; port 0 takes
    /// a free one. Receives the first connection to its end.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self, LabError> {
        let doing = || format!("receive TCP on {address} in {}", namespace.name());
        let listener = namespace.run(|| TcpListener::bind(address))?.doing(doing)?;
        let address = listener.local_addr().doing(doing)?;
        listener.set_nonblocking(true).doing(doing)?;
        let progress = Arc::new(Progress::default());
        let for_thread = Arc::clone(&progress);
        let thread = namespace
            .start_thread("sunwire-receive", move || receive(&listener, &for_thread))
            .doing(doing)?;
        Ok(Self {
            address,
            progress,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes received so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Waits for the end of the connection and reports. Stop the sender
    /// before, or this waits for as long as it sends.
    ///
    /// # Errors
    /// No connection could be accepted.
    pub fn finish(mut self) -> Result<ReceiverReport, LabError> {
        join(self.thread.take()).doing(|| format!("receive TCP on {}", self.address))
    }
}

impl BulkSender {
    /// Connects from `namespace` to `address` before it returns, then sends
    /// until stopped, at `rate_mbps` when given.
    ///
    /// # Errors
    /// No connection within `timeout`.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        rate_mbps: Option<f64>,
        timeout: Duration,
    ) -> Result<Self, LabError> {
        let doing = || format!("send TCP to {address} from {}", namespace.name());
        let stream = namespace
            .run(|| TcpStream::connect_timeout(&address, timeout))?
            .doing(doing)?;
        stream.set_write_timeout(Some(STOP_LOOK)).doing(doing)?;
        let progress = Arc::new(Progress::default());
        let for_thread = Arc::clone(&progress);
        let thread = namespace
            .start_thread("sunwire-send", move || send(stream, rate_mbps, &for_thread))
            .doing(doing)?;
        Ok(Self {
            progress,
            thread: Some(thread),
        })
    }

    /// Bytes handed to the kernel so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// Stops sending, lets the last bytes be acknowledged and reports.
    ///
    /// # Errors
    /// The connection's state could not be read.
    pub fn stop(mut self) -> Result<SenderReport, LabError> {
        self.progress.stop.store(true, Ordering::Release);
        join(self.thread.take()).doing(|| "send TCP".to_owned())
    }
}

impl Drop for BulkReceiver {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Release);
        let _ = join(self.thread.take());
    }
}

impl Drop for BulkSender {
    fn drop(&mut self) {
        self.progress.stop.store(true, Ordering::Release);
        let _ = join(self.thread.take());
    }
}

fn join<T: Default>(thread: Option<JoinHandle<io::Result<T>>>) -> io::Result<T> {
    match thread.map(JoinHandle::join) {
        None => Ok(T::default()),
        Some(Ok(result)) => result,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

/// No data yet, or a signal: look whether to stop and go on.
fn is_pause(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

fn receive(listener: &TcpListener, progress: &Progress) -> io::Result<ReceiverReport> {
    // A refusal only makes the figures noisier.
    let _ = measure_in_real_time();
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if is_pause(&error) && !progress.stopped() => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) if is_pause(&error) => return Ok(ReceiverReport::default()),
            Err(error) => return Err(error),
        }
    };
    stream.set_read_timeout(Some(STOP_LOOK))?;
    let mut report = ReceiverReport::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut times = None;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(report),
            Ok(length) => {
                let now = monotonic_ns();
                let (first, last) = times.unwrap_or((now, now));
                report.note(now, first, last, length as u64);
                times = Some((first, now));
                progress.bytes.store(report.bytes, Ordering::Relaxed);
            }
            Err(error) if is_pause(&error) && !progress.stopped() => {}
            Err(error) if is_pause(&error) => return Ok(report),
            Err(error) => {
                report.broken = Some(error.to_string());
                return Ok(report);
            }
        }
    }
}

fn send(
    mut stream: TcpStream,
    rate_mbps: Option<f64>,
    progress: &Progress,
) -> io::Result<SenderReport> {
    let mut report = SenderReport::default();
    let started = Instant::now();
    // At a rate, about two hundred writes a second, so that the stream is even.
    let chunk_bytes = rate_mbps.map_or(CHUNK_BYTES, |rate| {
        ((rate * 1e6 / 8.0 / 200.0) as usize).clamp(1, CHUNK_BYTES)
    });
    let chunk = vec![0x5a; chunk_bytes];
    while !progress.stopped() {
        match stream.write(&chunk) {
            Ok(length) => report.bytes += length as u64,
            Err(error) if is_pause(&error) => {}
            Err(error) => {
                report.broken = Some(error.to_string());
                break;
            }
        }
        progress.bytes.store(report.bytes, Ordering::Relaxed);
        if let Some(rate) = rate_mbps {
            let due = Duration::from_secs_f64(report.bytes as f64 * 8.0 / (rate * 1e6));
            let ahead = due.saturating_sub(started.elapsed());
            std::thread::sleep(ahead.min(STOP_LOOK));
        }
    }
    if report.broken.is_none() {
        drain(&mut stream, &mut report)?;
    }
    report.retransmits = sys::tcp_total_retransmits(stream.as_fd())?;
    Ok(report)
}

/// Ends the stream and waits for the other side to end it too, so that the
/// count of retransmissions is final.
fn drain(stream: &mut TcpStream, report: &mut SenderReport) -> io::Result<()> {
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.set_read_timeout(Some(STOP_LOOK))?;
    let until = Instant::now() + crate::patient(DRAIN_TIMEOUT);
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if is_pause(&error) && Instant::now() < until => {}
            Err(error) => {
                report.broken = Some(error.to_string());
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_intervals_and_finds_the_largest_gap() {
        let mut report = ReceiverReport::default();
        let (first, ms) = (1_000_000_000, 1_000_000);
        report.note(first, first, first, 10);
        report.note(first + 30 * ms, first, first, 20);
        report.note(first + 250 * ms, first, first + 30 * ms, 40);
        report.note(first + 260 * ms, first, first + 250 * ms, 1);
        assert_eq!(report.bytes_per_interval, [30, 0, 41]);
        assert_eq!(report.largest_gap_ms, 220.0);
        assert_eq!(report.largest_gap_at_ns, first + 30 * ms);
        assert_eq!((report.bytes, report.duration_ms), (71, 260.0));
    }
}
