//! Bytes that nobody can be trusted with: real messages with a few of them changed, and garbage.
//! Nothing panics, and whatever comes back goes to the one who asked.

use std::{net::Ipv6Addr, sync::Arc, time::Instant};

use etherparse::PacketBuilder;
use proptest::{collection::vec, prelude::*};
use sunwire_dataplane_common::punt::{Kind, PuntHeader};

use super::{SHOP, WEB, WEB_MAC, asker, bytes, directory, hex};
use crate::services::{
    dhcp4::{self, Dhcp4},
    dhcp6::{self, Dhcp6},
    dns::{
        answer,
        message::{self, Limit},
        stack::Stack,
        upstream,
    },
    handler::{Answer, Handlers, Node},
    igmp, mld,
    ring::Punt,
    router::{self, Router},
};

/// Messages of clients as they are.
fn messages() -> Vec<Vec<u8>> {
    let mut dhcp4 = bytes("01010600 12345678 00000000 00000000 00000000 00000000 00000000");
    dhcp4.extend(WEB_MAC);
    dhcp4.resize(236, 0);
    dhcp4.extend(bytes(
        "63825363 350101 3204 0a14000b 3d07 01 020000000011 370403061a1c 0c03 776562 ff",
    ));
    let dhcp6 = bytes(
        "01 010203 0001 000a 0003 0001 020000000011 0006 0004 0017 0018 0008 0002 0000 \
         0003 0028 00000009 00000000 00000000 0005 0018 fd000020000000000000000000000077 \
         00000000 00000000 0019 000c 0000000b 00000000 00000000",
    );
    let dns = bytes(
        "1234 0100 0001 0000 0000 0001 04 77656231 04 73686f70 08 696e7465726e616c 00 0001 0001 \
         00 0029 04d0 0000 8000 0000",
    );
    let pointer = bytes(
        "1234 0100 0001 0000 0000 0000 02 3131 01 30 02 3230 02 3130 07 696e2d61646472 04 61727061 \
         00 000c 0001",
    );
    vec![dhcp4, dhcp6, dns, pointer]
}

/// A frame of `web1` with a payload, for a handler.
fn frame_of(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11).octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2).octets();
    let ethernet = PacketBuilder::ethernet2(WEB_MAC, [2, 0x53, 0x57, 0, 0, 1]);
    let mut frame = Vec::new();
    let written = match kind {
        Kind::Dhcp6 => {
            let udp = ethernet.ipv6(local, group, 64).udp(546, 547);
            udp.write(&mut frame, payload)
        }
        Kind::Dhcp4 => {
            let udp = ethernet.ipv4([0; 4], [255; 4], 64).udp(68, 67);
            udp.write(&mut frame, payload)
        }
        _ => {
            let udp = ethernet
                .ipv4([10, 20, 0, 11], [10, 20, 0, 1], 64)
                .udp(4242, 53);
            udp.write(&mut frame, payload)
        }
    };
    written.unwrap();
    frame
}

/// A message with some bytes changed and perhaps its end cut off.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    let message = prop::sample::select(messages());
    let cut = prop::option::of(any::<prop::sample::Index>());
    let mutated = (message, changes, cut).prop_map(|(mut message, changes, cut)| {
        for (index, byte) in changes {
            let at = index.index(message.len());
            message[at] = byte;
        }
        if let Some(cut) = cut {
            message.truncate(cut.index(message.len() + 1));
        }
        message
    });
    prop_oneof![4 => mutated, 1 => vec(any::<u8>(), 0..700)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_message_harms_a_service(bytes in mutated()) {
        let directory = directory();
        for number in 1..=4 {
            let asker = asker(&directory, number);
            let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
            let answers = [
                dhcp4::answer(&asker, &bytes).ok().flatten(),
                dhcp6::answer(&asker, local, &bytes).ok().flatten(),
            ];
            for frame in answers.into_iter().flatten() {
                let (from, _, _) = super::datagram(&frame);
                prop_assert!(from.starts_with("02:53:57:00:00:01 "), "{from}");
                let to: &[u8] = &frame[..6];
                let is_to_asker = to == asker.member.mac || to == [0xff; 6];
                prop_assert!(is_to_asker, "{}", hex(&frame));
                // It fits into a packet of the network.
                prop_assert!(frame.len() <= 14 + 1300);
            }
            let _ = answer::outcome(&asker, &directory, &bytes, Limit::Packet(1300));
        }
    }

    #[test]
    fn no_frame_harms_a_handler(
        payload in mutated(),
        kind in prop::sample::select(vec![Kind::Dhcp4, Kind::Dhcp6, Kind::RouterSolicitation]),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut frame = frame_of(kind, &payload);
        for (index, byte) in changes {
            let at = index.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        let mut handlers = Handlers::default();
        handlers.add(&[Kind::Dhcp4], Dhcp4);
        handlers.add(&[Kind::Dhcp6], Dhcp6);
        handlers.add(&[Kind::RouterSolicitation], Router::default());
        let directory = Arc::new(directory());
        let mut answers: Vec<Answer> = Vec::new();
        let punt = Punt { kind, ifindex: WEB, endpoint: 1, network: SHOP, frame: &frame };
        let mut node = Node { directory: &directory, now: Instant::now(), answers: &mut answers };
        let _ = handlers.asked(&punt, &mut node);
        prop_assert!(answers.len() <= 1);
        prop_assert!(answers.iter().all(|answer| answer.ifindex == WEB && answer.endpoint == 1));
        let _ = router::answer(&asker(&directory, 1), &frame);
    }

    #[test]
    fn no_report_harms(
        report in prop::sample::select(super::listening::frames()),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut report = report;
        for (index, byte) in changes {
            let at = index.index(report.len());
            report[at] = byte;
        }
        report.truncate(cut.index(report.len() + 1));
        for reports in [igmp::reports(&report), mld::reports(&report)].into_iter().flatten() {
            prop_assert!(reports.len() <= report.len() / 8);
        }
    }

    #[test]
    fn no_answer_of_a_resolver_harms(bytes in mutated(), id in any::<u16>()) {
        let directory = directory();
        let query = &messages()[2];
        let web = asker(&directory, 1);
        if let Ok(answer::Outcome::Forward(forward)) =
            answer::outcome(&web, &directory, &foreign(query), Limit::Packet(1300))
        {
            let question = &forward.asked.queries[0];
            let _ = message::is_answer(&bytes, id, question);
            let relayed = message::relay(bytes, &forward.asked, forward.limit);
            prop_assert!(relayed.len() <= 1300);
        } else {
            prop_assert!(false, "it is forwarded");
        }
    }

    #[test]
    fn no_packet_harms_the_stack(
        packets in vec((vec(any::<u8>(), 0..120), any::<bool>()), 0..20),
    ) {
        let directory = directory();
        let now = Instant::now();
        let mut stack = Stack::new(asker(&directory, 1).network, now);
        for (mut packet, is_segment) in packets {
            // Often enough something that is taken for a segment to the port.
            if is_segment && packet.len() >= 40 {
                let length = (packet.len() as u16).to_be_bytes();
                packet[..4].copy_from_slice(&[0x45, 0, length[0], length[1]]);
                packet[6..10].copy_from_slice(&[0, 0, 64, 6]);
                packet[12..20].copy_from_slice(&[10, 20, 0, 11, 10, 20, 0, 1]);
                packet[22..24].copy_from_slice(&[0, 53]);
                packet[32] = 0x50 | packet[32] & 0x0f;
            }
            stack.receive(&packet);
            let (asked, out) = stack.poll(now);
            prop_assert!(asked.len() <= 128);
            prop_assert!(out.len() <= 64);
        }
    }

    #[test]
    fn no_configuration_harms(text in "(nameserver|[ \t#.:0-9a-f]|\n){0,60}") {
        prop_assert!(upstream::parse(&text).len() <= 3);
    }

    #[test]
    fn no_record_harms(bytes in vec(any::<u8>(), 0..80)) {
        if let Some((header, frame)) = PuntHeader::split(&bytes) {
            prop_assert_eq!(frame.len(), header.length as usize);
        }
        let _ = Punt::parse(&bytes);
    }
}

/// The same query for another name.
fn foreign(query: &[u8]) -> Vec<u8> {
    let mut query = query.to_vec();
    query[18] = b'x';
    query
}
