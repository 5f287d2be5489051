//! What a verdict changes in a packet, with checksums kept right.

use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    headers::{ETHERNET_BYTES, Family, PROTOCOL_TCP, PROTOCOL_UDP, Parsed},
    tables::{Copied, set},
    vxlan::fold_checksum,
};

use crate::frame::Skb;

const IPV4_CHECKSUM: usize = ETHERNET_BYTES + 10;
const IPV4_SRC: usize = ETHERNET_BYTES + 12;
const IPV4_DST: usize = ETHERNET_BYTES + 16;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;

/// `bpf_l4_csum_replace`: the field is part of the pseudo header.
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
/// `bpf_l4_csum_replace`: a zero checksum means none and stays none (UDP over IPv4).
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;

/// Rewrites the packet as one copy of the verdict asks.
///
/// A field that the packet does not have reads as zero, so writing zero to it changes nothing.
///
/// # Errors
/// [`DropReason::NotRewritable`] when the packet has no such field and the value is not zero.
#[inline(always)]
pub(crate) fn apply(skb: &mut Skb, parsed: &Parsed, copied: &Copied) -> Result<(), DropReason> {
    let set = copied.set;
    if set == 0 {
        return Ok(());
    }
    if set & set::ETH_SRC != 0 {
        skb.window_mut::<6>(6)?.set_mac::<0>(copied.eth_src);
    }
    if set & set::ETH_DST != 0 {
        skb.window_mut::<6>(0)?.set_mac::<0>(copied.eth_dst);
    }
    if set & set::DSCP != 0 {
        dscp(skb, parsed.headers.family, copied.dscp)?;
    }
    if set & set::SRC_PORT != 0 {
        port(skb, parsed, 0, copied.src_port)?;
    }
    if set & set::DST_PORT != 0 {
        port(skb, parsed, 2, copied.dst_port)?;
    }
    if set & set::IP4_SRC != 0 {
        address(skb, parsed, IPV4_SRC, copied.ip4_src)?;
    }
    if set & set::IP4_DST != 0 {
        address(skb, parsed, IPV4_DST, copied.ip4_dst)?;
    }
    Ok(())
}

/// Writing to a field that is not there.
#[inline(always)]
fn absent(value: u32) -> Result<(), DropReason> {
    if value == 0 {
        Ok(())
    } else {
        Err(DropReason::NotRewritable)
    }
}

#[inline(always)]
fn dscp(skb: &mut Skb, family: Family, dscp: u8) -> Result<(), DropReason> {
    let old = skb
        .window::<2>(ETHERNET_BYTES)
        .ok_or(DropReason::Malformed)?;
    let old = u16::from_be(old.half::<0>());
    let dscp = u16::from(dscp);
    let new = match family {
        // Version and header length 8 bits, DSCP 6, ECN 2 (RFC 791, RFC 2474, RFC 3168).
        Family::V4 => old & !(0x3f << 2) | dscp << 2,
        // Version 4 bits, DSCP 6, ECN 2, flow label 20 (RFC 8200).
        Family::V6 => old & !(0x3f << 6) | dscp << 6,
        Family::None => return absent(u32::from(dscp)),
    };
    skb.window_mut::<2>(ETHERNET_BYTES)?
        .set_half::<0>(new.to_be());
    match family {
        Family::V4 => correct_ipv4_checksum(skb, old, new),
        _ => Ok(()),
    }
}

/// Corrects the IPv4 header checksum for one 16-bit word that changed (RFC 1624, equation 3).
#[inline(always)]
fn correct_ipv4_checksum(skb: &mut Skb, old: u16, new: u16) -> Result<(), DropReason> {
    let checksum = skb
        .window::<2>(IPV4_CHECKSUM)
        .ok_or(DropReason::Malformed)?;
    let checksum = u16::from_be(checksum.half::<0>());
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    skb.window_mut::<2>(IPV4_CHECKSUM)?
        .set_half::<0>(fold_checksum(sum).to_be());
    Ok(())
}

/// Where the checksum of the transport header is, and how it is corrected.
#[inline(always)]
fn transport_checksum(parsed: &Parsed) -> Option<(usize, u64)> {
    match parsed.headers.protocol {
        PROTOCOL_TCP => Some((parsed.transport as usize + TCP_CHECKSUM, 0)),
        PROTOCOL_UDP => Some((
            parsed.transport as usize + UDP_CHECKSUM,
            BPF_F_MARK_MANGLED_0,
        )),
        _ => None,
    }
}

#[inline(always)]
fn port(skb: &mut Skb, parsed: &Parsed, offset: usize, port: u16) -> Result<(), DropReason> {
    let Some((checksum, flags)) = transport_checksum(parsed) else {
        return absent(u32::from(port));
    };
    let offset = parsed.transport as usize + offset;
    let old = skb
        .window::<2>(offset)
        .ok_or(DropReason::Malformed)?
        .half::<0>();
    let new = port.to_be();
    skb.correct_transport_checksum(checksum, u32::from(old), u32::from(new), flags | 2)?;
    skb.window_mut::<2>(offset)?.set_half::<0>(new);
    Ok(())
}

#[inline(always)]
fn address(skb: &mut Skb, parsed: &Parsed, offset: usize, new: u32) -> Result<(), DropReason> {
    if parsed.headers.family != Family::V4 {
        return absent(new);
    }
    let old = skb
        .window::<4>(offset)
        .ok_or(DropReason::Malformed)?
        .word::<0>();
    if let Some((checksum, flags)) = transport_checksum(parsed) {
        skb.correct_transport_checksum(checksum, old, new, flags | BPF_F_PSEUDO_HDR | 4)?;
    }
    skb.window_mut::<4>(offset)?.set_word::<0>(new);
    let (old, new) = (u32::from_be(old), u32::from_be(new));
    correct_ipv4_checksum(skb, (old >> 16) as u16, (new >> 16) as u16)?;
    correct_ipv4_checksum(skb, old as u16, new as u16)
}
