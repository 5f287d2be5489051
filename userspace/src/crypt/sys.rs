//! System calls that no library of ours wraps: making a TAP device, and how its packets are sent.
//! The only file of this module with unsafe code.

use std::{
    fs::{File, OpenOptions},
    io,
    net::UdpSocket,
    os::fd::AsRawFd as _,
};

use nix::{errno::Errno, ioctl_readwrite_bad, ioctl_write_int_bad, ioctl_write_ptr_bad};

use super::packet::VNET_BYTES;

// Linux include/uapi/linux/if_tun.h
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_MULTI_QUEUE: libc::c_short = 0x0100;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;
/// Whole super-packets with unfinished checksums: TCP over both families, with congestion marks.
const OFFLOADS: libc::c_int = 0x01 | 0x02 | 0x04 | 0x08;
/// The same, and UDP over both families. Linux before 6.2 refuses all when it is asked for these.
const OFFLOADS_WITH_UDP: libc::c_int = OFFLOADS | 0x20 | 0x40;

const SIOCSIFHWADDR: libc::c_ulong = 0x8924;

/// The device's own address: frames to it are the host's.
pub(super) const TAP_MAC: [u8; 6] = [0x02, 0x53, 0x57, 0x00, 0x00, 0x02];
/// The address of everybody behind the device.
pub(super) const PEER_MAC: [u8; 6] = [0x02, 0x53, 0x57, 0x00, 0x00, 0x03];

#[repr(C)]
struct DeviceRequest {
    name: [u8; libc::IFNAMSIZ],
    /// Flags, or the family of `address`.
    value: libc::c_short,
    address: [u8; 6],
    padding: [u8; 16],
}

// `struct ifreq` of Linux has 40 bytes on 64-bit machines.
const _: () = assert!(size_of::<DeviceRequest>() == 40);

ioctl_readwrite_bad!(tun_set_iff, TUNSETIFF, DeviceRequest);
ioctl_readwrite_bad!(set_address, SIOCSIFHWADDR, DeviceRequest);
ioctl_write_int_bad!(tun_set_offload, TUNSETOFFLOAD);
ioctl_write_ptr_bad!(tun_set_vnet_header_size, TUNSETVNETHDRSZ, libc::c_int);

/// Makes a queue of a TAP device, and the device with the first one. It is gone with the last.
///
/// # Errors
/// When the kernel refuses; a name of more than 15 bytes among the rest.
pub(super) fn open_tap(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let mut request = DeviceRequest {
        name: [0; libc::IFNAMSIZ],
        value: IFF_TAP | IFF_MULTI_QUEUE | IFF_NO_PI | IFF_VNET_HDR,
        address: [0; 6],
        padding: [0; 16],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let descriptor = file.as_raw_fd();
    // SAFETY: `request` has the size and layout of `struct ifreq` (asserted above), outlives the
    // call, is borrowed exclusively because the kernel writes it, and its name is zero-terminated
    // because it is shorter than the field.
    unsafe { tun_set_iff(descriptor, &mut request) }?;
    request.value = libc::ARPHRD_ETHER as libc::c_short;
    request.address = TAP_MAC;
    // SAFETY: as above; here the kernel reads a `struct sockaddr` after the name, family first.
    unsafe { set_address(descriptor, &mut request) }?;
    let size = VNET_BYTES as libc::c_int;
    // SAFETY: the argument points to an int that outlives the call.
    unsafe { tun_set_vnet_header_size(descriptor, &size) }?;
    // SAFETY: the argument is a number, not a pointer.
    take_whole(|offloads| unsafe { tun_set_offload(descriptor, offloads) })?;
    Ok(file)
}

/// Asks for super-packets of all the kinds that the kernel knows; it splits the others before it hands them
/// over.
fn take_whole(set: impl Fn(libc::c_int) -> nix::Result<libc::c_int>) -> nix::Result<()> {
    match set(OFFLOADS_WITH_UDP) {
        Err(Errno::EINVAL) => set(OFFLOADS)?,
        outcome => outcome?,
    };
    Ok(())
}

/// Lets the socket's datagrams be fragmented where the way is too narrow for them, as the kernel's
/// own WireGuard does.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn allow_fragments(socket: &UdpSocket, is_ipv6: bool) -> io::Result<()> {
    set_discovery(
        socket,
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        ),
    )?;
    if is_ipv6 {
        set_discovery(
            socket,
            (
                libc::IPPROTO_IPV6,
                libc::IPV6_MTU_DISCOVER,
                libc::IPV6_PMTUDISC_DONT,
            ),
        )?;
    }
    Ok(())
}

fn set_discovery(
    socket: &UdpSocket,
    (level, option, value): (libc::c_int, libc::c_int, libc::c_int),
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which outlives the call, and the
    // descriptor is the socket's as long as it is borrowed.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    Errno::result(status)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use nix::errno::Errno;

    use super::{OFFLOADS, OFFLOADS_WITH_UDP, take_whole};

    /// What a kernel that knows these offloads is asked for, and how that ends.
    fn asked(known: libc::c_int) -> (Vec<libc::c_int>, nix::Result<()>) {
        let asked = RefCell::new(Vec::new());
        let outcome = take_whole(|offloads| {
            asked.borrow_mut().push(offloads);
            match offloads & !known {
                0 => Ok(0),
                _ => Err(Errno::EINVAL),
            }
        });
        (asked.into_inner(), outcome)
    }

    #[test]
    fn a_kernel_that_does_not_know_super_packets_of_udp_is_asked_for_the_others() {
        assert_eq!(asked(OFFLOADS_WITH_UDP), (vec![OFFLOADS_WITH_UDP], Ok(())));
        let both = vec![OFFLOADS_WITH_UDP, OFFLOADS];
        assert_eq!(asked(OFFLOADS), (both.clone(), Ok(())));
        assert_eq!(asked(0), (both, Err(Errno::EINVAL)));
    }

    #[test]
    fn another_refusal_is_told() {
        let outcome = take_whole(|_| Err(Errno::EBADF));
        assert_eq!(outcome, Err(Errno::EBADF));
    }
}
