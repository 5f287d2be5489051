//! Packets that cross from one network to another: who lets them, and what becomes of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use fixture::{
    desired::{endpoint, network, node},
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{Fate, OWN, TestNode, VTEP},
    policy::install,
    wire::{Frame, Transport, Tunnel, assert_valid},
    world::by_family,
};
use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_policy::{compile_text, environment::Environment, testing::environment};
use sunwire_userspace::{maps::Capacity, state::Desired};

const SHOP: u32 = 100;
const LAB: u32 = 200;
const WEB: u32 = 1;
/// In network `lab`; its device is the sixth here.
const BENCH: u32 = 9;
const BENCH_DEVICE: u32 = 6;
const OTHER: u32 = 2;
const OTHER_VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const OTHER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const GATEWAY_SHOP: [u8; 6] = [2, 0x53, 0x57, 0, 0, 20];
const GATEWAY_LAB: [u8; 6] = [2, 0x53, 0x57, 0, 0, 30];
/// Greatest packets of `lab` are smaller.
const MTU_SHOP: u32 = 1400;
const MTU_LAB: u32 = 1300;

const OPEN: &str = "policy main = forward";

struct World {
    node: TestNode,
    environment: Environment,
    desired: Desired,
}

fn world(test: &str) -> Option<World> {
    let mut node = TestNode::new(test, BENCH_DEVICE as usize, Capacity::default())?;
    node.resolve(OTHER_VTEP, OTHER_MAC);
    let mut environment = environment();
    for network in &mut environment.networks {
        let peer = if network.name == "shop" {
            "lab"
        } else {
            "shop"
        };
        network.peers = vec![peer.to_owned()];
    }
    Some(World {
        node,
        environment,
        desired: Desired::default(),
    })
}

impl World {
    /// Both policies in force; `bench1` is at the node that is named.
    fn apply(&mut self, shop: &str, lab: &str, bench_at: u32) {
        self.desire(shop, lab, bench_at);
        self.node.apply(&self.desired).unwrap();
    }

    fn desire(&mut self, shop: &str, lab: &str, bench_at: u32) {
        let mut desired = Desired::default();
        desired.nodes.insert(OWN, node("own", VTEP));
        desired.nodes.insert(OTHER, node("other", OTHER_VTEP));
        let gateways = |third: u8| {
            let v6: [u8; 16] = [0xfd, 0, 0, third, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe];
            (Ipv4Addr::new(10, third, 255, 254), v6.into())
        };
        for (name, vni, third, mtu, mac, peer) in [
            ("shop", SHOP, 20, MTU_SHOP, GATEWAY_SHOP, LAB),
            ("lab", LAB, 30, MTU_LAB, GATEWAY_LAB, SHOP),
        ] {
            let (v4, v6) = gateways(third);
            let mut one = network(name, mtu, v4, v6, mac);
            one.peers = vec![peer];
            desired.networks.insert(vni, one);
        }
        for one in &self.environment.endpoints {
            let in_lab = one.network == "lab";
            let (vni, device, at) = match in_lab {
                true => (LAB, BENCH_DEVICE, bench_at),
                false => (SHOP, one.number, OWN),
            };
            let addresses = by_family(&one.addresses);
            let made = endpoint((vni, one.number), device, one.mac, addresses, at);
            desired.endpoints.insert(one.number, made);
        }
        let texts = [("shop", shop, SHOP), ("lab", lab, LAB)]
            .map(|(name, text, vni)| (name, format!("network {name}\n{text}"), vni));
        for network in &mut self.environment.networks {
            let (_, text, _) = texts
                .iter()
                .find(|(name, ..)| *name == network.name)
                .unwrap();
            network.policy = Some(Arc::from(text.as_str()));
        }
        let mut programs = Desired::default();
        for (_, text, vni) in &texts {
            let compiled = compile_text(text, &self.environment).unwrap();
            let mut one = Desired::default();
            install(&compiled.tables, *vni, &mut one);
            programs.table_nodes.extend(one.table_nodes);
            programs.leaves.extend(one.leaves);
            programs.programs.extend(one.programs);
        }
        desired.table_nodes = programs.table_nodes;
        desired.leaves = programs.leaves;
        desired.programs = programs.programs;
        self.desired = desired;
    }

    /// A frame to the gateway of the sender's network, from one endpoint to another one's address.
    fn frame(&self, (from, to): (u32, u32), is_v4: bool, transport: Transport) -> Frame {
        let one = |number: u32| {
            let mut all = self.environment.endpoints.iter();
            all.find(|one| one.number == number).unwrap()
        };
        let address = |number: u32| {
            let mut addresses = one(number).addresses.iter();
            *addresses.find(|a| a.is_ipv4() == is_v4).unwrap()
        };
        Frame {
            eth_src: one(from).mac,
            eth_dst: if from == BENCH {
                GATEWAY_LAB
            } else {
                GATEWAY_SHOP
            },
            src: address(from),
            dst: address(to),
            dscp: 0,
            transport,
            payload: 40,
        }
    }

    fn send(&mut self, from: u32, frame: &[u8]) -> Fate {
        self.node.send(&device_of(from), frame)
    }

    fn mac_of(&self, number: u32) -> [u8; 6] {
        let mut all = self.environment.endpoints.iter();
        all.find(|one| one.number == number).unwrap().mac
    }
}

fn device_of(number: u32) -> String {
    let device = if number == BENCH {
        BENCH_DEVICE
    } else {
        number
    };
    format!("ep{device}")
}

/// The frame with another time to live or hop limit.
fn with_hops(mut frame: Vec<u8>, hops: u8) -> Vec<u8> {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21] = hops;
        return frame;
    }
    frame[22] = hops;
    frame[24..26].copy_from_slice(&[0, 0]);
    let words = frame[14..34].chunks(2);
    let mut sum: u32 = words
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// What a frame is after it has crossed to an endpoint of a network.
fn crossed(frame: &Frame, gateway: [u8; 6], to: [u8; 6], hops: u8) -> Vec<u8> {
    let frame = Frame {
        eth_src: gateway,
        eth_dst: to,
        ..*frame
    };
    with_hops(frame.bytes(), hops)
}

fn dropped(fate: &Fate) -> Option<DropReason> {
    let mut drops = fate.drops.keys().copied();
    let reason = drops.next();
    assert_eq!(drops.next(), None);
    reason
}

/// The time to live or hop limit that frames here begin with.
fn hops_of(frame: &[u8]) -> u8 {
    if frame[12..14] == [0x86, 0xdd] {
        frame[21]
    } else {
        frame[22]
    }
}

#[test]
fn kernel_a_packet_that_crosses_here_comes_from_the_gateway_with_one_hop_less() {
    let Some(mut world) = world("routes_here") else {
        return;
    };
    world.apply(OPEN, OPEN, OWN);
    for is_v4 in [true, false] {
        for transport in [Transport::Tcp(5000, 80), Transport::Udp(5000, 53)] {
            for (from, to, gateway) in [(WEB, BENCH, GATEWAY_LAB), (BENCH, WEB, GATEWAY_SHOP)] {
                let frame = world.frame((from, to), is_v4, transport);
                let hops = hops_of(&frame.bytes()) - 1;
                let expected = crossed(&frame, gateway, world.mac_of(to), hops);
                // The second time the verdict is remembered.
                for _ in 0..2 {
                    let fate = world.send(from, &frame.bytes());
                    assert_eq!(fate.drops.len(), 0, "{:?}", fate.drops);
                    assert_eq!(fate.out, [(device_of(to), expected.clone())]);
                    assert_valid(&fate.out[0].1);
                }
            }
        }
    }
}

#[test]
fn kernel_a_packet_that_crosses_to_another_node_has_its_destinations_vni_there() {
    let Some(mut world) = world("routes_away") else {
        return;
    };
    world.apply(OPEN, OPEN, OTHER);
    for is_v4 in [true, false] {
        let frame = world.frame((WEB, BENCH), is_v4, Transport::Udp(5000, 53));
        let hops = hops_of(&frame.bytes()) - 1;
        let inner = crossed(&frame, GATEWAY_LAB, world.mac_of(BENCH), hops);
        let tunnel = Tunnel {
            eth_src: UNDERLAY_MAC,
            eth_dst: OTHER_MAC,
            src: VTEP.into(),
            dst: OTHER_VTEP.into(),
            vni: LAB,
            hops: 0,
        };
        for _ in 0..2 {
            let fate = world.send(WEB, &frame.bytes());
            assert_eq!(fate.out, [(UNDERLAY.to_owned(), tunnel.wrap(&inner))]);
        }
    }
}

#[test]
fn kernel_what_comes_from_a_peer_has_to_live_where_it_comes_from() {
    let Some(mut world) = world("routes_in") else {
        return;
    };
    world.apply(OPEN, OPEN, OTHER);
    let from_other = |vni| Tunnel {
        eth_src: OTHER_MAC,
        eth_dst: UNDERLAY_MAC,
        src: OTHER_VTEP.into(),
        dst: VTEP.into(),
        vni,
        hops: 0,
    };
    for is_v4 in [true, false] {
        let frame = world.frame((BENCH, WEB), is_v4, Transport::Udp(53, 5000));
        let inner = crossed(&frame, GATEWAY_SHOP, world.mac_of(WEB), 63);
        for _ in 0..2 {
            let fate = world.node.send(UNDERLAY, &from_other(SHOP).wrap(&inner));
            assert_eq!(
                fate.out,
                [(device_of(WEB), inner.clone())],
                "{:?}",
                fate.drops
            );
        }
        // The same from an endpoint that lives here: the other node may not say so.
        let local = world.frame((2, WEB), is_v4, Transport::Udp(53, 5000));
        let forged = crossed(&local, GATEWAY_SHOP, world.mac_of(WEB), 63);
        let fate = world.node.send(UNDERLAY, &from_other(SHOP).wrap(&forged));
        assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
        // From an address of the peer's subnet that nobody has.
        let mut nobody = frame;
        nobody.src = if is_v4 {
            "10.30.0.77".parse().unwrap()
        } else {
            "fd00:1e::77".parse().unwrap()
        };
        let inner = crossed(&nobody, GATEWAY_SHOP, world.mac_of(WEB), 63);
        let fate = world.node.send(UNDERLAY, &from_other(SHOP).wrap(&inner));
        assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
    }
    // Once they are no peers any more, nothing comes across and nothing leaves.
    for network in world.desired.networks.values_mut() {
        network.peers.clear();
    }
    world.node.apply(&world.desired).unwrap();
    let frame = world.frame((BENCH, WEB), true, Transport::Udp(53, 5000));
    let inner = crossed(&frame, GATEWAY_SHOP, world.mac_of(WEB), 63);
    let fate = world.node.send(UNDERLAY, &from_other(SHOP).wrap(&inner));
    assert_eq!(dropped(&fate), Some(DropReason::SourceNotThere));
    let frame = world.frame((WEB, BENCH), true, Transport::Udp(5000, 53));
    let fate = world.send(WEB, &frame.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::NoOwner));
}

#[test]
fn kernel_an_endpoint_may_not_send_from_an_address_of_a_peer() {
    let Some(mut world) = world("routes_spoofed") else {
        return;
    };
    world.apply(OPEN, OPEN, OWN);
    let mut frame = world.frame((BENCH, WEB), true, Transport::Udp(5000, 53));
    frame.eth_src = world.mac_of(WEB);
    let fate = world.send(WEB, &frame.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::SpoofedSource));
}

#[test]
fn kernel_both_policies_decide_and_the_label_says_which() {
    let Some(mut world) = world("routes_policies") else {
        return;
    };
    let lab = "policy main = if http then forward \"web\" else if established then forward \"reply\" else drop \"only web\"";
    let shop = "policy main = if src = web1 then forward \"out\" else if established then forward \"back\" else drop \"shop\"";
    world.apply(shop, lab, OWN);
    let label = |fate: &Fate| -> (u32, String) {
        let mut labels = fate.labels.keys().cloned();
        labels.next().unwrap()
    };
    // Not asked for.
    let answer = world.frame((BENCH, WEB), true, Transport::Tcp(80, 5000));
    let fate = world.send(BENCH, &answer.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Policy));
    let ask = world.frame((WEB, BENCH), true, Transport::Tcp(5000, 80));
    let fate = world.send(WEB, &ask.bytes());
    assert_eq!(
        (dropped(&fate), label(&fate)),
        (None, (SHOP, "out".to_owned()))
    );
    // Now it is a reply, for both.
    let fate = world.send(BENCH, &answer.bytes());
    assert_eq!(
        (dropped(&fate), label(&fate)),
        (None, (LAB, "reply".to_owned()))
    );
    let ssh = world.frame((WEB, BENCH), true, Transport::Tcp(5000, 22));
    let fate = world.send(WEB, &ssh.bytes());
    assert_eq!(dropped(&fate), Some(DropReason::Policy));
    assert_eq!(label(&fate), (SHOP, "lab: only web".to_owned()));
    let other = world.frame((2, BENCH), true, Transport::Tcp(5000, 80));
    let fate = world.send(2, &other.bytes());
    assert_eq!(
        (dropped(&fate), label(&fate)),
        (Some(DropReason::Policy), (SHOP, "shop".to_owned()))
    );
}

#[test]
fn kernel_a_packet_without_hops_left_is_told_of_by_the_gateway_and_does_not_cross() {
    let Some(mut world) = world("routes_expired") else {
        return;
    };
    world.apply(OPEN, OPEN, OWN);
    for is_v4 in [true, false] {
        for hops in [0, 1] {
            for payload in [0, 40, 900] {
                let mut frame = world.frame((WEB, BENCH), is_v4, Transport::Udp(5000, 33_434));
                frame.payload = payload;
                let fate = world.send(WEB, &with_hops(frame.bytes(), hops));
                assert_eq!(dropped(&fate), Some(DropReason::Expired));
                let [(device, answer)] = &fate.out[..] else {
                    panic!("{:?}", fate.out);
                };
                assert_eq!(*device, device_of(WEB));
                assert_valid(answer);
                assert_eq!(answer[..6], world.mac_of(WEB));
                assert_eq!(answer[6..12], GATEWAY_SHOP);
                let (kind, quoted) = if is_v4 {
                    (answer[34], 42)
                } else {
                    (answer[54], 62)
                };
                assert_eq!(kind, if is_v4 { 11 } else { 3 });
                // What is quoted is the packet as it was sent.
                let sent = with_hops(frame.bytes(), hops);
                let ip = if is_v4 { 20 } else { 40 };
                assert_eq!(answer[quoted..quoted + ip + 8], sent[14..14 + ip + 8]);
            }
        }
        // Within a network hops do not count.
        let frame = world.frame((WEB, 2), is_v4, Transport::Udp(5000, 53));
        let fate = world.send(WEB, &with_hops(frame.bytes(), 1));
        assert_eq!(hops_of(&fate.out[0].1), 1);
        let frame = world.frame((WEB, BENCH), is_v4, Transport::Udp(5000, 53));
        let fate = world.send(WEB, &with_hops(frame.bytes(), 2));
        assert_eq!(hops_of(&fate.out[0].1), 1);
    }
}

#[test]
fn kernel_a_packet_that_is_too_big_for_where_it_goes_is_told_of_with_that_size() {
    let Some(mut world) = world("routes_big") else {
        return;
    };
    world.apply(OPEN, OPEN, OWN);
    for is_v4 in [true, false] {
        let headers = if is_v4 { 28 } else { 48 };
        let mut frame = world.frame((WEB, BENCH), is_v4, Transport::Udp(5000, 53));
        frame.payload = MTU_LAB as usize - headers + 1;
        let fate = world.send(WEB, &frame.bytes());
        assert_eq!(dropped(&fate), Some(DropReason::TooBig));
        let answer = &fate.out[0].1;
        assert_valid(answer);
        let at = if is_v4 { 40 } else { 60 };
        let told = u16::from_be_bytes([answer[at], answer[at + 1]]);
        assert_eq!(u32::from(told), MTU_LAB);
        frame.payload -= 1;
        let fate = world.send(WEB, &frame.bytes());
        assert_eq!(fate.out[0].0, device_of(BENCH));
    }
}

#[test]
fn kernel_a_translated_destination_may_be_a_peers_and_answers_come_from_the_one_asked() {
    let Some(mut world) = world("routes_translated") else {
        return;
    };
    let shop = "policy main = if dst = 10.20.0.100 then (dnat 10.30.0.9 port 8080; forward) else if established then forward else drop";
    world.apply(
        shop,
        "policy main = if dst port 8080 then forward else if established then forward else drop",
        OWN,
    );
    let vip: IpAddr = "10.20.0.100".parse().unwrap();
    let mut ask = world.frame((WEB, BENCH), true, Transport::Tcp(5000, 80));
    let bench = ask.dst;
    ask.dst = vip;
    for _ in 0..2 {
        let fate = world.send(WEB, &ask.bytes());
        assert_eq!(fate.drops.len(), 0, "{:?}", fate.drops);
        let passed = &fate.out[0];
        assert_eq!(passed.0, device_of(BENCH));
        assert_valid(&passed.1);
        assert_eq!(
            IpAddr::from(<[u8; 4]>::try_from(&passed.1[30..34]).unwrap()),
            bench
        );
        let answer = world.frame((BENCH, WEB), true, Transport::Tcp(8080, 5000));
        let fate = world.send(BENCH, &answer.bytes());
        assert_eq!(fate.drops.len(), 0, "{:?}", fate.drops);
        let answered = &fate.out[0];
        assert_valid(&answered.1);
        assert_eq!(
            IpAddr::from(<[u8; 4]>::try_from(&answered.1[26..30]).unwrap()),
            vip
        );
        assert_eq!(answered.1[34..36], 80u16.to_be_bytes());
    }
    // The packet that expires before it is rewritten is quoted as it was sent.
    let fate = world.send(WEB, &with_hops(ask.bytes(), 1));
    assert_eq!(dropped(&fate), Some(DropReason::Expired));
    assert_eq!(fate.out[0].1[42 + 16..42 + 20], [10, 20, 0, 100]);
}
