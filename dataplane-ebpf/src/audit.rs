//! What the staged policy would have done with a packet, counted and nothing else: the verdict is
//! taken, and no outcome here changes it.

use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use sunwire_dataplane_common::{
    audit::{AuditKey, AuditLoss, NO_LABEL, allowed},
    entries::Counter,
    flow::FlowEntry,
    headers::Headers,
    tables::RootKey,
};

use crate::{
    classify::{self, BAD_TABLES, NO_POLICY},
    counters, decision, endpoint,
    frame::{self, Skb},
    maps::{AUDIT, CONTROL, STAGED_ROOTS, VERDICTS},
};

/// What a count begins with; not on the stack, which is short.
static NOTHING: Counter = Counter {
    packets: 0,
    bytes: 0,
};

/// Counts the packet at hand under what the policy in force says of it, `decided`, and what the staged
/// policy of its network says; `number` is `Control::staged`, and `state` of [`classify::preset`].
#[inline(always)]
pub(crate) fn count(skb: &mut Skb, number: u32, state: u32, decided: u32) {
    if number == 0 || decided == BAD_TABLES || skb.is_traced() {
        return;
    }
    count_staged(skb.raw(), number, state, decided);
}

/// The same for a packet whose verdict is remembered.
#[inline(always)]
pub(crate) fn count_remembered(skb: &mut Skb, headers: &Headers, flow: &FlowEntry) {
    if let Some(control) = CONTROL.get(0)
        && control.staged != 0
    {
        let state = decision::state_of(flow, headers);
        count(skb, control.staged, state, u32::from(flow.verdict));
    }
}

/// A global function, which the verifier looks at once: see `classify::walk_tables`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_staged(context: *mut __sk_buff, number: u32, state: u32, decided: u32) -> u32 {
    let skb = Skb::from_raw(context, false);
    let sender = endpoint::sender(skb.ifindex(), skb.priority());
    let (Some(parsed), Some(endpoint)) = (frame::parsed(), sender) else {
        return 0;
    };
    let staged = classify::staged(&parsed.headers, endpoint, number, endpoint.node, state);
    compare(&skb, endpoint.network, number, decided, staged.slot);
    0
}

/// Counts a packet under two verdicts, slots of `VERDICTS`.
#[inline(never)]
fn compare(skb: &Skb, network: u32, number: u32, decided: u32, staged: u32) {
    let root_key = RootKey {
        network,
        generation: number,
    };
    // SAFETY: a root is freed only after a grace period.
    let Some(root) = (unsafe { STAGED_ROOTS.get(root_key) }) else {
        return;
    };
    let mut key = AuditKey {
        revision: root.revision,
        network,
        live_label: NO_LABEL,
        staged_label: 0,
        allowed: 0,
    };
    if decided != NO_POLICY {
        let Some(verdict) = VERDICTS.get(decided) else {
            return;
        };
        key.live_label = verdict.label;
        if verdict.copies != 0 {
            key.allowed |= allowed::LIVE;
        }
    }
    let Some(verdict) = VERDICTS.get(staged) else {
        key = AuditKey::lost(network, root.revision, AuditLoss::BadTables);
        let _ = increment(skb, &key);
        return;
    };
    key.staged_label = verdict.label;
    if verdict.copies != 0 {
        key.allowed |= allowed::STAGED;
    }
    if increment(skb, &key) {
        return;
    }
    // Another CPU may be first; what counts is whether the pair is there afterwards.
    let _ = AUDIT.insert(&key, &NOTHING, u64::from(BPF_NOEXIST));
    if !increment(skb, &key) {
        // This key is there for as long as the candidate is staged.
        key = AuditKey::lost(network, root.revision, AuditLoss::Full);
        let _ = increment(skb, &key);
    }
}

/// Adds a packet to what is there under a key; tells whether it is there.
#[inline(always)]
fn increment(skb: &Skb, key: &AuditKey) -> bool {
    let Some(counter) = AUDIT.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: the value is this CPU's own, as in `counters::count`; a key is deleted only when its
    // candidate is staged no more, after a grace period.
    unsafe { counters::add(counter, skb) };
    true
}
