//! From who listens to what to the keys that the programs look for.
//!
//! ```text
//! heard here ------------------------------> {network, endpoint, group}
//! told by the controller, for endpoints
//!   that are here or come here ------------> the same, until they are heard themselves
//!   that are elsewhere --------------------> {network, node, group} for each node where they may be
//! nodes that tell -------------------------> {node}: others get everything
//! ```
//!
//! What is told is told of endpoints and not of nodes, so it goes with an endpoint that moves: the
//! nodes that send change where they send to in the moment that they learn where it is, and the node
//! it comes to knows what it listens to before it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::IpAddr,
};

use sunwire_dataplane_common::{
    address::Address,
    group::{ListenerKey, NODE, RELAY},
};

use crate::{
    dataplane::expected,
    groups::relays::Relays,
    state::{Desired, Endpoint, Network, kernel_address},
};

/// What endpoints listen to, by number.
pub type Groups = BTreeMap<u32, BTreeSet<IpAddr>>;

/// What a node knows of listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What endpoints here have reported.
    pub heard: Groups,
    /// What other nodes, or this one before, have reported.
    pub told: Groups,
    /// Nodes that tell what is listened to there.
    pub telling: BTreeSet<u32>,
}

impl Known {
    /// What `desired` makes of it for node `own`: at most `capacity` keys. If there are more, other
    /// nodes get everything; if there are more here alone, all do.
    #[must_use]
    pub fn keys(&self, desired: &Desired, own: u32, capacity: usize) -> BTreeSet<ListenerKey> {
        let mut keys = self.here(desired, own);
        if keys.len() > capacity {
            tracing::warn!(
                capacity,
                listeners = keys.len(),
                "too many groups are listened to here: multicast goes to all"
            );
            return BTreeSet::new();
        }
        let elsewhere = self.elsewhere(desired, own);
        if keys.len() + elsewhere.len() <= capacity {
            keys.extend(elsewhere);
        } else {
            tracing::warn!(
                capacity,
                listeners = keys.len() + elsewhere.len(),
                "too many groups are listened to: multicast goes to all other nodes"
            );
        }
        keys
    }

    fn here(&self, desired: &Desired, own: u32) -> BTreeSet<ListenerKey> {
        let mut keys = BTreeSet::new();
        for (vni, network) in &desired.networks {
            for (family, gateway) in [(4, network.gateway_v4), (6, network.gateway_v6)] {
                if gateway != Address::ZERO {
                    keys.insert(ListenerKey::asked(*vni, family));
                }
            }
        }
        let endpoints = desired.endpoints.iter();
        for (number, endpoint) in endpoints.filter(|(_, endpoint)| expected(endpoint, own)) {
            let groups = self.heard.get(number).or_else(|| self.told.get(number));
            let groups = groups.into_iter().flatten();
            keys.extend(groups.map(|group| key(endpoint.vni, *number, *group)));
        }
        keys
    }

    fn elsewhere(&self, desired: &Desired, own: u32) -> BTreeSet<ListenerKey> {
        let relays = Relays::new(desired, own, &self.telling);
        let telling = self.telling.iter().filter(|node| **node != own);
        let mut keys: BTreeSet<ListenerKey> =
            telling.map(|node| ListenerKey::tells(*node)).collect();
        for (relay, nodes) in relays.regions(desired) {
            if nodes.is_subset(&self.telling) {
                keys.insert(ListenerKey::tells(relay | RELAY));
            }
        }
        for (number, groups) in &self.told {
            let Some(endpoint) = desired.endpoints.get(number) else {
                continue;
            };
            let homes = homes(endpoint);
            for node in homes.filter(|node| self.telling.contains(node) && *node != own) {
                let relay = relays.to(desired, endpoint.vni, node);
                for who in iter::once(node).chain(relay.map(|relay| relay | RELAY)) {
                    let groups = groups.iter();
                    keys.extend(groups.map(|group| key(endpoint.vni, who | NODE, *group)));
                }
            }
        }
        keys
    }
}

/// What the kernel knows of endpoints here, for an agent that takes over from an earlier one.
pub(crate) fn seeds<'a>(keys: impl IntoIterator<Item = &'a ListenerKey>) -> Groups {
    let mut groups = Groups::new();
    let here = keys.into_iter().filter(|key| key.who & NODE == 0);
    for key in here {
        let group = user_address(key.address);
        groups.entry(key.who).or_default().insert(group);
    }
    groups
}

/// The nodes where an endpoint may be: two while it moves, of which one has its device.
pub(crate) fn homes(endpoint: &Endpoint) -> impl Iterator<Item = u32> + use<> {
    let other = Some(endpoint.other).filter(|_| endpoint.moving);
    [Some(endpoint.node), other].into_iter().flatten()
}

/// Whether a network's endpoints are asked what they listen to.
#[must_use]
pub fn is_asked(network: &Network) -> bool {
    network.gateway_v4 != Address::ZERO || network.gateway_v6 != Address::ZERO
}

/// A group as it travels: 4 or 16 bytes.
#[must_use]
pub fn to_bytes(group: IpAddr) -> Vec<u8> {
    match group {
        IpAddr::V4(group) => group.octets().to_vec(),
        IpAddr::V6(group) => group.octets().to_vec(),
    }
}

/// A group of as many bytes; `None` if they are no group's.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    let group = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
    };
    group.is_multicast().then_some(group)
}

fn key(network: u32, who: u32, group: IpAddr) -> ListenerKey {
    ListenerKey {
        network,
        who,
        address: kernel_address(group),
    }
}

/// The address in a key: an IPv4 group fills the first word, and none of IPv6 is so.
fn user_address(address: Address) -> IpAddr {
    let bytes = address.to_bytes();
    match bytes {
        [first @ 0xe0..=0xef, b, c, d, ..] => IpAddr::from([first, b, c, d]),
        _ => IpAddr::from(bytes),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use sunwire_dataplane_common::address::Mac;

    const VNI: u32 = 100;
    const GROUP: &str = "239.1.2.3";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    pub(crate) fn network(gateway: &str) -> Network {
        Network {
            outbound: 0,
            name: "shop".into(),
            mtu: 1300,
            gateway_v4: kernel_address(ip(gateway)),
            gateway_v6: Address::ZERO,
            gateway_mac: Mac::new([2; 6]),
            prefix_v4: 16,
            prefix_v6: 0,
            encryption: Default::default(),
            relayed: false,
            enforced: false,
            checksum: false,
            port: sunwire_dataplane_common::vxlan::PORT,
            peers: Vec::new(),
        }
    }

    fn endpoint(node: u32, moving_to: u32) -> Endpoint {
        Endpoint {
            name: "web".into(),
            vni: VNI,
            device: "sw-web".into(),
            mac: Mac::new([2; 6]),
            ipv4: Address::ZERO,
            ipv6: Address::ZERO,
            node,
            other: moving_to,
            moving: moving_to != 0,
            epoch: 1,
        }
    }

    /// Endpoint 1 at node 1, endpoint 2 at node 2 or on its way to `moving_to`.
    fn desired(moving_to: u32) -> Desired {
        let mut desired = Desired::default();
        desired.networks.insert(VNI, network("10.0.0.1"));
        desired.networks.insert(VNI + 1, network("0.0.0.0"));
        desired.endpoints.insert(1, endpoint(1, 0));
        desired.endpoints.insert(2, endpoint(2, moving_to));
        desired
    }

    fn known() -> Known {
        let groups = BTreeSet::from([ip(GROUP)]);
        Known {
            heard: Groups::from([(1, groups.clone())]),
            told: Groups::from([(1, BTreeSet::from([ip("239.9.9.9")])), (2, groups)]),
            telling: BTreeSet::from([1, 2]),
        }
    }

    fn of(who: u32) -> ListenerKey {
        key(VNI, who, ip(GROUP))
    }

    #[test]
    fn what_is_heard_here_counts_and_what_is_told_of_endpoints_elsewhere() {
        let asked = ListenerKey::asked(VNI, 4);
        let keys = known().keys(&desired(0), 1, 100);
        let expected = [asked, of(1), ListenerKey::tells(2), of(2 | NODE)];
        assert_eq!(keys, BTreeSet::from(expected));
        // Nobody tells: all other nodes get everything, and here nothing changes.
        let mut alone = known();
        alone.telling.clear();
        assert_eq!(
            alone.keys(&desired(0), 1, 100),
            BTreeSet::from([asked, of(1)])
        );
    }

    #[test]
    fn who_moves_listens_at_both_nodes_and_where_it_comes_from_the_beginning() {
        let asked = ListenerKey::asked(VNI, 4);
        let on_the_way = known().keys(&desired(3), 4, 100);
        // Node 3 does not tell: it gets everything as it is.
        let expected = [
            ListenerKey::tells(1),
            ListenerKey::tells(2),
            asked,
            of(2 | NODE),
        ];
        let told = key(VNI, 1 | NODE, ip("239.9.9.9"));
        assert_eq!(
            on_the_way,
            BTreeSet::from(expected).into_iter().chain([told]).collect()
        );
        let at_the_end = known().keys(&desired(3), 3, 100);
        assert!(at_the_end.contains(&of(2)) && at_the_end.contains(&of(2 | NODE)));
    }

    #[test]
    fn more_than_there_is_room_for_means_everything() {
        let keys = |capacity| known().keys(&desired(0), 1, capacity);
        let here = BTreeSet::from([ListenerKey::asked(VNI, 4), of(1)]);
        assert_eq!(keys(4).len(), 4);
        assert_eq!(keys(3), here);
        assert_eq!(keys(1), BTreeSet::new());
    }

    #[test]
    fn the_kernel_tells_the_next_agent_what_was_known() {
        let groups = [ip(GROUP), ip("ff15::1")];
        let keys = groups.map(|group| key(VNI, 1, group));
        let others = [
            of(2 | NODE),
            ListenerKey::asked(VNI, 4),
            ListenerKey::tells(2),
        ];
        let seeded = seeds(keys.iter().chain(&others));
        assert_eq!(seeded, Groups::from([(1, BTreeSet::from(groups))]));
        for group in groups {
            assert_eq!(from_bytes(&to_bytes(group)), Some(group));
        }
        for bad in [&[][..], &[10, 0, 0, 1], &[0xff; 5], &[0xfd; 16]] {
            assert_eq!(from_bytes(bad), None, "{bad:?}");
        }
    }
}
