//! Keys and values of the maps beside the flow tables.
//!
//! Every key that holds a tenant's value starts with the network, so tenants may overlap. Endpoints
//! are found by the ifindex of their host-side device, locations and peers by dense numbers that
//! the controller gives out. A zeroed value means "no entry".
//!
//! What a policy decides about addresses exists twice, by the parity of the generation: an agent
//! writes the slot of the coming generation, then flips the one generation word that each packet
//! reads once, so that no packet sees classes of one generation and tables of another.

use crate::address::{Address, Mac};

/// The generation word and what else is read once per packet; slot 0 of `CONTROL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Control {
    /// The generation in force; its lowest bit selects the class slot.
    pub generation: u32,
    /// This node's own number; zero before the controller gave one.
    pub node: u32,
    /// This node's IPv4 address on the underlay (the VTEP); zero when it has none.
    pub vtep: Address,
    /// Zero while no policy is staged, else 1 or 2: see [`audit`](crate::audit). Its lowest bit
    /// selects the class slot.
    pub staged: u32,
    /// ifindex of the device behind which packets are encrypted, or zero.
    pub tunnel: u32,
    /// This node's IPv6 address on the underlay; zero when it has none.
    pub vtep_v6: Address,
    /// UDP ports beside [`PORT`](crate::vxlan::PORT) that tunnels are received on, network order; zero
    /// means none.
    pub ports: [u16; crate::vxlan::OTHER_PORTS],
    /// ifindex of the device behind which packets get their outer UDP checksum, or zero.
    pub checksum: u32,
}

/// The classes of a packet's source, by parity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SourceClasses {
    /// Of the endpoint's IPv4 address.
    pub v4: [u32; 2],
    /// Of its IPv6 address.
    pub v6: [u32; 2],
    /// Of a packet without addresses.
    pub none: [u32; 2],
}

/// An endpoint, in `ENDPOINTS` by the ifindex of its host-side device; one at a node without an
/// agent, in `FOREIGN_ENDPOINTS` by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EndpointEntry {
    /// VXLAN network identifier; zero means no endpoint.
    pub network: u32,
    /// Number of the endpoint: its slot in `LOCATIONS`.
    pub number: u32,
    /// Classes of what it sends, by parity of the generation.
    pub classes: SourceClasses,
    /// Classes of what it sends for the staged policy, by parity of `Control::staged`.
    pub staged_classes: SourceClasses,
    /// IPv4 address; zero when it has none.
    pub ipv4: Address,
    /// IPv6 address; zero when it has none.
    pub ipv6: Address,
    /// MAC address.
    pub mac: Mac,
    /// MTU of the network, in bytes from the IP header on.
    pub mtu: u32,
    /// Number of the node where it is, as policies ask for it.
    pub node: u32,
    /// Number of the wire that it is an end of, or zero.
    pub wire: u32,
    /// Bits of [`endpoint`].
    pub flags: u32,
}

/// Bits of [`EndpointEntry::flags`].
pub mod endpoint {
    /// Its network has no subnet: it is known by its MAC address alone, and the node answers nothing.
    pub const LINK: u32 = 1 << 0;
}

/// Key of `OWNERS`: who owns an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct AddressKey {
    /// VXLAN network identifier.
    pub network: u32,
    /// 4, 6, or 0 for a MAC address.
    pub family: u32,
    /// The address.
    pub address: Address,
}

/// Where an endpoint is, in `LOCATIONS` by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct LocationEntry {
    /// VXLAN network identifier, marked ([`wired`](crate::wire::wired)) for an end of a wire; zero
    /// means no endpoint.
    pub network: u32,
    /// Number of the node where the endpoint is.
    pub node: u32,
    /// While it moves, the node it moves to; afterwards, the node it came from; else zero.
    pub other: u32,
    /// ifindex of its host-side device on this node, or zero.
    pub ifindex: u32,
    /// Epoch: rises with every completed move.
    pub epoch: u32,
    /// MAC address.
    pub mac: Mac,
    /// MTU of the network, in bytes from the IP header on.
    pub mtu: u32,
    /// Bits of [`location`].
    pub flags: u32,
    /// UDP port that the network's packets are sent to in the clear, network order.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
}

/// Bits of [`LocationEntry::flags`].
pub mod location {
    /// The host-side device is a TAP: it has no peer in another namespace.
    pub const TAP: u32 = 1 << 0;
    /// The network's packets are encrypted wherever they go: see `ENCRYPTED_PEERS`.
    pub const ENCRYPTED: u32 = 1 << 1;
    /// What the network's endpoints send to several goes once to each other region.
    pub const RELAYED: u32 = 1 << 5;
    /// The endpoint lives on this node or is moving to it, or its packets may enter here: its flows
    /// are kept.
    pub const EXPECTED: u32 = 1 << 2;
    /// The endpoint is at a node without an agent.
    pub const FOREIGN: u32 = 1 << 3;
    /// What comes for the network's endpoints from other nodes is decided about here, too.
    pub const ENFORCED: u32 = 1 << 6;
    /// [`port`](super::LocationEntry::port) is another than [`PORT`](crate::vxlan::PORT).
    pub const OTHER_PORT: u32 = 1 << 7;
    /// The network's packets in the clear have an outer UDP checksum.
    pub const CHECKSUM: u32 = 1 << 8;
    /// The network's packets are encrypted nowhere: see `PLAIN_PEERS`. Never with
    /// [`ENCRYPTED`].
    pub const PLAIN: u32 = 1 << 9;
}

/// How a node is reached, in `PEERS` by its number; for packets of networks that are encrypted
/// wherever they go, in `ENCRYPTED_PEERS`, and of those that are so nowhere, in `PLAIN_PEERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PeerEntry {
    /// ifindex of the underlay device, or of the one that encrypts; zero while the next hop is not
    /// resolved, or the tunnel not there.
    pub ifindex: u32,
    /// The node's IPv4 address on the underlay, memory order; zero for one that packets come from over
    /// IPv6, and for one without an agent, whose packets never go by what is remembered of others.
    pub address: u32,
    /// Bits of [`peer`].
    pub flags: u32,
    /// Ones' complement sum of the template's IPv4 header with length and checksum zero.
    pub checksum: u32,
    /// Outer Ethernet, IPv4, UDP and VXLAN headers, complete but for lengths, IPv4 checksum, UDP
    /// source port and VNI; words in memory order.
    pub template: [u32; crate::vxlan::OUTER_WORDS],
}

/// How a node is reached over IPv6, in `PEERS_V6` by its number: what [`PeerEntry`] does not say of one
/// with [`peer::OVER_IPV6`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct PeerEntryV6 {
    /// The node's IPv6 address on the underlay; zero for one without an agent.
    pub address: Address,
    /// Outer Ethernet and IPv6 headers, complete but for the payload length and the flow label; words
    /// in memory order.
    pub template: [u32; crate::vxlan::OUTER_WORDS_V6],
}

/// Bits of [`PeerEntry::flags`].
pub mod peer {
    /// What goes to this node and comes from it is encrypted.
    pub const ENCRYPTED: u32 = 1 << 0;
    /// It is the kernel that encrypts, behind a device whose packets have no Ethernet header.
    pub const KERNEL: u32 = 1 << 2;
    /// The node is in the region of this one.
    pub const NEAR: u32 = 1 << 4;
    /// The node has no agent: nobody has decided yet about what comes from it.
    pub const FOREIGN: u32 = 1 << 1;
    /// The node is reached over IPv6: see [`PeerEntryV6`](super::PeerEntryV6).
    pub const OVER_IPV6: u32 = 1 << 3;
}

/// What a node needs to know of a network, in `NETWORKS` by VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct NetworkEntry {
    /// IPv4 gateway address; zero when the network has no IPv4 subnet.
    pub gateway_v4: Address,
    /// IPv6 gateway address; zero when the network has no IPv6 subnet.
    pub gateway_v6: Address,
    /// MAC address of the gateway, the same on every node.
    pub gateway_mac: Mac,
    /// MTU in bytes from the IP header on; never zero.
    pub mtu: u32,
    /// Not zero when its policy translates addresses: then the gateway answers for those that nobody
    /// owns, since packets to them may be for somebody.
    pub translates: u32,
    /// Number of the node where packets leave the cloud, or one of
    /// [`by`](crate::outbound::by).
    pub outbound: u32,
    /// Bits of [`network`].
    pub flags: u16,
    /// UDP port that its packets are sent to in the clear, network order.
    pub port: u16,
}

/// Bits of [`NetworkEntry::flags`].
pub mod network {
    /// The network's packets are encrypted wherever they go: see `ENCRYPTED_PEERS`.
    pub const ENCRYPTED: u16 = 1 << 0;
    /// [`port`](super::NetworkEntry::port) is another than [`PORT`](crate::vxlan::PORT).
    pub const OTHER_PORT: u16 = 1 << 1;
    /// Its packets in the clear have an outer UDP checksum.
    pub const CHECKSUM: u16 = 1 << 2;
    /// Its packets are encrypted nowhere: see `PLAIN_PEERS`.
    pub const PLAIN: u16 = 1 << 3;
}

/// Key data of `CLASSES_V4` and `STAGED_V4`; the LPM key's prefix length counts the network's 32 bits too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct ClassKeyV4 {
    /// VXLAN network identifier, big endian: an LPM key is compared from its first byte.
    pub network: u32,
    /// Address, memory order.
    pub address: u32,
}

/// Key data of `CLASSES_V6` and `STAGED_V6`; the LPM key's prefix length counts the network's 32 bits too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct ClassKeyV6 {
    /// VXLAN network identifier, big endian: an LPM key is compared from its first byte.
    pub network: u32,
    /// Address.
    pub address: Address,
}

/// Packets and bytes, one per CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counter {
    /// Packets; a super-packet (GSO) counts as its segments.
    pub packets: u64,
    /// Bytes from the Ethernet header on.
    pub bytes: u64,
}

/// Slots of `TUNNEL_COUNTERS`: by the number of the other node times [`ALL`](direction::ALL), and which
/// way. Bytes are those of the inner frames.
pub mod direction {
    /// Sent to the node.
    pub const SENT: u32 = 0;
    /// Received from it.
    pub const RECEIVED: u32 = 1;
    /// How many there are.
    pub const ALL: u32 = 2;
}

/// Key of `IDS`: what has a dense number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct IdKey {
    /// One of [`id_kind`].
    pub kind: u32,
    /// Digest of the numbered thing.
    pub digest: [u8; 32],
}

/// The spaces of dense numbers.
pub mod id_kind {
    /// A node or leaf of the flow tables: its slot in `NODES`.
    pub const TABLE: u32 = 1;
    /// A leaf: its slot in `VERDICTS`.
    pub const VERDICT: u32 = 2;
    /// An address class.
    pub const CLASS: u32 = 3;
    /// A set of endpoints: a group in `GROUPS`.
    pub const GROUP: u32 = 4;
}

/// Bytes of a label's text that a key holds; longer labels are refused.
pub const LABEL_BYTES: usize = 124;

/// What a text in `LABELS` is.
pub mod label_kind {
    /// The label of a rule: packets that it decided.
    pub const LABEL: u8 = 0;
    /// A name of `count`: packets that came by it.
    pub const COUNT: u8 = 1;
    /// What `log` says; its counter is not used.
    pub const LOG: u8 = 2;
}

/// Key of `LABELS`: a rule's label within a network, or another text of its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct LabelKey {
    /// VXLAN network identifier in the lower 24 bits, one of [`label_kind`] in the upper 8.
    pub scope: u32,
    /// UTF-8, filled up with zeros.
    pub text: [u8; LABEL_BYTES],
}

const _: () = assert!(size_of::<IdKey>() == 36);
const _: () = assert!(size_of::<LabelKey>() == 128);
const _: () = assert!(size_of::<Control>() == 68);
const _: () = assert!(size_of::<SourceClasses>() == 24);
const _: () = assert!(size_of::<EndpointEntry>() == 112);
const _: () = assert!(size_of::<AddressKey>() == 24);
const _: () = assert!(size_of::<LocationEntry>() == 40);
const _: () = assert!(size_of::<PeerEntry>() == 68);
const _: () = assert!(size_of::<PeerEntryV6>() == 88);
const _: () = assert!(size_of::<NetworkEntry>() == 56);
const _: () = assert!(size_of::<ClassKeyV4>() == 8);
const _: () = assert!(size_of::<ClassKeyV6>() == 20);
const _: () = assert!(size_of::<Counter>() == 16);

impl LabelKey {
    /// The key of a text; bytes beyond [`LABEL_BYTES`] are left out.
    #[must_use]
    pub fn new(network: u32, kind: u8, text: &str) -> Self {
        let mut bytes = [0; LABEL_BYTES];
        let length = text.len().min(LABEL_BYTES);
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        LabelKey {
            scope: (kind as u32) << 24 | network & 0x00ff_ffff,
            text: bytes,
        }
    }

    /// VXLAN network identifier.
    #[must_use]
    pub const fn network(&self) -> u32 {
        self.scope & 0x00ff_ffff
    }

    /// One of [`label_kind`].
    #[must_use]
    pub const fn kind(&self) -> u8 {
        (self.scope >> 24) as u8
    }
}

impl ClassKeyV4 {
    /// Bits of the network in front of the address.
    pub const NETWORK_BITS: u32 = 32;
    /// Added to the network in the key of packets without addresses.
    const WITHOUT_ADDRESS: u32 = 1 << 31;

    /// The key, [`NETWORK_BITS`](Self::NETWORK_BITS) long, of the class of a network's packets without
    /// addresses.
    #[inline(always)]
    #[must_use]
    pub const fn without_address(network: u32) -> Self {
        ClassKeyV4 {
            network: (network | Self::WITHOUT_ADDRESS).to_be(),
            address: 0,
        }
    }
}

impl AddressKey {
    /// Key of a MAC address.
    #[inline(always)]
    #[must_use]
    pub fn mac(network: u32, mac: Mac) -> Self {
        let address = Address([mac.first, u32::from(mac.last), 0, 0]);
        AddressKey {
            network,
            family: 0,
            address,
        }
    }

    /// Key of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn v4(network: u32, address: [u8; 4]) -> Self {
        AddressKey {
            network,
            family: 4,
            address: Address::v4(address),
        }
    }

    /// Key of an IPv6 address.
    #[inline(always)]
    #[must_use]
    pub fn v6(network: u32, address: [u8; 16]) -> Self {
        AddressKey {
            network,
            family: 6,
            address: Address::v6(address),
        }
    }
}
