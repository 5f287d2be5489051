//! ICMP errors that an endpoint sends about what came to it from outside: they leave under the node's
//! address, and speak of the packet as whoever is outside has sent it (RFC 5508, REQ-5).

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    headers::{Family, Fragment, Parsed},
    outbound::{Outbound, ports_back},
};

use super::{Scratch, back::ERROR_BYTES, outcome_of, rewrite_out, scratch, settings};
use crate::{
    frame::{self, Skb},
    maps::{INSIDE, OUTSIDE},
    quoted::{self, RECEIVER},
};

/// Gives the ICMP error at hand, which endpoint `local` sends, the address of this node, and the packet
/// that it quotes the address and port that this was sent to. What is about no connection that leaves
/// here is dropped: from there, nobody could tell what it is about.
///
/// A global function, as [`super::outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn outbound_error(context: *mut __sk_buff, network: u32, local: u32) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (Some(parsed), Some(inner)) = (frame::parsed(), quoted::inner()) else {
        return outcome_of(Err(DropReason::BadTables));
    };
    let Some(settings) = settings() else {
        return outcome_of(Err(DropReason::OutboundAddress));
    };
    let bytes = skb.len();
    skb.ensure_bytes(if bytes < ERROR_BYTES {
        bytes
    } else {
        ERROR_BYTES
    });
    // No part of a datagram speaks of another one.
    if parsed.fragment != Fragment::Whole || quoted::read(&skb, parsed, inner).is_none() {
        return outcome_of(Err(DropReason::OutboundProtocol));
    }
    let port = port_of(network, local) as u16;
    if !settings.has(port) {
        return outcome_of(Err(DropReason::OutboundProtocol));
    }
    outcome_of(speak(&mut skb, parsed, settings, port))
}

/// The port of the node that a packet was sent to which an endpoint quotes, or zero.
// It looks up again what it needs: the compiler would hand over addresses piece by piece.
#[inline(never)]
pub(super) fn port_of(network: u32, local: u32) -> u32 {
    let (Some(parsed), Some(scratch), Some(inner)) = (frame::parsed(), scratch(), quoted::inner())
    else {
        return 0;
    };
    let headers = &parsed.headers;
    if inner.src != headers.dst || inner.dst != headers.src {
        return 0;
    }
    let Some((own, remote)) = ports_back(inner) else {
        return 0;
    };
    let Scratch {
        inside, outside, ..
    } = scratch;
    inside.network_protocol = network << 8 | u32::from(inner.protocol);
    inside.ports = u32::from(own) << 16 | u32::from(remote);
    for index in 0..4 {
        inside.local.0[index] = inner.dst.0[index];
        inside.remote.0[index] = inner.src.0[index];
    }
    // SAFETY: values are plain numbers, replaced whole.
    let Some(port) = (unsafe { INSIDE.get(&*inside) }) else {
        return 0;
    };
    let port = *port as u16;
    outside.fill(inner.family, inner.protocol, (port, remote), &inner.src);
    let Some(known) = OUTSIDE.get_ptr(&*outside) else {
        return 0;
    };
    // SAFETY: as in `outbound_port`.
    let known = unsafe { &*known };
    match known.network == network && known.local == local && known.port == own {
        true => u32::from(port),
        false => 0,
    }
}

#[inline(never)]
fn speak(
    skb: &mut Skb,
    parsed: &mut Parsed,
    settings: &Outbound,
    port: u16,
) -> Result<(), DropReason> {
    let (first, last) = match parsed.headers.family {
        Family::V4 => (u64::from(settings.address_v4), 0),
        _ => quoted::ends_of(&settings.address_v6),
    };
    if quoted::rename(skb.raw(), RECEIVER | u32::from(port), first, last) != 0 {
        return Err(DropReason::Malformed);
    }
    rewrite_out(skb, parsed, settings, None)
}
