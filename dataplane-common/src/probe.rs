//! Probes of tunnels: what a node sends to another to learn whether and how fast it answers.
//!
//! ```text
//!  0          50            64       68     72     76         80        88
//!  +----------+-------------+--------+------+------+----------+---------+
//!  |  outer   | Ethernet    | magic  | kind | slot | reserved | token   |
//!  |  VNI 0   | type 0x88b5 | "SWpr" |      |      | 0        |         |
//!  +----------+-------------+--------+------+------+----------+---------+
//! ```
//!
//! A probe travels as packets of workloads do: with their outer headers, out of the same device, through
//! the encryption where they are encrypted. VNI 0 is no network's, and the EtherType is the one that IEEE
//! 802 leaves to local experiments, so nothing else understands it. Who is asked sends it back from
//! within the kernel, changed in its kind alone: one answer for a question, of the same size. Who asked
//! notes when the answer came, in the slot that the question names, if the token is still the one that
//! is waited for there.

/// VNI of probes.
pub const NETWORK: u32 = 0;
/// EtherType of probes: IEEE Std 802 - Local Experimental Ethertype 1.
pub const ETHER_PROBE: u16 = 0x88b5;
/// First word of a probe, as it is in the frame.
pub const MAGIC: [u8; 4] = *b"SWpr";
/// Bytes of a probe from the inner Ethernet header on.
pub const INNER_BYTES: usize = 14 + 24;
/// Offset of what follows the inner Ethernet header, from there on.
pub const PAYLOAD: usize = 14;
/// Questions to one node that may wait for an answer at the same time.
pub const SLOTS: u32 = 8;

/// What a probe is, big endian in the frame.
pub mod kind {
    /// A question.
    pub const ASK: u32 = 1;
    /// Its answer.
    pub const ANSWER: u32 = 2;
}

/// A question that waits for its answer, in `PROBES` by the number of the node that is asked times
/// [`SLOTS`] and the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ProbeSlot {
    /// What the answer has to have: the time of sending, nanoseconds of `CLOCK_MONOTONIC`. Nobody else
    /// reads anything into it.
    pub token: u64,
    /// When the answer came, likewise; zero while none has.
    pub answered_ns: u64,
}

const _: () = assert!(size_of::<ProbeSlot>() == 16);

/// Place of a question in `PROBES`.
#[inline(always)]
#[must_use]
pub const fn place(node: u32, slot: u32) -> u32 {
    node.wrapping_mul(SLOTS).wrapping_add(slot % SLOTS)
}

/// A question from the inner Ethernet header on.
#[must_use]
pub fn question(slot: u32, token: u64) -> [u8; INNER_BYTES] {
    // A unicast address that is nobody's: switches on the way see the outer one alone.
    const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0];
    let mut bytes = [0; INNER_BYTES];
    bytes[0..6].copy_from_slice(&NOBODY);
    bytes[6..12].copy_from_slice(&NOBODY);
    bytes[12..14].copy_from_slice(&ETHER_PROBE.to_be_bytes());
    bytes[14..18].copy_from_slice(&MAGIC);
    bytes[18..22].copy_from_slice(&kind::ASK.to_be_bytes());
    bytes[22..26].copy_from_slice(&slot.to_be_bytes());
    // As the kernel's programs load it in two halves.
    bytes[30..38].copy_from_slice(&token.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_these_bytes() {
        let expected = [
            2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x88, 0xb5, // Ethernet
            b'S', b'W', b'p', b'r', 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, // magic, kind, slot
            8, 7, 6, 5, 4, 3, 2, 1, // token
        ];
        assert_eq!(question(5, 0x0102_0304_0506_0708), expected);
    }

    #[test]
    fn each_node_has_places_of_its_own() {
        assert_eq!(place(0, 7), 7);
        assert_eq!(place(1, 0), 8);
        // A slot that a forged probe names stays within its node's.
        assert_eq!(place(3, u32::MAX), 31);
    }
}
