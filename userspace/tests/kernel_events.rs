//! What the programs tell of packets: the whole truth of each, within the limit, and nothing while
//! nobody listens.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use fixture::{devices::UNDERLAY, node::TestNode};
use packets::{
    Case, Expect,
    world::{self, AWAY_3, DB_2, SHOP, WEB, WEB_1, port},
};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    event::{Event, EventSettings, connection, program, verdict, why},
    probe,
    vxlan::VXLAN_OFFSET,
};
use sunwire_userspace::telemetry::{EventMaps, Losses};

use fixture::wire::{Transport, is_tunnel};

/// More than any test here tells in one window.
const PLENTY: u32 = 100_000;
const FRAME_BYTES: u32 = 192;

/// A node whose events are read by the test.
struct Listening {
    node: TestNode,
    maps: EventMaps,
}

impl Listening {
    fn start(test: &str, wanted: u32) -> Option<Self> {
        let mut node = world::start(test)?;
        let maps = node.dataplane().take_events().expect("nobody reads them");
        let mut listening = Listening { node, maps };
        listening.set(EventSettings {
            wanted,
            sample_below: u32::MAX,
            per_window: PLENTY,
            frame_bytes: FRAME_BYTES,
            ..EventSettings::default()
        });
        Some(listening)
    }

    fn set(&mut self, settings: EventSettings) {
        self.maps.settings.set(settings).unwrap();
    }

    fn events(&mut self) -> Vec<(Event, Vec<u8>)> {
        let mut events = Vec::new();
        self.maps
            .events
            .drain(|event, frame| events.push((event, frame.to_vec())));
        events
    }

    fn captured(&mut self) -> Vec<(Event, Vec<u8>)> {
        let mut events = Vec::new();
        self.maps
            .captured
            .drain(|event, frame| events.push((event, frame.to_vec())));
        events
    }

    fn run(&mut self, case: &Case) -> Vec<(Event, Vec<u8>)> {
        let metadata = case.metadata.unwrap_or_default();
        let _ = self.node.test_run_with(case.device, &case.frame, metadata);
        self.events()
    }
}

fn udp(dst_port: u16) -> Transport {
    Transport::Udp(40_000, dst_port)
}

#[test]
fn every_drop_is_told_with_its_reason_and_frame() {
    let test = "every_drop_is_told_with_its_reason_and_frame";
    let Some(mut listening) = Listening::start(test, why::DROP) else {
        return;
    };
    let labels = listening.node.dataplane().label_slots();
    for case in packets::all() {
        let name = case.name;
        let events = listening.run(&case);
        let reasons: Vec<u32> = events.iter().map(|(event, _)| event.reason).collect();
        match case.expect {
            Expect::Drop(reason) | Expect::OutAndDrop(_, reason) => {
                assert_eq!(reasons, [reason as u32], "{name}");
            }
            _ => assert!(reasons.is_empty(), "{name}"),
        }
        let Expect::Drop(reason) = case.expect else {
            continue;
        };
        let (event, frame) = &events[0];
        assert_eq!(event.verdict, verdict::DROPPED, "{name}");
        assert_eq!(event.why, why::DROP, "{name}");
        assert_eq!(event.ifindex, listening.node.ifindex(case.device), "{name}");
        let length = case.frame.len().min(FRAME_BYTES as usize);
        let rewritten = matches!(
            reason,
            DropReason::NoOwner
                | DropReason::NotAttached
                | DropReason::NoRoute
                | DropReason::NotRewritable
        );
        if !rewritten {
            assert_eq!(frame[..], case.frame[..length], "{name}");
        }
        assert_eq!(event.length as usize, case.frame.len(), "{name}");
        let is_underlay = case.device == UNDERLAY;
        assert_eq!(event.program == program::UNDERLAY, is_underlay, "{name}");
        assert_eq!(event.outer != 0, is_underlay, "{name}");
        if let Some((vni, label)) = case.label {
            let slot = event.label.checked_sub(1).expect("a label decided");
            assert_eq!(labels[&slot], (vni, label.to_owned()), "{name}");
            assert_eq!(event.network, vni, "{name}");
        }
    }
    assert_eq!(listening.maps.settings.losses().unwrap(), Losses::default());
}

#[test]
fn a_sampled_packet_is_told_as_it_came_and_with_where_it_went() {
    let test = "a_sampled_packet_is_told_as_it_came_and_with_where_it_went";
    let Some(mut listening) = Listening::start(test, why::SAMPLE) else {
        return;
    };
    for (destination, node) in [(DB_2, 0), (AWAY_3, 2)] {
        let frame = world::v4(WEB_1, destination, udp(port::SETS_ALL)).bytes();
        let frame = if node == 0 {
            frame
        } else {
            world::v4(WEB_1, destination, udp(4000)).bytes()
        };
        let _ = listening.node.test_run(WEB, &frame);
        let events = listening.events();
        assert_eq!(events.len(), 1, "{events:?}");
        let (event, told) = &events[0];
        assert_eq!(event.verdict, verdict::FORWARDED);
        assert_eq!(event.why, why::SAMPLE);
        assert_eq!((event.network, event.source), (SHOP, WEB_1.0));
        assert_eq!((event.destination, event.node), (destination.0, node));
        assert_eq!((event.outer, event.length), (0, frame.len() as u32));
        assert_eq!(told[..], frame[..told.len()], "before any rewriting");
    }
    // Every forwarded packet of the tables is told once for each copy.
    for case in packets::all() {
        let copies = match &case.expect {
            Expect::Pass => 0,
            // The tunnel's own packet, and of no endpoint.
            Expect::Out(_) | Expect::Consumed if is_probe(&case.frame) => 0,
            Expect::Out(out) => out.len(),
            // The answer to a packet that is dropped is no copy of it.
            Expect::OutAndDrop(_, DropReason::TooBig) => 1,
            Expect::OutAndDrop(out, _) => out.len() + 1,
            Expect::Drop(_) | Expect::Consumed | Expect::Asks(_) => 1,
        };
        let events = listening.run(&case);
        assert_eq!(events.len(), copies, "{}: {events:?}", case.name);
        for (event, _) in &events {
            assert_ne!(event.why & why::SAMPLE, 0, "{}", case.name);
        }
    }
}

/// Whether a frame is a tunnel's, of the network that probes are in.
fn is_probe(frame: &[u8]) -> bool {
    let vni = VXLAN_OFFSET + 4;
    is_tunnel(frame) && frame[vni..vni + 3] == probe::NETWORK.to_be_bytes()[1..]
}

#[test]
fn the_first_packet_of_a_flow_is_told_and_no_later_one() {
    let test = "the_first_packet_of_a_flow_is_told_and_no_later_one";
    let Some(mut listening) = Listening::start(test, why::NEW) else {
        return;
    };
    for port in [4000, 4001] {
        let frame = world::v4(WEB_1, DB_2, udp(port)).bytes();
        for round in 0..3 {
            let _ = listening.node.test_run(WEB, &frame);
            let events = listening.events();
            assert_eq!(events.len(), usize::from(round == 0), "{events:?}");
            for (event, told) in &events {
                assert_eq!(event.why, why::NEW);
                assert_eq!(event.connection, connection::NEW);
                assert_eq!(event.verdict, verdict::FORWARDED);
                assert_eq!(event.destination, DB_2.0);
                assert_eq!(told[..], frame[..], "as it came");
            }
        }
    }
    // Sampled, later packets are told, and that their flow is known.
    listening.set(EventSettings {
        wanted: why::NEW | why::SAMPLE,
        sample_below: u32::MAX,
        per_window: PLENTY,
        frame_bytes: FRAME_BYTES,
        ..EventSettings::default()
    });
    let frame = world::v4(WEB_1, DB_2, udp(4000)).bytes();
    let _ = listening.node.test_run(WEB, &frame);
    let events = listening.events();
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].0.why, why::SAMPLE);
    assert_eq!(events[0].0.connection, connection::ESTABLISHED);
}

#[test]
fn nothing_is_told_while_nobody_listens() {
    let Some(mut listening) = Listening::start("nothing_is_told_while_nobody_listens", 0) else {
        return;
    };
    for case in packets::all() {
        let events = listening.run(&case);
        assert!(events.is_empty(), "{}: {events:?}", case.name);
    }
    assert!(listening.captured().is_empty());
    assert_eq!(listening.maps.settings.losses().unwrap(), Losses::default());
}

#[test]
fn a_flood_of_drops_is_limited_and_counted() {
    let Some(mut listening) = Listening::start("a_flood_of_drops_is_limited_and_counted", 0) else {
        return;
    };
    listening.set(EventSettings {
        wanted: why::DROP,
        per_window: 3,
        frame_bytes: FRAME_BYTES,
        ..EventSettings::default()
    });
    let frame = world::v4(WEB_1, DB_2, udp(port::DENIED)).bytes();
    let packets = 500;
    for _ in 0..packets {
        let _ = listening.node.test_run(WEB, &frame);
    }
    let events = listening.events();
    let mut by_window = std::collections::BTreeMap::<u64, usize>::new();
    for (event, _) in &events {
        let window = event.time_ns >> sunwire_dataplane_common::event::WINDOW_SHIFT;
        *by_window.entry(window).or_default() += 1;
    }
    // A window is per CPU, and the test stays on one.
    assert!(by_window.values().all(|told| *told <= 3), "{by_window:?}");
    assert!(by_window.values().any(|told| *told == 3), "{by_window:?}");
    let losses = listening.maps.settings.losses().unwrap();
    assert_eq!(events.len() as u64 + losses.limited, packets);
    assert!(losses.limited > 0);
    assert_eq!(losses.full, 0);
}

#[test]
fn what_a_full_ring_cannot_take_is_counted() {
    let Some(mut listening) =
        Listening::start("what_a_full_ring_cannot_take_is_counted", why::DROP)
    else {
        return;
    };
    let frame = world::v4(WEB_1, DB_2, udp(port::DENIED)).bytes();
    // A record has 8 bytes of the kernel's own, and the ring 1 MiB.
    let packets = (1 << 20) / (64 + frame.len() as u64) + 100;
    for _ in 0..packets {
        let _ = listening.node.test_run(WEB, &frame);
    }
    let told = listening.events().len() as u64;
    let losses = listening.maps.settings.losses().unwrap();
    assert!(losses.full > 0);
    assert_eq!(told + losses.full + losses.limited, packets);
    // What was read makes room again.
    let _ = listening.node.test_run(WEB, &frame);
    assert_eq!(listening.events().len(), 1);
}

#[test]
fn a_capture_has_the_packets_of_its_endpoint_and_no_others() {
    let test = "a_capture_has_the_packets_of_its_endpoint_and_no_others";
    let Some(mut listening) = Listening::start(test, 0) else {
        return;
    };
    listening.set(EventSettings {
        wanted: why::CAPTURE | why::DROP,
        per_window: PLENTY,
        frame_bytes: 64,
        capture_endpoint: DB_2.0,
        capture_bytes: 4096,
        ..EventSettings::default()
    });
    let to_db = world::v4(WEB_1, DB_2, udp(4000)).bytes();
    let to_away = world::v4(WEB_1, AWAY_3, udp(4000)).bytes();
    let _ = listening.node.test_run(WEB, &to_db);
    let _ = listening.node.test_run(WEB, &to_away);
    let _ = listening.node.test_run(
        world::DB,
        &world::v4(DB_2, WEB_1, udp(port::DENIED)).bytes(),
    );
    let captured = listening.captured();
    // Dropped before anybody knew where it would have gone.
    let denied = world::v4(WEB_1, DB_2, udp(port::DENIED)).bytes();
    let _ = listening.node.test_run(WEB, &denied);
    let captured: Vec<_> = captured.into_iter().chain(listening.captured()).collect();
    let seen: Vec<_> = captured
        .iter()
        .map(|(event, _)| (event.source, event.destination, event.verdict))
        .collect();
    let expected = [
        (WEB_1.0, DB_2.0, verdict::FORWARDED),
        (DB_2.0, 0, verdict::DROPPED),
        (WEB_1.0, 0, verdict::DROPPED),
    ];
    assert_eq!(seen, expected);
    assert_eq!(captured[0].1, to_db, "the whole frame, as it came");
    // The drop is an event, too, with its own part of the frame.
    let events = listening.events();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0].1.len(), 64);
    assert_eq!(events[0].0.why, why::DROP | why::CAPTURE);
}
