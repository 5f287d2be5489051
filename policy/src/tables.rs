//! Flow tables as the compiler hands them over: a decision DAG of content-addressed nodes.
//!
//! Everything is named by what it is ([`Digest`]), never by a number: whoever installs the tables
//! gives out dense numbers, and two revisions share every node that is equal in both. Addresses
//! stand in the tables only as classes, so moving an address from one set to another changes
//! [`FlowTables::classes`] and no node.

pub mod size;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sunwire_dataplane_common::flow_key::Field;
use sunwire_dataplane_common::limit::Limit;

/// BLAKE3-256 of a node, leaf or class, domain-separated by kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Its first bytes as a number.
    pub(crate) fn first_word(&self) -> u64 {
        let (word, _) = self
            .0
            .split_first_chunk()
            .expect("a digest is longer than a word");
        u64::from_le_bytes(*word)
    }
}

/// The compiled policy of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowTables {
    /// Where the walk starts: a key of `nodes` or of `leaves`.
    pub root: Digest,
    /// Inner nodes.
    pub nodes: BTreeMap<Digest, TableNode>,
    /// Verdicts.
    pub leaves: BTreeMap<Digest, Leaf>,
    /// Class of every address: longest prefix wins, and `0.0.0.0/0` and `::/0` are always present.
    pub classes: Vec<AddressClass>,
    /// Class of a packet that has no addresses.
    pub class_none: Digest,
    /// The rate that the token is taken by; zeroed when there is none.
    pub limit: Limit,
    /// What the bucket of `balance` is a hash of, bits of
    /// [`key`](sunwire_dataplane_common::tables::key); zero when there is no bucket.
    pub bucket: u32,
}

impl FlowTables {
    /// Whether some verdict translates addresses.
    #[must_use]
    pub fn translates(&self) -> bool {
        let mut copies = self.leaves.values().flat_map(|leaf| &leaf.copies);
        copies.any(|copy| copy.translated)
    }
}

/// A node: tests some bits of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableNode {
    /// The field.
    pub field: Field,
    /// Bits that the value is shifted right by before it is compared.
    pub shift: u8,
    /// Bits of the shifted value that are compared, 1 to 32.
    pub width: u8,
    /// Exact edges, sorted by value, each value once.
    pub edges: Vec<(Value, Digest)>,
    /// Where every other value goes.
    pub default: Digest,
}

/// What an edge compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// The projected bits of a field.
    Number(u32),
    /// An address class, for the two class fields.
    Class(Digest),
}

/// A verdict: dropped when there are no copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Which rule decided.
    pub label: String,
    /// Names under which the packet is counted too, sorted.
    pub counts: Vec<String>,
    /// What the event says that every new flow is told by; `None` when none is.
    pub log: Option<String>,
    /// The distinct copies that leave.
    pub copies: Vec<Copied>,
}

/// One copy of a packet: fields that are `None` are not rewritten.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Copied {
    /// Where it goes; `None` when it would leave where it came in, or goes to `members`.
    pub out: Option<Out>,
    /// The endpoints of which each gets one, but the one that the packet comes from: sorted, each
    /// number once. Empty for a copy that goes to one place.
    pub members: Vec<u32>,
    /// New source MAC address.
    pub eth_src: Option<[u8; 6]>,
    /// New destination MAC address.
    pub eth_dst: Option<[u8; 6]>,
    /// New DSCP.
    pub dscp: Option<u8>,
    /// New source port.
    pub src_port: Option<u16>,
    /// New destination port.
    pub dst_port: Option<u16>,
    /// New IPv4 source address.
    pub ip4_src: Option<Ipv4Addr>,
    /// New IPv4 destination address.
    pub ip4_dst: Option<Ipv4Addr>,
    /// New IPv6 source address.
    pub ip6_src: Option<Ipv6Addr>,
    /// New IPv6 destination address.
    pub ip6_dst: Option<Ipv6Addr>,
    /// The rewriting is remembered for the flow, and undone in what comes back.
    pub translated: bool,
}

/// Where a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Out {
    /// To the owner of the destination address after rewriting.
    Owner,
    /// To the endpoint with this number.
    Endpoint(u32),
}

/// Class of the addresses under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressClass {
    /// First address of the prefix.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix: u8,
    /// The class.
    pub class: Digest,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}
