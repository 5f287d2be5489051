//! What a verdict changes in a packet, with checksums kept right.

use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::EndpointEntry,
    flow::FlowEntry,
    headers::{
        ETHERNET_BYTES, Family, Fragment, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, Parsed,
    },
    tables::{Copied, set},
    vxlan::fold_checksum,
};

use crate::frame::Skb;

const IPV4_CHECKSUM: usize = ETHERNET_BYTES + 10;
const IPV4_SRC: usize = ETHERNET_BYTES + 12;
const IPV4_DST: usize = ETHERNET_BYTES + 16;
const IPV6_SRC: usize = ETHERNET_BYTES + 8;
const IPV6_DST: usize = ETHERNET_BYTES + 24;
pub(crate) const TCP_CHECKSUM: usize = 16;
pub(crate) const UDP_CHECKSUM: usize = 6;
/// Of ICMP and of ICMPv6.
pub(crate) const ICMP_CHECKSUM: usize = 2;
/// Of an echo.
pub(crate) const ICMP_IDENTIFIER: usize = 4;

/// `bpf_l4_csum_replace`: the field is part of the pseudo header.
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
/// `bpf_l4_csum_replace`: a zero checksum means none and stays none (UDP over IPv4).
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;

/// Rewrites the packet as one copy of the verdict asks; `parsed` says afterwards what it is now.
///
/// `source_port` is the one that packets of the flow get, or zero when they have the verdict's or keep
/// theirs. A field that the packet does not have reads as zero, so writing zero to it changes nothing.
///
/// # Errors
/// [`DropReason::NotRewritable`] when the packet has no such field and the value is not zero.
// A function of its own: it is called in two places, and most packets are not rewritten.
#[inline(never)]
pub(crate) fn apply(
    skb: &mut Skb,
    parsed: &mut Parsed,
    copied: &Copied,
    source_port: u16,
) -> Result<(), DropReason> {
    let set = copied.set;
    if set & set::ETH_SRC != 0 {
        skb.window_mut::<6>(6)?.set_mac::<0>(copied.eth_src);
    }
    if set & set::ETH_DST != 0 {
        skb.window_mut::<6>(0)?.set_mac::<0>(copied.eth_dst);
        parsed.headers.eth_dst = copied.eth_dst;
    }
    if set & set::DSCP != 0 {
        dscp(skb, parsed.headers.family, copied.dscp)?;
    }
    if set & set::SRC_PORT != 0 || source_port != 0 {
        let new = match source_port {
            0 => copied.src_port,
            chosen => chosen,
        };
        port(skb, parsed, 0, new)?;
        parsed.headers.src_port = new;
    }
    if set & set::DST_PORT != 0 {
        port(skb, parsed, 2, copied.dst_port)?;
        parsed.headers.dst_port = copied.dst_port;
    }
    if set & set::IP4_SRC != 0 {
        address_v4(skb, parsed, IPV4_SRC, copied.ip4_src)?;
        parsed.headers.src = v4_or(parsed, parsed.headers.src, copied.ip4_src);
    }
    if set & set::IP4_DST != 0 {
        address_v4(skb, parsed, IPV4_DST, copied.ip4_dst)?;
        parsed.headers.dst = v4_or(parsed, parsed.headers.dst, copied.ip4_dst);
    }
    if set & set::IP6_SRC != 0 {
        address_v6(skb, parsed, IPV6_SRC, &copied.ip6_src)?;
        parsed.headers.src = v6_or(parsed, parsed.headers.src, copied.ip6_src);
    }
    if set & set::IP6_DST != 0 {
        address_v6(skb, parsed, IPV6_DST, &copied.ip6_dst)?;
        parsed.headers.dst = v6_or(parsed, parsed.headers.dst, copied.ip6_dst);
    }
    Ok(())
}

/// Gives a packet the source that it has outside of the cloud: the address, and the port or, of an echo,
/// the identifier, where it has one.
///
/// # Errors
/// [`DropReason::Malformed`] when the packet ends before what is to be written.
#[inline(never)]
pub(crate) fn outside_source(
    skb: &mut Skb,
    parsed: &mut Parsed,
    address: &Address,
    own: Option<u16>,
) -> Result<(), DropReason> {
    match own {
        Some(own) if has_ports(parsed) => {
            port(skb, parsed, 0, own)?;
            parsed.headers.src_port = own;
        }
        Some(own) => {
            identifier(skb, parsed, own)?;
            parsed.headers.icmp_id = own;
        }
        None => {}
    }
    match parsed.headers.family {
        Family::V4 => address_v4(skb, parsed, IPV4_SRC, address.0[0])?,
        _ => address_v6(skb, parsed, IPV6_SRC, address)?,
    }
    copy_address(&mut parsed.headers.src, address);
    Ok(())
}

/// Gives a packet that comes back the endpoint's address, and its port or identifier where it has one.
///
/// # Errors
/// As [`outside_source`].
#[inline(never)]
pub(crate) fn inside_destination(
    skb: &mut Skb,
    parsed: &mut Parsed,
    address: &Address,
    own: Option<u16>,
) -> Result<(), DropReason> {
    match own {
        Some(own) if has_ports(parsed) => {
            port(skb, parsed, 2, own)?;
            parsed.headers.dst_port = own;
        }
        Some(own) => {
            identifier(skb, parsed, own)?;
            parsed.headers.icmp_id = own;
        }
        None => {}
    }
    match parsed.headers.family {
        Family::V4 => address_v4(skb, parsed, IPV4_DST, address.0[0])?,
        _ => address_v6(skb, parsed, IPV6_DST, address)?,
    }
    copy_address(&mut parsed.headers.dst, address);
    Ok(())
}

/// Word by word: whole, it would be on the stack in between.
#[inline(always)]
fn copy_address(to: &mut Address, from: &Address) {
    for index in 0..4 {
        to.0[index] = from.0[index];
    }
}

/// Writes the identifier of an ICMP echo.
#[inline(always)]
fn identifier(skb: &mut Skb, parsed: &Parsed, id: u16) -> Result<(), DropReason> {
    if parsed.fragment == Fragment::Later {
        return Ok(());
    }
    let transport = parsed.transport_offset();
    let offset = transport + ICMP_IDENTIFIER;
    let old = skb
        .window::<2>(offset)
        .ok_or(DropReason::Malformed)?
        .half::<0>();
    let (old, new) = (u32::from(old), id.to_be());
    skb.correct_transport_checksum(transport + ICMP_CHECKSUM, old, u32::from(new), 2)?;
    skb.window_mut::<2>(offset)?.set_half::<0>(new);
    Ok(())
}

/// Gives a packet that comes back for a translated flow the address and port that its receiver
/// knows the other side by.
///
/// # Errors
/// [`DropReason::Malformed`] when the packet ends before what is to be written.
#[inline(never)]
pub(crate) fn restore_source(
    skb: &mut Skb,
    parsed: &mut Parsed,
    alias: &FlowEntry,
) -> Result<(), DropReason> {
    if transport_checksum(parsed).is_some_and(|_| has_ports(parsed)) {
        port(skb, parsed, 0, alias.original_port)?;
        parsed.headers.src_port = alias.original_port;
    }
    original_source(skb, parsed, alias)
}

/// Gives a packet that comes back for a translated flow the address and port of its receiver.
///
/// # Errors
/// As [`restore_source`].
#[inline(never)]
pub(crate) fn restore_destination(
    skb: &mut Skb,
    parsed: &mut Parsed,
    alias: &FlowEntry,
    own: &EndpointEntry,
) -> Result<(), DropReason> {
    let own_port = alias.bucket as u16;
    if parsed.headers.dst_port != own_port && has_ports(parsed) {
        port(skb, parsed, 2, own_port)?;
        parsed.headers.dst_port = own_port;
    }
    own_destination(skb, parsed, own)
}

/// Gives an ICMP error about a packet of a translated flow the address of its receiver, and, where it
/// comes from the packet's destination, the address that its receiver knows that by.
///
/// # Errors
/// As [`restore_source`].
#[inline(never)]
pub(crate) fn restore_ends(
    skb: &mut Skb,
    parsed: &mut Parsed,
    alias: &FlowEntry,
    own: &EndpointEntry,
    is_from_there: bool,
) -> Result<(), DropReason> {
    if is_from_there {
        original_source(skb, parsed, alias)?;
    }
    own_destination(skb, parsed, own)
}

#[inline(always)]
fn original_source(
    skb: &mut Skb,
    parsed: &mut Parsed,
    alias: &FlowEntry,
) -> Result<(), DropReason> {
    match parsed.headers.family {
        Family::V4 => address_v4(skb, parsed, IPV4_SRC, alias.original().0[0])?,
        Family::V6 => address_v6(skb, parsed, IPV6_SRC, &alias.original())?,
        Family::None => {}
    }
    parsed.headers.src = alias.original();
    Ok(())
}

#[inline(always)]
fn own_destination(
    skb: &mut Skb,
    parsed: &mut Parsed,
    own: &EndpointEntry,
) -> Result<(), DropReason> {
    let own = match parsed.headers.family {
        Family::V4 => &own.ipv4,
        _ => &own.ipv6,
    };
    if parsed.headers.dst == *own {
        return Ok(());
    }
    match parsed.headers.family {
        Family::V4 => address_v4(skb, parsed, IPV4_DST, own.0[0])?,
        Family::V6 => address_v6(skb, parsed, IPV6_DST, own)?,
        Family::None => {}
    }
    parsed.headers.dst = *own;
    Ok(())
}

/// Time to live and protocol of IPv4, next header and hop limit of IPv6.
const IPV4_TTL: usize = ETHERNET_BYTES + 8;
const IPV6_HOPS: usize = ETHERNET_BYTES + 6;

/// How many routers a packet may still pass, this one included.
///
/// # Errors
/// [`DropReason::NotRewritable`] for a packet that nobody routes.
#[inline(always)]
pub(crate) fn hops_left(skb: &Skb, parsed: &Parsed) -> Result<u8, DropReason> {
    // Through the helper: next to another look at the packet the compiler would compare the end of
    // the packet as a number, which the verifier does not understand.
    let [hops] = match parsed.headers.family {
        Family::V4 => skb.load::<1>(IPV4_TTL),
        Family::V6 => skb.load::<1>(IPV6_HOPS + 1),
        Family::None => return Err(DropReason::NotRewritable),
    }
    .ok_or(DropReason::Malformed)?;
    Ok(hops)
}

/// Notes that a router has been passed, of a packet that may pass one.
///
/// # Errors
/// [`DropReason::Malformed`] when the packet ends before.
#[inline(always)]
pub(crate) fn count_hop(skb: &mut Skb, parsed: &Parsed) -> Result<(), DropReason> {
    let offset = match parsed.headers.family {
        Family::V4 => IPV4_TTL,
        _ => IPV6_HOPS,
    };
    let old = skb.window::<2>(offset).ok_or(DropReason::Malformed)?;
    let old = u16::from_be(old.half::<0>());
    match parsed.headers.family {
        Family::V4 => {
            let new = old.wrapping_sub(1 << 8);
            skb.window_mut::<2>(offset)?.set_half::<0>(new.to_be());
            correct_ipv4_checksum(skb, old, new)
        }
        _ => {
            let new = old.wrapping_sub(1);
            skb.window_mut::<2>(offset)?.set_half::<0>(new.to_be());
            skb.note_uncovered(old.to_be().into(), new.to_be().into());
            Ok(())
        }
    }
}

#[inline(always)]
fn v4_or(parsed: &Parsed, old: Address, word: u32) -> Address {
    match parsed.headers.family {
        Family::V4 => Address([word, 0, 0, 0]),
        _ => old,
    }
}

#[inline(always)]
fn v6_or(parsed: &Parsed, old: Address, new: Address) -> Address {
    match parsed.headers.family {
        Family::V6 => new,
        _ => old,
    }
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

#[inline(always)]
fn has_ports(parsed: &Parsed) -> bool {
    matches!(parsed.headers.protocol, PROTOCOL_TCP | PROTOCOL_UDP)
}

/// Where the checksum of the transport header is that covers the addresses, and how it is
/// corrected.
#[inline(always)]
fn transport_checksum(parsed: &Parsed) -> Option<(usize, u64)> {
    let transport = parsed.transport_offset();
    if parsed.fragment == Fragment::Later {
        return None;
    }
    match (parsed.headers.protocol, parsed.headers.family) {
        (PROTOCOL_TCP, _) => Some((transport + TCP_CHECKSUM, 0)),
        (PROTOCOL_UDP, _) => Some((transport + UDP_CHECKSUM, BPF_F_MARK_MANGLED_0)),
        // RFC 4443, 2.3; ICMP of IPv4 covers no addresses.
        (PROTOCOL_ICMPV6, Family::V6) => Some((transport + ICMP_CHECKSUM, 0)),
        _ => None,
    }
}

#[inline(always)]
fn port(skb: &mut Skb, parsed: &Parsed, offset: usize, port: u16) -> Result<(), DropReason> {
    if parsed.fragment == Fragment::Later && has_ports(parsed) {
        // The first part of the datagram has the ports.
        return Ok(());
    }
    let Some((checksum, flags)) = transport_checksum(parsed).filter(|_| has_ports(parsed)) else {
        return absent(u32::from(port));
    };
    let offset = parsed.transport_offset() + offset;
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
fn address_v4(skb: &mut Skb, parsed: &Parsed, offset: usize, new: u32) -> Result<(), DropReason> {
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

#[inline(always)]
fn address_v6(
    skb: &mut Skb,
    parsed: &Parsed,
    offset: usize,
    new: &Address,
) -> Result<(), DropReason> {
    if parsed.headers.family != Family::V6 {
        return absent(new.0[0] | new.0[1] | new.0[2] | new.0[3]);
    }
    for (index, new) in new.0.into_iter().enumerate() {
        let offset = offset + index * 4;
        let old = skb
            .window::<4>(offset)
            .ok_or(DropReason::Malformed)?
            .word::<0>();
        if let Some((checksum, flags)) = transport_checksum(parsed) {
            skb.correct_transport_checksum(checksum, old, new, flags | BPF_F_PSEUDO_HDR | 4)?;
        }
        skb.window_mut::<4>(offset)?.set_word::<0>(new);
        skb.note_uncovered(old, new);
    }
    Ok(())
}
