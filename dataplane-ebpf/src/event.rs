//! Tells whoever listens what became of packets: see `sunwire_dataplane_common::event`.
//!
//! ```text
//!  begin ----> the program decides, and notes what it finds ----> end
//!    |                          |                                  |
//!    keeps the frame as it      new_packet keeps it too            tells, within the limit
//!    came, when it may be told
//! ```
//!
//! Notes are written into the packet's own control block, where they cost a store each. The frame
//! is kept as it came only of packets that are told whatever becomes of them; of a drop alone, the
//! frame is told as it is then.

use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    event::{
        EVENT_BYTES, Event, EventLosses, EventRecord, EventSettings, FRAME_BYTES_MAX, WINDOW_SHIFT,
        connection,
        notes::{CONNECTION_SHIFT, REASON_SHIFT, WIRE},
        program, verdict, why,
    },
    tables::annotation,
};

use crate::{
    Handled,
    frame::{Skb, note},
    maps::{CAPTURED, ENDPOINTS, EVENT_LOSSES, EVENT_RECORDS, EVENT_SETTINGS, EVENTS},
};

/// The frame was kept as it came.
const KEPT: u32 = 1 << 31;
/// It was kept with the headers of a tunnel.
const KEPT_OUTER: u32 = 1 << 30;
/// To be called before anything is decided about a packet.
#[inline(always)]
pub(crate) fn begin(skb: &mut Skb) {
    skb.clear_notes();
    if skb.is_traced() {
        return;
    }
    let Some(settings) = EVENT_SETTINGS.get(0) else {
        return;
    };
    if settings.wanted & (why::SAMPLE | why::CAPTURE) != 0 {
        select(skb, settings);
    }
}

/// A packet that the policy was asked about, admitted and about to be sent on; `is_first` of its
/// flow.
#[inline(always)]
pub(crate) fn new_packet(skb: &mut Skb, is_first: bool) {
    let mut causes = skb.note::<{ note::FLAGS }>() & why::LOG;
    if is_first {
        skb.flag(connection::NEW << CONNECTION_SHIFT);
        causes |= why::NEW;
    }
    if causes == 0 || skb.is_traced() {
        return;
    }
    let Some(settings) = EVENT_SETTINGS.get(0) else {
        return;
    };
    if settings.wanted & causes != 0 {
        keep_new(skb, settings, causes);
    }
}

/// A packet that came by `log` and begins a flow or is dropped; `annotations` are its verdict's. To
/// be called before [`new_packet`].
#[inline(always)]
pub(crate) fn logged(skb: &mut Skb, annotations: u32) {
    skb.flag(why::LOG);
    if let Some(record) = EVENT_RECORDS.get_ptr_mut(0) {
        // SAFETY: as in `keep`.
        unsafe { (*record).event.log = (annotations >> annotation::LOG_SLOT_SHIFT) + 1 };
    }
}

/// A packet of a flow that has an entry.
#[inline(always)]
pub(crate) fn established(skb: &mut Skb) {
    skb.flag(connection::ESTABLISHED << CONNECTION_SHIFT);
}

/// To be called with the outcome.
#[inline(always)]
pub(crate) fn end(skb: &mut Skb, outcome: &Result<Handled, DropReason>, program: u32) {
    if skb.is_traced() {
        if let Err(reason) = outcome {
            skb.flag((*reason as u32 + 1) << REASON_SHIFT);
        }
        return;
    }
    match outcome {
        Err(reason) => {
            let Some(settings) = EVENT_SETTINGS.get(0) else {
                return;
            };
            if settings.wanted != 0 {
                tell(skb, settings, program, verdict::DROPPED, *reason as u32);
            }
        }
        Ok(Handled::Pass) => {}
        Ok(handled) => {
            if skb.note::<{ note::FLAGS }>() & KEPT == 0 {
                return;
            }
            let Some(settings) = EVENT_SETTINGS.get(0) else {
                return;
            };
            let verdict = match handled {
                Handled::Consumed => verdict::CONSUMED,
                _ => verdict::FORWARDED,
            };
            tell(skb, settings, program, verdict, 0);
        }
    }
}

/// Decides whether a packet is told whatever becomes of it, and keeps its frame then.
#[inline(never)]
fn select(skb: &mut Skb, settings: &EventSettings) {
    let mut flags = settings.wanted & why::CAPTURE;
    // SAFETY: the helper takes and touches nothing.
    let random = unsafe { bpf_get_prandom_u32() };
    if settings.wanted & why::SAMPLE != 0 && random < settings.sample_below {
        flags |= why::SAMPLE;
    }
    if flags != 0 {
        keep(skb, settings, flags);
    }
}

#[inline(never)]
fn keep_new(skb: &mut Skb, settings: &EventSettings, causes: u32) {
    keep(skb, settings, causes);
}

/// Keeps the frame, if it has not been kept yet, and notes why.
#[inline(always)]
fn keep(skb: &mut Skb, settings: &EventSettings, flags: u32) {
    let Some(record) = EVENT_RECORDS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the slot is this CPU's own, and a TC program is not preempted by another one that
    // would use it; between two calls for one packet no other packet is handled on this CPU.
    let record = unsafe { &mut *record };
    if skb.note::<{ note::FLAGS }>() & KEPT == 0 {
        copy(skb, settings, record);
    }
    let outer = if skb.note::<{ note::FLAGS }>() & note::OUTER != 0 {
        KEPT_OUTER
    } else {
        0
    };
    skb.flag(flags | KEPT | outer);
}

/// Copies the frame's first bytes, and what else may change until the end.
#[inline(always)]
fn copy(skb: &Skb, settings: &EventSettings, record: &mut EventRecord) {
    let wanted =
        if settings.wanted & why::CAPTURE != 0 && settings.capture_bytes > settings.frame_bytes {
            settings.capture_bytes
        } else {
            settings.frame_bytes
        };
    let length = skb.len();
    record.event.length = length;
    record.event.segments = skb.segments() as u32;
    let wanted = if wanted < length { wanted } else { length };
    record.event.captured = skb.load_into(&mut record.frame, wanted) as u16;
}

/// Tells what became of a packet.
#[inline(never)]
fn tell(skb: &Skb, settings: &EventSettings, program: u32, verdict: u32, reason: u32) {
    let flags = skb.note::<{ note::FLAGS }>();
    let mut reasons = flags & (why::NEW | why::SAMPLE | why::CAPTURE | why::LOG) & settings.wanted;
    if verdict == verdict::DROPPED {
        reasons |= settings.wanted & why::DROP;
    }
    if reasons == 0 {
        return;
    }
    let (Some(record), Some(losses)) = (EVENT_RECORDS.get_ptr_mut(0), EVENT_LOSSES.get_ptr_mut(0))
    else {
        return;
    };
    // SAFETY: as in `keep`.
    let (record, losses) = unsafe { (&mut *record, &mut *losses) };
    // SAFETY: the helper takes and touches nothing.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    if reasons & !why::CAPTURE != 0 && !within_limit(losses, settings, time_ns) {
        reasons &= why::CAPTURE;
        if reasons == 0 {
            return;
        }
    }
    let outer = if flags & KEPT != 0 {
        flags & KEPT_OUTER
    } else {
        copy(skb, settings, record);
        flags & note::OUTER
    };
    let log = if reasons & why::LOG != 0 {
        record.event.log
    } else {
        0
    };
    let ifindex = skb.ifindex();
    let mut network = skb.note::<{ note::NETWORK }>();
    let mut source = 0;
    if program == program::FOREIGN {
        source = skb.priority();
    } else if program == program::ENDPOINT
        && let Some(endpoint) = ENDPOINTS.get(ifindex)
    {
        network = endpoint.network;
        source = endpoint.number;
    }
    let destination = skb.note::<{ note::DESTINATION }>();
    record.event = Event {
        time_ns,
        why: reasons,
        verdict,
        reason,
        program,
        ifindex,
        network,
        source,
        destination,
        node: skb.note::<{ note::NODE }>(),
        label: skb.note::<{ note::LABEL }>(),
        connection: flags >> CONNECTION_SHIFT & 3,
        outer: (program == program::UNDERLAY || outer != 0) as u16,
        log,
        wire: flags & WIRE,
        ..record.event
    };
    // Of what is dropped before its destination is looked up, and of what came through a tunnel,
    // whose source is another node's, user space picks by address.
    let ours = settings.capture_endpoint == 0
        || settings.capture_endpoint == source
        || settings.capture_endpoint == destination
        || source == 0
        || destination == 0;
    if reasons & why::CAPTURE != 0 && ours && !output(&CAPTURED, record, settings.capture_bytes) {
        losses.captured_full += 1;
    }
    // After the capture: it may carry less of the frame.
    if reasons & !why::CAPTURE != 0 && !output(&EVENTS, record, settings.frame_bytes) {
        losses.full += 1;
    }
}

/// Whether one more event may be told in this window; counts it when not.
#[inline(always)]
fn within_limit(losses: &mut EventLosses, settings: &EventSettings, time_ns: u64) -> bool {
    let window = time_ns >> WINDOW_SHIFT;
    if losses.window != window {
        losses.window = window;
        losses.in_window = 0;
    }
    if losses.in_window >= u64::from(settings.per_window) {
        losses.limited += 1;
        return false;
    }
    losses.in_window += 1;
    true
}

/// Puts an event with at most `bytes` of its frame into a ring buffer.
#[inline(always)]
fn output(ring: &aya_ebpf::maps::RingBuf, record: &mut EventRecord, bytes: u32) -> bool {
    let mut length = u32::from(record.event.captured);
    if length > bytes {
        length = bytes;
    }
    // Below the bound for the verifier, which does not follow the comparisons above.
    let length = length as usize & (2 * FRAME_BYTES_MAX - 1);
    let length = if length > FRAME_BYTES_MAX {
        FRAME_BYTES_MAX
    } else {
        length
    };
    record.event.captured = length as u16;
    let start = (record as *const EventRecord).cast::<u8>();
    // SAFETY: the record is one object of that many bytes and more.
    let bytes = unsafe { core::slice::from_raw_parts(start, EVENT_BYTES + length) };
    ring.output::<[u8]>(bytes, 0).is_ok()
}
