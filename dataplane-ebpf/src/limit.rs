//! Rates: see `sunwire_dataplane_common::limit`.
//!
//! A packet takes from a bucket only when the policy's decision about it depends on that. Several
//! CPUs take from one bucket by compare-and-swap, so nothing taken is lost; a packet that loses
//! [`TRIES`] times in a row is charged and admitted, so at most one packet for each CPU passes beyond
//! the bucket.

use core::arch::asm;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::bpf_ktime_get_ns,
};
use sunwire_dataplane_common::{
    limit::{Limit, LimitKey, take, time},
    tables::RootKey,
};

use crate::{
    frame::{self, Skb},
    maps::{LIMIT_BUCKETS, LIMIT_KEY, LIMIT_LOSSES, LIMIT_SHARED, ROOTS},
};

/// Attempts at a bucket that other CPUs take from, too.
const TRIES: u32 = 4;
/// Buckets that are shared when there is no room, by network and rate.
const SHARED_MASK: u32 = 0x3ff;

/// Whether the rate of a network's policy admits the packet at hand, which then has taken from its
/// bucket.
#[inline(always)]
pub(crate) fn admits(skb: &mut Skb, endpoint: u32, network: u32, generation: u32) -> bool {
    let is_traced = u32::from(skb.is_traced());
    take_token(skb.raw(), endpoint, network, generation, is_traced) != 0
}

/// A global function, which the verifier looks at once: see `classify::walk_tables`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_token(
    context: *mut __sk_buff,
    endpoint: u32,
    network: u32,
    generation: u32,
    is_traced: u32,
) -> u32 {
    let skb = Skb::from_raw(context, is_traced != 0);
    let Some(parsed) = frame::parsed() else {
        return 0;
    };
    let root_key = RootKey {
        network,
        generation,
    };
    // SAFETY: a root is replaced whole and freed only after a grace period.
    let Some(root) = (unsafe { ROOTS.get(root_key) }) else {
        return 0;
    };
    let limit = root.limit;
    if limit.per_second() == 0 {
        return 1;
    }
    let Some(key) = LIMIT_KEY.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there.
    let key = unsafe { &mut *key };
    key.fill(network, endpoint, limit, &parsed.headers);
    u32::from(take_from(&skb, key, limit))
}

/// The bucket that a limiter's packets share when there is no room for their own.
#[inline(always)]
fn shared(key: &LimitKey) -> u32 {
    (key.network.wrapping_mul(31) ^ key.rate[0] ^ key.key) & SHARED_MASK
}

#[inline(always)]
fn take_from(skb: &Skb, key: &LimitKey, limit: Limit) -> bool {
    let cost = limit.cost(skb.segments(), u64::from(skb.len()));
    let depth = limit.depth();
    // SAFETY: the helper takes and touches nothing.
    let now = time(unsafe { bpf_ktime_get_ns() });
    let found = match LIMIT_BUCKETS.get_ptr_mut(key) {
        Some(bucket) => Some(bucket),
        None if skb.is_traced() => return true,
        None => {
            let full_at = now + cost;
            if LIMIT_BUCKETS
                .insert(key, &full_at, u64::from(BPF_NOEXIST))
                .is_ok()
            {
                return true;
            }
            // Another CPU was first, or there is no room.
            LIMIT_BUCKETS.get_ptr_mut(key)
        }
    };
    let bucket = match found {
        Some(bucket) => bucket,
        None => {
            if let Some(losses) = LIMIT_LOSSES.get_ptr_mut(0) {
                // SAFETY: the value is this CPU's own.
                unsafe { *losses += 1 };
            }
            match LIMIT_SHARED.get_ptr_mut(shared(key)) {
                Some(bucket) => bucket,
                None => return false,
            }
        }
    };
    // SAFETY: an aligned word of a map, which stays valid memory until the program ends; others read
    // and write it whole.
    let mut seen = unsafe { bucket.read_volatile() };
    for _ in 0..TRIES {
        let Some(next) = take(seen, now, cost, depth) else {
            return false;
        };
        if skb.is_traced() {
            return true;
        }
        // SAFETY: as above.
        let before = unsafe { compare_and_swap(bucket, seen, next) };
        if before == seen {
            return true;
        }
        seen = before;
    }
    // SAFETY: as above.
    unsafe { add(bucket, cost) };
    true
}

/// Writes `new` to a word that holds `old`, at once; returns what it held.
///
/// In assembly: the library has no such operation for this target, which can do it since Linux 5.12.
///
/// # Safety
/// `word` is an aligned word of a map's value.
#[inline(always)]
unsafe fn compare_and_swap(word: *mut u64, old: u64, new: u64) -> u64 {
    let mut held = old;
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") held,
            options(nostack),
        );
    }
    held
}

/// Adds to a word, at once.
///
/// # Safety
/// As for [`compare_and_swap`].
#[inline(always)]
unsafe fn add(word: *mut u64, more: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {more}",
            word = in(reg) word,
            more = in(reg) more,
            options(nostack),
        );
    }
}
