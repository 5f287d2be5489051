//! Bad input of every kind is refused or counted, and changes nothing.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::net::UdpSocket;

use common::{OPEN, WEB, can_run, cloud};
use sunwire_api::{
    EncryptionMode,
    client::{ClientError, Guard},
};
use sunwire_lab::{
    eventually,
    traffic::ping::{PingOptions, ping},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

fn reaches(cloud: &Cloud) -> bool {
    let client = cloud.lab().workload("client1").expect("the lab has it");
    let report = ping(
        client.namespace(),
        WEB.parse().expect("an address"),
        PingOptions::default(),
    )
    .unwrap();
    report.received() > 0
}

fn drops(cloud: &Cloud, reason: &str) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let drops = counters.drops.iter().filter(|drop| drop.reason == reason);
    drops.map(|drop| drop.totals.packets).sum()
}

/// Sends a datagram to a node's tunnel port from another node.
fn send(cloud: &Cloud, from: &str, to: &str, payload: &[u8]) {
    let to = cloud.lab().node(to).unwrap().underlay_address;
    let from = &cloud.lab().node(from).unwrap().namespace;
    from.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(payload, (to, 4789)).unwrap();
    })
    .unwrap();
}

#[test]
fn bad_packets_are_counted_by_reason_and_bad_requests_change_nothing() {
    if !can_run("bad_packets_are_counted_by_reason_and_bad_requests_change_nothing") {
        return;
    }
    let cloud = cloud();
    // In the clear anybody can write a packet, which then has to be looked at to the end.
    cloud.encrypt(EncryptionMode::Never).unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    assert!(reaches(&cloud));

    // Tunnelled packets as an attacker on the underlay would send them.
    let vxlan = |vni: u8| [8, 0, 0, 0, 0, 0, vni, 0];
    let frame = [0u8; 60];
    let cases: [(&str, &str, Vec<u8>); 4] = [
        ("garbage", "bad_tunnel", b"this is no tunnel".to_vec()),
        (
            "unknown network",
            "unknown_network",
            [vxlan(250).as_slice(), &frame].concat(),
        ),
        (
            "truncated inner frame",
            "malformed",
            [vxlan(1).as_slice(), &frame[..4]].concat(),
        ),
        (
            "nobody's frame",
            "not_here",
            [vxlan(1).as_slice(), &frame].concat(),
        ),
    ];
    for (what, reason, payload) in cases {
        let before = drops(&cloud, reason);
        send(&cloud, "third", "far", &payload);
        eventually(
            &format!("{what} to be counted as {reason}"),
            PATIENCE,
            || drops(&cloud, reason) > before,
        )
        .unwrap();
    }
    // From an address that is no node: the controller's host.
    let before = drops(&cloud, "unknown_peer");
    let controller = cloud.lab().controller().unwrap().name.clone();
    send(
        &cloud,
        &controller,
        "far",
        &[vxlan(1).as_slice(), &frame].concat(),
    );
    eventually("an unknown peer to be counted", PATIENCE, || {
        drops(&cloud, "unknown_peer") > before
    })
    .unwrap();

    // A policy that does not compile is refused whole, with every mistake located.
    let name = "shop".parse().unwrap();
    let broken = "network shop\npolicy main =\n    if src in nowhere then forward\n    else dorp\n";
    let error = cloud
        .lab()
        .controller()
        .unwrap()
        .namespace
        .run(|| {
            let address = cloud.lab().controller().unwrap().underlay_address;
            let client = sunwire_api::client::Client::new(&format!("http://{address}:7510"));
            client.put_policy(&name, broken, Guard::Any)
        })
        .unwrap()
        .unwrap_err();
    let ClientError::Refused(problem) = error else {
        panic!("{error}")
    };
    assert_eq!(problem.status, 422);
    assert!(problem.diagnostics.len() >= 2, "{problem:?}");
    assert!(
        problem
            .diagnostics
            .iter()
            .any(|diagnostic| diagnostic.line == 3),
        "{problem:?}"
    );
    assert!(reaches(&cloud), "the policy before it is still in force");
    cloud.down().unwrap();
}
