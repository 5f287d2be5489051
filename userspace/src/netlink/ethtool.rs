//! What a device would leave to a card, by `SIOCETHTOOL`: netlink for that came one feature at a time, and
//! these commands are as old as the features. The only file of this module with unsafe code.

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

use nix::ioctl_readwrite_bad;

/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Commands of linux/ethtool.h that say whether a feature is on, and set it: checksums, packets in several
/// pieces, super-packets of TCP, and of any kind.
const FEATURES: [(u32, u32, &str); 4] = [
    (0x16, 0x17, "tx-checksumming"),
    (0x18, 0x19, "scatter-gather"),
    (0x1e, 0x1f, "tcp-segmentation-offload"),
    (0x23, 0x24, "generic-segmentation-offload"),
];

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` with the pointer that this request takes.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    padding: [u8; 16],
}

const _: () = assert!(size_of::<Request>() == size_of::<libc::ifreq>());

ioctl_readwrite_bad!(ethtool, SIOCETHTOOL, Request);

/// Has the kernel finish checksums and split super-packets before a device gets them.
///
/// # Errors
/// When the kernel refuses, or a feature stays on all the same.
pub(super) fn take_offloads_off(device: &str) -> io::Result<()> {
    let socket = UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    for (get, set, name) in FEATURES {
        if value(&socket, device, get, 0)? == 0 {
            continue;
        }
        value(&socket, device, set, 0)?;
        if value(&socket, device, get, 0)? != 0 {
            return Err(io::Error::other(format!("{name} stays on")));
        }
    }
    Ok(())
}

/// One command; returns what the kernel says.
fn value(socket: &UdpSocket, device: &str, command: u32, data: u32) -> io::Result<u32> {
    if device.is_empty() || device.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut value = Value { command, data };
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        value: &raw mut value,
        padding: [0; 16],
    };
    request.name[..device.len()].copy_from_slice(device.as_bytes());
    // SAFETY: `request` has the size and layout of `struct ifreq` (asserted above), its name is
    // zero-terminated because it is shorter than the field, and the kernel reads and writes one
    // `struct ethtool_value` by its pointer for these commands; both outlive the call.
    unsafe { ethtool(socket.as_raw_fd(), &mut request) }?;
    Ok(value.data)
}
