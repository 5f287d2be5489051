//! The kernel does with every packet what the policy says of it.
//!
//! Random policies are compiled and installed, and random packets go into the kernel, by test run
//! and on devices. What comes out, where, rewritten how and counted under which label is compared
//! with the evaluator, which is the meaning of the language and shares nothing with the compiler.
//! Diagram and tables are asked, too. Each policy decides beside the one before it, which is staged:
//! what is counted of that one is compared with the evaluator as well.
//!
//! `SUNWIRE_CASES` is how many policies are tried, each with [`PACKETS`] packets; `SUNWIRE_SEED`
//! repeats a run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use fixture::{
    desired::node,
    devices::{UNDERLAY, UNDERLAY_MAC},
    node::{Fate, TestNode, VTEP},
    policy::{frame, install, stage},
    test_run::Action,
    wire::Tunnel,
    world,
};
use proptest::prelude::*;
use sunwire_dataplane_common::{drop_reason::DropReason, group::EACH_ITS_OWN};
use sunwire_policy::{
    address::Address,
    ast::Expr,
    compile::{Fdd, Options, compile},
    environment::Environment,
    evaluate,
    installed::Installed,
    lower::{Capacity, Refused, lower},
    packet::{Packet, Place},
    parse, resolve,
    tables::{Copied, FlowTables, Leaf, Out},
    term::Resolved,
    testing::{Kind, document, environment, for_all, packets, policies},
};
use sunwire_userspace::{
    connections::tables::Tables, groups::sets, maps::Capacity as Room, state::Desired,
};

const VNI: u32 = 100;
const NODES: u32 = 3;
/// Packets that each policy is tried on.
const PACKETS: usize = 50;
/// Policies that are tried when `SUNWIRE_CASES` does not say how many.
const POLICIES: u32 = 220;
/// Packets that are tried then, at the least.
const CHECKED: u64 = 10_000;
const ETHER_ARP: u16 = 0x0806;

/// A policy with all that became of it.
struct Made {
    policy: Resolved,
    fdd: Fdd,
    tables: FlowTables,
}

/// The policy before, staged under a revision, and what must have been counted of it: packets by
/// both labels and by whether each of the two policies lets them through.
struct Candidate {
    made: Made,
    revision: u64,
    counted: BTreeMap<(String, String, bool, bool), u64>,
}

/// Which endpoints are here; the others are at the other nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Placement {
    First,
    Last,
}

impl Placement {
    fn of(sender: u32) -> Self {
        if sender <= 3 {
            Placement::First
        } else {
            Placement::Last
        }
    }

    /// The node of an endpoint, when this one is `own`.
    fn node(self, number: u32, own: u32) -> u32 {
        let is_here = match self {
            Placement::First => number <= 3,
            Placement::Last => number >= 3,
        };
        if is_here {
            own
        } else {
            // One of the two others.
            (own + number % 2) % NODES + 1
        }
    }
}

/// What must become of one copy: the device and the frame, or the reason why not.
type Expected = Result<(String, Vec<u8>), DropReason>;

fn vtep(number: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 100 + number as u8)
}

fn node_mac(number: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0xff, 100 + number as u8]
}

#[test]
fn the_kernel_agrees_with_the_evaluator_on_every_packet() {
    // Few flows: all of them are gone through whenever they are forgotten.
    let capacity = Room {
        flows: 1 << 12,
        ..Room::default()
    };
    let Some(mut node) = TestNode::new("the_kernel_agrees", 5, capacity) else {
        return;
    };
    for number in 1..=NODES {
        node.resolve(vtep(number), node_mac(number));
    }
    let environment = environment();
    let values = (
        policies(Kind::Stateless),
        prop::collection::vec(packets(&environment, "shop"), PACKETS),
    );
    let tables = Tables::load(node.pins(), capacity).unwrap();
    let node = RefCell::new(node);
    let candidate: RefCell<Option<Candidate>> = RefCell::new(None);
    let (checked, forwarded) = (Cell::new(0_u64), Cell::new(0_u64));
    for_all(
        "evaluator = kernel",
        POLICIES,
        &values,
        |(body, mut packets)| {
            let Some(made) = compiled(body, &environment)? else {
                return Ok(());
            };
            // Not put back by a case that fails: its counts would be of no use to the next.
            let mut staged = candidate.take();
            let installed = Installed::new(&made.tables).map_err(|error| error.to_string())?;
            // Moving everything takes long: all packets of a policy enter at one node, and by place.
            let own = packets[0].node;
            packets.iter_mut().for_each(|packet| packet.node = own);
            packets.sort_by_key(|packet| Placement::of(packet.port));
            let mut place = None;
            for packet in &packets {
                let wanted = Some(Placement::of(packet.port));
                if place != wanted {
                    place = wanted;
                    let mut desired = desired(&environment, &made.tables, packet);
                    if let Some(staged) = &staged {
                        stage(&staged.made.tables, VNI, staged.revision, &mut desired);
                    }
                    let applied = node.borrow_mut().apply_as(own, &desired);
                    applied.map_err(|error| error.to_string())?;
                    // What an earlier policy let through is answered to whoever sent it, and these
                    // packets are to answer nothing.
                    forget_flows(&tables, &desired)?;
                }
                let leaf = agreed(&made, &installed, packet)?;
                let expected = expected(&environment, leaf, packet);
                check(&mut node.borrow_mut(), leaf, packet, &expected)?;
                if let Some(staged) = staged.as_mut().filter(|_| is_decided(&expected)) {
                    staged.count(leaf, packet)?;
                }
                checked.set(checked.get() + 1);
                forwarded.set(forwarded.get() + u64::from(expected.iter().any(Result::is_ok)));
            }
            if let Some(staged) = &staged {
                staged.check(&mut node.borrow_mut())?;
            }
            let revision = staged.as_ref().map_or(1, |staged| staged.revision + 1);
            candidate.replace(Some(Candidate {
                made,
                revision,
                counted: BTreeMap::new(),
            }));
            Ok(())
        },
    );
    eprintln!(
        "{} packets, {} of them forwarded",
        checked.get(),
        forwarded.get()
    );
    assert!(forwarded.get() * 20 > checked.get(), "too few packets pass");
    if std::env::var_os("SUNWIRE_CASES").is_none() {
        assert!(checked.get() >= CHECKED, "too few packets");
    }
}

impl Candidate {
    /// A packet was decided on by `leaf`, once by test run and once on the device.
    fn count(&mut self, leaf: &Leaf, packet: &Packet) -> Result<(), String> {
        let policy = &self.made.policy;
        let outcome = evaluate(policy, packet).map_err(|error| error.to_string())?;
        let label = policy.label(outcome.label(), outcome.copies.is_empty());
        let key = (
            leaf.label.clone(),
            label.to_owned(),
            !leaf.copies.is_empty(),
            !outcome.copies.is_empty(),
        );
        *self.counted.entry(key).or_default() += 2;
        Ok(())
    }

    fn check(&self, node: &mut TestNode) -> Result<(), String> {
        let totals = node
            .dataplane()
            .audit()
            .map_err(|error| error.to_string())?;
        let [totals] = &totals[..] else {
            return Err(format!("one candidate is staged, and {totals:?} are"));
        };
        let counts = totals.counts.iter().map(|count| {
            let key = (
                count.live_label.clone().unwrap_or_default(),
                count.staged_label.clone(),
                count.live_allowed,
                count.staged_allowed,
            );
            (key, count.total.packets)
        });
        let found: BTreeMap<_, _> = counts.collect();
        let is_right = totals.revision == self.revision
            && totals.uncounted.packets == 0
            && found == self.counted;
        if !is_right {
            return Err(format!("expected {:?}\nfound {totals:?}", self.counted));
        }
        Ok(())
    }
}

/// A policy and its tables; nothing when it makes more copies than the tables hold.
fn compiled(body: Expr, environment: &Environment) -> Result<Option<Made>, String> {
    let text = document(body).to_string();
    let (document, diagnostics) = parse(&text);
    if diagnostics.iter().any(|diagnostic| diagnostic.is_error()) {
        return Err(format!("{text} cannot be read"));
    }
    let policy = resolve(&document, environment).map_err(|_| format!("{text} has no meaning"))?;
    let fdd = compile(&policy, &Options::default()).map_err(|error| error.to_string())?;
    match lower(&fdd, &policy, &Capacity::default()) {
        Ok(tables) => Ok(Some(Made {
            policy,
            fdd,
            tables,
        })),
        Err(Refused::TooManyCopies { .. }) => Ok(None),
        Err(other) => Err(other.to_string()),
    }
}

/// The verdict on a packet, by the tables, the diagram and the evaluator alike.
fn agreed<'a>(
    Made { policy, fdd, .. }: &Made,
    installed: &'a Installed,
    packet: &Packet,
) -> Result<&'a Leaf, String> {
    let outcome = evaluate(policy, packet).map_err(|error| error.to_string())?;
    let by_diagram = fdd.evaluate(packet);
    if by_diagram != outcome {
        return Err(format!("{packet:?}: {outcome:?}, but {by_diagram:?}"));
    }
    let meant: BTreeSet<(Packet, Place)> = outcome
        .copies
        .keys()
        .map(|copy| {
            let port = packet.port;
            (Packet { port, ..*copy }, copy.place(packet))
        })
        .collect();
    let leaf = installed.verdict(packet).ok_or("the walk does not end")?;
    let emitted: BTreeSet<(Packet, Place)> = leaf.emit(packet).into_iter().collect();
    let label = policy.label(outcome.label(), outcome.copies.is_empty());
    if meant != emitted || leaf.label != label {
        return Err(format!("{packet:?}: {meant:?} under {label}, but {leaf:?}"));
    }
    Ok(leaf)
}

/// The cloud as the node sees it that the packet enters at.
fn desired(environment: &Environment, tables: &FlowTables, entered: &Packet) -> Desired {
    let node_of = |number| Placement::of(entered.port).node(number, entered.node);
    let mut desired = world::lawless(environment, node_of);
    for number in 1..=NODES {
        let name = format!("n{number}");
        let address = if number == entered.node {
            VTEP
        } else {
            vtep(number)
        };
        desired.nodes.insert(number, node(&name, address));
    }
    install(tables, VNI, &mut desired);
    desired
}

fn forget_flows(tables: &Tables, desired: &Desired) -> Result<(), String> {
    for number in desired.endpoints.keys() {
        tables.forget(*number).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// What must become of each copy of a packet.
fn expected(environment: &Environment, leaf: &Leaf, packet: &Packet) -> Vec<Expected> {
    if packet.eth_type == ETHER_ARP {
        // Not for a policy to decide; these are no ARP packets but by their type.
        return vec![Err(DropReason::Malformed)];
    }
    if leaf.copies.is_empty() {
        return vec![Err(DropReason::Policy)];
    }
    let mut expected = Vec::new();
    for copied in &leaf.copies {
        let alone = Leaf {
            label: String::new(),
            counts: Vec::new(),
            log: None,
            copies: vec![copied.clone()],
        };
        let emitted = alone.emit(packet);
        if copied.members.is_empty() {
            expected.push(expected_copy(environment, copied, &emitted[0].0, packet));
        } else {
            expected.extend(expected_copies(environment, copied, &emitted, packet));
        }
    }
    expected
}

/// What must become of a copy for several endpoints: one frame for each here, and one tunnel to
/// each node with others.
fn expected_copies(
    environment: &Environment,
    copied: &Copied,
    emitted: &[(Packet, Place)],
    packet: &Packet,
) -> Vec<Expected> {
    let Some((copy, _)) = emitted.first() else {
        return Vec::new();
    };
    if !is_rewritable(copied, packet) {
        return vec![Err(DropReason::NotRewritable)];
    }
    let is_group = copy.eth_dst & 1 << 40 != 0;
    let addressed = |mac: [u8; 6]| {
        let mut copy = *copy;
        if !is_group {
            copy.eth_dst = self::mac(mac);
        }
        frame(&copy)
    };
    let mut expected = Vec::new();
    let mut nodes = BTreeSet::new();
    for (_, place) in emitted {
        let Place::Endpoint(number) = place else {
            panic!("{place:?} is no member");
        };
        let at = Placement::of(packet.port).node(*number, packet.node);
        if at != packet.node {
            nodes.insert(at);
            continue;
        }
        let all = environment.endpoints.iter();
        let mut shop = all.filter(|one| one.network == "shop");
        let member = shop.find(|one| one.number == *number).unwrap();
        expected.push(Ok((format!("ep{number}"), addressed(member.mac))));
    }
    let tag = sets::tag(&sets::digest(&copied.members));
    for node in nodes {
        let inner = addressed(EACH_ITS_OWN.to_bytes());
        expected.push(Ok((
            UNDERLAY.to_owned(),
            to_node(node).wrap_for(tag, &inner),
        )));
    }
    expected
}

fn to_node(number: u32) -> Tunnel {
    Tunnel {
        eth_src: UNDERLAY_MAC,
        eth_dst: node_mac(number),
        src: VTEP.into(),
        dst: vtep(number).into(),
        vni: VNI,
        hops: 0,
    }
}

/// Whether the packet has the fields that a copy writes. A field that is not there reads as zero,
/// and writing zero to it changes nothing.
fn is_rewritable(copied: &Copied, packet: &Packet) -> bool {
    let is_v4 = matches!(packet.src, Address::V4(_));
    let is_ip = packet.src != Address::None;
    let has_ports = is_ip && matches!(packet.protocol, 6 | 17);
    let writes = |value: Option<u16>| value.is_some_and(|value| value != 0);
    let lacks = (!is_ip && writes(copied.dscp.map(u16::from)))
        || (!has_ports && (writes(copied.src_port) || writes(copied.dst_port)))
        || (!is_v4 && (copied.ip4_src.is_some() || copied.ip4_dst.is_some()));
    !lacks
}

fn expected_copy(
    environment: &Environment,
    copied: &Copied,
    copy: &Packet,
    packet: &Packet,
) -> Expected {
    let is_ip = packet.src != Address::None;
    if !is_rewritable(copied, packet) {
        return Err(DropReason::NotRewritable);
    }
    if copied.out == Some(Out::Owner) && copy.eth_dst & 1 << 40 != 0 {
        return Err(DropReason::Multicast);
    }
    let shop = || {
        environment
            .endpoints
            .iter()
            .filter(|one| one.network == "shop")
    };
    let destination = match copied.out {
        None => return Err(DropReason::NotForwarded),
        Some(Out::Endpoint(number)) => shop().find(|one| one.number == number),
        Some(Out::Owner) if is_ip => shop().find(|one| {
            one.addresses
                .iter()
                .any(|own| Address::from(*own) == copy.dst)
        }),
        Some(Out::Owner) => shop().find(|one| mac(one.mac) == copy.eth_dst),
    };
    let destination = destination.ok_or(DropReason::NoOwner)?;
    let mut copy = *copy;
    if copied.eth_dst.is_none() {
        copy.eth_dst = mac(destination.mac);
    }
    let inner = frame(&copy);
    let at = Placement::of(packet.port).node(destination.number, packet.node);
    if at == packet.node {
        return Ok((format!("ep{}", destination.number), inner));
    }
    Ok((UNDERLAY.to_owned(), to_node(at).wrap(&inner)))
}

fn mac(mac: [u8; 6]) -> u64 {
    mac.iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Runs the packet both ways.
fn check(
    node: &mut TestNode,
    leaf: &Leaf,
    packet: &Packet,
    expected: &[Expected],
) -> Result<(), String> {
    let device = format!("ep{}", packet.port);
    let input = frame(packet);
    let mut ran = node.test_run(&device, &input);
    let mut sent = node.send(&device, &input);
    // Whether a policy before had let packets like this one through is not the evaluator's to say.
    for fate in [&mut ran.fate, &mut sent] {
        if let Some(revoked) = fate.drops.remove(&DropReason::Revoked) {
            *fate.drops.entry(DropReason::Policy).or_insert(0) += revoked;
        }
    }
    let wanted = Fate {
        out: out(expected),
        asked: sent.asked.clone(),
        drops: drops(expected),
        labels: if is_decided(expected) {
            BTreeMap::from([((VNI, leaf.label.clone()), 1)])
        } else {
            BTreeMap::new()
        },
        counts: if is_decided(expected) {
            let names = leaf.counts.iter();
            names.map(|name| ((VNI, name.clone()), 1)).collect()
        } else {
            BTreeMap::new()
        },
    };
    if sent != wanted {
        return Err(format!(
            "{packet:?}\n{leaf:?}\nexpected {wanted:?}\nfound {sent:?}"
        ));
    }
    // By test run the first copy is the packet itself.
    // One for several endpoints ends, after its copies have left.
    let is_group = leaf
        .copies
        .first()
        .is_some_and(|copy| !copy.members.is_empty());
    let own = usize::from(!is_group && !expected.is_empty());
    let by_test_run = Fate {
        out: out(&expected[own..]),
        asked: ran.fate.asked.clone(),
        ..wanted
    };
    let (action, first) = match expected.first() {
        Some(Ok((_, frame))) if !is_group => (Action::Redirect, Some(frame)),
        _ => (Action::Shot, None),
    };
    let is_same = first.is_none_or(|frame| *frame == ran.frame);
    if ran.action != action || !is_same || ran.fate != by_test_run {
        return Err(format!(
            "{packet:?}\n{leaf:?}\nexpected {action:?} {first:?} {by_test_run:?}\nran {ran:?}"
        ));
    }
    Ok(())
}

/// Whether the packet is one for a policy to decide on.
fn is_decided(expected: &[Expected]) -> bool {
    !matches!(expected, [Err(DropReason::Malformed)])
}

fn out(expected: &[Expected]) -> Vec<(String, Vec<u8>)> {
    let mut out: Vec<_> = expected.iter().flatten().cloned().collect();
    out.sort();
    out
}

fn drops(expected: &[Expected]) -> BTreeMap<DropReason, u64> {
    let mut drops = BTreeMap::new();
    for reason in expected.iter().filter_map(|one| one.as_ref().err()) {
        *drops.entry(*reason).or_insert(0) += 1;
    }
    drops
}
