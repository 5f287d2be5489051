//! Which networks packets are routed between: the subnets of each network's peers, into the kernel; and
//! its own where packets leave the cloud, which those do not that go there.

use std::collections::BTreeMap;

use sunwire_dataplane_common::{
    address::Address,
    entries::{ClassKeyV4, ClassKeyV6},
    outbound::by,
};

use crate::{maps::Maps, shadow::ShadowError, state::Desired};

/// Bits of the network in front of the address.
const NETWORK_BITS: u32 = 32;

/// Routes by the prefix length, network included, and the key.
#[derive(Debug, Default, PartialEq, Eq)]
struct Routes {
    v4: BTreeMap<(u32, ClassKeyV4), u32>,
    v6: BTreeMap<(u32, ClassKeyV6), u32>,
}

impl Routes {
    fn new(desired: &Desired) -> Self {
        let mut routes = Routes::default();
        for (vni, network) in &desired.networks {
            // Its own say what is not outside: an address there leaves to nowhere.
            let own = (network.outbound != by::NOBODY).then_some(vni);
            for peer in network.peers.iter().chain(own) {
                // One that was not sent has no endpoints either.
                let Some(other) = desired.networks.get(peer) else {
                    continue;
                };
                let network = vni.to_be();
                if other.gateway_v4 != Address::ZERO {
                    let mask = u32::MAX
                        .checked_shl(32 - u32::from(other.prefix_v4))
                        .unwrap_or(0);
                    let key = ClassKeyV4 {
                        network,
                        address: other.gateway_v4.0[0] & mask.to_be(),
                    };
                    let bits = NETWORK_BITS + u32::from(other.prefix_v4);
                    routes.v4.insert((bits, key), *peer);
                }
                if other.gateway_v6 != Address::ZERO {
                    let mask = u128::MAX
                        .checked_shl(128 - u32::from(other.prefix_v6))
                        .unwrap_or(0);
                    let number = u128::from_be_bytes(other.gateway_v6.to_bytes()) & mask;
                    let key = ClassKeyV6 {
                        network,
                        address: Address::v6(number.to_be_bytes()),
                    };
                    let bits = NETWORK_BITS + u32::from(other.prefix_v6);
                    routes.v6.insert((bits, key), *peer);
                }
            }
        }
        routes
    }
}

/// Writes the routes that there should be.
///
/// # Errors
/// When a map is full or cannot be written.
pub(crate) fn write(maps: &mut Maps, desired: &Desired) -> Result<(), ShadowError> {
    let routes = Routes::new(desired);
    // A subnet that is another network's now is written over.
    maps.routes_v4.retain(|key| routes.v4.contains_key(key))?;
    maps.routes_v6.retain(|key| routes.v6.contains_key(key))?;
    for (key, peer) in routes.v4 {
        maps.routes_v4.set(key, peer)?;
    }
    for (key, peer) in routes.v6 {
        maps.routes_v6.set(key, peer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Network;

    #[test]
    fn every_subnet_of_a_peer_has_a_route_and_no_other() {
        let mut desired = Desired::default();
        let network = |third: u8, peers: &[u32]| Network {
            gateway_v4: Address::v4([10, third, 0, 1]),
            prefix_v4: 16,
            gateway_v6: Address::v6([0xfd, 0, 0, third, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            prefix_v6: 64,
            peers: peers.to_vec(),
            ..Network::for_tests()
        };
        desired.networks.insert(7, network(20, &[8, 99]));
        desired.networks.insert(8, network(30, &[7]));
        desired.networks.insert(9, network(20, &[]));
        let routes = Routes::new(&desired);
        let v4 = |vni: u32, third: u8| {
            let address = u32::from_ne_bytes([10, third, 0, 0]);
            let network = vni.to_be();
            (48, ClassKeyV4 { network, address })
        };
        let expected = BTreeMap::from([(v4(7, 30), 8), (v4(8, 20), 7)]);
        assert_eq!(routes.v4, expected);
        let v6: Vec<_> = routes
            .v6
            .iter()
            .map(|((bits, key), peer)| (*bits, key.network, *peer))
            .collect();
        assert_eq!(v6.len(), 2);
        assert!(v6.contains(&(96, 7u32.to_be(), 8)));
        let zero = routes
            .v6
            .keys()
            .all(|(_, key)| key.address.0[2] == 0 && key.address.0[3] == 0);
        assert!(zero, "the gateway's own bits are no part of the subnet");
    }
}
