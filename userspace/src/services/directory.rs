//! Who is here, what the networks are, and who has which name: what answers are made of.
//!
//! Made of the desired state whenever it changes, and never changed afterwards; so an answer is
//! made of one state.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use sunwire_dataplane_common::{
    address::{Address, Mac},
    punt::link_local,
};

use super::ring::Punt;
use crate::state::{self, Desired};

/// The domain of all networks' names.
pub(crate) const INTERNAL: &str = "internal";

/// A subnet, by its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet<A> {
    /// The gateway's address in it.
    pub gateway: A,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name, in lower case.
    pub name: String,
    /// MTU in bytes from the IP header on.
    pub mtu: u16,
    /// MAC address of the gateway.
    pub gateway_mac: [u8; 6],
    /// The gateway's link-local address.
    pub gateway_local: Ipv6Addr,
    /// The IPv4 subnet.
    pub v4: Option<Subnet<Ipv4Addr>>,
    /// The IPv6 subnet.
    pub v6: Option<Subnet<Ipv6Addr>>,
    /// VNIs of the networks that packets are routed to and from.
    pub peers: Vec<u32>,
}

impl Network {
    /// Where the names of the network's endpoints are: `shop.internal`.
    #[must_use]
    pub fn domain(&self) -> String {
        format!("{}.{INTERNAL}", self.name)
    }
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, in lower case.
    pub name: String,
    /// VNI of its network.
    pub vni: u32,
    /// MAC address.
    pub mac: [u8; 6],
    /// IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// Number of the endpoint.
    pub number: u32,
    /// ifindex of its host-side device.
    pub ifindex: u32,
    /// VNI of its network.
    pub vni: u32,
    /// The endpoint.
    pub member: &'a Member,
    /// Its network.
    pub network: &'a Network,
}

/// What answers are made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    networks: BTreeMap<u32, Network>,
    members: BTreeMap<u32, Member>,
    /// Numbers of attached endpoints by ifindex.
    here: BTreeMap<u32, u32>,
    names: HashMap<u32, HashMap<String, u32>>,
    addresses: HashMap<(u32, IpAddr), u32>,
}

impl Directory {
    /// What `desired` says; `here` are the attached endpoints by the ifindex of their device.
    #[must_use]
    pub fn new(desired: &Desired, here: BTreeMap<u32, u32>) -> Self {
        let networks = desired.networks.iter();
        let mut directory = Directory {
            networks: networks.map(|(vni, of)| (*vni, network(of))).collect(),
            here,
            ..Directory::default()
        };
        for (number, endpoint) in &desired.endpoints {
            let member = member(endpoint);
            let vni = member.vni;
            let names = directory.names.entry(vni).or_default();
            names.insert(member.name.clone(), *number);
            let v4 = member.ipv4.map(IpAddr::V4);
            let v6 = member.ipv6.map(IpAddr::V6);
            for address in v4.into_iter().chain(v6) {
                directory.addresses.insert((vni, address), *number);
            }
            directory.members.insert(*number, member);
        }
        directory
    }

    /// Whether this is what [`Directory::new`] would make of `desired` and `here`.
    #[must_use]
    pub(crate) fn reflects(&self, desired: &Desired, here: &BTreeMap<u32, u32>) -> bool {
        let networks = desired.networks.iter();
        let endpoints = desired.endpoints.iter();
        self.here == *here
            && self.networks.len() == desired.networks.len()
            && self.members.len() == desired.endpoints.len()
            && networks.eq_by_key(&self.networks, network)
            && endpoints.eq_by_key(&self.members, member)
    }

    /// Who sent a frame; `None` when the endpoint is not behind that device any more.
    #[must_use]
    pub fn asker(&self, punt: &Punt<'_>) -> Option<Asker<'_>> {
        self.at(punt.ifindex)
            .filter(|asker| asker.number == punt.endpoint && asker.vni == punt.network)
    }

    /// Who is behind a device.
    #[must_use]
    pub fn at(&self, ifindex: u32) -> Option<Asker<'_>> {
        let number = *self.here.get(&ifindex)?;
        let member = self.members.get(&number)?;
        Some(Asker {
            number,
            ifindex,
            vni: member.vni,
            member,
            network: self.networks.get(&member.vni)?,
        })
    }

    /// Everybody who is here.
    pub fn here(&self) -> impl Iterator<Item = Asker<'_>> {
        self.here.keys().filter_map(|ifindex| self.at(*ifindex))
    }

    /// The networks whose names `asker` is told: its own, and those that it is peered with.
    pub fn networks_of<'a>(
        &'a self,
        asker: &Asker<'a>,
    ) -> impl Iterator<Item = (u32, &'a Network)> {
        let peers = asker.network.peers.iter();
        let peers = peers.filter_map(|vni| Some((*vni, self.networks.get(vni)?)));
        [(asker.vni, asker.network)].into_iter().chain(peers)
    }

    /// The network of this cloud with this name, in lower case.
    #[must_use]
    pub fn network_named(&self, name: &str) -> Option<&Network> {
        self.networks.values().find(|network| network.name == name)
    }

    /// The endpoint of a network with this name, in lower case.
    #[must_use]
    pub fn by_name(&self, vni: u32, name: &str) -> Option<&Member> {
        self.members.get(self.names.get(&vni)?.get(name)?)
    }

    /// The endpoint of a network with this address.
    #[must_use]
    pub fn by_address(&self, vni: u32, address: IpAddr) -> Option<&Member> {
        self.members.get(self.addresses.get(&(vni, address))?)
    }
}

/// Comparison of two maps of which one holds what the other is made to.
trait EqByKey<'a, K: 'a, V: 'a> {
    fn eq_by_key<W: PartialEq>(self, made: &BTreeMap<K, W>, make: impl Fn(&V) -> W) -> bool;
}

impl<'a, K, V, I> EqByKey<'a, K, V> for I
where
    K: Ord + 'a,
    V: 'a,
    I: Iterator<Item = (&'a K, &'a V)>,
{
    fn eq_by_key<W: PartialEq>(mut self, made: &BTreeMap<K, W>, make: impl Fn(&V) -> W) -> bool {
        self.all(|(key, value)| made.get(key).is_some_and(|made| *made == make(value)))
    }
}

fn network(network: &state::Network) -> Network {
    // An older controller tells no prefix; nothing can be said of such a subnet.
    let (prefix_v4, prefix_v6) = (network.prefix_v4, network.prefix_v6);
    let v4 = ipv4(network.gateway_v4).filter(|_| prefix_v4 != 0);
    let v6 = ipv6(network.gateway_v6).filter(|_| prefix_v6 != 0);
    Network {
        name: network.name.to_ascii_lowercase(),
        // Checked where it was parsed.
        mtu: u16::try_from(network.mtu).unwrap_or(u16::MAX),
        gateway_mac: network.gateway_mac.to_bytes(),
        gateway_local: local(network.gateway_mac),
        v4: v4.map(|gateway| Subnet {
            gateway,
            prefix: prefix_v4,
        }),
        v6: v6.map(|gateway| Subnet {
            gateway,
            prefix: prefix_v6,
        }),
        peers: network.peers.clone(),
    }
}

fn member(endpoint: &state::Endpoint) -> Member {
    Member {
        name: endpoint.name.to_ascii_lowercase(),
        vni: endpoint.vni,
        mac: endpoint.mac.to_bytes(),
        ipv4: ipv4(endpoint.ipv4),
        ipv6: ipv6(endpoint.ipv6),
    }
}

fn local(mac: Mac) -> Ipv6Addr {
    link_local(mac).to_bytes().into()
}

fn ipv4(address: Address) -> Option<Ipv4Addr> {
    let [a, b, c, d, ..] = address.to_bytes();
    (address != Address::ZERO).then(|| Ipv4Addr::new(a, b, c, d))
}

fn ipv6(address: Address) -> Option<Ipv6Addr> {
    (address != Address::ZERO).then(|| address.to_bytes().into())
}
