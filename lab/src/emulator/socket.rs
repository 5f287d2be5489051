//! The emulator's packet socket: one for all legs, in the `wan` namespace.
//!
//! Plain `recvmmsg`/`sendmmsg` rather than a ring: frames wait in the emulator
//! for tens of milliseconds, so they have to be copied out of a ring anyway.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::sys;

/// Receive buffer: what arrives while the emulator is kept from running. Its
/// accounting includes the kernel's overhead per frame.
const RECEIVE_BUFFER_BYTES: i32 = 64 << 20;
const SEND_BUFFER_BYTES: i32 = 16 << 20;

/// A packet socket on every device of the namespace.
#[derive(Debug)]
pub(crate) struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens the socket in the calling thread's namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(
            AddressFamily::Packet,
            SockType::Raw,
            flags,
            SockProtocol::EthAll,
        )?;
        let set = |level, name, value| sys::set_socket_option(fd.as_fd(), level, name, value);
        // Frames that this socket sends must not come back to it.
        set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
        // The kernel's receive time makes the delay exact even when the
        // emulator reads a frame late.
        set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)?;
        set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES)?;
        set(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        Ok(Self(fd))
    }

    /// Frames lost since the last call because the buffer was full.
    pub(crate) fn overflow_frames(&self) -> u64 {
        sys::packet_socket_drops(self.0.as_fd()).map_or(0, u64::from)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
