//! Packets of all sizes between clouds, by the kernel's own stacks at both ends: too long ones, fragments,
//! TCP's segments, and the super-packets of a virtual machine's TAP.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;
#[path = "../../userspace/tests/fixture/tap.rs"]
#[allow(dead_code, reason = "the tests of single packets use the rest")]
mod tap;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use common::{OPEN, can_run};
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, setsockopt, sockopt},
};
use sunwire_api::{EndpointCreate, Name, client::Guard};
use sunwire_lab::{
    Namespace, Topology, Workload, WorkloadSpec, eventually, eventually_ok,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use tap::Tap;

/// More than a tunnel leaves of the underlay's 1500 bytes.
const WORKLOAD_MTU: u32 = 1500;
/// A datagram of many fragments.
const LONG: usize = 8_000;
const NEAR: [&str; 2] = ["10.20.0.11", "fd20::11"];
const FAR: [&str; 2] = ["10.20.0.12", "fd20::12"];
const GUEST: &str = "10.20.0.21";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Two clouds with a workload each whose device takes longer packets than the network.
fn cloud() -> Cloud {
    let workload = |name: &str, node: &str, addresses: [&str; 2]| {
        let spec = WorkloadSpec::new(name, node, "shop").mtu(WORKLOAD_MTU);
        let spec = spec.address(&format!("{}/16", addresses[0])).unwrap();
        spec.address(&format!("{}/64", addresses[1])).unwrap()
    };
    let topology = Topology::builder()
        .node("here", "aws:us-east-1")
        .node("there", "azure:westeurope")
        .controller("aws:us-east-1")
        .workload(workload("near", "here", NEAR))
        .workload(workload("far", "there", FAR))
        // Its device is made by the test.
        .workload(WorkloadSpec::new("guest", "here", "shop"))
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    cloud
        .create_network("shop", &["10.20.0.0/16", "fd20::/64"])
        .unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    for name in ["near", "far"] {
        let workload = cloud.lab().workload(name).unwrap();
        cloud.create_endpoint(&workload).unwrap();
    }
    cloud
}

/// A socket for one destination. What it sends by IPv4 is not to be cut up on its way, as Linux has it
/// for all, and by IPv6 not by the sender either.
fn socket(from: &Workload, to: SocketAddr) -> UdpSocket {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => [0; 4].into(),
        SocketAddr::V6(_) => [0; 16].into(),
    };
    let namespace = from.namespace();
    let socket = namespace.run(|| UdpSocket::bind((any, 0)));
    let socket = socket.unwrap().unwrap();
    if to.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6DontFrag, &true).unwrap();
    }
    socket.connect(to).unwrap();
    socket
}

/// Whether the sender's kernel knows that packets of its device's MTU are too long.
fn is_told(socket: &UdpSocket, long: &[u8], mtu: usize) -> bool {
    let sent = socket.send(long);
    if socket.local_addr().unwrap().is_ipv4() {
        getsockopt(socket, sockopt::IpMtu).unwrap() as usize == mtu
    } else {
        sent.is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE))
    }
}

/// Bytes of IP and UDP headers.
fn headers(to: &SocketAddr) -> usize {
    if to.is_ipv4() { 28 } else { 48 }
}

#[test]
fn lab_too_long_packets_are_told_of_fragments_arrive_and_segments_fit() {
    if !can_run("lab_too_long_packets_are_told_of_fragments_arrive_and_segments_fit") {
        return;
    }
    let cloud = cloud();
    let mtu = cloud.rest(|client| client.network(&name("shop"))).unwrap();
    let mtu = usize::from(mtu.spec.mtu);
    assert!(mtu < WORKLOAD_MTU as usize);
    let [near, far] = ["near", "far"].map(|name| cloud.lab().workload(name).unwrap());
    for address in FAR {
        let address: IpAddr = address.parse().unwrap();
        let listening = far.namespace().run(|| UdpSocket::bind((address, 7000)));
        let listening = listening.unwrap().unwrap();
        listening.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = listening.local_addr().unwrap();
        let room = mtu - headers(&to);

        // The gateway tells the sender's kernel; nothing of it comes.
        let sending = socket(&near, to);
        let long = vec![7; WORKLOAD_MTU as usize - headers(&to)];
        sending.send(&long).unwrap();
        listening.set_nonblocking(true).unwrap();
        let mut buffer = vec![0; LONG + 1];
        assert!(listening.recv(&mut buffer).is_err(), "{to}: it came");
        eventually("the network's MTU to be known", PATIENCE, || {
            is_told(&sending, &long, mtu)
        })
        .unwrap();
        listening.set_nonblocking(false).unwrap();
        // Told once more of what was sent before is one refusal.
        let fitting = vec![8; room];
        sending
            .send(&fitting)
            .or_else(|_| sending.send(&fitting))
            .unwrap();
        let mut length = 0;
        // Behind what its sender cut up once it knew.
        while buffer[0] != 8 {
            length = listening.recv(&mut buffer).unwrap();
        }
        assert_eq!(length, room, "{to}");

        // And cut up by it, where that is let to it.
        let own = sending.local_addr().unwrap().ip();
        let sending = near.namespace().run(|| UdpSocket::bind((own, 0)));
        let sending = sending.unwrap().unwrap();
        let pattern: Vec<u8> = (0..LONG).map(|at| (at / 7) as u8).collect();
        sending.send_to(&pattern, to).unwrap();
        let (length, from) = listening.recv_from(&mut buffer).unwrap();
        assert!(buffer[..length] == pattern[..], "{to}: {length} bytes");
        // The other side has still to be told.
        sending
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();

        eventually("the datagram back", PATIENCE, || {
            listening.send_to(&pattern, from).unwrap();
            let back = sending.recv(&mut buffer);
            back.is_ok_and(|length| buffer[..length] == pattern[..])
        })
        .unwrap();
    }
    segments_fit(&near, &far, mtu);
}

/// New connections agree on segments that the network carries, in both directions.
fn segments_fit(near: &Workload, far: &Workload, mtu: usize) {
    for (from, to, address) in [
        (near, far, FAR[0]),
        (near, far, FAR[1]),
        (far, near, NEAR[0]),
        (far, near, NEAR[1]),
    ] {
        let address: IpAddr = address.parse().unwrap();
        let listener = to.namespace().run(|| TcpListener::bind((address, 7001)));
        let listener = listener.unwrap().unwrap();
        let at = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&at, PATIENCE);
        let client = from.namespace().run(connect).unwrap().unwrap();
        let (server, _) = listener.accept().unwrap();
        let room = mtu - if at.is_ipv4() { 40 } else { 60 };
        for end in [&client, &server] {
            let segment = getsockopt(end, sockopt::TcpMaxSeg).unwrap() as usize;
            assert!(
                segment <= room,
                "{at}: segments of {segment} of {room} bytes"
            );
        }
    }
}

/// Carries packets between two TAPs whole, as a virtual machine monitor and its guest do.
struct Monitor {
    /// Super-packets that went into the guest, and out of it.
    whole: Arc<[AtomicU64; 2]>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    fn start(outside: Tap, inside: Tap) -> Self {
        let whole = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let stopped = Arc::new(AtomicBool::new(false));
        let (counted, until) = (Arc::clone(&whole), Arc::clone(&stopped));
        let thread = std::thread::spawn(move || {
            let mut taps = [outside, inside];
            while !until.load(Ordering::Relaxed) {
                let mut ready =
                    [0, 1].map(|tap: usize| PollFd::new(taps[tap].as_fd(), PollFlags::POLLIN));
                poll(&mut ready, PollTimeout::from(50_u8)).unwrap();
                for from in 0..2 {
                    for packet in taps[from].received() {
                        let is_whole = u64::from(packet.gso_size != 0);
                        counted[from].fetch_add(is_whole, Ordering::Relaxed);
                        taps[1 - from].send(&packet);
                    }
                }
            }
        });
        Monitor {
            whole,
            stopped,
            thread: Some(thread),
        }
    }

    fn whole(&self) -> [u64; 2] {
        [0, 1].map(|way| self.whole[way].load(Ordering::Relaxed))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn ip(namespace: &Namespace, arguments: &str) {
    let mut command = Command::new("ip");
    command.args(arguments.split(' '));
    let output = namespace.exec(command).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said}");
}

/// A TAP with a file for its packets.
fn tap(namespace: &Namespace, test: &str, device: &str) -> Option<Tap> {
    namespace.run(|| Tap::new(test, device, true)).unwrap()
}

#[test]
fn lab_a_guests_super_packets_pass_its_tap_whole() {
    let test = "lab_a_guests_super_packets_pass_its_tap_whole";
    if !can_run(test) {
        return;
    }
    let cloud = cloud();
    let mtu = cloud.rest(|client| client.network(&name("shop"))).unwrap();
    let mtu = mtu.spec.mtu;
    let of = |name: &str| cloud.lab().workload(name).unwrap();
    let guest = of("guest");
    let node = guest.node();
    let Some(outside) = tap(&node.namespace, test, "tap0") else {
        return;
    };
    let inside = tap(guest.namespace(), test, "eth1").unwrap();
    let mac = "02:00:00:00:20:21";
    ip(&node.namespace, "link set tap0 up");
    ip(
        guest.namespace(),
        &format!("link set eth1 address {mac} mtu {mtu} up"),
    );
    ip(
        guest.namespace(),
        &format!("address add {GUEST}/16 dev eth1"),
    );
    let monitor = Monitor::start(outside, inside);
    let body = EndpointCreate {
        name: name("guest"),
        network: name("shop"),
        node: name(&node.name),
        device: Some("tap0".parse().unwrap()),
        addresses: Some(vec![GUEST.parse().unwrap()]),
        mac: Some(mac.parse().unwrap()),
        labels: Default::default(),
    };
    cloud
        .rest(|client| client.create_endpoint(&body, Guard::None))
        .unwrap();
    let attached = cloud.wait_attached(&body.name).unwrap();
    cloud.wait_applied(attached.revision).unwrap();
    for other in [NEAR[0], FAR[0]] {
        eventually_ok("an answer", PATIENCE, || {
            let options = PingOptions {
                count: 1,
                timeout: Duration::from_secs(1),
                ..Default::default()
            };
            let report = ping(guest.namespace(), other.parse().unwrap(), options)?;
            anyhow::ensure!(report.received() == 1, "none from {other}");
            Ok(())
        })
        .unwrap();
    }
    // With an endpoint beside it, and with one of another cloud.
    for (other, address) in [("near", NEAR[0]), ("far", FAR[0])] {
        let other = of(other);
        for (from, to, at, way) in [(&other, &guest, GUEST, 0), (&guest, &other, address, 1)] {
            let at = SocketAddr::new(at.parse().unwrap(), 0);
            let receiver = BulkReceiver::start(to.namespace(), at).unwrap();
            let at = receiver.address();
            let before = monitor.whole()[way];
            let sender = BulkSender::start(from.namespace(), at, None, PATIENCE).unwrap();
            eventually("a stream", PATIENCE, || receiver.bytes() > 2_000_000).unwrap();
            sender.stop().unwrap();
            receiver.finish().unwrap();
            let whole = monitor.whole()[way] - before;
            assert!(whole > 0, "{} to {}: all in pieces", from.name(), to.name());
        }
    }
}
