//! Packets are routed between networks that are peered, as both policies let them, and between no
//! others.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use common::{asking::ask, can_run};
use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt},
};
use sunwire_api::{FlowEnd, FlowItem, FlowQuery, Question, Telling, client::Guard};
use sunwire_lab::{Topology, Workload, WorkloadSpec, eventually};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::control::{self, Answer, Request};

const CLIENT: [&str; 2] = ["10.20.0.11", "fd00:20::11"];
const BENCH: [&str; 2] = ["10.30.0.12", "fd00:30::12"];
/// Of both peers' services, and of neither's.
const PORT: u16 = 7000;
const BACK_PORT: u16 = 7001;
const CLOSED_PORT: u16 = 7002;

const SHOP: &str = "network shop { peer lab }
    policy main =
        if dst in lab and (icmp or tcp and dst port 7000 or tcp and dst port 7002 or udp) then forward \"to lab\"
        else if src = lab.bench1 and tcp and dst port 7001 then forward \"from lab\"
        else if established then forward \"replies\"
        else drop \"shop says no\"
    assert reach(client1, lab.bench1 where tcp and dst port 7000)
    assert isolated(client1, lab where tcp and dst port 22)
";
const LAB: &str = "network lab { peer shop }
    policy main =
        if src in shop and (icmp or tcp and dst port 7000 or udp) then forward
        else if dst in shop and tcp and dst port 7001 then forward
        else if established then forward \"replies of lab\"
        else drop \"lab says no\"
";

/// `client1` in `shop`, `bench1` in `lab`, and `twin1` and `twin2` with the same addresses in a network
/// that neither is peered with.
fn cloud() -> Cloud {
    let spec = |name: &str, node: &str, network: &str, addresses: [&str; 2], (v4, v6)| {
        let mut spec = WorkloadSpec::new(name, node, network);
        let lengths = [v4, v6];
        for (address, length) in addresses.iter().zip(lengths) {
            spec = spec.address(&format!("{address}/{length}")).unwrap();
        }
        spec
    };
    let gateways = |spec: WorkloadSpec, all: [&str; 2]| {
        let gateways = all.map(|gateway| gateway.parse::<IpAddr>().unwrap());
        gateways.into_iter().fold(spec, WorkloadSpec::gateway)
    };
    let client = spec("client1", "near", "shop", CLIENT, (16, 64));
    let bench = spec("bench1", "far", "lab", BENCH, (16, 64));
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .node("third", "gcp:asia-northeast1-a")
        .controller("aws:us-east-1")
        .workload(gateways(client, ["10.20.0.1", "fd00:20::1"]))
        .workload(gateways(bench, ["10.30.0.1", "fd00:30::1"]))
        .workload(spec("twin1", "far", "other", CLIENT, (8, 16)))
        .workload(spec("twin2", "near", "other", BENCH, (8, 16)))
        .build()
        .unwrap();
    let cloud = Cloud::up(topology).unwrap();
    for (name, subnets) in [
        ("shop", ["10.20.0.0/16", "fd00:20::/64"]),
        ("lab", ["10.30.0.0/16", "fd00:30::/64"]),
        ("other", ["10.0.0.0/8", "fd00::/16"]),
    ] {
        cloud.create_network(name, &subnets).unwrap();
    }
    for name in ["client1", "bench1", "twin1", "twin2"] {
        cloud.create_endpoint(&workload(&cloud, name)).unwrap();
    }
    cloud
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

fn peer(cloud: &Cloud, one: &str, other: &str) -> Result<(), String> {
    let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
    let answer = cloud.rest(|client| client.peer_networks(&one, &other, Guard::Any));
    let network = answer.map_err(|error| format!("{error:#}"))?;
    cloud.wait_applied(network.revision).unwrap();
    Ok(())
}

/// Says who it is to whoever connects, and then sends back what comes.
fn serve(cloud: &Cloud, name: &'static str, address: &str, port: u16) {
    let at = SocketAddr::new(address.parse().unwrap(), port);
    let workload = workload(cloud, name);
    let listener = workload.namespace().run(|| TcpListener::bind(at));
    let listener = listener.unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut greeting = [b' '; 8];
                greeting[..name.len()].copy_from_slice(name.as_bytes());
                let mut bytes = [0; 8];
                stream.write_all(&greeting)?;
                loop {
                    stream.read_exact(&mut bytes)?;
                    stream.write_all(&bytes)?;
                }
                #[allow(unreachable_code, reason = "it says what kind of error ends it")]
                std::io::Result::Ok(())
            });
        }
    });
}

/// Connects, and returns who answered.
fn connect(cloud: &Cloud, name: &str, address: &str, port: u16) -> (TcpStream, String) {
    let at = SocketAddr::new(address.parse().unwrap(), port);
    let workload = workload(cloud, name);
    let stream = workload.namespace().run(|| {
        let stream = TcpStream::connect_timeout(&at, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Result::Ok(stream)
    });
    let mut stream = stream.unwrap().unwrap();
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).unwrap();
    let greeting = String::from_utf8(greeting.to_vec()).unwrap();
    (stream, greeting.trim().to_owned())
}

fn goes_on(stream: &mut TcpStream, word: u64) {
    stream.write_all(&word.to_be_bytes()).unwrap();
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).unwrap();
    assert_eq!(u64::from_be_bytes(bytes), word);
}

/// What the gateway of a workload's network says of a name: records, or nothing when there is none.
fn resolved(
    cloud: &Cloud,
    name: &str,
    gateway: &str,
    asked: &str,
    kind: RecordType,
) -> Vec<String> {
    let answer = ask(
        &workload(cloud, name),
        gateway.parse().unwrap(),
        asked,
        kind,
    );
    let code = answer.metadata.response_code;
    let is_none = code == ResponseCode::NXDomain && answer.answers.is_empty();
    assert!(
        is_none || code == ResponseCode::NoError,
        "{asked}: {answer:?}"
    );
    let records = answer.answers.iter().map(|record| match &record.data {
        RData::A(address) => address.to_string(),
        RData::AAAA(address) => address.to_string(),
        RData::PTR(name) => name.to_ascii(),
        other => panic!("{other:?}"),
    });
    records.collect()
}

/// Both sides know each other's names, by both families; who is a peer of neither knows none.
fn names_are_known(cloud: &Cloud) {
    let bench = "bench1.lab.internal.";
    for gateway in ["10.20.0.1", "fd00:20::1"] {
        let found = |asked, kind| resolved(cloud, "client1", gateway, asked, kind);
        assert_eq!(found(bench, RecordType::A), [BENCH[0]]);
        assert_eq!(found(bench, RecordType::AAAA), [BENCH[1]]);
        assert_eq!(found("12.0.30.10.in-addr.arpa.", RecordType::PTR), [bench]);
        let v6 = "2.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.0.0.d.f.ip6.arpa.";
        assert_eq!(found(v6, RecordType::PTR), [bench]);
        assert!(found("twin2.other.internal.", RecordType::A).is_empty());
    }
    let client = "client1.shop.internal.";
    let found = resolved(cloud, "bench1", "10.30.0.1", client, RecordType::A);
    assert_eq!(found, [CLIENT[0]]);
    for asked in [client, bench] {
        let found = resolved(cloud, "twin1", "10.0.0.1", asked, RecordType::A);
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Flows of a connection from `client1` to `bench1` name both, wherever they are told.
fn flows_have_names(cloud: &Cloud) {
    let (from, to) = ("client1", "bench1");
    for node in ["near", "far"] {
        let state = cloud.lab().node(node).unwrap().state_dir.clone();
        let query = FlowQuery {
            filter: format!("from {from} and to {to} and tcp and network shop and network lab"),
            last: 1,
            follow: true,
            sample: 1,
        };
        let mut answers = control::listen(&state, &Request::Ask(Question::Flows(query))).unwrap();
        let (found, told) = mpsc::channel();
        thread::spawn(move || {
            let flow = answers.find_map(|answer| match answer {
                Ok(Answer::Told(Telling::Flow {
                    item: FlowItem::Flow(flow),
                })) => Some(flow),
                _ => None,
            });
            let _ = found.send(flow);
        });
        let flow = loop {
            let (mut stream, _) = connect(cloud, "client1", BENCH[0], PORT);
            goes_on(&mut stream, 7);
            match told.recv_timeout(Duration::from_millis(200)) {
                Ok(flow) => break flow.unwrap(),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let names = |end: &FlowEnd| (end.endpoint.clone(), end.network.clone());
        let some = |name: &str| Some(name.to_owned());
        let (network, from, to) = match node {
            "near" => ("shop", (some(from), None), (some(to), some("lab"))),
            _ => ("lab", (some(from), some("shop")), (some(to), None)),
        };
        assert_eq!(flow.network.as_deref(), Some(network), "{flow:?}");
        assert_eq!((names(&flow.from), names(&flow.to)), (from, to), "{flow:?}");
        assert_eq!(flow.destination.as_deref(), Some("bench1"));
    }
}

fn expired(cloud: &Cloud) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let all = counters.drops.iter();
    let expired = all.filter(|drop| drop.reason == "expired");
    expired.map(|drop| drop.totals.packets).sum()
}

/// Sends a datagram that may pass no router, and returns what its sender hears of it.
fn with_one_hop(cloud: &Cloud) -> Option<Errno> {
    let workload = workload(cloud, "client1");
    let heard = workload.namespace().run(|| {
        let socket = UdpSocket::bind((CLIENT[0], 0))?;
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        socket.set_ttl(1)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((BENCH[0], 33_434))?;
        socket.send(b"hello")?;
        let mut bytes = [0; 8];
        std::io::Result::Ok(socket.recv(&mut bytes).err())
    });
    let error = heard.unwrap().unwrap()?;
    error.raw_os_error().map(Errno::from_raw)
}

#[test]
fn lab_peered_networks_reach_each_other_as_both_policies_let_them_and_no_others_do() {
    if !can_run("lab_peered_networks_reach_each_other_as_both_policies_let_them_and_no_others_do") {
        return;
    }
    let cloud = cloud();
    // What cannot be peered says why.
    let refused = peer(&cloud, "shop", "other").unwrap_err();
    assert!(
        refused.contains("10.20.0.0/16") && refused.contains("10.0.0.0/8"),
        "{refused}"
    );
    let refused = peer(&cloud, "shop", "nowhere").unwrap_err();
    assert!(refused.contains("there is no network nowhere"), "{refused}");
    let refused = peer(&cloud, "shop", "shop").unwrap_err();
    assert!(refused.contains("no peer of its own"), "{refused}");
    let refused = cloud.apply_policy("shop", SHOP).unwrap_err();
    assert!(format!("{refused:#}").contains("lab"), "{refused:#}");

    cloud
        .apply_policy("other", "network other policy main = forward")
        .unwrap();
    cloud
        .apply_policy("shop", "network shop policy main = forward")
        .unwrap();
    for (name, gateway, asked) in [
        ("client1", "10.20.0.1", "bench1.lab.internal."),
        ("bench1", "10.30.0.1", "client1.shop.internal."),
    ] {
        let found = resolved(&cloud, name, gateway, asked, RecordType::A);
        assert!(found.is_empty(), "they are no peers yet");
    }
    peer(&cloud, "shop", "lab").unwrap();
    names_are_known(&cloud);
    // An assertion that the other policy would have to hold for.
    let refused = cloud.apply_policy("shop", SHOP).unwrap_err();
    assert!(
        format!("{refused:#}").contains("reach(client1, lab.bench1"),
        "{refused:#}"
    );
    cloud.apply_policy("lab", LAB).unwrap();
    cloud.apply_policy("shop", SHOP).unwrap();

    for (client, bench) in CLIENT.iter().zip(BENCH) {
        serve(&cloud, "bench1", bench, PORT);
        serve(&cloud, "bench1", bench, CLOSED_PORT);
        serve(&cloud, "client1", client, BACK_PORT);
        serve(&cloud, "twin2", bench, PORT);
    }
    let mut open = Vec::new();
    for (client, bench) in CLIENT.iter().zip(BENCH) {
        let (mut stream, who) = connect(&cloud, "client1", bench, PORT);
        assert_eq!(who, "bench1");
        goes_on(&mut stream, 1);
        open.push(stream);
        let (mut stream, who) = connect(&cloud, "bench1", client, BACK_PORT);
        assert_eq!(who, "client1");
        goes_on(&mut stream, 2);
        open.push(stream);
        // The same addresses in another network are other endpoints.
        let (_, who) = connect(&cloud, "twin1", bench, PORT);
        assert_eq!(who, "twin2");
    }

    flows_have_names(&cloud);

    // The receiver's policy refuses what the sender's lets go, and has the label.
    let workload_client = workload(&cloud, "client1");
    let at = SocketAddr::new(BENCH[0].parse().unwrap(), CLOSED_PORT);
    let asked = workload_client.namespace().run(|| {
        let socket = TcpStream::connect_timeout(&at, Duration::from_secs(1));
        socket.is_ok()
    });
    assert!(!asked.unwrap());
    let refused = || cloud.label_packets("lab: lab says no").unwrap();
    eventually("the label of the other policy", PATIENCE, || refused() > 0).unwrap();

    // A router is what it looks like.
    assert_eq!(with_one_hop(&cloud), Some(Errno::EHOSTUNREACH));
    eventually("the expired packet to be counted", PATIENCE, || {
        expired(&cloud) == 1
    })
    .unwrap();

    // Connections live on wherever either end goes.
    cloud
        .move_endpoint(&workload(&cloud, "bench1"), "third")
        .unwrap();
    for stream in &mut open {
        goes_on(stream, 3);
    }
    cloud
        .move_endpoint(&workload(&cloud, "client1"), "third")
        .unwrap();
    for stream in &mut open {
        goes_on(stream, 4);
    }
    cloud
        .move_endpoint(&workload(&cloud, "bench1"), "near")
        .unwrap();
    for stream in &mut open {
        goes_on(stream, 5);
    }

    // A policy that needs the peering keeps it.
    let (shop, lab) = ("shop".parse().unwrap(), "lab".parse().unwrap());
    let kept = cloud.rest(|client| client.unpeer_networks(&shop, &lab, Guard::Any));
    let kept = format!("{:#}", kept.unwrap_err());
    assert!(kept.contains("would not compile any more"), "{kept}");
    cloud
        .apply_policy("shop", "network shop policy main = forward")
        .unwrap();
    cloud
        .apply_policy("lab", "network lab policy main = forward")
        .unwrap();
    for stream in &mut open {
        goes_on(stream, 6);
    }
    let apart = cloud.rest(|client| client.unpeer_networks(&shop, &lab, Guard::Any));
    cloud.wait_applied(apart.unwrap().revision).unwrap();
    let asked = workload_client.namespace().run(|| {
        let at = SocketAddr::new(BENCH[0].parse().unwrap(), PORT);
        TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()
    });
    assert!(!asked.unwrap(), "nothing crosses any more");
    let name = "bench1.lab.internal.";
    let found = resolved(&cloud, "client1", "10.20.0.1", name, RecordType::A);
    assert!(found.is_empty(), "its name neither");
    cloud.down().unwrap();
}
