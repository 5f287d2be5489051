//! Back into the cloud: what answers a packet that has left here, and ICMP errors about one.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    event::program,
    flow::{Direction, events, seen},
    headers::{
        ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES, Family, Fragment, Headers, PROTOCOL_TCP, Parsed,
    },
    outbound::{EGRESS, Mapping, Outbound, ports_back, ports_out},
};

use super::{
    Scratch, hand_over, letting_out, note_refusal, note_time, outbound_send, outcome_of, reason_of,
    scratch, settings,
};
use crate::{
    Handled, deliver, flow, fragment,
    frame::{self, Skb, note},
    maps::{CONTROL, OUTSIDE},
    quoted, related, rewrite, too_big,
};

/// A packet on the underlay that is in no tunnel: delivered when it answers what has left here, else the
/// host's.
///
/// # Errors
/// Why it is neither.
#[inline(always)]
pub(crate) fn come_back<const V6: bool>(skb: &mut Skb) -> Result<Handled, DropReason> {
    let Some(settings) = settings() else {
        return Ok(Handled::Pass);
    };
    // A device without Ethernet header lets none out.
    let is_to_us = if V6 {
        let own = &settings.address_v6.0;
        let to = skb.window::<16>(ETHERNET_BYTES + 24);
        skb.protocol() == ETHER_IPV6
            && own[0] != 0
            && to.is_some_and(|to| {
                to.word::<0>() == own[0]
                    && to.word::<4>() == own[1]
                    && to.word::<8>() == own[2]
                    && to.word::<12>() == own[3]
            })
    } else {
        let to = skb.window::<4>(ETHERNET_BYTES + 16);
        skb.protocol() == ETHER_IPV4 && to.is_some_and(|to| to.word::<0>() == settings.address_v4)
    };
    if !is_to_us {
        return Ok(Handled::Pass);
    }
    match outbound_find(skb.raw()) {
        NOT_OURS => Ok(Handled::Pass),
        found => bring_in(skb, found),
    }
}

/// What [`outbound_find`] finds: a packet of the host.
const NOT_OURS: u32 = 0;
/// A packet of a connection that has left here.
const OF_CONNECTION: u32 = 1;
/// An ICMP error about one.
const ABOUT_CONNECTION: u32 = 2;

/// Bytes of an ICMP error that are read: Ethernet, IP, ICMP, IP and 8 bytes of what it quotes, with
/// options.
pub(super) const ERROR_BYTES: u32 = 14 + 60 + 8 + 60 + 8;

/// Finds the connection of a packet that came in on the underlay; its mapping is in scratch then, and its
/// headers are the ones at hand.
///
/// A global function, as [`outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_find(context: *mut __sk_buff) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    let (Some(settings), Some(scratch), Some(parsed)) = (settings(), scratch(), frame::parsed())
    else {
        return NOT_OURS;
    };
    let Ok(read) = Headers::parse(&skb.view(0)) else {
        return NOT_OURS;
    };
    *parsed = read;
    if related::is_error(&parsed.headers) {
        let bytes = skb.len();
        skb.ensure_bytes(if bytes < ERROR_BYTES {
            bytes
        } else {
            ERROR_BYTES
        });
        return find_quoted(&skb, parsed, settings, scratch);
    }
    if parsed.fragment == Fragment::Later
        && fragment::find_ports(&skb, parsed, OUTSIDE_NETWORK).is_err()
    {
        return NOT_OURS;
    }
    let Some((port, remote_port)) = ports_back(&parsed.headers) else {
        return NOT_OURS;
    };
    let ports = (port, remote_port);
    if !settings.has(port) {
        return NOT_OURS;
    }
    let headers = &parsed.headers;
    scratch
        .outside
        .fill(headers.family, headers.protocol, ports, &headers.src);
    if !find_mapping(scratch) {
        return NOT_OURS;
    }
    if parsed.fragment == Fragment::First {
        let _ = fragment::find_ports(&skb, parsed, OUTSIDE_NETWORK);
    }
    OF_CONNECTION
}

/// The network of fragments that come from outside: no tunnel has it.
const OUTSIDE_NETWORK: u32 = 0;

#[inline(never)]
fn find_quoted(skb: &Skb, parsed: &Parsed, settings: &Outbound, scratch: &mut Scratch) -> u32 {
    let Some(inner) = quoted::inner() else {
        return NOT_OURS;
    };
    if quoted::read(skb, parsed, inner).is_none() || inner.src != settings.address(inner.family) {
        return NOT_OURS;
    }
    let Some(ports) = ports_out(inner) else {
        return NOT_OURS;
    };
    if !settings.has(ports.0) {
        return NOT_OURS;
    }
    scratch
        .outside
        .fill(inner.family, inner.protocol, ports, &inner.dst);
    match find_mapping(scratch) {
        true => ABOUT_CONNECTION,
        false => NOT_OURS,
    }
}

/// Looks for the mapping of the key in scratch; it is in scratch then.
#[inline(always)]
fn find_mapping(scratch: &mut Scratch) -> bool {
    let Some(known) = OUTSIDE.get_ptr(&scratch.outside) else {
        return false;
    };
    // SAFETY: as in `outbound_port`.
    let known = unsafe { &*known };
    let mapping = &mut scratch.mapping;
    mapping.network = known.network;
    mapping.local = known.local;
    mapping.port = known.port;
    for index in 0..4 {
        mapping.address.0[index] = known.address.0[index];
    }
    true
}

/// Delivers a packet that comes back to the endpoint in scratch.
// Its steps are functions of their own, one after the other: the stack is short.
#[inline(never)]
fn bring_in(skb: &mut Skb, found: u32) -> Result<Handled, DropReason> {
    match turn_back(skb, found) {
        Ok(()) => {}
        Err(DropReason::TooBig) => return too_big_from_outside(skb),
        Err(reason) => return Err(reason),
    }
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return Err(DropReason::BadTables);
    };
    let (network, local) = (scratch.mapping.network, scratch.mapping.local);
    if is_here(network, local) {
        deliver::receive(skb, parsed, network, local, own_egress())?;
    }
    deliver_back(skb)
}

#[inline(always)]
fn is_here(network: u32, local: u32) -> bool {
    deliver::location(local, network).is_some_and(|location| location.ifindex != 0)
}

/// The number of this node, where packets leave.
#[inline(always)]
fn own_egress() -> u32 {
    CONTROL.get(0).map_or(0, |control| EGRESS | control.node)
}

#[inline(never)]
fn deliver_back(skb: &mut Skb) -> Result<Handled, DropReason> {
    let scratch = scratch().ok_or(DropReason::BadTables)?;
    let (network, local) = (scratch.mapping.network, scratch.mapping.local);
    hand_over(skb, network, local, own_egress() & !EGRESS)
}

/// Makes a packet that comes back one to the endpoint in scratch.
#[inline(never)]
fn turn_back(skb: &mut Skb, found: u32) -> Result<(), DropReason> {
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return Err(DropReason::BadTables);
    };
    let (network, local) = (scratch.mapping.network, scratch.mapping.local);
    skb.set_note::<{ note::NETWORK }>(network);
    skb.set_note::<{ note::DESTINATION }>(local);
    letting_out(network).map_err(|_| DropReason::OutboundUnasked)?;
    let location = deliver::location(local, network).ok_or(DropReason::NoOwner)?;
    if skb.gso_size() == 0 && skb.len() - ETHERNET_BYTES as u32 > location.mtu {
        return Err(DropReason::TooBig);
    }
    if rewrite::hops_left(skb, parsed)? <= 1 {
        return Err(DropReason::Expired);
    }
    let traced = u32::from(skb.is_traced());
    match outbound_restore(skb.raw(), found, traced) {
        0 => Ok(()),
        outcome => Err(reason_of(outcome)),
    }
}

/// Gives a packet that comes back the address and port of the endpoint in scratch.
///
/// A global function, as [`outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_restore(context: *mut __sk_buff, found: u32, traced: u32) -> u32 {
    let mut skb = Skb::from_raw(context, traced != 0);
    let (Some(parsed), Some(scratch)) = (frame::parsed(), scratch()) else {
        return outcome_of(Err(DropReason::BadTables));
    };
    if traced == 0
        && found == OF_CONNECTION
        && let Some(known) = OUTSIDE.get_ptr_mut(&scratch.outside)
    {
        // SAFETY: as in `outbound_port`.
        let known = unsafe { &mut *known };
        let events = events(&parsed.headers);
        if known.received & events != events {
            known.received |= events;
        }
        // Else whoever is outside could keep a port that the endpoint has done with (RFC 4787, REQ-6).
        if parsed.headers.protocol == PROTOCOL_TCP {
            note_time(known);
        }
    }
    outcome_of(rewrite_back(&mut skb, parsed, found, &scratch.mapping))
}

#[inline(always)]
fn rewrite_back(
    skb: &mut Skb,
    parsed: &mut Parsed,
    found: u32,
    mapping: &Mapping,
) -> Result<(), DropReason> {
    rewrite::count_hop(skb, parsed)?;
    let mut port = Some(mapping.port);
    if found != OF_CONNECTION {
        port = None;
        let (first, last) = quoted::ends_of(&mapping.address);
        if quoted::rename(skb.raw(), u32::from(mapping.port), first, last) != 0 {
            return Err(DropReason::Malformed);
        }
    }
    rewrite::inside_destination(skb, parsed, &mapping.address, port)
}

/// Counts a packet from outside that is greater than the endpoint's network carries, and tells its sender
/// how great they may be (RFC 1191, RFC 8201).
#[inline(never)]
fn too_big_from_outside(skb: &mut Skb) -> Result<Handled, DropReason> {
    let reason = DropReason::TooBig;
    let (Some(parsed), Some(scratch), Some(settings)) = (frame::parsed(), scratch(), settings())
    else {
        return Err(reason);
    };
    let (network, local) = (scratch.mapping.network, scratch.mapping.local);
    let mtu = deliver::location(local, network).ok_or(reason)?.mtu;
    let headers = &parsed.headers;
    if related::is_error(headers) || !too_big::is_quotable(parsed) || skb.is_traced() {
        return Err(reason);
    }
    note_refusal(skb, reason, program::UNDERLAY);
    tell_size(skb, mtu)?;
    scratch.ifindex = settings.ifindex;
    scratch.next_family = 0;
    Ok(Handled::Told(outbound_send()))
}

// Functions of their own, one after the other: the stack is short.

/// Makes of the packet at hand the message to its sender that it is too big.
#[inline(always)]
fn tell_size(skb: &mut Skb, mtu: u32) -> Result<(), DropReason> {
    match frame::parsed().map(|parsed| parsed.headers.family) {
        Some(Family::V6) => tell_size_v6(skb, mtu),
        _ => tell_size_v4(skb, mtu),
    }
}

#[inline(never)]
fn tell_size_v4(skb: &mut Skb, mtu: u32) -> Result<(), DropReason> {
    let headers = &frame::parsed().ok_or(DropReason::BadTables)?.headers;
    too_big::message_v4(skb, headers, headers.dst, too_big::NEEDED, mtu & 0xffff)
}

#[inline(never)]
fn tell_size_v6(skb: &mut Skb, mtu: u32) -> Result<(), DropReason> {
    let headers = &frame::parsed().ok_or(DropReason::BadTables)?.headers;
    too_big::message_v6(skb, headers, headers.dst, too_big::TOO_BIG, mtu)
}

/// Whether a packet from outside answers what an endpoint has sent, as its flows tell, which go when the
/// policy forbids them.
// A function of its own: keys are large.
#[inline(never)]
pub(crate) fn is_asked(skb: &Skb, network: u32, to: u32) -> bool {
    let Some(parsed) = frame::parsed() else {
        return false;
    };
    let headers = &parsed.headers;
    let flow = if related::is_error(headers) {
        let Some(inner) = quoted::inner() else {
            return false;
        };
        if quoted::read(skb, parsed, inner).is_none() {
            return false;
        }
        flow::find(network, inner, Direction::Sent)
    } else {
        flow::find(network, headers, Direction::Received)
    };
    flow.is_some_and(|flow| flow.local == to && (flow.is_alias() || flow.sent & seen::PACKET != 0))
}
