//! What a workload is told of a packet that its network, or the one that it crosses to, does not carry:
//! the largest size that it does (RFC 1191, RFC 8201); and of one that was on its way for too long
//! (RFC 792, RFC 4443). It comes from the gateway, and never from silence.
//!
//! ```text
//!  the packet:   | Ethernet | IP header | 20 bytes of transport | rest |
//!  becomes:      | Ethernet | IP | ICMP | IP header | 20 bytes of transport |
//! ```

use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::EndpointEntry,
    event::program,
    headers::{
        ETHERNET_BYTES, Family, Fragment, Headers, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMP,
        PROTOCOL_ICMPV6, Parsed,
    },
    vxlan::fold_checksum,
};

use crate::{Handled, counters, event, frame::Skb, maps::NETWORKS};

/// Bytes of the message's own header (RFC 792; RFC 4443, 3.2).
const ICMP_BYTES: usize = 8;
/// Bytes behind the IP header that the message quotes: where the ports are, and of TCP the numbers
/// by which the sender knows that the message is no forgery.
const QUOTED: usize = 20;
/// As much of the transport header as every quote must have (RFC 792).
const PORTS: usize = 8;
const QUOTED_V4: usize = IPV4_BYTES + QUOTED;
const QUOTED_V6: usize = IPV6_BYTES + QUOTED;
/// Destination unreachable, fragmentation needed and don't fragment set.
pub(crate) const NEEDED: [u8; 2] = [3, 4];
/// Packet too big.
pub(crate) const TOO_BIG: [u8; 2] = [2, 0];
/// Time to live exceeded in transit, and hop limit exceeded in transit.
const TIME_V4: [u8; 2] = [11, 0];
const TIME_V6: [u8; 2] = [3, 0];

/// Counts a packet that is too big for `mtu`, or expired, and tells its sender.
///
/// # Errors
/// The reason, where nobody can be told: the network has no gateway, or the packet is
/// itself such a message or a later fragment, about which none is sent (RFC 1122, 3.2.2).
#[inline(never)]
pub(crate) fn answer(
    skb: &mut Skb,
    parsed: &Parsed,
    endpoint: &EndpointEntry,
    reason: DropReason,
    mtu: u32,
) -> Result<Handled, DropReason> {
    let headers = &parsed.headers;
    if is_error(headers) || !is_quotable(parsed) || headers.eth_dst.is_group() || skb.is_traced() {
        return Err(reason);
    }
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = unsafe { NETWORKS.get(endpoint.network) }.ok_or(reason)?;
    let is_expired = reason as u32 == DropReason::Expired as u32;
    match headers.family {
        Family::V4 if network.gateway_v4 != Address::ZERO => {
            tell(skb, reason);
            let (kind, word) = if is_expired {
                (TIME_V4, 0)
            } else {
                (NEEDED, mtu & 0xffff)
            };
            grow(skb, QUOTED_V4, IPV4_BYTES)?;
            v4(skb, headers, network.gateway_v4, kind, word)?;
        }
        Family::V6 if network.gateway_v6 != Address::ZERO => {
            tell(skb, reason);
            let (kind, word) = if is_expired {
                (TIME_V6, 0)
            } else {
                (TOO_BIG, mtu)
            };
            grow(skb, QUOTED_V6, IPV6_BYTES)?;
            v6(skb, headers, network.gateway_v6, kind, word)?;
        }
        _ => return Err(reason),
    }
    skb.store(0, &endpoint.mac.to_bytes())?;
    skb.store(6, &network.gateway_mac.to_bytes())?;
    Ok(Handled::Told(skb.redirect(skb.ifindex())))
}

/// Counts and tells the drop while the packet is what it was.
#[inline(always)]
fn tell(skb: &mut Skb, reason: DropReason) {
    let outcome = Err(reason);
    event::end(skb, &outcome, program::ENDPOINT);
    counters::dropped(skb, reason);
}

/// Makes of an IPv4 packet the ICMP message about it to its sender, from an address of the gateway or another;
/// `word` is what stands behind the checksum.
///
/// # Errors
/// When the packet is too short, or cannot be made longer.
#[inline(always)]
pub(crate) fn message_v4(
    skb: &mut Skb,
    headers: &Headers,
    from: Address,
    kind: [u8; 2],
    word: u32,
) -> Result<(), DropReason> {
    grow(skb, QUOTED_V4, IPV4_BYTES)?;
    v4(skb, headers, from, kind, word)
}

/// As [`message_v4`], of IPv6.
///
/// # Errors
/// As [`message_v4`].
#[inline(always)]
pub(crate) fn message_v6(
    skb: &mut Skb,
    headers: &Headers,
    from: Address,
    kind: [u8; 2],
    word: u32,
) -> Result<(), DropReason> {
    grow(skb, QUOTED_V6, IPV6_BYTES)?;
    v6(skb, headers, from, kind, word)
}

/// Whether what is quoted of a packet says whose it is: the ports are in it.
#[inline(always)]
pub(crate) fn is_quotable(parsed: &Parsed) -> bool {
    let quoted = match parsed.headers.family {
        Family::V4 => QUOTED_V4,
        _ => QUOTED_V6,
    };
    parsed.fragment != Fragment::Later
        && parsed.transport as usize + PORTS <= ETHERNET_BYTES + quoted
}

/// An ICMP error: below 128 in ICMPv6; in ICMP the types that RFC 1122 names.
#[inline(always)]
fn is_error(headers: &Headers) -> bool {
    match (headers.family, headers.protocol) {
        (Family::V4, PROTOCOL_ICMP) => matches!(headers.icmp_type, 3 | 4 | 5 | 11 | 12),
        (Family::V6, PROTOCOL_ICMPV6) => headers.icmp_type < 128,
        _ => false,
    }
}

/// Cuts the packet to what is quoted, and makes room for the headers in front of it.
#[inline(always)]
fn grow(skb: &mut Skb, quoted: usize, ip: usize) -> Result<(), DropReason> {
    // First: a super-packet is none any more once it is cut.
    skb.set_len((ETHERNET_BYTES + quoted) as u32)?;
    skb.adjust_room((ip + ICMP_BYTES) as i32, 0)
}

#[inline(always)]
fn v4(
    skb: &mut Skb,
    headers: &Headers,
    gateway: Address,
    kind: [u8; 2],
    word: u32,
) -> Result<(), DropReason> {
    let total = (IPV4_BYTES + ICMP_BYTES + QUOTED_V4) as u32;
    let (source, destination) = (gateway.0[0], headers.src.0[0]);
    let mut ip: [u32; 5] = [
        (0x4500_0000 | total).to_be(),
        0,
        (64 << 24 | u32::from(PROTOCOL_ICMP) << 16).to_be(),
        source,
        destination,
    ];
    let checksum = fold_checksum(fold(sum(&ip)));
    ip[2] |= u32::from(checksum.to_be()) << 16;
    skb.store_words(ETHERNET_BYTES, &ip)?;

    let at = ETHERNET_BYTES + IPV4_BYTES;
    let quoted: [u32; QUOTED_V4 / 4] = skb
        .load_words(at + ICMP_BYTES)
        .ok_or(DropReason::Malformed)?;
    let mut icmp: [u32; 2] = [u32::from_ne_bytes([kind[0], kind[1], 0, 0]), word.to_be()];
    let checksum = fold_checksum(fold(sum(&icmp) + sum(&quoted)));
    icmp[0] |= u32::from(checksum.to_be()) << 16;
    skb.store_words(at, &icmp)
}

#[inline(always)]
fn v6(
    skb: &mut Skb,
    headers: &Headers,
    gateway: Address,
    kind: [u8; 2],
    word: u32,
) -> Result<(), DropReason> {
    let length = (ICMP_BYTES + QUOTED_V6) as u32;
    let head: [u32; 2] = [
        0x6000_0000_u32.to_be(),
        (length << 16 | u32::from(PROTOCOL_ICMPV6) << 8 | 64).to_be(),
    ];
    skb.store_words(ETHERNET_BYTES, &head)?;
    skb.store_words(ETHERNET_BYTES + 8, &gateway.0)?;
    skb.store_words(ETHERNET_BYTES + 24, &headers.src.0)?;

    let at = ETHERNET_BYTES + IPV6_BYTES;
    let quoted: [u32; QUOTED_V6 / 4] = skb
        .load_words(at + ICMP_BYTES)
        .ok_or(DropReason::Malformed)?;
    let mut icmp: [u32; 2] = [u32::from_ne_bytes([kind[0], kind[1], 0, 0]), word.to_be()];
    // The pseudo header of RFC 8200, 8.1.
    let pseudo =
        sum(&gateway.0) + sum(&headers.src.0) + u64::from(length) + u64::from(PROTOCOL_ICMPV6);
    let checksum = fold_checksum(fold(pseudo + sum(&icmp) + sum(&quoted)));
    icmp[0] |= u32::from(checksum.to_be()) << 16;
    skb.store_words(at, &icmp)
}

/// The sum of words that stand in memory order.
#[inline(always)]
fn sum<const N: usize>(words: &[u32; N]) -> u64 {
    let mut sum = 0;
    for word in words {
        sum += u64::from(u32::from_be(*word));
    }
    sum
}

/// A ones' complement sum of words as one of halves.
#[inline(always)]
fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u32 + (sum >> 16) as u32
}
