//! Keeps TCP from agreeing on segments that the network does not carry: the maximum segment size in
//! a SYN is lowered to what fits its MTU (RFC 9293, 3.7.1).

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    headers::{ETHERNET_BYTES, Parsed, TCP_BYTES},
};

use crate::frame::Skb;

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
/// Where the checksum is in a TCP header.
const CHECKSUM: usize = 16;
/// Options that are looked at; there are at most 40 bytes of them.
const OPTIONS: usize = 12;

/// Lowers the maximum segment size of a SYN, if it is above what an MTU leaves for TCP's payload.
///
/// # Errors
/// [`DropReason::Malformed`] when an option is cut off or has a length that cannot be.
#[inline(never)]
pub(crate) fn clamp(skb: &mut Skb, parsed: &Parsed, mtu: u32) -> Result<(), DropReason> {
    let tcp = parsed.transport_offset();
    let largest = mtu.saturating_sub((tcp - ETHERNET_BYTES + TCP_BYTES) as u32) as u16;
    let [offset] = skb.load::<1>(tcp + 12).ok_or(DropReason::Malformed)?;
    let end = tcp + usize::from(offset >> 4) * 4;
    let mut at = tcp + TCP_BYTES;
    for _ in 0..OPTIONS {
        if at >= end {
            break;
        }
        let [kind] = skb.load::<1>(at).ok_or(DropReason::Malformed)?;
        if kind == END {
            break;
        }
        if kind == NO_OPERATION {
            at += 1;
            continue;
        }
        let [length] = skb.load::<1>(at + 1).ok_or(DropReason::Malformed)?;
        if length < 2 {
            return Err(DropReason::Malformed);
        }
        if kind == MAXIMUM_SEGMENT_SIZE {
            return lower(skb, tcp, at, length, largest);
        }
        at += usize::from(length);
    }
    Ok(())
}

#[inline(always)]
fn lower(skb: &mut Skb, tcp: usize, at: usize, length: u8, largest: u16) -> Result<(), DropReason> {
    if length != 4 {
        return Err(DropReason::Malformed);
    }
    let old = skb.load::<2>(at + 2).ok_or(DropReason::Malformed)?;
    if u16::from_be_bytes(old) <= largest {
        return Ok(());
    }
    let new = largest.to_be_bytes();
    // The checksum adds halves at even distances from the header; an option may stand at an odd
    // one, where the same two bytes are the halves of two words.
    let swapped = (at - tcp) & 1 != 0;
    let half = |bytes: [u8; 2]| match swapped {
        true => u16::from_ne_bytes([bytes[1], bytes[0]]),
        false => u16::from_ne_bytes(bytes),
    };
    let (from, to) = (u32::from(half(old)), u32::from(half(new)));
    skb.correct_transport_checksum(tcp + CHECKSUM, from, to, 2)?;
    skb.store(at + 2, &new)
}
