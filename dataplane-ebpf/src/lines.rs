//! The lines of the flow table in the kernel's memory: the only file that touches them as lines. What
//! several processors may do at once, it does atomically.
//!
//! The functions that look at a whole window are global ones: the verifier looks at each once, and not
//! anew for every way that leads there. What they look for is in memory of the CPU, in one slot for
//! packets and in another one for the agent's programs, which packets interrupt.

use core::arch::asm;

use sunwire_dataplane_common::{
    flow::{Direction, FlowEntry, TupleV4, TupleV6, tag},
    flow_table::{self, Added, Geometry, Line, LineAddresses, LineKey, Lines},
    headers::{Family, Headers},
};

use crate::maps::{FLOW_ADDRESSES, FLOW_TABLE, FLOWS, SCRATCH, WANTED};

/// Slot of what packets look for.
pub(crate) const OF_PACKET: u32 = 0;
/// Slot of what the agent's programs look for.
pub(crate) const OF_AGENT: u32 = 1;

/// No line.
pub(crate) const NONE: u32 = u32::MAX;

/// What is looked for or to be added.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Wanted {
    /// Family of the flow: [`tag::V4`] or [`tag::V6`].
    pub(crate) family: u32,
    /// A number on its way through memory: see [`Lines::any`].
    number: u32,
    /// What its line is recognised by.
    key: LineKey,
    addresses: LineAddresses,
    /// The key of an IPv4 flow.
    pub(crate) tuple_v4: TupleV4,
    /// The key of an IPv6 flow.
    pub(crate) tuple_v6: TupleV6,
}

/// Of a table.
#[inline(always)]
pub(crate) fn geometry() -> Option<&'static Geometry> {
    FLOW_TABLE.get(0)
}

/// A line that is there.
#[inline(always)]
pub(crate) fn line(slot: u32) -> Option<&'static mut Line> {
    let line = FLOWS.get_ptr_mut(slot)?;
    // SAFETY: the map's memory stays valid until the program ends. Of the programs that use a line at
    // once each writes fields of its own, but for the tag, which is written atomically alone.
    Some(unsafe { &mut *line })
}

/// Addresses of the IPv6 flow in a line.
#[inline(always)]
pub(crate) fn addresses(slot: u32) -> Option<&'static LineAddresses> {
    FLOW_ADDRESSES.get(slot)
}

/// What is looked for, to be read or filled in.
#[inline(always)]
pub(crate) fn wanted(which: u32) -> Option<&'static mut Wanted> {
    let wanted = WANTED.get_ptr_mut(which)?;
    // SAFETY: memory of this CPU. A program of packets runs to its end there before another one of
    // them starts, and the agent runs one program of its own at a time.
    Some(unsafe { &mut *wanted })
}

/// The tag of a line, as another CPU may write it at any time.
#[inline(always)]
pub(crate) fn tag_of(line: &Line) -> u32 {
    // SAFETY: a word within the line.
    unsafe { (&raw const line.entry.tag).read_volatile() }
}

/// Looks for the flow of a packet.
// A function of its own: few packets need it.
#[inline(never)]
pub(crate) fn want(network: u32, headers: &Headers, direction: Direction) -> bool {
    let Some(wanted) = wanted(OF_PACKET) else {
        return false;
    };
    match headers.family {
        Family::V4 => want_v4(wanted, &TupleV4::new(network, headers, direction)),
        Family::V6 => {
            wanted.tuple_v6.fill(network, headers, direction);
            want_tuple_v6(wanted);
        }
        Family::None => return false,
    }
    true
}

/// Looks for an IPv4 flow.
#[inline(always)]
pub(crate) fn want_v4(wanted: &mut Wanted, tuple: &TupleV4) {
    wanted.family = tag::V4;
    wanted.key = tuple.line_key();
    wanted.tuple_v4 = *tuple;
}

/// Looks for an IPv6 flow.
#[inline(always)]
pub(crate) fn want_v6(wanted: &mut Wanted, tuple: &TupleV6) {
    wanted.tuple_v6.network_protocol = tuple.network_protocol;
    wanted.tuple_v6.ports = tuple.ports;
    wanted.tuple_v6.local.0 = tuple.local.0;
    wanted.tuple_v6.remote.0 = tuple.remote.0;
    want_tuple_v6(wanted);
}

/// Looks for the IPv6 flow whose key stands in `wanted`.
#[inline(always)]
fn want_tuple_v6(wanted: &mut Wanted) {
    wanted.family = tag::V6;
    let there = wanted.tuple_v6.line_addresses();
    wanted.addresses.local[0] = there.local[0];
    wanted.addresses.local[1] = there.local[1];
    wanted.addresses.remote[0] = there.remote[0];
    wanted.addresses.remote[1] = there.remote[1];
    if let Some(geometry) = geometry() {
        let key = geometry.line_key_v6(
            wanted.tuple_v6.network_protocol,
            wanted.tuple_v6.ports,
            &wanted.addresses,
        );
        wanted.key.head = key.head;
        wanted.key.ends = key.ends;
    }
}

/// A flow, as it is looked for in the table.
trait Flow {
    /// [`tag::V4`] or [`tag::V6`].
    fn family(&self) -> u32;
    /// Whether a line has its key.
    fn is(&self, slot: u32, line: &Line) -> bool;
    /// As [`Lines::any`].
    fn any(&self, number: u32) -> u32 {
        number
    }
    /// Writes it into a line that was claimed; as [`Lines::write`].
    fn write(&self, slot: u32, line: &mut Line) -> u32;
}

/// What is in `WANTED` and `SCRATCH`; pointers alone, because the stack is short.
struct InMemory {
    wanted: &'static Wanted,
    number: *mut u32,
    entry: &'static FlowEntry,
}

impl InMemory {
    #[inline(always)]
    fn of(which: u32) -> Option<Self> {
        let wanted = wanted(which)?;
        Some(InMemory {
            number: &raw mut wanted.number,
            wanted,
            entry: SCRATCH.get(which)?,
        })
    }
}

impl Flow for InMemory {
    #[inline(always)]
    fn family(&self) -> u32 {
        self.wanted.family
    }

    #[inline(always)]
    fn is(&self, slot: u32, line: &Line) -> bool {
        if line.key != self.wanted.key {
            return false;
        }
        if self.wanted.family == tag::V4 {
            return true;
        }
        addresses(slot).is_some_and(|there| *there == self.wanted.addresses)
    }

    #[inline(always)]
    fn any(&self, number: u32) -> u32 {
        // SAFETY: memory of this CPU, in the map.
        unsafe {
            self.number.write_volatile(number);
            self.number.read_volatile()
        }
    }

    #[inline(always)]
    fn write(&self, slot: u32, line: &mut Line) -> u32 {
        let entry = self.entry;
        line.key.head = self.wanted.key.head;
        line.key.ends = self.wanted.key.ends;
        // Field by field: a whole value would be copied by a call.
        line.entry.generation = entry.generation;
        line.entry.signature = entry.signature;
        line.entry.mask = entry.mask;
        line.entry.label = entry.label;
        line.entry.location = entry.location;
        line.entry.local = entry.local;
        line.entry.remote = entry.remote;
        line.entry.seen = entry.seen;
        line.entry.bucket = entry.bucket;
        line.entry.verdict = entry.verdict;
        line.entry.tunnel_port = entry.tunnel_port;
        line.entry.original_port = entry.original_port;
        line.entry.sent = entry.sent;
        line.entry.received = entry.received;
        if self.wanted.family == tag::V6
            && let Some(to) = FLOW_ADDRESSES.get_ptr_mut(slot)
        {
            let [local, remote] = [self.wanted.addresses.local, self.wanted.addresses.remote];
            // SAFETY: the line was claimed, so nobody else writes there, or reads before it is
            // published.
            unsafe {
                (*to).local[0] = local[0];
                (*to).local[1] = local[1];
                (*to).remote[0] = remote[0];
                (*to).remote[1] = remote[1];
            }
        }
        entry.tag & tag::ALIAS
    }
}

/// No flow: for what is done with lines alone.
struct Nobody;

impl Flow for Nobody {
    #[inline(always)]
    fn family(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn is(&self, _: u32, _: &Line) -> bool {
        false
    }

    #[inline(always)]
    fn write(&self, _: u32, _: &mut Line) -> u32 {
        0
    }
}

/// The table, and a flow that is looked for in it.
struct Search<F>(F);

impl<F: Flow> Lines for Search<F> {
    #[inline(always)]
    fn tag(&self, slot: u32) -> u32 {
        line(slot).map_or(0, |line| tag_of(line))
    }

    #[inline(always)]
    fn set(&self, slot: u32, bits: u32) -> u32 {
        line(slot).map_or(tag::TAKEN, |line| set(line, bits))
    }

    #[inline(always)]
    fn clear(&self, slot: u32, bits: u32) {
        if let Some(line) = line(slot) {
            // SAFETY: an aligned word of a map.
            unsafe {
                asm!(
                    "{old} = atomic_fetch_and((u32 *)({tag} + 0), {old})",
                    old = inout(wreg) !bits => _,
                    tag = in(reg) &raw mut line.entry.tag,
                    options(nostack, preserves_flags),
                );
            }
        }
    }

    #[inline(always)]
    fn add(&self, slot: u32, value: u32) {
        if let Some(line) = line(slot) {
            // SAFETY: an aligned word of a map.
            unsafe {
                asm!(
                    "{old} = atomic_fetch_add((u32 *)({tag} + 0), {old})",
                    old = inout(wreg) value => _,
                    tag = in(reg) &raw mut line.entry.tag,
                    options(nostack, preserves_flags),
                );
            }
        }
    }

    #[inline(always)]
    fn family(&self) -> u32 {
        self.0.family()
    }

    #[inline(always)]
    fn any(&self, number: u32) -> u32 {
        self.0.any(number)
    }

    #[inline(always)]
    fn is(&self, slot: u32) -> bool {
        line(slot).is_some_and(|line| self.0.is(slot, line))
    }

    #[inline(always)]
    fn write(&self, slot: u32) -> u32 {
        line(slot).map_or(0, |line| self.0.write(slot, line))
    }

    #[inline(always)]
    fn merge(&self, from: u32, to: u32) {
        if let (Some(from), Some(to)) = (line(from), line(to)) {
            to.entry.sent |= from.entry.sent;
            to.entry.received |= from.entry.received;
        }
    }

    #[inline(always)]
    fn wipe(&self, slot: u32) {
        if let Some(line) = line(slot) {
            line.key.head = 0;
            line.key.ends = 0;
        }
    }
}

/// Sets bits of a line's tag; returns what it was.
#[inline(always)]
fn set(line: &mut Line, bits: u32) -> u32 {
    let mut old = bits;
    // SAFETY: an aligned word of a map. Linux 5.12 or later.
    unsafe {
        asm!(
            "{old} = atomic_fetch_or((u32 *)({tag} + 0), {old})",
            old = inout(wreg) old,
            tag = in(reg) &raw mut line.entry.tag,
            options(nostack, preserves_flags),
        );
    }
    old
}

/// Forgets the flow in a line: nobody finds it any more. Returns whether it was there.
#[inline(always)]
pub(crate) fn kill(line: &mut Line) -> bool {
    set(line, tag::DEAD) & tag::DEAD == 0
}

/// Notes that a sweep has seen that the flow in a line was forgotten, and forgets it.
#[inline(always)]
pub(crate) fn kill_and_sweep(line: &mut Line) {
    set(line, tag::DEAD | tag::SWEPT);
}

/// The line of the flow that is wanted, or [`NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_slot(which: u32) -> u32 {
    let (Some(geometry), Some(search)) = (geometry(), InMemory::of(which)) else {
        return NONE;
    };
    let place = geometry.place(search.wanted.key);
    flow_table::find(&Search(search), geometry, place).unwrap_or(NONE)
}

/// What [`flow_add`] returns: the flow was added.
pub(crate) const ADDED: u32 = 1;
/// It was there.
pub(crate) const THERE: u32 = 2;
/// There is no room for it.
pub(crate) const NO_ROOM: u32 = 0;

/// Adds the flow that is wanted, with the entry in `SCRATCH`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_add(which: u32) -> u32 {
    let (Some(geometry), Some(search)) = (geometry(), InMemory::of(which)) else {
        return NO_ROOM;
    };
    let place = geometry.place(search.wanted.key);
    match flow_table::add(&Search(search), geometry, place) {
        Added::New(_) => ADDED,
        Added::There(_) => THERE,
        Added::NoRoom => NO_ROOM,
    }
}

/// Frees a line whose flow was forgotten before all programs that run now.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn flow_free(slot: u32) -> u32 {
    let (Some(geometry), Some(line)) = (geometry(), line(slot)) else {
        return 0;
    };
    let place = geometry.place(line.key);
    flow_table::free(&Search(Nobody), geometry, place, slot);
    1
}
