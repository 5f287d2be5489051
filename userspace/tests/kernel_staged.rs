//! A staged policy is counted on every packet and decides none.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use aya::programs::SchedClassifier;
use fixture::{
    desired::{Policy, endpoint, network},
    node::{OWN, TestNode},
    test_run::{self, Action, Metadata},
    wire::{Frame, Transport},
};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    flow_key::Field,
    tables::{Copied, OUT_OWNER},
};
use sunwire_userspace::{
    audit::StagedTotals,
    maps::Capacity,
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

fn frame(port: u16) -> Vec<u8> {
    let frame = Frame {
        eth_src: mac(1),
        eth_dst: mac(2),
        src: address(1).into(),
        dst: address(2).into(),
        dscp: 0,
        transport: Transport::Tcp(5000, port),
        payload: 20,
    };
    frame.bytes()
}

fn owner() -> Copied {
    Copied {
        out: OUT_OWNER,
        ..Copied::default()
    }
}

/// A policy that drops packets to `ports` as `{scope} denied` and lets others through as
/// `{scope} forward`, and its root.
fn denying(vni: u32, scope: &str, ports: &[u32]) -> (Policy, Digest) {
    let mut policy = Policy::new(vni, scope);
    let denied = policy.leaf(&format!("{scope} denied"), &[]);
    let forward = policy.leaf(&format!("{scope} forward"), &[owner()]);
    let edges: Vec<(u32, Digest)> = ports.iter().map(|port| (*port, denied)).collect();
    let root = policy.test("ports", Field::DestinationPort, &edges, forward);
    (policy, root)
}

/// The policy `live` that drops packets to port 80.
fn live() -> Desired {
    let mut desired = lawless();
    let (policy, root) = denying(VNI, "live", &[80]);
    policy.install(root, &mut desired);
    desired
}

/// `live`, and as the candidate of `revision` one that drops packets to `ports`.
fn staging(scope: &str, revision: u64, ports: &[u32]) -> Desired {
    let mut desired = live();
    let (policy, root) = denying(VNI, scope, ports);
    policy.stage(root, revision, &mut desired);
    desired
}

/// Live and staged label and whether each lets through, and how many packets.
type Counts = BTreeMap<(String, String, bool, bool), u64>;

fn counts(totals: &StagedTotals) -> Counts {
    let counts = totals.counts.iter().map(|count| {
        let live = count.live_label.clone().unwrap_or_default();
        let staged = count.staged_label.clone();
        let key = (live, staged, count.live_allowed, count.staged_allowed);
        (key, count.total.packets)
    });
    counts.collect()
}

fn pair(live: &str, staged: &str, packets: u64) -> ((String, String, bool, bool), u64) {
    let is_allowed = |label: &str| label.ends_with("forward");
    let key = (
        live.to_owned(),
        staged.to_owned(),
        is_allowed(live),
        is_allowed(staged),
    );
    (key, packets)
}

/// What is counted of the only candidate.
fn audited(node: &mut TestNode) -> StagedTotals {
    let mut all = node.dataplane().audit().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_staged_policy_changes_no_verdict_and_every_pair_of_rules_is_counted() {
    let Some(mut node) = TestNode::new("a_staged_policy_changes_nothing", 2, Capacity::default())
    else {
        return;
    };
    let ports = [80, 81, 82, 83, 80, 81, 80];
    node.apply(&live()).unwrap();
    let generation = node.dataplane().generation();
    let run = |node: &mut TestNode| -> Vec<_> {
        ports
            .iter()
            .map(|port| {
                let frame = frame(*port);
                (node.test_run(SENDER, &frame), node.send(SENDER, &frame))
            })
            .collect()
    };
    let before = run(&mut node);
    assert_eq!(node.dataplane().audit().unwrap(), []);

    node.apply(&staging("staged", 7, &[80, 81])).unwrap();
    assert_eq!(node.dataplane().generation(), generation);
    assert_eq!(run(&mut node), before);
    let totals = audited(&mut node);
    assert_eq!((totals.vni, totals.revision), (VNI, 7));
    assert_eq!(totals.refused, None);
    assert_eq!(totals.uncounted.packets, 0);
    // Each packet ran twice.
    let expected = Counts::from([
        pair("live denied", "staged denied", 6),
        pair("live forward", "staged denied", 4),
        pair("live forward", "staged forward", 4),
    ]);
    assert_eq!(counts(&totals), expected);
    let denied = totals.counts.iter().find(|count| !count.live_allowed);
    assert_eq!(denied.unwrap().total.bytes, 6 * frame(80).len() as u64);

    node.apply(&live()).unwrap();
    assert_eq!(node.dataplane().generation(), generation);
    assert_eq!(run(&mut node), before);
    assert_eq!(node.dataplane().audit().unwrap(), []);
}

#[test]
fn the_staged_policy_has_addresses_of_its_own_by_the_names_of_the_policy_in_force() {
    let test = "the_staged_policy_has_addresses";
    let Some(mut node) = TestNode::new(test, 2, Capacity::default()) else {
        return;
    };
    // Both let the set `web` in, and drop what the set `bad` sends. What the names mean differs.
    let policy = |scope: &str, web: u32, bad: u32| {
        let mut policy = Policy::new(VNI, scope);
        policy.class(address(web).into(), 32, "web");
        policy.class(address(bad).into(), 32, "bad");
        let denied = policy.leaf(&format!("{scope} denied"), &[]);
        let forward = policy.leaf(&format!("{scope} forward"), &[owner()]);
        let edges = [("web", forward)];
        let to = policy.test_class("to", Field::DestinationClass, &edges, denied);
        let root = policy.test_class("from", Field::SourceClass, &[("bad", denied)], to);
        (policy, root)
    };
    let mut desired = lawless();
    let (in_force, root) = policy("live", 2, 9);
    in_force.install(root, &mut desired);
    for (revision, web, bad, staged) in [
        (1, 2, 8, "staged forward"),
        (2, 3, 8, "staged denied"),
        (3, 2, 1, "staged denied"),
    ] {
        let (candidate, root) = policy("staged", web, bad);
        candidate.stage(root, revision, &mut desired);
        node.apply(&desired).unwrap();
        assert_eq!(
            node.test_run(SENDER, &frame(80)).action,
            Action::Redirect,
            "{revision}"
        );
        let totals = audited(&mut node);
        assert_eq!(totals.revision, revision);
        assert_eq!(
            counts(&totals),
            Counts::from([pair("live forward", staged, 1)])
        );
    }
    // And an endpoint that comes later has the classes of both.
    let sender = desired.endpoints.remove(&1).unwrap();
    node.apply(&desired).unwrap();
    desired.endpoints.insert(1, sender);
    node.apply(&desired).unwrap();
    node.test_run(SENDER, &frame(80));
    let expected = Counts::from([pair("live forward", "staged denied", 2)]);
    assert_eq!(counts(&audited(&mut node)), expected);
}

#[test]
fn a_first_policy_can_be_staged_where_none_is_in_force() {
    let Some(mut node) = TestNode::new("a_first_policy_can_be_staged", 2, Capacity::default())
    else {
        return;
    };
    let mut desired = lawless();
    let (policy, root) = denying(VNI, "staged", &[80]);
    policy.stage(root, 1, &mut desired);
    node.apply(&desired).unwrap();
    for port in [80, 81, 81] {
        let ran = node.test_run(SENDER, &frame(port));
        assert_eq!(ran.action, Action::Shot);
        assert_eq!(ran.fate.drops, BTreeMap::from([(DropReason::NoPolicy, 1)]));
    }
    let totals = audited(&mut node);
    assert!(totals.counts.iter().all(|count| count.live_label.is_none()));
    let expected = Counts::from([pair("", "staged denied", 1), pair("", "staged forward", 2)]);
    assert_eq!(counts(&totals), expected);
}

#[test]
fn every_packet_is_counted_once_while_both_policies_flip_and_none_is_lost() {
    let Some(mut node) = TestNode::new("every_packet_is_counted_once", 2, Capacity::default())
    else {
        return;
    };
    // The candidate stays one, in two shapes; what decides changes, and all of it lets port 81 in.
    let desired = |round: u32| {
        let mut desired = lawless();
        let (in_force, root) = denying(VNI, ["even", "odd"][round as usize % 2], &[80]);
        in_force.install(root, &mut desired);
        let (candidate, root) = denying(VNI, ["two", "three"][round as usize / 2 % 2], &[81]);
        candidate.stage(root, 5, &mut desired);
        desired
    };
    node.apply(&desired(0)).unwrap();
    let pin = node.pins().join("endpoint_ingress");
    let program = node.dataplane().endpoint_program().unwrap();
    program.pin(&pin).unwrap();
    let program = SchedClassifier::from_pin(&pin).unwrap();
    let metadata = Metadata {
        ifindex: node.ifindex(SENDER),
        ..Metadata::default()
    };
    let input = frame(81);
    let (stop, packets) = (AtomicBool::new(false), AtomicU64::new(0));
    let lost = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let (action, out) = test_run::run(&program, &input, metadata);
                if action != Action::Redirect || out != input {
                    return Some((action, out));
                }
                packets.fetch_add(1, Ordering::Relaxed);
            }
            None
        });
        for round in 1..200 {
            node.apply(&desired(round)).unwrap();
            let enough = packets.load(Ordering::Relaxed) + 20;
            while packets.load(Ordering::Relaxed) < enough && !traffic.is_finished() {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        traffic.join().unwrap()
    });
    assert_eq!(lost, None);
    let totals = audited(&mut node);
    let counts = counts(&totals);
    assert_eq!(totals.uncounted.packets, 0);
    assert_eq!(counts.len(), 4, "{counts:?}");
    for live in ["even", "odd"] {
        for staged in ["two", "three"] {
            let (key, _) = pair(&format!("{live} forward"), &format!("{staged} denied"), 0);
            assert!(counts[&key] > 100, "{counts:?}");
        }
    }
    let counted: u64 = counts.values().sum();
    assert_eq!(counted, packets.load(Ordering::Relaxed));
}

#[test]
fn counts_outlive_the_agent_and_go_on_without_it() {
    let Some(mut node) = TestNode::new("counts_outlive_the_agent", 2, Capacity::default()) else {
        return;
    };
    let desired = staging("staged", 3, &[81]);
    node.apply(&desired).unwrap();
    let sizes = node.dataplane().table_sizes();
    node.test_run(SENDER, &frame(81));
    for restart in 1..4 {
        node.stop_agent();
        let input = frame(81);
        node.devices.send(SENDER, &input);
        assert_eq!(node.devices.flush(), [(RECEIVER.to_owned(), input)]);
        node.start_agent();
        node.apply(&desired).unwrap();
        assert_eq!(node.dataplane().table_sizes(), sizes);
        let expected = Counts::from([pair("live forward", "staged denied", 1 + restart)]);
        assert_eq!(counts(&audited(&mut node)), expected);
    }
    // What an earlier agent staged is off stage when the controller no longer wants it.
    node.stop_agent();
    node.start_agent();
    node.apply(&live()).unwrap();
    assert_eq!(node.dataplane().audit().unwrap(), []);
    assert_eq!(node.dataplane().table_sizes().staged_roots, 0);
    node.apply(&desired).unwrap();
    assert_eq!(counts(&audited(&mut node)), Counts::new());
}

#[test]
fn nothing_of_a_candidate_stays_after_the_next_and_networks_count_apart() {
    let capacity = Capacity {
        outbound: 64,
        endpoints: 4096,
        nodes: 4,
        networks: 4,
        classes: 12,
        table_nodes: 32,
        edges: 24,
        verdicts: 24,
        labels: 12,
        audited: 12,
        punt_bytes: 4096,
        flows: 256,
        groups: 8,
        listeners: 8,
        limited: 8,
        overflow: 64,
    };
    let Some(mut node) = TestNode::new("nothing_of_a_candidate_stays", 4, capacity) else {
        return;
    };
    let mut with_other = live();
    let other = with_other.networks[&VNI].clone();
    with_other.networks.insert(OTHER_VNI, other);
    for number in [3, 4] {
        let (mac, address) = (mac(number - 2), address(number - 2));
        let endpoint = endpoint((OTHER_VNI, number), number, mac, (Some(address), None), OWN);
        with_other.endpoints.insert(number, endpoint);
    }
    let (policy, root) = denying(OTHER_VNI, "other", &[80]);
    policy.install(root, &mut with_other);
    let (policy, root) = denying(OTHER_VNI, "kept", &[]);
    policy.stage(root, 1, &mut with_other);
    node.apply(&with_other).unwrap();
    let sizes = node.dataplane().table_sizes();
    for round in 0..50 {
        // Every round has nodes, leaves, labels and classes of its own; leaks would fill the maps.
        let mut desired = with_other.clone();
        let scope = format!("round {round}");
        let mut policy = Policy::new(VNI, &scope);
        policy.class(address(2).into(), 32, &format!("class {round}"));
        let denied = policy.leaf(&format!("{scope} denied"), &[]);
        let forward = policy.leaf(&format!("{scope} forward"), &[owner()]);
        let name = format!("class {round}");
        let edges = [(&name[..], denied)];
        let root = policy.test_class("c", Field::DestinationClass, &edges, forward);
        policy.stage(root, 10 + round, &mut desired);
        node.apply(&desired).unwrap();
        node.test_run(SENDER, &frame(81));
        node.test_run("ep3", &frame(81));
        let all = node.dataplane().audit().unwrap();
        let [first, second] = &all[..] else {
            panic!("{all:?}");
        };
        assert_eq!((first.vni, first.revision), (VNI, 10 + round));
        let staged = format!("{scope} denied");
        assert_eq!(
            counts(first),
            Counts::from([pair("live forward", &staged, 1)])
        );
        assert_eq!((second.vni, second.revision), (OTHER_VNI, 1));
        assert_eq!(
            counts(second),
            Counts::from([pair("other forward", "kept forward", 1 + round)])
        );
        if round % 2 == 0 {
            node.apply(&with_other).unwrap();
            assert_eq!(node.dataplane().table_sizes(), sizes, "round {round}");
        }
    }
}

#[test]
fn pairs_beyond_the_capacity_are_counted_together() {
    let capacity = Capacity {
        // Two of them are for what cannot be counted apart.
        audited: 4,
        punt_bytes: 4096,
        flows: 256,
        groups: 8,
        listeners: 8,
        limited: 8,
        overflow: 64,
        ..Capacity::default()
    };
    let Some(mut node) = TestNode::new("pairs_beyond_the_capacity", 2, capacity) else {
        return;
    };
    let mut desired = live();
    let mut policy = Policy::new(VNI, "staged");
    let leaves: Vec<(u32, Digest)> = (90..96)
        .map(|port| (port, policy.leaf(&format!("{port} forward"), &[owner()])))
        .collect();
    let denied = policy.leaf("denied", &[]);
    let root = policy.test("ports", Field::DestinationPort, &leaves, denied);
    policy.stage(root, 1, &mut desired);
    node.apply(&desired).unwrap();
    for port in (90..96).chain(90..96) {
        assert_eq!(node.test_run(SENDER, &frame(port)).action, Action::Redirect);
    }
    let totals = audited(&mut node);
    let expected = Counts::from([
        pair("live forward", "90 forward", 2),
        pair("live forward", "91 forward", 2),
    ]);
    assert_eq!(counts(&totals), expected);
    assert_eq!(totals.uncounted.packets, 8);
}

/// A policy with `size` tests in a row, each with a leaf, label and class of its own.
fn large(scope: &str, size: u32) -> (Policy, Digest) {
    let mut policy = Policy::new(VNI, scope);
    let mut next = policy.leaf(&format!("{scope} forward"), &[owner()]);
    for number in 0..size {
        let leaf = policy.leaf(&format!("{scope} {number}"), &[]);
        let class = format!("{scope} class {number}");
        policy.class(address(10 + number).into(), 32, &class);
        let name = format!("{number}");
        next = policy.test(
            &name,
            Field::DestinationPort,
            &[(1000 + number, leaf)],
            next,
        );
    }
    (policy, next)
}

#[test]
fn a_candidate_that_does_not_fit_is_refused_alone_and_makes_way_for_a_policy_in_force() {
    let ample = Capacity {
        outbound: 64,
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
    };
    let cases = [
        (
            "flow table nodes",
            Capacity {
                table_nodes: 26,
                ..ample
            },
        ),
        (
            "verdicts",
            Capacity {
                verdicts: 15,
                ..ample
            },
        ),
        ("EDGES", Capacity { edges: 11, ..ample }),
        (
            "labels",
            Capacity {
                labels: 15,
                ..ample
            },
        ),
    ];
    for (what, capacity) in cases {
        let Some(mut node) = TestNode::new("a_candidate_that_does_not_fit", 2, capacity) else {
            return;
        };
        let decides = |node: &mut TestNode, port: u16, expected: Action| {
            assert_eq!(
                node.test_run(SENDER, &frame(port)).action,
                expected,
                "{what}"
            );
        };
        let mut too_large = live();
        let (policy, root) = large("huge", 20);
        policy.stage(root, 1, &mut too_large);
        node.apply(&too_large).unwrap();
        let totals = audited(&mut node);
        assert_eq!(totals.revision, 1);
        assert!(
            totals.refused.is_some_and(|why| why.contains(what)),
            "{what}"
        );
        decides(&mut node, 80, Action::Shot);
        decides(&mut node, 81, Action::Redirect);

        // This one fits beside the policy in force, but not beside a large one.
        let mut fits = live();
        let (policy, root) = large("staged", 7);
        policy.stage(root, 2, &mut fits);
        node.apply(&fits).unwrap();
        assert_eq!(audited(&mut node).refused, None, "{what}");
        decides(&mut node, 1000, Action::Redirect);
        let mut large_in_force = fits.clone();
        let (policy, root) = large("live", 7);
        policy.install(root, &mut large_in_force);
        node.apply(&large_in_force).unwrap();
        decides(&mut node, 1000, Action::Shot);
        decides(&mut node, 80, Action::Redirect);
        let totals = audited(&mut node);
        assert!(
            totals.refused.is_some_and(|why| why.contains(what)),
            "{what}"
        );

        // There is room again, and the count goes on.
        node.apply(&fits).unwrap();
        assert_eq!(audited(&mut node).refused, None, "{what}");
        node.test_run(SENDER, &frame(1000));
        let expected = (
            "live forward".to_owned(),
            "staged 0".to_owned(),
            true,
            false,
        );
        assert_eq!(counts(&audited(&mut node))[&expected], 2, "{what}");
    }
}
