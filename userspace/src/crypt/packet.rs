//! The packets inside an encrypted tunnel: VXLAN over IPv4, and where its parts are.
//!
//! ```text
//!  0      20    28      36         50            50 + 20 or 40
//!  +------+-----+-------+----------+-------------+-----------------
//!  | IPv4 | UDP | VXLAN | Ethernet | IPv4 / IPv6 | TCP, UDP, ...
//!  +------+-----+-------+----------+-------------+-----------------
//!           outer                     inner
//! ```
//!
//! A super-packet is a TCP or UDP packet with more payload than fits one packet, with the segment
//! size beside it ([`VnetHeader`]): the kernel hands over one instead of forty packets.

use std::net::Ipv4Addr;

use sunwire_dataplane_common::{
    vxlan,
    wire::{MAX_TAGS, TAG_BYTES},
};

/// Bytes of the Ethernet header that devices have and tunnels have not.
pub(super) const ETHERNET_BYTES: usize = 14;
/// Offset of the outer UDP header.
pub(super) const OUTER_UDP: usize = vxlan::UDP_OFFSET - ETHERNET_BYTES;
/// Offset of the inner Ethernet header.
pub(super) const INNER_ETHERNET: usize = vxlan::OUTER_BYTES - ETHERNET_BYTES;
/// Offset of the inner IP header of a frame without tags.
pub(super) const INNER_IP: usize = INNER_ETHERNET + ETHERNET_BYTES;
/// Offset of the inner IP header, behind the VLAN tags that a wire's frame may have.
pub(super) fn inner_ip(packet: &[u8]) -> usize {
    let mut at = INNER_IP;
    for _ in 0..MAX_TAGS {
        match packet.get(at - 2..at) {
            Some([0x81, 0x00] | [0x88, 0xa8]) => at += TAG_BYTES,
            _ => break,
        }
    }
    at
}

/// Bytes of [`VnetHeader`] on the wire.
pub(super) const VNET_BYTES: usize = 10;

/// What the kernel says of a packet that it hands to a TAP device, or is told of one that it gets
/// (`struct virtio_net_hdr`, Linux `include/uapi/linux/virtio_net.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct VnetHeader {
    /// The transport checksum covers the pseudo-header alone and is to be completed.
    pub(super) needs_checksum: bool,
    /// What kind of super-packet this is.
    pub(super) super_packet: Option<SuperPacket>,
    /// Bytes of all headers.
    pub(super) header_bytes: u16,
    /// Payload bytes of a segment.
    pub(super) segment_bytes: u16,
    /// Where the checksummed part begins, from the Ethernet header on.
    pub(super) checksum_start: u16,
    /// Where in it the checksum stands.
    pub(super) checksum_offset: u16,
}

/// Kinds of super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SuperPacket {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size.
    Udp,
}

impl VnetHeader {
    const NEEDS_CHECKSUM: u8 = 1;
    const TCP_V4: u8 = 1;
    const TCP_V6: u8 = 4;
    const UDP: u8 = 5;
    /// The first segment alone keeps its congestion mark.
    const ECN: u8 = 0x80;

    /// Reads a header; `None` for a kind of super-packet that was not asked for.
    pub(super) fn parse(bytes: &[u8; VNET_BYTES]) -> Option<Self> {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let super_packet = match bytes[1] & !Self::ECN {
            0 => None,
            Self::TCP_V4 => Some(SuperPacket::TcpV4),
            Self::TCP_V6 => Some(SuperPacket::TcpV6),
            Self::UDP => Some(SuperPacket::Udp),
            _ => return None,
        };
        Some(VnetHeader {
            needs_checksum: bytes[0] & Self::NEEDS_CHECKSUM != 0,
            super_packet,
            header_bytes: half(2),
            segment_bytes: half(4),
            checksum_start: half(6),
            checksum_offset: half(8),
        })
    }

    /// The header as the kernel reads it.
    pub(super) fn to_bytes(self) -> [u8; VNET_BYTES] {
        let mut bytes = [0; VNET_BYTES];
        bytes[0] = u8::from(self.needs_checksum);
        bytes[1] = match self.super_packet {
            None => 0,
            Some(SuperPacket::TcpV4) => Self::TCP_V4,
            Some(SuperPacket::TcpV6) => Self::TCP_V6,
            Some(SuperPacket::Udp) => Self::UDP,
        };
        bytes[2..4].copy_from_slice(&self.header_bytes.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.segment_bytes.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_le_bytes());
        bytes
    }
}

/// Addresses of an IPv4 packet that is VXLAN and nothing else: what tunnels carry.
pub(super) fn tunnelled(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let is_vxlan = packet.len() >= INNER_IP
        && packet[0] == 0x45
        && packet[9] == sunwire_dataplane_common::headers::PROTOCOL_UDP
        && be16(packet, OUTER_UDP + 2) == vxlan::PORT;
    is_vxlan.then(|| (address(packet, 12), address(packet, 16)))
}

/// Writes the outer addresses of such a packet; the header checksum is as it was.
pub(super) fn set_addresses(packet: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
}

fn address(packet: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3])
}

/// Two bytes, big endian.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes, big endian.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Writes two bytes, big endian.
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes the lengths of an IPv4 or IPv6 packet at `at` that is `length` bytes long, and the
/// header checksum of an IPv4 one.
pub(super) fn set_ip_length(bytes: &mut [u8], at: usize, length: usize) {
    if bytes[at] >> 4 == 4 {
        put16(bytes, at + 2, length as u16);
        put16(bytes, at + 10, 0);
        let header = usize::from(bytes[at] & 0xf) * 4;
        let sum = fold(sum(&bytes[at..at + header]));
        put16(bytes, at + 10, !sum);
    } else {
        put16(bytes, at + 4, (length - 40) as u16);
    }
}

/// Writes the lengths of the outer headers of a packet; the outer UDP checksum stays zero.
pub(super) fn set_outer_lengths(packet: &mut [u8]) {
    let length = packet.len();
    set_ip_length(packet, 0, length);
    put16(packet, OUTER_UDP + 4, (length - OUTER_UDP) as u16);
}

/// Ones' complement sum of the pseudo-header of a TCP or UDP packet of `length` bytes in the IP
/// packet at `ip` (RFC 9293, 3.1; RFC 8200, 8.1), not folded.
pub(super) fn pseudo_sum(bytes: &[u8], ip: usize, protocol: u8, length: usize) -> u64 {
    let addresses = match bytes[ip] >> 4 {
        4 => &bytes[ip + 12..ip + 20],
        _ => &bytes[ip + 8..ip + 40],
    };
    sum(addresses) + u64::from(protocol) + length as u64
}

/// Ones' complement sum of 16-bit words, big endian, not folded (RFC 1071).
pub(super) fn sum(bytes: &[u8]) -> u64 {
    // Sums of words in any byte order agree after folding (RFC 1071, 2 B), so eight bytes are
    // taken at a time, as two halves that cannot overflow within a packet.
    let mut total = 0u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_be_bytes(chunk.try_into().expect("a chunk of eight bytes"));
        total += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut pairs = chunks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// A sum folded to 16 bits.
pub(super) fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_survives_its_bytes() {
        let header = VnetHeader {
            needs_checksum: true,
            super_packet: Some(SuperPacket::TcpV6),
            header_bytes: 136,
            segment_bytes: 1228,
            checksum_start: 104,
            checksum_offset: 16,
        };
        assert_eq!(VnetHeader::parse(&header.to_bytes()), Some(header));
        let mut bytes = header.to_bytes();
        bytes[1] |= 0x80;
        assert_eq!(VnetHeader::parse(&bytes), Some(header));
        bytes[1] = 3;
        assert_eq!(VnetHeader::parse(&bytes), None, "UFO was not asked for");
    }

    #[test]
    fn sums_agree_with_the_plain_way() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|byte| byte.wrapping_mul(97)).collect();
            let plain: u64 = bytes
                .chunks(2)
                .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
                .sum();
            assert_eq!(fold(sum(&bytes)), fold(plain), "{length}");
        }
        assert_eq!(fold(0xffff_ffff_ffff), 0xffff);
    }
}
