//! What became of one packet, as the programs tell it to whoever listens.
//!
//! ```text
//!  EVENTS, CAPTURED (ring buffers):  | Event | frame, `captured` bytes of it |
//! ```
//!
//! The programs copy the frame's first bytes and their own decision, and nothing else: headers are
//! parsed and names are found in user space. While nobody listens a packet costs one test of
//! [`EventSettings::wanted`]. What cannot be told is counted in [`EventLosses`].

/// Most bytes of a frame that an event carries.
pub const FRAME_BYTES_MAX: usize = 4096;
/// The window of the rate limit is `1 << WINDOW_SHIFT` nanoseconds, 134 ms.
pub const WINDOW_SHIFT: u32 = 27;

/// Bits of [`EventSettings::wanted`] and [`Event::why`].
pub mod why {
    /// Packets that are dropped.
    pub const DROP: u32 = 1 << 0;
    /// First packets of flows.
    pub const NEW: u32 = 1 << 1;
    /// A random part of all packets.
    pub const SAMPLE: u32 = 1 << 2;
    /// Packets that are captured whole: they go to the ring `CAPTURED`.
    pub const CAPTURE: u32 = 1 << 3;
    /// First packets of flows, and packets that are dropped, that came by `log`.
    pub const LOG: u32 = 1 << 4;
}

/// What is told; slot 0 of `EVENT_SETTINGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EventSettings {
    /// Bits of [`why`]; zero while nobody listens.
    pub wanted: u32,
    /// A packet is a sample when a random 32-bit number is below this.
    pub sample_below: u32,
    /// Events that a CPU tells at most in a window of [`WINDOW_SHIFT`]; captured packets are not
    /// bounded by it.
    pub per_window: u32,
    /// Bytes of the frame that an event carries.
    pub frame_bytes: u32,
    /// Number of the endpoint whose packets are captured; zero for those of all.
    pub capture_endpoint: u32,
    /// Bytes of the frame that a captured packet carries.
    pub capture_bytes: u32,
}

/// The programs' verdict.
pub mod verdict {
    /// Sent to an endpoint here or to another node.
    pub const FORWARDED: u32 = 0;
    /// Dropped, for [`Event::reason`](super::Event::reason).
    pub const DROPPED: u32 = 1;
    /// Answered, or needed no answer: it ended here and is no loss.
    pub const CONSUMED: u32 = 2;
}

/// The programs.
pub mod program {
    /// On host-side devices of endpoints.
    pub const ENDPOINT: u32 = 0;
    /// On the underlay device.
    pub const UNDERLAY: u32 = 1;
    /// On the device that takes what comes from nodes without an agent out of its tunnel.
    pub const FOREIGN: u32 = 2;
}

/// The state of a packet's connection.
pub mod connection {
    /// The data plane keeps none for it.
    pub const NONE: u32 = 0;
    /// The packet is the first one.
    pub const NEW: u32 = 1;
    /// Packets went both ways, or before.
    pub const ESTABLISHED: u32 = 2;
}

/// The notes that a program leaves in a packet's control block, five words: slot of the label plus
/// 1, number of the destination, number of the node, VNI, and flags. A traced packet comes back
/// with them.
pub mod notes {
    /// The connection's state, 2 bits of the flags.
    pub const CONNECTION_SHIFT: u32 = 8;
    /// The reason of a drop plus 1, 8 bits of a traced packet's flags.
    pub const REASON_SHIFT: u32 = 16;
    /// Copies that the verdict makes, 3 bits of a traced packet's flags; zero where no verdict was
    /// asked for. Its mark then makes a run of the program act on another copy.
    pub const COPIES_SHIFT: u32 = 24;
    /// The number of a copy in the mark.
    pub const COPY_NUMBER_SHIFT: u32 = 26;
    /// The frame begins with the headers of a tunnel.
    pub const OUTER: u32 = 1 << 29;
    /// The frame went by a wire.
    pub const WIRE: u32 = 1 << 28;
}

/// What became of one packet. Bytes of the frame follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Why it is told, bits of [`why`].
    pub why: u32,
    /// One of [`verdict`].
    pub verdict: u32,
    /// For a drop, the [`DropReason`](crate::drop_reason::DropReason) as a number.
    pub reason: u32,
    /// One of [`program`].
    pub program: u32,
    /// ifindex of the device where the packet came in.
    pub ifindex: u32,
    /// VNI of its network; zero when it was not found out.
    pub network: u32,
    /// Number of the endpoint whose device it came in by; zero on the underlay.
    pub source: u32,
    /// Number of the endpoint that it goes to; zero when it was not found out.
    pub destination: u32,
    /// Number of the node that it was sent to; zero when it stays here.
    pub node: u32,
    /// Slot of the label that decided, plus 1; zero when none did.
    pub label: u32,
    /// One of [`connection`].
    pub connection: u32,
    /// Length in bytes from the Ethernet header on.
    pub length: u32,
    /// Packets that this is on a wire.
    pub segments: u32,
    /// Bytes of the frame that follow; tunnel headers stand first when `outer` is not zero.
    pub captured: u16,
    /// Whether the bytes begin with the headers of a tunnel.
    pub outer: u16,
    /// Slot of what `log` says, plus 1; zero when it was not logged.
    pub log: u32,
    /// Not zero when the packet went by a wire.
    pub wire: u32,
}

/// What a CPU could not tell, and its part of the rate limit; slot 0 of `EVENT_LOSSES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EventLosses {
    /// Events above the rate limit.
    pub limited: u64,
    /// Events for which the ring buffer had no room.
    pub full: u64,
    /// Captured packets for which the ring buffer had no room.
    pub captured_full: u64,
    /// Number of the window that `in_window` is of.
    pub window: u64,
    /// Events told in it.
    pub in_window: u64,
}

/// Where a CPU puts an event together: a program's stack has no room for it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct EventRecord {
    /// The event.
    pub event: Event,
    /// The frame's first bytes.
    pub frame: [u8; FRAME_BYTES_MAX],
}

/// Bytes of an [`Event`] before the frame's.
pub const EVENT_BYTES: usize = size_of::<Event>();

const _: () = assert!(size_of::<EventSettings>() == 24);
const _: () = assert!(EVENT_BYTES == 72);
const _: () = assert!(size_of::<EventLosses>() == 40);
const _: () = assert!(size_of::<EventRecord>() == EVENT_BYTES + FRAME_BYTES_MAX);

impl Event {
    /// Reads an event and the frame's bytes out of a ring buffer's record; `None` when it is not
    /// one.
    #[must_use]
    pub fn read(record: &[u8]) -> Option<(Event, &[u8])> {
        let (head, rest) = record.split_first_chunk::<EVENT_BYTES>()?;
        let word = |index: usize| {
            let at = 8 + 4 * index;
            u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
        };
        let time_ns = u64::from_ne_bytes(*head.first_chunk::<8>()?);
        let last = word(13).to_ne_bytes();
        let event = Event {
            time_ns,
            why: word(0),
            verdict: word(1),
            reason: word(2),
            program: word(3),
            ifindex: word(4),
            network: word(5),
            source: word(6),
            destination: word(7),
            node: word(8),
            label: word(9),
            connection: word(10),
            length: word(11),
            segments: word(12),
            captured: u16::from_ne_bytes([last[0], last[1]]),
            outer: u16::from_ne_bytes([last[2], last[3]]),
            log: word(14),
            wire: word(15),
        };
        Some((event, rest.get(..usize::from(event.captured))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_field_by_field_as_it_lies_in_memory() {
        let mut record = [0u8; EVENT_BYTES + 3];
        record[..8].copy_from_slice(&7u64.to_ne_bytes());
        for index in 0..13u32 {
            let at = 8 + 4 * index as usize;
            record[at..at + 4].copy_from_slice(&(100 + index).to_ne_bytes());
        }
        record[60..62].copy_from_slice(&3u16.to_ne_bytes());
        record[62..64].copy_from_slice(&1u16.to_ne_bytes());
        record[64..68].copy_from_slice(&114u32.to_ne_bytes());
        record[68..72].copy_from_slice(&115u32.to_ne_bytes());
        record[72..].copy_from_slice(&[1, 2, 3]);
        let (event, frame) = Event::read(&record).unwrap();
        let expected = Event {
            time_ns: 7,
            why: 100,
            verdict: 101,
            reason: 102,
            program: 103,
            ifindex: 104,
            network: 105,
            source: 106,
            destination: 107,
            node: 108,
            label: 109,
            connection: 110,
            length: 111,
            segments: 112,
            captured: 3,
            outer: 1,
            log: 114,
            wire: 115,
        };
        assert_eq!(event, expected);
        assert_eq!(core::mem::offset_of!(Event, segments), 56);
        assert_eq!(core::mem::offset_of!(Event, outer), 62);
        assert_eq!(core::mem::offset_of!(Event, log), 64);
        assert_eq!(frame, [1, 2, 3]);
        assert_eq!(Event::read(&record[..74]), None);
        assert_eq!(Event::read(&record[..20]), None);
    }
}
