//! Sets of endpoints that one packet goes to: who is in them, and how a node tells another one.
//!
//! ```text
//! entry node: verdict -> GROUPS {group, chunk} -> a copy to each member here
//!                                              -> one tunnel copy, with the tag, to each node that has members
//! other node: tag -> GROUP_TAGS {network, tag} -> GROUPS -> a copy to each member here, and no further
//! ```
//!
//! Where a network asks for one copy to each other region, a node there sends on; see [`RELAYED`]:
//!
//! ```text
//! entry node -> nodes with members in its own region
//!            -> one node of each other region -> nodes with members there, and no further
//! ```
//!
//! The tag is what the set is, hashed: nodes agree on it without being told numbers. It stands in
//! the reserved field of the VXLAN header behind the flags (RFC 7348, 5), which others ignore.
//!
//! A packet to a multicast address beyond the link goes only to those who listen
//! ([`is_listened_for`]): the set intersected with what IGMP and MLD reports say, in `LISTENERS`.

use crate::{
    address::{Address, Mac},
    headers::{Family, Headers},
};

/// Members here, and nodes with members, that one entry of `GROUPS` holds; a program goes through
/// one entry at a time.
pub const CHUNK: usize = 64;
/// Entries that one group may have.
pub const MAX_CHUNKS: usize = 16;
/// Members that a set may have: what a compiler refuses more of.
pub const MAX_MEMBERS: usize = 16_384;

/// Key of `GROUPS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct GroupKey {
    /// Number of the group on this node.
    pub group: u32,
    /// Which part of it, from 0.
    pub chunk: u32,
}

/// A part of a group, in `GROUPS`: replaced whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct GroupChunk {
    /// What tells other nodes which set it is; 23 bits, never zero.
    pub tag: u32,
    /// Not zero when another part follows.
    pub more: u32,
    /// How many of `local` count.
    pub locals: u32,
    /// How many of `node` count.
    pub nodes: u32,
    /// Numbers of endpoints that are, or will be, here.
    pub local: [u32; CHUNK],
    /// Numbers of nodes with members, or that send on to such, with [`RELAY`].
    pub node: [u32; CHUNK],
}

impl Default for GroupChunk {
    fn default() -> Self {
        GroupChunk {
            tag: 0,
            more: 0,
            locals: 0,
            nodes: 0,
            local: [0; CHUNK],
            node: [0; CHUNK],
        }
    }
}

/// Key of `GROUP_TAGS`, whose value is the number of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct TagKey {
    /// VXLAN network identifier.
    pub network: u32,
    /// The tag.
    pub tag: u32,
}

/// Key of `LISTENERS`: who listens to a multicast address. The value means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct ListenerKey {
    /// VXLAN network identifier.
    pub network: u32,
    /// Number of an endpoint here, or of another node with [`NODE`].
    pub who: u32,
    /// The multicast address; see [`ListenerKey::tells`] and [`ListenerKey::asked`] for what is none.
    pub address: Address,
}

/// In [`ListenerKey::who`]: a node.
pub const NODE: u32 = 1 << 31;

/// In [`GroupChunk::node`], and in [`ListenerKey::who`] beside [`NODE`]: the node stands for all of
/// its region, and sends on to them.
pub const RELAY: u32 = 1 << 30;

/// In a tag: the node that gets it is to send it on to the nodes with members in its region. What
/// it sends has it no more, and it does so only with what comes from another region: so a packet
/// crosses the underlay twice at most.
pub const RELAYED: u32 = 1 << 23;

impl ListenerKey {
    /// Says that a node tells who listens there; to one that does not everything is sent.
    #[inline(always)]
    #[must_use]
    pub const fn tells(node: u32) -> Self {
        ListenerKey {
            network: 0,
            who: node | NODE,
            address: Address::ZERO,
        }
    }

    /// Says that those of a network who listen to addresses of a family are asked for, and known:
    /// in a network that is not asked, all get everything. The family is 4 or 6.
    #[inline(always)]
    #[must_use]
    pub const fn asked(network: u32, family: u32) -> Self {
        ListenerKey {
            network,
            who: NODE,
            address: Address([family, 0, 0, 0]),
        }
    }
}

/// Slots of `COPY_COUNTERS`.
pub mod copies {
    /// Copies to endpoints of the node, of packets for several.
    pub const LOCAL: u32 = 0;
    /// Copies to other nodes.
    pub const TUNNEL: u32 = 1;
    /// How many slots there are.
    pub const SLOTS: u32 = 2;
}

/// Destination of frames, between nodes, of which every member gets a copy with its own MAC
/// address: their packets were addressed to one endpoint, and policy sends them to several. A group
/// address that is locally administered.
pub const EACH_ITS_OWN: Mac = Mac {
    first: u32::from_ne_bytes([0x03, 0x53, 0x57, 0]),
    last: u16::from_ne_bytes([0, 0xff]),
    padding: 0,
};

/// Whether a packet goes only to those who listen: it is to a multicast address beyond the link.
///
/// What is for the link, as routing protocols, mDNS and everything that announces itself use it, is
/// not always reported (RFC 4541, 2.1.2 and 3), and broadcasts never are: these go to the whole set.
#[inline(always)]
#[must_use]
pub fn is_listened_for(headers: &Headers) -> bool {
    match headers.family {
        Family::None => false,
        family => is_group_listened_for(headers.dst, family as u32 == Family::V4 as u32),
    }
}

/// Whether a destination address is of a group that only those get who listen to it.
#[inline(always)]
#[must_use]
pub fn is_group_listened_for(address: Address, is_v4: bool) -> bool {
    let first = u32::from_be(address.0[0]);
    if is_v4 {
        // 224.0.0.0/4 but for 224.0.0.0/24 (RFC 5771).
        first >> 28 == 0xe && first >> 8 != 0x00e0_0000
    } else {
        // ff00::/8 but for what is of reserved, interface or link scope (RFC 4291, 2.7).
        first >> 24 == 0xff && first >> 16 & 0xf > 2
    }
}

const _: () = assert!(size_of::<GroupKey>() == 8);
const _: () = assert!(size_of::<GroupChunk>() == 16 + 8 * CHUNK);
const _: () = assert!(size_of::<TagKey>() == 8);
const _: () = assert!(size_of::<ListenerKey>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn to_v4(address: [u8; 4]) -> Headers {
        Headers {
            family: Family::V4,
            dst: Address::v4(address),
            ..Headers::default()
        }
    }

    fn to_v6(first: u16, last: u8) -> Headers {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&first.to_be_bytes());
        bytes[15] = last;
        Headers {
            family: Family::V6,
            dst: Address::v6(bytes),
            ..Headers::default()
        }
    }

    #[test]
    fn only_multicast_beyond_the_link_is_listened_for() {
        for beyond in [[224, 0, 1, 0], [232, 1, 2, 3], [239, 255, 255, 250]] {
            assert!(is_listened_for(&to_v4(beyond)), "{beyond:?}");
        }
        for all in [
            [224, 0, 0, 1],
            [224, 0, 0, 251],
            [255; 4],
            [10, 0, 0, 1],
            [240, 0, 0, 1],
        ] {
            assert!(!is_listened_for(&to_v4(all)), "{all:?}");
        }
        for beyond in [0xff05, 0xff0e, 0xff15, 0xff3e] {
            assert!(is_listened_for(&to_v6(beyond, 1)), "{beyond:x}");
        }
        for all in [0xff02, 0xff12, 0xff01, 0xff00, 0xfd00, 0xfe80] {
            assert!(!is_listened_for(&to_v6(all, 1)), "{all:x}");
        }
        assert!(!is_listened_for(&Headers::default()));
    }

    #[test]
    fn the_address_for_several_is_a_group_address_that_nobody_is_assigned() {
        let [first, ..] = EACH_ITS_OWN.to_bytes();
        assert_eq!(first & 3, 3);
    }
}
