//! What a verdict changes in a packet, with checksums kept right.

use sunwire_dataplane_common::{
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
/// # Errors
/// [`DropReason::NotRewritable`] when the packet has no such field.
#[inline(always)]
pub(crate) fn apply(skb: &mut Skb, parsed: &Parsed, copied: &Copied) -> Result<(), DropReason> {
    let set = copied.set;
    if set == 0 {
        return Ok(());
    }
    if set & set::ETH_SRC != 0 {
        skb.write(6, &copied.eth_src.to_bytes())?;
    }
    if set & set::ETH_DST != 0 {
        skb.write(0, &copied.eth_dst.to_bytes())?;
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

#[inline(always)]
fn dscp(skb: &mut Skb, family: Family, dscp: u8) -> Result<(), DropReason> {
    let old = *skb
        .window::<2>(ETHERNET_BYTES)
        .ok_or(DropReason::Malformed)?;
    match family {
        Family::V4 => {
            let new = [old[0], dscp << 2 | old[1] & 3];
            skb.write(ETHERNET_BYTES, &new)?;
            correct_ipv4_checksum(skb, u16::from_be_bytes(old), u16::from_be_bytes(new))
        }
        Family::V6 => {
            // Version 4 bits, DSCP 6, ECN 2, flow label 20 (RFC 8200, RFC 2474).
            let new = [old[0] & 0xf0 | dscp >> 2, dscp << 6 | old[1] & 0x3f];
            skb.write(ETHERNET_BYTES, &new)
        }
        Family::None => Err(DropReason::NotRewritable),
    }
}

/// Corrects the IPv4 header checksum for one 16-bit word that changed (RFC 1624, equation 3).
#[inline(always)]
fn correct_ipv4_checksum(skb: &mut Skb, old: u16, new: u16) -> Result<(), DropReason> {
    let checksum = skb.window_mut::<2>(IPV4_CHECKSUM)?;
    let sum = u32::from(!u16::from_be_bytes(*checksum)) + u32::from(!old) + u32::from(new);
    *checksum = fold_checksum(sum).to_be_bytes();
    Ok(())
}

/// Where the checksum of the transport header is, and how it is corrected.
#[inline(always)]
fn transport_checksum(parsed: &Parsed) -> Option<(usize, u64)> {
    match parsed.headers.protocol {
        PROTOCOL_TCP => Some((parsed.transport + TCP_CHECKSUM, 0)),
        PROTOCOL_UDP => Some((parsed.transport + UDP_CHECKSUM, BPF_F_MARK_MANGLED_0)),
        _ => None,
    }
}

#[inline(always)]
fn port(skb: &mut Skb, parsed: &Parsed, offset: usize, port: u16) -> Result<(), DropReason> {
    if parsed.headers.family == Family::None {
        return Err(DropReason::NotRewritable);
    }
    let (checksum, flags) = transport_checksum(parsed).ok_or(DropReason::NotRewritable)?;
    let offset = parsed.transport + offset;
    let old = skb.window::<2>(offset).ok_or(DropReason::Malformed)?;
    let old = u16::from_ne_bytes(*old);
    let new = port.to_be();
    skb.correct_transport_checksum(checksum, u32::from(old), u32::from(new), flags | 2)?;
    skb.write(offset, &new.to_ne_bytes())
}

#[inline(always)]
fn address(skb: &mut Skb, parsed: &Parsed, offset: usize, new: u32) -> Result<(), DropReason> {
    if parsed.headers.family != Family::V4 {
        return Err(DropReason::NotRewritable);
    }
    let old = *skb.window::<4>(offset).ok_or(DropReason::Malformed)?;
    if let Some((checksum, flags)) = transport_checksum(parsed) {
        skb.correct_transport_checksum(
            checksum,
            u32::from_ne_bytes(old),
            new,
            flags | BPF_F_PSEUDO_HDR | 4,
        )?;
    }
    let new = new.to_ne_bytes();
    skb.write(offset, &new)?;
    let half = |bytes: [u8; 4], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    correct_ipv4_checksum(skb, half(old, 0), half(new, 0))?;
    correct_ipv4_checksum(skb, half(old, 2), half(new, 2))
}
