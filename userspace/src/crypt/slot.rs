//! The slot of a key: which of two ports and two addresses go with it.
//!
//! ```text
//!   lowest bit of the public key    UDP port             address within tunnels
//!   0                               tunnel port          key_address(node, 0)
//!   1                               tunnel port + 1      key_address(node, 1)
//! ```
//!
//! A device of the kernel's WireGuard has one private key and a port of its own, and gives an address
//! to one peer alone. So the two keys that a node has while it replaces one need two of each, and
//! everybody has to know without being told which go with which. A key is made so that its slot is
//! not that of the one before.

use std::net::Ipv4Addr;

use sunwire_api::PublicKey;
use sunwire_dataplane_common::vxlan;

/// How many there are.
pub const SLOTS: usize = 2;

/// The slot of a key.
#[must_use]
pub fn of(key: &PublicKey) -> u8 {
    key.0[0] & 1
}

/// The UDP port that a node with tunnel port `base` uses for a key. The agent refuses a tunnel port
/// that leaves no room for it.
#[must_use]
pub fn port(base: u16, key: &PublicKey) -> u16 {
    base.saturating_add(u16::from(of(key)))
}

/// The address of a node within the tunnels by a key.
#[must_use]
pub fn address(node: u32, key: &PublicKey) -> Ipv4Addr {
    vxlan::key_address(node, of(key)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypt::key::{KeyRing, PrivateKey};

    #[test]
    fn two_keys_of_a_node_share_neither_port_nor_address() {
        for _ in 0..20 {
            let ring = KeyRing::generate().with_newer();
            let [older, newer] = ring.public()[..] else {
                panic!("two keys")
            };
            assert_ne!(port(51820, &older), port(51820, &newer));
            assert_ne!(address(7, &older), address(7, &newer));
            let next = ring.without_older().with_newer();
            assert_eq!(of(&next.public()[1]), of(&older), "the slot is free again");
        }
        let key = PrivateKey::generate_in(1).public();
        assert_eq!(port(u16::MAX, &key), u16::MAX);
    }

    #[test]
    fn an_address_within_tunnels_names_its_node() {
        for node in [1, 2, 77, 65_536, 100_000] {
            for slot in [0, 1] {
                let key = PrivateKey::generate_in(slot).public();
                let octets = address(node, &key).octets();
                assert_eq!(vxlan::node_of(u32::from_ne_bytes(octets)), node);
                assert_eq!(octets[0] >> 4, 15, "class E");
            }
        }
    }
}
