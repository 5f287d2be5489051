//! Bounded parsing of a frame into the headers that policy can test.
//!
//! ```text
//!  0        14             14 + IP header
//!  +--------+--------------+---------------------------+
//!  |Ethernet| IPv4 or IPv6 | TCP, UDP, ICMP or ICMPv6  |
//!  +--------+--------------+---------------------------+
//! ```
//!
//! Each byte is read once. A header that contradicts itself is [`Malformed`]; a protocol that is
//! not known is not an error, its fields read as zero. IPv6 extension headers are not skipped: the
//! protocol is then the number of the first of them, which no rule for TCP or UDP admits.

use crate::{
    address::{Address, Mac},
    bytes::{Bytes, Window},
};

/// Length of an Ethernet header in bytes.
pub const ETHERNET_BYTES: usize = 14;
/// Length of an IPv6 header in bytes.
pub const IPV6_BYTES: usize = 40;
/// Length of an IPv4 header without options, in bytes.
pub const IPV4_BYTES: usize = 20;

/// Length of an IPv6 fragment header, in bytes.
pub const FRAGMENT_BYTES: usize = 8;
/// Length of a TCP header without options, in bytes.
pub const TCP_BYTES: usize = 20;
/// Length of a UDP header in bytes.
pub const UDP_BYTES: usize = 8;
/// Length of the part of an ICMP header that all messages have, in bytes.
pub const ICMP_BYTES: usize = 8;

/// EtherType of IPv4.
pub const ETHER_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_IPV6: u16 = 0x86dd;
/// EtherType of an 802.1Q tag.
pub const ETHER_VLAN: u16 = 0x8100;
/// EtherType of an 802.1ad tag.
pub const ETHER_QINQ: u16 = 0x88a8;

/// IP protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// IPv6 next-header number of a fragment header.
pub const PROTOCOL_IPV6_FRAGMENT: u8 = 44;

/// The address family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Family {
    /// Neither IPv4 nor IPv6: the packet has no addresses.
    #[default]
    None = 0,
    /// IPv4; an address fills the first of 4 words.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// The frame ends inside a header, or a header contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The headers of one frame, in host byte order; fields that the frame does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers {
    /// Destination MAC address.
    pub eth_dst: Mac,
    /// Source MAC address.
    pub eth_src: Mac,
    /// EtherType.
    pub ether_type: u16,
    /// Source address; IPv4 fills the first word.
    pub src: Address,
    /// Destination address; IPv4 fills the first word.
    pub dst: Address,
    /// IP protocol, or the first IPv6 next-header number.
    pub protocol: u8,
    /// Differentiated services code point, 6 bits (RFC 2474).
    pub dscp: u8,
    /// Source port of TCP or UDP.
    pub src_port: u16,
    /// Destination port of TCP or UDP.
    pub dst_port: u16,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: u8,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: u8,
    /// Identifier of an ICMP or ICMPv6 echo, request or reply.
    pub icmp_id: u16,
    /// Flags of TCP (RFC 9293, 3.1).
    pub tcp_flags: u8,
    /// Address family.
    pub family: Family,
}

/// What parsing found: the headers and where the transport header starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Parsed {
    /// The headers.
    pub headers: Headers,
    /// Offset of the transport header in bytes from the start of the frame; zero without IP.
    pub transport: u32,
    /// Whether it is part of a datagram; a later part has no transport header.
    pub fragment: Fragment,
    /// Identification of the datagram that a fragment belongs to.
    pub fragment_id: u32,
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Fragment {
    /// All of it.
    #[default]
    Whole = 0,
    /// The first part, with the transport header.
    First = 1,
    /// A later part, without.
    Later = 2,
}

impl Headers {
    /// Parses the frame that starts at its Ethernet header.
    ///
    /// # Errors
    /// [`Malformed`] when the frame ends inside a header, when the IP version contradicts the
    /// EtherType, or when an IPv4 header length is below 20 bytes.
    #[inline(always)]
    pub fn parse<B: Bytes>(frame: &B) -> Result<Parsed, Malformed> {
        let ethernet = frame.window::<ETHERNET_BYTES>(0).ok_or(Malformed)?;
        let mut parsed = Parsed {
            headers: Headers {
                eth_dst: Mac {
                    first: ethernet.word::<0>(),
                    last: ethernet.half::<4>(),
                    padding: 0,
                },
                eth_src: Mac {
                    first: ethernet.word::<6>(),
                    last: ethernet.half::<10>(),
                    padding: 0,
                },
                ether_type: u16::from_be(ethernet.half::<12>()),
                ..Headers::default()
            },
            transport: 0,
            fragment: Fragment::Whole,
            fragment_id: 0,
        };
        match parsed.headers.ether_type {
            ETHER_IPV4 => parsed.ipv4(frame)?,
            ETHER_IPV6 => parsed.ipv6(frame)?,
            _ => {}
        }
        Ok(parsed)
    }
}

impl Parsed {
    /// Where the transport header starts, visibly within the first 256 bytes: the verifier knows
    /// nothing of a number that comes from memory. The longest IP header ends before.
    #[inline(always)]
    #[must_use]
    pub const fn transport_offset(&self) -> usize {
        (self.transport & 0xff) as usize
    }

    #[inline(always)]
    fn ipv4<B: Bytes>(&mut self, frame: &B) -> Result<(), Malformed> {
        let ip = frame
            .window::<IPV4_BYTES>(ETHERNET_BYTES)
            .ok_or(Malformed)?;
        let version = ip.byte::<0>();
        let header_bytes = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header_bytes < IPV4_BYTES {
            return Err(Malformed);
        }
        let headers = &mut self.headers;
        headers.family = Family::V4;
        headers.dscp = ip.byte::<1>() >> 2;
        headers.protocol = ip.byte::<9>();
        headers.src.0[0] = ip.word::<12>();
        headers.dst.0[0] = ip.word::<16>();
        // Reserved bit 1, don't fragment 1, more fragments 1, offset 13 (RFC 791, 3.1).
        let flags = u16::from_be(ip.half::<6>());
        self.fragmented(flags & 0x1fff != 0, flags & 0x2000 != 0);
        self.fragment_id = u32::from(ip.half::<4>());
        self.transport(frame, (ETHERNET_BYTES + header_bytes) as u32)
    }

    #[inline(always)]
    fn ipv6<B: Bytes>(&mut self, frame: &B) -> Result<(), Malformed> {
        let ip = frame
            .window::<IPV6_BYTES>(ETHERNET_BYTES)
            .ok_or(Malformed)?;
        // Version 4 bits, DSCP 6, ECN 2, flow label 20 (RFC 8200, RFC 2474).
        let first = u16::from_be(ip.half::<0>());
        if first >> 12 != 6 {
            return Err(Malformed);
        }
        let headers = &mut self.headers;
        headers.family = Family::V6;
        headers.dscp = (first >> 6) as u8 & 0x3f;
        headers.protocol = ip.byte::<6>();
        headers.src = Address([
            ip.word::<8>(),
            ip.word::<12>(),
            ip.word::<16>(),
            ip.word::<20>(),
        ]);
        headers.dst = Address([
            ip.word::<24>(),
            ip.word::<28>(),
            ip.word::<32>(),
            ip.word::<36>(),
        ]);
        if headers.protocol != PROTOCOL_IPV6_FRAGMENT {
            return self.transport(frame, (ETHERNET_BYTES + IPV6_BYTES) as u32);
        }
        let at = ETHERNET_BYTES + IPV6_BYTES;
        let fragment = frame.window::<FRAGMENT_BYTES>(at).ok_or(Malformed)?;
        headers.protocol = fragment.byte::<0>();
        // Offset 13 bits, reserved 2, more fragments 1 (RFC 8200, 4.5).
        let flags = u16::from_be(fragment.half::<2>());
        self.fragmented(flags & 0xfff8 != 0, flags & 1 != 0);
        self.fragment_id = fragment.word::<4>();
        self.transport(frame, (at + FRAGMENT_BYTES) as u32)
    }

    #[inline(always)]
    fn fragmented(&mut self, has_offset: bool, has_more: bool) {
        self.fragment = match (has_offset, has_more) {
            (true, _) => Fragment::Later,
            (false, true) => Fragment::First,
            (false, false) => Fragment::Whole,
        };
    }

    /// Whether there is something between the IP header's fixed part and the transport header.
    #[inline(always)]
    #[must_use]
    pub fn has_options(&self) -> bool {
        let fixed = match self.headers.family {
            Family::V4 => IPV4_BYTES,
            Family::V6 => IPV6_BYTES,
            Family::None => 0,
        };
        self.transport as usize != ETHERNET_BYTES + fixed
    }

    #[inline(always)]
    fn transport<B: Bytes>(&mut self, frame: &B, offset: u32) -> Result<(), Malformed> {
        self.transport = offset;
        if self.fragment == Fragment::Later {
            return Ok(());
        }
        let headers = &mut self.headers;
        match (headers.protocol, headers.family) {
            (PROTOCOL_TCP, _) => {
                let tcp = frame
                    .window::<TCP_BYTES>(offset as usize)
                    .ok_or(Malformed)?;
                headers.src_port = u16::from_be(tcp.half::<0>());
                headers.dst_port = u16::from_be(tcp.half::<2>());
                headers.tcp_flags = tcp.byte::<13>();
            }
            (PROTOCOL_UDP, _) => {
                let udp = frame
                    .window::<UDP_BYTES>(offset as usize)
                    .ok_or(Malformed)?;
                headers.src_port = u16::from_be(udp.half::<0>());
                headers.dst_port = u16::from_be(udp.half::<2>());
            }
            (PROTOCOL_ICMP, Family::V4) | (PROTOCOL_ICMPV6, Family::V6) => {
                let icmp = frame
                    .window::<ICMP_BYTES>(offset as usize)
                    .ok_or(Malformed)?;
                headers.icmp_type = icmp.byte::<0>();
                headers.icmp_code = icmp.byte::<1>();
                // Echo reply and echo (RFC 792); echo request and reply (RFC 4443, 4).
                if matches!(headers.icmp_type, 0 | 8 | 128 | 129) {
                    headers.icmp_id = u16::from_be(icmp.half::<4>());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_v4(options: usize) -> ([u8; 88], usize) {
        let mut frame = [0u8; 88];
        frame[12..14].copy_from_slice(&ETHER_IPV4.to_be_bytes());
        frame[14] = 0x45 + (options / 4) as u8;
        frame[15] = 46 << 2;
        frame[23] = PROTOCOL_UDP;
        frame[26..30].copy_from_slice(&[10, 0, 0, 1]);
        frame[30..34].copy_from_slice(&[10, 0, 0, 2]);
        let transport = 34 + options;
        frame[transport..transport + 4].copy_from_slice(&[0x30, 0x39, 0, 53]);
        (frame, transport)
    }

    #[test]
    fn ports_are_found_behind_ipv4_options() {
        for options in [0, 4, 40] {
            let (frame, transport) = udp_v4(options);
            let parsed = Headers::parse(&frame.as_slice()).unwrap();
            assert_eq!(parsed.transport as usize, transport);
            assert_eq!(
                (parsed.headers.src_port, parsed.headers.dst_port),
                (12345, 53)
            );
            assert_eq!(parsed.headers.dscp, 46);
        }
    }

    #[test]
    fn every_truncation_is_malformed_or_parses_without_the_missing_part() {
        let (frame, transport) = udp_v4(0);
        for length in 0..transport + UDP_BYTES {
            assert_eq!(
                Headers::parse(&&frame[..length]),
                Err(Malformed),
                "{length}"
            );
        }
        assert!(Headers::parse(&&frame[..transport + UDP_BYTES]).is_ok());
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let (mut frame, _) = udp_v4(0);
        frame[21] = 1;
        let parsed = Headers::parse(&frame.as_slice()).unwrap();
        assert_eq!(parsed.fragment, Fragment::Later);
        assert_eq!(parsed.headers.dst_port, 0);
        // The first one has them: more fragments, no offset.
        (frame[20], frame[21]) = (0x20, 0);
        let parsed = Headers::parse(&frame.as_slice()).unwrap();
        assert_eq!(parsed.fragment, Fragment::First);
        assert_eq!(parsed.headers.dst_port, 53);
    }

    #[test]
    fn a_version_that_contradicts_the_ethertype_is_malformed() {
        let (mut frame, _) = udp_v4(0);
        frame[14] = 0x65;
        assert_eq!(Headers::parse(&frame.as_slice()), Err(Malformed));
        frame[14] = 0x44;
        assert_eq!(Headers::parse(&frame.as_slice()), Err(Malformed));
    }
}
