//! Tests of verbs, by verb, and the small cloud that they happen in.
//!
//! Endpoints 1 to 4 of the language's test network are here on `ep1` to `ep4`, the others at node 2.
//! Policies are written in the language and compiled; what the kernel does is compared with the
//! evaluator.

mod count;
mod limit;
mod log;
mod mirror;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use sunwire_dataplane_common::event::{Event, EventSettings, why};
use sunwire_policy::{
    environment::Environment,
    evaluate,
    packet::{Note, Packet},
    term::Resolved,
    testing::environment,
};
use sunwire_userspace::{maps::Capacity as Room, state::Desired, telemetry::EventMaps};

pub(crate) use crate::fixture::world::{CLIENT, DB, VNI, WEB};
use crate::fixture::{
    desired::node,
    node::{Fate, OWN, TestNode},
    wire::{Frame, Transport},
    world,
};

pub(crate) const WEB_2: u32 = 2;
/// Endpoints that are here; the others are at node 2.
const HERE: u32 = 4;

/// A node with a policy in force.
pub(crate) struct World {
    pub(crate) node: TestNode,
    environment: Environment,
    pub(crate) policy: Option<Resolved>,
    pub(crate) desired: Desired,
    pub(crate) events: EventMaps,
}

impl World {
    /// A node without a policy; `None` where it cannot be.
    pub(crate) fn new(test: &str, room: Room) -> Option<Self> {
        let mut node = TestNode::new(test, HERE as usize, room)?;
        node.resolve(vtep(2), [2, 0, 0, 0, 0xff, 2]);
        let mut events = node.dataplane().take_events().expect("nobody reads them");
        let settings = EventSettings {
            wanted: why::DROP | why::NEW | why::LOG,
            per_window: 100_000,
            frame_bytes: 192,
            ..EventSettings::default()
        };
        events.settings.set(settings).unwrap();
        let environment = environment();
        Some(World {
            node,
            desired: lawless(&environment),
            environment,
            policy: None,
            events,
        })
    }

    /// Puts a policy in force.
    pub(crate) fn apply(&mut self, policy: &str) {
        let policy = world::resolved(&self.environment, policy);
        world::put(&policy, &mut self.desired);
        self.node.apply(&self.desired).unwrap();
        self.policy = Some(policy);
    }

    fn address(&self, number: u32, is_v4: bool) -> IpAddr {
        let mut all = self.environment.endpoints.iter();
        let one = all.find(|one| one.number == number).unwrap();
        let mut addresses = one.addresses.iter();
        *addresses
            .find(|address| address.is_ipv4() == is_v4)
            .unwrap()
    }

    pub(crate) fn mac(&self, number: u32) -> [u8; 6] {
        let mut all = self.environment.endpoints.iter();
        all.find(|one| one.number == number).unwrap().mac
    }

    /// Lets an endpoint live at a node, from the next policy on.
    pub(crate) fn place(&mut self, number: u32, node: u32) {
        self.desired.endpoints.get_mut(&number).unwrap().node = node;
    }

    pub(crate) fn frame(&self, from: u32, to: u32, is_v4: bool, transport: Transport) -> Frame {
        Frame {
            eth_src: self.mac(from),
            eth_dst: self.mac(to),
            src: self.address(from, is_v4),
            dst: self.address(to, is_v4),
            dscp: 0,
            transport,
            payload: 20,
        }
    }

    /// What the evaluator notes of a packet that enters at `from`: names that it is counted under,
    /// and what is logged.
    pub(crate) fn noted(&self, from: u32, frame: &Frame) -> (BTreeSet<String>, Option<String>) {
        let policy = self.policy.as_ref().unwrap();
        let packet = packet(from, frame);
        let (mut counts, mut log) = (BTreeSet::new(), None);
        for note in evaluate(policy, &packet).unwrap().notes {
            match note {
                Note::Count(name) => {
                    counts.insert(name.to_string());
                }
                Note::Log(text) => log = log.or(Some(text.to_string())),
            }
        }
        (counts, log)
    }

    /// What the evaluator decides of a packet for which there is a token, or is none: where its copies
    /// go and the label.
    pub(crate) fn decided(&self, from: u32, frame: &Frame, token: u8) -> (usize, String) {
        let policy = self.policy.as_ref().unwrap();
        let packet = Packet {
            token,
            ..packet(from, frame)
        };
        let outcome = evaluate(policy, &packet).unwrap();
        let label = policy.label(outcome.label(), outcome.copies.is_empty());
        (outcome.copies.len(), label)
    }

    /// Sends a packet into the device of an endpoint.
    pub(crate) fn send(&mut self, from: u32, frame: &Frame) -> Fate {
        self.node.send(&format!("ep{from}"), &frame.bytes())
    }

    /// What was told since the last look.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        let mut told = Vec::new();
        self.events.events.drain(|event, _| told.push(event));
        told
    }

    /// A text by the slot that an event names.
    pub(crate) fn text(&mut self, slot: u32) -> Option<String> {
        let slots = self.node.dataplane().label_slots();
        let (vni, text) = slots.get(&slot.checked_sub(1)?)?;
        assert_eq!(*vni, VNI);
        Some(text.clone())
    }
}

/// Counts of one packet under each of these names.
pub(crate) fn once(names: BTreeSet<String>) -> BTreeMap<(u32, String), u64> {
    names.into_iter().map(|name| ((VNI, name), 1)).collect()
}

/// A frame as the language sees it.
pub(crate) fn packet(from: u32, frame: &Frame) -> Packet {
    let (protocol, ports) = match frame.transport {
        Transport::Tcp(src, dst) => (6, (src, dst)),
        Transport::Udp(src, dst) | Transport::UdpUnsummed(src, dst) => (17, (src, dst)),
        Transport::Icmp(..) if frame.src.is_ipv4() => (1, (0, 0)),
        Transport::Icmp(..) => (58, (0, 0)),
        Transport::Other(protocol) => (protocol, (0, 0)),
    };
    let icmp = match frame.transport {
        Transport::Icmp(kind, code) => (kind, code),
        _ => (0, 0),
    };
    let mac = |mac: [u8; 6]| mac.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
    Packet {
        src: frame.src.into(),
        dst: frame.dst.into(),
        port: from,
        node: OWN,
        eth_type: if frame.src.is_ipv4() { 0x0800 } else { 0x86dd },
        protocol,
        dscp: frame.dscp,
        src_port: ports.0,
        dst_port: ports.1,
        icmp_type: icmp.0,
        icmp_code: icmp.1,
        eth_src: mac(frame.eth_src),
        eth_dst: mac(frame.eth_dst),
        ..Packet::default()
    }
}

fn vtep(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number as u8)
}

fn lawless(environment: &Environment) -> Desired {
    let node_of = |number| if number <= HERE { OWN } else { 2 };
    let mut desired = world::lawless(environment, node_of);
    for number in 1..=2 {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
    }
    desired
}
