//! One packet to several endpoints: who gets a copy, by which way, and who does not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod groups {
    mod checksum;
}

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fixture::{
    desired::{Policy, endpoint, network, node},
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{Fate, TestNode, VTEP},
    test_run::Action,
    traced::send,
    wire::{Frame, OTHER_PORT, Transport, Tunnel},
};
use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    group::{CHUNK, EACH_ITS_OWN, RELAYED},
    tables::{Copied, OUT_GROUP},
};
use sunwire_userspace::{
    groups::{
        listeners::{Groups, Known},
        sets,
    },
    maps::Capacity,
    state::Desired,
};

const VNI: u32 = 100;
const GATEWAY_MAC: [u8; 6] = [2, 0x53, 0x57, 0, 0, 0xfe];
const BROADCAST: [u8; 6] = [0xff; 6];

fn mac(number: u32) -> [u8; 6] {
    let [.., a, b] = number.to_be_bytes();
    [2, 0x53, 0x57, 1, a, b]
}

fn v4(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 20, 0, 0)) + 1 + number)
}

fn v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 20, 0, 0, 0, 0, 1, number as u16)
}

fn vtep(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number as u8)
}

fn node_mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xff, number as u8]
}

/// Three nodes: endpoints 1 to `here` are at this one, two more at each of the others; the policy
/// sends everything to all of them.
fn flooding(here: u32) -> Desired {
    let mut desired = Desired::default();
    for number in 1..=3 {
        let name = format!("node{number}");
        desired.nodes.insert(number, node(&name, vtep(number)));
    }
    let gateway_v6 = Ipv6Addr::new(0xfd00, 20, 0, 0, 0, 0, 0, 1);
    let shop = network("shop", 1300, v4(0), gateway_v6, GATEWAY_MAC);
    desired.networks.insert(VNI, shop);
    for number in 1..=here + 4 {
        let at = if number <= here {
            1
        } else {
            2 + (number - here - 1) / 2
        };
        let addresses = (Some(v4(number)), Some(v6(number)));
        let endpoint = endpoint((VNI, number), number, mac(number), addresses, at);
        desired.endpoints.insert(number, endpoint);
    }
    flood(&mut desired, "flood", &members(here));
    desired
}

fn members(here: u32) -> Vec<u32> {
    (1..=here + 4).collect()
}

/// Puts a policy in force that sends everything to these endpoints.
fn flood(desired: &mut Desired, scope: &str, members: &[u32]) {
    desired.leaves.clear();
    let mut policy = Policy::new(VNI, scope);
    let copied = Copied {
        out: OUT_GROUP,
        ..Copied::default()
    };
    let root = policy.leaf("flood", &[copied]);
    policy.install(root, desired);
    let leaf = desired.leaves.get_mut(&root).unwrap();
    leaf.members = vec![members.into()];
}

fn start(test: &str, here: u32, desired: &Desired) -> Option<TestNode> {
    let mut node = TestNode::new(test, here as usize, Capacity::default())?;
    for number in [2, 3] {
        node.resolve(vtep(number), node_mac(number));
    }
    node.apply(desired).expect("it fits");
    Some(node)
}

fn packet(from: u32, eth_dst: [u8; 6], dst: Ipv4Addr) -> Frame {
    Frame {
        eth_src: mac(from),
        eth_dst,
        src: v4(from).into(),
        dst: dst.into(),
        dscp: 0,
        transport: Transport::Udp(5000, 6000),
        payload: 40,
    }
}

fn broadcast(from: u32) -> Vec<u8> {
    packet(from, BROADCAST, Ipv4Addr::BROADCAST).bytes()
}

fn tunnel(from: u32, to: u32) -> Tunnel {
    let address = |number| if number == 1 { VTEP } else { vtep(number) };
    let mac = |number| {
        if number == 1 {
            UNDERLAY_MAC
        } else {
            node_mac(number)
        }
    };
    Tunnel {
        eth_src: mac(from),
        eth_dst: mac(to),
        src: address(from).into(),
        dst: address(to).into(),
        vni: VNI,
        hops: 0,
    }
}

fn tag(members: &[u32]) -> u32 {
    sets::tag(&sets::digest(members))
}

fn sorted(mut out: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    out.sort();
    out
}

fn to_device(number: u32, frame: &[u8]) -> (String, Vec<u8>) {
    (format!("ep{number}"), frame.to_vec())
}

#[test]
fn a_broadcast_comes_to_each_other_member_here_and_once_to_each_node_with_members() {
    let test = "a_broadcast_comes_to_each_other_member_here";
    let desired = flooding(3);
    let Some(mut node) = start(test, 3, &desired) else {
        return;
    };
    let frame = broadcast(1);
    let tag = tag(&members(3));
    let away = |number| {
        let wrapped = tunnel(1, number).wrap_for(tag, &frame);
        (UNDERLAY.to_owned(), wrapped)
    };
    let expected = sorted(vec![
        to_device(2, &frame),
        to_device(3, &frame),
        away(2),
        away(3),
    ]);
    let ran = node.test_run("ep1", &frame);
    assert_eq!(ran.action, Action::Shot);
    let labels = BTreeMap::from([((VNI, "flood".to_owned()), 1)]);
    let fate = Fate {
        out: expected,
        labels,
        ..Fate::default()
    };
    assert_eq!(ran.fate, fate);
    assert_eq!(send(&mut node, &desired, "ep1", &frame), fate);
    let totals = node.dataplane().totals().unwrap();
    assert_eq!(totals.local_copies.packets, 4);
    assert_eq!(totals.tunnel_copies.packets, 4);
}

#[test]
fn a_broadcast_from_a_tunnel_comes_to_every_member_here_and_goes_no_further() {
    let test = "a_broadcast_from_a_tunnel_comes_to_every_member_here";
    let desired = flooding(3);
    let Some(mut node) = start(test, 3, &desired) else {
        return;
    };
    let frame = broadcast(4);
    let input = tunnel(2, 1).wrap_for(tag(&members(3)), &frame);
    let fate = send(&mut node, &desired, UNDERLAY, &input);
    let all = (1..=3).map(|number| to_device(number, &frame)).collect();
    assert_eq!(fate.out, sorted(all));
    assert!(fate.drops.is_empty(), "{fate:?}");

    let dropped = |reason| BTreeMap::from([(reason, 1)]);
    let unknown = tunnel(2, 1).wrap_for(tag(&[1, 2]), &frame);
    let fate = send(&mut node, &desired, UNDERLAY, &unknown);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], dropped(DropReason::UnknownGroup))
    );
    // The endpoint does not live at that node.
    let forged = tunnel(3, 1).wrap_for(tag(&members(3)), &frame);
    let fate = send(&mut node, &desired, UNDERLAY, &forged);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], dropped(DropReason::SourceNotThere))
    );
    let mut large = packet(4, BROADCAST, Ipv4Addr::BROADCAST);
    large.payload = 1300;
    let large = tunnel(2, 1).wrap_for(tag(&members(3)), &large.bytes());
    let fate = send(&mut node, &desired, UNDERLAY, &large);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], dropped(DropReason::TooBig))
    );
}

#[test]
fn a_packet_to_one_address_that_goes_to_several_has_the_address_of_each() {
    let test = "a_packet_to_one_address_that_goes_to_several";
    let desired = flooding(2);
    let Some(mut node) = start(test, 2, &desired) else {
        return;
    };
    let frame = packet(1, mac(2), v4(2));
    let to = |eth_dst| Frame { eth_dst, ..frame }.bytes();
    let fate = send(&mut node, &desired, "ep1", &frame.bytes());
    let each = to(EACH_ITS_OWN.to_bytes());
    let away = |number| {
        let wrapped = tunnel(1, number).wrap_for(tag(&members(2)), &each);
        (UNDERLAY.to_owned(), wrapped)
    };
    assert_eq!(
        fate.out,
        sorted(vec![to_device(2, &to(mac(2))), away(2), away(3)])
    );
    // As another node sends it.
    let inner = Frame {
        eth_dst: EACH_ITS_OWN.to_bytes(),
        ..packet(3, mac(2), v4(2))
    };
    let input = tunnel(2, 1).wrap_for(tag(&members(2)), &inner.bytes());
    let fate = send(&mut node, &desired, UNDERLAY, &input);
    let delivered = |number| {
        let eth_dst = mac(number);
        to_device(number, &Frame { eth_dst, ..inner }.bytes())
    };
    assert_eq!(fate.out, sorted(vec![delivered(1), delivered(2)]));
}

#[test]
fn a_set_of_more_members_than_one_pass_takes_gets_every_copy() {
    let test = "a_set_of_more_members_than_one_pass_takes";
    let here = CHUNK as u32 + 6;
    let desired = flooding(here);
    let Some(mut node) = start(test, here, &desired) else {
        return;
    };
    let frame = broadcast(1);
    let fate = send(&mut node, &desired, "ep1", &frame);
    let here_out = fate
        .out
        .iter()
        .filter(|(device, _)| device != UNDERLAY)
        .count();
    assert_eq!(here_out, here as usize - 1);
    assert_eq!(fate.out.len(), here as usize + 1);
    let mut out = fate.out.clone();
    out.dedup();
    assert_eq!(out, fate.out, "a copy came twice");
    // By the tunnel, too.
    let frame = broadcast(here + 1);
    let input = tunnel(2, 1).wrap_for(tag(&members(here)), &frame);
    let fate = send(&mut node, &desired, UNDERLAY, &input);
    assert_eq!(fate.out.len(), here as usize, "{:?}", fate.drops);
}

#[test]
fn packets_for_the_set_of_the_policy_before_still_arrive() {
    let test = "packets_for_the_set_of_the_policy_before";
    let mut desired = flooding(3);
    let Some(mut node) = start(test, 3, &desired) else {
        return;
    };
    let before = members(3);
    let frame = broadcast(4);
    let arrives = |node: &mut TestNode, members: &[u32]| {
        let input = tunnel(2, 1).wrap_for(tag(members), &frame);
        node.send(UNDERLAY, &input).out.len()
    };
    flood(&mut desired, "second", &[1, 2, 4]);
    node.apply(&desired).unwrap();
    assert_eq!(arrives(&mut node, &[1, 2, 4]), 2);
    assert_eq!(arrives(&mut node, &before), 3);
    flood(&mut desired, "third", &[1, 4]);
    node.apply(&desired).unwrap();
    assert_eq!(arrives(&mut node, &[1, 4]), 1);
    assert_eq!(arrives(&mut node, &[1, 2, 4]), 2);
    assert_eq!(arrives(&mut node, &before), 0);
}

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];

/// What is known when these endpoints listen to [`GROUP`], and these nodes tell.
fn known(here: &[u32], elsewhere: &[u32], telling: &[u32]) -> Known {
    let listens = |numbers: &[u32]| -> Groups {
        let groups = BTreeSet::from([IpAddr::V4(GROUP)]);
        numbers
            .iter()
            .map(|number| (*number, groups.clone()))
            .collect()
    };
    Known {
        heard: listens(here),
        told: listens(elsewhere),
        telling: telling.iter().copied().collect(),
    }
}

/// Endpoints 1 to 3 are here, 4 and 5 at node 2, 6 and 7 at node 3.
#[test]
fn multicast_goes_to_those_who_listen_and_to_nodes_that_do_not_tell() {
    let test = "multicast_goes_to_those_who_listen";
    let desired = flooding(3);
    let Some(mut node) = start(test, 3, &desired) else {
        return;
    };
    let frame = packet(1, GROUP_MAC, GROUP).bytes();
    let tag = tag(&members(3));
    let away = |number| (UNDERLAY.to_owned(), tunnel(1, number).wrap_for(tag, &frame));
    let here = |number| to_device(number, &frame);
    let mut sent = |known: &Known, frame: &[u8]| {
        node.dataplane().listen(known, &desired, 1).unwrap();
        let fate = send(&mut node, &desired, "ep1", frame);
        assert!(fate.drops.is_empty(), "{fate:?}");
        fate.out
    };
    // Nobody told anything: other nodes get it.
    assert_eq!(
        sent(&known(&[], &[], &[]), &frame),
        sorted(vec![away(2), away(3)])
    );
    assert_eq!(
        sent(&known(&[2], &[], &[2]), &frame),
        sorted(vec![here(2), away(3)])
    );
    assert_eq!(
        sent(&known(&[2], &[6], &[2, 3]), &frame),
        sorted(vec![here(2), away(3)])
    );
    assert_eq!(
        sent(&known(&[1, 3], &[4], &[2, 3]), &frame),
        sorted(vec![here(3), away(2)])
    );
    assert_eq!(sent(&known(&[1], &[], &[2, 3]), &frame), vec![]);
    // What is of the link, and what is no multicast, all get.
    let silent = known(&[], &[], &[2, 3]);
    let mdns = packet(1, [1, 0, 0x5e, 0, 0, 0xfb], Ipv4Addr::new(224, 0, 0, 251));
    assert_eq!(sent(&silent, &mdns.bytes()).len(), 4);
    assert_eq!(sent(&silent, &broadcast(1)).len(), 4);
}

#[test]
fn multicast_from_a_tunnel_comes_to_those_who_listen_here() {
    let test = "multicast_from_a_tunnel_comes_to_those_who_listen";
    let mut desired = flooding(3);
    let Some(mut node) = start(test, 3, &desired) else {
        return;
    };
    let frame = packet(4, GROUP_MAC, GROUP).bytes();
    let input = tunnel(2, 1).wrap_for(tag(&members(3)), &frame);
    node.dataplane()
        .listen(&known(&[2], &[4, 6], &[2, 3]), &desired, 1)
        .unwrap();
    assert_eq!(
        send(&mut node, &desired, UNDERLAY, &input).out,
        [to_device(2, &frame)]
    );
    // An agent that comes after knows what this one knew, until workloads say otherwise.
    node.stop_agent();
    node.start_agent();
    let seeds = node.dataplane().listeners();
    assert_eq!(seeds, known(&[2], &[], &[]).heard);
    let taken_over = Known {
        told: seeds,
        ..Known::default()
    };
    node.apply(&desired).unwrap();
    node.dataplane().listen(&taken_over, &desired, 1).unwrap();
    assert_eq!(
        send(&mut node, &desired, UNDERLAY, &input).out,
        [to_device(2, &frame)]
    );
    // In a network without a gateway nobody is asked, and all get everything.
    let network = desired.networks.get_mut(&VNI).unwrap();
    network.gateway_v4 = sunwire_dataplane_common::address::Address::ZERO;
    node.apply(&desired).unwrap();
    node.dataplane().listen(&taken_over, &desired, 1).unwrap();
    assert_eq!(send(&mut node, &desired, UNDERLAY, &input).out.len(), 3);
}

#[test]
fn copies_to_encrypted_nodes_never_leave_in_the_clear() {
    let test = "copies_to_encrypted_nodes_never_leave";
    let mut desired = flooding(2);
    // Node 3 is in another cloud.
    let abroad = desired.nodes.get_mut(&3).unwrap();
    abroad.cloud = "abroad".to_owned();
    desired.encryption = EncryptionMode::BetweenClouds;
    let Some(mut node) = TestNode::new(test, 3, Capacity::default()) else {
        return;
    };
    for number in [2, 3] {
        node.resolve(vtep(number), node_mac(number));
    }
    node.apply(&desired).unwrap();
    let frame = broadcast(1);
    let tag = tag(&members(2));
    let plain = (UNDERLAY.to_owned(), tunnel(1, 2).wrap_for(tag, &frame));
    let within = Tunnel {
        eth_src: [0; 6],
        eth_dst: [0; 6],
        ..tunnel(1, 3)
    };
    let encrypted = ("ep3".to_owned(), within.wrap_for(tag, &frame));
    let dropped = |reason| BTreeMap::from([(reason, 1)]);

    let fate = send(&mut node, &desired, "ep1", &frame);
    assert_eq!(fate.out, sorted(vec![to_device(2, &frame), plain.clone()]));
    assert_eq!(fate.drops, dropped(DropReason::NoTunnel));
    let of_node = desired.nodes.get_mut(&3).unwrap();
    of_node.public_keys = vec![PublicKey([7; 32])];
    node.encrypt_by("ep3");
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &desired, "ep1", &frame);
    assert_eq!(
        fate.out,
        sorted(vec![to_device(2, &frame), plain, encrypted.clone()])
    );
    assert!(fate.drops.is_empty(), "{fate:?}");

    // What comes in the clear from there is refused.
    let forged = tunnel(3, 1).wrap_for(tag, &broadcast(5));
    let fate = send(&mut node, &desired, UNDERLAY, &forged);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], dropped(DropReason::Unencrypted))
    );
    // And from everywhere, in a network that is encrypted wherever it goes.
    desired.networks.get_mut(&VNI).unwrap().encryption = NetworkEncryption::Required;
    node.apply(&desired).unwrap();
    let input = tunnel(2, 1).wrap_for(tag, &broadcast(3));
    let fate = send(&mut node, &desired, UNDERLAY, &input);
    assert_eq!(
        (fate.out, fate.drops),
        (vec![], dropped(DropReason::Unencrypted))
    );
    let fate = send(&mut node, &desired, "ep1", &frame);
    assert_eq!(fate.out, sorted(vec![to_device(2, &frame), encrypted]));
    assert_eq!(fate.drops, dropped(DropReason::NoTunnel));
    // In a network that is encrypted nowhere all copies go in the clear, and come so.
    desired.networks.get_mut(&VNI).unwrap().encryption = NetworkEncryption::Never;
    node.apply(&desired).unwrap();
    let fate = send(&mut node, &desired, "ep1", &frame);
    let [to_2, to_3] = [2, 3].map(|to| (UNDERLAY.to_owned(), tunnel(1, to).wrap_for(tag, &frame)));
    assert_eq!(fate.out, sorted(vec![to_device(2, &frame), to_2, to_3]));
    assert_eq!(send(&mut node, &desired, UNDERLAY, &forged).out.len(), 2);
}

/// This node and node 2 are in one region, node 3 and node 4 in another; endpoint 8 is at node 4.
fn relayed() -> Desired {
    let mut desired = flooding(3);
    desired.nodes.insert(4, node("node4", vtep(4)));
    let addresses = (Some(v4(8)), Some(v6(8)));
    let endpoint = endpoint((VNI, 8), 8, mac(8), addresses, 4);
    desired.endpoints.insert(8, endpoint);
    for (number, region) in [(1, "a:x"), (2, "a:x"), (3, "a:y"), (4, "a:y")] {
        desired.nodes.get_mut(&number).unwrap().region = region.to_owned();
    }
    desired.networks.get_mut(&VNI).unwrap().relayed = true;
    flood(&mut desired, "flood", &[1, 2, 3, 4, 5, 6, 7, 8]);
    desired
}

#[test]
fn another_region_gets_one_copy_and_what_comes_from_there_is_sent_on_within_this_one() {
    let test = "another_region_gets_one_copy";
    let desired = relayed();
    let Some(mut node) = TestNode::new(test, 3, Capacity::default()) else {
        return;
    };
    for number in [2, 3, 4] {
        node.resolve(vtep(number), node_mac(number));
    }
    let tag = tag(&[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(tag & RELAYED, 0);
    let underlay =
        |from, to, tag, frame: &[u8]| (UNDERLAY.to_owned(), tunnel(from, to).wrap_for(tag, frame));
    let frame = broadcast(1);
    let here = vec![to_device(2, &frame), to_device(3, &frame)];
    // Nobody is known to be at work there: all get their own.
    node.apply(&desired).unwrap();
    let all = (2..=4)
        .map(|number| underlay(1, number, tag, &frame))
        .collect();
    assert_eq!(
        send(&mut node, &desired, "ep1", &frame).out,
        sorted([here.clone(), all].concat())
    );
    node.at_work(&[1, 2, 3, 4]);
    node.apply(&desired).unwrap();
    // 100 of two is the first.
    let two = vec![
        underlay(1, 2, tag, &frame),
        underlay(1, 3, tag | RELAYED, &frame),
    ];
    assert_eq!(
        send(&mut node, &desired, "ep1", &frame).out,
        sorted([here, two].concat())
    );

    // From the other region, to be sent on: to node 2 alone, and not so any more.
    let frame = broadcast(6);
    let here: Vec<_> = (1..=3).map(|number| to_device(number, &frame)).collect();
    let input = tunnel(3, 1).wrap_for(tag | RELAYED, &frame);
    let on = vec![underlay(1, 2, tag, &frame)];
    assert_eq!(
        send(&mut node, &desired, UNDERLAY, &input).out,
        sorted([here.clone(), on].concat())
    );
    // As it is: to members here.
    let input = tunnel(3, 1).wrap_for(tag, &frame);
    assert_eq!(send(&mut node, &desired, UNDERLAY, &input).out, here);
    // What a node of this region sends on of the other one is right, and goes no further.
    for tag in [tag, tag | RELAYED] {
        let input = tunnel(2, 1).wrap_for(tag, &frame);
        let fate = send(&mut node, &desired, UNDERLAY, &input);
        assert_eq!(fate.out, here, "{:?}", fate.drops);
    }
    // But not of a node of another region, nor of this one.
    let dropped = BTreeMap::from([(DropReason::SourceNotThere, 1)]);
    for (by, from) in [(4, 6), (2, 1), (3, 4)] {
        let input = tunnel(by, 1).wrap_for(tag, &broadcast(from));
        let fate = send(&mut node, &desired, UNDERLAY, &input);
        assert_eq!(
            (fate.out, &fate.drops),
            (vec![], &dropped),
            "{from} by {by}"
        );
    }
    // Of listeners, those of a region count together, if all nodes there tell.
    let frame = packet(1, GROUP_MAC, GROUP).bytes();
    let mut sent = |known: &Known| {
        node.dataplane().listen(known, &desired, 1).unwrap();
        send(&mut node, &desired, "ep1", &frame).out
    };
    let relay = underlay(1, 3, tag | RELAYED, &frame);
    assert_eq!(
        sent(&known(&[], &[8], &[1, 2, 3, 4])),
        std::slice::from_ref(&relay)
    );
    assert_eq!(sent(&known(&[], &[], &[1, 2, 3, 4])), vec![]);
    assert_eq!(sent(&known(&[], &[], &[1, 2, 3])), [relay]);
}

/// The IPv6 address of a node on the underlay.
fn vtep_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)
}

fn tunnel_v6(from: u32, to: u32) -> Tunnel {
    Tunnel {
        src: vtep_v6(from).into(),
        dst: vtep_v6(to).into(),
        ..tunnel(from, to)
    }
}

/// Gives this node both families, and these others IPv6 alone.
fn over_ipv6(node: &mut TestNode, desired: &mut Desired, others: &[u32]) {
    node.at_addresses(Some(VTEP), Some(vtep_v6(1)));
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep_v6(1));
    for number in others {
        let other = desired.nodes.get_mut(number).unwrap();
        other.address = sunwire_userspace::state::Node::called(*number);
        other.address_v6 = Some(vtep_v6(*number));
        node.resolve(vtep_v6(*number), node_mac(*number));
    }
}

#[test]
fn kernel_copies_go_to_nodes_of_both_families() {
    let test = "kernel_copies_go_to_nodes_of_both_families";
    let mut desired = flooding(2);
    let Some(mut node) = TestNode::new(test, 2, Capacity::default()) else {
        return;
    };
    node.resolve(vtep(2), node_mac(2));
    for v6 in [&[3][..], &[2, 3][..]] {
        over_ipv6(&mut node, &mut desired, v6);
        node.apply(&desired).unwrap();
        let tag = tag(&members(2));
        let frame = broadcast(1);
        let away = |number| {
            let way = match v6.contains(&number) {
                true => tunnel_v6(1, number),
                false => tunnel(1, number),
            };
            (UNDERLAY.to_owned(), way.wrap_for(tag, &frame))
        };
        let fate = send(&mut node, &desired, "ep1", &frame);
        let expected = vec![to_device(2, &frame), away(2), away(3)];
        assert_eq!(fate.out, sorted(expected));
        assert!(fate.drops.is_empty(), "{fate:?}");
        // The other way.
        let frame = broadcast(5);
        let fate = send(
            &mut node,
            &desired,
            UNDERLAY,
            &tunnel_v6(3, 1).wrap_for(tag, &frame),
        );
        let here = (1..=2).map(|number| to_device(number, &frame)).collect();
        assert_eq!(fate.out, sorted(here), "{fate:?}");
        let forged = tunnel_v6(9, 1).wrap_for(tag, &frame);
        let fate = send(&mut node, &desired, UNDERLAY, &forged);
        let unknown = BTreeMap::from([(DropReason::UnknownPeer, 1)]);
        assert_eq!((fate.out, fate.drops), (vec![], unknown));
    }
}

#[test]
fn kernel_copies_go_to_the_port_of_their_network_whatever_they_go_over() {
    let test = "kernel_copies_go_to_the_port_of_their_network_whatever_they_go_over";
    let mut desired = flooding(2);
    desired.networks.get_mut(&VNI).unwrap().port = OTHER_PORT;
    let Some(mut node) = start(test, 2, &desired) else {
        return;
    };
    over_ipv6(&mut node, &mut desired, &[3]);
    node.apply(&desired).unwrap();
    let fate = node.send("ep1", &broadcast(1));
    let away = fate.out.iter().filter(|(device, _)| device == UNDERLAY);
    let ports: Vec<[u8; 2]> = away
        .map(|(_, frame)| match frame[12] {
            8 => [frame[36], frame[37]],
            _ => [frame[56], frame[57]],
        })
        .collect();
    assert_eq!(ports, [OTHER_PORT.to_be_bytes(); 2], "{fate:?}");
}

#[test]
fn kernel_what_another_region_sends_is_sent_on_over_the_other_family() {
    let test = "kernel_what_another_region_sends_is_sent_on_over_the_other_family";
    let tag = tag(&[1, 2, 3, 4, 5, 6, 7, 8]);
    // From a node over IPv4 on to one over IPv6, and the other way round.
    for v6 in [2, 3] {
        let mut desired = relayed();
        let Some(mut node) = TestNode::new(test, 3, Capacity::default()) else {
            return;
        };
        for number in [2, 3, 4] {
            node.resolve(vtep(number), node_mac(number));
        }
        over_ipv6(&mut node, &mut desired, &[v6]);
        node.at_work(&[1, 2, 3, 4]);
        node.apply(&desired).unwrap();
        let frame = broadcast(6);
        let (input, onward) = match v6 {
            2 => (tunnel(3, 1), tunnel_v6(1, 2)),
            _ => (tunnel_v6(3, 1), tunnel(1, 2)),
        };
        let fate = send(
            &mut node,
            &desired,
            UNDERLAY,
            &input.wrap_for(tag | RELAYED, &frame),
        );
        let mut expected: Vec<_> = (1..=3).map(|number| to_device(number, &frame)).collect();
        expected.push((UNDERLAY.to_owned(), onward.wrap_for(tag, &frame)));
        assert_eq!(fate.out, sorted(expected), "{fate:?}");
        assert!(fate.drops.is_empty(), "{fate:?}");
    }
}
