//! What speaks of a connection: ICMP errors (RFC 792, RFC 4443) about a packet that was delivered.
//!
//! ```text
//! | Ethernet | IP | ICMP error, 8 bytes | IP of the packet it is about | its first 8 bytes |
//! ```
//!
//! Such a packet is related when it goes to whoever sent the packet inside, and the sender of the
//! error is where that one was delivered.

use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    flow::{Direction, has_flow, seen},
    headers::{
        Family, Headers, ICMP_BYTES, IPV4_BYTES, IPV6_BYTES, PROTOCOL_ICMP, PROTOCOL_ICMPV6,
        PROTOCOL_TCP, PROTOCOL_UDP,
    },
};

use crate::{
    flow,
    frame::{self, Skb},
    maps::INNER,
};

/// Bytes of the transport header that are read: the ports, or what an echo has in their place.
const TRANSPORT_BYTES: usize = 8;

/// Whether a packet is an ICMP error.
#[inline(always)]
pub(crate) fn is_error(headers: &Headers) -> bool {
    match (headers.family, headers.protocol) {
        // Unreachable, time exceeded, parameter problem.
        (Family::V4, PROTOCOL_ICMP) => matches!(headers.icmp_type, 3 | 11 | 12),
        // Those and too big.
        (Family::V6, PROTOCOL_ICMPV6) => matches!(headers.icmp_type, 1..=4),
        _ => false,
    }
}

/// Added to what [`related`] returns of a packet that is.
pub(crate) const RELATED: u32 = 1 << 31;

/// Whether the ICMP error at hand, which endpoint `local` sends, is about a packet that was
/// delivered to it: then [`RELATED`] and the number of who sent that packet, if it is known. Else
/// zero.
#[inline(never)]
pub(crate) fn related(skb: &Skb, network: u32, local: u32) -> u32 {
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return 0;
    };
    let offset = parsed.transport_offset() + ICMP_BYTES;
    let transport = match parsed.headers.family {
        Family::V4 => inside_v4(skb, offset, inner),
        Family::V6 => inside_v6(skb, offset, inner),
        Family::None => None,
    };
    let is_read = transport.is_some_and(|offset| inside_transport(skb, offset, inner).is_some());
    if !is_read || !has_flow(inner) || inner.src != parsed.headers.dst {
        return 0;
    }
    match flow::find(network, inner, Direction::Received) {
        Some(flow) if flow.local == local && flow.received & seen::PACKET != 0 => {
            RELATED | flow.remote
        }
        _ => 0,
    }
}

/// Memory of this CPU for the headers of the packet inside: the stack is short.
#[inline(always)]
pub(crate) fn inner() -> Option<&'static mut Headers> {
    let inner = INNER.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    Some(unsafe { &mut *inner })
}

/// Reads the IP header, and returns where the one after it starts.
#[inline(always)]
fn inside_v4(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<usize> {
    let ip = skb.window::<IPV4_BYTES>(offset)?;
    let version = ip.byte::<0>();
    let bytes = usize::from(version & 0x0f) * 4;
    // A later fragment has no ports.
    if version >> 4 != 4 || bytes < IPV4_BYTES || u16::from_be(ip.half::<6>()) & 0x1fff != 0 {
        return None;
    }
    inner.family = Family::V4;
    inner.protocol = ip.byte::<9>();
    inner.src = Address([ip.word::<12>(), 0, 0, 0]);
    inner.dst = Address([ip.word::<16>(), 0, 0, 0]);
    Some(offset + bytes)
}

/// As [`inside_v4`].
#[inline(always)]
fn inside_v6(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<usize> {
    let ip = skb.window::<IPV6_BYTES>(offset)?;
    if ip.byte::<0>() >> 4 != 6 {
        return None;
    }
    inner.family = Family::V6;
    inner.protocol = ip.byte::<6>();
    inner.src.0[0] = ip.word::<8>();
    inner.src.0[1] = ip.word::<12>();
    inner.src.0[2] = ip.word::<16>();
    inner.src.0[3] = ip.word::<20>();
    inner.dst.0[0] = ip.word::<24>();
    inner.dst.0[1] = ip.word::<28>();
    inner.dst.0[2] = ip.word::<32>();
    inner.dst.0[3] = ip.word::<36>();
    Some(offset + IPV6_BYTES)
}

#[inline(always)]
fn inside_transport(skb: &Skb, offset: usize, inner: &mut Headers) -> Option<()> {
    inner.src_port = 0;
    inner.dst_port = 0;
    inner.icmp_type = 0;
    inner.icmp_id = 0;
    match inner.protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => {
            let ports = skb.window::<TRANSPORT_BYTES>(offset)?;
            inner.src_port = u16::from_be(ports.half::<0>());
            inner.dst_port = u16::from_be(ports.half::<2>());
        }
        PROTOCOL_ICMP | PROTOCOL_ICMPV6 => {
            let echo = skb.window::<TRANSPORT_BYTES>(offset)?;
            inner.icmp_type = echo.byte::<0>();
            inner.icmp_id = u16::from_be(echo.half::<4>());
        }
        _ => {}
    }
    Some(())
}
