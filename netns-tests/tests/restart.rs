//! Forwarding does not need the agent or the controller: their restarts lose no packet.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::time::Duration;

use common::{OPEN, WEB, can_run, cloud};
use nix::sys::signal::Signal;
use sunwire_api::{
    EncryptionMode, EncryptionSpec,
    client::{Client, Guard},
};
use sunwire_lab::{
    eventually,
    traffic::{
        ping::{PingOptions, ping},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

/// Frames that the lab or the machine dropped, which are no loss of the system under test.
fn drops_of_the_lab(cloud: &Cloud) -> u64 {
    let report = cloud.lab().report().unwrap();
    let links: u64 = report
        .links
        .iter()
        .flat_map(|link| link.dropped.values())
        .sum();
    links + report.socket_overflow_frames + report.machine_backlog_drops
}

fn loses_nothing(cloud: &mut Cloud, disturb: impl FnOnce(&mut Cloud)) {
    let (client, web) = (
        cloud.lab().workload("client1").expect("the lab has it"),
        cloud.lab().workload("web1").expect("the lab has it"),
    );
    let warm = ping(
        client.namespace(),
        WEB.parse().expect("an address"),
        PingOptions::default(),
    )
    .unwrap();
    assert_eq!(warm.received(), 5);

    let dropped_before = drops_of_the_lab(cloud);
    let receiver = UdpReceiver::start(
        web.namespace(),
        format!("{WEB}:7000").parse().expect("an address"),
    )
    .unwrap();
    let sender =
        UdpSender::start(client.namespace(), receiver.address(), 64, 1_000.0, None).unwrap();
    let flows = |from: u64| {
        eventually("traffic to flow", PATIENCE, || {
            receiver.received() > from + 500
        })
        .unwrap();
    };
    flows(0);
    disturb(cloud);
    flows(receiver.received());
    let sent = sender.stop();
    let all = || receiver.received() >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last packets", Duration::from_secs(5), all);
    let received = receiver.stop();
    let dropped = drops_of_the_lab(cloud) - dropped_before;
    eprintln!(
        "{} of {} packets lost, {dropped} dropped by the lab",
        received.lost(&sent),
        sent.sent
    );
    assert!(
        received.lost(&sent) <= dropped,
        "{} of {} packets were lost and the lab dropped {dropped}",
        received.lost(&sent),
        sent.sent
    );
}

#[test]
fn restarts_of_agents_and_the_controller_lose_no_packet() {
    if !can_run("restarts_of_agents_and_the_controller_lose_no_packet") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for node in ["near", "far"] {
            loses_nothing(&mut cloud, |cloud| {
                cloud.stop_agent(node, signal);
                cloud.start_agent(node).unwrap();
                cloud.wait_connected().unwrap();
                // The new agent has the whole state in force, not only a connection.
                let revision = cloud.rest(|client| client.status()).unwrap().revision;
                cloud.wait_applied(revision).unwrap();
            });
        }
        loses_nothing(&mut cloud, |cloud| {
            cloud.stop_controller(signal);
            cloud.start_controller().unwrap();
            cloud.wait_connected().unwrap();
        });
    }
    // And the policy is still there to be changed.
    cloud
        .apply_policy("shop", "network shop\npolicy main = drop \"closed\"\n")
        .unwrap();
    let client = cloud.lab().workload("client1").unwrap();
    let report = ping(
        client.namespace(),
        WEB.parse().unwrap(),
        PingOptions {
            timeout: Duration::from_millis(300),
            ..PingOptions::default()
        },
    );
    assert_eq!(report.unwrap().received(), 0);
    cloud.down().unwrap();
}

/// Makes what is pinned on a node be of a layout that its next agent does not know.
fn forget_layout(cloud: &Cloud, node: &str) {
    let directory = &cloud.lab().node(node).unwrap().bpf_dir;
    let mut pinned = std::fs::read_dir(directory).unwrap().flatten();
    let maps = pinned.find(|entry| entry.file_name().to_string_lossy().starts_with("maps-v"));
    let maps = maps.expect("the agent pins its maps").path();
    std::fs::rename(maps, directory.join("maps-v0")).unwrap();
}

#[test]
fn lab_agents_of_another_map_layout_lose_no_packet() {
    if !can_run("lab_agents_of_another_map_layout_lose_no_packet") {
        return;
    }
    let mut cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    for mode in [EncryptionMode::Never, EncryptionMode::BetweenClouds] {
        let set = |client: &Client| client.put_encryption(&EncryptionSpec { mode }, Guard::Any);
        let set = cloud.rest(set).unwrap();
        cloud.wait_applied(set.revision).unwrap();
        for node in ["near", "far"] {
            loses_nothing(&mut cloud, |cloud| {
                cloud.stop_agent(node, Signal::SIGKILL);
                forget_layout(cloud, node);
                cloud.start_agent(node).unwrap();
                cloud.wait_caught_up().unwrap();
            });
            let directory = &cloud.lab().node(node).unwrap().bpf_dir;
            assert!(!directory.join("maps-v0").exists(), "nobody needs them");
        }
    }
    cloud.down().unwrap();
}
