//! The outer header of a tunnelled packet: VXLAN over UDP over IPv4 or IPv6 (RFC 7348).
//!
//! ```text
//!  0          14      34    42       50         64
//!  +----------+-------+-----+--------+----------+----------------
//!  | Ethernet | IPv4  | UDP | VXLAN  | Ethernet | IPv4 or IPv6 ...
//!  +----------+-------+-----+--------+----------+----------------
//!               outer                   inner
//!
//!  0          14      54    62       70         84
//!  +----------+-------+-----+--------+----------+----------------
//!  | Ethernet | IPv6  | UDP | VXLAN  | Ethernet | IPv4 or IPv6 ...
//!  +----------+-------+-----+--------+----------+----------------
//!
//! Over IPv6 too the UDP checksum is zero (RFC 6935, 6936): the inner packet has its own, and who is
//! addressed is checked on receipt. The flow label spreads flows as the source port does (RFC 6438).
//!
//!  VXLAN:  | flags = 0x08 | group (24) | VNI (24) | reserved (5) hops (3) |
//! ```
//!
//! The first reserved field names the set of endpoints that a broadcast or multicast frame goes to
//! (see [`group`](crate::group)); it means nothing with other frames. The last reserved byte carries how often a packet was forwarded after its endpoint moved. It is
//! zero toward other implementations, which ignore it on receipt as the RFC asks.

use crate::bytes::Window;

/// UDP port of VXLAN (IANA).
pub const PORT: u16 = 4789;
/// How many other ports networks may use, together.
pub const OTHER_PORTS: usize = 8;
/// Bytes from the outer Ethernet header to the inner one.
pub const OUTER_BYTES: usize = 50;
/// The same over IPv6.
pub const OUTER_BYTES_V6: usize = 70;
/// The VNI flag, the only one that may be set.
pub const FLAG_VNI: u8 = 0x08;
/// Largest hop count that the header can carry.
pub const MAX_HOPS: u8 = 7;
/// First of the 16,384 source ports that spread flows over the underlay's paths.
pub const SOURCE_PORT_BASE: u16 = 0xc000;
/// Mask of the flow hash that is added to [`SOURCE_PORT_BASE`].
pub const SOURCE_PORT_MASK: u32 = 0x3fff;

/// Offset of the outer IPv4 header.
pub const IPV4_OFFSET: usize = 14;
/// Offset of the outer UDP header.
pub const UDP_OFFSET: usize = 34;
/// Offset of the VXLAN header.
pub const VXLAN_OFFSET: usize = 42;

/// First of the addresses that keys have within encrypted tunnels: class E (RFC 1112, 4), which no
/// host has and every kernel refuses to route.
const KEY_ADDRESSES: u32 = 0xf000_0000;

/// The address within encrypted tunnels of a node's key in `slot`, 0 or 1.
///
/// WireGuard finds a packet's key by its destination and proves its source by it, so that two keys
/// that a node has for a while need two addresses.
#[must_use]
pub const fn key_address(node: u32, slot: u8) -> [u8; 4] {
    let number = (node << 1 | (slot as u32 & 1)) & !KEY_ADDRESSES;
    (KEY_ADDRESSES | number).to_be_bytes()
}

/// The node that has an address within encrypted tunnels, which is in memory order.
#[must_use]
#[inline(always)]
pub const fn node_of(key_address: u32) -> u32 {
    (u32::from_be(key_address) & !KEY_ADDRESSES) >> 1
}
/// Offset of the outer IPv6 header.
pub const IPV6_OFFSET: usize = 14;
/// Offset of the UDP header behind it.
pub const UDP_OFFSET_V6: usize = 54;
/// Offset of the VXLAN header behind that.
pub const VXLAN_OFFSET_V6: usize = 62;

/// A VXLAN header that passed the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// How often the packet was forwarded after a move.
    pub hops: u8,
    /// The set of endpoints that a group frame goes to, 24 bits.
    pub tag: u32,
}

/// A header's first word, in memory order.
#[inline(always)]
#[must_use]
pub fn first_word(tag: u32) -> u32 {
    ((FLAG_VNI as u32) << 24 | tag & 0x00ff_ffff).to_be()
}

impl Vxlan {
    /// Reads a header; `None` when a flag other than the VNI flag is set or the VNI flag is not.
    #[inline(always)]
    #[must_use]
    pub fn parse(header: impl Window<8>) -> Option<Self> {
        if header.byte::<0>() != FLAG_VNI {
            return None;
        }
        let last = u32::from_be(header.word::<4>());
        Some(Vxlan {
            vni: last >> 8,
            hops: last as u8 & MAX_HOPS,
            tag: u32::from_be(header.word::<0>()) & 0x00ff_ffff,
        })
    }

    /// The header's first word, in memory order.
    #[inline(always)]
    #[must_use]
    pub fn first_word(self) -> u32 {
        first_word(self.tag)
    }

    /// The header's second word, in memory order.
    #[inline(always)]
    #[must_use]
    pub fn last_word(self) -> u32 {
        (self.vni << 8 | u32::from(self.hops & MAX_HOPS)).to_be()
    }
}

/// Ones' complement sum folded to 16 bits and complemented: an IPv4 header checksum (RFC 1071).
#[inline(always)]
#[must_use]
pub fn fold_checksum(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Words that hold the outer headers; the last two bytes are the inner frame's and not used.
pub const OUTER_WORDS: usize = OUTER_BYTES.div_ceil(4);

/// The template of the outer headers toward a peer as words in memory order, and the sum of its
/// IPv4 header without length and checksum.
#[must_use]
pub fn template(
    source_mac: [u8; 6],
    next_hop_mac: [u8; 6],
    source: [u8; 4],
    destination: [u8; 4],
) -> ([u32; OUTER_WORDS], u32) {
    let mut bytes = [0; OUTER_WORDS * 4];
    bytes[0..6].copy_from_slice(&next_hop_mac);
    bytes[6..12].copy_from_slice(&source_mac);
    bytes[12..14].copy_from_slice(&crate::headers::ETHER_IPV4.to_be_bytes());
    bytes[14] = 0x45;
    // Don't fragment: the network's MTU is chosen so that a tunnelled packet fits.
    bytes[20] = 0x40;
    bytes[22] = 64;
    bytes[23] = crate::headers::PROTOCOL_UDP;
    bytes[26..30].copy_from_slice(&source);
    bytes[30..34].copy_from_slice(&destination);
    bytes[36..38].copy_from_slice(&PORT.to_be_bytes());
    bytes[VXLAN_OFFSET] = FLAG_VNI;
    let sum = bytes[IPV4_OFFSET..UDP_OFFSET]
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let mut words = [0; OUTER_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    (words, sum)
}

/// Words that hold the outer headers over IPv6; the last two bytes are the inner frame's and not used.
pub const OUTER_WORDS_V6: usize = OUTER_BYTES_V6.div_ceil(4);

/// As [`template`], over IPv6; what is not filled in is the payload length, the flow label, and what
/// is behind the IPv6 header.
#[must_use]
pub fn template_v6(
    source_mac: [u8; 6],
    next_hop_mac: [u8; 6],
    source: [u8; 16],
    destination: [u8; 16],
) -> [u32; OUTER_WORDS_V6] {
    let mut bytes = [0; OUTER_WORDS_V6 * 4];
    bytes[0..6].copy_from_slice(&next_hop_mac);
    bytes[6..12].copy_from_slice(&source_mac);
    bytes[12..14].copy_from_slice(&crate::headers::ETHER_IPV6.to_be_bytes());
    bytes[14] = 0x60;
    bytes[20] = crate::headers::PROTOCOL_UDP;
    bytes[21] = 64;
    bytes[22..38].copy_from_slice(&source);
    bytes[38..54].copy_from_slice(&destination);
    let mut words = [0; OUTER_WORDS_V6];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_survives_its_bytes() {
        let header = Vxlan {
            vni: 0x0a_bc_de,
            hops: 3,
            tag: 0x12_34_56,
        };
        assert_eq!(header.first_word().to_ne_bytes(), [8, 0x12, 0x34, 0x56]);
        let [a, b, c, d] = header.last_word().to_ne_bytes();
        assert_eq!([a, b, c, d], [0x0a, 0xbc, 0xde, 3]);
        assert_eq!(
            Vxlan::parse(&[8, 0x12, 0x34, 0x56, a, b, c, d]),
            Some(header)
        );
    }

    #[test]
    fn other_flags_are_refused() {
        assert_eq!(Vxlan::parse(&[0x0c, 0, 0, 0, 0, 0, 1, 0]), None);
        assert_eq!(Vxlan::parse(&[0x00, 0, 0, 0, 0, 0, 1, 0]), None);
    }

    #[test]
    fn the_template_sum_completes_to_a_valid_checksum() {
        let (words, sum) = template([2; 6], [4; 6], [10, 1, 0, 2], [10, 2, 0, 2]);
        let mut bytes = [0; OUTER_WORDS * 4];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        let length = 86u16;
        bytes[16..18].copy_from_slice(&length.to_be_bytes());
        bytes[24..26].copy_from_slice(&fold_checksum(sum + u32::from(length)).to_be_bytes());
        let whole: u32 = bytes[14..34]
            .chunks_exact(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!(fold_checksum(whole), 0);
    }
}
