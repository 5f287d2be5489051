//! Per-CPU counters by drop reason and by label.

use aya_ebpf::maps::PerCpuArray;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{Counter, direction},
    punt::Kind,
};

use crate::{
    frame::{Skb, note},
    maps::{
        COPY_COUNTERS, DROP_COUNTERS, LABEL_COUNTERS, OVERFLOW_COUNTER, PUNT_COUNTERS,
        TUNNEL_COUNTERS, VERDICTS,
    },
};

/// Counts a packet that was dropped.
#[inline(always)]
pub(crate) fn dropped(skb: &Skb, reason: DropReason) {
    count(&DROP_COUNTERS, reason as u32, skb);
}

/// Counts a packet under the label of the rule that decided.
#[inline(always)]
pub(crate) fn labelled(skb: &mut Skb, label: u32) {
    skb.set_note::<{ note::LABEL }>(label + 1);
    count(&LABEL_COUNTERS, label, skb);
}

/// Counts a packet under the names that the verdict in a slot of `VERDICTS` counts it by.
// A function of its own: few policies count by name.
#[inline(never)]
pub(crate) fn named(skb: &Skb, slot: u32) {
    let Some(verdict) = VERDICTS.get(slot) else {
        return;
    };
    for slot in verdict.counts {
        if slot == 0 {
            break;
        }
        count(&LABEL_COUNTERS, slot - 1, skb);
    }
}

/// Counts a packet that asks something of the node.
#[inline(always)]
pub(crate) fn asked(skb: &Skb, kind: Kind) {
    count(&PUNT_COUNTERS, kind as u32, skb);
}

/// Counts a copy of a packet that goes to several endpoints.
#[inline(always)]
pub(crate) fn copied(skb: &Skb, slot: u32) {
    count(&COPY_COUNTERS, slot, skb);
}

/// Counts a packet that goes to another node or came from it; its outer headers, so many bytes, are on.
#[inline(always)]
pub(crate) fn tunnelled(skb: &Skb, node: u32, direction: u32, outer: usize) {
    if skb.is_traced() {
        return;
    }
    let slot = node.wrapping_mul(direction::ALL).wrapping_add(direction);
    if let Some(counter) = TUNNEL_COUNTERS.get_ptr_mut(slot) {
        // SAFETY: the value is this CPU's own, as in `count`.
        unsafe {
            (*counter).packets += skb.segments();
            (*counter).bytes += u64::from(skb.len() - outer as u32);
        }
    }
}

/// Counts a flow for which there was no room.
#[inline(always)]
pub(crate) fn overflowed() {
    if let Some(counter) = OVERFLOW_COUNTER.get_ptr_mut(0) {
        // SAFETY: the value is this CPU's own, as in `count`.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn count(map: &PerCpuArray<Counter>, slot: u32, skb: &Skb) {
    if skb.is_traced() {
        return;
    }
    if let Some(counter) = map.get_ptr_mut(slot) {
        // SAFETY: the slot is this CPU's own, and a TC program is not preempted by another one
        // that would count on the same CPU.
        unsafe { add(counter, skb) };
    }
}

/// Adds a packet to a counter.
///
/// # Safety
/// `counter` is valid, and nobody else uses it meanwhile.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut Counter, skb: &Skb) {
    // SAFETY: the caller's promise.
    unsafe { add_to(counter, skb.segments(), skb.len()) };
}

/// Adds packets to a counter, which have so many bytes together.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
pub(crate) unsafe fn add_to(counter: *mut Counter, packets: u64, bytes: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        (*counter).packets += packets;
        (*counter).bytes += u64::from(bytes);
    }
}
