//! Nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sunwire_api::{
    Name, NetworkOutbound, NodeCreate, NodeKind, NodeLocation, ProblemCode, PublicKey,
};

use super::State;
use super::policies::{Change, Reexamined};
use crate::effects::Effects;
use crate::examine::Examiner;
use crate::refusal::Refusal;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Dense, from 1, never reused.
    pub number: u32,
    /// Where it is.
    pub location: NodeLocation,
    /// Its IPv4 address on the underlay.
    pub underlay_address: Option<Ipv4Addr>,
    /// Its IPv6 address there: it has one of them, or both.
    #[serde(default)]
    pub underlay_address_v6: Option<Ipv6Addr>,
    /// Its public keys, the oldest first: one, or two while the newer one takes over.
    #[serde(default)]
    pub public_keys: Vec<PublicKey>,
    /// UDP port of encrypted packets.
    #[serde(default)]
    pub tunnel_port: u16,
    /// What it is.
    #[serde(default)]
    pub kind: NodeKind,
    /// Packets to and from it are never encrypted.
    #[serde(default)]
    pub plaintext: bool,
    /// Revision of its last change.
    pub revision: u64,
}

impl NodeRecord {
    /// Its addresses on the underlay.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.underlay_address.map(IpAddr::V4);
        v4.into_iter()
            .chain(self.underlay_address_v6.map(IpAddr::V6))
    }

    /// The same in words.
    pub(crate) fn addresses_text(&self) -> String {
        let addresses: Vec<String> = self
            .addresses()
            .map(|address| address.to_string())
            .collect();
        addresses.join(" and ")
    }
}

/// What an agent says of its node.
pub(super) struct Announced {
    pub(super) location: NodeLocation,
    pub(super) underlay_address: Option<Ipv4Addr>,
    pub(super) underlay_address_v6: Option<Ipv6Addr>,
    pub(super) public_keys: Vec<PublicKey>,
    pub(super) tunnel_port: u16,
}

/// Keys that a node has at most: while it changes them, the older and the newer.
const KEYS_MAX: usize = 2;

impl State {
    pub(super) fn register_node(
        &mut self,
        name: &Name,
        announced: Announced,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let Announced {
            location,
            underlay_address,
            underlay_address_v6,
            public_keys,
            tunnel_port,
        } = announced;
        if self.is_foreign(name) {
            return Err(Refusal::new(
                ProblemCode::NameTaken,
                format!(
                    "{name} is declared as a node without an agent: give this one another name, or \
                     delete that node first"
                ),
            ));
        }
        let v4 = underlay_address.map(IpAddr::V4);
        for address in v4.into_iter().chain(underlay_address_v6.map(IpAddr::V6)) {
            self.check_underlay_address(name, address)?;
        }
        self.check_public_keys(name, &public_keys)?;
        let number = match self.nodes.get(name) {
            Some(known)
                if known.location == location
                    && known.underlay_address == underlay_address
                    && known.underlay_address_v6 == underlay_address_v6
                    && known.public_keys == public_keys
                    && known.tunnel_port == tunnel_port =>
            {
                return Err(Refusal::Unchanged);
            }
            Some(known) => known.number,
            None => next_number(self.last_node_number, "node")?,
        };
        let record = NodeRecord {
            number,
            location,
            underlay_address,
            underlay_address_v6,
            public_keys,
            tunnel_port,
            kind: NodeKind::Agent,
            plaintext: false,
            revision: effects.revision,
        };
        // A node comes into being whatever policies assert: it is there. One that is known already
        // means in policies what it meant before.
        let policies = match self.nodes.contains_key(name) {
            true => Reexamined::default(),
            false => self.reexamined(Change::Node(name, Some(&record)), true, examiner)?,
        };

        effects.created = self.nodes.insert(name.clone(), record).is_none();
        self.last_node_number = self.last_node_number.max(number);
        effects.nodes.insert(name.clone());
        self.settle(policies, effects);
        Ok(())
    }

    pub(super) fn create_node(
        &mut self,
        create: &NodeCreate,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let name = &create.name;
        if create.kind != NodeKind::Vxlan {
            return Err(Refusal::new(
                ProblemCode::InvalidBody,
                "a node with an agent comes into being when its agent connects: declare only nodes \
                 of kind vxlan",
            ));
        }
        if self.nodes.contains_key(name) {
            return Err(Refusal::new(
                ProblemCode::NameTaken,
                format!("there is a node {name}: take another name"),
            ));
        }
        self.check_underlay_address(name, create.underlay_address)?;
        let (underlay_address, underlay_address_v6) = match create.underlay_address {
            IpAddr::V4(address) => (Some(address), None),
            IpAddr::V6(address) => (None, Some(address)),
        };
        let number = next_number(self.last_node_number, "node")?;
        let record = NodeRecord {
            number,
            location: create.location.clone(),
            underlay_address,
            underlay_address_v6,
            public_keys: Vec::new(),
            tunnel_port: 0,
            kind: create.kind,
            plaintext: create.plaintext,
            revision: effects.revision,
        };
        let policies = self.reexamined(Change::Node(name, Some(&record)), force, examiner)?;

        self.nodes.insert(name.clone(), record);
        self.last_node_number = number;
        effects.created = true;
        effects.nodes.insert(name.clone());
        self.settle(policies, effects);
        Ok(())
    }

    /// Whether a node runs no agent.
    pub(super) fn is_foreign(&self, name: &Name) -> bool {
        let node = self.nodes.get(name);
        node.is_some_and(|node| node.kind != NodeKind::Agent)
    }

    fn check_underlay_address(&self, name: &Name, address: IpAddr) -> Result<(), Refusal> {
        let is_of_one = match address {
            // What nodes without an IPv4 address are called within encrypted tunnels is of the
            // reserved range.
            IpAddr::V4(v4) => v4.octets()[0] < 240,
            IpAddr::V6(v6) => !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none(),
        };
        let is_wide = address.is_unspecified() || address.is_multicast();
        if !is_of_one || is_wide || address.is_loopback() {
            return Err(Refusal::new(
                ProblemCode::AddressInvalid,
                format!("{address} cannot be the underlay address of one node"),
            ));
        }
        let mut others = self.nodes.iter().filter(|(other, _)| *other != name);
        match others.find(|(_, other)| other.addresses().any(|taken| taken == address)) {
            None => Ok(()),
            Some((other, _)) => Err(Refusal::new(
                ProblemCode::UnderlayAddressTaken,
                format!(
                    "node {other} has the underlay address {address}: give {name} another one, or \
                     delete node {other}"
                ),
            )),
        }
    }

    pub(super) fn set_node_keys(
        &mut self,
        name: &Name,
        public_keys: &[PublicKey],
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if self.node(name)?.public_keys == public_keys {
            return Err(Refusal::Unchanged);
        }
        self.check_public_keys(name, public_keys)?;
        if let Some(record) = self.nodes.get_mut(name) {
            record.public_keys = public_keys.to_vec();
            record.revision = effects.revision;
        }
        effects.nodes.insert(name.clone());
        Ok(())
    }

    /// A key names one node, or packets of one would be taken for another's.
    fn check_public_keys(&self, name: &Name, keys: &[PublicKey]) -> Result<(), Refusal> {
        let invalid = |detail| Err(Refusal::new(ProblemCode::PublicKeyInvalid, detail));
        if keys.len() > KEYS_MAX {
            let count = keys.len();
            return invalid(format!(
                "node {name} announces {count} public keys: one, or two while it changes them"
            ));
        }
        for (at, key) in keys.iter().enumerate() {
            if key.0 == [0; 32] || keys[..at].contains(key) {
                return invalid(format!("{key} cannot be a public key of node {name}"));
            }
            let mut others = self.nodes.iter().filter(|(other, _)| *other != name);
            if let Some((other, _)) = others.find(|(_, other)| other.public_keys.contains(key)) {
                return invalid(format!(
                    "node {other} has the public key {key}: nodes must not share a state \
                     directory; remove the keys in that of {name}, and it makes new ones"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn delete_node(
        &mut self,
        name: &Name,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let number = self.node(name)?.number;
        let mut endpoints = self.endpoints.iter();
        if let Some((endpoint, _)) = endpoints
            .find(|(_, record)| record.node == *name || record.moving_to.as_ref() == Some(name))
        {
            return Err(Refusal::new(
                ProblemCode::NodeInUse,
                format!(
                    "endpoint {endpoint} is on node {name} or moves there: move or delete every \
                     endpoint first"
                ),
            ));
        }
        let leaves_here = NetworkOutbound::Node(name.clone());
        let mut networks = self.networks.iter();
        if let Some((network, _)) = networks.find(|(_, record)| record.outbound == leaves_here) {
            return Err(Refusal::new(
                ProblemCode::NodeInUse,
                format!(
                    "packets of network {network} leave the cloud at node {name}: have them leave \
                     elsewhere first"
                ),
            ));
        }
        let policies = self.reexamined(Change::Node(name, None), force, examiner)?;

        self.nodes.remove(name);
        effects.removed_nodes.push(number);
        for (endpoint, record) in &mut self.endpoints {
            if record.previous.as_ref() == Some(name) {
                record.previous = None;
                effects.endpoints.insert(endpoint.clone());
            }
        }
        self.settle(policies, effects);
        Ok(())
    }

    pub(super) fn node(&self, name: &Name) -> Result<&NodeRecord, Refusal> {
        self.nodes.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::NodeNotFound,
                format!("there is no node {name}: a node appears when its agent connects"),
            )
        })
    }

    /// Refuses a node that a request's body names and that does not exist.
    pub(super) fn known_node(&self, name: &Name) -> Result<&NodeRecord, Refusal> {
        self.nodes.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::UnknownNode,
                format!("there is no node {name}: name one that GET /v1/nodes lists"),
            )
        })
    }
}

/// The number after `last`: numbers are never reused.
pub(super) fn next_number(last: u32, kind: &str) -> Result<u32, Refusal> {
    last.checked_add(1).ok_or_else(|| {
        Refusal::new(
            ProblemCode::NumbersExhausted,
            format!("every {kind} number has been used"),
        )
    })
}
