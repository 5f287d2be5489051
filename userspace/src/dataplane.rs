//! This node's data plane: makes the kernel be what the controller wants.
//!
//! [`Dataplane::apply`] takes the whole desired state and what the kernel has of devices and
//! neighbours, writes what differs and deletes what is gone. It is called after every change of
//! either, so there is one path for the first start, a restart, a delta and a device that moves.
//!
//! Order matters to packets in flight: what others point to is written before the pointers, and
//! deleted after them.

mod copies;
mod listening;
mod locations;
mod outbound;
mod tunnels;
mod wires;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use sunwire_api::NetworkEncryption;
use sunwire_dataplane_common::{
    address::{Address, Mac},
    entries::{
        AddressKey, Control, EndpointEntry, LocationEntry, NetworkEntry, location,
        network as network_flags,
    },
    vxlan,
};

mod peers;

use crate::{
    audit::{self, StagedTotals},
    counters::{Totals, label_text},
    crypt::kernel,
    flow_map::{FlowMap, InstallError},
    groups::{relays::Relays, sets::SetsError},
    maps::{Capacity, Maps},
    netlink::{Device, DeviceKind, Route},
    programs::{Hook, Programs, ProgramsError},
    routes,
    services::Punts,
    shadow::ShadowError,
    state::{Desired, Endpoint},
    telemetry::{
        EventMaps,
        step::{self, Arrival, Step, StepError},
    },
};

use locations::{has_checksum, location_entry, owner_keys, port_of};
pub use outbound::WayOut;
pub use tunnels::Traffic;

/// What the kernel has, beside our own maps.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Devices by name.
    pub devices: BTreeMap<String, Device>,
    /// Routes to the underlay addresses of other nodes.
    pub routes: BTreeMap<IpAddr, Route>,
    /// Resolved next hops.
    pub neighbours: BTreeMap<(u32, IpAddr), Mac>,
    /// This node's IPv6 address on the underlay.
    pub vtep_v6: Option<Ipv6Addr>,
    /// ifindex of the device behind which packets are encrypted, when it is ready.
    pub tunnel: Option<u32>,
    /// How packets are sent by the kernel's WireGuard, where that is what encrypts, by number of
    /// the node.
    pub ways: BTreeMap<u32, kernel::Way>,
    /// UDP ports beside the usual one that are ours to receive tunnels on.
    pub ports: BTreeSet<u16>,
    /// ifindex of the device behind which packets get their outer UDP checksum, when it is ready.
    pub checksum: Option<u32>,
    /// Nodes that are at work: only these are asked to send on what is for several.
    pub at_work: BTreeSet<u32>,
    /// How packets leave the cloud here, if they can.
    pub outbound: Option<WayOut>,
}

/// What became of an endpoint on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The device is here and its packets pass the programs; it may still have to be set up.
    Attached {
        /// ifindex of the device.
        ifindex: u32,
    },
    /// The device is not here.
    Absent,
    /// The device is here and cannot be used.
    Failed(String),
}

/// The data plane could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A policy could not be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A packet for several endpoints could not be sent to them.
    #[error(transparent)]
    Sets(#[from] SetsError),
    /// A map could not be written.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A program could not be loaded or attached.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A packet could not be traced.
    #[error(transparent)]
    Trace(#[from] StepError),
    /// An endpoint's device is none that frames can be sent to.
    #[error("device {device} carries no Ethernet frames; a TAP does, a TUN device does not")]
    NoEthernet {
        /// Name of the device.
        device: String,
    },
    /// An endpoint's network was not sent.
    #[error("network {vni} of the endpoint is not known")]
    NoNetwork {
        /// VNI of the network.
        vni: u32,
    },
}

/// The data plane of one node.
pub struct Dataplane {
    programs: Programs,
    maps: Maps,
    flow: FlowMap,
    /// Device index of each endpoint that this agent attached or took over.
    attached: BTreeMap<u32, u32>,
}

impl Dataplane {
    /// Loads the programs, or takes over what an earlier agent left pinned in `directory`.
    ///
    /// # Errors
    /// When the kernel refuses, or the pinned maps have another layout.
    pub fn load(directory: &Path, capacity: Capacity) -> Result<Self, DataplaneError> {
        Self::load_at(directory, capacity, None)
    }

    /// Like [`Dataplane::load`], with the programs attached at `hook` where one is given.
    ///
    /// # Errors
    /// As [`Dataplane::load`].
    pub fn load_at(
        directory: &Path,
        capacity: Capacity,
        hook: Option<Hook>,
    ) -> Result<Self, DataplaneError> {
        let (programs, maps) = Programs::load(directory, capacity, hook)?;
        let flow = FlowMap::open(&maps);
        Ok(Dataplane {
            programs,
            maps,
            flow,
            attached: BTreeMap::new(),
        })
    }

    /// Loads the programs, too, that are else loaded when something needs them for the first time.
    ///
    /// # Errors
    /// When the kernel refuses one.
    pub fn load_rest(&mut self) -> Result<(), DataplaneError> {
        Ok(self.programs.load_rest()?)
    }

    /// Runs the underlay program on a device.
    ///
    /// # Errors
    /// When the device cannot be attached to.
    pub fn attach_underlay(&mut self, device: &str) -> Result<(), DataplaneError> {
        Ok(self.programs.attach_underlay(device)?)
    }

    /// Runs the underlay program on the device behind which packets are encrypted.
    ///
    /// # Errors
    /// When the device cannot be attached to.
    pub fn attach_tunnel(&mut self, device: &str) -> Result<(), DataplaneError> {
        Ok(self.programs.attach_tunnel(device)?)
    }

    /// Runs the program for packets of nodes without an agent on the device that holds a port and takes
    /// them out of their tunnel.
    ///
    /// # Errors
    /// When the device cannot be attached to.
    pub fn attach_foreign(&mut self, port: u16, device: &str) -> Result<(), DataplaneError> {
        Ok(self.programs.attach_foreign(port, device)?)
    }

    /// Takes that program off the device that holds a port. The device may be gone already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn detach_foreign(&mut self, port: u16) -> Result<(), DataplaneError> {
        Ok(self.programs.detach_foreign(port)?)
    }

    /// Ports on whose devices it is, perhaps since an earlier agent.
    #[must_use]
    pub fn foreign_ports(&self) -> Vec<u16> {
        self.programs.foreign_ports()
    }

    /// Runs the program for packets without an Ethernet header on a device of the kernel's WireGuard.
    ///
    /// # Errors
    /// When the device cannot be attached to.
    pub fn attach_kernel_tunnel(&mut self, slot: usize) -> Result<(), DataplaneError> {
        let device = kernel::DEVICES[slot];
        Ok(self.programs.attach_kernel_tunnel(device)?)
    }

    /// Takes it off again. The device may be gone already.
    ///
    /// # Errors
    /// When what is pinned cannot be removed.
    pub fn detach_kernel_tunnel(&mut self, slot: usize) -> Result<(), DataplaneError> {
        let device = kernel::DEVICES[slot];
        Ok(self.programs.detach_kernel_tunnel(device)?)
    }

    /// Runs the program that writes outer UDP checksums on the device where packets come out of
    /// [`Surroundings::checksum`].
    ///
    /// # Errors
    /// When the device cannot be attached to.
    pub fn attach_checksum(&mut self, device: &str) -> Result<(), DataplaneError> {
        Ok(self.programs.attach_checksum(device)?)
    }

    /// Takes it off again. The device may be gone already.
    ///
    /// # Errors
    /// When what is pinned cannot be removed.
    pub fn detach_checksum(&mut self) -> Result<(), DataplaneError> {
        Ok(self.programs.detach_checksum()?)
    }

    /// Makes the kernel be what `desired` says for node `own`, given what is around it. Returns
    /// what became of each endpoint that is, or is expected, here.
    ///
    /// # Errors
    /// When a map is full or cannot be written; the policy in force is then still whole.
    pub fn apply(
        &mut self,
        desired: &Desired,
        own: u32,
        vtep: Ipv4Addr,
        around: &Surroundings,
    ) -> Result<BTreeMap<u32, Attachment>, DataplaneError> {
        let control = self.maps.control.get(0);
        self.maps.control.set(
            0,
            Control {
                node: own,
                vtep: Address::v4(vtep.octets()),
                vtep_v6: around
                    .vtep_v6
                    .map_or(Address::ZERO, |address| Address::v6(address.octets())),
                // The kernel's WireGuard has a program of its own; traces ask the other one.
                tunnel: around
                    .tunnel
                    .unwrap_or_else(|| around.ways.values().next().map_or(0, |way| way.ifindex)),
                ports: other_ports(&around.ports),
                checksum: around.checksum.unwrap_or(0),
                ..control
            },
        )?;
        self.write_peers(desired, own, vtep, around)?;
        for (vni, network) in &desired.networks {
            let port = port_of(network);
            let mut flags = 0;
            flags |= match network.encryption {
                NetworkEncryption::Default => 0,
                NetworkEncryption::Required => network_flags::ENCRYPTED,
                NetworkEncryption::Never => network_flags::PLAIN,
            };
            if port != vxlan::PORT {
                flags |= network_flags::OTHER_PORT;
            }
            if has_checksum(network) {
                flags |= network_flags::CHECKSUM;
            }
            let entry = NetworkEntry {
                gateway_v4: network.gateway_v4,
                gateway_v6: network.gateway_v6,
                gateway_mac: network.gateway_mac,
                mtu: network.mtu,
                translates: u32::from(
                    desired
                        .programs
                        .get(vni)
                        .is_some_and(|program| program.translates),
                ),
                outbound: network.outbound,
                flags,
                port: port.to_be(),
            };
            self.maps.networks.set(*vni, entry)?;
        }
        self.detach_gone(desired, own, around)?;
        self.write_wires(desired, own)?;
        self.write_locations(desired, own)?;
        routes::write(&mut self.maps, desired)?;
        let own_addresses = (vtep, around.vtep_v6);
        outbound::write(&mut self.maps, desired, own_addresses, around.outbound)?;
        // A policy that cannot be installed must not keep devices from being attached: the error
        // is kept until the rest is done.
        let relays = Relays::new(desired, own, &around.at_work);
        let sets = self.flow.sets.write(&mut self.maps, desired, own, &relays);
        let installed = match sets {
            Ok(()) => self
                .flow
                .install(&mut self.maps, desired)
                .map_err(DataplaneError::from),
            Err(error) => Err(error.into()),
        };
        self.write_foreign(desired)?;
        let attachments = self.attach(desired, own, around)?;
        self.remove_gone(desired)?;
        installed?;
        self.flow.sets.forget(&mut self.maps, desired)?;
        Ok(attachments)
    }

    /// Takes an endpoint off this node before its device moves away: from here on its packets
    /// are forwarded to where it goes. Returns whether it was attached.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(&mut self, number: u32) -> Result<bool, DataplaneError> {
        let Some(ifindex) = self.attached.remove(&number) else {
            return Ok(false);
        };
        let location = self.maps.locations.get(number);
        self.maps.locations.set(
            number,
            LocationEntry {
                ifindex: 0,
                ..location
            },
        )?;
        self.programs.detach_endpoint(number)?;
        self.maps.endpoints.set(ifindex, EndpointEntry::default())?;
        Ok(true)
    }

    /// Totals of all counters.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn totals(&self) -> Result<Totals, aya::maps::MapError> {
        Totals::read(&self.maps)
    }

    /// What is counted of staged policies; those that could not be staged say why.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn audit(&self) -> Result<Vec<StagedTotals>, aya::maps::MapError> {
        let mut totals = audit::read(&self.maps, &self.flow.staged())?;
        for (vni, (revision, why)) in self.flow.refused() {
            totals.push(StagedTotals {
                refused: Some(why.clone()),
                ..StagedTotals::empty(*vni, *revision)
            });
        }
        Ok(totals)
    }

    /// The rings of events, to be read; `None` when somebody reads them already.
    pub fn take_events(&mut self) -> Option<EventMaps> {
        self.maps.events.take()
    }

    /// Labels by the slot of their counter, with the VNI of their network.
    #[must_use]
    pub fn label_slots(&self) -> HashMap<u32, (u32, String)> {
        let labels = self.maps.labels.content().iter();
        labels
            .map(|(key, slot)| (*slot, (key.network(), label_text(key))))
            .collect()
    }

    /// What the programs hand over, for one listener; `None` when it was taken before.
    #[must_use]
    pub fn take_punts(&mut self) -> Option<Punts> {
        self.maps.punts.take().map(Punts::new)
    }

    /// Where programs are attached.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.programs.hook()
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.maps.control.get(0).generation
    }

    /// Entries in use, by map, for those that a policy fills.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            nodes: self.maps.nodes.content().len(),
            edges: self.maps.edges.content().len(),
            verdicts: self.maps.verdicts.content().len(),
            classes: self.maps.classes_v4.content().len() + self.maps.classes_v6.content().len(),
            staged_roots: self.maps.staged_roots.content().len(),
            staged_classes: self.maps.staged_v4.content().len()
                + self.maps.staged_v6.content().len(),
        }
    }

    /// The program on host-side devices, to be run on test packets.
    ///
    /// # Errors
    /// When it is not loaded.
    pub fn endpoint_program(
        &mut self,
    ) -> Result<&mut aya::programs::SchedClassifier, DataplaneError> {
        Ok(self.programs.endpoint_program()?)
    }

    /// The program on the underlay device, to be run on test packets.
    ///
    /// # Errors
    /// When it is not loaded.
    pub fn underlay_program(
        &mut self,
    ) -> Result<&mut aya::programs::SchedClassifier, DataplaneError> {
        Ok(self.programs.underlay_program()?)
    }

    /// The program that writes outer checksums, to be run on test packets.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn checksum_program(
        &mut self,
    ) -> Result<&mut aya::programs::SchedClassifier, DataplaneError> {
        Ok(self.programs.checksum_program()?)
    }

    /// What this node's programs would do with a packet: one step for each copy of it.
    ///
    /// # Errors
    /// When the programs are not loaded, or the kernel does not run them on such a packet.
    pub fn trace(&mut self, arrival: &Arrival<'_>) -> Result<Vec<Step>, DataplaneError> {
        let program = self.programs.trace_program(arrival.underlay)?;
        Ok(step::steps(program, arrival)?)
    }

    /// Attaches what is here and should be.
    fn attach(
        &mut self,
        desired: &Desired,
        own: u32,
        around: &Surroundings,
    ) -> Result<BTreeMap<u32, Attachment>, DataplaneError> {
        let mut attachments = BTreeMap::new();
        for (number, endpoint) in desired.endpoints.iter().filter(|(_, e)| expected(e, own)) {
            let attachment = match around.devices.get(&endpoint.device) {
                None => Attachment::Absent,
                Some(device) => match self.attach_one(desired, own, *number, endpoint, device) {
                    Ok(()) => Attachment::Attached {
                        ifindex: device.ifindex,
                    },
                    Err(error) => Attachment::Failed(chain(&error)),
                },
            };
            attachments.insert(*number, attachment);
        }
        Ok(attachments)
    }

    fn attach_one(
        &mut self,
        desired: &Desired,
        own: u32,
        number: u32,
        endpoint: &Endpoint,
        device: &Device,
    ) -> Result<(), DataplaneError> {
        let network = desired
            .networks
            .get(&endpoint.vni)
            .ok_or(DataplaneError::NoNetwork { vni: endpoint.vni })?;
        let flags = match device.kind {
            DeviceKind::Pair => 0,
            DeviceKind::Tap => location::TAP,
            DeviceKind::NoEthernet => {
                return Err(DataplaneError::NoEthernet {
                    device: endpoint.device.clone(),
                });
            }
        };
        let mut entry = EndpointEntry {
            network: endpoint.vni,
            number,
            ipv4: endpoint.ipv4,
            ipv6: endpoint.ipv6,
            mac: endpoint.mac,
            mtu: network.mtu,
            node: own,
            wire: desired.wires.of(number).unwrap_or(0),
            flags: network.endpoint_flags(),
            ..self.maps.endpoints.get(device.ifindex)
        };
        self.flow.classify(&mut self.maps, &mut entry)?;
        self.maps.endpoints.set(device.ifindex, entry)?;
        if self.attached.get(&number) != Some(&device.ifindex) {
            self.programs.attach_endpoint(&endpoint.device, number)?;
            self.attached.insert(number, device.ifindex);
        }
        self.maps.locations.set(
            number,
            location_entry(desired, own, number, endpoint, device.ifindex, flags),
        )?;
        Ok(())
    }

    /// Lets go of endpoints whose device is gone or that live elsewhere now.
    fn detach_gone(
        &mut self,
        desired: &Desired,
        own: u32,
        around: &Surroundings,
    ) -> Result<(), DataplaneError> {
        let held: Vec<u32> = self
            .attached
            .keys()
            .copied()
            .chain(self.programs.attached())
            .collect();
        for number in held {
            let device = desired
                .endpoints
                .get(&number)
                .filter(|endpoint| expected(endpoint, own))
                .and_then(|endpoint| around.devices.get(&endpoint.device));
            let is_here = match (device, self.attached.get(&number)) {
                (Some(device), Some(ifindex)) => device.ifindex == *ifindex,
                // Our maps are of another layout than those of the agent that attached it: they know
                // of nothing yet. Its program goes on until ours is put in its place.
                (Some(_), None) if self.maps.control.get(0).generation == 0 => true,
                (Some(device), None) => device.ifindex == self.maps.locations.get(number).ifindex,
                (None, _) => false,
            };
            if is_here {
                continue;
            }
            let location = self.maps.locations.get(number);
            let ifindex = self.attached.remove(&number).unwrap_or(location.ifindex);
            self.maps.locations.set(
                number,
                LocationEntry {
                    ifindex: 0,
                    ..location
                },
            )?;
            self.programs.detach_endpoint(number)?;
            if self.maps.endpoints.get(ifindex).number == number {
                self.maps.endpoints.set(ifindex, EndpointEntry::default())?;
            }
        }
        // Entries of devices that vanished while no agent ran.
        let attached = &self.attached;
        let locations = &self.maps.locations;
        let stale: Vec<u32> = self
            .maps
            .endpoints
            .content()
            .iter()
            .filter(|(ifindex, entry)| {
                attached.get(&entry.number) != Some(ifindex)
                    && locations.get(entry.number).ifindex != **ifindex
            })
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in stale {
            self.maps.endpoints.set(ifindex, EndpointEntry::default())?;
        }
        Ok(())
    }

    fn remove_gone(&mut self, desired: &Desired) -> Result<(), ShadowError> {
        let owners: std::collections::BTreeSet<AddressKey> =
            desired.endpoints.values().flat_map(owner_keys).collect();
        self.maps.owners.retain(|key| owners.contains(key))?;
        self.maps.foreign_endpoints.retain(|number| {
            let endpoint = desired.endpoints.get(number);
            endpoint.is_some_and(|endpoint| peers::is_foreign(desired, endpoint))
        })?;
        self.maps
            .locations
            .retain(|number| desired.endpoints.contains_key(&number))?;
        self.maps
            .networks
            .retain(|vni| desired.networks.contains_key(vni))?;
        let addresses: std::collections::BTreeSet<Address> =
            desired.nodes.values().flat_map(peers::believed).collect();
        self.maps
            .peer_addresses
            .retain(|address| addresses.contains(address))?;
        self.maps
            .peers_v6
            .retain(|number| desired.nodes.contains_key(&number))?;
        self.maps
            .encrypted_peers
            .retain(|number| desired.nodes.contains_key(&number))?;
        self.maps
            .plain_peers
            .retain(|number| desired.nodes.contains_key(&number))?;
        self.maps
            .peers
            .retain(|number| desired.nodes.contains_key(&number))
    }
}

/// How much of the tables is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Nodes and leaves.
    pub nodes: usize,
    /// Exact edges.
    pub edges: usize,
    /// Verdicts.
    pub verdicts: usize,
    /// Prefixes with a class.
    pub classes: usize,
    /// Networks with a staged policy.
    pub staged_roots: usize,
    /// Prefixes with a class of a staged policy.
    pub staged_classes: usize,
}

/// Whether an endpoint's device belongs on this node: it lives here, or it is moving here.
pub(crate) fn expected(endpoint: &Endpoint, own: u32) -> bool {
    endpoint.node == own || (endpoint.moving && endpoint.other == own)
}

/// As the kernel's programs look for them.
fn other_ports(ports: &BTreeSet<u16>) -> [u16; vxlan::OTHER_PORTS] {
    let mut found = [0; vxlan::OTHER_PORTS];
    for (slot, port) in found.iter_mut().zip(ports) {
        *slot = port.to_be();
    }
    found
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
