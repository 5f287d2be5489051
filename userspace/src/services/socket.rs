//! Frames to workloads: what goes out of a host-side device comes in at the workload.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket,
    },
};

/// A packet socket that only sends.
#[derive(Debug)]
pub struct AnswerSocket {
    socket: OwnedFd,
    /// Addresses of devices by ifindex, as the kernel wrote them.
    devices: BTreeMap<u32, LinkAddr>,
}

impl AnswerSocket {
    /// Opens one in the network namespace of this thread.
    ///
    /// # Errors
    /// When the kernel refuses: it takes CAP_NET_RAW.
    pub fn open() -> io::Result<Self> {
        // Bound to no protocol, so that nothing is ever queued for it to read.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol: Option<SockProtocol> = None;
        Ok(AnswerSocket {
            socket: socket(AddressFamily::Packet, SockType::Raw, flags, protocol)?,
            devices: BTreeMap::new(),
        })
    }

    /// Sends a frame out of a device.
    ///
    /// # Errors
    /// When the device is gone or down, or its queue is full.
    pub fn send(&mut self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let gone = || io::Error::from(nix::errno::Errno::ENODEV);
        if !self.devices.contains_key(&ifindex) {
            // The library makes such addresses of the kernel's own only.
            let addresses = getifaddrs()?.filter_map(|device| device.address);
            self.devices = addresses
                .filter_map(|address| address.as_link_addr().copied())
                .map(|address| (address.ifindex() as u32, address))
                .collect();
        }
        let address = self.devices.get(&ifindex).ok_or_else(gone)?;
        let sent = sendto(self.socket.as_raw_fd(), frame, address, MsgFlags::empty());
        match sent {
            Ok(_) => Ok(()),
            Err(error) => {
                self.devices.remove(&ifindex);
                Err(error.into())
            }
        }
    }
}
