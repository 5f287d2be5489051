//! Flows of local endpoints: found, remembered, and kept up to date by the packets that pass.
//!
//! A flow is in a line of the table ([`flow_table`](sunwire_dataplane_common::flow_table)), which holds
//! what there is room for and forgets nothing by itself: the agent removes what is over or was not
//! heard of for long. When all lines that it may have are taken, a new flow goes to `OVERFLOW`, which
//! forgets what was not heard of longest; so a flood of new flows fights with itself for room, and
//! never takes that of a connection that is there.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_jiffies64};
use sunwire_dataplane_common::{
    flow::{Direction, FlowEntry, SEEN_EVERY, TupleV4, events, tag},
    flow_table::is_live,
    headers::{Family, Headers},
};

use crate::{
    counters, lines,
    maps::{OVERFLOW_V4, OVERFLOW_V6, OVERFLOWED, SCRATCH},
};

/// A flow that is there. The programs run to their end on one CPU, and each direction of a flow
/// writes fields of its own.
pub(crate) type Entry = &'static mut FlowEntry;

/// Jiffies, of which 32 bits are kept.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: no pointers are passed.
    unsafe { bpf_jiffies64() as u32 }
}

/// The flow that a packet belongs to.
#[inline(always)]
pub(crate) fn find(network: u32, headers: &Headers, direction: Direction) -> Option<Entry> {
    match headers.family {
        Family::V4 => {
            let key = TupleV4::new(network, headers, direction).line_key();
            let geometry = lines::geometry()?;
            let line = lines::line(geometry.place(key).home & geometry.mask)?;
            let tag = lines::tag_of(line);
            if is_live(tag, tag::V4) && line.key == key {
                return Some(&mut line.entry);
            }
            if tag < tag::PASSED && !is_overflowing() {
                return None;
            }
        }
        Family::V6 => {}
        Family::None => return None,
    }
    // Few packets come here but those of IPv6. The key is made anew: kept, it would take stack.
    if !lines::want(network, headers, direction) {
        return None;
    }
    match lines::line(lines::flow_slot(lines::OF_PACKET)) {
        Some(line) => Some(&mut line.entry),
        None => find_beside(),
    }
}

/// The flow that is wanted, where others make way for it.
#[inline(never)]
fn find_beside() -> Option<Entry> {
    if !is_overflowing() {
        return None;
    }
    let wanted = lines::wanted(lines::OF_PACKET)?;
    let entry = match wanted.family {
        tag::V4 => OVERFLOW_V4.get_ptr_mut(&wanted.tuple_v4)?,
        _ => OVERFLOW_V6.get_ptr_mut(&wanted.tuple_v6)?,
    };
    // SAFETY: the map's value stays valid memory until the program ends, its fields are plain
    // numbers, and of two programs that use it at once each writes the fields of its direction.
    Some(unsafe { &mut *entry })
}

/// Whether there was no room lately.
#[inline(always)]
pub(crate) fn is_overflowing() -> bool {
    OVERFLOWED.get(0).is_some_and(|word| *word != 0)
}

/// Remembers the flow of a packet with the entry of [`scratch`], unless it is there; tells whether
/// it is new.
// Not a function of its own: it is called from deep down, where each takes stack.
#[inline(always)]
pub(crate) fn remember(network: u32, headers: &Headers, direction: Direction) -> bool {
    if !lines::want(network, headers, direction) {
        return false;
    }
    match lines::flow_add(lines::OF_PACKET) {
        lines::ADDED => true,
        lines::THERE => false,
        _ => overflow(),
    }
}

/// Remembers the flow of a packet that finds no line free.
#[inline(never)]
fn overflow() -> bool {
    counters::overflowed();
    remember_beside(lines::OF_PACKET, u64::from(BPF_NOEXIST))
}

/// Remembers the flow that is wanted where others make way for it.
#[inline(always)]
pub(crate) fn remember_beside(which: u32, flags: u64) -> bool {
    if let Some(word) = OVERFLOWED.get_ptr_mut(0) {
        // SAFETY: a word of an array, of which every writer writes the same.
        unsafe { *word = 1 };
    }
    let (Some(wanted), Some(entry)) = (lines::wanted(which), scratch_of(which)) else {
        return false;
    };
    entry.tag = entry.tag & tag::ALIAS | wanted.family | tag::TAKEN;
    let added = match wanted.family {
        tag::V4 => OVERFLOW_V4.insert(&wanted.tuple_v4, &*entry, flags),
        _ => OVERFLOW_V6.insert(&wanted.tuple_v6, &*entry, flags),
    };
    added.is_ok()
}

/// Forgets a flow.
#[inline(never)]
pub(crate) fn forget(network: u32, headers: &Headers, direction: Direction) {
    if lines::want(network, headers, direction) {
        forget_wanted(lines::OF_PACKET);
    }
}

/// Forgets the flow that is wanted; returns whether it was there.
#[inline(always)]
pub(crate) fn forget_wanted(which: u32) -> bool {
    let mut was_there = false;
    if let Some(line) = lines::line(lines::flow_slot(which)) {
        was_there = lines::kill(line);
    }
    if is_overflowing()
        && let Some(wanted) = lines::wanted(which)
    {
        let removed = match wanted.family {
            tag::V4 => OVERFLOW_V4.remove(&wanted.tuple_v4),
            _ => OVERFLOW_V6.remove(&wanted.tuple_v6),
        };
        was_there |= removed.is_ok();
    }
    was_there
}

/// Memory of this CPU for an entry that is being made: the stack is short.
#[inline(always)]
pub(crate) fn scratch() -> Option<Entry> {
    scratch_of(lines::OF_PACKET)
}

/// The same for packets or for the agent's programs.
#[inline(always)]
pub(crate) fn scratch_of(which: u32) -> Option<Entry> {
    let entry = SCRATCH.get_ptr_mut(which)?;
    // SAFETY: as for `lines::wanted`.
    Some(unsafe { &mut *entry })
}

/// Notes a packet that the local endpoint sent.
#[inline(always)]
pub(crate) fn note_sent(entry: &mut FlowEntry, headers: &Headers) {
    let events = events(headers);
    if entry.sent & events != events {
        entry.sent |= events;
    }
    note_time(entry);
}

/// Notes a packet that is delivered to the local endpoint.
#[inline(always)]
pub(crate) fn note_received(entry: &mut FlowEntry, headers: &Headers) {
    let events = events(headers);
    if entry.begins_anew(headers) {
        // The other side begins a connection with the ports of one that is over: what was seen of
        // that one would end this one early.
        entry.sent = 0;
        entry.received = 0;
    }
    if entry.received & events != events {
        entry.received |= events;
    }
    note_time(entry);
}

#[inline(always)]
fn note_time(entry: &mut FlowEntry) {
    let now = now();
    if now.wrapping_sub(entry.seen) >= SEEN_EVERY {
        entry.seen = now;
    }
}

/// Remembers a new verdict in an entry that is there; what was sent and received stays, unless a
/// connection begins anew.
#[inline(always)]
pub(crate) fn remember_verdict(entry: &mut FlowEntry, headers: &Headers, fresh: &FlowEntry) {
    // Whoever reads it meanwhile on another CPU finds no verdict, or the whole one.
    entry.generation = 0;
    if entry.begins_anew(headers) {
        entry.sent = 0;
        entry.received = 0;
    }
    compiler_fence(Ordering::SeqCst);
    entry.signature = fresh.signature;
    entry.mask = fresh.mask;
    entry.verdict = fresh.verdict;
    entry.label = fresh.label;
    entry.location = fresh.location;
    entry.tunnel_port = fresh.tunnel_port;
    entry.keep_bucket(fresh.bucket);
    entry.original_port = fresh.original_port;
    entry.sent |= fresh.sent;
    entry.seen = fresh.seen;
    compiler_fence(Ordering::SeqCst);
    entry.generation = fresh.generation;
}

/// Becomes another entry of the same kind, all but the tag.
#[inline(always)]
pub(crate) fn overwrite(entry: &mut FlowEntry, fresh: &FlowEntry) {
    entry.generation = 0;
    compiler_fence(Ordering::SeqCst);
    entry.signature = fresh.signature;
    entry.mask = fresh.mask;
    entry.label = fresh.label;
    entry.location = fresh.location;
    entry.local = fresh.local;
    entry.remote = fresh.remote;
    entry.seen = fresh.seen;
    entry.bucket = fresh.bucket;
    entry.verdict = fresh.verdict;
    entry.tunnel_port = fresh.tunnel_port;
    entry.original_port = fresh.original_port;
    entry.sent = fresh.sent;
    entry.received = fresh.received;
    compiler_fence(Ordering::SeqCst);
    entry.generation = fresh.generation;
}

/// Remembers that a packet was delivered to an endpoint which had no such flow.
#[inline(never)]
pub(crate) fn remember_received(headers: &Headers, network: u32, local: u32, remote: u32) {
    let Some(entry) = scratch() else {
        return;
    };
    entry.generation = 0;
    entry.local = local;
    entry.remote = remote;
    entry.seen = now();
    entry.tag = 0;
    entry.sent = 0;
    entry.received = events(headers);
    entry.original_port = 0;
    entry.bucket = 0;
    remember(network, headers, Direction::Received);
}
