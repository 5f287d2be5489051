//! Wires: point-to-point connectors between two endpoints.
//!
//! A frame of a wire travels in a tunnel whose header names the wire and the end that sent it. Its
//! own addresses say nothing: it may be anything that an Ethernet cable carries.
//!
//! ```text
//!  VXLAN:  | flags = 0x08 | wire (24) | VNI (24) | 0 (3) from b (1) = 0x10 wire (1) = 0x08 hops (3) |
//! ```
//!
//! A node passes on what it finds in `WIRES` alone. So a wire carries nothing any more, in either
//! direction, as soon as one of the nodes of its ends knows that it is gone.

use crate::{
    bytes::Window,
    vxlan::{FLAG_VNI, MAX_HOPS},
};

/// Greatest number of a wire.
pub const NUMBER_MAX: u32 = (1 << 24) - 1;

/// In the last byte of a tunnel header: it is a wire's.
const IS_WIRE: u32 = 1 << 3;
/// In the last byte of a tunnel header: the second end sent it.
const FROM_B: u32 = 1 << 4;

/// VLAN tags in front of a frame that a wire carries; a frame with more is dropped.
pub const MAX_TAGS: usize = 2;
/// Bytes of a VLAN tag.
pub const TAG_BYTES: usize = 4;
/// A shorter frame gets zeros at its end before it goes into a tunnel, as on a cable: the kernel
/// takes a tunnel's headers only off a packet that has room for an IPv4 header behind them.
pub const FRAME_BYTES_MIN: u32 = 34;

/// A wire, in `WIRES` by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct WireEntry {
    /// VXLAN network identifier of both ends; zero means no wire.
    pub network: u32,
    /// Numbers of the endpoints.
    pub ends: [u32; 2],
}

const _: () = assert!(size_of::<WireEntry>() == 12);

/// Key of `WIRE_COUNTERS`: frames of a wire that one end sent.
#[inline(always)]
#[must_use]
pub const fn counter_key(number: u32, from_b: bool) -> u32 {
    number << 1 | from_b as u32
}

/// Marks the network of an endpoint in `LOCATIONS` that is an end of a wire, so that nothing but its
/// wire finds it there.
#[inline(always)]
#[must_use]
pub const fn wired(network: u32) -> u32 {
    network | 1 << 31
}

/// Whether a network in `LOCATIONS` is so marked.
#[inline(always)]
#[must_use]
pub const fn is_wired(network: u32) -> bool {
    network >> 31 != 0
}

/// The tunnel header of a frame of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireHeader {
    /// VXLAN network identifier of the ends.
    pub vni: u32,
    /// Number of the wire.
    pub number: u32,
    /// The second end sent it.
    pub from_b: bool,
    /// How often it was forwarded after a move.
    pub hops: u8,
}

impl WireHeader {
    /// Reads a header; `None` when it is no wire's.
    #[inline(always)]
    #[must_use]
    pub fn parse(header: impl Window<8>) -> Option<Self> {
        let last = u32::from_be(header.word::<4>());
        if header.byte::<0>() != FLAG_VNI || last & IS_WIRE == 0 {
            return None;
        }
        Some(WireHeader {
            vni: last >> 8,
            number: u32::from_be(header.word::<0>()) & NUMBER_MAX,
            from_b: last & FROM_B != 0,
            hops: last as u8 & MAX_HOPS,
        })
    }

    /// The header's first word, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn first_word(self) -> u32 {
        ((FLAG_VNI as u32) << 24 | self.number & NUMBER_MAX).to_be()
    }

    /// The header's second word, in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn last_word(self) -> u32 {
        let from_b = if self.from_b { FROM_B } else { 0 };
        (self.vni << 8 | from_b | IS_WIRE | (self.hops & MAX_HOPS) as u32).to_be()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vxlan::Vxlan;

    #[test]
    fn the_header_survives_its_bytes() {
        for from_b in [false, true] {
            let header = WireHeader {
                vni: 0x0a_bc_de,
                number: 0x12_34_56,
                from_b,
                hops: 5,
            };
            let [a, b, c, d] = header.last_word().to_ne_bytes();
            assert_eq!([a, b, c], [0x0a, 0xbc, 0xde]);
            assert_eq!(d, if from_b { 0x1d } else { 0x0d });
            let bytes = [8, 0x12, 0x34, 0x56, a, b, c, d];
            assert_eq!(header.first_word().to_ne_bytes(), bytes[..4]);
            assert_eq!(WireHeader::parse(&bytes), Some(header));
        }
    }

    #[test]
    fn what_policies_send_is_no_wires() {
        for hops in 0..=MAX_HOPS {
            let header = Vxlan {
                vni: 0xff_ff_ff,
                hops,
                tag: 0xff_ff_ff,
            };
            let [a, b, c, d] = header.first_word().to_ne_bytes();
            let [e, f, g, h] = header.last_word().to_ne_bytes();
            assert_eq!(WireHeader::parse(&[a, b, c, d, e, f, g, h]), None);
        }
    }
}
