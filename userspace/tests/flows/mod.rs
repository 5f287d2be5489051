//! Tests of flow entries, by what they are about, and the small cloud that they happen in.
//!
//! Endpoints 1 to 3 are here on `ep1` to `ep3`, endpoint 4 is at node 2, all on one network.

mod cache;
mod lives;
mod moves;
mod room;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    expiry::FlowRecord,
    flow_key::Field,
    tables::{Copied, OUT_OWNER},
};
use sunwire_userspace::{
    connections::Connections,
    dataplane::Attachment,
    maps::Capacity,
    state::{Desired, Digest},
    telemetry::names::Names,
};

use crate::{
    fixture::{
        desired::{Policy, endpoint, network, node},
        devices::UNDERLAY,
        node::{OWN, Ran, TestNode},
        test_run::Action,
        wire::{Frame, Transport},
    },
    packets::world::{Who, from_node, node_mac, vtep},
};

pub(crate) const VNI: u32 = 100;
/// How long anything may take that should happen at once, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const A: Who = Who(1);
pub(crate) const B: Who = Who(2);
pub(crate) const C: Who = Who(3);
/// At node 2.
pub(crate) const AWAY: Who = Who(4);

pub(crate) fn device(who: Who) -> &'static str {
    ["ep1", "ep2", "ep3"][who.0 as usize - 1]
}

/// A node, the state that is applied to it, and what the agent knows of its connections.
pub(crate) struct World {
    pub(crate) node: TestNode,
    pub(crate) desired: Desired,
    pub(crate) connections: Arc<Connections>,
}

impl World {
    /// A node without a policy; `None` where it cannot be.
    pub(crate) fn new(test: &str, capacity: Capacity) -> Option<Self> {
        let mut node = TestNode::new(test, 3, capacity)?;
        node.resolve(vtep(2), node_mac(2));
        let connections = Connections::load(node.pins(), capacity).expect("the maps are pinned");
        let desired = lawless();
        Some(World {
            node,
            desired,
            connections,
        })
    }

    /// Puts a policy in force.
    pub(crate) fn put(&mut self, policy: impl FnOnce(&mut Policy) -> Digest, scope: &str) {
        let mut made = Policy::new(VNI, scope);
        let root = policy(&mut made);
        made.install(root, &mut self.desired);
        self.apply();
    }

    /// Applies the desired state.
    pub(crate) fn apply(&mut self) -> BTreeMap<u32, Attachment> {
        let attachments = self.node.apply(&self.desired).expect("it fits");
        let labels = self.node.dataplane().label_slots();
        let names = Arc::new(Names::new("node1", &self.desired, labels));
        let generation = self.node.dataplane().generation();
        self.connections
            .publish(&self.desired, OWN, &attachments, names, generation);
        attachments
    }

    /// A packet of an endpoint here, or of the one at node 2.
    pub(crate) fn send(&mut self, from: Who, frame: &[u8]) -> Ran {
        if from == AWAY {
            let frame = from_node(2, VNI).wrap(frame);
            self.node.test_run(UNDERLAY, &frame)
        } else {
            self.node.test_run(device(from), frame)
        }
    }

    /// Sends, and requires that it goes on, decided by `label`.
    pub(crate) fn passes(&mut self, from: Who, frame: &[u8], label: &str) {
        let ran = self.send(from, frame);
        assert_eq!(ran.action, Action::Redirect, "{label}: {:?}", ran.fate);
        assert_eq!(ran.fate.drops, BTreeMap::new(), "{label}");
        let expected = BTreeMap::from([((VNI, label.to_owned()), 1)]);
        assert_eq!(ran.fate.labels, expected);
    }

    /// Lets a packet of node 2 in, where nothing is decided.
    pub(crate) fn arrives(&mut self, frame: &[u8]) {
        let ran = self.send(AWAY, frame);
        assert_eq!(ran.action, Action::Redirect, "{:?}", ran.fate);
    }

    /// Sends, and requires that it is dropped.
    pub(crate) fn drops(&mut self, from: Who, frame: &[u8], reason: DropReason) {
        let ran = self.send(from, frame);
        assert_eq!(ran.action, Action::Shot, "{reason:?}: {:?}", ran.fate);
        assert_eq!(ran.fate.drops, BTreeMap::from([(reason, 1)]));
    }

    /// What is remembered of an endpoint's flows, or of all.
    pub(crate) fn flows(&self, number: u32) -> Vec<FlowRecord> {
        self.connections.tables().select(number).unwrap()
    }
}

fn lawless() -> Desired {
    let mut desired = Desired::default();
    for number in 1..=3 {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
    }
    let gateway = Who(254);
    let shop = network("shop", 1300, gateway.v4(), gateway.v6(), gateway.mac());
    desired.networks.insert(VNI, shop);
    for (who, at) in [(A, OWN), (B, OWN), (C, OWN), (AWAY, 2)] {
        let addresses = (Some(who.v4()), Some(who.v6()));
        let device = if at == OWN { who.0 } else { 99 };
        let endpoint = endpoint((VNI, who.0), device, who.mac(), addresses, at);
        desired.endpoints.insert(who.0, endpoint);
    }
    desired
}

/// A copy to the owner of the destination address.
pub(crate) fn owner() -> Copied {
    Copied {
        out: OUT_OWNER,
        ..Copied::default()
    }
}

/// Lets everything through.
pub(crate) fn open(policy: &mut Policy) -> Digest {
    policy.leaf("open", &[owner()])
}

/// Lets replies through, and nothing else.
pub(crate) fn replies_only(policy: &mut Policy) -> Digest {
    let reply = policy.leaf("reply", &[owner()]);
    let new = policy.leaf("new", &[]);
    policy.test("state", Field::Connection, &[(1, reply)], new)
}

/// A packet, IPv4 or IPv6.
pub(crate) fn frame(is_v4: bool, from: Who, to: Who, transport: Transport) -> Frame {
    let (src, dst): (IpAddr, IpAddr) = if is_v4 {
        (from.v4().into(), to.v4().into())
    } else {
        (from.v6().into(), to.v6().into())
    };
    Frame {
        eth_src: from.mac(),
        eth_dst: to.mac(),
        src,
        dst,
        dscp: 0,
        transport,
        payload: 20,
    }
}

pub(crate) fn udp(from: Who, to: Who, ports: (u16, u16)) -> Vec<u8> {
    frame(true, from, to, Transport::Udp(ports.0, ports.1)).bytes()
}

/// A TCP segment with flags.
pub(crate) fn tcp(from: Who, to: Who, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut bytes = frame(true, from, to, Transport::Tcp(ports.0, ports.1)).bytes();
    // Nobody here looks at the checksum.
    bytes[14 + 20 + 13] = flags;
    bytes
}
