//! The outer UDP checksum, for networks that want one.
//!
//! ```text
//! whatever wraps a packet -> device with no offloads at all   (mark: the device that it goes out of)
//!     kernel: super-packets become packets, inner checksums are finished
//! checksum_ingress, on the other end of that device
//!     sum over what is there -> outer checksum -> redirect
//! ```
//!
//! A program can neither say that a super-packet is to get outer checksums as it is split, nor know whether
//! an inner checksum is still to be finished by a device. Behind a device that does nothing of its own both
//! have happened, so that all there is left is to sum up bytes. Other networks do not come this way.

use aya_ebpf::bindings::TC_ACT_SHOT;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    headers::{ETHER_IPV4, ETHER_IPV6, PROTOCOL_UDP},
    vxlan::{IPV4_OFFSET, IPV6_OFFSET, UDP_OFFSET, UDP_OFFSET_V6, fold_checksum},
};

use crate::frame::Skb;

/// Where addresses begin in an IP header, and how many bytes both take.
const ADDRESSES_V4: (usize, u32) = (IPV4_OFFSET + 12, 8);
const ADDRESSES_V6: (usize, u32) = (IPV6_OFFSET + 8, 32);

/// A packet behind the device: writes its checksum and sends it on.
///
/// # Errors
/// Why it does not.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb) -> Result<i32, DropReason> {
    let device = skb.mark();
    if device == 0 {
        // What the kernel says by itself of a device that is up.
        return Ok(TC_ACT_SHOT);
    }
    skb.set_mark(0);
    if skb.gso_size() != 0 {
        // Somebody turned the device's offloads on.
        return Err(DropReason::NoChecksum);
    }
    match skb.protocol() {
        ETHER_IPV4 => complete(skb, UDP_OFFSET, ADDRESSES_V4)?,
        ETHER_IPV6 => complete(skb, UDP_OFFSET_V6, ADDRESSES_V6)?,
        _ => return Err(DropReason::Malformed),
    }
    Ok(skb.redirect(device))
}

/// Writes the checksum of a datagram, which is all that there is from an offset on (RFC 768; RFC 8200, 8.1).
// A function of its own: one after the other, both use the same stack.
#[inline(never)]
fn complete(skb: &mut Skb, udp: usize, addresses: (usize, u32)) -> Result<(), DropReason> {
    skb.ensure_bytes((UDP_OFFSET_V6 + 8) as u32);
    let bytes = skb.len() - udp as u32;
    skb.window_mut::<8>(udp)?.set_half::<6>(0);
    // The lower half of a word is its first two bytes, where the pseudo header has the others zero.
    let rest = u32::from((bytes as u16).to_be()) + u32::from(u16::from(PROTOCOL_UDP).to_be());
    let (at, count) = addresses;
    let sum = skb.add_to_sum(at as u32, count, rest);
    let sum = sum.and_then(|sum| skb.add_to_sum(udp as u32, bytes, sum));
    let checksum = match fold_checksum(sum.ok_or(DropReason::Malformed)?) {
        // Zero would say that there is none.
        0 => u16::MAX,
        checksum => checksum,
    };
    skb.window_mut::<8>(udp)?.set_half::<6>(checksum);
    Ok(())
}
