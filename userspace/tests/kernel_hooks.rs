//! Programs stay on their devices, by links and by filters: a new agent takes over without a packet
//! lost, and takes off what is its own and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
#[allow(dead_code, reason = "the tables of packets are shared")]
mod packets;

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions, TcHandle},
};
use fixture::{
    node::TestNode,
    packet_socket::PacketSocket,
    wire::{Frame, Transport},
};
use futures_util::TryStreamExt as _;
use packets::world::{self, DB, DB_2, WEB, WEB_1};
use sunwire_userspace::{dataplane::Attachment, programs::Hook};

/// How often the agent is replaced while packets flow.
const RESTARTS: u32 = 4;
/// Of a filter that is none of ours.
const FOREIGN: u16 = 7;

fn start(test: &str, hook: Hook) -> Option<TestNode> {
    let node = world::start_at(test, Some(hook))?;
    assert_eq!(filters(&node, WEB).is_empty(), hook == Hook::Tcx);
    Some(node)
}

/// Whether the kernel has TCX; says so when not.
fn has_tcx(test: &str) -> bool {
    let has_it = SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok();
    if !has_it {
        eprintln!("SKIPPED {test}: the kernel has no TCX (Linux 6.6)");
    }
    has_it
}

/// Priorities of the filters on a device's incoming packets.
fn filters(node: &TestNode, device: &str) -> Vec<u16> {
    let ifindex = i32::try_from(node.ifindex(device)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let filters = handle.traffic_filter(ifindex).get().ingress().execute();
        let filters: Vec<_> = filters.try_collect().await.unwrap();
        filters
            .iter()
            // The kernel also lists each priority by itself, without a handle.
            .filter(|filter| u32::from(filter.header.handle) != 0)
            .map(|filter| (filter.header.info >> 16) as u16)
            .collect()
    })
}

fn links(node: &TestNode, device: &str) -> usize {
    // Without TCX there are none.
    assert!(node.ifindex(device) != 0);
    SchedClassifier::query_tcx(device, TcAttachType::Ingress).map_or(0, |(_, ids)| ids.len())
}

fn to_db() -> Frame {
    let transport = Transport::Udp(1000, 11);
    world::v4(WEB_1, DB_2, transport)
}

fn arrives(node: &mut TestNode) {
    let fate = node.send(WEB, &to_db().bytes());
    assert_eq!(fate.out.len(), 1, "{fate:?}");
    assert_eq!(fate.out[0].0, DB);
}

/// Sends one packet after another, each when the one before has arrived, while `disturb` runs.
/// Counts them.
fn lose_nothing(socket: &PacketSocket, disturb: impl FnOnce(&AtomicU32)) {
    let (is_over, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let frame = to_db().bytes();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                socket.send("ws1", &frame);
                let (device, _) = socket.receive();
                assert_eq!(device, "ws2");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also when it panics, so that the sender ends.
        let over = Over(&is_over);
        disturb(&count);
        drop(over);
        sender.join().expect("every packet arrives");
    });
    assert!(count.load(Ordering::Relaxed) > RESTARTS);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces the agent again and again, at the hooks in turn.
fn replace_agents(node: &mut TestNode, hooks: &[Hook]) {
    let socket = node.devices.socket();
    let desired = world::desired();
    lose_nothing(&socket, |count| {
        for (hook, _) in hooks.iter().cycle().zip(0..RESTARTS) {
            node.stop_agent();
            node.attach_at(Some(*hook));
            // Without an agent packets flow, too.
            let before = count.load(Ordering::Relaxed);
            while count.load(Ordering::Relaxed) < before + 10 {
                thread::yield_now();
            }
            node.start_agent();
            node.apply(&desired).unwrap();
        }
    });
    arrives(node);
}

#[test]
fn a_new_agent_replaces_filters_without_a_packet_lost() {
    let test = "a_new_agent_replaces_filters_without_a_packet_lost";
    let Some(mut node) = start(test, Hook::Clsact) else {
        return;
    };
    arrives(&mut node);
    replace_agents(&mut node, &[Hook::Clsact]);
    assert_eq!(filters(&node, WEB).len(), 1, "replaced, not added");
    assert_eq!(links(&node, WEB), 0);
}

#[test]
fn a_new_agent_replaces_links_without_a_packet_lost() {
    let test = "a_new_agent_replaces_links_without_a_packet_lost";
    if !has_tcx(test) {
        return;
    }
    let Some(mut node) = start(test, Hook::Tcx) else {
        return;
    };
    replace_agents(&mut node, &[Hook::Tcx]);
    assert_eq!(links(&node, WEB), 1, "replaced, not added");
}

#[test]
fn an_agent_at_another_hook_takes_over_without_a_packet_lost() {
    let test = "an_agent_at_another_hook_takes_over_without_a_packet_lost";
    if !has_tcx(test) {
        return;
    }
    let Some(mut node) = start(test, Hook::Tcx) else {
        return;
    };
    replace_agents(&mut node, &[Hook::Clsact, Hook::Tcx]);
    assert_eq!((links(&node, WEB), filters(&node, WEB).len()), (1, 0));
    replace_agents(&mut node, &[Hook::Tcx, Hook::Clsact]);
    assert_eq!((links(&node, WEB), filters(&node, WEB).len()), (0, 1));
}

#[test]
fn filters_of_others_stay_when_an_endpoint_goes() {
    let test = "filters_of_others_stay_when_an_endpoint_goes";
    let Some(mut node) = start(test, Hook::Clsact) else {
        return;
    };
    let foreign = TcAttachOptions::Netlink(NlOptions {
        priority: FOREIGN,
        handle: TcHandle::new(0, 1),
        classid: None,
    });
    let program = node.dataplane().endpoint_program().unwrap();
    let link = program
        .attach_with_options(WEB, TcAttachType::Ingress, foreign)
        .unwrap();
    std::mem::forget(program.take_link(link).unwrap());
    assert_eq!(filters(&node, WEB).len(), 2);

    // Taken over first, so that it is a later agent that takes it off.
    node.stop_agent();
    node.start_agent();
    let mut desired = world::desired();
    node.apply(&desired).unwrap();
    desired.endpoints.remove(&WEB_1.0);
    node.apply(&desired).unwrap();
    assert_eq!(filters(&node, WEB), [FOREIGN]);
    assert_eq!(filters(&node, DB).len(), 1, "of an endpoint that is there");
}

#[test]
fn an_endpoint_whose_device_has_gone_is_let_go() {
    let Some(mut node) = start("an_endpoint_whose_device_has_gone", Hook::Clsact) else {
        return;
    };
    let note = node
        .pins()
        .join(format!("links/endpoint-{}-clsact", DB_2.0));
    assert!(note.is_symlink());
    node.devices.remove(DB);
    node.stop_agent();
    node.start_agent();
    node.apply(&world::desired()).unwrap();
    assert!(!note.is_symlink());
}

#[test]
fn an_agent_after_one_that_kept_no_note_takes_its_filter_over() {
    let test = "an_agent_after_one_that_kept_no_note";
    let Some(mut node) = start(test, Hook::Clsact) else {
        return;
    };
    node.stop_agent();
    // As when it ended between attaching and noting.
    for entry in std::fs::read_dir(node.pins().join("links")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    node.start_agent();
    node.apply(&world::desired()).unwrap();
    assert_eq!(filters(&node, WEB).len(), 1);
    arrives(&mut node);
}

/// The kernel frees a link some time after its pin has gone, and refuses the same program twice.
#[test]
fn a_device_is_given_to_another_endpoint_at_once_however_often() {
    let test = "a_device_is_given_to_another_endpoint_at_once";
    for hook in [Hook::Tcx, Hook::Clsact] {
        if hook == Hook::Tcx && !has_tcx(test) {
            continue;
        }
        let Some(mut node) = start(test, hook) else {
            return;
        };
        let mut desired = world::desired();
        let endpoint = desired.endpoints.remove(&WEB_1.0).unwrap();
        let ifindex = node.ifindex(WEB);
        for number in (200..500).chain([WEB_1.0]) {
            node.apply(&desired).unwrap();
            desired.endpoints.insert(number, endpoint.clone());
            let attachments = node.apply(&desired).unwrap();
            assert_eq!(attachments[&number], Attachment::Attached { ifindex });
            desired.endpoints.remove(&number);
        }
        arrives(&mut node);
    }
}
