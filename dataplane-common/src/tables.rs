//! Flow tables in their kernel layout, and the walk from a root to a verdict.
//!
//! The tables are a decision DAG. A pointer to a node ([`Next`]) carries which field the node
//! tests and which bits of it, so one probe per visited node is enough:
//!
//! ```text
//! EDGES { node, value } -> Next        the exact edge
//! NODES [ Next.default ] -> Next       where every other value goes
//! VERDICTS [ Next.default ] -> Verdict for a pointer that is a leaf
//! ```
//!
//! Ids are dense and never reused while a generation in force may reach them.

use crate::{
    address::{Address, Mac},
    flow_key::{FLOW_KEY_SLOTS, Field, FlowKey, bucket},
    headers::Headers,
    limit::Limit,
};

/// Nodes on the longest path that a table may have; a compiler refuses deeper ones.
pub const MAX_DEPTH: usize = 24;
/// Counters by name that one verdict may count under; a compiler refuses more.
pub const MAX_COUNTS: usize = 4;
/// Copies that one verdict may emit; a compiler refuses more.
pub const MAX_COPIES: usize = 4;

/// Verdicts that there may be at once on a node: their slots have to fit into a packet's mark.
pub const MAX_VERDICTS: u32 = 1 << 16;

/// What a [`Next`] leads to. Zero is no pointer, so a zeroed map value is a miss.
pub const KIND_NONE: u8 = 0;
/// The pointer leads to a node.
pub const KIND_NODE: u8 = 1;
/// The pointer leads to a verdict.
pub const KIND_LEAF: u8 = 2;

/// A pointer to a node or a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Next {
    /// Dense id of the node.
    pub node: u32,
    /// For a node, the slot in `NODES` of its default; for a leaf, the slot in `VERDICTS`.
    pub default: u32,
    /// Place of the tested field: see [`Field::place`].
    pub field: u8,
    /// Bits that the value is shifted right by before it is compared.
    pub shift: u8,
    /// Bits of the shifted value that are compared, 1 to 32.
    pub width: u8,
    /// [`KIND_NONE`], [`KIND_NODE`] or [`KIND_LEAF`].
    pub kind: u8,
}

/// Key of an exact edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct EdgeKey {
    /// The node that tests.
    pub node: u32,
    /// The tested bits of the field.
    pub value: u32,
}

/// Key of a root: every network has one in every generation in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct RootKey {
    /// VXLAN network identifier.
    pub network: u32,
    /// Generation.
    pub generation: u32,
}

/// Root of a network's policy, in `ROOTS`: where the walk starts and what is set before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct RootEntry {
    /// Where the walk starts.
    pub next: Next,
    /// What the bucket of `balance` is a hash of, bits of [`key`]; zero when there is no bucket.
    pub bucket: u32,
    /// The rate of `limit`; zeroed when there is none.
    pub limit: Limit,
}

/// Fields of a packet that clients or senders are told apart by.
pub mod key {
    /// Source address.
    pub const SRC: u32 = 1 << 0;
    /// Destination address.
    pub const DST: u32 = 1 << 1;
    /// Source port.
    pub const SRC_PORT: u32 = 1 << 2;
    /// Destination port.
    pub const DST_PORT: u32 = 1 << 3;
    /// IP protocol.
    pub const PROTOCOL: u32 = 1 << 4;
    /// Number of the endpoint that sent it.
    pub const ENDPOINT: u32 = 1 << 5;
    /// Source address of an IPv4 packet.
    pub const IP4_SRC: u32 = 1 << 6;
    /// Destination address of an IPv4 packet.
    pub const IP4_DST: u32 = 1 << 7;
    /// Source address of an IPv6 packet.
    pub const IP6_SRC: u32 = 1 << 8;
    /// Destination address of an IPv6 packet.
    pub const IP6_DST: u32 = 1 << 9;
}

/// What `balance` tells clients apart by, of one packet: bits of [`key`] say what. Every node computes
/// the same, so what is told apart stays so wherever it enters.
#[inline(always)]
#[must_use]
pub fn slot(headers: &Headers, endpoint: u32, fields: u32) -> u32 {
    // Without branches: the verifier would follow each way of every one.
    let given = |field: u32| 0u32.wrapping_sub(u32::from(fields & field != 0));
    let ports = u32::from(headers.src_port) << 16 & given(key::SRC_PORT)
        | u32::from(headers.dst_port) & given(key::DST_PORT);
    let words = [
        headers.src.0[0] & given(key::SRC),
        headers.src.0[1] & given(key::SRC),
        headers.src.0[2] & given(key::SRC),
        headers.src.0[3] & given(key::SRC),
        headers.dst.0[0] & given(key::DST),
        headers.dst.0[1] & given(key::DST),
        headers.dst.0[2] & given(key::DST),
        headers.dst.0[3] & given(key::DST),
        ports,
        u32::from(headers.protocol) & given(key::PROTOCOL),
        endpoint & given(key::ENDPOINT),
    ];
    // MurmurHash3, 32 bits (Appleby 2011).
    let mut hash = 0u32;
    for word in words {
        let word = word.wrapping_mul(0xcc9e_2d51).rotate_left(15);
        hash ^= word.wrapping_mul(0x1b87_3593);
        hash = hash
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
    }
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^= hash >> 16;
    hash % bucket::SLOTS
}

/// What a walk has looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Reads(pub u32);

impl Reads {
    /// The DSCP.
    pub const DSCP: u32 = 1 << Field::Dscp as u32;
    /// The ICMP type.
    pub const ICMP_TYPE: u32 = 1 << Field::IcmpType as u32;
    /// The ICMP code.
    pub const ICMP_CODE: u32 = 1 << Field::IcmpCode as u32;
    /// The destination MAC address.
    pub const ETH_DST: u32 = 1 << Field::EthDstHigh as u32 | 1 << Field::EthDstLow as u32;
    /// The node where the packet entered.
    pub const NODE: u32 = 1 << Field::Node as u32;
    /// The state of the connection, or the bucket of `balance`, which a flow keeps.
    pub const CONNECTION: u32 = 1 << (Field::Connection.place().0 & 31);
    /// The token of `limit`.
    pub const TOKEN: u32 = 1 << (Field::Token.place().0 & 31);

    /// Notes what a node looks at. Without a branch: the verifier would follow both ways at every
    /// node of a path.
    #[inline(always)]
    fn note(&mut self, node: &Next) {
        self.0 |= 1 << (node.field & 31);
    }
}

/// The packet is not sent anywhere by this copy.
pub const OUT_NONE: u8 = 0;
/// The copy goes to the owner of its destination address, after rewriting.
pub const OUT_OWNER: u8 = 1;
/// The copy goes to the endpoint in [`Copied::endpoint`].
pub const OUT_ENDPOINT: u8 = 2;
/// The copy goes to every member of the group in [`Copied::endpoint`] but the one it came from.
pub const OUT_GROUP: u8 = 3;

/// Bits of [`Copied::set`]: which fields the copy rewrites.
pub mod set {
    /// Rewrites the source MAC address.
    pub const ETH_SRC: u16 = 1 << 0;
    /// Rewrites the destination MAC address.
    pub const ETH_DST: u16 = 1 << 1;
    /// Rewrites the DSCP.
    pub const DSCP: u16 = 1 << 2;
    /// Rewrites the source port.
    pub const SRC_PORT: u16 = 1 << 3;
    /// Rewrites the destination port.
    pub const DST_PORT: u16 = 1 << 4;
    /// Rewrites the IPv4 source address.
    pub const IP4_SRC: u16 = 1 << 5;
    /// Rewrites the IPv4 destination address.
    pub const IP4_DST: u16 = 1 << 6;
    /// Rewrites the IPv6 source address.
    pub const IP6_SRC: u16 = 1 << 7;
    /// Rewrites the IPv6 destination address.
    pub const IP6_DST: u16 = 1 << 8;
    /// Rewrites nothing by itself: the rewriting is remembered for the flow, and undone in what
    /// comes back (`dnat`, `balance`).
    pub const TRANSLATE: u16 = 1 << 15;
}

/// One copy of the packet that a verdict emits: what is rewritten and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Copied {
    /// Number of the endpoint for [`OUT_ENDPOINT`], of the group for [`OUT_GROUP`].
    pub endpoint: u32,
    /// New IPv4 source address, memory order.
    pub ip4_src: u32,
    /// New IPv4 destination address, memory order.
    pub ip4_dst: u32,
    /// New source MAC address.
    pub eth_src: Mac,
    /// New destination MAC address.
    pub eth_dst: Mac,
    /// Fields to rewrite, bits of [`set`].
    pub set: u16,
    /// New source port, host order.
    pub src_port: u16,
    /// New destination port, host order.
    pub dst_port: u16,
    /// New DSCP.
    pub dscp: u8,
    /// [`OUT_NONE`], [`OUT_OWNER`], [`OUT_ENDPOINT`] or [`OUT_GROUP`].
    pub out: u8,
    /// New IPv6 source address.
    pub ip6_src: Address,
    /// New IPv6 destination address.
    pub ip6_dst: Address,
}

/// Bits of [`Verdict::annotations`].
pub mod annotation {
    /// `log`: every new flow is told of.
    pub const LOG: u32 = 1 << 0;
    /// Where the slot begins, in the label counters, of what `log` says.
    pub const LOG_SLOT_SHIFT: u32 = 8;
}

/// What happens to a packet: dropped when there are no copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Verdict {
    /// Slot of the label in the label counters.
    pub label: u32,
    /// Number of copies in use.
    pub copies: u32,
    /// Bits of [`annotation`].
    pub annotations: u32,
    /// Slots of the counters that `count` names in the label counters, plus one; zero for none.
    pub counts: [u32; MAX_COUNTS],
    /// The copies.
    pub copied: [Copied; MAX_COPIES],
}

const _: () = assert!(size_of::<Next>() == 12);
const _: () = assert!(size_of::<EdgeKey>() == 8);
const _: () = assert!(size_of::<RootKey>() == 8);
const _: () = assert!(size_of::<RootEntry>() == 28);
const _: () = assert!(size_of::<Copied>() == 68);
const _: () = assert!(size_of::<Verdict>() == 12 + 4 * MAX_COUNTS + 68 * MAX_COPIES);

impl Next {
    /// A pointer to a verdict.
    #[must_use]
    pub const fn leaf(verdict: u32) -> Self {
        Next {
            node: 0,
            default: verdict,
            field: 0,
            shift: 0,
            width: 0,
            kind: KIND_LEAF,
        }
    }

    /// The bits of `value` that this node compares.
    #[inline(always)]
    #[must_use]
    pub const fn project(&self, value: u32) -> u32 {
        let shifted = value >> (self.shift & 31);
        if self.width >= 32 {
            shifted
        } else {
            shifted & ((1 << self.width) - 1)
        }
    }
}

/// Where the walk finds its edges and defaults.
pub trait Tables {
    /// The exact edge, or `None`.
    fn edge(&self, key: &EdgeKey) -> Option<Next>;
    /// The pointer in a slot of `NODES`, or `None` when the slot is empty.
    fn node(&self, slot: u32) -> Option<Next>;
}

/// Walks from `root` to a verdict and returns its slot; `None` when the tables are incomplete or
/// deeper than [`MAX_DEPTH`].
#[inline(always)]
pub fn walk<T: Tables>(tables: &T, root: Next, key: &FlowKey) -> Option<u32> {
    walk_noting(tables, root, key, &mut Reads::default())
}

/// As [`walk`], and notes what was looked at.
#[inline(always)]
pub fn walk_noting<T: Tables>(
    tables: &T,
    root: Next,
    key: &FlowKey,
    reads: &mut Reads,
) -> Option<u32> {
    let mut next = root;
    for _ in 0..MAX_DEPTH {
        if next.kind == KIND_LEAF {
            return Some(next.default);
        }
        if next.kind != KIND_NODE {
            return None;
        }
        reads.note(&next);
        let value = next.project(key.slots[next.field as usize & (FLOW_KEY_SLOTS - 1)]);
        next = match tables.edge(&EdgeKey {
            node: next.node,
            value,
        }) {
            // A per-CPU or zeroed value is a miss, like an absent one.
            Some(edge) if edge.kind != KIND_NONE => edge,
            _ => tables.node(next.default)?,
        };
    }
    (next.kind == KIND_LEAF).then_some(next.default)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Chain;

    impl Tables for Chain {
        fn edge(&self, key: &EdgeKey) -> Option<Next> {
            (*key
                == EdgeKey {
                    node: 7,
                    value: 0x12,
                })
            .then_some(Next::leaf(3))
        }
        fn node(&self, slot: u32) -> Option<Next> {
            (slot == 9).then_some(Next::leaf(4))
        }
    }

    fn verdict(port: u32) -> Option<u32> {
        let root = Next {
            node: 7,
            default: 9,
            field: Field::DestinationPort as u8,
            shift: 8,
            width: 8,
            kind: KIND_NODE,
        };
        let mut key = FlowKey::default();
        key.slots[Field::DestinationPort as usize] = port;
        walk(&Chain, root, &key)
    }

    #[test]
    fn an_edge_matches_the_projected_bits_and_all_else_takes_the_default() {
        assert_eq!(verdict(0x1200), Some(3));
        assert_eq!(verdict(0x12ff), Some(3));
        assert_eq!(verdict(0x1300), Some(4));
        assert_eq!(verdict(0x0012), Some(4));
    }

    #[test]
    fn a_zero_pointer_is_a_miss() {
        assert_eq!(walk(&Chain, Next::default(), &FlowKey::default()), None);
    }
}
