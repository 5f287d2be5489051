//! What speaks of a connection: ICMP errors (RFC 792, RFC 4443) about a packet that was delivered.
//!
//! Such a packet is related when it goes to whoever sent the packet that it quotes, and the sender of
//! the error is where that one was delivered.

use sunwire_dataplane_common::{
    flow::{Direction, has_flow, seen},
    headers::{Family, Headers, PROTOCOL_ICMP, PROTOCOL_ICMPV6},
};

use crate::{
    flow,
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
