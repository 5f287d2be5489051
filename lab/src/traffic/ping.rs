//! ICMP and ICMPv6 echo over a raw socket, with the round-trip times.
//!
//! One request is under way at a time: the next is sent `interval` after the
//! last one was answered or given up.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendto,
    socket,
};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::netns::Namespace;
use crate::realtime::{measure_in_real_time, monotonic_ns};

/// How to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingOptions {
    /// Requests to send.
    pub count: u32,
    /// Pause between an answer and the next request.
    pub interval: Duration,
    /// How long to wait for each answer.
    pub timeout: Duration,
    /// Data after the ICMP header, bytes.
    pub payload_bytes: usize,
}

impl Default for PingOptions {
    fn default() -> Self {
        Self {
            count: 5,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            payload_bytes: 56,
        }
    }
}

/// What a ping measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Round-trip times in the order sent, milliseconds, answered ones only.
    pub rtt_ms: Vec<f64>,
    /// Requests the kernel refused to send (no route, no neighbour).
    pub refused: u32,
}

impl PingReport {
    /// Requests answered.
    #[must_use]
    pub fn received(&self) -> u32 {
        self.rtt_ms.len() as u32
    }

    /// The median round-trip time, milliseconds; `None` without answers.
    #[must_use]
    pub fn median_ms(&self) -> Option<f64> {
        let mut sorted = self.rtt_ms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    /// The smallest round-trip time, milliseconds.
    #[must_use]
    pub fn min_ms(&self) -> Option<f64> {
        self.rtt_ms.iter().copied().min_by(f64::total_cmp)
    }

    /// The largest round-trip time, milliseconds.
    #[must_use]
    pub fn max_ms(&self) -> Option<f64> {
        self.rtt_ms.iter().copied().max_by(f64::total_cmp)
    }
}

/// Pings from inside `namespace` on a real-time thread (where the system allows
/// it).
///
/// # Errors
/// No raw socket, or the namespace cannot be entered. Requests that go
/// unanswered are no error: see the report.
pub fn ping(
    namespace: &Namespace,
    target: IpAddr,
    options: PingOptions,
) -> Result<PingReport, LabError> {
    namespace
        .run(|| {
            // A refusal only makes the figures noisier.
            let _ = measure_in_real_time();
            ping_from_here(target, options)
        })?
        .map_err(|source| LabError::Io {
            action: format!("ping {target} from {}", namespace.name()),
            source,
        })
}

/// Pings from the calling thread's namespace.
///
/// # Errors
/// No raw socket.
pub fn ping_from_here(target: IpAddr, options: PingOptions) -> io::Result<PingReport> {
    // Raw sockets see every echo reply of the namespace: the identifier tells
    // concurrent pings of this process apart.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let identifier =
        (std::process::id() as u16) ^ NEXT.fetch_add(1, Ordering::Relaxed).rotate_left(8);
    let socket = open(target)?;
    let mut report = PingReport::default();
    for sequence in 0..options.count {
        if sequence > 0 {
            std::thread::sleep(options.interval);
        }
        let request = request(target, identifier, sequence as u16, options.payload_bytes);
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        let sent_at = monotonic_ns();
        report.sent += 1;
        match sendto(socket.as_raw_fd(), &request, &address, MsgFlags::empty()) {
            Ok(_) => {
                let until = sent_at + options.timeout.as_nanos() as u64;
                if let Some(at) = answer(&socket, target, identifier, sequence as u16, until)? {
                    report.rtt_ms.push((at - sent_at) as f64 / 1e6);
                }
            }
            Err(_) => report.refused += 1,
        }
    }
    Ok(report)
}

fn open(target: IpAddr) -> io::Result<OwnedFd> {
    let (family, protocol) = match target {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(family, SockType::Raw, flags, protocol)?)
}

fn request(target: IpAddr, identifier: u16, sequence: u16, payload_bytes: usize) -> Vec<u8> {
    let mut packet = vec![0; 8 + payload_bytes];
    packet[0] = if target.is_ipv4() { 8 } else { 128 };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    for (index, byte) in packet[8..].iter_mut().enumerate() {
        *byte = index as u8;
    }
    // The kernel fills in the checksum of ICMPv6 only (RFC 3542, section 3.1).
    if target.is_ipv4() {
        let checksum = internet_checksum(&packet);
        packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// RFC 1071.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Waits for one answer; the time at which it was read.
fn answer(
    socket: &OwnedFd,
    target: IpAddr,
    identifier: u16,
    sequence: u16,
    until: u64,
) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; 65_536];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                let now = monotonic_ns();
                if is_answer(&buffer[..length], target, identifier, sequence) {
                    return Ok(Some(now));
                }
            }
            Err(nix::Error::EAGAIN) => {
                let left = until.saturating_sub(monotonic_ns());
                if left == 0 {
                    return Ok(None);
                }
                let left =
                    TimeSpec::new((left / 1_000_000_000) as i64, (left % 1_000_000_000) as i64);
                let mut waited = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                match ppoll(&mut waited, Some(left), None) {
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // An ICMP error about an earlier request may be pending.
            Err(_) if monotonic_ns() < until => {}
            Err(_) => return Ok(None),
        }
    }
}

fn is_answer(packet: &[u8], target: IpAddr, identifier: u16, sequence: u16) -> bool {
    // Raw IPv4 sockets deliver the IP header too, raw IPv6 sockets do not.
    let (icmp, reply) = match target {
        IpAddr::V4(target) => {
            let Some(header) = packet.first().map(|first| usize::from(first & 0x0f) * 4) else {
                return false;
            };
            if packet.get(12..16) != Some(&target.octets()[..]) {
                return false;
            }
            (packet.get(header..).unwrap_or_default(), 0)
        }
        IpAddr::V6(_) => (packet, 129),
    };
    icmp.len() >= 8
        && icmp[0] == reply
        && icmp[4..6] == identifier.to_be_bytes()
        && icmp[6..8] == sequence.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_checksums_to_zero() {
        for payload in [0, 1, 56, 57] {
            let packet = request("10.0.0.1".parse().unwrap(), 7, 9, payload);
            assert_eq!(internet_checksum(&packet), 0);
        }
    }

    #[test]
    fn only_the_own_reply_is_an_answer() {
        let target: IpAddr = "fd00::1".parse().unwrap();
        let mut reply = request(target, 7, 9, 0);
        assert!(!is_answer(&reply, target, 7, 9), "a request is no answer");
        reply[0] = 129;
        assert!(is_answer(&reply, target, 7, 9));
        assert!(!is_answer(&reply, target, 8, 9));
        assert!(!is_answer(&reply, target, 7, 10));
        assert!(!is_answer(&reply[..7], target, 7, 9));
    }
}
