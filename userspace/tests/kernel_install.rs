//! Policies into the kernel: whole, at once, without a trace of the one before, and kept when the
//! agent goes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use aya::{
    maps::{HashMap, Map, MapData},
    programs::SchedClassifier,
};
use fixture::{
    desired::{Policy, endpoint, network},
    node::{OWN, TestNode},
    test_run::{self, Action, Metadata},
    wire::{Frame, Transport},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow_key::Field,
    tables::{Copied, EdgeKey, MAX_DEPTH, Next, OUT_OWNER, set},
};
use sunwire_userspace::{
    maps::Capacity,
    pod::Pod,
    state::{Desired, Digest},
};

const VNI: u32 = 100;
const OTHER_VNI: u32 = 200;
const SENDER: &str = "ep1";
const RECEIVER: &str = "ep2";

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 20, 0, number as u8)
}

fn mac(number: u32) -> [u8; 6] {
    [2, 0x53, 0x57, 0, 0, number as u8]
}

/// Two endpoints here and no policy.
fn lawless() -> Desired {
    let mut desired = Desired::default();
    let gateway = (address(254), "fd00::fe".parse().unwrap());
    let shop = network("shop", 1300, gateway.0, gateway.1, mac(254));
    desired.networks.insert(VNI, shop);
    for number in [1, 2] {
        let addresses = (Some(address(number)), None);
        let endpoint = endpoint((VNI, number), number, mac(number), addresses, OWN);
        desired.endpoints.insert(number, endpoint);
    }
    desired
}

fn frame(port: u16) -> Frame {
    Frame {
        eth_src: mac(1),
        eth_dst: mac(2),
        src: address(1).into(),
        dst: address(2).into(),
        dscp: 0,
        transport: Transport::Tcp(5000, port),
        payload: 20,
    }
}

fn owner() -> Copied {
    Copied {
        out: OUT_OWNER,
        ..Copied::default()
    }
}

/// Forwards everything but packets to `ports`.
fn denying(scope: &str, ports: impl IntoIterator<Item = u32>) -> Desired {
    let mut desired = lawless();
    let mut policy = Policy::new(VNI, scope);
    let denied = policy.leaf("denied", &[]);
    let forward = policy.leaf("forward", &[owner()]);
    let edges: Vec<(u32, Digest)> = ports.into_iter().map(|port| (port, denied)).collect();
    let root = policy.test("ports", Field::DestinationPort, &edges, forward);
    policy.install(root, &mut desired);
    desired
}

/// Whether a packet to a port is delivered; else it is dropped by the policy.
fn is_delivered(node: &mut TestNode, port: u16) -> bool {
    let frame = frame(port).bytes();
    let ran = node.test_run(SENDER, &frame);
    let fate = node.send(SENDER, &frame);
    if ran.action == Action::Redirect {
        assert_eq!(fate.out, [(RECEIVER.to_owned(), frame)]);
        return true;
    }
    // The first of the two may belong to a flow that the policy before let through.
    let by_policy = |drops: &BTreeMap<DropReason, u64>| {
        *drops == BTreeMap::from([(DropReason::Policy, 1)])
            || *drops == BTreeMap::from([(DropReason::Revoked, 1)])
    };
    assert!(by_policy(&ran.fate.drops), "{:?}", ran.fate.drops);
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::Policy, 1)]));
    assert_eq!(fate.out, []);
    false
}

#[test]
fn each_policy_decides_from_its_installation_to_the_next() {
    let Some(mut node) = TestNode::new("each_policy_decides", 2, Capacity::default()) else {
        return;
    };
    let (a, b) = (denying("a", [80]), denying("b", [81]));
    for round in 0..10 {
        let before = node.dataplane().generation();
        node.apply(&a).unwrap();
        let generation = node.dataplane().generation();
        // The first one is any, but none of nothing.
        assert_ne!(generation, 0);
        assert!(round == 0 || generation == before + 1, "round {round}");
        assert!(!is_delivered(&mut node, 80));
        assert!(is_delivered(&mut node, 81));
        // Again, which changes nothing.
        node.apply(&a).unwrap();
        assert_eq!(node.dataplane().generation(), generation, "round {round}");
        node.apply(&b).unwrap();
        assert!(is_delivered(&mut node, 80));
        assert!(!is_delivered(&mut node, 81));
    }
    node.apply(&lawless()).unwrap();
    let ran = node.test_run(SENDER, &frame(80).bytes());
    assert_eq!(ran.fate.drops, BTreeMap::from([(DropReason::NoPolicy, 1)]));
}

#[test]
fn nothing_of_a_policy_stays_after_the_next() {
    let capacity = Capacity {
        endpoints: 4096,
        nodes: 4,
        networks: 4,
        classes: 12,
        table_nodes: 12,
        edges: 12,
        verdicts: 8,
        labels: 4,
        audited: 8,
        punt_bytes: 4096,
        flows: 256,
        groups: 8,
        listeners: 8,
        limited: 8,
        overflow: 64,
        outbound: 64,
    };
    let Some(mut node) = TestNode::new("nothing_of_a_policy_stays", 2, capacity) else {
        return;
    };
    let a = denying("a", [80, 81, 82]);
    node.apply(&a).unwrap();
    let sizes = node.dataplane().table_sizes();
    for round in 0..50 {
        // Every round has nodes, leaves, labels and classes of its own; leaks would fill the maps.
        let scope = format!("round {round}");
        let mut other = lawless();
        let mut policy = Policy::new(VNI, &scope);
        policy.class(address(2).into(), 32, &format!("class {round}"));
        policy.class(address(0).into(), 24, &format!("subnet {round}"));
        let denied = policy.leaf(&format!("denied {round}"), &[]);
        let forward = policy.leaf(&format!("forward {round}"), &[owner()]);
        let name = format!("class {round}");
        let ports = policy.test("ports", Field::DestinationPort, &[(7, denied)], forward);
        let root = policy.test_class("c", Field::DestinationClass, &[(&name, ports)], denied);
        policy.install(root, &mut other);
        node.apply(&other).unwrap();
        assert_ne!(node.dataplane().table_sizes(), sizes);
        assert!(is_delivered(&mut node, 80), "round {round}");
        assert!(!is_delivered(&mut node, 7), "round {round}");
        node.apply(&a).unwrap();
        assert_eq!(node.dataplane().table_sizes(), sizes, "round {round}");
        assert!(!is_delivered(&mut node, 80), "round {round}");
    }
}

#[test]
fn a_packet_sees_one_policy_whole_while_policies_flip() {
    let Some(mut node) = TestNode::new("a_packet_sees_one_policy", 2, Capacity::default()) else {
        return;
    };
    // Each rewrites two fields, and finds its verdict by a class; under the other's classes it
    // would drop. `b` brings prefixes and `a` takes them away again.
    let rewriting = |scope: &str, dscp: u8, port: u16, prefixes: &[u8]| {
        let mut desired = lawless();
        let mut policy = Policy::new(VNI, scope);
        let mut class = "class any v4".to_owned();
        for prefix in prefixes {
            class = format!("{scope} class /{prefix}");
            policy.class(address(2).into(), *prefix, &class);
        }
        let copied = Copied {
            set: set::DSCP | set::DST_PORT,
            dscp,
            dst_port: port,
            ..owner()
        };
        let rewrites = policy.leaf("rewrites", &[copied]);
        let wrong = policy.leaf("wrong classes", &[]);
        let edges = [(&class[..], rewrites)];
        let by_class = policy.test_class("class", Field::DestinationClass, &edges, wrong);
        let edges = [(5000, by_class)];
        let root = policy.test("port", Field::SourcePort, &edges, wrong);
        policy.install(root, &mut desired);
        desired
    };
    let a = rewriting("a", 10, 1010, &[]);
    let b = rewriting("b", 20, 2020, &[31, 32]);
    let expected = [(10, 1010), (20, 2020)].map(|(dscp, port)| {
        Frame {
            dscp,
            ..frame(port)
        }
        .bytes()
    });
    node.apply(&a).unwrap();
    let pin = node.pins().join("endpoint_ingress");
    node.dataplane()
        .endpoint_program()
        .unwrap()
        .pin(&pin)
        .unwrap();
    let program = SchedClassifier::from_pin(&pin).unwrap();
    let metadata = Metadata {
        ifindex: node.ifindex(SENDER),
        ..Metadata::default()
    };
    let input = frame(80).bytes();
    let (stop, packets) = (AtomicBool::new(false), AtomicU64::new(0));
    let seen = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            run_on_any_processor();
            let mut seen = [0_u64; 2];
            while !stop.load(Ordering::Relaxed) {
                let (action, out) = test_run::run(&program, &input, metadata);
                let by = expected.iter().position(|expected| *expected == out);
                match (action, by) {
                    (Action::Redirect, Some(by)) => seen[by] += 1,
                    other => return Err(format!("{other:?} {out:02x?}")),
                }
                packets.fetch_add(1, Ordering::Relaxed);
            }
            Ok(seen)
        });
        for round in 0..200 {
            node.apply(if round % 2 == 0 { &b } else { &a }).unwrap();
            // Some packets see each policy.
            let enough = packets.load(Ordering::Relaxed) + 20;
            while packets.load(Ordering::Relaxed) < enough && !traffic.is_finished() {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    let seen = seen.expect("every packet is rewritten by `a` alone or by `b` alone");
    assert!(seen.iter().all(|count| *count > 1000), "{seen:?}");
}

fn run_on_any_processor() {
    let mut all = CpuSet::new();
    // Numbers beyond the machine's processors are left out by the kernel.
    (0..CpuSet::count()).for_each(|cpu| all.set(cpu).unwrap());
    sched_setaffinity(Pid::from_raw(0), &all).unwrap();
}

#[test]
fn a_policy_that_does_not_fit_is_refused_and_the_old_one_decides() {
    let ample = Capacity {
        endpoints: 4096,
        nodes: 4,
        networks: 4,
        classes: 64,
        table_nodes: 64,
        edges: 64,
        verdicts: 64,
        labels: 64,
        audited: 64,
        punt_bytes: 4096,
        flows: 256,
        groups: 8,
        listeners: 8,
        limited: 8,
        overflow: 64,
        outbound: 64,
    };
    // Seven nodes in a row, eight leaves with labels and prefixes of their own.
    let large = |desired: &mut Desired| {
        let mut policy = Policy::new(VNI, "large");
        let mut next = policy.leaf("forward", &[owner()]);
        for number in 0..7 {
            let leaf = policy.leaf(&format!("label {number}"), &[]);
            policy.class(address(10 + number).into(), 32, &format!("class {number}"));
            let name = format!("{number}");
            next = policy.test(&name, Field::DestinationPort, &[(number, leaf)], next);
        }
        policy.install(next, desired);
    };
    let cases = [
        (
            "flow table nodes",
            Capacity {
                table_nodes: 10,
                ..ample
            },
        ),
        (
            "verdicts",
            Capacity {
                verdicts: 5,
                ..ample
            },
        ),
        ("EDGES", Capacity { edges: 5, ..ample }),
        (
            "CLASSES_V4",
            Capacity {
                classes: 5,
                ..ample
            },
        ),
        ("labels", Capacity { labels: 5, ..ample }),
    ];
    for (what, capacity) in cases {
        let Some(mut node) = TestNode::new("a_policy_that_does_not_fit", 2, capacity) else {
            return;
        };
        let old = denying("old", [80]);
        node.apply(&old).unwrap();
        let generation = node.dataplane().generation();
        let sizes = node.dataplane().table_sizes();
        let mut too_large = lawless();
        large(&mut too_large);
        for attempt in 0..3 {
            let error = node.apply(&too_large).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(node.dataplane().generation(), generation, "{what}");
            assert!(!is_delivered(&mut node, 80), "{what}, attempt {attempt}");
            assert!(is_delivered(&mut node, 81), "{what}, attempt {attempt}");
        }
        // What fits is installed afterwards, and nothing is left of what was refused.
        node.apply(&denying("new", [81])).unwrap();
        assert!(is_delivered(&mut node, 80), "{what}");
        assert!(!is_delivered(&mut node, 81), "{what}");
        assert_eq!(node.dataplane().table_sizes(), sizes, "{what}");
    }
}

#[test]
fn tables_that_make_no_sense_are_refused_and_the_old_ones_decide() {
    let Some(mut node) = TestNode::new("tables_that_make_no_sense", 2, Capacity::default()) else {
        return;
    };
    node.apply(&denying("old", [80])).unwrap();
    let mut incomplete = denying("incomplete", [81]);
    incomplete.leaves.clear();
    let mut cyclic = denying("cyclic", [81]);
    let root = cyclic.programs[&VNI].root.unwrap();
    cyclic.table_nodes.get_mut(&root).unwrap().default = root;
    let deep = |tests: usize| {
        let mut desired = lawless();
        let mut policy = Policy::new(VNI, "deep");
        let mut next = policy.leaf("forward", &[owner()]);
        for number in 0..tests as u32 {
            let denied = policy.leaf("denied", &[]);
            let name = format!("{number}");
            next = policy.test(
                &name,
                Field::DestinationPort,
                &[(1000 + number, denied)],
                next,
            );
        }
        policy.install(next, &mut desired);
        desired
    };
    let cases = [
        (incomplete, "was not sent"),
        (cyclic, "tests in a row"),
        (deep(MAX_DEPTH + 1), "tests in a row"),
    ];
    for (desired, message) in cases {
        let error = node.apply(&desired).expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
        assert!(!is_delivered(&mut node, 80), "{message}");
        assert!(is_delivered(&mut node, 81), "{message}");
    }
    // The deepest that the kernel walks.
    node.apply(&deep(MAX_DEPTH)).unwrap();
    assert!(!is_delivered(&mut node, 1000));
    assert!(is_delivered(&mut node, 80));
}

/// Numbers of the tables as the kernel has them.
fn edges(node: &TestNode) -> BTreeMap<EdgeKey, Next> {
    let mut pinned = std::fs::read_dir(node.pins()).unwrap().map(Result::unwrap);
    // Of whichever layout.
    let maps = pinned.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-v"));
    let map = MapData::from_pin(maps.unwrap().path().join("EDGES")).unwrap();
    let map = HashMap::<_, Pod<EdgeKey>, Pod<Next>>::try_from(Map::HashMap(map)).unwrap();
    map.iter()
        .map(|entry| entry.unwrap())
        .map(|(key, next)| (key.0, next.0))
        .collect()
}

#[test]
fn a_new_agent_changes_no_decision_and_no_number() {
    let Some(mut node) = TestNode::new("a_new_agent_changes_nothing", 2, Capacity::default())
    else {
        return;
    };
    let desired = denying("kept", [80, 90]);
    node.apply(&denying("earlier", [1, 2, 3])).unwrap();
    node.apply(&desired).unwrap();
    let generation = node.dataplane().generation();
    let sizes = node.dataplane().table_sizes();
    let numbers = edges(&node);
    for _ in 0..3 {
        node.stop_agent();
        // Without an agent the kernel goes on.
        let allowed = frame(81).bytes();
        node.devices.send(SENDER, &allowed);
        node.devices.send(SENDER, &frame(80).bytes());
        assert_eq!(node.devices.flush(), [(RECEIVER.to_owned(), allowed)]);

        node.start_agent();
        assert_eq!(node.dataplane().table_sizes(), sizes);
        assert!(!is_delivered(&mut node, 80));
        assert!(is_delivered(&mut node, 81));
        assert_eq!(edges(&node), numbers);

        node.apply(&desired).unwrap();
        assert_eq!(node.dataplane().table_sizes(), sizes);
        assert!(!is_delivered(&mut node, 80));
        assert!(is_delivered(&mut node, 81));
        assert_eq!(edges(&node), numbers);
        assert!(node.dataplane().generation() > generation);
    }
    // And it can change what its predecessor left.
    node.apply(&denying("later", [81])).unwrap();
    assert!(is_delivered(&mut node, 80));
    assert!(!is_delivered(&mut node, 81));
}

#[test]
fn an_endpoint_that_comes_later_has_the_classes_of_the_policy_in_force() {
    let test = "an_endpoint_that_comes_later";
    let Some(mut node) = TestNode::new(test, 2, Capacity::default()) else {
        return;
    };
    let mut desired = lawless();
    let mut policy = Policy::new(VNI, "by source");
    policy.class(address(1).into(), 32, "the sender");
    let denied = policy.leaf("denied", &[]);
    let forward = policy.leaf("forward", &[owner()]);
    let edges = [("the sender", forward)];
    let root = policy.test_class("source", Field::SourceClass, &edges, denied);
    policy.install(root, &mut desired);
    let sender = desired.endpoints.remove(&1).unwrap();
    node.apply(&desired).unwrap();
    let ran = node.test_run(SENDER, &frame(80).bytes());
    assert_eq!(
        ran.fate.drops,
        BTreeMap::from([(DropReason::NotAttached, 1)])
    );
    desired.endpoints.insert(1, sender);
    node.apply(&desired).unwrap();
    assert!(is_delivered(&mut node, 80));
}

#[test]
fn an_endpoint_whose_device_goes_gets_nothing_and_one_that_was_let_go_says_nothing() {
    let Some(mut node) = TestNode::new("an_endpoint_whose_device_goes", 2, Capacity::default())
    else {
        return;
    };
    let desired = denying("kept", [80]);
    node.apply(&desired).unwrap();
    assert!(is_delivered(&mut node, 81));
    node.devices.remove(RECEIVER);
    node.apply(&desired).unwrap();
    let fate = node.send(SENDER, &frame(81).bytes());
    assert_eq!(fate.drops, BTreeMap::from([(DropReason::NotAttached, 1)]));
    assert!(node.dataplane().release(1).unwrap());
    assert!(!node.dataplane().release(1).unwrap());
    let ran = node.test_run(SENDER, &frame(81).bytes());
    assert_eq!(
        ran.fate.drops,
        BTreeMap::from([(DropReason::NotAttached, 1)])
    );
}

/// Two networks may have the very same policy: each counts its own packets.
#[test]
fn networks_with_equal_verdicts_count_their_own_packets() {
    let test = "networks_with_equal_verdicts";
    let Some(mut node) = TestNode::new(test, 4, Capacity::default()) else {
        return;
    };
    let mut desired = denying("shared", [80]);
    let other = desired.networks[&VNI].clone();
    desired.networks.insert(OTHER_VNI, other);
    let program = desired.programs[&VNI].clone();
    desired.programs.insert(OTHER_VNI, program);
    for number in [3, 4] {
        let (mac, address) = (mac(number - 2), address(number - 2));
        let endpoint = endpoint((OTHER_VNI, number), number, mac, (Some(address), None), OWN);
        desired.endpoints.insert(number, endpoint);
    }
    node.apply(&desired).unwrap();
    for (device, vni) in [("ep1", VNI), ("ep3", OTHER_VNI)] {
        let fate = node.send(device, &frame(80).bytes());
        assert_eq!(
            fate.labels,
            BTreeMap::from([((vni, "denied".to_owned()), 1)])
        );
        let fate = node.send(device, &frame(81).bytes());
        assert_eq!(
            fate.labels,
            BTreeMap::from([((vni, "forward".to_owned()), 1)])
        );
    }
}
