//! Which nodes packets are encrypted to, and what the process that encrypts is to have.

use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};

use super::{
    key::{KeyRing, PrivateKey},
    protocol::{Configuration, Peer},
};
use crate::state::{Desired, Network, Node};

/// Whether everything between two nodes of these clouds is encrypted.
#[must_use]
pub fn between(mode: EncryptionMode, own_cloud: &str, other_cloud: &str) -> bool {
    match mode {
        EncryptionMode::Never => false,
        EncryptionMode::BetweenClouds => own_cloud != other_cloud,
        EncryptionMode::Always => true,
    }
}

/// Whether what goes between node `own` and `other` is encrypted, unless its network says otherwise.
#[must_use]
pub fn required(desired: &Desired, own: &Node, other: &Node) -> bool {
    !other.plaintext && between(desired.encryption, &own.cloud, &other.cloud)
}

/// Whether a network's packets from node `own` to `other` are encrypted. What the network says counts before
/// what the cloud's setting does: both what it asks for and what it does without.
#[must_use]
pub fn encrypts(desired: &Desired, own: &Node, other: &Node, network: &Network) -> bool {
    match network.encryption {
        NetworkEncryption::Default => required(desired, own, other),
        NetworkEncryption::Required => true,
        NetworkEncryption::Never => false,
    }
}

/// Whether some packets from node `own` to `other` are encrypted: all, or those of a network that
/// asks for it.
#[must_use]
pub fn wanted(desired: &Desired, own: &Node, other: &Node) -> bool {
    // Networks that ask for it have no endpoints at nodes without an agent.
    let of_network = || !other.foreign && desired.networks.values().any(Network::is_encrypted);
    required(desired, own, other) || of_network()
}

/// What the process that encrypts is to have on node `own`. `None`: there is nothing to encrypt.
///
/// Of this node's keys those count that the others know of: a handshake with another one would be
/// refused by them.
#[must_use]
pub fn configuration(desired: &Desired, own: u32, ring: &KeyRing) -> Option<Configuration> {
    let node = desired.nodes.get(&own)?;
    let others = desired.nodes.iter().filter(|(number, _)| **number != own);
    let peers: Vec<Peer> = others
        .filter(|(_, other)| !other.foreign && wanted(desired, node, other))
        .filter_map(|(number, other)| {
            let at = other.reached_at(node.has_ipv4(), node.address_v6.is_some())?;
            Some((*number, at, other))
        })
        .map(|(number, at, other)| Peer {
            node: number,
            address: other.address,
            underlay: at,
            port: other.tunnel_port,
            keys: other.public_keys.clone(),
        })
        .collect();
    if peers.is_empty() {
        return None;
    }
    let is_known = |key: &PrivateKey| node.public_keys.contains(&key.public());
    let private_keys = ring.keys().map(|key| key.private.clone());
    Some(Configuration {
        node: own,
        address: node.address,
        private_keys: private_keys.filter(is_known).collect(),
        peers,
    })
}

/// Whether the two nodes have addresses of one family.
#[must_use]
pub fn is_reachable(own: &Node, other: &Node) -> bool {
    let at = other.reached_at(own.has_ipv4(), own.address_v6.is_some());
    at.is_some()
}

/// What keeps the two nodes from encrypting, in words; `None` when both have a key.
#[must_use]
pub fn obstacle(own_known: &[PublicKey], other: &Node) -> Option<&'static str> {
    if other.foreign {
        Some(
            "the other node has no agent and encrypts nothing; where that is no harm, declare it \
             again with --plaintext",
        )
    } else if own_known.is_empty() {
        Some("this node's key is not known to the controller yet")
    } else if other.public_keys.is_empty() {
        Some("the other node has announced no key; its agent may be older than encryption")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::state::Network;

    fn node(cloud: &str, last: u8, keys: Vec<PublicKey>) -> Node {
        Node {
            region: String::new(),
            name: format!("node{last}"),
            address: Ipv4Addr::new(198, 18, 0, last),
            address_v6: None,
            cloud: cloud.to_owned(),
            public_keys: keys,
            tunnel_port: 51820,
            foreign: false,
            plaintext: false,
        }
    }

    fn desired(mode: EncryptionMode, ring: &KeyRing) -> Desired {
        let theirs = PrivateKey::generate().public();
        let mut desired = Desired {
            encryption: mode,
            ..Desired::default()
        };
        desired.nodes.insert(1, node("aws", 1, ring.public()));
        desired.nodes.insert(2, node("aws", 2, vec![theirs]));
        desired.nodes.insert(3, node("azure", 3, vec![]));
        desired
    }

    fn addresses(desired: &Desired, ring: &KeyRing) -> Vec<u8> {
        let configuration = configuration(desired, 1, ring);
        let peers = configuration.iter().flat_map(|all| &all.peers);
        peers.map(|peer| peer.address.octets()[3]).collect()
    }

    #[test]
    fn the_mode_decides_by_cloud() {
        let ring = KeyRing::generate();
        let peers = |mode| addresses(&desired(mode, &ring), &ring);
        assert_eq!(peers(EncryptionMode::Never), [] as [u8; 0]);
        assert_eq!(peers(EncryptionMode::BetweenClouds), [3]);
        assert_eq!(peers(EncryptionMode::Always), [2, 3]);
        assert!(between(EncryptionMode::BetweenClouds, "a", "b"));
        assert!(!between(EncryptionMode::BetweenClouds, "a", "a"));
    }

    #[test]
    fn a_network_can_ask_for_more() {
        let ring = KeyRing::generate();
        let mut desired = desired(EncryptionMode::Never, &ring);
        let network = Network {
            encryption: NetworkEncryption::Required,
            ..Network::for_tests()
        };
        desired.networks.insert(7, network);
        assert_eq!(addresses(&desired, &ring), [2, 3]);
        let (own, other) = (&desired.nodes[&1], &desired.nodes[&2]);
        assert!(
            !required(&desired, own, other),
            "other networks are not concerned"
        );
    }

    #[test]
    fn a_node_without_an_agent_is_encrypted_to_or_declared_plain() {
        let ring = KeyRing::generate();
        let mut desired = desired(EncryptionMode::BetweenClouds, &ring);
        let own = desired.nodes[&1].clone();
        let foreign = |plaintext| Node {
            foreign: true,
            plaintext,
            ..node("azure", 4, vec![])
        };
        assert!(wanted(&desired, &own, &foreign(false)));
        assert!(obstacle(&own.public_keys, &foreign(false)).is_some());
        assert!(!wanted(&desired, &own, &foreign(true)));
        desired.nodes.insert(4, foreign(false));
        assert_eq!(addresses(&desired, &ring), [3], "nothing is set up for it");
        desired.encryption = EncryptionMode::Never;
        let network = Network {
            encryption: NetworkEncryption::Required,
            ..Network::for_tests()
        };
        desired.networks.insert(7, network);
        assert!(!wanted(&desired, &own, &foreign(false)));
    }

    #[test]
    fn a_key_counts_once_the_controller_knows_it() {
        let ring = KeyRing::generate();
        let mut desired = desired(EncryptionMode::Always, &ring);
        let both = ring.with_newer();
        let keys = |desired: &Desired| {
            let configuration = configuration(desired, 1, &both).unwrap();
            let keys = configuration.private_keys.iter();
            keys.map(PrivateKey::public).collect::<Vec<_>>()
        };
        assert_eq!(keys(&desired), ring.public());
        desired.nodes.get_mut(&1).unwrap().public_keys = both.public();
        assert_eq!(keys(&desired), both.public());
        desired.nodes.get_mut(&1).unwrap().public_keys = vec![];
        assert_eq!(keys(&desired), []);
        assert!(obstacle(&[], &desired.nodes[&2]).is_some());
        assert!(obstacle(&both.public(), &desired.nodes[&3]).is_some());
        assert_eq!(obstacle(&both.public(), &desired.nodes[&2]), None);
    }
}
