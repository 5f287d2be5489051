//! Endpoints, wherever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sunwire_api::{
    DeviceName, EndpointCreate, Labels, MacAddress, Name, NetworkEncryption, ProblemCode,
};

use super::networks::{EGRESS_MAC_PREFIX, GATEWAY_MAC};
use super::nodes::next_number;
use super::policies::Change;
use super::{State, addresses};
use crate::command::Condition;
use crate::effects::Effects;
use crate::examine::Examiner;
use crate::refusal::Refusal;

/// How many labels an endpoint can have.
const LABELS_MAX: usize = 64;
/// Longest key and longest value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;
/// First bytes of the MAC addresses that are derived from a number: locally administered.
const MAC_PREFIX: [u8; 2] = [0x02, 0x73];

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Dense, from 1, never reused.
    pub number: u32,
    /// Its network.
    pub network: Name,
    /// Host-side device.
    pub device: DeviceName,
    /// At most one of each family.
    pub addresses: Vec<IpAddr>,
    /// MAC address.
    pub mac: MacAddress,
    /// Labels.
    pub labels: Labels,
    /// The node where it is.
    pub node: Name,
    /// How its device was last seen on that node.
    pub condition: Condition,
    /// What an agent last said of it.
    pub detail: String,
    /// The node that it moves to, while it moves.
    pub moving_to: Option<Name>,
    /// The node that it last came from, while that exists.
    pub previous: Option<Name>,
    /// Rises with every completed move.
    pub epoch: u32,
    /// Revision of its last change.
    pub revision: u64,
}

impl State {
    pub(super) fn create_endpoint(
        &mut self,
        create: &EndpointCreate,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let name = &create.name;
        if self.endpoints.contains_key(name) {
            return Err(Refusal::new(
                ProblemCode::NameTaken,
                format!("there is an endpoint {name}: take another name"),
            ));
        }
        let network = self.networks.get(&create.network).ok_or_else(|| {
            Refusal::new(
                ProblemCode::UnknownNetwork,
                format!(
                    "there is no network {}: name one that GET /v1/networks lists",
                    create.network
                ),
            )
        })?;
        self.known_node(&create.node)?;
        let is_foreign = self.is_foreign(&create.node);
        if is_foreign && create.device.is_some() {
            return Err(Refusal::new(
                ProblemCode::NodeWithoutAgent,
                format!(
                    "node {} runs no agent that could use a device: leave `device` out",
                    create.node
                ),
            ));
        }
        if is_foreign && network.encryption == NetworkEncryption::Required {
            return Err(Refusal::new(
                ProblemCode::NotEncryptable,
                format!(
                    "packets of network {} are encrypted on their way to any other node, and node \
                     {} runs no agent that could: put the endpoint into another network",
                    create.network, create.node
                ),
            ));
        }
        check_labels(&create.labels)?;
        let number = next_number(self.last_endpoint_number, "endpoint")?;
        let device = match &create.device {
            Some(device) => device.clone(),
            None => default_device(name),
        };
        self.free_device(&device, &create.node)?;
        let siblings = || {
            let all = self.endpoints.values();
            all.filter(|other| other.network == create.network)
        };
        let taken: BTreeSet<IpAddr> = siblings()
            .flat_map(|sibling| sibling.addresses.iter().copied())
            .collect();
        let addresses = match &create.addresses {
            Some(chosen) => {
                addresses::check(chosen, &create.network, &network.subnets, &taken)?;
                chosen.clone()
            }
            None => addresses::allocate(&create.network, &network.subnets, &taken)?,
        };
        let taken: BTreeSet<MacAddress> = siblings().map(|sibling| sibling.mac).collect();
        let mac = match create.mac {
            Some(mac) => check_mac(mac, &taken)?,
            None => derive_mac(number, &taken),
        };
        let record = EndpointRecord {
            number,
            network: create.network.clone(),
            device,
            addresses,
            mac,
            labels: create.labels.clone(),
            node: create.node.clone(),
            // Nobody will say that it is there.
            condition: match is_foreign {
                true => Condition::Attached,
                false => Condition::Absent,
            },
            detail: match is_foreign {
                true => format!("behind node {}, which runs no agent", create.node),
                false => String::new(),
            },
            moving_to: None,
            previous: None,
            epoch: 1,
            revision: effects.revision,
        };
        let policies = self.reexamined(Change::Endpoint(name, Some(&record)), force, examiner)?;

        self.endpoints.insert(name.clone(), record);
        self.last_endpoint_number = number;
        effects.created = true;
        effects.endpoints.insert(name.clone());
        self.settle(policies, effects);
        Ok(())
    }

    pub(super) fn update_endpoint(
        &mut self,
        name: &Name,
        labels: &BTreeMap<String, Option<String>>,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let mut record = self.endpoint(name)?.clone();
        for (key, value) in labels {
            match value {
                Some(value) => record.labels.insert(key.clone(), value.clone()),
                None => record.labels.remove(key),
            };
        }
        check_labels(&record.labels)?;
        record.revision = effects.revision;
        let policies = self.reexamined(Change::Endpoint(name, Some(&record)), force, examiner)?;

        // Agents see no labels: what they need of them is in the programs.
        self.endpoints.insert(name.clone(), record);
        self.settle(policies, effects);
        Ok(())
    }

    pub(super) fn delete_endpoint(
        &mut self,
        name: &Name,
        force: bool,
        examiner: &mut Examiner<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let number = self.endpoint(name)?.number;
        if let Some(wire) = self.wire_of(name) {
            return Err(Refusal::new(
                ProblemCode::EndpointWired,
                format!("endpoint {name} is an end of wire {wire}: disconnect the wire first"),
            ));
        }
        let policies = self.reexamined(Change::Endpoint(name, None), force, examiner)?;

        self.endpoints.remove(name);
        effects.removed_endpoints.push(number);
        self.settle(policies, effects);
        Ok(())
    }

    pub(super) fn endpoint(&self, name: &Name) -> Result<&EndpointRecord, Refusal> {
        self.endpoints.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::EndpointNotFound,
                format!("there is no endpoint {name}: GET /v1/endpoints lists all"),
            )
        })
    }

    /// Refuses a device that an endpoint on the node, or on its way there, has.
    pub(super) fn free_device(&self, device: &DeviceName, node: &Name) -> Result<(), Refusal> {
        let mut endpoints = self.endpoints.iter();
        let user = endpoints.find(|(_, record)| {
            let there = record.node == *node || record.moving_to.as_ref() == Some(node);
            there && record.device == *device
        });
        match user {
            None => Ok(()),
            Some((other, _)) => Err(Refusal::new(
                ProblemCode::DeviceTaken,
                format!("endpoint {other} has the device {device} on node {node}"),
            )),
        }
    }
}

/// `sw-` and the name where Linux's 15 bytes allow, else `sw-` and a digest of the name.
fn default_device(name: &Name) -> DeviceName {
    let plain = format!("sw-{name}");
    plain.parse().unwrap_or_else(|_| {
        let digest = blake3::hash(name.as_str().as_bytes()).to_hex();
        format!("sw-{}", &digest[..12])
            .parse()
            .expect("15 bytes of letters, digits and a hyphen name a device")
    })
}

fn check_mac(mac: MacAddress, taken: &BTreeSet<MacAddress>) -> Result<MacAddress, Refusal> {
    if !mac.is_unicast() || mac == GATEWAY_MAC || mac.0.starts_with(&EGRESS_MAC_PREFIX) {
        return Err(Refusal::new(
            ProblemCode::MacInvalid,
            format!(
                "{mac} is a group's address, zero, the gateway's or a node's: take another one"
            ),
        ));
    }
    if taken.contains(&mac) {
        return Err(Refusal::new(
            ProblemCode::MacTaken,
            format!("an endpoint of the network has {mac}: take another one, or leave `mac` out"),
        ));
    }
    Ok(mac)
}

/// The number behind a fixed prefix; other prefixes only where somebody chose that very address.
fn derive_mac(number: u32, taken: &BTreeSet<MacAddress>) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    let [first, second] = MAC_PREFIX;
    (0..=u8::MAX)
        .map(|step| MacAddress([first, second.wrapping_add(step), a, b, c, d]))
        .find(|mac| *mac != GATEWAY_MAC && !taken.contains(mac))
        .unwrap_or(MacAddress([0x06, second, a, b, c, d]))
}

fn check_labels(labels: &Labels) -> Result<(), Refusal> {
    let invalid = |detail| Err(Refusal::new(ProblemCode::LabelInvalid, detail));
    if labels.len() > LABELS_MAX {
        return invalid(format!(
            "{} labels are too many: write at most {LABELS_MAX}",
            labels.len()
        ));
    }
    for (key, value) in labels {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let first = key
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !first || key.len() > LABEL_BYTES_MAX || !key.bytes().all(good) {
            return invalid(format!(
                "{key:?} is no label key: write at most {LABEL_BYTES_MAX} letters, digits, '-', \
                 '_', '.' and '/', beginning with a letter or digit"
            ));
        }
        if value.len() > LABEL_BYTES_MAX || value.chars().any(char::is_control) {
            return invalid(format!(
                "the value of label {key} is wrong: write at most {LABEL_BYTES_MAX} bytes without \
                 control characters"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_devices_fit_linux_and_keep_short_names() {
        let device = |name: &str| default_device(&name.parse().unwrap()).as_str().to_owned();
        assert_eq!(device("web1"), "sw-web1");
        assert_eq!(device("exactly-12-b"), "sw-exactly-12-b");
        let long = device("a-name-that-is-too-long");
        assert_eq!(long.len(), 15);
        assert_ne!(long, device("a-name-that-is-too-lonh"));
    }

    #[test]
    fn derived_macs_step_aside_for_chosen_ones() {
        let mac = derive_mac(1, &BTreeSet::new());
        assert_eq!(mac.to_string(), "02:73:00:00:00:01");
        let other = derive_mac(1, &BTreeSet::from([mac]));
        assert_eq!(other.to_string(), "02:74:00:00:00:01");
    }
}
