//! What speaks of a connection: ICMP errors (RFC 792, RFC 4443) about a packet that was delivered.
//!
//! Such a packet is related when it goes to whoever sent the packet that it quotes, and the sender of
//! the error is where that one was delivered.

use sunwire_dataplane_common::{
    flow::{Direction, has_flow, seen},
    headers::{
        ETHER_IPV6, ETHERNET_BYTES, Family, Headers, ICMP_BYTES, IPV6_BYTES, PROTOCOL_ICMP,
        PROTOCOL_ICMPV6,
    },
    vxlan::{OUTER_BYTES, OUTER_BYTES_V6},
};

use crate::{
    deliver, flow,
    frame::{self, Skb},
    quoted::{self, inner},
};

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
    let is_read = quoted::read(skb, parsed, inner).is_some();
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

/// Bytes of the longest headers that an ICMP error in a tunnel and what it quotes have without options.
const QUOTE_BYTES: u32 = (OUTER_BYTES_V6 + ETHERNET_BYTES + 2 * (IPV6_BYTES + ICMP_BYTES)) as u32;

/// Whether the ICMP error at hand, which came by a tunnel, is about a packet that endpoint `to` has
/// sent to `from`, who sends the error: what [`related`] is for its sender.
#[inline(never)]
pub(crate) fn is_about(skb: &mut Skb, network: u32, from: u32, to: u32) -> bool {
    let is_read = read_in_tunnel(skb);
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return false;
    };
    if !is_read || !has_flow(inner) || inner.src != parsed.headers.dst {
        return false;
    }
    match flow::find(network, inner, Direction::Sent) {
        Some(flow) if flow.local == to && flow.sent & seen::PACKET != 0 => {
            flow.location == from || deliver::owner_of(inner, network) == from
        }
        _ => false,
    }
}

/// Reads what the ICMP error at hand quotes, which came by a tunnel; tells whether it can be read.
#[inline(always)]
pub(crate) fn read_in_tunnel(skb: &mut Skb) -> bool {
    let bytes = skb.len();
    skb.ensure_bytes(if bytes < QUOTE_BYTES {
        bytes
    } else {
        QUOTE_BYTES
    });
    let (Some(parsed), Some(inner)) = (frame::parsed(), inner()) else {
        return false;
    };
    let is_read = match skb.protocol() {
        ETHER_IPV6 => quoted::read_behind::<OUTER_BYTES_V6>(skb, parsed, inner),
        _ => quoted::read_behind::<OUTER_BYTES>(skb, parsed, inner),
    };
    is_read.is_some()
}
