//! Where receivers decide, too: a node that stayed behind reaches nothing that the policy in force
//! forbids, and a change of policy loses nothing that both policies admit.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::time::Duration;

use common::{OPEN, WEB, can_run, cloud};
use nix::sys::signal::Signal;
use sunwire_api::{NetworkEnforcement, client::Guard};
use sunwire_lab::{
    eventually,
    traffic::udp::{UdpReceiver, UdpSender},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const CLOSED: &str =
    "network shop\npolicy main = if src = client1 then drop \"closed\" else forward\n";

fn enforce(cloud: &Cloud, enforce: NetworkEnforcement) -> u64 {
    let shop = "shop".parse().unwrap();
    let network = cloud.rest(|client| client.enforce_network(&shop, enforce, Guard::Any));
    let network = network.unwrap();
    assert_eq!(network.spec.enforce, enforce);
    network.revision
}

/// Packets dropped for a reason.
fn dropped(cloud: &Cloud, reason: &str) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let drops = counters.drops.iter();
    let of_reason = drops.filter(|drop| drop.reason == reason);
    of_reason.map(|drop| drop.totals.packets).sum()
}

/// Waits until node `far` alone has applied a revision.
fn wait_far(cloud: &Cloud, revision: u64) {
    let far = "far".parse().unwrap();
    eventually("the receiver to have it", PATIENCE, || {
        let node = cloud.rest(|client| client.node(&far)).unwrap();
        node.status.acknowledged_revision >= revision
    })
    .unwrap();
}

fn traffic(cloud: &Cloud) -> (UdpReceiver, UdpSender) {
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let at = format!("{WEB}:7000").parse().unwrap();
    let receiver = UdpReceiver::start(web.namespace(), at).unwrap();
    let address = receiver.address();
    let sender = UdpSender::start(client.namespace(), address, 64, 500.0, None).unwrap();
    (receiver, sender)
}

fn flows(receiver: &UdpReceiver) {
    let from = receiver.received();
    eventually("traffic to flow", PATIENCE, || {
        receiver.received() > from + 200
    })
    .unwrap();
}

#[test]
fn lab_enforce_both_refuses_what_a_node_with_an_old_policy_sends() {
    if !can_run("lab_enforce_both_refuses_what_a_node_with_an_old_policy_sends") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    let (receiver, sender) = traffic(&cloud);
    flows(&receiver);
    // The sender's node hears of nothing any more, and goes on by the policy that it has.
    cloud.stop_agent("near", Signal::SIGTERM);
    let name = "shop".parse().unwrap();
    let policy = cloud.rest(|client| client.put_policy(&name, CLOSED, Guard::Any));
    wait_far(&cloud, policy.unwrap().revision);
    flows(&receiver);
    assert_eq!(dropped(&cloud, "receiver_policy"), 0);

    let revision = enforce(&cloud, NetworkEnforcement::Both);
    wait_far(&cloud, revision);
    let refuses = |more: u64| {
        let from = dropped(&cloud, "receiver_policy");
        eventually("the receiver to refuse", PATIENCE, || {
            dropped(&cloud, "receiver_policy") >= from + more
        })
        .unwrap();
    };
    refuses(100);
    let arrived = receiver.received();
    refuses(300);
    assert_eq!(receiver.received(), arrived, "nothing gets through");

    // Back from where it was, it decides so itself.
    cloud.start_agent("near").unwrap();
    cloud.wait_connected().unwrap();
    cloud.wait_caught_up().unwrap();
    eventually("the entry node to refuse", PATIENCE, || {
        cloud.label_packets("closed").unwrap() > 100
    })
    .unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    flows(&receiver);
    let _ = sender.stop();
    let _ = receiver.stop();
    cloud.down().unwrap();
}

#[test]
fn lab_enforce_both_loses_nothing_that_old_and_new_policies_admit() {
    if !can_run("lab_enforce_both_loses_nothing_that_old_and_new_policies_admit") {
        return;
    }
    let cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    let (receiver, sender) = traffic(&cloud);
    flows(&receiver);
    let lost_by_lab = |cloud: &Cloud| {
        let report = cloud.lab().report().unwrap();
        let links = report.links.iter().flat_map(|link| link.dropped.values());
        links.sum::<u64>() + report.socket_overflow_frames + report.machine_backlog_drops
    };
    let before = lost_by_lab(&cloud);
    for round in 0..3 {
        cloud
            .wait_applied(enforce(&cloud, NetworkEnforcement::Both))
            .unwrap();
        for port in [22, 443] {
            // Other tables each time, and UDP passes by all of them.
            let text = format!(
                "network shop\npolicy main = if udp then forward \"udp {round}\"
                 else if tcp and dst port {port} then forward else drop\n"
            );
            cloud.apply_policy("shop", &text).unwrap();
            flows(&receiver);
        }
        cloud
            .wait_applied(enforce(&cloud, NetworkEnforcement::Entry))
            .unwrap();
        flows(&receiver);
    }
    let sent = sender.stop();
    let all = || receiver.received() >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last packets", Duration::from_secs(5), all);
    let received = receiver.stop();
    let by_lab = lost_by_lab(&cloud) - before;
    let lost = received.lost(&sent);
    eprintln!("{lost} of {} packets lost, {by_lab} by the lab", sent.sent);
    assert!(lost <= by_lab, "{lost} lost, and the lab dropped {by_lab}");
    assert_eq!(dropped(&cloud, "receiver_policy"), 0);
    cloud.down().unwrap();
}
