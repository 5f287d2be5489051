//! Tunnels over IPv6: the same packets, 20 bytes more around them, beside tunnels over IPv4.
//!
//! This node has addresses of both families. Node 2 has an IPv6 address alone, node 3 an IPv4 one alone,
//! and node 6, which runs no agent, an IPv6 one.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use fixture::{
    capture::Capture,
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{TestNode, VTEP},
    shrunk::out_of_ipv6,
    wire::{Arp, Frame, Transport, Tunnel},
};
use packets::world::{
    self, AWAY_3, COMING_6, DB, DB_2, FOREIGN_15, GOING_7, LEFT_5, MOVED_9, SHOP, WEB, WEB_1,
    from_node, node_mac, port, to_node, v4, v6,
};
use sunwire_api::EncryptionMode;
use sunwire_dataplane_common::{drop_reason::DropReason, probe};
use sunwire_userspace::{
    netlink,
    state::{Desired, Node},
};

const UDP: Transport = Transport::Udp(5000, 6000);
/// The device that holds the tunnel's port.
const PORT_DEVICE: &str = "sw-tunnel";

/// The IPv6 address of a node on the underlay.
fn vtep_v6(number: u32) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number as u16)
}

/// The cloud, with its addresses over IPv6.
fn desired() -> Desired {
    let mut desired = world::desired();
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep_v6(1));
    for number in [2, 6] {
        let node = desired.nodes.get_mut(&number).unwrap();
        node.address = Node::called(number);
        node.address_v6 = Some(vtep_v6(number));
    }
    desired
}

fn start(test: &str) -> Option<TestNode> {
    let mut node = world::start(test)?;
    node.at_addresses(Some(VTEP), Some(vtep_v6(1)));
    for number in [2, 6] {
        node.resolve(vtep_v6(number), node_mac(number));
    }
    node.apply(&desired()).unwrap();
    Some(node)
}

fn from_v6(number: u32) -> Tunnel {
    Tunnel {
        src: vtep_v6(number).into(),
        dst: vtep_v6(1).into(),
        ..from_node(number, SHOP)
    }
}

/// A tunnelled frame as this node sends it.
fn to_v6(number: u32, hops: u8, inner: &[u8]) -> Vec<u8> {
    Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: node_mac(number),
        src: vtep_v6(1).into(),
        dst: vtep_v6(number).into(),
        vni: SHOP,
        hops,
    }
    .wrap(inner)
}

#[test]
fn kernel_frames_go_out_over_ipv6_byte_for_byte() {
    let Some(mut node) = start("kernel_frames_go_out_over_ipv6_byte_for_byte") else {
        return;
    };
    let tcp = Transport::Tcp(5000, 6000);
    for (make, transport) in [
        (v4 as fn(_, _, _) -> _, UDP),
        (v6, UDP),
        (v4, tcp),
        (v6, tcp),
    ] {
        let inner = make(WEB_1, AWAY_3, transport).bytes();
        // The second one by what is remembered of the first.
        for _ in 0..2 {
            let fate = node.send(WEB, &inner);
            let out = vec![(UNDERLAY.to_owned(), to_v6(2, 0, &inner))];
            assert_eq!(fate.out, out, "{fate:?}");
            assert_eq!(fate.drops, BTreeMap::new());
        }
    }
}

#[test]
fn kernel_frames_come_in_over_ipv6_whatever_is_inside() {
    let Some(mut node) = start("kernel_frames_come_in_over_ipv6_whatever_is_inside") else {
        return;
    };
    for make in [v4, v6] {
        for payload in [0, 1, 33, 1200] {
            let frame = Frame {
                payload,
                ..make(AWAY_3, DB_2, UDP)
            };
            for _ in 0..2 {
                let fate = node.send(UNDERLAY, &from_v6(2).wrap(&frame.bytes()));
                let expected = out_of_ipv6(&frame.bytes());
                assert_eq!(fate.out, [(DB.to_owned(), expected)], "{payload}");
            }
        }
    }
    // A frame that is shorter than an IPv6 header.
    let arp = Arp {
        eth_src: AWAY_3.mac(),
        eth_dst: DB_2.mac(),
        operation: 2,
        sender: (AWAY_3.mac(), AWAY_3.v4()),
        target: (DB_2.mac(), DB_2.v4()),
    };
    let fate = node.send(UNDERLAY, &from_v6(2).wrap(&arp.bytes()));
    assert_eq!(fate.out, [(DB.to_owned(), out_of_ipv6(&arp.bytes()))]);
}

#[test]
fn kernel_who_speaks_over_ipv6_speaks_for_itself_alone() {
    let Some(mut node) = start("kernel_who_speaks_over_ipv6_speaks_for_itself_alone") else {
        return;
    };
    let good = v4(AWAY_3, DB_2, UDP).bytes();
    assert_eq!(node.send(UNDERLAY, &from_v6(2).wrap(&good)).out.len(), 1);
    let of = |src: Ipv6Addr| Tunnel {
        src: src.into(),
        ..from_v6(2)
    };
    let spoofed = v4(WEB_1, DB_2, UDP).bytes();
    let cases = [
        (of(vtep_v6(99)).wrap(&good), DropReason::UnknownPeer),
        (of(vtep_v6(2)).wrap(&spoofed), DropReason::SourceNotThere),
        // What is remembered of the good one is no excuse, over whichever family.
        (from_node(3, SHOP).wrap(&good), DropReason::SourceNotThere),
    ];
    for (frame, reason) in cases {
        let fate = node.send(UNDERLAY, &frame);
        assert_eq!(fate.out, []);
        assert_eq!(fate.drops, BTreeMap::from([(reason, 1)]));
    }
    // The kernel's: to another address, and from nowhere.
    let elsewhere = Tunnel {
        dst: vtep_v6(9).into(),
        ..from_v6(2)
    };
    let nowhere = of(Ipv6Addr::UNSPECIFIED);
    // What a node without an IPv4 address is called within encrypted tunnels is nobody outside of them.
    let called = Tunnel {
        src: IpAddr::V4(Node::called(2)),
        ..from_node(2, SHOP)
    };
    for tunnel in [elsewhere, nowhere, called] {
        let fate = node.send(UNDERLAY, &tunnel.wrap(&good));
        assert_eq!((fate.out, fate.drops), (vec![], BTreeMap::new()));
    }
}

#[test]
fn kernel_what_has_moved_is_forwarded_over_the_family_of_its_new_home() {
    let test = "kernel_what_has_moved_is_forwarded_over_the_family_of_its_new_home";
    let Some(mut node) = start(test) else { return };
    for make in [v4, v6] {
        // IPv4 to IPv6: node 3 has no other, and it left to node 2.
        let inner = make(MOVED_9, LEFT_5, UDP).bytes();
        let fate = node.send(UNDERLAY, &from_node(3, SHOP).wrap(&inner));
        let onward = to_v6(2, 1, &inner);
        assert_eq!(fate.out, [(UNDERLAY.to_owned(), onward)], "{fate:?}");
        // IPv6 to IPv6.
        let inner = make(AWAY_3, GOING_7, UDP).bytes();
        let hops = Tunnel {
            hops: 3,
            ..from_v6(2)
        };
        let fate = node.send(UNDERLAY, &hops.wrap(&inner));
        let onward = to_v6(2, 4, &inner);
        assert_eq!(fate.out, [(UNDERLAY.to_owned(), onward)], "{fate:?}");
    }
    // IPv6 to IPv4.
    let mut desired = desired();
    desired.endpoints.get_mut(&LEFT_5.0).unwrap().node = 3;
    node.apply(&desired).unwrap();
    let inner = v4(AWAY_3, LEFT_5, UDP).bytes();
    let fate = node.send(UNDERLAY, &from_v6(2).wrap(&inner));
    let mut onward = to_node(3, SHOP, &inner);
    onward[49] = 1;
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), onward)], "{fate:?}");
    let last = Tunnel {
        hops: 7,
        ..from_v6(2)
    };
    let going = v4(AWAY_3, GOING_7, UDP).bytes();
    let fate = node.send(UNDERLAY, &last.wrap(&going));
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::HopLimit, 1)]));
    let coming = v4(AWAY_3, COMING_6, UDP).bytes();
    let fate = node.send(
        UNDERLAY,
        &Tunnel {
            hops: 1,
            ..from_v6(2)
        }
        .wrap(&coming),
    );
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::InTransit, 1)]));
}

#[test]
fn kernel_a_probe_over_ipv6_goes_back_to_the_node_that_it_came_from() {
    let test = "kernel_a_probe_over_ipv6_goes_back_to_the_node_that_it_came_from";
    let Some(mut node) = start(test) else { return };
    let question = probe::question(5, 0x0102_0304_0506_0708);
    let mut answer = question;
    answer[18..22].copy_from_slice(&probe::kind::ANSWER.to_be_bytes());
    let of_probes = |tunnel: Tunnel| Tunnel {
        vni: probe::NETWORK,
        ..tunnel
    };
    let fate = node.send(UNDERLAY, &of_probes(from_v6(2)).wrap(&question));
    let back = Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: node_mac(2),
        src: vtep_v6(1).into(),
        dst: vtep_v6(2).into(),
        vni: probe::NETWORK,
        hops: 0,
    };
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), back.wrap(&answer))]);
    assert_eq!(fate.drops, BTreeMap::new());
    let stranger = Tunnel {
        src: vtep_v6(99).into(),
        ..of_probes(from_v6(2))
    };
    let fate = node.send(UNDERLAY, &stranger.wrap(&question));
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::UnknownPeer, 1)]));
}

#[test]
fn kernel_a_node_without_ipv4_reaches_those_that_have_ipv6() {
    let test = "kernel_a_node_without_ipv4_reaches_those_that_have_ipv6";
    let Some(mut node) = start(test) else { return };
    node.at_addresses(None, Some(vtep_v6(1)));
    let mut desired = desired();
    let own = desired.nodes.get_mut(&1).unwrap();
    own.address = Node::called(1);
    desired.nodes.get_mut(&3).unwrap().address_v6 = Some(vtep_v6(3));
    node.resolve(vtep_v6(3), node_mac(3));
    node.apply(&desired).unwrap();
    let inner = v4(WEB_1, MOVED_9, UDP).bytes();
    let fate = node.send(WEB, &inner);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), to_v6(3, 0, &inner))]);
    // One that has IPv4 alone is out of reach.
    desired.nodes.get_mut(&3).unwrap().address_v6 = None;
    node.apply(&desired).unwrap();
    let fate = node.send(WEB, &inner);
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::NoRoute, 1)]));
}

#[test]
fn kernel_what_is_encrypted_is_wrapped_for_ipv4_whatever_the_tunnel_goes_over() {
    let test = "kernel_what_is_encrypted_is_wrapped_for_ipv4_whatever_the_tunnel_goes_over";
    let Some(mut node) = start(test) else { return };
    node.encrypt_by("ep6");
    node.dataplane().attach_tunnel("ep6").unwrap();
    let mut desired = desired();
    desired.encryption = EncryptionMode::Always;
    for (number, node) in &mut desired.nodes {
        node.public_keys = vec![sunwire_api::PublicKey([*number as u8; 32])];
    }
    node.apply(&desired).unwrap();
    let inner = v4(WEB_1, AWAY_3, UDP).bytes();
    let fate = node.send(WEB, &inner);
    let [(device, frame)] = &fate.out[..] else {
        panic!("{fate:?}");
    };
    assert_eq!(device, "ep6");
    assert_eq!(frame[26..30], VTEP.octets());
    assert_eq!(frame[30..34], Node::called(2).octets());
    assert_eq!(frame[50..], inner);
    // The way back; in the clear nothing is heard, over whichever family.
    let inner = v4(AWAY_3, DB_2, UDP).bytes();
    let called = Tunnel {
        src: IpAddr::V4(Node::called(2)),
        ..from_node(2, SHOP)
    };
    for _ in 0..2 {
        let fate = node.send("ep6", &called.wrap(&inner));
        assert_eq!(fate.out, [(DB.to_owned(), inner.clone())], "{fate:?}");
    }
    let fate = node.send(UNDERLAY, &from_v6(2).wrap(&inner));
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::Unencrypted, 1)]));
}

#[test]
fn kernel_a_foreign_peer_over_ipv6_is_decided_about_and_answered() {
    let test = "kernel_a_foreign_peer_over_ipv6_is_decided_about_and_answered";
    let Some(mut node) = start(test) else { return };
    let underlay = node.ifindex(UNDERLAY);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    // Addresses are local by routes that lead to the loopback device.
    for device in ["lo", "underlay0"] {
        let path = format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6");
        std::fs::write(path, "0").unwrap();
    }
    std::fs::write("/proc/sys/net/ipv6/conf/underlay0/accept_dad", "0").unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        netlink::set_up(&handle, "lo", 1).await.unwrap();
        let address = handle.address().add(underlay, IpAddr::V6(vtep_v6(1)), 64);
        address.execute().await.unwrap();
        let mut neighbour = handle.neighbours().add(underlay, IpAddr::V6(vtep_v6(6)));
        neighbour = neighbour.link_layer_address(&node_mac(6));
        neighbour.execute().await.unwrap();
        netlink::hold_tunnel_port(&handle, PORT_DEVICE, 4789)
            .await
            .unwrap();
    });
    node.dataplane().attach_foreign(4789, PORT_DEVICE).unwrap();
    let good = v4(FOREIGN_15, DB_2, UDP).bytes();
    let fate = node.send(UNDERLAY, &summed(from_v6(6).wrap(&good)));
    assert_eq!(without_reports(fate.out), [(DB.to_owned(), good)]);
    let denied = v4(FOREIGN_15, DB_2, Transport::Tcp(5000, port::DENIED));
    let fate = node.send(UNDERLAY, &summed(from_v6(6).wrap(&denied.bytes())));
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::Policy, 1)]));
    let asks = Arp {
        eth_src: FOREIGN_15.mac(),
        eth_dst: [0xff; 6],
        operation: 1,
        sender: (FOREIGN_15.mac(), FOREIGN_15.v4()),
        target: ([0; 6], DB_2.v4()),
    };
    let fate = node.send(UNDERLAY, &summed(from_v6(6).wrap(&asks.bytes())));
    let out = without_reports(fate.out);
    let [(device, answer)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(device, UNDERLAY);
    assert_eq!(answer[38..54], vtep_v6(6).octets());
    assert_ne!(answer[60..62], [0, 0], "Linux wants a checksum over IPv6");
    assert_eq!(answer[70 + 22..70 + 28], DB_2.mac());
}

/// What came out, without what the node's own IPv6 says to its link.
fn without_reports(out: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let is_wanted = |(_, frame): &(String, Vec<u8>)| frame[..2] != [0x33, 0x33];
    out.into_iter().filter(is_wanted).collect()
}

/// A tunnelled frame over IPv6 with its UDP checksum.
fn summed(mut frame: Vec<u8>) -> Vec<u8> {
    let header = etherparse::UdpHeader::from_slice(&frame[54..]).unwrap().0;
    let ip = etherparse::Ipv6Header::from_slice(&frame[14..]).unwrap().0;
    let sum = header.calc_checksum_ipv6(&ip, &frame[62..]).unwrap();
    frame[60..62].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn kernel_tshark_decodes_tunnels_over_ipv6_without_complaint() {
    let test = "kernel_tshark_decodes_tunnels_over_ipv6_without_complaint";
    if std::process::Command::new("tshark")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED {test}: no tshark");
        return;
    }
    let Some(mut node) = start(test) else { return };
    let mut frames = Vec::new();
    for make in [v4, v6] {
        for transport in [UDP, Transport::Tcp(5000, 6000), Transport::Icmp(8, 0)] {
            let fate = node.send(WEB, &make(WEB_1, AWAY_3, transport).bytes());
            frames.extend(fate.out.into_iter().map(|(_, frame)| frame));
        }
    }
    assert!(frames.len() >= 4, "{frames:?}");
    let capture = Capture::new(test, &frames);
    let in_tunnels = capture.matching("ipv6 && vxlan");
    assert_eq!(in_tunnels.lines().count(), frames.len());
    let complaints = capture.matching("_ws.malformed || _ws.expert.severity >= 8388608");
    assert_eq!(complaints, "");
}
