//! How many copies there are of a broadcast in meshes of some sizes, and what they take.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use fixture::{
    desired::{Policy, endpoint, network, node},
    devices::UNDERLAY,
    node::{TestNode, VTEP},
    wire::{Frame, Transport},
};
use sunwire_dataplane_common::tables::{Copied, OUT_GROUP};
use sunwire_userspace::{maps::Capacity, state::Desired};

const VNI: u32 = 100;
const BROADCAST: [u8; 6] = [0xff; 6];
const SIZES: [u32; 5] = [2, 5, 20, 50, 100];
const RUNS: usize = 50;

fn mac(number: u32) -> [u8; 6] {
    let [.., a, b] = number.to_be_bytes();
    [2, 0x53, 0x57, 1, a, b]
}

fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 20, 0, 0)) + 1 + number)
}

fn vtep(number: u32) -> Ipv4Addr {
    match number {
        1 => VTEP,
        _ => Ipv4Addr::from(u32::from(Ipv4Addr::new(192, 0, 2, 0)) + number),
    }
}

/// So many nodes with one endpoint each, which all hear everything.
fn mesh(nodes: u32) -> Desired {
    let mut desired = Desired::default();
    let gateway_v6 = Ipv6Addr::new(0xfd00, 20, 0, 0, 0, 0, 0, 1);
    let shop = network("shop", 1300, v4(0), gateway_v6, [2, 0x53, 0x57, 0, 0, 0xfe]);
    desired.networks.insert(VNI, shop);
    for number in 1..=nodes {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
        let addresses = (Some(v4(number)), None);
        let endpoint = endpoint((VNI, number), number, mac(number), addresses, number);
        desired.endpoints.insert(number, endpoint);
    }
    let mut policy = Policy::new(VNI, "flood");
    let copied = Copied {
        out: OUT_GROUP,
        ..Copied::default()
    };
    let root = policy.leaf("flood", &[copied]);
    policy.install(root, &mut desired);
    let members: Vec<u32> = (1..=nodes).collect();
    desired.leaves.get_mut(&root).unwrap().members = vec![members.into()];
    desired
}

#[test]
fn a_broadcast_is_copied_to_each_other_node_at_every_size() {
    let frame = Frame {
        eth_src: mac(1),
        eth_dst: BROADCAST,
        src: v4(1).into(),
        dst: Ipv4Addr::BROADCAST.into(),
        dscp: 0,
        transport: Transport::Udp(5000, 6000),
        payload: 64,
    };
    let frame = frame.bytes();
    for nodes in SIZES {
        let test = format!("copies_{nodes}");
        let Some(mut node) = TestNode::new(&test, 1, Capacity::default()) else {
            return;
        };
        for number in 2..=nodes {
            node.resolve(vtep(number), [2, 0, 0, 0, 0xff, number as u8]);
        }
        node.apply(&mesh(nodes)).unwrap();
        // Counted on the wire once; what follows is told by the counter.
        let out = node.send("ep1", &frame).out;
        assert_eq!(out.len() as u32, nodes - 1);
        assert!(out.iter().all(|(device, _)| device == UNDERLAY));
        let frames = [frame.as_slice()];
        let mut took: Vec<Duration> = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            node.run_alone("ep1", frames[0]);
            took.push(began.elapsed());
            // More than a few runs' copies do not fit into the queue that a slow machine has them wait in.
            node.flush();
        }
        let copies = node.dataplane().totals().unwrap().tunnel_copies.packets;
        assert_eq!(copies, u64::from(nodes - 1) * (RUNS as u64 + 1));
        took.sort();
        let median = took[RUNS / 2].as_nanos();
        println!(
            "{nodes} nodes: {} copies, {median} ns for a packet in all, {} ns for each copy",
            nodes - 1,
            median / u128::from(nodes - 1)
        );
    }
}
