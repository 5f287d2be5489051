//! Packets that leave the cloud: which node they leave by, the address and port that they get there, and
//! how what comes back is known.
//!
//! ```text
//! INSIDE  { network, 10.0.0.1:4000 -> 198.51.100.7:443 } -> 61234
//! OUTSIDE { node's 61234 <- 198.51.100.7:443 }           -> network, endpoint, 10.0.0.1:4000
//! ```
//!
//! A port is given out for each remote address and port anew, so that a node has as many connections
//! as it has ports to every one of them. Which port is tried first depends on the endpoint's own address
//! and port alone: where it is free, an endpoint has one port towards everybody (RFC 4787, REQ-1).

use crate::{
    address::{Address, Mac},
    flow::{FlowEntry, has_flow},
    headers::{Family, Headers, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP},
};

/// Added to the number of a node where an endpoint's stands: the packet leaves the cloud there, or came
/// in there. Neither endpoints nor nodes have so many numbers.
pub const EGRESS: u32 = 1 << 30;

/// Values of [`NetworkEntry::outbound`](crate::entries::NetworkEntry::outbound) beside numbers of nodes.
pub mod by {
    /// Nothing leaves the cloud.
    pub const NOBODY: u32 = 0;
    /// Packets leave at the node where they enter.
    pub const LOCAL: u32 = u32::MAX;
}

/// How packets leave the cloud at this node; slot 0 of `OUTBOUND`. Zeroed when none do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Outbound {
    /// IPv4 address that they get, memory order; zero when the node has none.
    pub address_v4: u32,
    /// ifindex of the device that they leave by.
    pub ifindex: u32,
    /// ifindex of a device by which the kernel is asked for routes, of which it thinks that it forwards;
    /// zero to leave all to the kernel, which then drops what has no route without a word.
    pub asks_by: u32,
    /// The same for IPv6.
    pub asks_by_v6: u32,
    /// First of the ports that they get.
    pub first_port: u16,
    /// How many ports there are; zero when no packet leaves here.
    pub ports: u16,
    /// IPv6 address that packets get; zero when the node has none.
    pub address_v6: Address,
}

/// Key of `INSIDE`: a connection as the endpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct InsideKey {
    /// VXLAN network identifier in the upper 24 bits, IP protocol in the lower 8.
    pub network_protocol: u32,
    /// The endpoint's port in the upper half, the other side's in the lower one. Of an echo, the
    /// identifier and zero.
    pub ports: u32,
    /// The endpoint's address.
    pub local: Address,
    /// The other side's.
    pub remote: Address,
}

/// Key of `OUTSIDE`: a connection as the other side knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct OutsideKey {
    /// Address family, 4 or 6, in the second byte, IP protocol in the first.
    pub family_protocol: u32,
    /// The node's port in the upper half, the other side's in the lower one. Of an echo, the identifier
    /// and zero.
    pub ports: u32,
    /// The other side's address.
    pub remote: Address,
}

/// Value of `OUTSIDE`: whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Mapping {
    /// VXLAN network identifier.
    pub network: u32,
    /// Number of the endpoint.
    pub local: u32,
    /// Jiffies when a packet was last seen, as in a flow.
    pub seen: u32,
    /// The endpoint's port, host order; of an echo, its identifier.
    pub port: u16,
    /// What the endpoint has sent, bits of [`seen`](crate::flow::seen).
    pub sent: u8,
    /// What came for it.
    pub received: u8,
    /// The endpoint's address.
    pub address: Address,
}

const _: () = assert!(size_of::<Outbound>() == 36);
const _: () = assert!(size_of::<InsideKey>() == 40);
const _: () = assert!(size_of::<OutsideKey>() == 24);
const _: () = assert!(size_of::<Mapping>() == 32);

/// First three bytes of the MAC addresses that stand for nodes in frames which leave the cloud; no
/// endpoint has them.
pub const MAC_PREFIX: [u8; 3] = [0x02, 0x53, 0x58];

/// The MAC address that stands for a node.
#[inline(always)]
#[must_use]
pub fn mac_of(node: u32) -> Mac {
    let [a, b, c] = MAC_PREFIX;
    let [_, d, e, f] = node.to_be_bytes();
    Mac::new([a, b, c, d, e, f])
}

/// The number of the node that a MAC address stands for, or zero.
#[inline(always)]
#[must_use]
pub fn node_of(mac: Mac) -> u32 {
    let [a, b, c, d] = mac.first.to_ne_bytes();
    let [e, f] = mac.last.to_ne_bytes();
    if a != MAC_PREFIX[0] || b != MAC_PREFIX[1] || c != MAC_PREFIX[2] {
        return 0;
    }
    u32::from_be_bytes([0, d, e, f])
}

/// Whether a number is that of a node where packets leave.
#[inline(always)]
#[must_use]
pub const fn is_egress(number: u32) -> bool {
    number & EGRESS != 0
}

/// Which port is tried first for an endpoint's address and port, and the seed of those after it.
#[inline(always)]
#[must_use]
pub fn seed(network_protocol: u32, local: &Address, port: u16) -> u32 {
    let words = local.0[0] ^ local.0[1] ^ local.0[2] ^ local.0[3];
    mix(words ^ mix(network_protocol ^ mix(u32::from(port) | 0x5357_0000)))
}

/// The seed after a seed (the finalizer of MurmurHash3).
#[inline(always)]
#[must_use]
pub fn mix(seed: u32) -> u32 {
    let seed = (seed ^ seed >> 16).wrapping_mul(0x85eb_ca6b);
    let seed = (seed ^ seed >> 13).wrapping_mul(0xc2b2_ae35);
    seed ^ seed >> 16
}

impl Outbound {
    /// The address that packets of a family get; zero when the node has none.
    #[inline(always)]
    #[must_use]
    pub fn address(&self, family: Family) -> Address {
        match family {
            Family::V4 => Address([self.address_v4, 0, 0, 0]),
            Family::V6 => self.address_v6,
            Family::None => Address::ZERO,
        }
    }

    /// Whether a port is one of those that packets get.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, port: u16) -> bool {
        port.wrapping_sub(self.first_port) < self.ports
    }

    /// The port of a seed.
    #[inline(always)]
    #[must_use]
    pub fn port(&self, seed: u32) -> u16 {
        let offset = (u64::from(seed) * u64::from(self.ports)) >> 32;
        self.first_port.wrapping_add(offset as u16)
    }

    /// The port after a port; after the last one comes the first.
    #[inline(always)]
    #[must_use]
    pub const fn next(&self, port: u16) -> u16 {
        let next = port.wrapping_add(1);
        if self.has(next) {
            next
        } else {
            self.first_port
        }
    }
}

/// What stands for the ports of a packet that leaves: its own and the other side's. `None` for one that
/// could not be told from others when it comes back.
#[inline(always)]
#[must_use]
pub fn ports_out(headers: &Headers) -> Option<(u16, u16)> {
    if !has_flow(headers) {
        return None;
    }
    match (headers.family, headers.protocol) {
        (_, PROTOCOL_TCP | PROTOCOL_UDP) => Some((headers.src_port, headers.dst_port)),
        (Family::V4, PROTOCOL_ICMP) if headers.icmp_type == 8 => Some((headers.icmp_id, 0)),
        (Family::V6, PROTOCOL_ICMPV6) if headers.icmp_type == 128 => Some((headers.icmp_id, 0)),
        _ => None,
    }
}

/// Likewise of one that comes back: the node's and the other side's.
#[inline(always)]
#[must_use]
pub fn ports_back(headers: &Headers) -> Option<(u16, u16)> {
    match (headers.family, headers.protocol) {
        (_, PROTOCOL_TCP | PROTOCOL_UDP) => Some((headers.dst_port, headers.src_port)),
        (Family::V4, PROTOCOL_ICMP) if headers.icmp_type == 0 => Some((headers.icmp_id, 0)),
        (Family::V6, PROTOCOL_ICMPV6) if headers.icmp_type == 129 => Some((headers.icmp_id, 0)),
        _ => None,
    }
}

/// Whether packets to an address leave the cloud where it is nobody's: those that routers do not
/// forward do not (RFC 6890), so that no endpoint speaks to what serves the node alone, such as the
/// cloud's metadata at 169.254.169.254. Some clouds have that where routers do forward
/// ([`SERVES_NODES_V4`], [`SERVES_NODES_V6`]), and it does not leave either.
#[inline(always)]
#[must_use]
pub fn is_outside(family: Family, address: &Address) -> bool {
    match family {
        Family::V4 => {
            let [a, b, ..] = address.0[0].to_ne_bytes();
            let is_forwarded = a != 0 && a != 127 && a < 224 && !(a == 169 && b == 254);
            let [azure, alibaba] = SERVES_NODES_V4;
            is_forwarded && address.0[0] != azure && address.0[0] != alibaba
        }
        Family::V6 => {
            let [first, ..] = address.0;
            let [a, b, ..] = first.to_ne_bytes();
            // Nobody, this host and what stands for IPv4 addresses (::/96, ::ffff:0:0/96).
            let is_special = first == 0 && address.0[1] == 0;
            // fe80::/10, ff00::/8.
            let is_near = a == 0xfe && b & 0xc0 == 0x80 || a == 0xff;
            let [aws, google, oracle] = SERVES_NODES_V6;
            !is_special && !is_near && first != aws && first != google && first != oracle
        }
        Family::None => false,
    }
}

/// What serves the node alone at an IPv4 address that routers would forward to: Azure's agent of virtual
/// machines and Alibaba Cloud's metadata.
pub const SERVES_NODES_V4: [u32; 2] = [
    u32::from_ne_bytes([168, 63, 129, 16]),
    u32::from_ne_bytes([100, 100, 100, 200]),
];

/// The first 32 bits of IPv6 addresses of metadata: AWS (`fd00:ec2::254`), Google Cloud
/// (`fd20:ce::254`) and Oracle Cloud (`fd00:c1::a9fe:a9fe`).
pub const SERVES_NODES_V6: [u32; 3] = [
    u32::from_ne_bytes([0xfd, 0x00, 0x0e, 0xc2]),
    u32::from_ne_bytes([0xfd, 0x20, 0x00, 0xce]),
    u32::from_ne_bytes([0xfd, 0x00, 0x00, 0xc1]),
];

impl OutsideKey {
    /// The key of a connection.
    #[inline(always)]
    pub fn fill(&mut self, family: Family, protocol: u8, ports: (u16, u16), remote: &Address) {
        self.family_protocol = (family as u32) << 8 | u32::from(protocol);
        self.set_ports(ports);
        for (own, word) in self.remote.0.iter_mut().zip(remote.0) {
            *own = word;
        }
    }

    /// Sets the node's port and the other side's.
    #[inline(always)]
    pub fn set_ports(&mut self, (node, remote): (u16, u16)) {
        self.ports = u32::from(node) << 16 | u32::from(remote);
    }
}

impl Mapping {
    /// Whether it is of the same connection of the same endpoint.
    #[inline(always)]
    #[must_use]
    pub fn is_of(&self, other: &Mapping) -> bool {
        self.network == other.network
            && self.local == other.local
            && self.port == other.port
            && self.address == other.address
    }

    /// What was seen of it, as a flow's entry: how far it has come, and when it is forgotten.
    #[inline(always)]
    #[must_use]
    pub fn entry(&self) -> FlowEntry {
        FlowEntry {
            seen: self.seen,
            sent: self.sent,
            received: self.received,
            ..FlowEntry::default()
        }
    }
}

/// The bucket of a connection that leaves the cloud (see [`bucket`](crate::flow_key::bucket)): it goes
/// on by the node that it began by, wherever its endpoint moves.
pub mod leaving {
    use super::EGRESS;
    use crate::flow_key::bucket::KEPT;

    /// Added to the number of the node.
    const BY: u32 = KEPT | 1 << 22;
    const NODE: u32 = (1 << 22) - 1;

    /// The bucket of connections that leave by a node, of which there is the number of the egress.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(egress: u32) -> u32 {
        BY | egress & !EGRESS & NODE
    }

    /// The number of the egress in a bucket, or zero.
    #[inline(always)]
    #[must_use]
    pub const fn egress(bucket: u32) -> u32 {
        if bucket & BY == BY {
            EGRESS | bucket & NODE
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_stands_for_one_node_and_no_endpoint_has_it() {
        for node in [1, 255, 256, 0x00ff_ffff] {
            assert_eq!(node_of(mac_of(node)), node);
        }
        assert_eq!(node_of(Mac::new([0x02, 0x53, 0x57, 0, 0, 1])), 0);
        assert_eq!(mac_of(258).to_bytes(), [2, 0x53, 0x58, 0, 1, 2]);
    }

    #[test]
    fn every_port_of_a_seed_is_one_of_the_range_and_all_of_them_come_up() {
        let outbound = Outbound {
            first_port: 61_001,
            ports: 7,
            ..Outbound::default()
        };
        let mut seed = 1;
        let mut met = 0u8;
        for _ in 0..1000 {
            seed = mix(seed);
            met |= 1 << (outbound.port(seed) - 61_001);
        }
        assert_eq!(met, 0x7f);
        assert!(outbound.has(61_001) && outbound.has(61_007));
        assert!(!outbound.has(61_000) && !outbound.has(61_008) && !outbound.has(0));
        assert_eq!(outbound.next(61_007), 61_001);
        assert!(!Outbound::default().has(0));
    }

    #[test]
    fn what_routers_do_not_forward_does_not_leave() {
        let is_outside = |a, b, c, d| is_outside(Family::V4, &Address::v4([a, b, c, d]));
        assert!(is_outside(198, 51, 100, 7) && is_outside(10, 0, 0, 1));
        assert!(is_outside(169, 253, 0, 1));
        assert!(!is_outside(169, 254, 169, 254) && !is_outside(127, 0, 0, 1));
        assert!(!is_outside(224, 0, 0, 1) && !is_outside(255, 255, 255, 255));
        assert!(!is_outside(0, 0, 0, 0) && !is_outside(240, 0, 0, 1));
        assert!(!is_outside(168, 63, 129, 16) && is_outside(168, 63, 129, 17));
        assert!(!is_outside(100, 100, 100, 200) && is_outside(100, 100, 100, 201));
    }

    #[test]
    fn what_routers_do_not_forward_over_ipv6_does_not_leave() {
        let is_outside = |text: &str| {
            let address: core::net::Ipv6Addr = text.parse().unwrap();
            is_outside(Family::V6, &Address::v6(address.octets()))
        };
        for out in [
            "2001:db8:7::7",
            "fd00:20::1",
            "64:ff9b::198.51.100.7",
            "fec0::1",
        ] {
            assert!(is_outside(out), "{out}");
        }
        for near in [
            "::",
            "::1",
            "::198.51.100.7",
            "::ffff:198.51.100.7",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "ff0e::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
        ] {
            assert!(!is_outside(near), "{near}");
        }
    }

    #[test]
    fn a_bucket_keeps_the_node_that_a_connection_leaves_by() {
        use crate::flow_key::{bucket::kept, state::BUCKET_WIDTH};
        let bucket = leaving::bucket(EGRESS | 1000);
        assert_eq!(leaving::egress(bucket), EGRESS | 1000);
        assert!(bucket < 1 << BUCKET_WIDTH);
        assert_eq!(leaving::egress(kept(16_383).unwrap()), 0);
        assert_eq!(leaving::egress(0), 0);
    }
}
