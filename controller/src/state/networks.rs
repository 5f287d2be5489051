//! Virtual networks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sunwire_api::{
    Cidr, MacAddress, Name, NetworkChecksum, NetworkCreate, NetworkEncryption, NetworkEnforcement,
    NetworkOutbound, NetworkPatch, ProblemCode, VXLAN_PORT, Vni, default_vxlan_port,
};

use super::{State, addresses};
use crate::effects::Effects;
use crate::refusal::Refusal;

/// MAC address of every network's gateway, the same on every node, so that an endpoint that moves
/// finds the gateway it knows.
pub(crate) const GATEWAY_MAC: MacAddress = MacAddress([0x02, 0x53, 0x57, 0x00, 0x00, 0x01]);

/// First bytes of the MAC addresses that stand for nodes where packets leave the cloud.
pub(super) const EGRESS_MAC_PREFIX: [u8; 3] = [0x02, 0x53, 0x58];

/// MTU of a network whose creator names none: clouds give 1460 and more, and tunnels over
/// encryption and IPv6 take up to 150.
const MTU_DEFAULT: u16 = 1300;
/// Every IPv4 host takes that much (RFC 791).
const MTU_MIN_V4: u16 = 576;
/// Every IPv6 link carries that much (RFC 8200).
const MTU_MIN_V6: u16 = 1280;
/// A jumbo frame of 9000 bytes without the 50 of the tunnel.
const MTU_MAX: u16 = 8950;
/// What a VLAN tag takes of it: where there is no subnet, a frame may have one beside the MTU.
const TAG_BYTES: u16 = 4;

/// UDP ports beside the usual one that nodes receive tunnels on.
const OTHER_PORTS_MAX: usize = 8;

/// A virtual network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// VXLAN network identifier.
    pub vni: Vni,
    /// One, or one of each family; none where the network carries frames alone.
    pub subnets: Vec<Cidr>,
    /// Greatest IP packet, in bytes.
    pub mtu: u16,
    /// Whether its packets are encrypted.
    #[serde(default)]
    pub encryption: NetworkEncryption,
    /// Whether what is for several goes once to each other region.
    #[serde(default)]
    pub relay: bool,
    /// Who decides about its packets.
    #[serde(default)]
    pub enforce: NetworkEnforcement,
    /// UDP port of its packets in the clear.
    #[serde(default = "default_vxlan_port")]
    pub vxlan_port: u16,
    /// The outer UDP checksum of its packets in the clear.
    #[serde(default)]
    pub checksum: NetworkChecksum,
    /// Networks that packets are routed to and from; each has this one in turn.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub peers: BTreeSet<Name>,
    /// Where packets leave the cloud for addresses outside.
    #[serde(default, skip_serializing_if = "NetworkOutbound::is_none")]
    pub outbound: NetworkOutbound,
    /// Revision of its last change.
    pub revision: u64,
}

impl NetworkRecord {
    /// The gateway of each subnet.
    pub fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.subnets.iter().map(addresses::gateway)
    }
}

impl State {
    pub(super) fn create_network(
        &mut self,
        create: &NetworkCreate,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let name = &create.name;
        if self.networks.contains_key(name) {
            return Err(Refusal::new(
                ProblemCode::NameTaken,
                format!("there is a network {name}: take another name"),
            ));
        }
        addresses::check_subnets(&create.subnets)?;
        let mtu = create.mtu.unwrap_or(MTU_DEFAULT);
        let v6 = create
            .subnets
            .iter()
            .any(|subnet| subnet.address().is_ipv6());
        let mtu_min = if v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
        let mtu_max = match create.subnets.is_empty() {
            true => MTU_MAX - TAG_BYTES,
            false => MTU_MAX,
        };
        if !(mtu_min..=mtu_max).contains(&mtu) {
            return Err(Refusal::new(
                ProblemCode::MtuInvalid,
                format!("the MTU {mtu} cannot be: take one from {mtu_min} to {mtu_max} bytes"),
            ));
        }
        let vxlan_port = create.vxlan_port.unwrap_or(VXLAN_PORT);
        self.check_vxlan_port(vxlan_port)?;
        self.check_outbound(name, &create.outbound, &create.subnets)?;
        let vni = match create.vni {
            Some(vni) => self.free_vni(vni)?,
            None => self.next_vni()?,
        };
        if create.vni.is_none() {
            self.last_vni = vni.get();
        }
        let record = NetworkRecord {
            vni,
            subnets: create.subnets.clone(),
            mtu,
            encryption: create.encryption,
            relay: create.relay,
            enforce: create.enforce,
            vxlan_port,
            checksum: create.checksum,
            peers: BTreeSet::new(),
            outbound: create.outbound.clone(),
            revision: effects.revision,
        };
        self.networks.insert(name.clone(), record);
        effects.created = true;
        effects.networks.insert(name.clone());
        Ok(())
    }

    /// Checks that every node can receive a network's packets on a UDP port.
    fn check_vxlan_port(&self, port: u16) -> Result<(), Refusal> {
        let refused = |why| Err(Refusal::new(ProblemCode::VxlanPortInvalid, why));
        if port == VXLAN_PORT {
            return Ok(());
        }
        if port == 0 {
            return refused(format!(
                "0 is no UDP port: take one from 1 to 65535, or leave it out for {VXLAN_PORT}"
            ));
        }
        // A node's keys take turns at two ports.
        let is_of =
            |tunnel: u16| tunnel != 0 && (port == tunnel || port.checked_sub(1) == Some(tunnel));
        if let Some((node, _)) = self.nodes.iter().find(|(_, node)| is_of(node.tunnel_port)) {
            return refused(format!(
                "node {node} receives encrypted packets on UDP port {port}: take another one"
            ));
        }
        let others = self.networks.values().map(|network| network.vxlan_port);
        let others: BTreeSet<u16> = others.filter(|port| *port != VXLAN_PORT).collect();
        if others.len() >= OTHER_PORTS_MAX && !others.contains(&port) {
            let others: Vec<String> = others.iter().map(u16::to_string).collect();
            return refused(format!(
                "networks already use {OTHER_PORTS_MAX} UDP ports beside {VXLAN_PORT}, which is as many \
                 as nodes listen to: take one of these: {}",
                others.join(", ")
            ));
        }
        Ok(())
    }

    /// Has packets of a network leave the cloud elsewhere, or nowhere (connections go on where they leave,
    /// unless nothing leaves any more), have other outer checksums, and be encrypted otherwise.
    pub(super) fn update_network(
        &mut self,
        name: &Name,
        patch: &NetworkPatch,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let network = self.network(name)?;
        let NetworkPatch {
            outbound,
            checksum,
            encryption,
        } = patch;
        if *patch == NetworkPatch::default() {
            return Ok(());
        }
        if let Some(outbound) = outbound {
            self.check_outbound(name, outbound, &network.subnets)?;
        }
        if let Some(encryption) = encryption {
            self.check_encryption(name, network, *encryption)?;
        }
        let record = self.networks.get_mut(name);
        let record = record.expect("it was looked up above");
        if let Some(outbound) = outbound {
            record.outbound = outbound.clone();
        }
        record.checksum = checksum.unwrap_or(record.checksum);
        record.encryption = encryption.unwrap_or(record.encryption);
        record.revision = effects.revision;
        effects.networks.insert(name.clone());
        Ok(())
    }

    /// Checks that packets of a network can be encrypted so from now on: networks that are peered are
    /// encrypted alike, and nodes without an agent encrypt nothing.
    fn check_encryption(
        &self,
        name: &Name,
        network: &NetworkRecord,
        encryption: NetworkEncryption,
    ) -> Result<(), Refusal> {
        let mut peers = network.peers.iter();
        if let Some(peer) = peers.find(|peer| self.networks[*peer].encryption != encryption) {
            return Err(Refusal::new(
                ProblemCode::PeeringInvalid,
                format!(
                    "network {name} is peered with network {peer}, whose `encryption` is {}, and both \
                     have the same: end the peering first",
                    self.networks[peer].encryption
                ),
            ));
        }
        if encryption != NetworkEncryption::Required {
            return Ok(());
        }
        let mut endpoints = self.endpoints.iter();
        let elsewhere =
            endpoints.find(|(_, record)| record.network == *name && self.is_foreign(&record.node));
        match elsewhere {
            Some((endpoint, record)) => Err(Refusal::new(
                ProblemCode::NotEncryptable,
                format!(
                    "endpoint {endpoint} of network {name} is at node {}, which runs no agent that could \
                     encrypt: delete the endpoint first",
                    record.node
                ),
            )),
            None => Ok(()),
        }
    }

    fn check_outbound(
        &self,
        name: &Name,
        outbound: &NetworkOutbound,
        subnets: &[Cidr],
    ) -> Result<(), Refusal> {
        if outbound.is_none() {
            return Ok(());
        }
        let invalid = |detail: String| Err(Refusal::new(ProblemCode::OutboundInvalid, detail));
        if subnets.is_empty() {
            return invalid(format!(
                "network {name} has no subnet, and without addresses nothing leaves the cloud: \
                 create it with one, or with `outbound` none"
            ));
        }
        let NetworkOutbound::Node(node) = outbound else {
            return Ok(());
        };
        if !self.nodes.contains_key(node) {
            return Err(Refusal::new(
                ProblemCode::UnknownNode,
                format!(
                    "there is no node {node} where packets could leave: name one that GET \
                     /v1/nodes lists, or `local`, or `none`"
                ),
            ));
        }
        if self.is_foreign(node) {
            return invalid(format!(
                "node {node} has no agent that could let packets out: name a node that has one"
            ));
        }
        Ok(())
    }

    pub(super) fn delete_network(
        &mut self,
        name: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let network = self.network(name)?;
        let vni = network.vni;
        if let Some(peer) = network.peers.first() {
            return Err(Refusal::new(
                ProblemCode::NetworkInUse,
                format!("network {name} is peered with network {peer}: end that first"),
            ));
        }
        let mut endpoints = self.endpoints.iter();
        if let Some((endpoint, _)) = endpoints.find(|(_, record)| record.network == *name) {
            return Err(Refusal::new(
                ProblemCode::NetworkInUse,
                format!("endpoint {endpoint} is in network {name}: delete every endpoint first"),
            ));
        }
        if let Some(policy) = self.governor(name) {
            return Err(Refusal::new(
                ProblemCode::NetworkInUse,
                format!("policy {policy} governs network {name}: delete the policy first"),
            ));
        }
        self.networks.remove(name);
        effects.removed_networks.push(vni);
        Ok(())
    }

    pub(super) fn network(&self, name: &Name) -> Result<&NetworkRecord, Refusal> {
        self.networks.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::NetworkNotFound,
                format!("there is no network {name}: GET /v1/networks lists all"),
            )
        })
    }

    fn free_vni(&self, vni: Vni) -> Result<Vni, Refusal> {
        match self.network_of(vni) {
            None => Ok(vni),
            Some(other) => Err(Refusal::new(
                ProblemCode::VniTaken,
                format!("network {other} has VNI {vni}: take another, or leave `vni` out"),
            )),
        }
    }

    /// The next VNI that was not chosen before, so that a packet of a deleted network does not
    /// soon mean another one; from the beginning once all have been.
    fn next_vni(&self) -> Result<Vni, Refusal> {
        let used: BTreeSet<Vni> = self.networks.values().map(|network| network.vni).collect();
        let after = Vni::try_from(self.last_vni + 1).unwrap_or(Vni::MIN);
        std::iter::successors(Some(after), |vni| vni.next())
            .chain(std::iter::successors(Some(Vni::MIN), |vni| vni.next()))
            .find(|vni| !used.contains(vni))
            .ok_or_else(|| {
                Refusal::new(
                    ProblemCode::VnisExhausted,
                    "every VNI is taken: delete a network first",
                )
            })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_endpoint_has_the_mac_address_that_stands_for_a_node() {
        let prefix = sunwire_dataplane_common::outbound::MAC_PREFIX;
        assert_eq!(super::EGRESS_MAC_PREFIX, prefix);
    }
}
