//! Frames that the programs hand to the agent: what a workload asks of the node itself.
//!
//! ```text
//! ring buffer PUNTS, one record a frame
//!  0        4         8        12     16       20
//!  +--------+---------+--------+------+--------+----------------------+
//!  |ifindex |endpoint | network| kind | length | frame, `length` bytes|
//!  +--------+---------+--------+------+--------+----------------------+
//! ```
//!
//! [`asked`] looks at headers alone, so that a packet that asks nothing costs a few comparisons;
//! [`wanted`] then decides with the endpoint and its network. What is wanted goes to the node
//! whatever the policy says: without an address and names a workload has no network at all.
//! [`Bucket`] bounds what one endpoint can hand over, so that it cannot keep the agent from others.

use crate::{
    address::{Address, Mac},
    bytes::{Bytes, Window},
    entries::{EndpointEntry, NetworkEntry},
    headers::{Family, Headers, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP},
};

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $value:literal, $name:literal;)+) => {
        /// What a workload asks the node for. The value is the index of its counter; values are
        /// never reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Kind {
            $($(#[doc = $doc])+ $variant = $value,)+
        }

        impl Kind {
            /// Every kind, in counter order.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)+];

            /// The stable name used in metrics, JSON and on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)+ }
            }

            /// One sentence for people: what was asked.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Kind::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

kinds! {
    /// A DHCPv4 client's message (RFC 2131).
    Dhcp4 = 0, "dhcp4";
    /// A DHCPv6 client's message (RFC 8415).
    Dhcp6 = 1, "dhcp6";
    /// A router solicitation (RFC 4861).
    RouterSolicitation = 2, "router_solicitation";
    /// A DNS query over UDP to the gateway (RFC 1035).
    DnsUdp = 3, "dns_udp";
    /// A segment of a TCP connection to the gateway's DNS port (RFC 7766).
    DnsTcp = 4, "dns_tcp";
    /// An echo request to the gateway; answered in the kernel.
    Echo = 5, "echo";
    /// An IGMP message: who listens to IPv4 multicast (RFC 3376).
    Igmp = 6, "igmp";
    /// An ICMPv6 message behind a hop-by-hop header: who listens to IPv6 multicast (RFC 3810).
    Mld = 7, "mld";
}

impl Kind {
    /// The kind with this value.
    #[must_use]
    pub fn from_value(value: u32) -> Option<Self> {
        Kind::ALL.get(value as usize).copied()
    }
}

/// Largest frame that is handed over, in bytes; nothing that is asked of a node is longer.
pub const FRAME_BYTES: usize = 2048;

/// What stands before a frame in the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PuntHeader {
    /// ifindex of the device that the frame came in by.
    pub ifindex: u32,
    /// Number of the endpoint.
    pub endpoint: u32,
    /// VXLAN network identifier.
    pub network: u32,
    /// A [`Kind`].
    pub kind: u32,
    /// Bytes of the frame, from the Ethernet header on.
    pub length: u32,
}

/// A record as the programs put it together, before as much of it as is used is handed over.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PuntRecord {
    /// What it is.
    pub header: PuntHeader,
    /// The frame; what is behind its length means nothing.
    pub frame: [u8; FRAME_BYTES],
}

/// Bytes of a [`PuntHeader`].
pub const HEADER_BYTES: usize = size_of::<PuntHeader>();

const _: () = assert!(HEADER_BYTES == 20);
const _: () = assert!(size_of::<PuntRecord>() == HEADER_BYTES + FRAME_BYTES);

impl PuntHeader {
    /// Takes a record of the ring buffer apart; `None` when it is no whole record.
    #[must_use]
    pub fn split(record: &[u8]) -> Option<(PuntHeader, &[u8])> {
        let words = record.window::<HEADER_BYTES>(0)?;
        let header = PuntHeader {
            ifindex: words.word::<0>(),
            endpoint: words.word::<4>(),
            network: words.word::<8>(),
            kind: words.word::<12>(),
            length: words.word::<16>(),
        };
        let frame = record.get(HEADER_BYTES..)?.get(..header.length as usize)?;
        Some((header, frame))
    }
}

/// Port of DHCPv4 clients (RFC 2131, 4.1).
pub const DHCP4_CLIENT_PORT: u16 = 68;
/// Port of DHCPv4 servers.
pub const DHCP4_SERVER_PORT: u16 = 67;
/// Port of DHCPv6 clients (RFC 8415, 7.2).
pub const DHCP6_CLIENT_PORT: u16 = 546;
/// Port of DHCPv6 servers.
pub const DHCP6_SERVER_PORT: u16 = 547;
/// Port of DNS (RFC 1035, 4.2).
pub const DNS_PORT: u16 = 53;
/// Echo request of ICMP (RFC 792).
pub const ECHO_REQUEST: u8 = 8;
/// Echo request of ICMPv6 (RFC 4443, 4.1).
pub const ECHO_REQUEST_V6: u8 = 128;
/// Protocol number of IGMP (RFC 3376, 4).
pub const PROTOCOL_IGMP: u8 = 2;
/// Next header of the hop-by-hop options (RFC 8200, 4.3), which every MLD message has.
pub const HOP_BY_HOP: u8 = 0;
/// Router solicitation (RFC 4861, 4.1).
pub const ROUTER_SOLICITATION: u8 = 133;

const BROADCAST: Address = Address([u32::MAX, 0, 0, 0]);

/// A multicast group of link-local scope, `ff02::HIGH:LOW`.
const fn link_group(high: u16, low: u16) -> Address {
    let last = (high as u32) << 16 | low as u32;
    Address([0xff02_0000_u32.to_be(), 0, 0, last.to_be()])
}

/// All DHCP relay agents and servers, ff02::1:2 (RFC 8415, 7.1).
pub const ALL_DHCP_SERVERS: Address = link_group(1, 2);
/// All routers of the link, ff02::2 (RFC 4291, 2.7.1).
pub const ALL_ROUTERS: Address = link_group(0, 2);
/// All nodes of the link, ff02::1 (RFC 4291, 2.7.1).
pub const ALL_NODES: Address = link_group(0, 1);

/// What a packet asks for if it is addressed to the node, by its headers alone.
#[inline(always)]
#[must_use]
pub fn asked(headers: &Headers) -> Option<Kind> {
    match (headers.protocol, headers.family) {
        (PROTOCOL_UDP, family) => match (headers.dst_port, family) {
            (DNS_PORT, _) => Some(Kind::DnsUdp),
            (DHCP4_SERVER_PORT, Family::V4) => Some(Kind::Dhcp4),
            (DHCP6_SERVER_PORT, Family::V6) => Some(Kind::Dhcp6),
            _ => None,
        },
        (PROTOCOL_TCP, _) if headers.dst_port == DNS_PORT => Some(Kind::DnsTcp),
        (PROTOCOL_ICMP, Family::V4) if headers.icmp_type == ECHO_REQUEST => Some(Kind::Echo),
        (PROTOCOL_ICMPV6, Family::V6) => match headers.icmp_type {
            ECHO_REQUEST_V6 => Some(Kind::Echo),
            ROUTER_SOLICITATION => Some(Kind::RouterSolicitation),
            _ => None,
        },
        (PROTOCOL_IGMP, Family::V4) => Some(Kind::Igmp),
        (HOP_BY_HOP, Family::V6) if headers.eth_dst.is_group() => Some(Kind::Mld),
        _ => None,
    }
}

/// Whether what a packet asks for is asked of the node, by a source that may ask it: the endpoint's
/// own address or, before it has one and for what never leaves the link, none or a link-local one.
///
/// The MAC address was checked before. What is not wanted goes the way of every other packet.
#[inline(always)]
#[must_use]
pub fn wanted(
    kind: Kind,
    headers: &Headers,
    endpoint: &EndpointEntry,
    network: &NetworkEntry,
) -> bool {
    let (own, gateway) = match headers.family {
        Family::V4 => (endpoint.ipv4, network.gateway_v4),
        Family::V6 => (endpoint.ipv6, network.gateway_v6),
        Family::None => return false,
    };
    if gateway == Address::ZERO {
        return false;
    }
    let (src, dst) = (headers.src, headers.dst);
    let from_own = src == own && own != Address::ZERO;
    let from_link = from_own || src.is_link_local();
    let to_gateway = dst == gateway && !headers.eth_dst.is_group();
    let to_link =
        headers.family as u32 == Family::V6 as u32 && dst == link_local(network.gateway_mac);
    match kind {
        Kind::Dhcp4 => {
            own != Address::ZERO
                && headers.src_port == DHCP4_CLIENT_PORT
                && (from_own || src == Address::ZERO)
                && (dst == BROADCAST || dst == gateway)
        }
        Kind::Dhcp6 => {
            headers.src_port == DHCP6_CLIENT_PORT
                && from_link
                && (dst == ALL_DHCP_SERVERS || dst == gateway || to_link)
        }
        Kind::RouterSolicitation => {
            (from_link || src == Address::ZERO) && (dst == ALL_ROUTERS || to_link)
        }
        Kind::DnsUdp | Kind::DnsTcp => from_own && to_gateway,
        // A host without an address reports from none (RFC 3376, 4.2.13; RFC 3810, 5.2.13).
        Kind::Igmp => (from_own || src == Address::ZERO) && headers.eth_dst.is_group(),
        Kind::Mld => src.is_link_local() || src == Address::ZERO,
        Kind::Echo => (from_own && to_gateway) || (from_link && to_link),
    }
}

/// The link-local address of an interface with this MAC address (RFC 4291, appendix A): the
/// gateway's is made so.
#[inline(always)]
#[must_use]
pub fn link_local(mac: Mac) -> Address {
    // a:b:c:d:e:f becomes fe80::(a^2)b:cff:fede:f, put together as numbers: bytes would be spilled
    // to the stack one by one.
    let (high, low) = mac.split();
    let third = (high ^ 0x0200) << 16 | (low >> 16 & 0xff00) | 0xff;
    let fourth = 0xfe00_0000 | low & 0x00ff_ffff;
    Address([0xfe80_0000_u32.to_be(), 0, third.to_be(), fourth.to_be()])
}

/// Frames that an endpoint may hand over at once.
pub const BURST: u32 = 512;
/// Frames that it may hand over in the long run, per second: one a millisecond.
pub const RATE_PER_S: u32 = 1000;

/// A token bucket in one word, so that it is read and written whole: tokens above, the time of the
/// last refill in milliseconds below. Zero is a bucket that was never used.
///
/// Two processors may take the same token; what is bounded is bounded by twice as much then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Bucket(pub u64);

impl Bucket {
    /// The bucket after one more frame at `now_ms`, or `None` when the frame is one too many.
    #[inline(always)]
    #[must_use]
    pub fn take(self, now_ms: u32) -> Option<Bucket> {
        let last = self.0 as u32;
        let elapsed = now_ms.wrapping_sub(last);
        let tokens = (self.0 >> 32) as u32;
        // Tokens are never more than the burst, so the sum cannot overflow once time is bounded.
        let refill = if self.0 == 0 || elapsed > BURST {
            BURST
        } else {
            elapsed
        };
        let tokens = if tokens + refill > BURST {
            BURST
        } else {
            tokens + refill
        };
        if tokens == 0 {
            return None;
        }
        Some(Bucket(u64::from(tokens - 1) << 32 | u64::from(now_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY_MAC: Mac = Mac {
        first: u32::from_ne_bytes([2, 0x53, 0x57, 0]),
        last: u16::from_ne_bytes([0, 0xfe]),
        padding: 0,
    };

    fn v6(text: [u16; 8]) -> Address {
        let mut bytes = [0; 16];
        for (chunk, part) in bytes.chunks_exact_mut(2).zip(text) {
            chunk.copy_from_slice(&part.to_be_bytes());
        }
        Address::v6(bytes)
    }

    fn network() -> NetworkEntry {
        NetworkEntry {
            gateway_v4: Address::v4([10, 20, 0, 1]),
            gateway_v6: v6([0xfd00, 0x20, 0, 0, 0, 0, 0, 1]),
            gateway_mac: GATEWAY_MAC,
            mtu: 1300,
            translates: 0,
            ..NetworkEntry::default()
        }
    }

    fn endpoint() -> EndpointEntry {
        EndpointEntry {
            network: 100,
            ipv4: Address::v4([10, 20, 0, 11]),
            ipv6: v6([0xfd00, 0x20, 0, 0, 0, 0, 0, 0x11]),
            ..EndpointEntry::default()
        }
    }

    fn wants(headers: &Headers) -> Option<Kind> {
        asked(headers).filter(|kind| wanted(*kind, headers, &endpoint(), &network()))
    }

    fn udp4(src: Address, dst: Address, ports: (u16, u16)) -> Headers {
        Headers {
            family: Family::V4,
            protocol: PROTOCOL_UDP,
            src,
            dst,
            src_port: ports.0,
            dst_port: ports.1,
            ..Headers::default()
        }
    }

    #[test]
    fn the_groups_are_those_of_the_standards() {
        assert_eq!(ALL_DHCP_SERVERS, v6([0xff02, 0, 0, 0, 0, 0, 1, 2]));
        assert_eq!(ALL_ROUTERS, v6([0xff02, 0, 0, 0, 0, 0, 0, 2]));
        assert_eq!(ALL_NODES, v6([0xff02, 0, 0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn the_gateways_link_local_address_is_made_of_its_mac_address() {
        let expected = v6([0xfe80, 0, 0, 0, 0x0053, 0x57ff, 0xfe00, 0x00fe]);
        assert_eq!(link_local(GATEWAY_MAC), expected);
        assert!(link_local(GATEWAY_MAC).is_link_local());
    }

    #[test]
    fn dhcp_is_asked_from_no_address_or_the_own_one_to_all_or_the_gateway() {
        let (own, gateway) = (endpoint().ipv4, network().gateway_v4);
        let other = Address::v4([10, 20, 0, 12]);
        let ask = |src, dst| wants(&udp4(src, dst, (68, 67)));
        assert_eq!(ask(Address::ZERO, BROADCAST), Some(Kind::Dhcp4));
        assert_eq!(ask(own, gateway), Some(Kind::Dhcp4));
        assert_eq!(ask(other, BROADCAST), None, "a forged source");
        assert_eq!(ask(own, other), None, "another machine's service");
        assert_eq!(wants(&udp4(own, gateway, (67, 67))), None, "a relay");
    }

    #[test]
    fn names_are_asked_of_the_gateway_alone() {
        let (own, gateway) = (endpoint().ipv4, network().gateway_v4);
        assert_eq!(wants(&udp4(own, gateway, (4242, 53))), Some(Kind::DnsUdp));
        let other = Address::v4([10, 20, 0, 12]);
        assert_eq!(wants(&udp4(own, other, (4242, 53))), None);
        assert_eq!(wants(&udp4(other, gateway, (4242, 53))), None);
        assert_eq!(wants(&udp4(Address::ZERO, gateway, (4242, 53))), None);
        let group = Headers {
            eth_dst: Mac::new([0xff; 6]),
            ..udp4(own, gateway, (4242, 53))
        };
        assert_eq!(wants(&group), None, "a broadcast frame");
    }

    #[test]
    fn a_link_local_source_reaches_what_stays_on_the_link() {
        let local = v6([0xfe80, 0, 0, 0, 0, 0, 0, 7]);
        let message = |protocol, kind, dst| Headers {
            family: Family::V6,
            protocol,
            src: local,
            dst,
            icmp_type: kind,
            src_port: 546,
            dst_port: 547,
            ..Headers::default()
        };
        let gateway = link_local(GATEWAY_MAC);
        let solicitation = |dst| wants(&message(PROTOCOL_ICMPV6, ROUTER_SOLICITATION, dst));
        assert_eq!(solicitation(ALL_ROUTERS), Some(Kind::RouterSolicitation));
        assert_eq!(solicitation(ALL_NODES), None);
        let dhcp = |dst| wants(&message(PROTOCOL_UDP, 0, dst));
        assert_eq!(dhcp(ALL_DHCP_SERVERS), Some(Kind::Dhcp6));
        let echo = |dst| wants(&message(PROTOCOL_ICMPV6, ECHO_REQUEST_V6, dst));
        assert_eq!(echo(gateway), Some(Kind::Echo));
        assert_eq!(echo(network().gateway_v6), None, "no such route back");
    }

    #[test]
    fn a_network_without_a_gateway_asks_nothing() {
        let headers = udp4(Address::ZERO, BROADCAST, (68, 67));
        let none = NetworkEntry::default();
        assert!(!wanted(Kind::Dhcp4, &headers, &endpoint(), &none));
    }

    #[test]
    fn a_record_that_is_cut_short_is_none() {
        let header = PuntHeader {
            ifindex: 1,
            endpoint: 2,
            network: 3,
            kind: Kind::DnsUdp as u32,
            length: 3,
        };
        let words = [
            header.ifindex,
            header.endpoint,
            header.network,
            header.kind,
            header.length,
        ];
        let mut record = [0; HEADER_BYTES + 4];
        for (chunk, word) in record.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        record[HEADER_BYTES..].copy_from_slice(&[7, 8, 9, 0]);
        assert_eq!(PuntHeader::split(&record), Some((header, &[7, 8, 9][..])));
        for length in 0..HEADER_BYTES + 3 {
            assert_eq!(PuntHeader::split(&record[..length]), None, "{length}");
        }
        assert_eq!(Kind::from_value(header.kind), Some(Kind::DnsUdp));
        assert_eq!(Kind::from_value(u32::MAX), None);
    }

    #[test]
    fn a_bucket_admits_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::default();
        let mut admitted = 0;
        let mut take = |now| match bucket.take(now) {
            Some(next) => {
                bucket = next;
                true
            }
            None => false,
        };
        for _ in 0..2 * BURST {
            admitted += u32::from(take(5));
        }
        assert_eq!(admitted, BURST);
        admitted = 0;
        for now in 0..10_000 {
            admitted += u32::from(take(6 + now)) + u32::from(take(6 + now));
        }
        assert_eq!(admitted, 10 * RATE_PER_S);
    }

    #[test]
    fn a_bucket_survives_the_clock_going_round() {
        let mut bucket = Bucket::default();
        for _ in 0..BURST {
            bucket = bucket.take(u32::MAX).expect("there is a token");
        }
        assert_eq!(bucket.take(u32::MAX), None);
        assert!(bucket.take(0).is_some(), "one millisecond later");
    }

    #[test]
    fn values_are_dense_and_names_unique() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index);
            let twins = Kind::ALL.iter().filter(|k| k.name() == kind.name());
            assert_eq!(twins.count(), 1, "{}", kind.name());
            assert!(kind.description().ends_with('.'));
        }
    }
}
