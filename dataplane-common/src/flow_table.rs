//! Where the entry of a flow lies, and how it is found, added and forgotten.
//!
//! The table is an array of lines of 64 bytes, as long as those of the processor's caches: a packet of
//! a flow that is known fetches one of them and nothing else. A flow has a window of [`WINDOW`] lines
//! that it may lie in, and lies in the first that was free when it came:
//!
//! ```text
//! home                    hash(secret, network, protocol, addresses, lower port) + higher port
//! home + step             7/16 of the table and somewhat more: another part of the same hash
//! home + 2 step ...       taken by others -> each counts that one more flow lies further on
//! ```
//!
//! Ports that are handed out one after the other, at either end of a connection, so have lines that are
//! neighbours, which share pages and are fetched ahead. The lower port is a service's more often than
//! not, so it is mixed with the rest. Such runs fill whole stretches of the table; so each line of a
//! window lies in another sixteenth of it, and how much the step is more differs every 16 ports.
//!
//! Who looks for a flow stops at the first line that no flow was turned away from, so a new flow costs
//! one line too. Lines are claimed and published by atomic operations on their
//! [tag](crate::flow::tag), on every processor at once:
//!
//! ```text
//! free --claim--> TAKEN --key, entry--> TAKEN|family --forget--> DEAD --sweep--> SWEPT --grace period--> free
//! ```
//!
//! Guarantees: a flow that is there is found; of two processors that add the same flow at once, one
//! entry is left, with what both have seen; no program writes into a line that has become another
//! flow's, because a line is freed only when all programs are over that may have found it.

use crate::flow::{FlowEntry, TupleV4, TupleV6, tag};

/// Lines that a flow may lie in.
pub const WINDOW: u32 = 16;

/// Fewest lines of a table: each window has as many different ones.
pub const LINES_MIN: u32 = WINDOW;
/// Most lines of a table: its tags count flows that lie further on in 24 bits.
pub const LINES_MAX: u32 = 1 << 23;

/// What a line is recognised by: for IPv4 the whole key, for IPv6 a fingerprint of the addresses,
/// which stand in an array of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LineKey {
    /// Network and protocol in the lower half, ports in the upper one.
    pub head: u64,
    /// Local address in the lower half, remote one in the upper; of IPv6 their fingerprint.
    pub ends: u64,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(64))]
pub struct Line {
    /// Whose it is.
    pub key: LineKey,
    /// What is known of the flow; its tag says what the line is.
    pub entry: FlowEntry,
}

/// Addresses of the IPv6 flow in the line with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LineAddresses {
    /// Of the local endpoint, two words.
    pub local: [u64; 2],
    /// Of the other side.
    pub remote: [u64; 2],
}

/// A table's size and secret; slot 0 of `FLOW_TABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Geometry {
    /// Drawn when the table is made, so that nobody else knows which flows share a window.
    pub secret: [u64; 2],
    /// Lines of the table, a power of 2, less 1.
    pub mask: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Line>() == 64);
const _: () = assert!(size_of::<LineAddresses>() == 32);
const _: () = assert!(size_of::<Geometry>() == 24);

/// The lines that a flow may lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The first one, to be masked.
    pub home: u32,
    /// From one to the next.
    pub step: u32,
}

impl TupleV4 {
    /// What its line is recognised by.
    #[inline(always)]
    #[must_use]
    pub fn line_key(&self) -> LineKey {
        LineKey {
            head: u64::from(self.network_protocol) | u64::from(self.ports) << 32,
            ends: u64::from(self.local) | u64::from(self.remote) << 32,
        }
    }
}

impl LineKey {
    /// The key of an IPv4 flow whose line this is.
    #[inline(always)]
    #[must_use]
    pub fn tuple_v4(&self) -> TupleV4 {
        TupleV4 {
            network_protocol: self.head as u32,
            ports: (self.head >> 32) as u32,
            local: self.ends as u32,
            remote: (self.ends >> 32) as u32,
        }
    }
}

impl TupleV6 {
    /// The addresses as a line has them.
    #[inline(always)]
    #[must_use]
    pub fn line_addresses(&self) -> LineAddresses {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [a, b, c, d] = self.local.0;
        let [e, f, g, h] = self.remote.0;
        LineAddresses {
            local: [pair(a, b), pair(c, d)],
            remote: [pair(e, f), pair(g, h)],
        }
    }
}

// Odd constants with bits all over: 2^64 divided by the golden ratio, and those of MurmurHash3's
// finalizer (`fmix64`).
const MIX: [u64; 3] = [
    0x9e37_79b9_7f4a_7c15,
    0xff51_afd7_ed55_8ccd,
    0xc4ce_b9fe_1a85_ec53,
];

/// So that the lines of a window that come first are far apart. Odd: each is in a part of its own.
const PARTS_A_STEP: u32 = 7;

/// 2^32 divided by the golden ratio, which spreads what follows one another.
const TURN: u32 = 0x9e37_79b9;

#[inline(always)]
fn mix(value: u64, secret: u64, factor: u64) -> u64 {
    let mixed = (value ^ secret).wrapping_mul(factor);
    mixed ^ mixed >> 32
}

impl Geometry {
    /// A table of so many lines; a power of 2 of at least [`LINES_MIN`] and at most [`LINES_MAX`].
    #[must_use]
    pub const fn new(lines: u32, secret: [u64; 2]) -> Self {
        assert!(lines.is_power_of_two() && lines >= LINES_MIN && lines <= LINES_MAX);
        Geometry {
            secret,
            mask: lines - 1,
            reserved: 0,
        }
    }

    /// Lines of a table that has room for so many flows, half of it left free.
    #[must_use]
    pub const fn lines_for(flows: u32) -> u32 {
        let wanted = if flows > LINES_MAX / 2 {
            LINES_MAX
        } else {
            flows * 2
        };
        let wanted = if wanted < LINES_MIN {
            LINES_MIN
        } else {
            wanted
        };
        wanted.next_power_of_two()
    }

    /// Where a flow may lie.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, key: LineKey) -> Place {
        let (local, remote) = ((key.head >> 48) as u32, (key.head >> 32) as u32 & 0xffff);
        let (low, high) = if local < remote {
            (local, remote)
        } else {
            (remote, local)
        };
        let fixed = key.head & 0xffff_ffff | u64::from(low) << 32;
        let hash = mix(fixed, self.secret[0], MIX[0]);
        let hash = mix(hash ^ key.ends, self.secret[1], MIX[1]);
        let hash = mix(hash, 0, MIX[2]);
        let turn = (high >> 4).wrapping_mul(TURN);
        let part = (self.mask >> 4) + 1;
        // Times any attempt it is less than a part.
        let within = ((hash >> 40) as u32).wrapping_add(turn >> 8) & self.mask >> 8;
        Place {
            home: (hash as u32).wrapping_add(high),
            step: part * PARTS_A_STEP + within,
        }
    }

    /// The key of an IPv6 flow's line.
    #[inline(always)]
    #[must_use]
    pub fn line_key_v6(
        &self,
        network_protocol: u32,
        ports: u32,
        addresses: &LineAddresses,
    ) -> LineKey {
        let LineAddresses { local, remote } = addresses;
        let hash = mix(local[0], self.secret[1], MIX[0]);
        let hash = mix(hash ^ local[1], self.secret[0], MIX[1]);
        let hash = mix(hash ^ remote[0], self.secret[1], MIX[2]);
        let hash = mix(hash ^ remote[1], self.secret[0], MIX[0]);
        LineKey {
            head: u64::from(network_protocol) | u64::from(ports) << 32,
            ends: mix(hash, 0, MIX[1]),
        }
    }

    /// The number of a line of a window.
    #[inline(always)]
    #[must_use]
    pub fn slot(&self, place: Place, attempt: u32) -> u32 {
        place.home.wrapping_add(attempt.wrapping_mul(place.step)) & self.mask
    }
}

/// Whether a line holds a flow that may be found; `family` is [`tag::V4`] or [`tag::V6`].
#[inline(always)]
#[must_use]
pub fn is_live(tag: u32, family: u32) -> bool {
    tag & (family | tag::DEAD) == family
}

/// The lines of a table, and the flow that somebody looks for or adds. All operations on tags are
/// atomic, and in one order for all processors.
pub trait Lines {
    /// The tag of a line.
    fn tag(&self, slot: u32) -> u32;
    /// Sets bits of a tag; returns what it was.
    fn set(&self, slot: u32, bits: u32) -> u32;
    /// Clears bits of a tag.
    fn clear(&self, slot: u32, bits: u32);
    /// Adds to a tag, wrapping.
    fn add(&self, slot: u32, value: u32);
    /// Family of the flow: [`tag::V4`] or [`tag::V6`].
    fn family(&self) -> u32;
    /// Whether a line has the key of the flow.
    fn is(&self, slot: u32) -> bool;
    /// Writes key and entry of the flow into a line; returns [`tag::ALIAS`] when it is an alias, else
    /// zero.
    fn write(&self, slot: u32) -> u32;
    /// Adds what one line's entry has seen to another's.
    fn merge(&self, from: u32, to: u32);
    /// Writes a key that no flow has into a line.
    fn wipe(&self, slot: u32);
    /// The number itself. Where code is proved safe for each value that is known of a number, the
    /// implementation makes it one that is not known.
    fn any(&self, number: u32) -> u32 {
        number
    }
}

/// What became of a flow that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is in this line now.
    New(u32),
    /// It was there, in this line.
    There(u32),
    /// All lines of its window are taken.
    NoRoom,
}

/// The line of the flow, if it is there.
#[inline(always)]
pub fn find<L: Lines>(lines: &L, geometry: &Geometry, place: Place) -> Option<u32> {
    for attempt in 0..WINDOW {
        let slot = geometry.slot(place, attempt);
        let tag = lines.tag(slot);
        if is_live(tag, lines.family()) && lines.is(slot) {
            return Some(slot);
        }
        if tag < tag::PASSED {
            return None;
        }
    }
    None
}

/// Adds the flow, unless it is there.
#[inline(always)]
pub fn add<L: Lines>(lines: &L, geometry: &Geometry, place: Place) -> Added {
    if let Some(slot) = find(lines, geometry, place) {
        return Added::There(slot);
    }
    let mut claimed = WINDOW;
    for attempt in 0..WINDOW {
        let slot = geometry.slot(place, attempt);
        if lines.set(slot, tag::TAKEN) & tag::TAKEN == 0 {
            claimed = attempt;
            break;
        }
        // Before the flow is there, so that nobody stops in front of it.
        lines.add(slot, tag::PASSED);
    }
    if claimed == WINDOW {
        unpass(lines, geometry, place, WINDOW);
        return Added::NoRoom;
    }
    let slot = geometry.slot(place, lines.any(claimed));
    let alias = lines.write(slot);
    lines.set(slot, lines.family() | alias);
    settle(lines, geometry, place, slot)
}

/// Of two processors that added the same flow at once each has looked before the other was done; the
/// one that is done last finds both, and the one further on goes.
#[inline(always)]
fn settle<L: Lines>(lines: &L, geometry: &Geometry, place: Place, own: u32) -> Added {
    let mut is_further = false;
    for attempt in 0..WINDOW {
        let slot = geometry.slot(place, attempt);
        let tag = lines.tag(slot);
        if slot == own {
            is_further = true;
        } else if is_live(tag, lines.family()) && lines.is(slot) {
            let (stays, goes) = if is_further { (own, slot) } else { (slot, own) };
            if lines.set(goes, tag::DEAD) & tag::DEAD == 0 {
                lines.merge(goes, stays);
            }
            if !is_further {
                return Added::There(slot);
            }
        }
        if is_further && tag < tag::PASSED {
            break;
        }
    }
    Added::New(own)
}

/// Frees the line of a flow that was forgotten; nobody may use it any more. `place` is the flow's.
#[inline(always)]
pub fn free<L: Lines>(lines: &L, geometry: &Geometry, place: Place, slot: u32) {
    for attempt in 0..WINDOW {
        let passed = geometry.slot(place, attempt);
        if passed == slot {
            // Nobody who looks for the flow in an order of his own finds it in what comes next.
            lines.wipe(slot);
            lines.clear(slot, tag::FLAGS);
            break;
        }
        lines.add(passed, tag::PASSED.wrapping_neg());
    }
}

#[inline(always)]
fn unpass<L: Lines>(lines: &L, geometry: &Geometry, place: Place, until: u32) {
    for attempt in 0..until {
        let slot = geometry.slot(place, attempt);
        lines.add(slot, tag::PASSED.wrapping_neg());
    }
}
