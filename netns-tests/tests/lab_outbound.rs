//! Endpoints reach a host outside of the cloud that knows nothing of it, by the address of a node, as
//! their network and its policy let them; and go on wherever they move.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use common::can_run;
use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect as connect_socket, setsockopt,
        socket, sockopt,
    },
};
use std::os::fd::AsRawFd as _;
use sunwire_api::{Name, NetworkOutbound, NetworkPatch, TraceOutcome, TraceRequest, client::Guard};
use sunwire_lab::{NodeHandle, Topology, Workload, WorkloadSpec, eventually};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const CLIENT: &str = "10.20.0.11";
const PORT: u16 = 7000;
const CLOSED_PORT: u16 = 7001;
/// Bytes of what the host outside says to whoever connects: from where he does.
const GREETING_BYTES: usize = 24;

const OPEN: &str = "policy main =
    if dst = internet and tcp and dst port 7000 then forward \"out\"
    else if dst = internet and udp then forward \"datagrams\"
    else if dst = internet and icmp then forward \"echoes\"
    else drop \"stays inside\"
";

/// `client1` in `shop` and `twin1` in `rival`, with the same address, and a host outside.
fn cloud() -> Cloud {
    let spec = |name: &str, node: &str, network: &str| {
        WorkloadSpec::new(name, node, network)
            .address(&format!("{CLIENT}/16"))
            .unwrap()
            .gateway("10.20.0.1".parse().unwrap())
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .outside("outside", "aws:us-east-1")
        .controller("aws:us-east-1")
        .workload(spec("client1", "near", "shop"))
        .workload(spec("twin1", "near", "rival"))
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    for (network, endpoint) in [("shop", "client1"), ("rival", "twin1")] {
        cloud.create_network(network, &["10.20.0.0/16"]).unwrap();
        cloud.create_endpoint(&workload(&cloud, endpoint)).unwrap();
        policy(&cloud, network, OPEN);
    }
    cloud
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

fn node<'c>(cloud: &'c Cloud, name: &str) -> &'c NodeHandle {
    cloud.lab().node(name).unwrap()
}

fn policy(cloud: &Cloud, network: &str, text: &str) {
    let text = format!("network {network}\n{text}");
    let policy = cloud.apply_policy(network, &text).unwrap();
    cloud.wait_applied(policy.revision).unwrap();
}

fn leave_by(cloud: &Cloud, network: &str, outbound: &str) {
    let name: Name = network.parse().unwrap();
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

/// Says to whoever connects where he does so from, and then sends back what comes.
fn serve(cloud: &Cloud, port: u16) {
    let outside = node(cloud, "outside");
    let at = SocketAddr::from((outside.underlay_address, port));
    let listener = outside.namespace.run(|| TcpListener::bind(at));
    let listener = listener.unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let from = stream.peer_addr()?.to_string();
                let mut greeting = [b' '; GREETING_BYTES];
                greeting[..from.len()].copy_from_slice(from.as_bytes());
                stream.write_all(&greeting)?;
                let mut bytes = [0; 64 << 10];
                loop {
                    match stream.read(&mut bytes)? {
                        0 => return std::io::Result::Ok(()),
                        length => stream.write_all(&bytes[..length])?,
                    }
                }
            });
        }
    });
}

/// Connects from a port, and returns from where the host outside sees it.
fn connect(
    cloud: &Cloud,
    name: &str,
    own_port: u16,
    port: u16,
) -> Result<(TcpStream, SocketAddrV4), Errno> {
    let to = node(cloud, "outside").underlay_address;
    let stream = workload(cloud, name).namespace().run(|| {
        let fd = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        let address = |ip: Ipv4Addr, port| SockaddrIn::from(SocketAddrV4::new(ip, port));
        bind(fd.as_raw_fd(), &address(CLIENT.parse().unwrap(), own_port))?;
        connect_socket(fd.as_raw_fd(), &address(to, port))?;
        Ok(TcpStream::from(fd))
    });
    let mut stream = stream.unwrap()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting).unwrap();
    let greeting = String::from_utf8(greeting.to_vec()).unwrap();
    Ok((stream, greeting.trim().parse().unwrap()))
}

fn goes_on(stream: &mut TcpStream, word: u64) {
    stream.write_all(&word.to_be_bytes()).unwrap();
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(u64::from_be_bytes(bytes), word);
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

fn drops(cloud: &Cloud, reason: &str) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let all = counters.drops.iter();
    let found = all.filter(|drop| drop.reason == reason);
    found.map(|drop| drop.totals.packets).sum()
}

/// Sends a datagram outside, and returns what comes back or is heard of it.
fn datagram(cloud: &Cloud, port: u16, ttl: Option<u32>) -> Result<Vec<u8>, Errno> {
    let to = node(cloud, "outside").underlay_address;
    let heard = workload(cloud, "client1").namespace().run(|| {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        if let Some(ttl) = ttl {
            socket.set_ttl(ttl)?;
        }
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((to, port))?;
        socket.send(b"hello")?;
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes)?;
        std::io::Result::Ok(bytes[..length].to_vec())
    });
    let heard = heard.unwrap();
    heard.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap()))
}

fn answer_datagrams(cloud: &Cloud, port: u16) {
    let outside = node(cloud, "outside");
    let at = (outside.underlay_address, port);
    let socket = outside.namespace.run(|| UdpSocket::bind(at));
    let socket = socket.unwrap().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let mut answer = bytes[..length].to_vec();
            answer.extend(from.ip().to_string().bytes());
            let _ = socket.send_to(&answer, from);
        }
    });
}

#[test]
fn lab_outbound_endpoints_reach_what_is_outside_by_their_node_and_go_on_wherever_they_move() {
    let test =
        "lab_outbound_endpoints_reach_what_is_outside_by_their_node_and_go_on_wherever_they_move";
    if !can_run(test) {
        return;
    }
    let cloud = cloud();
    serve(&cloud, PORT);
    serve(&cloud, CLOSED_PORT);
    answer_datagrams(&cloud, PORT);
    let near = node(&cloud, "near").underlay_address;

    // Nothing leaves unless the network says where.
    let lost = drops(&cloud, "no_owner");
    let to = SocketAddr::from((node(&cloud, "outside").underlay_address, PORT));
    let tried = workload(&cloud, "client1")
        .namespace()
        .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok());
    assert!(!tried.unwrap());
    eventually("what nobody owns to be counted", PATIENCE, || {
        drops(&cloud, "no_owner") > lost
    })
    .unwrap();

    leave_by(&cloud, "shop", "local");
    leave_by(&cloud, "rival", "local");
    // Two tenants with one address and port, to one address and port.
    let (mut one, from) = connect(&cloud, "client1", 5000, PORT).unwrap();
    let (mut other, other_from) = connect(&cloud, "twin1", 5000, PORT).unwrap();
    assert_eq!((*from.ip(), *other_from.ip()), (near, near));
    assert_ne!(from.port(), other_from.port());
    goes_on(&mut one, 1);
    goes_on(&mut other, 2);
    in_bulk(&mut one, 4 << 20);
    assert_eq!(
        datagram(&cloud, PORT, None),
        Ok(format!("hello{near}").into_bytes())
    );
    // A port where nobody listens, which the host outside says; and a router on the way.
    assert_eq!(
        datagram(&cloud, CLOSED_PORT, None),
        Err(Errno::ECONNREFUSED)
    );
    assert_eq!(datagram(&cloud, PORT, Some(1)), Err(Errno::EHOSTUNREACH));

    // The policy decides.
    let to = SocketAddr::from((node(&cloud, "outside").underlay_address, CLOSED_PORT));
    let tried = workload(&cloud, "client1")
        .namespace()
        .run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok());
    assert!(!tried.unwrap());
    eventually("the label to be counted", PATIENCE, || {
        cloud.label_packets("stays inside").unwrap() > 0
    })
    .unwrap();

    // It goes on by the node that it began by.
    cloud
        .move_endpoint(&workload(&cloud, "client1"), "far")
        .unwrap();
    goes_on(&mut one, 3);
    goes_on(&mut other, 4);
    in_bulk(&mut one, 4 << 20);
    let far = node(&cloud, "far").underlay_address;
    let (mut new, from) = connect(&cloud, "client1", 5001, PORT).unwrap();
    assert_eq!(*from.ip(), far);
    goes_on(&mut new, 5);
    // A new policy changes nothing of that.
    policy(&cloud, "shop", &format!("-- the same again\n{OPEN}"));
    policy(&cloud, "shop", "policy main = forward");
    goes_on(&mut one, 6);
    goes_on(&mut new, 7);
    cloud
        .move_endpoint(&workload(&cloud, "client1"), "near")
        .unwrap();
    goes_on(&mut one, 8);
    goes_on(&mut new, 9);

    // What the policy does not let out any more ends.
    policy(&cloud, "shop", "policy main = drop \"closed\"");
    let revoked = drops(&cloud, "revoked");
    one.write_all(&[0; 8]).unwrap();
    eventually("the connection to be revoked", PATIENCE, || {
        drops(&cloud, "revoked") > revoked
    })
    .unwrap();
    goes_on(&mut other, 10);
    cloud.down().unwrap();
}

#[test]
fn lab_outbound_by_a_gateway_all_have_its_address_wherever_they_are() {
    if !can_run("lab_outbound_by_a_gateway_all_have_its_address_wherever_they_are") {
        return;
    }
    let cloud = cloud();
    serve(&cloud, PORT);
    answer_datagrams(&cloud, PORT);
    let far = node(&cloud, "far").underlay_address;
    let outside = node(&cloud, "outside").underlay_address;
    for network in ["shop", "rival"] {
        leave_by(&cloud, network, "far");
    }
    let (mut one, from) = connect(&cloud, "client1", 5000, PORT).unwrap();
    let (mut other, other_from) = connect(&cloud, "twin1", 5000, PORT).unwrap();
    assert_eq!((*from.ip(), *other_from.ip()), (far, far));
    assert_ne!(from.port(), other_from.port());
    in_bulk(&mut one, 4 << 20);
    in_bulk(&mut other, 1 << 20);
    assert_eq!(
        datagram(&cloud, PORT, None),
        Ok(format!("hello{far}").into_bytes())
    );
    assert_eq!(datagram(&cloud, PORT, Some(1)), Err(Errno::EHOSTUNREACH));

    // A trace says by which node it leaves, where it is sent and where it does.
    let mut request = TraceRequest::new("client1".parse().unwrap(), &outside.to_string());
    request.protocol = Some("tcp".to_owned());
    request.destination_port = Some(PORT);
    let trace = cloud.rest(|client| client.trace(&request)).unwrap();
    assert_eq!(trace.outcome, TraceOutcome::Delivered, "{trace:#?}");
    let hops: Vec<_> = (trace.hops.iter())
        .map(|hop| (hop.flow.egress.as_deref(), hop.flow.next_node.as_deref()))
        .collect();
    assert_eq!(hops, [(Some("far"), Some("far")), (Some("far"), None)]);

    // To the gateway itself, and away again.
    for to in ["far", "near"] {
        cloud
            .move_endpoint(&workload(&cloud, "client1"), to)
            .unwrap();
        goes_on(&mut one, 1);
        in_bulk(&mut one, 1 << 20);
        let (mut new, from) = connect(&cloud, "client1", 0, PORT).unwrap();
        assert_eq!(*from.ip(), far);
        goes_on(&mut new, 2);
    }

    // Elsewhere from now on; what is up stays.
    leave_by(&cloud, "shop", "local");
    let (_, from) = connect(&cloud, "client1", 0, PORT).unwrap();
    assert_eq!(*from.ip(), node(&cloud, "near").underlay_address);
    goes_on(&mut one, 3);
    let near: IpAddr = node(&cloud, "near").underlay_address.into();
    assert_ne!(near, IpAddr::from(far));

    // And nowhere: the network says so itself.
    leave_by(&cloud, "shop", "none");
    let lost = drops(&cloud, "no_owner");
    one.write_all(&[0; 8]).unwrap();
    eventually("what may not leave to be counted", PATIENCE, || {
        drops(&cloud, "no_owner") > lost
    })
    .unwrap();
    goes_on(&mut other, 4);
    cloud.down().unwrap();
}
