//! Connections that a stateful policy has admitted go with their endpoint to another node.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use common::{CLIENT, OPEN, WEB, can_run, cloud, cloud_with};
use sunwire_lab::{Workload, eventually};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::{
    connections::listing::{ConnectionPhase, ListedConnection},
    control::{self, Answer, Request},
};

/// What the web server sends goes only where somebody has asked it.
const STATEFUL: &str = "network shop
policy main =
    if established then forward \"replies\"
    else if src = 10.20.0.11 then forward \"asks\"
    else drop \"unasked\"
";
/// How long a packet may take on a machine that is busy.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

fn address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), port)
}

/// What the agent of a node remembers of `web1`.
fn connections(cloud: &Cloud, node: &str) -> Vec<ListedConnection> {
    let state = cloud.lab().node(node).unwrap().state_dir.clone();
    let request = Request::Connections {
        endpoint: Some("web1".to_owned()),
    };
    let Answer::Connections {
        connections,
        is_last: true,
    } = control::call(&state, &request).unwrap()
    else {
        panic!("a few connections fit on a line");
    };
    connections
}

/// A datagram and its answer, which may need some attempts.
fn asks_by_udp(client: &UdpSocket, server: &UdpSocket, word: u32) {
    let (word, deadline) = (word.to_be_bytes(), Instant::now() + PATIENCE);
    while Instant::now() < deadline {
        client.send(&word).unwrap();
        let mut heard = [0; 8];
        if let Ok((_, from)) = server.recv_from(&mut heard) {
            server.send_to(&heard[..4], from).unwrap();
        }
        if matches!(client.recv(&mut heard), Ok(4)) && heard[..4] == word {
            return;
        }
    }
    panic!("nothing is answered by UDP");
}

/// Bytes there and back on one connection.
fn asks_by_tcp(client: &mut TcpStream, server: &mut TcpStream, word: u32) {
    let word = word.to_be_bytes();
    let mut heard = [0; 4];
    client.write_all(&word).unwrap();
    server.read_exact(&mut heard).unwrap();
    assert_eq!(heard, word);
    server.write_all(&word).unwrap();
    client.read_exact(&mut heard).unwrap();
    assert_eq!(heard, word);
}

fn udp(workload: &Workload, at: SocketAddr) -> UdpSocket {
    let socket = workload.namespace().run(|| UdpSocket::bind(at)).unwrap();
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(ANSWER_WITHIN)).unwrap();
    socket
}

#[test]
fn lab_connections_are_known_where_their_endpoint_arrives() {
    if can_run("lab_connections_are_known_where_their_endpoint_arrives") {
        converse_while_moving(cloud(), OPEN);
    }
}

#[test]
fn lab_established_connections_survive_moves_through_a_stateful_policy() {
    if can_run("lab_established_connections_survive_moves_through_a_stateful_policy") {
        converse_while_moving(cloud(), STATEFUL);
    }
}

/// A client and a server speak by TCP and UDP while the server moves from node to node.
fn converse_while_moving(cloud: Cloud, policy: &str) {
    cloud.apply_policy("shop", policy).unwrap();
    let (client, web) = (
        cloud.lab().workload("client1").unwrap(),
        cloud.lab().workload("web1").unwrap(),
    );
    let (udp_client, udp_server) = (
        udp(&client, address(CLIENT, 5000)),
        udp(&web, address(WEB, 53)),
    );
    udp_client.connect(address(WEB, 53)).unwrap();
    let listener = web.namespace().run(|| TcpListener::bind(address(WEB, 80)));
    let listener = listener.unwrap().unwrap();
    let connect = || TcpStream::connect_timeout(&address(WEB, 80), PATIENCE);
    let mut tcp_client = client.namespace().run(connect).unwrap().unwrap();
    let (mut tcp_server, _) = listener.accept().unwrap();
    for stream in [&tcp_client, &tcp_server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
    }
    asks_by_udp(&udp_client, &udp_server, 0);
    asks_by_tcp(&mut tcp_client, &mut tcp_server, 0);

    for (round, to) in ["third", "near", "far"].into_iter().enumerate() {
        let word = 10 * (round as u32 + 1);
        cloud.move_endpoint(&web, to).unwrap();
        let listed = connections(&cloud, to);
        let established = |protocol: u8| {
            listed.iter().any(|connection| {
                connection.protocol == protocol
                    && connection.phase == ConnectionPhase::Established
                    && connection.remote.endpoint.as_deref() == Some("client1")
            })
        };
        assert!(established(6) && established(17), "at {to}: {listed:?}");
        // The server speaks first: without its connection's state it would be unasked.
        let mut heard = [0; 4];
        tcp_server.write_all(&word.to_be_bytes()).unwrap();
        tcp_client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word.to_be_bytes());
        let deadline = Instant::now() + PATIENCE;
        loop {
            udp_server
                .send_to(&word.to_be_bytes(), address(CLIENT, 5000))
                .unwrap();
            if matches!(udp_client.recv(&mut heard), Ok(4)) && heard == word.to_be_bytes() {
                break;
            }
            assert!(Instant::now() < deadline, "nothing comes by UDP from {to}");
        }
        asks_by_udp(&udp_client, &udp_server, word + 1);
        asks_by_tcp(&mut tcp_client, &mut tcp_server, word + 1);
        assert_eq!(cloud.label_packets("unasked").unwrap(), 0);
    }
    if policy == OPEN {
        cloud.down().unwrap();
        return;
    }
    // What nobody asked for is still refused.
    let unasked = udp(&web, address(WEB, 54));
    unasked.send_to(&[0; 4], address(CLIENT, 5000)).unwrap();
    eventually("what nobody asked for to be counted", PATIENCE, || {
        cloud
            .label_packets("unasked")
            .is_ok_and(|packets| packets == 1)
    })
    .unwrap();
    cloud.down().unwrap();
}

/// Addresses of the two servers behind `VIP`.
const SERVERS: [(&str, &str); 2] = [("web1", WEB), ("web2", "10.20.0.13")];
/// An address that no workload has.
const VIP: &str = "10.20.0.100";

/// Clients of the one address are sent to the two servers by weight.
fn balanced(weights: [u32; 2]) -> String {
    let [one, two] = weights;
    format!(
        "network shop
policy main =
    if dst = {VIP} and tcp dst port 80
    then balance(web1 weight {one}, web2 weight {two} by src, src port)
    else if established then forward \"replies\"
    else drop \"unasked\"
"
    )
}

/// A connection to the address, and the other end of it at whichever server it came to.
fn connection(client: &Workload, servers: &[TcpListener]) -> (TcpStream, TcpStream, usize) {
    let connect = || TcpStream::connect_timeout(&address(VIP, 80), PATIENCE);
    let client = client.namespace().run(connect).unwrap().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        for (at, server) in servers.iter().enumerate() {
            if let Ok((stream, from)) = server.accept() {
                assert_eq!(from, client.local_addr().unwrap());
                stream.set_nonblocking(false).unwrap();
                for stream in [&client, &stream] {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                }
                return (client, stream, at);
            }
        }
        assert!(Instant::now() < deadline, "no server accepts");
        std::thread::yield_now();
    }
}

#[test]
fn lab_connections_to_one_address_stay_at_their_servers_which_move_and_drain() {
    if !can_run("lab_connections_to_one_address_stay_at_their_servers_which_move_and_drain") {
        return;
    }
    let cloud = cloud_with(SERVERS[1].0, "near", SERVERS[1].1);
    cloud.apply_policy("shop", &balanced([1, 1])).unwrap();
    let workload = |name: &str| cloud.lab().workload(name).unwrap();
    let client = workload("client1");
    let listeners = SERVERS.map(|(name, own)| {
        let bound = workload(name)
            .namespace()
            .run(|| TcpListener::bind(address(own, 80)));
        let listener = bound.unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    });
    let mut open = Vec::new();
    let mut counts = [0; 2];
    while counts.contains(&0) || open.len() < 8 {
        assert!(open.len() < 200, "all at one server: {counts:?}");
        let made = connection(&client, &listeners);
        counts[made.2] += 1;
        open.push(made);
    }
    let mut word = 0;
    let mut all_speak = |open: &mut Vec<(TcpStream, TcpStream, usize)>| {
        for (client, server, _) in open {
            word += 1;
            asks_by_tcp(client, server, word);
            // The server speaks first: its packets come from the address that was asked.
            server.write_all(&word.to_be_bytes()).unwrap();
            let mut heard = [0; 4];
            client.read_exact(&mut heard).unwrap();
            assert_eq!(heard, word.to_be_bytes());
        }
    };
    all_speak(&mut open);
    cloud.move_endpoint(&workload("web1"), "third").unwrap();
    all_speak(&mut open);
    // The client moves as well, and what its answers look like goes with it.
    cloud.move_endpoint(&client, "far").unwrap();
    all_speak(&mut open);
    cloud.apply_policy("shop", &balanced([0, 1])).unwrap();
    all_speak(&mut open);
    for _ in 0..8 {
        let made = connection(&client, &listeners);
        assert_eq!(made.2, 1, "the drained server gets new connections");
        open.push(made);
    }
    all_speak(&mut open);
    assert_eq!(cloud.label_packets("unasked").unwrap(), 0);
    cloud.down().unwrap();
}
