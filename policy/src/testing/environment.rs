//! A small network with everything that names can mean.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::environment::{Endpoint, Environment, Network, Node};

/// Network `shop` with endpoints `web1`, `web2`, `db1`, `client1` of both families, `legacy1` of
/// IPv4 alone, nodes `n1` to `n3`; and another network, `lab`, with the endpoint `bench1`.
#[must_use]
pub fn environment() -> Environment {
    let network = |name: &str, vni, third: u8| Network {
        name: name.to_owned(),
        vni,
        subnets: vec![
            (Ipv4Addr::new(10, third, 0, 0).into(), 16),
            (
                Ipv6Addr::new(0xfd00, third.into(), 0, 0, 0, 0, 0, 0).into(),
                64,
            ),
        ],
        ..Network::default()
    };
    let endpoint = |name: &str, number: u32, network: &str, third: u8, tier: &str| Endpoint {
        name: name.to_owned(),
        number,
        network: network.to_owned(),
        addresses: vec![
            Ipv4Addr::new(10, third, 0, number as u8).into(),
            Ipv6Addr::new(0xfd00, third.into(), 0, 0, 0, 0, 0, number as u16).into(),
        ],
        mac: [2, 0, 0, 0, third, number as u8],
        labels: BTreeMap::from([("tier".to_owned(), tier.to_owned())]),
    };
    let mut endpoints = vec![
        endpoint("web1", 1, "shop", 20, "web"),
        endpoint("web2", 2, "shop", 20, "web"),
        endpoint("db1", 3, "shop", 20, "db"),
        endpoint("client1", 4, "shop", 20, "client"),
        endpoint("legacy1", 5, "shop", 20, "client"),
        endpoint("bench1", 9, "lab", 30, "web"),
    ];
    endpoints[4].addresses.truncate(1);
    Environment {
        networks: vec![network("shop", 100, 20), network("lab", 200, 30)],
        endpoints,
        nodes: (1..=3)
            .map(|number| Node {
                name: format!("n{number}"),
                number,
            })
            .collect(),
    }
}
