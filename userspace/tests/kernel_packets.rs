//! Packets into the programs, and what must become of them, bit by bit.
//!
//! Every case of the tables under `packets` holds by test run, where the program's answer is seen,
//! and on real devices, where it is seen which device a packet comes out of.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod packets;

use std::{collections::BTreeSet, fs, process::Command};

use fixture::{
    capture::Capture,
    devices::UNDERLAY,
    node::{Fate, TestNode, VTEP},
    test_run::Action,
    wire,
};
use packets::{Case, Expect, world};
use sunwire_dataplane_common::{
    drop_reason::DropReason, headers::ETHERNET_BYTES, punt::Kind, tables::MAX_COPIES,
    vxlan::OUTER_BYTES, wire::FRAME_BYTES_MIN,
};
use sunwire_userspace::programs::Hook;

/// MTU of the devices.
const DEVICE_MTU: usize = 1500;
/// Reasons that no single packet is dropped for here, each with why or where it is tested.
const UNREACHABLE: &[(DropReason, &str)] = &[
    (
        DropReason::PuntLimited,
        "an_endpoint_can_ask_so_much_and_no_more",
    ),
    (
        DropReason::PuntFull,
        "what_finds_the_buffer_full_is_counted",
    ),
    (DropReason::PuntMalformed, "the agent counts it"),
    (DropReason::TooManyGroups, "the agent counts it"),
    (DropReason::NoWire, "takes a wire: see kernel_wires"),
    (DropReason::Revoked, "takes two policies: see kernel_flows"),
    (
        DropReason::ReceiverPolicy,
        "takes a network whose receivers decide: see kernel_enforce",
    ),
    (DropReason::Expired, "takes two networks: see kernel_routes"),
    (
        DropReason::TranslationTaken,
        "takes two flows: see kernel_flows",
    ),
    (
        DropReason::NotTranslatable,
        "takes a tunnel's other end: see kernel_foreign",
    ),
    (
        DropReason::OutboundProtocol,
        "packets that leave the cloud are tested in kernel_outbound",
    ),
    (DropReason::OutboundForbidden, "in kernel_outbound"),
    (DropReason::OutboundAddress, "in kernel_outbound"),
    (DropReason::OutboundPorts, "in kernel_outbound"),
    (DropReason::OutboundFull, "in kernel_outbound"),
    (DropReason::OutboundUnasked, "in kernel_outbound"),
    (DropReason::NoChecksum, "in kernel_checksum"),
];

#[test]
fn every_packet_has_its_fate_by_test_run() {
    let Some(mut node) = world::start("every_packet_has_its_fate_by_test_run") else {
        return;
    };
    for case in packets::all() {
        let ran = node.test_run_with(case.device, &case.frame, case.metadata.unwrap_or_default());
        let name = case.name;
        let (action, first, others) = match &case.expect {
            Expect::Drop(_) | Expect::Consumed | Expect::Asks(_) => (Action::Shot, None, &[][..]),
            Expect::Pass => (Action::Pass, Some(&case.frame), &[][..]),
            Expect::Out(out) | Expect::OutAndDrop(out, _) => {
                (Action::Redirect, Some(&out[0].1), &out[1..])
            }
        };
        assert_eq!(ran.action, action, "{name}: {:?}", ran.fate);
        if let Some(first) = first {
            let expected = wire::with_fixed_tunnel_port(first.clone());
            assert_eq!(hex(&ran.frame), hex(&expected), "{name}");
        }
        check_counters(&case, &ran.fate);
        check_asked(&case, &ran.fate);
        assert_same_frames(name, &ran.fate, others);
    }
}

#[test]
fn every_packet_comes_out_of_its_device() {
    if let Some(node) = world::start("every_packet_comes_out_of_its_device") {
        check_devices(node);
    }
}

#[test]
fn every_packet_comes_out_of_its_device_by_a_filter() {
    let test = "every_packet_comes_out_of_its_device_by_a_filter";
    if let Some(node) = world::start_at(test, Some(Hook::Clsact)) {
        check_devices(node);
    }
}

fn check_devices(mut node: TestNode) {
    for case in packets::all() {
        // The device of nobody has no program, and metadata cannot be sent.
        if case.metadata.is_some() || case.device == world::NOBODY {
            continue;
        }
        let fate = node.send(case.device, &case.frame);
        check_counters(&case, &fate);
        check_asked(&case, &fate);
        let expected = match &case.expect {
            Expect::Drop(_) | Expect::Consumed | Expect::Asks(_) | Expect::Pass => &[][..],
            Expect::Out(out) | Expect::OutAndDrop(out, _) => &out[..],
        };
        assert_same_frames(case.name, &fate, expected);
        fate.out
            .iter()
            .for_each(|(_, frame)| wire::assert_valid(frame));
    }
}

#[test]
fn tshark_decodes_what_comes_out_without_complaint() {
    let test = "tshark_decodes_what_comes_out_without_complaint";
    if Command::new("tshark").arg("--version").output().is_err() {
        eprintln!("SKIPPED {test}: no tshark");
        return;
    }
    let Some(mut node) = world::start(test) else {
        return;
    };
    let mut frames = Vec::new();
    for case in packets::all() {
        if case.metadata.is_none() && case.device != world::NOBODY {
            let fate = node.send(case.device, &case.frame);
            frames.extend(fate.out.into_iter().map(|(_, frame)| frame));
        }
    }
    let tunnelled = frames.iter().filter(|frame| wire::is_tunnel(frame)).count();
    assert!(tunnelled > 20, "only {tunnelled} frames go to other nodes");
    let capture = Capture::new(test, &frames);
    let in_tunnels = capture.matching("vxlan");
    assert_eq!(in_tunnels.lines().count(), tunnelled);
    // The expert's warnings and errors; notes are about what hosts do, as a TTL of 1.
    let complaints = capture.matching("_ws.malformed || _ws.expert.severity >= 6291456");
    assert_eq!(complaints, "");
}

#[test]
fn expected_frames_are_valid_themselves() {
    for case in packets::all() {
        if let Expect::Out(out) | Expect::OutAndDrop(out, _) = &case.expect {
            out.iter().for_each(|(_, frame)| wire::assert_valid(frame));
        }
    }
}

#[test]
fn every_drop_reason_has_a_case() {
    let seen: BTreeSet<DropReason> = packets::all()
        .iter()
        .filter_map(|case| match case.expect {
            Expect::Drop(reason) | Expect::OutAndDrop(_, reason) => Some(reason),
            _ => None,
        })
        .chain(UNREACHABLE.iter().map(|(reason, _)| *reason))
        .collect();
    let all: BTreeSet<DropReason> = DropReason::ALL.iter().copied().collect();
    assert_eq!(seen, all);
}

/// Truncated anywhere, a packet is dropped, passed to the kernel or, where only payload is missing,
/// handled as the packet it now is: never as another one, and nothing of it is ever made up.
///
/// On devices, for the kernel test-runs no packet without its whole IP header.
#[test]
fn a_truncated_packet_is_never_taken_for_another() {
    let Some(mut node) = world::start("a_truncated_packet_is_never_taken_for_another") else {
        return;
    };
    let warned = kernel_warned();
    for case in packets::all() {
        let Expect::Out(whole) = &case.expect else {
            continue;
        };
        if case.metadata.is_some() || case.frame.len() > 200 || whole.len() > 1 {
            continue;
        }
        // No device sends a frame without a whole Ethernet header.
        for length in ETHERNET_BYTES..case.frame.len() {
            let fate = node.send(case.device, &case.frame[..length]);
            let name = format!("{}, {length} bytes: {fate:?}", case.name);
            let drops: u64 = fate.drops.values().sum();
            match &fate.out[..] {
                [] if case.device == UNDERLAY => assert!(drops <= 1, "{name}"),
                [] => assert_eq!(drops, 1, "{name}"),
                [(device, frame)] => {
                    assert_eq!(drops, 0, "{name}");
                    assert_eq!(device, whole[0].0, "{name}");
                    assert!(has_all_headers(&case, length), "{name}");
                    check_truncated(&case, &whole[0].1, length, frame);
                }
                _ => panic!("{name}"),
            }
        }
    }
    assert_eq!(kernel_warned(), warned, "the kernel warned");
}

/// Bytes in which every header is that a program reads.
fn has_all_headers(case: &Case, length: usize) -> bool {
    let outer = if case.device == UNDERLAY { 50 } else { 0 };
    let frame = &case.frame[outer..];
    let ip = match frame[12..14] {
        [8, 0] => 34,
        [0x86, 0xdd] => 54,
        [8, 6] => return length >= 42,
        _ => return length >= outer + 14,
    };
    let protocol = if ip == 34 { frame[23] } else { frame[20] };
    let is_later_fragment = ip == 34 && (frame[20] & 0x1f, frame[21]) != (0, 0);
    let transport = match protocol {
        _ if is_later_fragment => 0,
        6 => 20,
        17 | 44 => 8,
        1 => 8,
        // A solicitation is read up to its target.
        58 if case.device != UNDERLAY && frame[54] == 135 => 24,
        58 => 8,
        _ => 0,
    };
    length >= outer + ip + transport
}

/// What came out of a truncated packet: what comes out of the whole one, as far as it goes.
fn check_truncated(case: &Case, whole: &[u8], length: usize, frame: &[u8]) {
    let missing = case.frame.len() - length;
    let is_answer = case.frame[12..14] == [8, 6] || case.frame.get(54) == Some(&135);
    if is_answer {
        // Answers are made here, with their own length.
        assert!(frame.len() <= whole.len(), "{}", case.name);
        let common = frame.len().min(42);
        assert_eq!(frame[..common], whole[..common], "{}", case.name);
        return;
    }
    // What is no IP packet is filled up for its tunnel.
    let least = if frame.get(62..64) == Some(&[0x88, 0xb5]) {
        OUTER_BYTES + FRAME_BYTES_MIN as usize
    } else {
        0
    };
    let length = (whole.len() - missing).max(least);
    assert_eq!(frame.len(), length, "{}", case.name);
    let frame = &frame[..whole.len() - missing];
    // Outer lengths and checksum are those of the packet as it is.
    let is_tunnel = whole.len() > case.frame.len()
        || (case.device == UNDERLAY && whole.len() == case.frame.len());
    let from = if is_tunnel { 50 } else { 0 };
    assert_eq!(
        hex(&frame[from..]),
        hex(&whole[from..frame.len()]),
        "{}",
        case.name
    );
}

#[test]
fn garbage_is_dropped_or_passed_and_never_harms() {
    let Some(mut node) = world::start("garbage_is_dropped_or_passed_and_never_harms") else {
        return;
    };
    let warned = kernel_warned();
    let seed = std::env::var("SUNWIRE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(0x5eed);
    eprintln!("garbage: SUNWIRE_SEED={seed}");
    let mut random = Random(seed);
    let cases: Vec<Vec<u8>> = packets::all()
        .into_iter()
        .map(|case| case.frame)
        .filter(|frame| frame.len() <= DEVICE_MTU + ETHERNET_BYTES)
        .collect();
    for round in 0..4000 {
        let mut frame = cases[random.below(cases.len())].clone();
        // Whole garbage now and then; mostly a real packet with a few bytes changed.
        if round % 8 == 0 {
            frame = (0..random.below(300) + 14)
                .map(|_| random.next() as u8)
                .collect();
        } else {
            for _ in 0..=random.below(4) {
                let at = random.below(frame.len());
                frame[at] = random.next() as u8;
            }
            frame.truncate(14 + random.below(frame.len() - 13));
        }
        for device in [world::WEB, UNDERLAY] {
            let fate = node.send(device, &frame);
            let name = format!("{device} {}: {fate:?}", hex(&frame));
            let drops: u64 = fate.drops.values().sum();
            let handled = drops as usize + fate.out.len();
            if device == UNDERLAY {
                assert!(handled <= 1, "{name}");
                // What comes out came in by a tunnel that is ours.
                if !fate.out.is_empty() {
                    assert!(frame.len() >= OUTER_BYTES + ETHERNET_BYTES, "{name}");
                    assert_eq!(frame[30..34], VTEP.octets(), "{name}");
                    assert_eq!(frame[42], 8, "{name}");
                }
            } else {
                assert!(handled <= MAX_COPIES, "{name}");
                // What a change turned into another valid packet is from the endpoint itself.
                if !fate.out.is_empty() {
                    assert_eq!(frame[6..12], world::WEB_1.mac(), "{name}");
                }
            }
        }
    }
    assert_eq!(kernel_warned(), warned, "the kernel warned");
}

fn check_counters(case: &Case, fate: &Fate) {
    let name = case.name;
    let expected: Vec<(DropReason, u64)> = match case.expect {
        Expect::Drop(reason) | Expect::OutAndDrop(_, reason) => vec![(reason, segments(case))],
        _ => vec![],
    };
    let drops: Vec<_> = fate
        .drops
        .iter()
        .map(|(reason, count)| (*reason, *count))
        .collect();
    assert_eq!(drops, expected, "{name}");
    if let Some((vni, label)) = case.label {
        let labels: Vec<_> = fate.labels.iter().collect();
        assert_eq!(labels, [(&(vni, label.to_owned()), &1)], "{name}");
    }
}

/// What was handed to the agent is the frame itself, from its endpoint, under its kind.
fn check_asked(case: &Case, fate: &Fate) {
    let expected: Vec<(Kind, String, Vec<u8>)> = match case.expect {
        Expect::Asks(kind) => vec![(kind, case.device.to_owned(), case.frame.clone())],
        _ => vec![],
    };
    assert_eq!(fate.asked, expected, "{}", case.name);
}

/// How many packets a case is on a wire: a super-packet counts as its segments.
fn segments(case: &Case) -> u64 {
    let segment = case.metadata.map_or(0, |metadata| metadata.gso_size);
    let segments = case.frame.len().checked_div(segment as usize);
    segments.map_or(1, |segments| segments as u64 + 1)
}

fn assert_same_frames(name: &str, fate: &Fate, expected: &[(&str, Vec<u8>)]) {
    let mut expected: Vec<(String, String)> = expected
        .iter()
        .map(|(device, frame)| {
            let frame = wire::with_fixed_tunnel_port(frame.clone());
            ((*device).to_owned(), hex(&frame))
        })
        .collect();
    let mut found: Vec<(String, String)> = fate
        .out
        .iter()
        .map(|(device, frame)| (device.clone(), hex(frame)))
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "{name}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the kernel has warned since it started: the taint bit `W`.
fn kernel_warned() -> bool {
    let tainted = fs::read_to_string("/proc/sys/kernel/tainted").unwrap();
    tainted.trim().parse::<u64>().unwrap() & 1 << 9 != 0
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
