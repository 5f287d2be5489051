//! How long a flow is kept that nothing is heard of, and how flows are told to the agent.
//!
//! The programs remember flows and forget none by themselves. Every few seconds the agent lets a
//! program of its own go through them, with the limits of [`Sweep`]; [`ended`] decides about one of
//! them, and is the same code in the kernel and in tests.

use crate::{
    address::Address,
    flow::{FlowEntry, Phase, TupleV6},
    headers::{PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP},
};

/// What the limits of a flow's silence depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Lifetime {
    /// A TCP connection of which one side was heard.
    TcpOneWay = 0,
    /// A TCP connection that is up.
    TcpEstablished = 1,
    /// A TCP connection that one side has ended.
    TcpClosing = 2,
    /// A TCP connection that is over.
    TcpClosed = 3,
    /// UDP one way.
    UdpOneWay = 4,
    /// UDP both ways.
    UdpBothWays = 5,
    /// An ICMP echo.
    Icmp = 6,
    /// Another protocol.
    Other = 7,
}

/// How many lifetimes there are.
pub const LIFETIMES: usize = 8;

/// Seconds of silence after which a flow is forgotten, by [`Lifetime`]: those of Linux's connection
/// tracking (`nf_conntrack_proto_*.c`), with a shorter one for a SYN that nobody answers.
pub const SILENCE_S: [u32; LIFETIMES] = [30, 432_000, 120, 10, 30, 120, 30, 600];
/// Seconds of silence of a flow that goes one way only, while there is little room.
pub const SILENCE_UNDER_PRESSURE_S: u32 = 5;

/// Seconds of silence of a connection that is over, while half of the room or more is taken: late
/// packets of it are few, and begin at most a flow that goes one way.
pub const CLOSED_WHEN_HALF_FULL_S: u32 = 1;

/// The lifetime of a flow.
#[inline(always)]
#[must_use]
pub fn lifetime(protocol: u8, phase: Phase) -> Lifetime {
    match (protocol, phase) {
        (PROTOCOL_TCP, Phase::OneWay) => Lifetime::TcpOneWay,
        (PROTOCOL_TCP, Phase::Established) => Lifetime::TcpEstablished,
        (PROTOCOL_TCP, Phase::Closing) => Lifetime::TcpClosing,
        (PROTOCOL_TCP, Phase::Closed) => Lifetime::TcpClosed,
        (PROTOCOL_UDP, Phase::OneWay) => Lifetime::UdpOneWay,
        (PROTOCOL_UDP, _) => Lifetime::UdpBothWays,
        (PROTOCOL_ICMP | PROTOCOL_ICMPV6, _) => Lifetime::Icmp,
        _ => Lifetime::Other,
    }
}

macro_rules! endings {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// Why a flow was forgotten. The value is the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Ending {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl Ending {
            /// Every one, in counter order.
            pub const ALL: &'static [Ending] = &[$(Ending::$variant,)+];

            /// The stable name used in JSON and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Ending::$variant => $name,)+ }
            }
        }
    };
}

endings! {
    /// Nothing was heard of it for long.
    Silent = 0, "silent";
    /// Its connection was ended.
    Closed = 1, "closed";
    /// It went one way only, and there was little room.
    Pressure = 2, "pressure";
    /// Its endpoint is not on this node any more, or is no more.
    Gone = 3, "gone";
}

/// How many endings there are.
pub const ENDINGS: usize = 4;
const _: () = assert!(Ending::ALL.len() == ENDINGS);

/// What a sweep goes by and what it found; slot 0 of `SWEEP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Sweep {
    /// Jiffies of silence after which a flow is forgotten, by [`Lifetime`].
    pub silence: [u32; LIFETIMES],
    /// The same of flows that go one way only; zero for what `silence` says.
    pub one_way: u32,
    /// Flows that may be taken back from `OVERFLOW`.
    pub room: u32,
    /// One of [`take`].
    pub take: u32,
    /// Flows that are kept, IPv4 and IPv6: found by the sweep.
    pub kept: [u32; 2],
    /// Lines of the table that were freed: found by the sweep.
    pub freed: u32,
    /// Flows that were taken back from `OVERFLOW`: found by the sweep.
    pub taken: u32,
    /// Flows that were forgotten, by [`Ending`]: found by the sweep.
    pub ended: [u32; ENDINGS],
}

/// What a sweep goes through: the argument of `flow_sweep`.
pub mod pass {
    /// The table: flows that are over are forgotten.
    pub const TABLE: u64 = 4;
    /// The table again, after a grace period: lines of flows that were forgotten are freed.
    pub const FREE: u64 = 5;
    /// IPv4 flows beside the table.
    pub const OVERFLOW_V4: u64 = 104;
    /// IPv6 flows beside the table.
    pub const OVERFLOW_V6: u64 = 106;
    /// Connections that leave the cloud here.
    pub const OUTSIDE: u64 = 107;
}

/// What is done with one flow: the lower half of the first argument of `flow_exchange`, the family, 4 or
/// 6, in the upper one. Network and protocol with the ports, the addresses and the entry follow.
pub mod exchange {
    /// Is it there?
    pub const FIND: u32 = 0;
    /// Have it as it is handed over.
    pub const SET: u32 = 1;
    /// Have it as it is handed over, with what was seen of it here, if it is the same endpoint's.
    pub const JOIN: u32 = 2;
    /// Forget it.
    pub const FORGET: u32 = 3;
    /// Forget it if it is of the same endpoint as the entry that is handed over.
    pub const FORGET_OWN: u32 = 4;

    /// Answer: no, or it cannot be had.
    pub const NO: u32 = 0;
    /// Answer: yes.
    pub const YES: u32 = 1;
    /// Answer: yes, beside the table, because there was no room.
    pub const BESIDE: u32 = 2;
}

/// Which flows are taken back from `OVERFLOW`: [`Sweep::take`].
pub mod take {
    /// None.
    pub const NONE: u32 = 0;
    /// Those that went both ways.
    pub const BOTH_WAYS: u32 = 1;
    /// All.
    pub const ALL: u32 = 2;
}

/// Whether a flow is to be forgotten, and why. `is_expected` is whether its endpoint lives here or is
/// about to.
#[inline(always)]
#[must_use]
pub fn ended(
    entry: &FlowEntry,
    protocol: u8,
    now: u32,
    is_expected: bool,
    sweep: &Sweep,
) -> Option<Ending> {
    if !is_expected {
        return Some(Ending::Gone);
    }
    // Written by another CPU just now, it may be ahead of the clock that was read.
    let silent = now.wrapping_sub(entry.seen) as i32;
    if silent < 0 {
        return None;
    }
    let silent = silent as u32;
    let phase = entry.phase();
    if matches!(phase, Phase::OneWay) && sweep.one_way != 0 && silent > sweep.one_way {
        return Some(Ending::Pressure);
    }
    let lifetime = lifetime(protocol, phase);
    if silent <= sweep.silence[lifetime as usize % LIFETIMES] {
        return None;
    }
    Some(match phase {
        Phase::Closing | Phase::Closed => Ending::Closed,
        Phase::OneWay | Phase::Established => Ending::Silent,
    })
}

/// A flow as the agent is told of it, in the ring buffer `FLOW_RECORDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowRecord {
    /// 4 or 6.
    pub family: u32,
    /// The key; IPv4 addresses are in the first words.
    pub key: TupleV6,
    /// What is known of it.
    pub entry: FlowEntry,
}

/// Bytes of a [`FlowRecord`].
pub const RECORD_BYTES: usize = 92;
const _: () = assert!(size_of::<FlowRecord>() == RECORD_BYTES);
const _: () = assert!(size_of::<Sweep>() == 76);

impl FlowRecord {
    /// Reads a record; `None` when it has another size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let mut words = [0; RECORD_BYTES / 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        let address = |at: usize| Address([words[at], words[at + 1], words[at + 2], words[at + 3]]);
        let key = TupleV6 {
            network_protocol: words[1],
            ports: words[2],
            local: address(3),
            remote: address(7),
        };
        let pair = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let entry =
            FlowEntry::from_words([pair(11), pair(13), pair(15), pair(17), pair(19), pair(21)]);
        let family = words[0];
        Some(FlowRecord { family, key, entry })
    }
}

/// Which part of the flows one belongs to: a ring buffer holds only so many at once.
#[inline(always)]
#[must_use]
pub fn part(local: u32, remote: u32, ports: u32, parts: u32) -> u32 {
    let mixed = (local ^ remote.rotate_left(16) ^ ports).wrapping_mul(0x9e37_79b1);
    (mixed >> 8) % parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::seen;

    fn sweep() -> Sweep {
        Sweep {
            silence: SILENCE_S,
            ..Sweep::default()
        }
    }

    fn entry(sent: u8, received: u8, seen: u32) -> FlowEntry {
        FlowEntry {
            sent,
            received,
            seen,
            ..FlowEntry::default()
        }
    }

    /// The silence that each kind of flow survives, and the one that it does not.
    #[test]
    fn a_flow_is_kept_for_as_long_as_its_phase_says() {
        let (packet, syn, fin, rst) = (seen::PACKET, seen::SYN, seen::FIN, seen::RST);
        let cases = [
            (PROTOCOL_TCP, packet | syn, 0, 30, Ending::Silent),
            (
                PROTOCOL_TCP,
                packet | syn,
                packet | syn,
                432_000,
                Ending::Silent,
            ),
            (PROTOCOL_TCP, packet | fin, packet, 120, Ending::Closed),
            (PROTOCOL_TCP, packet | fin, packet | fin, 10, Ending::Closed),
            (PROTOCOL_TCP, packet, packet | rst, 10, Ending::Closed),
            (PROTOCOL_UDP, packet, 0, 30, Ending::Silent),
            (PROTOCOL_UDP, 0, packet, 30, Ending::Silent),
            (PROTOCOL_UDP, packet, packet, 120, Ending::Silent),
            (PROTOCOL_ICMP, packet, packet, 30, Ending::Silent),
            (PROTOCOL_ICMPV6, packet, 0, 30, Ending::Silent),
            (47, packet, packet, 600, Ending::Silent),
        ];
        for (protocol, sent, received, silence, ending) in cases {
            // Also across the end of the clock.
            for now in [1_000_000_u32, silence / 2] {
                let at = |silent: u32| {
                    let entry = entry(sent, received, now.wrapping_sub(silent));
                    ended(&entry, protocol, now, true, &sweep())
                };
                assert_eq!(at(silence), None, "{protocol} {sent:#x} {received:#x}");
                assert_eq!(
                    at(silence + 1),
                    Some(ending),
                    "{protocol} {sent:#x} {received:#x}"
                );
            }
        }
    }

    #[test]
    fn under_pressure_only_what_nobody_answered_goes_early() {
        let sweep = Sweep {
            one_way: SILENCE_UNDER_PRESSURE_S,
            ..sweep()
        };
        let decide =
            |sent, received| ended(&entry(sent, received, 0), PROTOCOL_UDP, 6, true, &sweep);
        assert_eq!(decide(seen::PACKET, 0), Some(Ending::Pressure));
        assert_eq!(decide(seen::PACKET, seen::PACKET), None);
    }

    #[test]
    fn a_flow_of_an_endpoint_that_left_goes_at_once_and_one_from_the_future_stays() {
        let fresh = entry(seen::PACKET, seen::PACKET, 5);
        assert_eq!(ended(&fresh, PROTOCOL_TCP, 4, true, &sweep()), None);
        let gone = ended(&fresh, PROTOCOL_TCP, 4, false, &sweep());
        assert_eq!(gone, Some(Ending::Gone));
    }
}
