//! Wires between clouds, by real traffic: everything passes, both ends move, nothing else gets in.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::IoSliceMut,
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Instant,
};

use common::can_run;
use nix::{
    ifaddrs::getifaddrs,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, sendto,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use sunwire_api::{
    EncryptionMode, EncryptionSpec, EndpointCreate, Name, NetworkCreate, TraceOutcome,
    TraceRequest, TunnelState, WireCreate, WireState, client::Guard, to_hex,
};
use sunwire_lab::{
    Namespace, Topology, Workload, WorkloadSpec, eventually, eventually_ok,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const LEFT: &str = "10.9.0.1";
const RIGHT: &str = "10.9.0.2";
const OTHER: &str = "10.9.0.3";
const MTU: u32 = 1400;
/// Nodes of three clouds; `left`, `right` and `other` begin at one each.
const NODES: [&str; 3] = ["near", "far", "third"];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A network without subnet and an endpoint for each workload; no policy.
fn cloud(encryption: EncryptionMode) -> Cloud {
    let workload = |name: &str, node: &str, address: &str| {
        let spec = WorkloadSpec::new(name, node, "cables").mtu(MTU);
        spec.address(&format!("{address}/24")).unwrap()
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .node("third", "gcp:asia-northeast1-a")
        .controller("aws:us-east-1")
        .workload(workload("left", "near", LEFT))
        .workload(workload("right", "far", RIGHT))
        .workload(workload("other", "third", OTHER))
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    let spec = EncryptionSpec { mode: encryption };
    let set = cloud.rest(|client| client.put_encryption(&spec, Guard::Key("encryption")));
    if let Ok(set) = set {
        cloud.wait_applied(set.revision).unwrap();
    }
    let network = NetworkCreate {
        outbound: Default::default(),
        name: name("cables"),
        vni: None,
        subnets: Vec::new(),
        mtu: Some(MTU as u16),
        encryption: Default::default(),
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    };
    cloud
        .rest(|client| client.create_network(&network, Guard::None))
        .unwrap();
    for workload in ["left", "right", "other"] {
        let workload = cloud.lab().workload(workload).unwrap();
        let spec = workload.spec();
        let body = EndpointCreate {
            name: name(&spec.name),
            network: name("cables"),
            node: name(&workload.node().name),
            device: Some(workload.host_device_name().parse().unwrap()),
            addresses: None,
            mac: Some(spec.effective_mac().to_string().parse().unwrap()),
            labels: Default::default(),
        };
        cloud
            .rest(|client| client.create_endpoint(&body, Guard::None))
            .unwrap();
        let attached = cloud.wait_attached(&body.name).unwrap();
        cloud.wait_applied(attached.revision).unwrap();
    }
    cloud
}

fn connect(cloud: &Cloud, wire: &str, a: &str, b: &str) {
    let body = WireCreate {
        name: name(wire),
        a: name(a),
        b: name(b),
    };
    let made = cloud.rest(|client| client.connect_wire(&body, Guard::None));
    cloud.wait_applied(made.unwrap().revision).unwrap();
    let up = cloud.rest(|client| client.wait_wire(&name(wire), WireState::Up, PATIENCE));
    assert_eq!(up.unwrap().status.state, WireState::Up);
}

fn disconnect(cloud: &Cloud, wire: &str) {
    let gone = cloud.rest(|client| client.disconnect_wire(&name(wire), Guard::Any));
    cloud.wait_applied(gone.unwrap().revision).unwrap();
}

fn answers(from: &Workload, to: &str, payload_bytes: usize) -> bool {
    let options = PingOptions {
        count: 1,
        payload_bytes,
        timeout: std::time::Duration::from_secs(1),
        ..Default::default()
    };
    let report = ping(from.namespace(), to.parse().unwrap(), options).unwrap();
    report.received() == 1
}

#[track_caller]
fn is_answered(from: &Workload, to: &str, payload_bytes: usize) {
    let what = format!("an answer to {payload_bytes} bytes");
    eventually(&what, PATIENCE, || answers(from, to, payload_bytes)).unwrap();
}

/// Frames as they are, of a workload's device.
struct Frames {
    socket: OwnedFd,
    device: LinkAddr,
}

impl Frames {
    fn open(namespace: &Namespace) -> Self {
        let opened = namespace.run(|| {
            let kind = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
            let socket = socket(AddressFamily::Packet, kind.0, kind.1, SockProtocol::EthAll);
            let mut devices = getifaddrs()?.filter(|device| device.interface_name == "eth0");
            let device = devices.find_map(|device| Some(*device.address?.as_link_addr()?));
            Ok::<_, nix::Error>((socket?, device.expect("a workload has eth0")))
        });
        let (socket, device) = opened.unwrap().unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).unwrap();
        Frames { socket, device }
    }

    fn send(&self, frame: &[u8]) {
        let fd = self.socket.as_raw_fd();
        sendto(fd, frame, &self.device, MsgFlags::empty()).unwrap();
    }

    /// Whether a frame with this end comes in before all patience is lost.
    fn sees(&self, end: &[u8]) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let mut buffer = vec![0; 4096];
        while Instant::now() < deadline {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let fd = self.socket.as_raw_fd();
            let Ok(message) = recvmsg::<LinkAddr>(fd, &mut parts, None, MsgFlags::empty()) else {
                continue;
            };
            let length = message.bytes;
            // What this end itself sends is seen, too.
            let is_own = message.address.is_some_and(|from| from.pkttype() == 4);
            if !is_own && buffer[..length].ends_with(end) {
                return Some(buffer[..length].to_vec());
            }
        }
        None
    }
}

#[test]
fn lab_a_wire_carries_everything_between_clouds_in_the_clear() {
    let test = "lab_a_wire_carries_everything_between_clouds_in_the_clear";
    if can_run(test) {
        carries_everything(EncryptionMode::Never);
    }
}

#[test]
fn lab_a_wire_carries_everything_between_clouds_encrypted() {
    let test = "lab_a_wire_carries_everything_between_clouds_encrypted";
    if can_run(test) {
        carries_everything(EncryptionMode::Always);
    }
}

fn carries_everything(encryption: EncryptionMode) {
    let cloud = cloud(encryption);
    if encryption == EncryptionMode::Always {
        eventually_ok("tunnels to be up", PATIENCE, || {
            let near = cloud.rest(|client| client.node(&name("near")))?;
            let tunnels = near.status.tunnels.iter();
            let down = tunnels.filter(|tunnel| tunnel.state != TunnelState::Encrypted);
            match down.count() {
                0 => Ok(()),
                down => anyhow::bail!("{down} are not"),
            }
        })
        .unwrap();
    }
    let of = |name: &str| cloud.lab().workload(name).unwrap();
    let (left, right, other) = (of("left"), of("right"), of("other"));
    assert!(
        !answers(&left, RIGHT, 56),
        "nothing is connected, and no policy is there"
    );

    connect(&cloud, "patch1", "left", "right");
    // ARP goes before it.
    is_answered(&left, RIGHT, 56);
    is_answered(&right, LEFT, 56);
    // All that fits, and with the largest segments that TCP makes of it.
    is_answered(&left, RIGHT, MTU as usize - 28);
    assert!(!answers(&other, LEFT, 56), "nobody else gets in");

    // Frames that bridges keep to themselves, with tags and without.
    let (from, to) = (
        Frames::open(left.namespace()),
        Frames::open(right.namespace()),
    );
    let stranger = [2, 9, 9, 9, 9, 9];
    let frame = |middle: &[u8], text: &[u8]| {
        let to = [1, 0x80, 0xc2, 0, 0, 0x0e];
        [&to[..], &stranger, middle, &[7; 40], text].concat()
    };
    let lldp = frame(&[0x88, 0xcc], b"a neighbour");
    from.send(&lldp);
    assert_eq!(to.sees(b"a neighbour"), Some(lldp));
    let tagged = frame(&[0x81, 0, 0x60, 7, 0x88, 0xb5], b"with a tag");
    from.send(&tagged);
    // A packet socket sees the frame without the tag that the kernel has taken off.
    let without = frame(&[0x88, 0xb5], b"with a tag");
    assert_eq!(to.sees(b"with a tag"), Some(without));

    // It says what went by it.
    let mut request = TraceRequest::new(name("left"), "");
    request.frame = Some(to_hex(&tagged));
    // A node that is asked for the first time has the verifier look at what traces, and a slow one does not answer
    // in time.
    let mut trace = None;
    eventually("a whole trace", PATIENCE, || {
        let heard = cloud.rest(|client| client.trace(&request)).unwrap();
        let is_whole = heard.unfinished.is_none();
        trace = Some(heard);
        is_whole
    })
    .unwrap();
    let trace = trace.unwrap();
    assert_eq!(trace.outcome, TraceOutcome::Delivered, "{trace:#?}");
    for hop in &trace.hops {
        assert_eq!(hop.flow.wire.as_deref(), Some("patch1"), "{trace:#?}");
    }
    eventually_ok("both ends to be counted", PATIENCE, || {
        let wire = cloud.rest(|client| client.wire(&name("patch1")))?;
        let (a, b) = (wire.status.from_a, wire.status.from_b);
        if a.packets < 4 || b.packets < 2 || a.bytes < u64::from(MTU) {
            anyhow::bail!("{a:?}, {b:?}");
        }
        Ok(())
    })
    .unwrap();

    disconnect(&cloud, "patch1");
    assert!(!answers(&left, RIGHT, 56) && !answers(&right, LEFT, 56));
    // The ends are free for other wires.
    connect(&cloud, "patch2", "other", "left");
    is_answered(&left, OTHER, 56);
    assert!(!answers(&left, RIGHT, 56));
    cloud.down().unwrap();
}

#[test]
fn lab_a_connection_by_a_wire_survives_moves_of_both_ends() {
    let test = "lab_a_connection_by_a_wire_survives_moves_of_both_ends";
    if !can_run(test) {
        return;
    }
    let cloud = cloud(EncryptionMode::Never);
    connect(&cloud, "patch1", "left", "right");
    let of = |name: &str| cloud.lab().workload(name).unwrap();
    let at = SocketAddr::new(RIGHT.parse().unwrap(), 5001);
    let receiver = BulkReceiver::start(of("right").namespace(), at).unwrap();
    let left = of("left");
    let sender = BulkSender::start(left.namespace(), at, Some(20.0), PATIENCE).unwrap();
    let goes_on = |what: &str| {
        let before = receiver.bytes();
        eventually(what, PATIENCE, || receiver.bytes() > before + 100_000).unwrap();
    };
    goes_on("bytes before any move");
    // To a node of its own, beside the other end, both at once elsewhere, and back.
    for (end, to) in [
        ("left", NODES[2]),
        ("right", NODES[2]),
        ("left", NODES[1]),
        ("right", NODES[0]),
    ] {
        cloud.move_endpoint(&of(end), to).unwrap();
        goes_on(&format!("bytes after {end} has moved to {to}"));
    }
    let wire = cloud.rest(|client| client.wire(&name("patch1"))).unwrap();
    assert_eq!(wire.status.state, WireState::Up, "{wire:?}");
    sender.stop().unwrap();
    receiver.finish().unwrap();

    // Disconnected while it is in use: not a byte more.
    let receiver = BulkReceiver::start(of("right").namespace(), SocketAddr::new(at.ip(), 5002));
    let receiver = receiver.unwrap();
    let at = receiver.address();
    let sender = BulkSender::start(of("left").namespace(), at, Some(20.0), PATIENCE).unwrap();
    eventually("bytes", PATIENCE, || receiver.bytes() > 100_000).unwrap();
    disconnect(&cloud, "patch1");
    let then = receiver.bytes();
    assert!(!answers(&of("left"), RIGHT, 56));
    assert_eq!(receiver.bytes(), then);
    connect(&cloud, "patch1", "right", "left");
    eventually("the connection to go on", PATIENCE, || {
        receiver.bytes() > then
    })
    .unwrap();
    sender.stop().unwrap();
    receiver.finish().unwrap();
    cloud.down().unwrap();
}
