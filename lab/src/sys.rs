//! The crate's only unsafe code: system calls that neither `std` nor `nix`
//! offers in a safe form.
//!
//! Every function here has a safe face: it takes and returns owned values and
//! slices, and reports failures as [`std::io::Error`]. Nothing outside this
//! file says `unsafe`.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes `command` start inside the network namespace behind `namespace`, and
/// die with `SIGKILL` when the thread that forks it ends.
///
/// `namespace` must stay open until the command has been spawned.
pub(crate) fn start_in_namespace(command: &mut Command, namespace: RawFd) {
    let parent = std::process::id();
    let enter = move || {
        // SAFETY: setns(2), prctl(2) and getppid(2) are async-signal-safe and
        // take no pointers here; the caller keeps `namespace` open until spawn
        // returns, and the child holds a copy of the descriptor table.
        unsafe {
            if libc::setns(namespace, libc::CLONE_NEWNET) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before prctl took effect.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes async-signal-safe calls and allocates
    // nothing, as `pre_exec` requires between fork and exec.
    unsafe {
        command.pre_exec(enter);
    }
}

/// Gives the calling thread `SCHED_FIFO` at `priority` (1 to 99), not inherited
/// by the threads and processes it creates.
pub(crate) fn set_fifo(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `parameter` outlives the call; pid 0 is the calling thread.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameter,
        )
    };
    check(result).map(drop)
}

/// The number of segments that the kernel has retransmitted on a TCP socket.
pub(crate) fn tcp_total_retransmits(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: tcp_info is plain data, for which all zeroes is a valid value.
    let mut info: libc::tcp_info = unsafe { zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: `info` and `length` are valid for writes of `length` bytes and
    // the kernel writes at most that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    check(result)?;
    Ok(info.tcpi_total_retrans)
}

/// Sets an integer socket option.
pub(crate) fn set_socket_option(
    socket: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: i32,
) -> io::Result<()> {
    // SAFETY: `value` outlives the call and its size is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// Frames that a packet socket lost because its buffer was full, since the
/// last call (the kernel resets the counter on reading).
pub(crate) fn packet_socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: `statistics` is valid for writes of `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    check(result)?;
    Ok(statistics.tp_drops)
}

/// Bytes of one frame buffer; longer frames are reported as truncated.
pub(crate) const FRAME_CAPACITY: usize = 2048;
/// Frames read by one [`receive_batch`] at most.
pub(crate) const RECEIVE_BATCH: usize = 64;
/// Frames written by one [`send_batch`] at most.
pub(crate) const SEND_BATCH: usize = 32;

/// What the kernel says of one received frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReceivedFrame {
    /// Device that it came in by.
    pub(crate) ifindex: u32,
    /// Bytes in the buffer.
    pub(crate) length: usize,
    /// The frame was longer than the buffer.
    pub(crate) truncated: bool,
    /// Receive time on `CLOCK_REALTIME`, nanoseconds, when the kernel gave one.
    pub(crate) realtime_ns: Option<u64>,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct ControlBuffer([u8; 64]);

/// Reads up to [`RECEIVE_BATCH`] frames into `buffers` without blocking and
/// returns how many; zero when none is waiting.
pub(crate) fn receive_batch(
    socket: BorrowedFd<'_>,
    buffers: &mut [Box<[u8; FRAME_CAPACITY]>],
    received: &mut [ReceivedFrame; RECEIVE_BATCH],
) -> io::Result<usize> {
    let count = buffers.len().min(RECEIVE_BATCH);
    // SAFETY: sockaddr_ll, iovec and mmsghdr are plain data, for which all
    // zeroes is a valid value (null pointers with zero lengths).
    let (mut names, mut vectors, mut messages) = unsafe {
        (
            zeroed::<[libc::sockaddr_ll; RECEIVE_BATCH]>(),
            zeroed::<[libc::iovec; RECEIVE_BATCH]>(),
            zeroed::<[libc::mmsghdr; RECEIVE_BATCH]>(),
        )
    };
    let mut controls = [ControlBuffer([0; 64]); RECEIVE_BATCH];
    for i in 0..count {
        vectors[i].iov_base = buffers[i].as_mut_ptr().cast();
        vectors[i].iov_len = FRAME_CAPACITY;
        let header = &mut messages[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
        header.msg_control = controls[i].0.as_mut_ptr().cast();
        header.msg_controllen = controls[i].0.len();
    }
    // SAFETY: the first `count` headers point to names, vectors, buffers and
    // control buffers of the stated lengths, all alive and unaliased until the
    // call returns; no timeout is passed.
    let result = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let read = match check(result) {
        Ok(read) => read as usize,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
        // A leg that went down reports once; frames of the others still wait.
        Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => return Ok(0),
        Err(error) => return Err(error),
    };
    for i in 0..read {
        let header = &messages[i].msg_hdr;
        received[i] = ReceivedFrame {
            ifindex: names[i].sll_ifindex as u32,
            length: messages[i].msg_len as usize,
            truncated: header.msg_flags & libc::MSG_TRUNC != 0,
            realtime_ns: receive_time(header),
        };
    }
    Ok(read)
}

fn receive_time(header: &libc::msghdr) -> Option<u64> {
    // SAFETY: the kernel filled the control buffer that `header` points to,
    // and it is still alive; the CMSG accessors stay within msg_controllen,
    // and the payload of SCM_TIMESTAMPNS is one timespec, read unaligned.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET
                && (*control).cmsg_type == libc::SCM_TIMESTAMPNS
            {
                let time: libc::timespec =
                    std::ptr::read_unaligned(libc::CMSG_DATA(control).cast());
                return Some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64);
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

/// Sends up to [`SEND_BATCH`] frames, each by the device of the given index,
/// and returns how many the kernel took; an error concerns the first frame.
pub(crate) fn send_batch(socket: BorrowedFd<'_>, frames: &[(u32, &[u8])]) -> io::Result<usize> {
    let count = frames.len().min(SEND_BATCH);
    // SAFETY: as in `receive_batch`, all zeroes is a valid value.
    let (mut names, mut vectors, mut messages) = unsafe {
        (
            zeroed::<[libc::sockaddr_ll; SEND_BATCH]>(),
            zeroed::<[libc::iovec; SEND_BATCH]>(),
            zeroed::<[libc::mmsghdr; SEND_BATCH]>(),
        )
    };
    for (i, (ifindex, frame)) in frames.iter().take(count).enumerate() {
        names[i].sll_family = libc::AF_PACKET as u16;
        names[i].sll_ifindex = *ifindex as i32;
        names[i].sll_halen = 6;
        vectors[i].iov_base = frame.as_ptr().cast_mut().cast();
        vectors[i].iov_len = frame.len();
        let header = &mut messages[i].msg_hdr;
        header.msg_name = (&raw mut names[i]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        header.msg_iov = &raw mut vectors[i];
        header.msg_iovlen = 1;
    }
    // SAFETY: the first `count` headers point to names and frames alive until
    // the call returns; sendmmsg only reads through the vectors, so casting the
    // shared slices to mutable pointers is never used for a write.
    let result = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            messages.as_mut_ptr(),
            count as u32,
            libc::MSG_DONTWAIT,
        )
    };
    check(result).map(|sent| sent as usize)
}

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// `SIOCETHTOOL` (linux/sockios.h), absent from the libc crate on some targets.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// One `SIOCETHTOOL` request on `device`; `words` is the command's structure
/// as 32-bit words, the command number first.
fn ethtool(socket: &OwnedFd, device: &str, words: &mut [u32]) -> io::Result<i32> {
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: `request` names a NUL-terminated device and points to `words`,
    // which the callers below size as the command's structure demands, so the
    // kernel reads and writes within it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    check(result)
}

/// Turns off every offload of `device` (in the calling thread's namespace)
/// that lets a frame longer than its MTU, or one without a full checksum, pass:
/// segmentation, receive coalescing, scatter-gather and transmit checksums.
pub(crate) fn disable_offloads(device: &str) -> io::Result<()> {
    let socket: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0")?.into();
    // struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data[1].
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    ethtool(&socket, device, &mut info)?;
    let count = info[4] as usize;
    // struct ethtool_gstrings: cmd, string_set, len, data[len * 32].
    let mut strings = vec![0_u32; 3 + count * ETH_GSTRING_LEN / 4];
    strings[0] = ETHTOOL_GSTRINGS;
    strings[1] = ETH_SS_FEATURES;
    strings[2] = count as u32;
    ethtool(&socket, device, &mut strings)?;
    let names: Vec<u8> = strings[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    // struct ethtool_sfeatures: cmd, size, then (valid, requested) per block.
    let blocks = count.div_ceil(32);
    let mut features = vec![0_u32; 2 + 2 * blocks];
    features[0] = ETHTOOL_SFEATURES;
    features[1] = blocks as u32;
    for (bit, name) in names.chunks_exact(ETH_GSTRING_LEN).enumerate() {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..end]);
        let off = name == "rx-gro"
            || name == "rx-gro-list"
            || name.starts_with("tx-scatter-gather")
            || name.starts_with("tx-checksum-")
            || name.starts_with("tx-generic-segmentation")
            || (name.starts_with("tx-") && name.ends_with("-segmentation"))
            || name == "tx-gso-list"
            || name == "tx-gso-robust"
            || name == "tx-gso-partial";
        if off {
            features[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
        }
    }
    // A positive answer only says that some bits could not be changed, which is
    // so for features that the device never has.
    ethtool(&socket, device, &mut features).map(drop)
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A descriptor that becomes readable when the process ends (`pidfd_open`,
/// Linux 5.3).
pub(crate) fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and returns a descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = check(fd as i32)?;
    // SAFETY: the kernel has just made this descriptor for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
