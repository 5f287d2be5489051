//! Beside the kernel's own VXLAN: a Linux bridge with a VXLAN device, which knows nothing of Sunwire,
//! is declared as a node, and its hosts are endpoints.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
    time::Duration,
};

use common::{OPEN, can_run};
use sunwire_api::{
    EncryptionMode, EncryptionSpec, EndpointCreate, Name, NetworkCreate, NetworkEncryption,
    NodeCreate, NodeKind, ProblemCode, TunnelState, client::ClientError, client::Guard,
};
use sunwire_lab::{
    NodeHandle, Topology, Workload, WorkloadSpec, eventually, eventually_ok,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

/// On node `near`.
const CLIENT: [&str; 2] = ["10.20.0.11", "fd00:20::11"];
/// Behind `rack`, which runs no agent.
const HOST: [&str; 2] = ["10.20.0.21", "fd00:20::21"];
/// Behind it too.
const NEIGHBOUR: [&str; 2] = ["10.20.0.22", "fd00:20::22"];
const VNI: u32 = 77;

fn run(node: &NodeHandle, line: &str) {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    let output = node.namespace.exec(command).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

/// Makes `rack` a bridge with a VXLAN device, as its owner would: where the client is it knows by
/// itself, and everything else it sends to `near`.
fn set_up_rack(cloud: &Cloud, options: &str, port: u16) {
    let rack = cloud.lab().node("rack").unwrap();
    let near = cloud.lab().node("near").unwrap().underlay_address;
    let local = rack.underlay_address;
    let client = workload(cloud, "client1").spec().effective_mac();
    run(rack, "ip link add br0 type bridge");
    run(
        rack,
        &format!(
            "ip link add vxlan0 type vxlan id {VNI} local {local} dstport {port} nolearning {options}"
        ),
    );
    for device in ["host1", "host2"]
        .map(|name| workload(cloud, name).host_device_name().to_owned())
        .iter()
        .map(String::as_str)
        .chain(["vxlan0"])
    {
        run(rack, &format!("ip link set {device} master br0"));
        run(rack, &format!("ip link set {device} up"));
    }
    run(rack, "ip link set br0 up");
    run(
        rack,
        &format!("bridge fdb append {client} dev vxlan0 dst {near}"),
    );
    run(
        rack,
        &format!("bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst {near}"),
    );
}

fn declare(cloud: &Cloud, plaintext: bool) -> Result<(), ClientError> {
    let body = NodeCreate {
        name: "rack".parse().unwrap(),
        kind: NodeKind::Vxlan,
        location: "onprem:dc1".parse().unwrap(),
        underlay_address: cloud.lab().node("rack").unwrap().underlay_address.into(),
        plaintext,
    };
    let declared = cloud.in_controller(|client| client.create_node(&body, Guard::Key("rack")));
    declared.map(drop)
}

fn endpoint_at_rack(cloud: &Cloud, workload: &Workload, network: &str) -> EndpointCreate {
    let spec = workload.spec();
    assert_eq!(workload.node().name, cloud.lab().node("rack").unwrap().name);
    EndpointCreate {
        name: spec.name.parse().unwrap(),
        network: network.parse().unwrap(),
        node: "rack".parse().unwrap(),
        device: None,
        addresses: Some(spec.addresses.iter().map(|address| address.ip).collect()),
        mac: Some(spec.effective_mac().to_string().parse().unwrap()),
        labels: Default::default(),
    }
}

/// A cloud of two nodes and, beside them, a rack that knows nothing of them.
fn beside(options: &str, plaintext: bool) -> Cloud {
    beside_at(None, options, plaintext)
}

/// The same, where the network has a UDP port of its own.
fn beside_at(vxlan_port: Option<u16>, options: &str, plaintext: bool) -> Cloud {
    let workload = |name: &str, node: &str, [v4, v6]: [&str; 2]| {
        let spec = WorkloadSpec::new(name, node, "shop");
        let spec = spec.address(&format!("{v4}/16")).unwrap();
        spec.address(&format!("{v6}/64")).unwrap()
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("third", "aws:us-east-1")
        .node("rack", "aws:us-east-1")
        .controller("aws:us-east-1")
        .workload(workload("client1", "near", CLIENT))
        .workload(workload("host1", "rack", HOST))
        .workload(workload("host2", "rack", NEIGHBOUR))
        .build()
        .unwrap();
    let cloud = Cloud::up_beside(topology, &[], &["rack"]).unwrap();
    let network = NetworkCreate {
        outbound: Default::default(),
        name: "shop".parse().unwrap(),
        vni: Some(VNI.try_into().unwrap()),
        subnets: vec![
            "10.20.0.0/16".parse().unwrap(),
            "fd00:20::/64".parse().unwrap(),
        ],
        mtu: None,
        encryption: NetworkEncryption::Default,
        relay: false,
        enforce: Default::default(),
        vxlan_port,
        checksum: Default::default(),
    };
    let created = cloud.rest(|client| client.create_network(&network, Guard::None));
    created.unwrap();
    // The rack is in a cloud of its own and encrypts nothing.
    let spec = EncryptionSpec {
        mode: EncryptionMode::Never,
    };
    let set = cloud.rest(|client| client.put_encryption(&spec, Guard::Any));
    cloud.wait_applied(set.unwrap().revision).unwrap();
    set_up_rack(&cloud, options, vxlan_port.unwrap_or(4789));
    declare(&cloud, plaintext).unwrap();
    cloud
        .create_endpoint(&cloud.lab().workload("client1").unwrap())
        .unwrap();
    for name in ["host1", "host2"] {
        let host = cloud.lab().workload(name).unwrap();
        let body = endpoint_at_rack(&cloud, &host, "shop");
        let endpoint = cloud.rest(|client| client.create_endpoint(&body, Guard::None));
        let endpoint = endpoint.unwrap();
        // Nobody else will say so.
        cloud.wait_attached(&endpoint.name).unwrap();
        cloud.wait_applied(endpoint.revision).unwrap();
    }
    cloud
}

fn answers(cloud: &Cloud, from: &str, to: &str) -> u32 {
    let options = PingOptions {
        timeout: Duration::from_secs(2),
        ..PingOptions::default()
    };
    let from = workload(cloud, from);
    let report = ping(from.namespace(), to.parse().unwrap(), options);
    report.unwrap().received()
}

/// Ping, TCP and UDP from one to the other.
fn talk(cloud: &Cloud, from: &str, to: &str, address: &str) {
    let ip: IpAddr = address.parse().unwrap();
    assert!(answers(cloud, from, address) > 0, "{from} pings {address}");
    let (from, to) = (workload(cloud, from), workload(cloud, to));
    let receiver = BulkReceiver::start(to.namespace(), SocketAddr::new(ip, 0)).unwrap();
    let sender = BulkSender::start(from.namespace(), receiver.address(), None, PATIENCE).unwrap();
    eventually("a few megabytes by TCP", PATIENCE, || {
        receiver.bytes() > 4 << 20
    })
    .unwrap();
    let sent = sender.stop().unwrap();
    assert_eq!(sent.broken, None);
    let received = receiver.finish().unwrap();
    assert_eq!(received.bytes, sent.bytes, "{address}");
    let receiver = UdpReceiver::start(to.namespace(), SocketAddr::new(ip, 0)).unwrap();
    let sender =
        UdpSender::start(from.namespace(), receiver.address(), 400, 200.0, Some(100)).unwrap();
    let sent = sender.finish();
    let all = || receiver.received() == sent.sent;
    eventually("every datagram", PATIENCE, all).unwrap();
    assert_eq!(receiver.stop().lost(&sent), 0);
}

#[test]
fn lab_a_kernel_vxlan_peer_on_another_port_and_endpoints_talk_both_ways() {
    if !can_run("lab_a_kernel_vxlan_peer_on_another_port_and_endpoints_talk_both_ways") {
        return;
    }
    let cloud = beside_at(Some(8472), "noudpcsum", false);
    cloud.apply_policy("shop", OPEN).unwrap();
    for family in [0, 1] {
        talk(&cloud, "client1", "host1", HOST[family]);
        talk(&cloud, "host1", "client1", CLIENT[family]);
    }
    // Whoever moves takes its network's port along, and the rack is passed on to.
    let client = workload(&cloud, "client1");
    cloud.move_endpoint(&client, "third").unwrap();
    talk(&cloud, "host1", "client1", CLIENT[0]);
    // A port that a program has is not taken from it, and its node says so.
    let near = cloud.lab().node("near").unwrap();
    let taken = near.namespace.run(|| UdpSocket::bind("0.0.0.0:4791"));
    let taken = taken.unwrap();
    let network = |name: &str, vxlan_port| NetworkCreate {
        name: name.parse().unwrap(),
        vni: None,
        subnets: vec!["10.30.0.0/16".parse().unwrap()],
        mtu: None,
        encryption: NetworkEncryption::Default,
        relay: false,
        enforce: Default::default(),
        vxlan_port: Some(vxlan_port),
        checksum: Default::default(),
        outbound: Default::default(),
    };
    let create =
        |body: NetworkCreate| cloud.rest(|client| client.create_network(&body, Guard::None));
    create(network("other", 4791)).unwrap();
    let name: Name = "near".parse().unwrap();
    eventually("the node's error", PATIENCE, || {
        let node = cloud.rest(|client| client.node(&name)).unwrap();
        let error = node.status.error;
        error.is_some_and(|error| error.detail.contains("4791"))
    })
    .unwrap();
    let name: Name = "other".parse().unwrap();
    cloud
        .rest(|client| client.delete_network(&name, Guard::Any))
        .unwrap();
    drop(taken);
    cloud.down().unwrap();
}

#[test]
fn lab_a_kernel_vxlan_peer_and_endpoints_talk_both_ways() {
    let test = "lab_a_kernel_vxlan_peer_and_endpoints_talk_both_ways";
    if !can_run(test) {
        return;
    }
    // With and without checksums in the outer header.
    for options in ["noudpcsum", "udpcsum"] {
        let cloud = beside(options, false);
        cloud.apply_policy("shop", OPEN).unwrap();
        for family in 0..2 {
            talk(&cloud, "client1", "host1", HOST[family]);
            talk(&cloud, "host1", "client1", CLIENT[family]);
            assert!(
                answers(&cloud, "host1", NEIGHBOUR[family]) > 0,
                "its own are its own"
            );
        }
        assert!(
            answers(&cloud, "host1", "10.20.0.1") > 0,
            "the gateway answers"
        );
        cloud.down().unwrap();
    }
}

#[test]
fn lab_the_policy_decides_about_a_kernel_vxlan_peer_where_it_arrives() {
    let test = "lab_the_policy_decides_about_a_kernel_vxlan_peer_where_it_arrives";
    if !can_run(test) {
        return;
    }
    let cloud = beside("noudpcsum", false);
    assert_eq!(
        answers(&cloud, "host1", CLIENT[0]),
        0,
        "no policy, no packets"
    );
    let policy = format!(
        "network shop
policy main =
    if established then forward \"replies\"
    else if src = {} then forward \"asks\"
    else drop \"unasked\"
",
        CLIENT[0]
    );
    cloud.apply_policy("shop", &policy).unwrap();
    assert_eq!(answers(&cloud, "host1", CLIENT[0]), 0, "nobody asked");
    talk_stateful(&cloud);
    // Every later change is in force for it too.
    cloud.apply_policy("shop", OPEN).unwrap();
    assert!(answers(&cloud, "host1", CLIENT[0]) > 0);
    let host = format!(
        "network shop\npolicy main = if src = {} then drop else forward\n",
        HOST[0]
    );
    cloud.apply_policy("shop", &host).unwrap();
    assert_eq!(answers(&cloud, "host1", CLIENT[0]), 0);
    assert!(
        answers(&cloud, "host2", CLIENT[0]) > 0,
        "its neighbour is another one"
    );
    cloud.down().unwrap();
}

fn talk_stateful(cloud: &Cloud) {
    assert!(
        answers(cloud, "client1", HOST[0]) > 0,
        "answers to who asked"
    );
    let (client, host) = (workload(cloud, "client1"), workload(cloud, "host1"));
    let address = SocketAddr::new(HOST[0].parse().unwrap(), 0);
    let receiver = BulkReceiver::start(host.namespace(), address).unwrap();
    let sender = BulkSender::start(client.namespace(), receiver.address(), None, PATIENCE);
    let sender = sender.unwrap();
    eventually("a megabyte by TCP", PATIENCE, || receiver.bytes() > 1 << 20).unwrap();
    assert_eq!(sender.stop().unwrap().broken, None);
    receiver.finish().unwrap();
}

#[test]
fn lab_a_kernel_vxlan_peer_finds_an_endpoint_that_has_moved() {
    let test = "lab_a_kernel_vxlan_peer_finds_an_endpoint_that_has_moved";
    if !can_run(test) {
        return;
    }
    let cloud = beside("noudpcsum", false);
    cloud.apply_policy("shop", OPEN).unwrap();
    let (client, host) = (workload(&cloud, "client1"), workload(&cloud, "host1"));
    let address = SocketAddr::new(CLIENT[0].parse().unwrap(), 0);
    let receiver = BulkReceiver::start(client.namespace(), address).unwrap();
    let sender =
        BulkSender::start(host.namespace(), receiver.address(), Some(20.0), PATIENCE).unwrap();
    eventually("bytes", PATIENCE, || receiver.bytes() > 1 << 20).unwrap();
    // Nobody tells the rack: it sends on to where the endpoint was.
    cloud.move_endpoint(&client, "third").unwrap();
    let before = receiver.bytes();
    eventually("bytes after the move", PATIENCE, || {
        receiver.bytes() > before + (1 << 20)
    })
    .unwrap();
    let sent = sender.stop().unwrap();
    assert_eq!(sent.broken, None);
    assert_eq!(receiver.finish().unwrap().bytes, sent.bytes);
    for family in 0..2 {
        assert!(answers(&cloud, "client1", HOST[family]) > 0);
        assert!(answers(&cloud, "host1", CLIENT[family]) > 0);
    }
    cloud.down().unwrap();
}

#[test]
fn lab_nothing_is_sent_in_the_clear_that_a_kernel_vxlan_peer_cannot_decrypt() {
    let test = "lab_nothing_is_sent_in_the_clear_that_a_kernel_vxlan_peer_cannot_decrypt";
    if !can_run(test) {
        return;
    }
    let cloud = beside("noudpcsum", false);
    cloud.apply_policy("shop", OPEN).unwrap();
    assert!(answers(&cloud, "client1", HOST[0]) > 0);
    // It is declared to be in another cloud.
    let spec = EncryptionSpec {
        mode: EncryptionMode::BetweenClouds,
    };
    let set = cloud
        .rest(|client| client.put_encryption(&spec, Guard::Any))
        .unwrap();
    cloud.wait_applied(set.revision).unwrap();
    assert_eq!(answers(&cloud, "client1", HOST[0]), 0);
    assert_eq!(answers(&cloud, "host1", CLIENT[0]), 0);
    let near: Name = "near".parse().unwrap();
    let detail = eventually_ok("what is wrong", PATIENCE, || {
        let node = cloud.rest(|client| client.node(&near))?;
        let mut tunnels = node.status.tunnels.into_iter();
        let tunnel = tunnels.find(|tunnel| tunnel.node.as_str() == "rack");
        match tunnel {
            Some(tunnel) if tunnel.state == TunnelState::Down => Ok(tunnel.detail),
            other => Err(anyhow::anyhow!("{other:?}")),
        }
    });
    let detail = detail.unwrap().unwrap();
    assert!(
        detail.contains("no agent") && detail.contains("--plaintext"),
        "{detail}"
    );
    cloud.down().unwrap();

    let cloud = beside("noudpcsum", true);
    cloud.apply_policy("shop", OPEN).unwrap();
    let set = cloud
        .rest(|client| client.put_encryption(&spec, Guard::Any))
        .unwrap();
    cloud.wait_applied(set.revision).unwrap();
    assert!(
        answers(&cloud, "client1", HOST[0]) > 0,
        "its owner vouches for the way"
    );
    let problem = |code: ProblemCode, refused: Result<(), ClientError>| {
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.problem().map(|problem| problem.code),
            Some(code),
            "{refused}"
        );
    };
    let secret = NetworkCreate {
        outbound: Default::default(),
        name: "secret".parse().unwrap(),
        vni: None,
        subnets: vec!["10.30.0.0/16".parse().unwrap()],
        mtu: None,
        encryption: NetworkEncryption::Required,
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    };
    cloud
        .rest(|client| client.create_network(&secret, Guard::None))
        .unwrap();
    let refused = cloud.in_controller(|client| {
        let host = EndpointCreate {
            name: "host3".parse().unwrap(),
            addresses: None,
            mac: None,
            ..endpoint_at_rack(&cloud, &workload(&cloud, "host1"), "secret")
        };
        client.create_endpoint(&host, Guard::None).map(drop)
    });
    problem(ProblemCode::NotEncryptable, refused);
    let refused = cloud.in_controller(|client| {
        let moved = client.move_endpoint(
            &"client1".parse().unwrap(),
            &"rack".parse().unwrap(),
            Guard::Any,
        );
        moved.map(drop)
    });
    problem(ProblemCode::NodeWithoutAgent, refused);
    cloud.down().unwrap();
}
