//! Networks with outer UDP checksums: what is sent to other nodes has the right one, whatever it is and by
//! whichever way it goes; what comes is taken with any; and nobody else's packets change.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::{collections::BTreeMap, net::Ipv6Addr};

use fixture::{
    capture::Capture,
    devices::UNDERLAY,
    node::{TestNode, VTEP},
    tap::{Packet, Tap},
    test_run::{self, Action, Metadata},
    wire::{Frame, Transport, Tunnel, assert_valid, outer_checksum, summed, with_outer_checksum},
};
use packets::world::{
    self, AWAY_3, DB, DB_2, GOING_7, SHOP, WEB, WEB_1, Who, from_node, node_mac, to_node, v4, v6,
};
use sunwire_api::{EncryptionMode, NetworkEncryption, PublicKey};
use sunwire_dataplane_common::drop_reason::DropReason;
use sunwire_userspace::{
    maps::Capacity,
    state::{Desired, Node},
};

const UDP: Transport = Transport::Udp(5000, 6000);
const TCP: Transport = Transport::Tcp(5000, 6000);

fn desired() -> Desired {
    let mut desired = world::desired();
    desired.networks.get_mut(&SHOP).unwrap().checksum = true;
    desired
}

fn start(test: &str) -> Option<TestNode> {
    let mut node = world::start(test)?;
    node.write_checksums();
    node.apply(&desired()).unwrap();
    Some(node)
}

fn vtep_v6(number: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number)
}

/// The tunnel to node 2 or from it, over IPv6.
fn tunnel_v6(from: u16, to: u16) -> Tunnel {
    let mac = |number: u16| match number {
        1 => fixture::devices::UNDERLAY_MAC,
        _ => node_mac(number.into()),
    };
    Tunnel {
        src: vtep_v6(from).into(),
        dst: vtep_v6(to).into(),
        eth_src: mac(from),
        eth_dst: mac(to),
        ..from_node(2, SHOP)
    }
}

/// Has node 2 be reached over IPv6 alone.
fn over_ipv6(node: &mut TestNode, desired: &mut Desired) {
    node.at_addresses(Some(VTEP), Some(vtep_v6(1)));
    node.resolve(vtep_v6(2), node_mac(2));
    desired.nodes.get_mut(&1).unwrap().address_v6 = Some(vtep_v6(1));
    let other = desired.nodes.get_mut(&2).unwrap();
    (other.address, other.address_v6) = (Node::called(2), Some(vtep_v6(2)));
    node.apply(desired).unwrap();
}

/// Runs the program behind the device on a wrapped packet that is to go out of a device.
fn write(node: &mut TestNode, frame: &[u8], metadata: Metadata) -> (Action, Vec<u8>) {
    let metadata = Metadata {
        ifindex: 1,
        ..metadata
    };
    let program = node.dataplane().checksum_program().unwrap();
    test_run::run(program, frame, metadata)
}

const TO_SOMEWHERE: Metadata = Metadata {
    ifindex: 0,
    mark: 1,
    gso_size: 0,
};

#[test]
fn kernel_an_outer_checksum_is_that_of_the_whole_packet_however_long() {
    let test = "kernel_an_outer_checksum_is_that_of_the_whole_packet_however_long";
    let Some(mut node) = start(test) else { return };
    // Around the pieces in which it is summed up, odd ones too, and as long as a test run takes.
    let payloads = (0..12)
        .chain(140..150)
        .chain(205..215)
        .chain([1200, 1201, 3001]);
    for payload in payloads {
        for make in [v4, v6] {
            let frame = Frame {
                payload,
                ..make(WEB_1, AWAY_3, UDP)
            };
            for outer in [from_node(2, SHOP), tunnel_v6(1, 2)] {
                let wrapped = outer.wrap(&frame.bytes());
                // What stands there before does not matter.
                for before in [0, 0xffff, 0x1234] {
                    let given = with_outer_checksum(wrapped.clone(), before);
                    let (action, sent) = write(&mut node, &given, TO_SOMEWHERE);
                    assert_eq!(action, Action::Redirect);
                    assert_eq!(summed(sent), wrapped, "{payload} bytes");
                }
            }
        }
    }
}

#[test]
fn kernel_an_outer_checksum_is_these_bytes() {
    let Some(mut node) = start("kernel_an_outer_checksum_is_these_bytes") else {
        return;
    };
    // Worked out by hand from RFC 768: 192.0.2.2 to 192.0.2.1, 11 and 28, ports c000 and 12b5, 001c, VXLAN
    // 0800 0000 0000 6400, and an inner frame of 12 bytes, each pair 0101.
    let frame = from_node(2, SHOP).wrap(&[1; 12]);
    assert_eq!(frame.len(), 62);
    let (action, sent) = write(&mut node, &frame, TO_SOMEWHERE);
    assert_eq!(action, Action::Redirect);
    assert_eq!(outer_checksum(&sent), 0x36f6, "{sent:02x?}");
    let frame = tunnel_v6(2, 1).wrap(&[1; 13]);
    let (_, sent) = write(&mut node, &frame, TO_SOMEWHERE);
    assert_eq!(outer_checksum(&sent), 0x5e83, "{sent:02x?}");
}

#[test]
fn kernel_a_checksum_of_zero_is_sent_as_all_ones() {
    let Some(mut node) = start("kernel_a_checksum_of_zero_is_sent_as_all_ones") else {
        return;
    };
    for outer in [from_node(2, SHOP), tunnel_v6(1, 2)] {
        let mut frame = outer.wrap(&[0; 60]);
        let (_, sent) = write(&mut node, &frame, TO_SOMEWHERE);
        // What is missing to all ones, at an even place.
        let last = frame.len() - 2;
        frame[last..].copy_from_slice(&outer_checksum(&sent).to_be_bytes());
        let (_, sent) = write(&mut node, &frame, TO_SOMEWHERE);
        assert_eq!(outer_checksum(&sent), 0xffff);
    }
}

#[test]
fn kernel_what_was_not_sent_for_a_checksum_gets_none() {
    let Some(mut node) = start("kernel_what_was_not_sent_for_a_checksum_gets_none") else {
        return;
    };
    let frame = from_node(2, SHOP).wrap(&v4(WEB_1, AWAY_3, UDP).bytes());
    let mut drops = |frame: &[u8], metadata| {
        let drops = |node: &mut TestNode| -> BTreeMap<DropReason, u64> {
            let totals = node.dataplane().totals().unwrap().drops;
            let packets = totals
                .iter()
                .map(|(reason, total)| (*reason, total.packets));
            packets.collect()
        };
        let before = drops(&mut node);
        let (action, _) = write(&mut node, frame, metadata);
        assert_eq!(action, Action::Shot);
        let mut after = drops(&mut node);
        after.retain(|reason, count| {
            *count -= before.get(reason).copied().unwrap_or(0);
            *count > 0
        });
        after
    };
    // Nobody has said where to: it is none of ours.
    assert_eq!(drops(&frame, Metadata::default()), BTreeMap::new());
    let whole = Metadata {
        gso_size: 20,
        ..TO_SOMEWHERE
    };
    let expected = BTreeMap::from([(DropReason::NoChecksum, 1)]);
    assert_eq!(drops(&frame, whole), expected, "one sum for several");
    let expected = BTreeMap::from([(DropReason::Malformed, 1)]);
    assert_eq!(drops(&frame[..40], TO_SOMEWHERE), expected);
    let mut arp = frame.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(drops(&arp, TO_SOMEWHERE), expected);
}

#[test]
fn kernel_packets_of_a_network_with_checksums_have_them_and_no_others() {
    let test = "kernel_packets_of_a_network_with_checksums_have_them_and_no_others";
    let Some(mut node) = start(test) else { return };
    for make in [v4, v6] {
        for transport in [UDP, TCP, Transport::Icmp(8, 0)] {
            let inner = make(WEB_1, AWAY_3, transport).bytes();
            // The second one by what is remembered of the first.
            for _ in 0..2 {
                let [(device, frame)] = <[_; 1]>::try_from(node.send_raw(WEB, &inner)).unwrap();
                assert_eq!(device, UNDERLAY);
                assert_eq!(summed(frame), to_node(2, SHOP, &inner));
            }
        }
    }
    // Back to none, without an agent's restart.
    node.apply(&world::desired()).unwrap();
    let inner = v4(WEB_1, AWAY_3, UDP).bytes();
    let fate = node.send(WEB, &inner);
    assert_eq!(fate.out, [(UNDERLAY.to_owned(), to_node(2, SHOP, &inner))]);
}

#[test]
fn kernel_packets_over_ipv6_have_checksums_too() {
    let Some(mut node) = start("kernel_packets_over_ipv6_have_checksums_too") else {
        return;
    };
    over_ipv6(&mut node, &mut desired());
    for make in [v4, v6] {
        let inner = make(WEB_1, AWAY_3, UDP).bytes();
        let [(device, frame)] = <[_; 1]>::try_from(node.send_raw(WEB, &inner)).unwrap();
        assert_eq!(device, UNDERLAY);
        assert_eq!(summed(frame), tunnel_v6(1, 2).wrap(&inner));
    }
}

#[test]
fn kernel_any_outer_checksum_is_taken_and_what_goes_on_has_a_right_one() {
    let test = "kernel_any_outer_checksum_is_taken_and_what_goes_on_has_a_right_one";
    let Some(mut node) = start(test) else { return };
    for checksums in [true, false] {
        if !checksums {
            node.apply(&world::desired()).unwrap();
        }
        for checksum in [0, 0x1234, 0xffff] {
            let inner = v4(AWAY_3, DB_2, UDP).bytes();
            let wrapped = from_node(2, SHOP).wrap(&inner);
            let fate = node.send(UNDERLAY, &with_outer_checksum(wrapped, checksum));
            assert_eq!(fate.out, [(DB.to_owned(), inner)], "{fate:?}");
            // What has moved is sent on, under other addresses.
            let inner = v4(AWAY_3, GOING_7, UDP).bytes();
            let wrapped = from_node(2, SHOP).wrap(&inner);
            let sent = node.send_raw(UNDERLAY, &with_outer_checksum(wrapped, checksum));
            let [(device, frame)] = <[_; 1]>::try_from(sent).unwrap();
            assert_eq!(device, UNDERLAY);
            let on = Tunnel {
                hops: 1,
                ..tunnel_to_2()
            };
            if checksums || checksum != 0 {
                assert_eq!(summed(frame), on.wrap(&inner));
            } else {
                assert_eq!(outer_checksum(&frame), 0);
            }
        }
    }
}

/// As this node sends to node 2.
fn tunnel_to_2() -> Tunnel {
    Tunnel {
        src: VTEP.into(),
        dst: world::vtep(2).into(),
        eth_src: fixture::devices::UNDERLAY_MAC,
        eth_dst: node_mac(2),
        ..from_node(2, SHOP)
    }
}

#[test]
fn kernel_without_the_device_for_checksums_packets_are_dropped_and_counted() {
    let test = "kernel_without_the_device_for_checksums_packets_are_dropped_and_counted";
    let Some(mut node) = world::start(test) else {
        return;
    };
    node.apply(&desired()).unwrap();
    for make in [v4, v6] {
        let fate = node.send(WEB, &make(WEB_1, AWAY_3, UDP).bytes());
        assert_eq!(fate.out, []);
        assert_eq!(fate.drops, BTreeMap::from([(DropReason::NoChecksum, 1)]));
    }
    // What stays here needs none.
    let inner = v4(WEB_1, DB_2, UDP).bytes();
    assert_eq!(node.send(WEB, &inner).out, [(DB.to_owned(), inner)]);
}

#[test]
fn kernel_what_is_encrypted_has_no_outer_checksum_within_its_tunnel() {
    let test = "kernel_what_is_encrypted_has_no_outer_checksum_within_its_tunnel";
    let Some(mut node) = start(test) else { return };
    node.encrypt_by("ep6");
    node.dataplane().attach_tunnel("ep6").unwrap();
    for always in [true, false] {
        let mut desired = desired();
        if always {
            desired.encryption = EncryptionMode::Always;
        } else {
            desired.networks.get_mut(&SHOP).unwrap().encryption = NetworkEncryption::Required;
        }
        for (number, node) in &mut desired.nodes {
            node.public_keys = vec![PublicKey([*number as u8; 32])];
        }
        node.apply(&desired).unwrap();
        let fate = node.send(WEB, &v4(WEB_1, AWAY_3, UDP).bytes());
        let [(device, frame)] = &fate.out[..] else {
            panic!("{fate:?}");
        };
        assert_eq!(device, "ep6");
        assert_eq!(outer_checksum(frame), 0);
    }
}

/// Payload of a segment and of a whole super-packet, the last segment of which is odd.
const SEGMENT: usize = 1001;
const WHOLE: usize = 3 * SEGMENT + 77;

#[test]
fn kernel_each_segment_of_a_super_packet_has_its_own_outer_checksum() {
    let test = "kernel_each_segment_of_a_super_packet_has_its_own_outer_checksum";
    for v6_outside in [false, true] {
        let Some(mut node) = TestNode::new(test, 1, Capacity::default()) else {
            return;
        };
        let Some(mut tap) = Tap::new(test, DB, true) else {
            return;
        };
        node.devices.refresh();
        node.resolve(world::vtep(2), node_mac(2));
        node.write_checksums();
        let mut desired = desired();
        node.apply(&desired).unwrap();
        if v6_outside {
            over_ipv6(&mut node, &mut desired);
        }
        let makes: [fn(Who, Who, Transport) -> Frame; 2] = [v4, v6];
        let transports = match tap.sends_datagrams_whole() {
            true => &[TCP, UDP][..],
            // A kernel before Linux 6.2 has no way for them to come in.
            false => &[TCP],
        };
        let cases = makes
            .iter()
            .flat_map(|make| transports.iter().map(move |&transport| (make, transport)));
        for (make, transport) in cases {
            let frame = |payload| Frame {
                payload,
                ..make(DB_2, AWAY_3, transport)
            };
            let inner = frame(WHOLE).bytes();
            let headers = frame(0).bytes().len();
            tap.send(&Packet::whole(inner.clone(), SEGMENT as u16));
            let sent = node.devices.flush();
            assert_eq!(sent.len(), 4, "{sent:?}");
            let mut payload = Vec::new();
            for (device, frame) in &sent {
                assert_eq!(device, UNDERLAY);
                // The inner checksums, too, which its sender had left to a card.
                assert_valid(frame);
                let frame = summed(frame.clone());
                let outer = if v6_outside { 70 } else { 50 };
                payload.push(frame[outer + headers..].to_vec());
            }
            payload
                .sort_by_key(|part| inner[headers..].windows(part.len()).position(|w| w == part));
            assert_eq!(payload.concat().len(), WHOLE);
            // An ordinary packet whose checksum its sender has left to a card.
            let inner = frame(100).bytes();
            let unfinished = Packet {
                gso_size: 0,
                ..Packet::whole(inner.clone(), 0)
            };
            tap.send(&unfinished);
            let [(_, frame)] = <[_; 1]>::try_from(node.devices.flush()).unwrap();
            let expected = match v6_outside {
                true => tunnel_v6(1, 2).wrap(&inner),
                false => to_node(2, SHOP, &inner),
            };
            assert_eq!(summed(frame), expected);
        }
    }
}

#[test]
fn kernel_tshark_finds_every_outer_checksum_right() {
    let test = "kernel_tshark_finds_every_outer_checksum_right";
    let version = std::process::Command::new("tshark")
        .arg("--version")
        .output();
    if version.is_err() {
        eprintln!("SKIPPED {test}: no tshark");
        return;
    }
    for v6_outside in [false, true] {
        let Some(mut node) = start(test) else { return };
        if v6_outside {
            over_ipv6(&mut node, &mut desired());
        }
        let mut frames = Vec::new();
        for make in [v4, v6] {
            for transport in [UDP, TCP, Transport::Icmp(8, 0)] {
                let sent = node.send_raw(WEB, &make(WEB_1, AWAY_3, transport).bytes());
                frames.extend(sent.into_iter().map(|(_, frame)| frame));
            }
        }
        let capture = Capture::new(test, &frames);
        // Each has one outside, and where inside is UDP another one.
        let good =
            capture.matching("vxlan && udp.checksum.status == \"Good\" && udp.checksum != 0");
        assert_eq!(good.lines().count(), 6, "{good}");
        let complaints = capture.matching("_ws.malformed || _ws.expert.severity >= 8388608");
        assert_eq!(complaints, "");
        // It does look: one bit in the payload, and it says so.
        let last = frames[0].len() - 1;
        frames[0][last] ^= 1;
        let capture = Capture::new(test, &frames[..1]);
        assert_ne!(capture.matching("udp.checksum.status == \"Bad\""), "");
    }
}
