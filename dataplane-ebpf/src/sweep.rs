//! All flows one after the other, for the agent: those that are over are forgotten, those that it
//! wants to know are told.
//!
//! The kernel calls a function of ours for each entry of a map, so that the agent needs one system
//! call for a map and not two for an entry. Packets are handled meanwhile; a flow that one of them
//! touches just when it is forgotten begins anew.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_for_each_map_elem, bpf_ktime_get_ns},
    maps::LruHashMap,
};
use sunwire_dataplane_common::{
    address::Address,
    entries::{EndpointEntry, location},
    expiry::{Ending, FlowRecord, Sweep, ended, part, pass, take},
    flow::{FlowEntry, Phase, TupleV4, TupleV6, tag},
    flow_table::{Line, is_live},
    headers::{PROTOCOL_TCP, PROTOCOL_UDP},
    limit::{BUCKETS, LimitKey, time},
    outbound::{Mapping, OutsideKey},
};

use crate::{
    deliver, flow,
    lines::{self, Wanted},
    maps::{
        ENDPOINTS, FLOW_RECORDS, FLOWS, LIMIT_BUCKETS, OUTSIDE, OVERFLOW_V4, OVERFLOW_V6, SWEEP,
    },
    outbound,
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

/// Goes through one map: the table by [`pass::TABLE`], its lines that are to be freed by [`pass::FREE`],
/// `OVERFLOW` by [`pass::OVERFLOW_V4`] and [`pass::OVERFLOW_V6`], `LIMIT_BUCKETS` by [`BUCKETS`],
/// `OUTSIDE` by [`pass::OUTSIDE`].
/// Returns zero, unless the kernel cannot.
#[inline(always)]
pub(crate) fn sweep(map: u64) -> u32 {
    let visited = match map {
        pass::TABLE => sweep_one::<{ pass::TABLE }>(),
        pass::FREE => sweep_one::<{ pass::FREE }>(),
        pass::OVERFLOW_V4 => sweep_one::<{ pass::OVERFLOW_V4 }>(),
        pass::OVERFLOW_V6 => sweep_one::<{ pass::OVERFLOW_V6 }>(),
        BUCKETS => sweep_one::<BUCKETS>(),
        pass::OUTSIDE => sweep_one::<{ pass::OUTSIDE }>(),
        _ => -1,
    };
    u32::from(visited < 0)
}

/// Goes through the map that `PASS` says. A function for each: within one, the compiler makes one call
/// of all, and Linux 6.1 refuses a call that visits now this map and now that one
/// (`set_map_elem_callback_state` in `kernel/bpf/verifier.c`).
#[inline(never)]
fn sweep_one<const PASS: u64>() -> i64 {
    let nothing = core::ptr::null_mut();
    match PASS {
        pass::TABLE => visit(&FLOWS, sweep_line, nothing),
        pass::FREE => visit(&FLOWS, free_line, nothing),
        pass::OVERFLOW_V4 => visit(&OVERFLOW_V4, sweep_overflow_v4, nothing),
        pass::OVERFLOW_V6 => visit(&OVERFLOW_V6, sweep_overflow_v6, nothing),
        BUCKETS => visit(&LIMIT_BUCKETS, sweep_bucket, nothing),
        pass::OUTSIDE => visit(&OUTSIDE, sweep_outside, nothing),
        _ => -1,
    }
}

/// Tells or forgets flows; returns how many there were.
#[inline(always)]
pub(crate) fn select(mut selection: Selection) -> u32 {
    let wanted = (&raw mut selection).cast();
    visit(&FLOWS, select_line, wanted);
    visit(&OVERFLOW_V4, select_v4, wanted);
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

/// A connection that leaves the cloud here: what is over is forgotten, and its port free.
extern "C" fn sweep_outside(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    // SAFETY: the kernel hands over a key and a value of the map.
    let (key, mapping) = unsafe { (&*key.cast::<OutsideKey>(), &*value.cast::<Mapping>()) };
    let Some(sweep) = limits() else {
        return GO_ON;
    };
    let protocol = key.family_protocol as u8;
    let is_there = deliver::location(mapping.local, mapping.network).is_some();
    match ended(&mapping.entry(), protocol, flow::now(), is_there, sweep) {
        Some(ending) => {
            outbound::forget(key, mapping);
            count(sweep, ending);
        }
        None if key.family_protocol >> 8 == 4 => sweep.kept[0] += 1,
        None => sweep.kept[1] += 1,
    }
    GO_ON
}

/// A line of the table: what is over is forgotten, and what was forgotten is noted.
extern "C" fn sweep_line(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    // SAFETY: the kernel hands over a key and a value of the map.
    let (slot, line) = unsafe { (*key.cast::<u32>(), &mut *value.cast::<Line>()) };
    let tag = lines::tag_of(line);
    let is_v4 = is_live(tag, tag::V4);
    if !is_v4 && !is_live(tag, tag::V6) {
        if tag & (tag::DEAD | tag::SWEPT) == tag::DEAD {
            lines::kill_and_sweep(line);
        }
        return GO_ON;
    }
    let Some(sweep) = limits() else {
        return GO_ON;
    };
    let verdict = if is_v4 {
        verdict(&line.key.tuple_v4(), &line.entry, sweep)
    } else {
        match tuple_v6(line, slot) {
            Some(tuple) => verdict(tuple, &line.entry, sweep),
            None => None,
        }
    };
    match verdict {
        Some(ending) => {
            lines::kill_and_sweep(line);
            count(sweep, ending);
        }
        None if is_v4 => sweep.kept[0] += 1,
        None => sweep.kept[1] += 1,
    }
    GO_ON
}

/// Frees a line whose flow an earlier sweep saw forgotten. Since then a grace period is over.
extern "C" fn free_line(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    // SAFETY: as in `sweep_line`.
    let (slot, line) = unsafe { (*key.cast::<u32>(), &*value.cast::<Line>()) };
    if lines::tag_of(line) & tag::SWEPT != 0
        && let Some(sweep) = limits()
    {
        sweep.freed += lines::flow_free(slot);
    }
    GO_ON
}

/// The key of the IPv6 flow in a line, in memory of the agent's programs.
#[inline(always)]
fn tuple_v6(line: &Line, slot: u32) -> Option<&'static TupleV6> {
    let (wanted, addresses) = (lines::wanted(lines::OF_AGENT)?, lines::addresses(slot)?);
    let words = |pair: [u64; 2]| {
        let [low, high] = pair;
        Address([
            low as u32,
            (low >> 32) as u32,
            high as u32,
            (high >> 32) as u32,
        ])
    };
    let tuple = &mut wanted.tuple_v6;
    tuple.network_protocol = line.key.head as u32;
    tuple.ports = (line.key.head >> 32) as u32;
    tuple.local = words(addresses.local);
    tuple.remote = words(addresses.remote);
    Some(tuple)
}

extern "C" fn sweep_overflow_v4(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_overflow::<TupleV4>(&OVERFLOW_V4, key, value)
}

extern "C" fn sweep_overflow_v6(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    _: *mut c_void,
) -> i64 {
    sweep_overflow::<TupleV6>(&OVERFLOW_V6, key, value)
}

/// Keys of flows, of either family.
trait Tuple: Sized + 'static {
    /// Place of its family's count.
    const FAMILY: usize;
    /// Network and protocol.
    fn network_protocol(&self) -> u32;
    /// Has it looked for or added.
    fn want(&self, wanted: &mut Wanted);
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
    const FAMILY: usize = 0;

    #[inline(always)]
    fn want(&self, wanted: &mut Wanted) {
        lines::want_v4(wanted, self);
    }

    #[inline(always)]
    fn network_protocol(&self) -> u32 {
        self.network_protocol
    }

    #[inline(always)]
    fn flow_of(&self, alias: &FlowEntry, own: &EndpointEntry) -> bool {
        let key = TupleV4 {
            network_protocol: self.network_protocol,
            local: own.ipv4.0[0],
            remote: alias.original().0[0],
            ports: ports_of_flow(self.network_protocol, self.ports, alias),
        };
        let Some(wanted) = lines::wanted(lines::OF_AGENT) else {
            return false;
        };
        lines::want_v4(wanted, &key);
        lines::flow_slot(lines::OF_AGENT) != lines::NONE
            || flow::is_overflowing() && OVERFLOW_V4.get_ptr(&key).is_some()
    }
}

impl Tuple for TupleV6 {
    const FAMILY: usize = 1;

    #[inline(always)]
    fn want(&self, wanted: &mut Wanted) {
        lines::want_v6(wanted, self);
    }

    #[inline(always)]
    fn network_protocol(&self) -> u32 {
        self.network_protocol
    }

    #[inline(always)]
    fn flow_of(&self, alias: &FlowEntry, own: &EndpointEntry) -> bool {
        let key = TupleV6 {
            network_protocol: self.network_protocol,
            local: own.ipv6,
            remote: alias.original(),
            ports: ports_of_flow(self.network_protocol, self.ports, alias),
        };
        let Some(wanted) = lines::wanted(lines::OF_AGENT) else {
            return false;
        };
        lines::want_v6(wanted, &key);
        lines::flow_slot(lines::OF_AGENT) != lines::NONE
            || flow::is_overflowing() && OVERFLOW_V6.get_ptr(&wanted.tuple_v6).is_some()
    }
}

/// Whether an entry is an alias of a flow that is there: it hears of answers alone, and is needed for
/// as long as the flow is.
#[inline(always)]
fn is_of_flow<K: Tuple>(key: &K, entry: &FlowEntry) -> bool {
    if !entry.is_alias() {
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
fn sweep_overflow<K: Tuple>(
    overflow: &'static LruHashMap<K, FlowEntry>,
    key: *mut c_void,
    value: *mut c_void,
) -> i64 {
    let Some(sweep) = limits() else {
        return GO_ON;
    };
    // SAFETY: as in `sweep_line`.
    let (key, entry) = unsafe { (&*key.cast::<K>(), &*value.cast::<FlowEntry>()) };
    if let Some(ending) = verdict(key, entry, sweep) {
        let _ = overflow.remove(key);
        count(sweep, ending);
        return GO_ON;
    }
    let is_wanted = match sweep.take {
        take::ALL => true,
        take::BOTH_WAYS => entry.is_alias() || !matches!(entry.phase(), Phase::OneWay),
        _ => false,
    };
    if is_wanted && sweep.room > 0 && add(key, entry) {
        // From here on packets find it there.
        let _ = overflow.remove(key);
        sweep.room -= 1;
        sweep.taken += 1;
    } else {
        sweep.kept[K::FAMILY] += 1;
    }
    GO_ON
}

/// Adds a flow to the table; returns whether it is there now.
#[inline(always)]
fn add<K: Tuple>(key: &K, entry: &FlowEntry) -> bool {
    let (Some(wanted), Some(scratch)) = (
        lines::wanted(lines::OF_AGENT),
        flow::scratch_of(lines::OF_AGENT),
    ) else {
        return false;
    };
    *scratch = *entry;
    key.want(wanted);
    lines::flow_add(lines::OF_AGENT) != lines::NO_ROOM
}

extern "C" fn select_line(
    _: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    with: *mut c_void,
) -> i64 {
    // SAFETY: as in `sweep_line`, and `with` is what `select` gave.
    let (slot, line, selection) = unsafe {
        (
            *key.cast::<u32>(),
            &mut *value.cast::<Line>(),
            &mut *with.cast::<Selection>(),
        )
    };
    let tag = lines::tag_of(line);
    let is_v4 = is_live(tag, tag::V4);
    if !is_v4 && !is_live(tag, tag::V6) {
        return GO_ON;
    }
    // Of IPv6 flows these are parts of a fingerprint, which will do as well.
    let (local, remote) = (line.key.ends as u32, (line.key.ends >> 32) as u32);
    let ports = (line.key.head >> 32) as u32;
    if !is_selected(selection, &line.entry, local, remote, ports) {
        return GO_ON;
    }
    if selection.forgets != 0 {
        lines::kill(line);
        return GO_ON;
    }
    let Some(mut record) = FLOW_RECORDS.reserve::<FlowRecord>(0) else {
        return GO_ON;
    };
    // SAFETY: the reserved memory is of a record's size; every field is written.
    unsafe {
        let record = record.as_mut_ptr();
        if is_v4 {
            (*record).family = 4;
            (*record).key.network_protocol = line.key.head as u32;
            (*record).key.ports = ports;
            (*record).key.local = Address([local, 0, 0, 0]);
            (*record).key.remote = Address([remote, 0, 0, 0]);
        } else {
            (*record).family = 6;
            if let Some(tuple) = tuple_v6(line, slot) {
                (*record).key = *tuple;
            }
        }
        (*record).entry = line.entry;
    }
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
    GO_ON
}

extern "C" fn select_v4(
    map: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
    with: *mut c_void,
) -> i64 {
    // SAFETY: as in `sweep_line`, and `with` is what `select` gave.
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
