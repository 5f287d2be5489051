//! The port that a connection has at the node where it leaves the cloud: the one that it has, or one
//! that no other connection has towards the same address and port.

use aya_ebpf::bindings::BPF_NOEXIST;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow::{SEEN_EVERY, events},
    headers::Headers,
    outbound::{self, Mapping, ports_out},
};

use super::{Scratch, outcome_of, scratch, settings};
use crate::{
    flow, frame,
    maps::{INSIDE, OUTSIDE},
};

/// Says in scratch whose connection the packet that leaves is of.
#[inline(never)]
pub(super) fn fill(headers: &Headers, scratch: &mut Scratch, network: u32, local: u32) {
    let (port, remote_port) = ports_out(headers).unwrap_or((0, 0));
    let Scratch {
        inside,
        outside,
        mapping,
        ..
    } = scratch;
    inside.network_protocol = network << 8 | u32::from(headers.protocol);
    inside.ports = u32::from(port) << 16 | u32::from(remote_port);
    outside.family_protocol = (headers.family as u32) << 8 | u32::from(headers.protocol);
    outside.ports = u32::from(remote_port);
    for index in 0..4 {
        inside.local.0[index] = headers.src.0[index];
        inside.remote.0[index] = headers.dst.0[index];
        outside.remote.0[index] = headers.dst.0[index];
        mapping.address.0[index] = headers.src.0[index];
    }
    mapping.network = network;
    mapping.local = local;
    mapping.seen = flow::now();
    mapping.port = port;
    mapping.sent = events(headers);
    mapping.received = 0;
}

/// Ports that are tried, first at random, then one after the other: towards one address and port, a
/// range of [`SCANNED`] ports is used up, and of a larger one almost all.
const DRAWN: u32 = 32;
const SCANNED: u32 = 64;

/// The port of the node that the connection in scratch has or gets; or, in the upper half, the number
/// of a reason plus one.
///
/// A global function, as [`super::outbound_route`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn outbound_port(traced: u32) -> u32 {
    let (Some(settings), Some(scratch), Some(parsed)) = (settings(), scratch(), frame::parsed())
    else {
        return outcome_of(Err(DropReason::BadTables)) << 16;
    };
    // SAFETY: values are plain numbers, replaced whole.
    if let Some(port) = unsafe { INSIDE.get(&scratch.inside) } {
        let port = *port as u16;
        set_port(scratch, port);
        if settings.has(port)
            && let Some(known) = OUTSIDE.get_ptr_mut(&scratch.outside)
        {
            // SAFETY: the map's value stays valid memory until the program ends, and its fields are
            // plain numbers.
            let known = unsafe { &mut *known };
            if known.is_of(&scratch.mapping) {
                if traced == 0 {
                    note_sent(known, &parsed.headers);
                }
                return u32::from(port);
            }
        }
    }
    let own = scratch.mapping.port;
    let mut seed = outbound::seed(scratch.inside.network_protocol, &scratch.inside.local, own);
    let mut port = match settings.has(own) {
        true => own,
        false => settings.port(seed),
    };
    for attempt in 0..DRAWN + SCANNED {
        set_port(scratch, port);
        match take(scratch, traced) {
            Taken::Ours => return u32::from(port),
            Taken::Full => return outcome_of(Err(DropReason::OutboundFull)) << 16,
            Taken::Others => {}
        }
        if attempt < DRAWN {
            seed = outbound::mix(seed.wrapping_add(0x9e37_79b9));
            port = settings.port(seed);
        } else {
            port = settings.next(port);
        }
    }
    outcome_of(Err(DropReason::OutboundPorts)) << 16
}

#[inline(always)]
pub(super) fn set_port(scratch: &mut Scratch, port: u16) {
    scratch.outside.ports = u32::from(port) << 16 | scratch.outside.ports & 0xffff;
}

/// What became of a port that was tried.
enum Taken {
    /// It is that of the connection.
    Ours,
    /// It is another one's.
    Others,
    /// There is no room.
    Full,
}

/// `-EEXIST`.
const EXISTS: i32 = -17;

/// Takes the port in scratch for the connection there, if it is free.
#[inline(always)]
fn take(scratch: &mut Scratch, traced: u32) -> Taken {
    if traced != 0 {
        return match OUTSIDE.get_ptr(&scratch.outside) {
            Some(_) => Taken::Others,
            None => Taken::Ours,
        };
    }
    match OUTSIDE.insert(&scratch.outside, &scratch.mapping, u64::from(BPF_NOEXIST)) {
        Ok(()) => {}
        Err(EXISTS) => {
            // What INSIDE has forgotten, or what ended: its late packets are nobody's any more.
            let is_ours = OUTSIDE
                .get_ptr(&scratch.outside)
                // SAFETY: as in `outbound_port`.
                .is_some_and(|there| unsafe { (*there).is_of(&scratch.mapping) });
            if !is_ours {
                return Taken::Others;
            }
        }
        Err(_) => return Taken::Full,
    }
    let port = scratch.outside.ports >> 16;
    if INSIDE.insert(&scratch.inside, &port, 0).is_err() {
        let _ = OUTSIDE.remove(&scratch.outside);
        return Taken::Full;
    }
    Taken::Ours
}

/// Notes a packet that the endpoint sent.
#[inline(always)]
fn note_sent(mapping: &mut Mapping, headers: &Headers) {
    let events = events(headers);
    if mapping.entry().begins_anew(headers) {
        mapping.sent = 0;
        mapping.received = 0;
    }
    if mapping.sent & events != events {
        mapping.sent |= events;
    }
    note_time(mapping);
}

#[inline(always)]
pub(super) fn note_time(mapping: &mut Mapping) {
    let now = flow::now();
    if now.wrapping_sub(mapping.seen) >= SEEN_EVERY {
        mapping.seen = now;
    }
}
