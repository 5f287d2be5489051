//! Flows of local endpoints: found, remembered, and kept up to date by the packets that pass.
//!
//! A flow is in one of two maps of its family. `FLOWS` holds what there is room for and forgets
//! nothing by itself: the agent removes what is over or was not heard of for long. When it is full,
//! new flows go to `OVERFLOW`, which forgets what was not heard of longest; so a flood of new flows
//! fights with itself for room, and never takes that of a connection that is there.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_jiffies64,
    maps::{HashMap, LruHashMap},
};
use sunwire_dataplane_common::{
    flow::{Direction, FlowEntry, SEEN_EVERY, TupleV4, TupleV6, events, kind},
    headers::{Family, Headers},
};

use crate::{
    counters,
    maps::{FLOW_KEY, FLOWS_V4, FLOWS_V6, OVERFLOW_V4, OVERFLOW_V6, OVERFLOWED, SCRATCH},
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
            let key = TupleV4::new(network, headers, direction);
            look_up(&FLOWS_V4, &OVERFLOW_V4, &key)
        }
        Family::V6 => find_v6(network, headers, direction),
        Family::None => None,
    }
}

// A function of its own: most flows are of the other family.
#[inline(never)]
fn find_v6(network: u32, headers: &Headers, direction: Direction) -> Option<Entry> {
    let key = key_v6(network, headers, direction)?;
    look_up(&FLOWS_V6, &OVERFLOW_V6, key)
}

/// The key of an IPv6 packet, in memory of this CPU: the stack is short.
#[inline(always)]
fn key_v6(network: u32, headers: &Headers, direction: Direction) -> Option<&'static TupleV6> {
    let key = FLOW_KEY.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there, and
    // uses the key before it makes the next one.
    let key = unsafe { &mut *key };
    key.fill(network, headers, direction);
    Some(key)
}

#[inline(always)]
fn look_up<K>(
    flows: &'static HashMap<K, FlowEntry>,
    overflow: &'static LruHashMap<K, FlowEntry>,
    key: &K,
) -> Option<Entry> {
    let entry = match flows.get_ptr_mut(key) {
        Some(entry) => entry,
        None if is_overflowing() => overflow.get_ptr_mut(key)?,
        None => return None,
    };
    // SAFETY: the map's value stays valid memory until the program ends, its fields are plain
    // numbers, and of two programs that use it at once each writes the fields of its direction.
    Some(unsafe { &mut *entry })
}

/// Whether there was no room lately.
#[inline(always)]
fn is_overflowing() -> bool {
    OVERFLOWED.get(0).is_some_and(|word| *word != 0)
}

/// Remembers a new flow, unless it is there; tells whether it is now.
// A function of its own, like `forget`: keys of two families are large, and most packets need none.
#[inline(never)]
pub(crate) fn remember(
    network: u32,
    headers: &Headers,
    direction: Direction,
    entry: &FlowEntry,
) -> bool {
    match headers.family {
        Family::V4 => {
            let key = TupleV4::new(network, headers, direction);
            insert(&FLOWS_V4, &OVERFLOW_V4, &key, entry)
        }
        Family::V6 => {
            let Some(key) = key_v6(network, headers, direction) else {
                return false;
            };
            insert(&FLOWS_V6, &OVERFLOW_V6, key, entry)
        }
        Family::None => false,
    }
}

const EEXIST: i64 = -17;

#[inline(always)]
fn insert<K>(
    flows: &'static HashMap<K, FlowEntry>,
    overflow: &'static LruHashMap<K, FlowEntry>,
    key: &K,
    entry: &FlowEntry,
) -> bool {
    let flags = u64::from(BPF_NOEXIST);
    match flows.insert(key, entry, flags) {
        Ok(()) => return true,
        Err(error) if error as i64 == EEXIST => return false,
        Err(_) => {}
    }
    if let Some(word) = OVERFLOWED.get_ptr_mut(0) {
        // SAFETY: a word of an array, of which every writer writes the same.
        unsafe { *word = 1 };
    }
    counters::overflowed();
    overflow.insert(key, entry, flags).is_ok()
}

/// Forgets a flow.
#[inline(never)]
pub(crate) fn forget(network: u32, headers: &Headers, direction: Direction) {
    // Not there: then there is nothing to forget.
    match headers.family {
        Family::V4 => {
            let key = TupleV4::new(network, headers, direction);
            let _ = FLOWS_V4.remove(&key);
            let _ = OVERFLOW_V4.remove(&key);
        }
        Family::V6 => {
            if let Some(key) = key_v6(network, headers, direction) {
                let _ = FLOWS_V6.remove(key);
                let _ = OVERFLOW_V6.remove(key);
            }
        }
        Family::None => {}
    }
}

/// Memory of this CPU for an entry that is being made: the stack is short.
#[inline(always)]
pub(crate) fn scratch() -> Option<Entry> {
    let entry = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
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
    entry.shape = fresh.shape;
    entry.bucket = fresh.bucket;
    entry.original_port = fresh.original_port;
    entry.sent |= fresh.sent;
    entry.seen = fresh.seen;
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
    entry.kind = kind::FLOW;
    entry.sent = 0;
    entry.received = events(headers);
    entry.original_port = 0;
    entry.bucket = 0;
    remember(network, headers, Direction::Received, entry);
}
