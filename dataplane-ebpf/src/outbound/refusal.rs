//! What becomes of a packet that does not leave the cloud: it is counted, and its sender is told why.

use sunwire_dataplane_common::{address::Address, drop_reason::DropReason, headers::Family};

use super::{hand_over, reason_of};
use crate::{
    Handled, counters, event,
    frame::{self, Skb},
    maps::{CONTROL, NETWORKS},
    related, too_big,
};

/// What the sender of a packet is told that does not leave, as far as anybody is (RFC 792; RFC 1812,
/// 4.3.3 and 5.3; RFC 6888, REQ-8; RFC 4443, 3.1 and 3.3): type and code of IPv4 and of IPv6.
#[inline(always)]
fn message_of(reason: DropReason) -> Option<[[u8; 2]; 2]> {
    match reason {
        // Net unreachable; no route to destination.
        DropReason::NoRoute | DropReason::OutboundAddress => Some([[3, 0], [1, 0]]),
        // Host unreachable; address unreachable.
        DropReason::OutboundPorts | DropReason::OutboundFull => Some([[3, 1], [1, 3]]),
        // Communication administratively prohibited.
        DropReason::OutboundForbidden => Some([[3, 13], [1, 1]]),
        // Time to live, or hop limit, exceeded in transit.
        DropReason::Expired => Some([[11, 0], [3, 0]]),
        _ => None,
    }
}

/// Counts a packet that does not leave, and tells its sender why.
///
/// # Errors
/// The reason, where nobody is told.
#[inline(never)]
pub(super) fn refuse(
    skb: &mut Skb,
    network: u32,
    local: u32,
    outcome: u32,
    program: u32,
) -> Result<Handled, DropReason> {
    let reason = reason_of(outcome);
    let parsed = frame::parsed().ok_or(reason)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(reason)?;
    let Some([v4, v6]) = message_of(reason) else {
        return Err(reason);
    };
    let (kind, has_gateway) = match parsed.headers.family {
        Family::V4 => (v4, entry.gateway_v4 != Address::ZERO),
        Family::V6 => (v6, entry.gateway_v6 != Address::ZERO),
        Family::None => return Err(reason),
    };
    let is_told = has_gateway
        && !related::is_error(&parsed.headers)
        && too_big::is_quotable(parsed)
        && !skb.is_traced();
    if !is_told {
        return Err(reason);
    }
    note_refusal(skb, reason, program);
    let about = u32::from(kind[0]) << 8 | u32::from(kind[1]);
    match answer(skb, network, local, about)? {
        Handled::Redirect(action) => Ok(Handled::Told(action)),
        other => Ok(other),
    }
}

// Functions of their own, one after the other: the stack is short.

/// Counts and tells the drop while the packet is what it was.
#[inline(never)]
pub(super) fn note_refusal(skb: &mut Skb, reason: DropReason, program: u32) {
    let refused = Err(reason);
    event::end(skb, &refused, program);
    counters::dropped(skb, reason);
}

/// Makes of the packet at hand the ICMP message to its sender, of a type and code, and sends it there.
#[inline(always)]
fn answer(skb: &mut Skb, network: u32, local: u32, about: u32) -> Result<Handled, DropReason> {
    match frame::parsed().map(|parsed| parsed.headers.family) {
        Some(Family::V6) => write_answer_v6(skb, network, about)?,
        _ => write_answer_v4(skb, network, about)?,
    }
    let own_node = CONTROL.get(0).map_or(0, |control| control.node);
    hand_over(skb, network, local, own_node)
}

// Functions of their own: what they need of the stack `hand_over` has when they are over.

#[inline(never)]
fn write_answer_v4(skb: &mut Skb, network: u32, about: u32) -> Result<(), DropReason> {
    let parsed = frame::parsed().ok_or(DropReason::BadTables)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(DropReason::UnknownNetwork)?;
    let kind = [(about >> 8) as u8, about as u8];
    too_big::message_v4(skb, &parsed.headers, entry.gateway_v4, kind, 0)
}

#[inline(never)]
fn write_answer_v6(skb: &mut Skb, network: u32, about: u32) -> Result<(), DropReason> {
    let parsed = frame::parsed().ok_or(DropReason::BadTables)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }.ok_or(DropReason::UnknownNetwork)?;
    let kind = [(about >> 8) as u8, about as u8];
    too_big::message_v6(skb, &parsed.headers, entry.gateway_v6, kind, 0)
}
