//! Endpoints reach a host outside of the cloud over IPv6 by the address of a node that has one, learn how
//! long packets may be on the way there, and go on wherever they move; and the host hears of their ports
//! that are closed.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::mpsc,
    thread,
    time::Duration,
};

use common::can_run;
use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{setsockopt, sockopt},
    unistd::gettid,
};
use sunwire_api::{Name, NetworkOutbound, NetworkPatch, client::Guard};
use sunwire_lab::{
    NodeHandle, Topology, Underlay, Workload, WorkloadSpec, eventually, expect_ping,
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const CLIENT: &str = "10.20.0.11";
const CLIENT_V6: &str = "fd00:20::11";
const PORT: u16 = 7000;
const CLOSED_PORT: u16 = 7001;
/// Greatest packet on the way to what is behind the host outside: less than the network's 1300 bytes,
/// and no less than what IPv6 asks of any link (RFC 8200, 5).
const NARROW_MTU: usize = 1280;
/// Bytes of the headers of IPv6 and UDP.
const HEADERS: usize = 48;
/// How long one answer is waited for, of several.
const TRY: Duration = Duration::from_secs(2);

/// `client1` at `near`; `near`, `far` and the host outside have addresses of both families, `old` of IPv4
/// alone.
fn cloud() -> Cloud {
    let spec = WorkloadSpec::new("client1", "near", "shop")
        .address(&format!("{CLIENT}/16"))
        .unwrap()
        .address(&format!("{CLIENT_V6}/64"))
        .unwrap()
        .gateway("10.20.0.1".parse().unwrap())
        .gateway("fd00:20::1".parse().unwrap());
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .over(Underlay::Dual)
        .node("far", "azure:westeurope")
        .over(Underlay::Dual)
        .node("old", "aws:us-east-1")
        .outside("outside", "aws:us-east-1")
        .over(Underlay::Dual)
        .controller("aws:us-east-1")
        .workload(spec)
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    cloud
        .create_network("shop", &["10.20.0.0/16", "fd00:20::/64"])
        .unwrap();
    cloud.create_endpoint(&workload(&cloud)).unwrap();
    let policy = cloud
        .apply_policy("shop", "network shop\npolicy main = forward\n")
        .unwrap();
    cloud.wait_applied(policy.revision).unwrap();
    cloud
}

fn workload(cloud: &Cloud) -> Workload {
    cloud.lab().workload("client1").unwrap()
}

fn node<'c>(cloud: &'c Cloud, name: &str) -> &'c NodeHandle {
    cloud.lab().node(name).unwrap()
}

fn address_v6(cloud: &Cloud, name: &str) -> Ipv6Addr {
    node(cloud, name).underlay_address_v6.unwrap()
}

fn leave_by(cloud: &Cloud, outbound: &str) {
    let name: Name = "shop".parse().unwrap();
    let outbound: NetworkOutbound = outbound.parse().unwrap();
    let patch = NetworkPatch {
        outbound: Some(outbound),
        ..NetworkPatch::default()
    };
    let changed = cloud
        .rest(|client| client.patch_network(&name, &patch, Guard::Any))
        .unwrap();
    cloud.wait_applied(changed.revision).unwrap();
}

/// Sends back what comes to the host outside, over IPv6.
fn serve(cloud: &Cloud) {
    let at = (address_v6(cloud, "outside"), PORT);
    let outside = node(cloud, "outside");
    let sockets = || (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
    let (listener, datagrams) = outside.namespace.run(sockets).unwrap();
    send_back(listener, datagrams);
}

/// Says to whoever connects where he does so from, and sends back what comes.
fn send_back(listener: TcpListener, datagrams: UdpSocket) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut bytes = [0; 64 << 10];
                let from = stream.peer_addr()?.ip();
                let IpAddr::V6(from) = from else {
                    return Ok(());
                };
                stream.write_all(&from.octets())?;
                loop {
                    match stream.read(&mut bytes)? {
                        0 => return std::io::Result::Ok(()),
                        length => stream.write_all(&bytes[..length])?,
                    }
                }
            });
        }
    });
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = datagrams.recv_from(&mut bytes) {
            let _ = datagrams.send_to(&bytes[..length], from);
        }
    });
}

/// Puts a second host behind the one outside, which routes to it over a narrow link, and returns its
/// address. It ends with the test.
fn behind_a_narrow_link(cloud: &Cloud) -> Ipv6Addr {
    let outside = node(cloud, "outside");
    let router = address_v6(cloud, "outside");
    // Of the same /64, which the emulator hands to the host outside as a whole.
    let address = Ipv6Addr::from(u128::from(router) + 0xb);
    let (to_test, from_thread) = mpsc::channel();
    let (to_thread, from_test) = mpsc::channel::<()>();
    thread::spawn(move || {
        // A namespace of this thread's own, for as long as it or one of its sockets lives.
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        to_test.send(gettid()).unwrap();
        from_test.recv().unwrap();
        // The link is narrow one way, so that who connects does not hear of it from the other side's
        // greatest segment: routers have to say so.
        run("ip link set lo up");
        run(&format!("ip -6 address add {address}/128 dev eth0 nodad"));
        run("ip link set eth0 up");
        run(&format!(
            "ip -6 route add default via fe80::b dev eth0 mtu {NARROW_MTU} advmss 1440"
        ));
        let at = (address, PORT);
        send_back(TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap());
        to_test.send(gettid()).unwrap();
    });
    let thread = from_thread.recv().unwrap();
    let routes = || {
        run(&format!(
            "ip link add narrow0 type veth peer name eth0 netns {thread}"
        ));
        run(&format!("ip link set narrow0 mtu {NARROW_MTU} up"));
        run("ip -6 address add fe80::b/64 dev narrow0 nodad");
        run(&format!("ip -6 route add {address}/128 dev narrow0"));
        run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    };
    outside.namespace.run(routes).unwrap();
    to_thread.send(()).unwrap();
    from_thread.recv().unwrap();
    address
}

/// Runs a command in the namespace of the thread, to its end.
fn run(command: &str) {
    let mut words = command.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let output = command.args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// Connects, and returns from where the other side sees it.
fn connect(cloud: &Cloud, to: Ipv6Addr, port: u16) -> std::io::Result<(TcpStream, Ipv6Addr)> {
    let to = SocketAddr::from((to, port));
    let run = || TcpStream::connect_timeout(&to, PATIENCE);
    let mut stream = workload(cloud).namespace().run(run).unwrap()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut from = [0; 16];
    stream.read_exact(&mut from)?;
    Ok((stream, from.into()))
}

/// Sends that many bytes, which come back.
fn in_bulk(stream: &mut TcpStream, bytes: usize) {
    let sent: Vec<u8> = (0..bytes).map(|index| (index * 7 % 251) as u8).collect();
    let mut sender = stream.try_clone().unwrap();
    let to_send = sent.clone();
    let sending = thread::spawn(move || sender.write_all(&to_send));
    let mut came = vec![0; bytes];
    stream.read_exact(&mut came).unwrap();
    sending.join().unwrap().unwrap();
    assert!(came == sent, "the bytes came back as they were");
}

/// Sends a datagram outside, and returns what comes back or is heard of it.
fn datagram(cloud: &Cloud, to: Ipv6Addr, port: u16, bytes: usize) -> std::io::Result<usize> {
    let heard = workload(cloud).namespace().run(|| {
        let socket = UdpSocket::bind((CLIENT_V6, 0))?;
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        socket.set_read_timeout(Some(TRY))?;
        socket.connect((to, port))?;
        socket.send(&vec![7; bytes])?;
        let mut back = [0; 2048];
        socket.recv(&mut back)
    });
    heard.unwrap()
}

fn drops(cloud: &Cloud, reason: &str) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let all = counters.drops.iter();
    let found = all.filter(|drop| drop.reason == reason);
    found.map(|drop| drop.totals.packets).sum()
}

#[test]
fn lab_outbound_over_ipv6_endpoints_reach_what_is_outside_by_a_node_that_has_an_ipv6_address() {
    let test =
        "lab_outbound_over_ipv6_endpoints_reach_what_is_outside_by_a_node_that_has_an_ipv6_address";
    if !can_run(test) {
        return;
    }
    let cloud = cloud();
    serve(&cloud);
    leave_by(&cloud, "local");
    let outside = address_v6(&cloud, "outside");
    let (mut one, from) = connect(&cloud, outside, PORT).unwrap();
    assert_eq!(from, address_v6(&cloud, "near"));
    in_bulk(&mut one, 4 << 20);
    eventually("a datagram to come back", PATIENCE, || {
        datagram(&cloud, outside, PORT, 5).is_ok_and(|length| length == 5)
    })
    .unwrap();
    expect_ping(workload(&cloud), outside.into()).unwrap();
    // In fragments, there and back: a network's MTU is 1300, of which the host outside is told.
    eventually("fragments that fit to come back", PATIENCE, || {
        datagram(&cloud, outside, PORT, 1800).is_ok_and(|length| length == 1800)
    })
    .unwrap();
    // A port where nobody listens, which the host outside says.
    eventually("a closed port to be heard of", PATIENCE, || {
        datagram(&cloud, outside, CLOSED_PORT, 5)
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    })
    .unwrap();
    let refused = connect(&cloud, outside, CLOSED_PORT).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    // It goes on by the node that it began by, through the tunnel to it.
    cloud.move_endpoint(&workload(&cloud), "far").unwrap();
    in_bulk(&mut one, 1 << 20);
    let (mut new, from) = connect(&cloud, outside, PORT).unwrap();
    assert_eq!(from, address_v6(&cloud, "far"));
    in_bulk(&mut new, 1 << 20);
    expect_ping(workload(&cloud), outside.into()).unwrap();

    // By a node that has no IPv6 address nothing leaves over IPv6, and the workload is told.
    leave_by(&cloud, "old");
    let lost = drops(&cloud, "outbound_address");
    let unreachable = connect(&cloud, outside, PORT).unwrap_err();
    assert_eq!(unreachable.kind(), ErrorKind::NetworkUnreachable);
    eventually("what has no address to be counted", PATIENCE, || {
        drops(&cloud, "outbound_address") > lost
    })
    .unwrap();
    in_bulk(&mut one, 1 << 16);
    cloud.down().unwrap();
}

#[test]
fn lab_outbound_endpoints_learn_over_ipv6_how_long_packets_may_be_from_routers_outside() {
    let test =
        "lab_outbound_endpoints_learn_over_ipv6_how_long_packets_may_be_from_routers_outside";
    if !can_run(test) {
        return;
    }
    let cloud = cloud();
    leave_by(&cloud, "local");
    let host = behind_a_narrow_link(&cloud);
    // Segments of the network's 1300 bytes do not get there, and the router says so.
    let (mut one, from) = connect(&cloud, host, PORT).unwrap();
    assert_eq!(from, address_v6(&cloud, "near"));
    in_bulk(&mut one, 1 << 20);
    // What the kernel has learned it says of a datagram that may not be cut up, before it sends it.
    let heard = |bytes| {
        let socket = workload(&cloud).namespace().run(|| {
            let socket = UdpSocket::bind((CLIENT_V6, 0))?;
            setsockopt(&socket, sockopt::Ipv6DontFrag, &true)?;
            socket.set_read_timeout(Some(TRY))?;
            socket.connect((host, PORT))?;
            socket.send(&vec![7; bytes])?;
            socket.recv(&mut [0; 2048])
        });
        socket.unwrap()
    };
    let longest = NARROW_MTU - HEADERS;
    let refused = heard(longest + 1).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE), "{refused}");
    eventually("the longest datagram to come back", PATIENCE, || {
        heard(longest).is_ok_and(|length| length == longest)
    })
    .unwrap();
    // From another node, after a move: there, the way begins at the other end of a tunnel.
    cloud.move_endpoint(&workload(&cloud), "far").unwrap();
    in_bulk(&mut one, 1 << 20);
    cloud.down().unwrap();
}

#[test]
fn lab_outbound_a_host_outside_hears_of_an_endpoints_port_that_is_closed() {
    if !can_run("lab_outbound_a_host_outside_hears_of_an_endpoints_port_that_is_closed") {
        return;
    }
    let cloud = cloud();
    leave_by(&cloud, "local");
    let outside = node(&cloud, "outside");
    let v4 = IpAddr::V4(outside.underlay_address);
    for (own, there) in [
        (CLIENT, v4),
        (CLIENT_V6, address_v6(&cloud, "outside").into()),
    ] {
        let host = outside.namespace.run(|| UdpSocket::bind((there, PORT)));
        let host = host.unwrap().unwrap();
        host.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = workload(&cloud).namespace().run(|| {
            // Closed when this is over.
            UdpSocket::bind((own, 0))?.send_to(b"hello", (there, PORT))
        });
        asked.unwrap().unwrap();
        let mut bytes = [0; 64];
        let (length, from) = host.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"hello");
        host.connect(from).unwrap();
        host.send(b"too late").unwrap();
        let heard = host.recv(&mut bytes).unwrap_err();
        assert_eq!(heard.kind(), ErrorKind::ConnectionRefused, "from {there}");
    }
    cloud.down().unwrap();
}
