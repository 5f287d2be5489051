//! All flows one after the other, for the agent: those that are over are forgotten, those that it
//! wants to know are told.
//!
//! The kernel calls a function of ours for each entry of a map, so that the agent needs one system
//! call for a map and not two for an entry. Packets are handled meanwhile; a flow that one of them
//! touches just when it is forgotten begins anew.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP},
    helpers::{bpf_for_each_map_elem, bpf_ktime_get_ns},
    maps::{HashMap, LruHashMap},
};
use sunwire_dataplane_common::{
    address::Address,
    entries::{EndpointEntry, location},
    expiry::{Ending, FlowRecord, Sweep, ended, part, take},
    flow::{FlowEntry, Phase, TupleV4, TupleV6, kind},
    headers::{PROTOCOL_TCP, PROTOCOL_UDP},
    limit::{BUCKETS, LimitKey, time},
};

use crate::{
    deliver, flow,
    maps::{
        ENDPOINTS, FLOW_RECORDS, FLOWS_V4, FLOWS_V6, LIMIT_BUCKETS, OVERFLOW_V4, OVERFLOW_V6, SWEEP,
    },
};

/// What the kernel calls for each entry: map, key, value, and what the caller gave.
type Visit = extern "C" fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void) -> i64;
/// Go on with the next entry.
const GO_ON: i64 = 0;

/// Which flows the agent wants.
pub(crate) struct Selection {
    /// Number of their endpoint; zero for all.
    pub(crate) local: u32,
    /// One part of `parts`.
    pub(crate) part: u32,
    /// Into how many parts flows are divided.
    pub(crate) parts: u32,
    /// Not zero to forget them instead.
    pub(crate) forgets: u32,
    /// How many there were.
    pub(crate) found: u32,
}

/// Goes through one map: `FLOWS` by 4 or 6, `OVERFLOW` by 104 or 106, `LIMIT_BUCKETS` by [`BUCKETS`]. Returns zero, unless the kernel
/// cannot.
#[inline(always)]
pub(crate) fn sweep(map: u64) -> u32 {
    let nothing = core::ptr::null_mut();
    let visited = match map {
        4 => visit(&FLOWS_V4, sweep_v4, nothing),
        6 => visit(&FLOWS_V6, sweep_v6, nothing),
        104 => visit(&OVERFLOW_V4, sweep_overflow_v4, nothing),
        106 => visit(&OVERFLOW_V6, sweep_overflow_v6, nothing),
        BUCKETS => visit(&LIMIT_BUCKETS, sweep_bucket, nothing),
        _ => -1,
    };
    u32::from(visited < 0)
}

/// Tells or forgets flows; returns how many there were.
#[inline(always)]
pub(crate) fn select(mut selection: Selection) -> u32 {
    let wanted = (&raw mut selection).cast();
    visit(&FLOWS_V4, select_v4, wanted);
    visit(&OVERFLOW_V4, select_v4, wanted);
    visit(&FLOWS_V6, select_v6, wanted);
    visit(&OVERFLOW_V6, select_v6, wanted);
    // SAFETY: it is here; the visits wrote to it.
    unsafe { (&raw const selection.found).read_volatile() }
}

#[inline(always)]
fn visit<M>(map: &'static M, each: Visit, with: *mut c_void) -> i64 {
    let map = core::ptr::from_ref(map).cast_mut().cast();
    // SAFETY: the verifier checks `each` with the map's own keys and values.
    unsafe { bpf_for_each_map_elem(map, each as *mut c_void, with, 0) }
}

/// A bucket that is full is the same as none.
extern "C" fn sweep_bucket(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    // SAFETY: the kernel hands over a key and a value of the map; the helper takes nothing.
    let (key, full_at, now) = unsafe {
        (
            &*key.cast::<LimitKey>(),
            value.cast::<u64>().read_volatile(),
            time(bpf_ktime_get_ns()),
        )
    };
    if full_at <= now {
        // Gone already: then somebody else forgot it.
        let _ = LIMIT_BUCKETS.remove(key);
    }
    GO_ON
}

extern "C" fn sweep_v4(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_one::<TupleV4>(&FLOWS_V4, key, value)
}

extern "C" fn sweep_v6(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_one::<TupleV6>(&FLOWS_V6, key, value)
}

extern "C" fn sweep_overflow_v4(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_overflow::<TupleV4>(&FLOWS_V4, &OVERFLOW_V4, key, value)
}

extern "C" fn sweep_overflow_v6(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_overflow::<TupleV6>(&FLOWS_V6, &OVERFLOW_V6, key, value)
}

/// Keys of flows, of either family.
trait Tuple: Sized + 'static {
    /// Network and protocol.
    fn network_protocol(&self) -> u32;
    /// Whether a flow with this key is there; `alias` is the key and entry of an alias of it, and
    /// `own` its endpoint.
    fn flow_of(&self, alias: &FlowEntry, own: &EndpointEntry) -> bool;
}

/// The ports of a flow, by those of an alias of it.
#[inline(always)]
fn ports_of_flow(network_protocol: u32, ports: u32, alias: &FlowEntry) -> u32 {
    match network_protocol as u8 {
        PROTOCOL_TCP | PROTOCOL_UDP => alias.bucket << 16 | u32::from(alias.original_port),
        // Identifiers of echoes stay as they are.
        _ => ports,
    }
}

impl Tuple for TupleV4 {
    #[inline(always)]
    fn network_protocol(&self) -> u32 {
        self.network_protocol
    }

    #[inline(always)]
    fn flow_of(&self, alias: &FlowEntry, own: &EndpointEntry) -> bool {
        let key = TupleV4 {
            network_protocol: self.network_protocol,
            local: own.ipv4.0[0],
            remote: alias.original.0[0],
            ports: ports_of_flow(self.network_protocol, self.ports, alias),
        };
        FLOWS_V4.get_ptr(key).is_some() || OVERFLOW_V4.get_ptr(key).is_some()
    }
}

impl Tuple for TupleV6 {
    #[inline(always)]
    fn network_protocol(&self) -> u32 {
        self.network_protocol
    }

    #[inline(always)]
    fn flow_of(&self, alias: &FlowEntry, own: &EndpointEntry) -> bool {
        let key = TupleV6 {
            network_protocol: self.network_protocol,
            local: own.ipv6,
            remote: alias.original,
            ports: ports_of_flow(self.network_protocol, self.ports, alias),
        };
        FLOWS_V6.get_ptr(key).is_some() || OVERFLOW_V6.get_ptr(key).is_some()
    }
}

/// Whether an entry is an alias of a flow that is there: it hears of answers alone, and is needed for
/// as long as the flow is.
#[inline(always)]
fn is_of_flow<K: Tuple>(key: &K, entry: &FlowEntry) -> bool {
    if entry.kind != kind::ALIAS {
        return false;
    }
    let Some(location) = deliver::location(entry.local, key.network_protocol() >> 8) else {
        return false;
    };
    // Before its device is here, its flows may still be on their way.
    location.flags & location::EXPECTED != 0
        && ENDPOINTS
            .get(location.ifindex)
            .filter(|own| location.ifindex != 0 && own.network != 0)
            .is_none_or(|own| key.flow_of(entry, own))
}

/// The limits and counts of the sweep that runs.
#[inline(always)]
fn limits() -> Option<&'static mut Sweep> {
    let sweep = SWEEP.get_ptr_mut(0)?;
    // SAFETY: the agent lets one sweep run at a time, and reads it afterwards.
    Some(unsafe { &mut *sweep })
}

/// Why an entry is to be forgotten, if it is.
#[inline(always)]
fn verdict<K: Tuple>(key: &K, entry: &FlowEntry, sweep: &Sweep) -> Option<Ending> {
    if is_of_flow(key, entry) {
        return None;
    }
    let network_protocol = key.network_protocol();
    let network = network_protocol >> 8;
    let is_expected = deliver::location(entry.local, network)
        .is_some_and(|location| location.flags & location::EXPECTED != 0);
    ended(
        entry,
        network_protocol as u8,
        flow::now(),
        is_expected,
        sweep,
    )
}

#[inline(always)]
fn count(sweep: &mut Sweep, ending: Ending) {
    match ending {
        Ending::Silent => sweep.ended[0] += 1,
        Ending::Closed => sweep.ended[1] += 1,
        Ending::Pressure => sweep.ended[2] += 1,
        Ending::Gone => sweep.ended[3] += 1,
    }
}

#[inline(always)]
fn sweep_one<K: Tuple>(
    flows: &'static HashMap<K, FlowEntry>,
    key: *mut c_void,
    value: *mut c_void,
) -> i64 {
    let Some(sweep) = limits() else {
        return GO_ON;
    };
    // SAFETY: the kernel hands over a key and a value of the map.
    let (key, entry) = unsafe { (&*key.cast::<K>(), &*value.cast::<FlowEntry>()) };
    match verdict(key, entry, sweep) {
        Some(ending) => {
            // Gone already: then somebody else forgot it.
            let _ = flows.remove(key);
            count(sweep, ending);
        }
        None => sweep.kept += 1,
    }
    GO_ON
}

#[inline(always)]
fn sweep_overflow<K: Tuple>(
    flows: &'static HashMap<K, FlowEntry>,
    overflow: &'static LruHashMap<K, FlowEntry>,
    key: *mut c_void,
    value: *mut c_void,
) -> i64 {
    let Some(sweep) = limits() else {
        return GO_ON;
    };
    // SAFETY: as in `sweep_one`.
    let (key, entry) = unsafe { (&*key.cast::<K>(), &*value.cast::<FlowEntry>()) };
    if let Some(ending) = verdict(key, entry, sweep) {
        let _ = overflow.remove(key);
        count(sweep, ending);
        return GO_ON;
    }
    let is_wanted = match sweep.take {
        take::ALL => true,
        take::BOTH_WAYS => entry.kind == kind::ALIAS || !matches!(entry.phase(), Phase::OneWay),
        _ => false,
    };
    if is_wanted && sweep.room > 0 && flows.insert(key, entry, u64::from(BPF_NOEXIST)).is_ok() {
        // From here on packets find it there.
        let _ = overflow.remove(key);
        sweep.room -= 1;
        sweep.taken += 1;
    } else {
        sweep.kept += 1;
    }
    GO_ON
}

extern "C" fn select_v4(
    map: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    with: *mut c_void,
) -> i64 {
    // SAFETY: as in `sweep_one`, and `with` is what `select` gave.
    let (tuple, entry, selection) = unsafe {
        (
            &*key.cast::<TupleV4>(),
            &*value.cast::<FlowEntry>(),
            &mut *with.cast::<Selection>(),
        )
    };
    if !is_selected(selection, entry, tuple.local, tuple.remote, tuple.ports) {
        return GO_ON;
    }
    if selection.forgets != 0 {
        forget(map, key);
        return GO_ON;
    }
    let Some(mut record) = FLOW_RECORDS.reserve::<FlowRecord>(0) else {
        return GO_ON;
    };
    // SAFETY: the reserved memory is of a record's size; every field is written.
    unsafe {
        let record = record.as_mut_ptr();
        (*record).family = 4;
        (*record).key.network_protocol = tuple.network_protocol;
        (*record).key.ports = tuple.ports;
        (*record).key.local = Address([tuple.local, 0, 0, 0]);
        (*record).key.remote = Address([tuple.remote, 0, 0, 0]);
        (*record).entry = *entry;
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
    GO_ON
}

extern "C" fn select_v6(
    map: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    with: *mut c_void,
) -> i64 {
    // SAFETY: as in `select_v4`.
    let (tuple, entry, selection) = unsafe {
        (
            &*key.cast::<TupleV6>(),
            &*value.cast::<FlowEntry>(),
            &mut *with.cast::<Selection>(),
        )
    };
    let (local, remote) = (tuple.local.0[3], tuple.remote.0[3]);
    if !is_selected(selection, entry, local, remote, tuple.ports) {
        return GO_ON;
    }
    if selection.forgets != 0 {
        forget(map, key);
        return GO_ON;
    }
    let Some(mut record) = FLOW_RECORDS.reserve::<FlowRecord>(0) else {
        return GO_ON;
    };
    // SAFETY: as in `select_v4`.
    unsafe {
        let record = record.as_mut_ptr();
        (*record).family = 6;
        (*record).key = *tuple;
        (*record).entry = *entry;
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
    GO_ON
}

#[inline(always)]
fn is_selected(
    selection: &mut Selection,
    entry: &FlowEntry,
    local: u32,
    remote: u32,
    ports: u32,
) -> bool {
    if selection.local != 0 && selection.local != entry.local {
        return false;
    }
    if selection.parts > 1 && part(local, remote, ports, selection.parts) != selection.part {
        return false;
    }
    selection.found += 1;
    true
}

/// Removes an entry from the map that is visited.
#[inline(always)]
fn forget(map: *mut c_void, key: *mut c_void) {
    // SAFETY: both are the kernel's own, for this visit.
    let _ = unsafe { aya_ebpf::helpers::bpf_map_delete_elem(map, key) };
}
