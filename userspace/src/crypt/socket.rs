//! The UDP socket of encrypted datagrams: many of one size with one system call, both ways.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol,
        SockType, SockaddrStorage, bind, recvmsg, sendmsg, setsockopt, socket, sockopt,
    },
};

use super::sys;

/// Datagrams that the kernel takes in one call (Linux `UDP_MAX_SEGMENTS`, 64 at first).
const SEGMENTS_MAX: usize = 64;
/// Payload of a UDP datagram over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Kernel buffers: what arrives while the thread is at other work.
const BUFFER_BYTES: usize = 8 << 20;

/// A socket.
pub(super) struct Socket {
    socket: UdpSocket,
    /// It is one of IPv6, and sends to IPv4 addresses as the mapped ones that they are there.
    is_mapping: bool,
    /// The kernel splits what it is given; given up when it cannot.
    splits: AtomicBool,
    /// By destination, what sending there last failed with.
    errors: Mutex<BTreeMap<SocketAddr, String>>,
    has_errors: AtomicBool,
}

/// Messages to be sent.
#[derive(Default)]
pub(super) struct Outbox {
    /// One after the other.
    pub(super) bytes: Vec<u8>,
    /// Destinations and lengths.
    messages: Vec<(SocketAddr, usize)>,
}

impl Outbox {
    /// The last `length` bytes are a message.
    pub(super) fn add(&mut self, to: SocketAddr, length: usize) {
        self.messages.push((to, length));
    }
}

impl Socket {
    /// A socket on a port of all addresses, that others of this program may share.
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let open = |family| {
            socket(
                family,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::Udp,
            )
        };
        // One for both families; a kernel may have been told to do without IPv6.
        let (descriptor, is_mapping) = match open(AddressFamily::Inet6) {
            Ok(descriptor) => {
                setsockopt(&descriptor, sockopt::Ipv6V6Only, &false)?;
                (descriptor, true)
            }
            Err(Errno::EAFNOSUPPORT) => (open(AddressFamily::Inet)?, false),
            Err(error) => return Err(error.into()),
        };
        setsockopt(&descriptor, sockopt::ReusePort, &true)?;
        for failed in [
            setsockopt(&descriptor, sockopt::RcvBufForce, &BUFFER_BYTES),
            setsockopt(&descriptor, sockopt::SndBufForce, &BUFFER_BYTES),
        ] {
            if let Err(error) = failed {
                tracing::warn!(%error, "the socket's buffers stay small");
            }
        }
        let any = match is_mapping {
            true => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
            false => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        };
        bind(descriptor.as_raw_fd(), &SockaddrStorage::from(any))?;
        // Linux 5.0; without it datagrams come one by one.
        if let Err(error) = setsockopt(&descriptor, sockopt::UdpGroSegment, &true) {
            tracing::info!(%error, "the kernel does not merge received datagrams");
        }
        let socket = UdpSocket::from(descriptor);
        sys::allow_fragments(&socket, is_mapping)?;
        Ok(Socket {
            socket,
            is_mapping,
            splits: AtomicBool::new(true),
            errors: Mutex::default(),
            has_errors: AtomicBool::new(false),
        })
    }

    /// The descriptor, to wait on.
    pub(super) fn as_udp(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends everything in the box, and empties it.
    pub(super) fn send_all(&self, outbox: &mut Outbox) {
        let mut start = 0;
        let mut rest = outbox.messages.as_slice();
        while let Some((to, first)) = rest.first() {
            let count = run(rest);
            let (these, others) = rest.split_at(count);
            let bytes: usize = these.iter().map(|(_, length)| length).sum();
            self.send_run(*to, &outbox.bytes[start..start + bytes], *first);
            start += bytes;
            rest = others;
        }
        outbox.bytes.clear();
        outbox.messages.clear();
    }

    /// Sends one message.
    pub(super) fn send(&self, to: SocketAddr, message: &[u8]) {
        self.send_run(to, message, message.len());
    }

    /// Sends messages of `segment` bytes each, the last one perhaps shorter.
    fn send_run(&self, to: SocketAddr, bytes: &[u8], segment: usize) {
        if bytes.len() > segment && self.splits.load(Ordering::Relaxed) {
            let size = segment as u16;
            match self.send_once(to, bytes, &[ControlMessage::UdpGsoSegments(&size)]) {
                Ok(()) => return self.went_well(to),
                // The device cannot, the datagrams do not fit its MTU, or the kernel is older than
                // 4.18. In the first case it stays so.
                Err(Errno::EIO) => self.splits.store(false, Ordering::Relaxed),
                Err(Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP) => {}
                Err(error) => return self.went_wrong(to, error),
            }
        }
        for message in bytes.chunks(segment.max(1)) {
            if let Err(error) = self.send_once(to, message, &[]) {
                return self.went_wrong(to, error);
            }
        }
        self.went_well(to);
    }

    fn send_once(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        control: &[ControlMessage<'_>],
    ) -> Result<(), Errno> {
        let address = match to {
            SocketAddr::V4(v4) if self.is_mapping => {
                let mapped = v4.ip().to_ipv6_mapped();
                SockaddrStorage::from(SocketAddrV6::new(mapped, v4.port(), 0, 0))
            }
            to => SockaddrStorage::from(to),
        };
        loop {
            let parts = [IoSlice::new(bytes)];
            let flags = MsgFlags::empty();
            match sendmsg(
                self.socket.as_raw_fd(),
                &parts,
                control,
                flags,
                Some(&address),
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn went_well(&self, to: SocketAddr) {
        if self.has_errors.load(Ordering::Relaxed) {
            let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
            errors.remove(&to);
            self.has_errors.store(!errors.is_empty(), Ordering::Relaxed);
        }
    }

    fn went_wrong(&self, to: SocketAddr, error: Errno) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.insert(to, error.desc().to_owned());
        self.has_errors.store(true, Ordering::Relaxed);
    }

    /// What sending to a destination last failed with.
    pub(super) fn error(&self, to: SocketAddr) -> Option<String> {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.get(&to).cloned()
    }

    /// Reads what has arrived into `buffer` without waiting: from where, how many bytes, and how
    /// many bytes each datagram in it has (the last one perhaps fewer). `None`: nothing.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
    ) -> Result<Option<(SocketAddr, usize, usize)>, Errno> {
        let mut control = cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let message = match received {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut segment = message.bytes;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::UdpGroSegments(size) = control {
                segment = usize::try_from(size).unwrap_or(segment);
            }
        }
        let from = message.address.as_ref().and_then(sender);
        Ok(from.map(|from| (from, message.bytes, segment.max(1))))
    }
}

/// Who sent a datagram; one of IPv4 by its own address, whatever the socket is.
fn sender(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = address.as_sockaddr_in6()?;
    Some(SocketAddr::new(v6.ip().to_canonical(), v6.port()))
}

/// How many of the first messages go out in one call: to one destination, all of one size but the
/// last, which may be shorter.
fn run(messages: &[(SocketAddr, usize)]) -> usize {
    let Some((to, size)) = messages.first() else {
        return 0;
    };
    let mut bytes = 0;
    let mut count = 0;
    for (other, length) in messages.iter().take(SEGMENTS_MAX) {
        if other != to || length > size || bytes + length > DATAGRAM_BYTES_MAX {
            break;
        }
        bytes += length;
        count += 1;
        if length < size {
            break;
        }
    }
    count.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_size_and_one_destination() {
        let a = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1);
        let b = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 2);
        assert_eq!(run(&[]), 0);
        assert_eq!(run(&[(a, 10), (a, 10), (a, 4), (a, 10)]), 3);
        assert_eq!(run(&[(a, 10), (a, 11)]), 1);
        assert_eq!(run(&[(a, 10), (b, 10)]), 1);
        assert_eq!(run(&vec![(a, 10); 100]), SEGMENTS_MAX);
        assert_eq!(run(&vec![(a, 1300); 100]), 50);
        assert_eq!(run(&[(a, 70_000)]), 1);
    }

    #[test]
    fn datagrams_of_many_sizes_arrive_as_they_were_sent() {
        let sender = Socket::open(0).unwrap();
        let receiver = Socket::open(0).unwrap();
        let port = receiver.as_udp().local_addr().unwrap().port();
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let sizes = [900, 900, 900, 300, 1200, 5, 700, 700];
        let mut outbox = Outbox::default();
        for (number, size) in sizes.iter().enumerate() {
            outbox.bytes.extend(vec![number as u8; *size]);
            outbox.add(to, *size);
        }
        sender.send_all(&mut outbox);
        assert!(outbox.bytes.is_empty());
        let mut arrived = Vec::new();
        let mut buffer = vec![0; 65_536];
        while arrived.len() < sizes.len() {
            // Over the loopback device what was sent is there.
            let (_, length, segment) = receiver.receive(&mut buffer).unwrap().expect("a datagram");
            for datagram in buffer[..length].chunks(segment) {
                assert!(
                    datagram
                        .iter()
                        .all(|byte| usize::from(*byte) == arrived.len())
                );
                arrived.push(datagram.len());
            }
        }
        assert_eq!(arrived, sizes);
        assert_eq!(sender.error(to), None);
    }

    #[test]
    fn a_destination_that_cannot_be_sent_to_is_told() {
        let sender = Socket::open(0).unwrap();
        let to = SocketAddr::new(Ipv4Addr::BROADCAST.into(), 9);
        sender.send(to, b"x");
        assert!(sender.error(to).is_some());
    }
}
