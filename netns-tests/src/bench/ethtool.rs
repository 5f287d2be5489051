//! Offloads of a device by `SIOCETHTOOL`: the benchmarks' only unsafe code, with a safe face.

use std::io;
use std::mem::zeroed;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;
/// `SIOCETHTOOL` of linux/sockios.h.
const SIOCETHTOOL: libc::c_ulong = 0x8946;

/// Makes `device` (in the calling thread's namespace) pass frames as a network card without
/// offloads does: none longer than its MTU and none without its checksums leaves it, and what
/// arrives is merged by GRO. Reads back that it is so.
pub(super) fn like_a_plain_card(device: &str) -> io::Result<()> {
    let socket: OwnedFd = UdpSocket::bind("127.0.0.1:0")?.into();
    let names = feature_names(&socket, device)?;
    let blocks = names.len().div_ceil(32);
    // struct ethtool_sfeatures: cmd, size, then (valid, requested) per block.
    let mut request = vec![0_u32; 2 + 2 * blocks];
    request[0] = ETHTOOL_SFEATURES;
    request[1] = blocks as u32;
    for (bit, name) in names.iter().enumerate() {
        if let Some(wanted) = wanted(name) {
            request[2 + 2 * (bit / 32)] |= 1 << (bit % 32);
            request[3 + 2 * (bit / 32)] |= u32::from(wanted) << (bit % 32);
        }
    }
    // The answer says whether bits were left as they were, which is so for features that the
    // device never has; what counts is read back.
    call(&socket, device, &mut request)?;
    // struct ethtool_gfeatures: cmd, size, then (available, requested, active, never_changed).
    let mut state = vec![0_u32; 2 + 4 * blocks];
    state[0] = ETHTOOL_GFEATURES;
    state[1] = blocks as u32;
    call(&socket, device, &mut state)?;
    for (bit, name) in names.iter().enumerate() {
        let active = state[2 + 4 * (bit / 32) + 2] >> (bit % 32) & 1 == 1;
        if wanted(name).is_some_and(|wanted| wanted != active) {
            let state = if active { "on" } else { "off" };
            return Err(io::Error::other(format!("{name} stays {state}")));
        }
    }
    Ok(())
}

/// Whether a feature must be on or off; `None` when it does not matter.
fn wanted(feature: &str) -> Option<bool> {
    match feature {
        "rx-gro" => Some(true),
        "tx-gso-list" | "tx-gso-robust" | "tx-gso-partial" | "tx-generic-segmentation" => {
            Some(false)
        }
        _ if feature.starts_with("tx-checksum-") => Some(false),
        _ if feature.starts_with("tx-") && feature.ends_with("-segmentation") => Some(false),
        _ => None,
    }
}

/// The kernel's names of features; the place of each is its bit.
fn feature_names(socket: &OwnedFd, device: &str) -> io::Result<Vec<String>> {
    // struct ethtool_sset_info: cmd, reserved, sset_mask (u64), data[1].
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_FEATURES, 0, 0];
    call(socket, device, &mut info)?;
    let count = info[4] as usize;
    // struct ethtool_gstrings: cmd, string_set, len, data[len * 32].
    let mut strings = vec![0_u32; 3 + count * ETH_GSTRING_LEN / 4];
    strings[0] = ETHTOOL_GSTRINGS;
    strings[1] = ETH_SS_FEATURES;
    strings[2] = count as u32;
    call(socket, device, &mut strings)?;
    let bytes: Vec<u8> = strings[3..].iter().flat_map(|w| w.to_ne_bytes()).collect();
    let names = bytes.chunks_exact(ETH_GSTRING_LEN).map(|name| {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        String::from_utf8_lossy(&name[..end]).into_owned()
    });
    Ok(names.collect())
}

/// One request; `words` is the command's structure as 32-bit words, the command number first.
fn call(socket: &OwnedFd, device: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: ifreq is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: `request` names a NUL-terminated device and points to `words`, which the callers
    // above size as the command's structure demands, so the kernel reads and writes within it;
    // both outlive the call, and the socket is open.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_leave_work_to_the_card_is_off_and_merging_on_receipt_is_on() {
        for feature in [
            "tx-checksum-ip-generic",
            "tx-checksum-ipv4",
            "tx-tcp-segmentation",
            "tx-udp_tnl-segmentation",
            "tx-udp_tnl-csum-segmentation",
            "tx-udp-segmentation",
            "tx-generic-segmentation",
            "tx-gso-partial",
        ] {
            assert_eq!(wanted(feature), Some(false), "{feature}");
        }
        assert_eq!(wanted("rx-gro"), Some(true));
        assert_eq!(wanted("rx-vlan-filter"), None);
    }
}
