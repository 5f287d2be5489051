//! What bounds the frames that workloads hand to the agent.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{net::Ipv4Addr, time::Instant};

use fixture::{
    desired::{endpoint, network, node},
    node::{TestNode, VTEP},
    wire::{Frame, Transport},
};
use sunwire_dataplane_common::{drop_reason::DropReason, punt};
use sunwire_userspace::{maps::Capacity, state::Desired};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const OWN: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const VNI: u32 = 100;

/// A node with two endpoints, `ep1` and `ep2`, and a buffer of some bytes.
fn start(test: &str, punt_bytes: u32) -> Option<TestNode> {
    let capacity = Capacity {
        punt_bytes,
        ..Capacity::default()
    };
    let mut node_here = TestNode::new(test, 2, capacity)?;
    let mut desired = Desired::default();
    desired.nodes.insert(1, node("here", VTEP));
    let gateway_v6 = "fd00::1".parse().unwrap();
    let shop = network("shop", 1300, GATEWAY, gateway_v6, GATEWAY_MAC);
    desired.networks.insert(VNI, shop);
    for number in [1, 2] {
        let (mac, address) = who(number);
        let endpoint = endpoint((VNI, number), number, mac, (Some(address), None), 1);
        desired.endpoints.insert(number, endpoint);
    }
    node_here.apply(&desired).expect("it fits");
    Some(node_here)
}

fn who(number: u32) -> ([u8; 6], Ipv4Addr) {
    let mac = [MAC[0], MAC[1], MAC[2], MAC[3], MAC[4], number as u8];
    (mac, Ipv4Addr::from(u32::from(OWN) + number))
}

/// A query of an endpoint, with so many bytes of payload.
fn query(number: u32, payload: usize) -> Vec<u8> {
    let (mac, address) = who(number);
    Frame {
        eth_src: mac,
        eth_dst: GATEWAY_MAC,
        src: address.into(),
        dst: GATEWAY.into(),
        dscp: 0,
        transport: Transport::Udp(4242, 53),
        payload,
    }
    .bytes()
}

#[test]
fn an_endpoint_can_ask_so_much_and_no_more() {
    let Some(mut node) = start("an_endpoint_can_ask_so_much_and_no_more", 1 << 20) else {
        return;
    };
    let frame = query(1, 40);
    // Handed over as fast as it goes: only a machine that takes a millisecond for each would let
    // them all pass.
    let frames = vec![frame.as_slice(); 16 * punt::BURST as usize];
    let begun = Instant::now();
    let fate = node.test_run_without_looking("ep1", &frames);
    let refilled = begun.elapsed().as_millis() as u64 + 1;
    let asked = fate.asked.len() as u64;
    let limited = fate.drops.get(&DropReason::PuntLimited).copied();
    assert_eq!(
        asked + limited.unwrap_or(0),
        frames.len() as u64,
        "{fate:?}"
    );
    assert!(limited.is_some(), "nothing was ever limited");
    let burst = u64::from(punt::BURST);
    assert!((burst..=burst + refilled).contains(&asked), "{asked}");
    // Its neighbour has a bucket of its own.
    let ran = node.test_run("ep2", &query(2, 40));
    assert_eq!(ran.fate.asked.len(), 1, "{:?}", ran.fate);
}

#[test]
fn what_finds_the_buffer_full_is_counted() {
    let Some(mut node) = start("what_finds_the_buffer_full_is_counted", 4096) else {
        return;
    };
    let frame = query(1, 1200);
    let fate = node.test_run_without_looking("ep1", &[&frame, &frame, &frame, &frame]);
    assert_eq!(fate.asked.len(), 3, "{fate:?}");
    assert_eq!(fate.drops.get(&DropReason::PuntFull), Some(&1), "{fate:?}");
    // What was read makes room again.
    let ran = node.test_run("ep1", &frame);
    assert_eq!(ran.fate.asked.len(), 1, "{:?}", ran.fate);
}

#[test]
fn what_was_asked_while_no_agent_ran_is_there_for_the_next() {
    let test = "what_was_asked_while_no_agent_ran_is_there_for_the_next";
    let Some(mut node) = start(test, 1 << 16) else {
        return;
    };
    let frame = query(1, 40);
    node.stop_agent();
    node.devices.send("ep1", &frame);
    node.devices.flush();
    node.start_agent();
    let asked = node.asked();
    let frames: Vec<&[u8]> = asked.iter().map(|(_, _, frame)| &frame[..]).collect();
    assert_eq!(frames, [&frame[..]]);
}
