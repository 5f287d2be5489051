//! Outer checksums: a peer that drops tunnelled packets without them, which is Linux's own VXLAN over IPv6
//! unless it is told otherwise, and what is seen of them on the way.
//!
//! ```text
//!   near (IPv6)   third (IPv6)   rack (IPv6, no agent, no udp6zerocsumrx)
//!   client1       -              host1
//! ```

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    process::Command,
    time::Duration,
};

use common::{OPEN, can_run};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt,
};
use sunwire_api::{
    EncryptionMode, EndpointCreate, NetworkChecksum, NetworkCreate, NetworkPatch, NodeCreate,
    NodeKind, client::Guard,
};
use sunwire_lab::{
    NodeHandle, Topology, Underlay, Workload, WorkloadSpec, eventually, expect_no_ping,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

/// On node `near`, and after its move on `third`.
const CLIENT: [&str; 2] = ["10.20.0.11", "fd00:20::11"];
/// Behind `rack`.
const HOST: [&str; 2] = ["10.20.0.21", "fd00:20::21"];
const VNI: u32 = 77;
/// The devices at whose far end checksums are written.
const DEVICE: &str = "sw-checksum";

fn run(node: &NodeHandle, line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    let output = node.namespace.exec(command).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn has_device(node: &NodeHandle) -> bool {
    run(node, "ip -o link").contains(DEVICE)
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

fn address_of(cloud: &Cloud, node: &str) -> IpAddr {
    let node = cloud.lab().node(node).unwrap();
    node.underlay_address_v6.unwrap().into()
}

/// Two nodes and a rack that knows nothing of them, each with an IPv6 address alone.
fn beside() -> Cloud {
    let workload_at = |name: &str, node: &str, [v4, v6]: [&str; 2]| {
        let spec = WorkloadSpec::new(name, node, "shop");
        let spec = spec.address(&format!("{v4}/16")).unwrap();
        spec.address(&format!("{v6}/64")).unwrap()
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .over(Underlay::Ipv6)
        .node("third", "aws:us-east-1")
        .over(Underlay::Ipv6)
        .node("rack", "aws:us-east-1")
        .over(Underlay::Ipv6)
        .controller("aws:us-east-1")
        .workload(workload_at("client1", "near", CLIENT))
        .workload(workload_at("host1", "rack", HOST))
        .build()
        .unwrap();
    let cloud = Cloud::up_beside(topology, &[], &["rack"]).unwrap();
    cloud.decide_encryption(EncryptionMode::Never).unwrap();
    let network = NetworkCreate {
        name: "shop".parse().unwrap(),
        vni: Some(VNI.try_into().unwrap()),
        subnets: vec![
            "10.20.0.0/16".parse().unwrap(),
            "fd00:20::/64".parse().unwrap(),
        ],
        mtu: None,
        encryption: Default::default(),
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: NetworkChecksum::Zero,
        outbound: Default::default(),
    };
    let created = cloud.rest(|client| client.create_network(&network, Guard::None));
    created.unwrap();
    set_up_rack(&cloud);
    let body = NodeCreate {
        name: "rack".parse().unwrap(),
        kind: NodeKind::Vxlan,
        location: "onprem:dc1".parse().unwrap(),
        underlay_address: address_of(&cloud, "rack"),
        plaintext: false,
    };
    let declared = cloud.in_controller(|client| client.create_node(&body, Guard::Key("rack")));
    declared.unwrap();
    cloud.create_endpoint(&workload(&cloud, "client1")).unwrap();
    let host = workload(&cloud, "host1");
    let spec = host.spec();
    let body = EndpointCreate {
        name: spec.name.parse().unwrap(),
        network: "shop".parse().unwrap(),
        node: "rack".parse().unwrap(),
        device: None,
        addresses: Some(spec.addresses.iter().map(|address| address.ip).collect()),
        mac: Some(spec.effective_mac().to_string().parse().unwrap()),
        labels: Default::default(),
    };
    let endpoint = cloud.rest(|client| client.create_endpoint(&body, Guard::None));
    cloud.wait_applied(endpoint.unwrap().revision).unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    cloud
}

/// Makes `rack` a bridge with a VXLAN device, as its owner would who has never heard of zero checksums.
fn set_up_rack(cloud: &Cloud) {
    let rack = cloud.lab().node("rack").unwrap();
    let (local, near) = (address_of(cloud, "rack"), address_of(cloud, "near"));
    let host = workload(cloud, "host1").host_device_name().to_owned();
    for line in [
        "ip link add br0 type bridge".to_owned(),
        format!("ip link add vxlan0 type vxlan id {VNI} local {local} dstport 4789 nolearning"),
        format!("ip link set {host} master br0"),
        format!("ip link set {host} up"),
        "ip link set vxlan0 master br0".to_owned(),
        "ip link set vxlan0 up".to_owned(),
        "ip link set br0 up".to_owned(),
        format!("bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst {near}"),
    ] {
        run(rack, &line);
    }
}

fn set_checksum(cloud: &Cloud, checksum: NetworkChecksum) {
    let patch = NetworkPatch {
        checksum: Some(checksum),
        ..NetworkPatch::default()
    };
    let name = "shop".parse().unwrap();
    let network = cloud.rest(|client| client.patch_network(&name, &patch, Guard::Any));
    let network = network.unwrap();
    assert_eq!(network.spec.checksum, checksum);
    cloud.wait_applied(network.revision).unwrap();
}

fn answers(cloud: &Cloud, from: &str, to: &str) {
    let options = PingOptions {
        timeout: Duration::from_secs(1),
        ..PingOptions::default()
    };
    let (from, to): (_, IpAddr) = (workload(cloud, from), to.parse().unwrap());
    let answered = || ping(from.namespace(), to, options).is_ok_and(|report| report.received() > 0);
    eventually("an answer", PATIENCE, answered).unwrap();
}

/// Bulk TCP and numbered datagrams from one to the other.
fn talk(cloud: &Cloud, from: &str, to: &str, address: &str) {
    let ip: IpAddr = address.parse().unwrap();
    let (from, to) = (workload(cloud, from), workload(cloud, to));
    let receiver = BulkReceiver::start(to.namespace(), SocketAddr::new(ip, 0)).unwrap();
    let sender = BulkSender::start(from.namespace(), receiver.address(), None, PATIENCE).unwrap();
    eventually("a few megabytes by TCP", PATIENCE, || {
        receiver.bytes() > 4 << 20
    })
    .unwrap();
    let sent = sender.stop().unwrap();
    assert_eq!(sent.broken, None);
    assert_eq!(receiver.finish().unwrap().bytes, sent.bytes, "{address}");
    let receiver = UdpReceiver::start(to.namespace(), SocketAddr::new(ip, 0)).unwrap();
    let sender =
        UdpSender::start(from.namespace(), receiver.address(), 401, 200.0, Some(100)).unwrap();
    let sent = sender.finish();
    let all = || receiver.received() == sent.sent;
    eventually("every datagram", PATIENCE, all).unwrap();
    assert_eq!(receiver.stop().lost(&sent), 0);
}

/// Everything that passes a namespace's devices, from now on.
fn listen(node: &NodeHandle) -> OwnedFd {
    let opened = node.namespace.run(|| {
        socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::EthAll,
        )
    });
    let opened = opened.unwrap().unwrap();
    setsockopt(&opened, sockopt::RcvBufForce, &(64 << 20)).unwrap();
    opened
}

/// Outer checksums of what came from a node by tunnels over IPv6 since `listen`: how many of the network's packets
/// had one, and how many had none.
fn outer_checksums(heard: &OwnedFd, from: IpAddr) -> (u64, u64) {
    let IpAddr::V6(from) = from else {
        panic!("{from} is no IPv6 address");
    };
    let (mut some, mut none) = (0, 0);
    let mut frame = [0; 128];
    while let Ok(length) = recv(heard.as_raw_fd(), &mut frame, MsgFlags::empty()) {
        let frame = &frame[..length.min(128)];
        let is_tunnel = frame.len() >= 70
            && frame[12..14] == [0x86, 0xdd]
            && frame[20] == 17
            && frame[22..38] == from.octets()
            && frame[56..58] == 4789_u16.to_be_bytes()
            // Probes are of no network.
            && frame[66..69] == VNI.to_be_bytes()[1..];
        match is_tunnel.then(|| &frame[60..62]) {
            Some([0, 0]) => none += 1,
            Some(_) => some += 1,
            None => {}
        }
    }
    (some, none)
}

#[test]
fn lab_a_peer_that_wants_outer_checksums_gets_right_ones() {
    let test = "lab_a_peer_that_wants_outer_checksums_gets_right_ones";
    if !can_run(test) {
        return;
    }
    let cloud = beside();
    let client = workload(&cloud, "client1");
    let near = cloud.lab().node("near").unwrap();
    let rack = cloud.lab().node("rack").unwrap();
    // It drops what has none.
    let never = |name: &str| {
        let who = workload(&cloud, name);
        let to = if name == "client1" { HOST } else { CLIENT };
        expect_no_ping(&who, to[0].parse().unwrap(), Duration::from_secs(1)).unwrap();
    };
    never("client1");
    assert!(!has_device(near));

    // From one revision to the next.
    set_checksum(&cloud, NetworkChecksum::Udp);
    assert!(has_device(near));
    let heard = listen(rack);
    for family in 0..2 {
        answers(&cloud, "client1", HOST[family]);
        talk(&cloud, "client1", "host1", HOST[family]);
        talk(&cloud, "host1", "client1", CLIENT[family]);
        // The gateway's own answers go back by the kernel's VXLAN.
        answers(&cloud, "host1", ["10.20.0.1", "fd00:20::1"][family]);
    }
    let (some, none) = outer_checksums(&heard, address_of(&cloud, "near"));
    assert_eq!(none, 0, "beside {some} with a checksum");
    assert!(some > 1000, "only {some} were seen");

    // It sends on to where it has always sent, and from there packets go on.
    let heard = listen(cloud.lab().node("third").unwrap());
    cloud.move_endpoint(&client, "third").unwrap();
    for family in 0..2 {
        talk(&cloud, "client1", "host1", HOST[family]);
        talk(&cloud, "host1", "client1", CLIENT[family]);
    }
    let (some, none) = outer_checksums(&heard, address_of(&cloud, "near"));
    assert_eq!(none, 0, "beside {some} with a checksum");
    assert!(some > 1000, "only {some} were seen");

    // And back, which takes the devices away again.
    set_checksum(&cloud, NetworkChecksum::Zero);
    never("client1");
    eventually("the devices' end", PATIENCE, || !has_device(near)).unwrap();
    set_checksum(&cloud, NetworkChecksum::Udp);
    answers(&cloud, "client1", HOST[0]);
    cloud.down().unwrap();
}

#[test]
fn lab_outer_checksums_stay_while_an_agent_restarts() {
    let test = "lab_outer_checksums_stay_while_an_agent_restarts";
    if !can_run(test) {
        return;
    }
    let mut cloud = beside();
    set_checksum(&cloud, NetworkChecksum::Udp);
    answers(&cloud, "client1", HOST[0]);
    let (client, host) = (workload(&cloud, "client1"), workload(&cloud, "host1"));
    let address = SocketAddr::new(HOST[0].parse().unwrap(), 0);
    let receiver = UdpReceiver::start(host.namespace(), address).unwrap();
    let sender =
        UdpSender::start(client.namespace(), receiver.address(), 400, 500.0, None).unwrap();
    eventually("datagrams", PATIENCE, || receiver.received() > 100).unwrap();
    cloud
        .restart_agent("near", nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    cloud.wait_caught_up().unwrap();
    let so_far = receiver.received();
    eventually("more", PATIENCE, || receiver.received() > so_far + 100).unwrap();
    let near = cloud.lab().node("near").unwrap();
    let sent = sender.stop();
    let all = || receiver.received() == sent.sent;
    let _ = eventually("the last datagrams", Duration::from_secs(5), all);
    let received = receiver.stop();
    assert_eq!(received.lost(&sent), 0, "{received:?} of {sent:?}");
    // Somebody takes the devices away: the agent makes them anew.
    run(near, &format!("ip link del {DEVICE}"));
    eventually("the device", PATIENCE, || has_device(near)).unwrap();
    answers(&cloud, "client1", HOST[0]);
    cloud.down().unwrap();
}
