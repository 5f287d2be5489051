//! A trace says what the data plane does, packet by packet, and changes nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::collections::BTreeMap;

use fixture::{
    devices::UNDERLAY,
    node::TestNode,
    test_run::{Action, Metadata},
    wire,
};
use packets::world::{self, WEB};
use sunwire_dataplane_common::{drop_reason::DropReason, event::EventSettings};
use sunwire_userspace::telemetry::step::{Arrival, Step, StepOutcome};

/// Traces a packet, then sends it, and compares.
fn check(node: &mut TestNode, device: &str, frame: &[u8], metadata: Metadata, name: &str) {
    let arrival = Arrival {
        ifindex: node.ifindex(device),
        underlay: device == UNDERLAY,
        frame,
        gso_size: metadata.gso_size,
    };
    let before = node.dataplane().totals().unwrap();
    let traced = node.dataplane().trace(&arrival);
    assert_eq!(
        node.dataplane().totals().unwrap(),
        before,
        "{name}: a trace counts nothing"
    );
    assert_eq!(node.devices.flush(), [], "{name}: a trace sends nothing");
    let steps = traced.unwrap_or_else(|error| panic!("{name}: {error:?}"));

    let ran = node.test_run_with(device, frame, metadata);
    let first = &steps[0];
    // Whose sender is told: the answer goes out in its place.
    let is_answered =
        first.outcome == StepOutcome::Dropped(DropReason::TooBig) && ran.action == Action::Redirect;
    let action = match first.outcome {
        _ if is_answered => Action::Redirect,
        StepOutcome::Dropped(_) | StepOutcome::Consumed => Action::Shot,
        StepOutcome::Passed => Action::Pass,
        StepOutcome::Forwarded { .. } => Action::Redirect,
    };
    assert_eq!(action, ran.action, "{name}: {steps:?}");
    if !is_answered {
        assert_eq!(
            hex(&wire::with_fixed_tunnel_port(first.frame.clone())),
            hex(&ran.frame),
            "{name}"
        );
    }
    let mut drops: BTreeMap<DropReason, u64> = BTreeMap::new();
    for step in &steps {
        if let StepOutcome::Dropped(reason) = step.outcome {
            *drops.entry(reason).or_default() += 1;
        }
    }
    if metadata.gso_size == 0 {
        assert_eq!(drops, ran.fate.drops, "{name}");
    } else {
        // Dropped segments are counted one by one.
        assert!(drops.keys().eq(ran.fate.drops.keys()), "{name}");
    }
    let labels = node.dataplane().label_slots();
    let traced_label: Vec<(u32, String)> = first
        .label
        .iter()
        .map(|slot| labels[slot].clone())
        .collect();
    let counted: Vec<(u32, String)> = ran.fate.labels.keys().cloned().collect();
    assert_eq!(traced_label, counted, "{name}");
    // Further copies really leave in a test run.
    let mut out: Vec<(String, Vec<u8>)> = steps[1..]
        .iter()
        .filter_map(|step| Some((device_of(node, step)?, step.frame.clone())))
        .map(|(device, frame)| (device, wire::with_fixed_tunnel_port(frame)))
        .collect();
    out.sort();
    assert_eq!(out, ran.fate.out, "{name}");
}

/// The device that a step leaves by.
fn device_of(node: &TestNode, step: &Step) -> Option<String> {
    match step.outcome {
        StepOutcome::Forwarded {
            node: 0,
            destination,
        } => {
            let desired = world::desired();
            let endpoint = &desired.endpoints[&destination];
            assert!(node.devices.here.contains_key(&endpoint.device));
            Some(endpoint.device.clone())
        }
        StepOutcome::Forwarded { .. } => Some(UNDERLAY.to_owned()),
        _ => None,
    }
}

#[test]
fn a_trace_says_what_the_data_plane_does() {
    let Some(mut node) = world::start("a_trace_says_what_the_data_plane_does") else {
        return;
    };
    for case in packets::all() {
        let metadata = case.metadata.unwrap_or_default();
        if metadata.mark != 0 {
            // A mark is no part of a packet that somebody asks about.
            continue;
        }
        check(&mut node, case.device, &case.frame, metadata, case.name);
    }
}

#[test]
fn a_trace_of_a_random_packet_says_what_the_data_plane_does() {
    let test = "a_trace_of_a_random_packet_says_what_the_data_plane_does";
    let Some(mut node) = world::start(test) else {
        return;
    };
    let seed = std::env::var("SUNWIRE_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(0x7ace);
    eprintln!("{test}: SUNWIRE_SEED={seed}");
    let mut random = Random(seed);
    let cases: Vec<_> = packets::all()
        .into_iter()
        .filter(|case| case.metadata.is_none() && case.frame.len() <= 1514)
        .collect();
    for _ in 0..1500 {
        let case = &cases[random.below(cases.len())];
        let mut frame = case.frame.clone();
        // Mostly where the headers are.
        for _ in 0..random.below(4) {
            let at = random.below(frame.len().min(110));
            // Not the source port of a tunnel: the comparison wants one that a node chooses.
            if at != 34 && at != 35 {
                frame[at] = random.next() as u8;
            }
        }
        // The kernel test-runs no IP packet without its whole IP header.
        if frame.len() < 110 {
            frame.resize(110, 0);
        }
        let name = format!("{} {}", case.device, hex(&frame));
        check(&mut node, case.device, &frame, Metadata::default(), &name);
    }
}

#[test]
fn a_trace_is_no_event() {
    let Some(mut node) = world::start("a_trace_is_no_event") else {
        return;
    };
    let mut maps = node.dataplane().take_events().unwrap();
    maps.settings
        .set(EventSettings {
            wanted: u32::MAX,
            sample_below: u32::MAX,
            per_window: u32::MAX,
            frame_bytes: 100,
            capture_endpoint: 0,
            capture_bytes: 100,
        })
        .unwrap();
    for case in packets::all() {
        let arrival = Arrival {
            ifindex: node.ifindex(case.device),
            underlay: case.device == UNDERLAY,
            frame: &case.frame,
            gso_size: 0,
        };
        let _ = node.dataplane().trace(&arrival);
    }
    assert_eq!(maps.events.drain(|_, _| {}), 0);
    assert_eq!(maps.captured.drain(|_, _| {}), 0);
    // They do tell of a packet that is sent.
    let denied = world::v4(
        world::WEB_1,
        world::DB_2,
        wire::Transport::Udp(1, world::port::DENIED),
    );
    let _ = node.test_run(WEB, &denied.bytes());
    assert_eq!(maps.events.drain(|_, _| {}), 1);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): small and seeded.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
