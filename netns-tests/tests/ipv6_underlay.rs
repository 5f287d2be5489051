//! Tunnels over IPv6: between nodes that have nothing else, and beside tunnels over IPv4.
//!
//! ```text
//!   near (IPv6)  far (IPv6)    third (both)    old (IPv4)
//!   client1      web1          -               old1
//!      +-----------+--------------+ over IPv6
//!                                 +---------------+ over IPv4
//! ```

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use common::{OPEN, can_run};
use sunwire_api::{EncryptionMode, Name, TunnelState};
use sunwire_lab::{
    Topology, Underlay, Workload, WorkloadSpec, eventually, expect_no_ping,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const CLIENT: [&str; 2] = ["10.20.0.11", "fd00:20::11"];
const WEB: [&str; 2] = ["10.20.0.12", "fd00:20::12"];
const OLD: [&str; 2] = ["10.20.0.13", "fd00:20::13"];

fn cloud() -> Cloud {
    let workload = |name, node, [v4, v6]: [&str; 2]| {
        WorkloadSpec::new(name, node, "shop")
            .address(&format!("{v4}/16"))
            .unwrap()
            .address(&format!("{v6}/64"))
            .unwrap()
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .over(Underlay::Ipv6)
        .node("far", "azure:westeurope")
        .over(Underlay::Ipv6)
        .node("third", "gcp:asia-northeast1-a")
        .over(Underlay::Dual)
        .node("old", "aws:us-east-1")
        .controller("aws:us-east-1")
        .workload(workload("client1", "near", CLIENT))
        .workload(workload("web1", "far", WEB))
        .workload(workload("old1", "old", OLD))
        .build()
        .unwrap();
    let cloud = Cloud::up_without_tunnels(topology).unwrap();
    cloud
        .create_network("shop", &["10.20.0.0/16", "fd00:20::/64"])
        .unwrap();
    for name in ["client1", "web1", "old1"] {
        cloud.create_endpoint(&workload_of(&cloud, name)).unwrap();
    }
    cloud.apply_policy("shop", OPEN).unwrap();
    cloud
}

fn workload_of(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

fn set(cloud: &Cloud, mode: EncryptionMode) {
    let expected = match mode {
        EncryptionMode::Never => TunnelState::Plaintext,
        _ => TunnelState::Encrypted,
    };
    cloud.decide_encryption(mode).unwrap();
    for (from, to) in [("near", "far"), ("far", "third"), ("third", "near")] {
        for (from, to) in [(from, to), (to, from)] {
            wait_tunnel(cloud, from, to, expected);
        }
    }
}

fn wait_tunnel(cloud: &Cloud, from: &str, to: &str, state: TunnelState) -> String {
    let name: Name = from.parse().unwrap();
    let mut detail = String::new();
    eventually("a tunnel's state", PATIENCE, || {
        let node = cloud.rest(|client| client.node(&name)).unwrap();
        let mut tunnels = node.status.tunnels.into_iter();
        let tunnel = tunnels.find(|tunnel| tunnel.node.as_str() == to);
        tunnel.is_some_and(|tunnel| {
            detail = tunnel.detail.unwrap_or_default();
            tunnel.state == state
        })
    })
    .unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
    detail
}

fn answers(cloud: &Cloud, from: &str, to: &str) {
    let options = PingOptions {
        timeout: Duration::from_secs(1),
        ..PingOptions::default()
    };
    let to: IpAddr = to.parse().unwrap();
    let client = workload_of(cloud, from);
    eventually("an answer", PATIENCE, || {
        ping(client.namespace(), to, options).is_ok_and(|report| report.received() > 0)
    })
    .unwrap_or_else(|error| panic!("{from} to {to}: {error}"));
}

/// Bulk TCP from the client to the web server, by each family inside; `meanwhile` happens during the
/// second one.
fn tcp_flows(cloud: &Cloud, meanwhile: impl FnOnce(&Cloud)) {
    let mut meanwhile = Some(meanwhile);
    for (index, web) in WEB.iter().enumerate() {
        let (client, server) = (workload_of(cloud, "client1"), workload_of(cloud, "web1"));
        let address = SocketAddr::new(web.parse().unwrap(), 7100);
        let receiver = BulkReceiver::start(server.namespace(), address).unwrap();
        let sender =
            BulkSender::start(client.namespace(), receiver.address(), None, PATIENCE).unwrap();
        let flows = |bytes: u64| {
            eventually("megabytes", PATIENCE, || receiver.bytes() > bytes).unwrap();
        };
        flows(5_000_000);
        if index == 1
            && let Some(meanwhile) = meanwhile.take()
        {
            meanwhile(cloud);
        }
        flows(receiver.bytes() + 5_000_000);
        assert_eq!(sender.stop().unwrap().broken, None);
        assert_eq!(receiver.finish().unwrap().broken, None);
    }
}

/// Numbered datagrams from the client to the web server, none of which is lost.
fn no_datagram_is_lost(cloud: &Cloud) {
    for web in WEB {
        let (client, server) = (workload_of(cloud, "client1"), workload_of(cloud, "web1"));
        let address = SocketAddr::new(web.parse().unwrap(), 7000);
        let receiver = UdpReceiver::start(server.namespace(), address).unwrap();
        let sender =
            UdpSender::start(client.namespace(), receiver.address(), 900, 500.0, None).unwrap();
        eventually("datagrams", PATIENCE, || receiver.received() > 500).unwrap();
        let sent = sender.stop();
        let all = || receiver.received() >= sent.sent;
        // If something was lost, the figures below say so.
        let _ = eventually("the last packets", Duration::from_secs(5), all);
        let received = receiver.stop();
        assert_eq!(received.lost(&sent), 0, "{received:?} of {sent:?}");
    }
}

#[test]
fn lab_traffic_and_a_move_go_over_ipv6_alone() {
    if !can_run("lab_traffic_and_a_move_go_over_ipv6_alone") {
        return;
    }
    let cloud = cloud();
    set(&cloud, EncryptionMode::Never);
    for (node, families) in [("near", 1), ("third", 2)] {
        let name: Name = node.parse().unwrap();
        let spec = cloud.rest(|client| client.node(&name)).unwrap().spec;
        assert_eq!(spec.underlay_addresses.len(), families, "{spec:?}");
        assert!(spec.underlay_addresses.iter().any(IpAddr::is_ipv6));
    }
    for web in WEB {
        answers(&cloud, "client1", web);
    }
    no_datagram_is_lost(&cloud);
    tcp_flows(&cloud, |cloud| {
        let web = workload_of(cloud, "web1");
        cloud.move_endpoint(&web, "third").unwrap();
    });
    // Where it is now, both families reach it.
    for web in WEB {
        answers(&cloud, "client1", web);
        answers(&cloud, "old1", web);
    }
    // Who has nothing in common with a node is told so.
    let client = workload_of(&cloud, "client1");
    expect_no_ping(&client, OLD[0].parse().unwrap(), Duration::from_secs(1)).unwrap();
    let detail = wait_tunnel(&cloud, "near", "old", TunnelState::Down);
    assert!(detail.contains("IPv6"), "{detail}");
    cloud.down().unwrap();
}

#[test]
fn lab_encrypted_tunnels_go_over_ipv6() {
    if !can_run("lab_encrypted_tunnels_go_over_ipv6") {
        return;
    }
    let cloud = cloud();
    set(&cloud, EncryptionMode::Always);
    for web in WEB {
        answers(&cloud, "client1", web);
    }
    no_datagram_is_lost(&cloud);
    tcp_flows(&cloud, |cloud| {
        let web = workload_of(cloud, "web1");
        cloud.move_endpoint(&web, "third").unwrap();
    });
    answers(&cloud, "old1", WEB[0]);
    cloud.down().unwrap();
}
