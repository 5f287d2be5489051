//! Workloads get their addresses, their router and their names from the node they are on.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use common::{
    OPEN,
    asking::{ask, dhcp, exchange, query},
    can_run,
};
use dhcproto::v4::{self, DhcpOption, OptionCode};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use sunwire_lab::{
    Topology, Workload, WorkloadSpec, eventually_ok,
    traffic::ping::{PingOptions, ping},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 11);
const CLIENT_V6: &str = "fd00:20::11";
const WEB: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 12);
const WEB_V6: &str = "fd00:20::12";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const GATEWAY_V6: &str = "fd00:20::1";
/// Where the resolver of the underlay is.
const RESOLVER: &str = "192.0.2.53:5353";
/// A name that only that resolver knows, its address, and a long one.
const OUTSIDE: &str = "www.example.org";
const OUTSIDE_ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);

/// Two nodes with one workload each, of both families; agents forward to [`RESOLVER`], which is at
/// node `third`.
fn cloud() -> Cloud {
    let workload = |name: &str, node: &str, v4: Ipv4Addr, v6: &str| {
        WorkloadSpec::new(name, node, "shop")
            .address(&format!("{v4}/16"))
            .and_then(|spec| spec.address(&format!("{v6}/64")))
            .expect("addresses")
    };
    let resolver: SocketAddr = RESOLVER.parse().expect("an address");
    let IpAddr::V4(third) = resolver.ip() else {
        panic!("the underlay is IPv4")
    };
    let topology = Topology::builder()
        .node("near", "aws:us-east-1")
        .node("far", "azure:westeurope")
        .node_with_address("third", "gcp:asia-northeast1-a", third)
        .controller("aws:us-east-1")
        .workload(workload("client1", "near", CLIENT, CLIENT_V6))
        .workload(workload("web1", "far", WEB, WEB_V6))
        .build()
        .expect("a topology");
    let cloud =
        Cloud::up_with(topology, &["--upstream-dns", RESOLVER]).expect("the cloud comes up");
    cloud
        .create_network("shop", &["10.20.0.0/16", "fd00:20::/64"])
        .expect("the network is made");
    for name in ["client1", "web1"] {
        let workload = cloud.lab().workload(name).expect("the lab has it");
        cloud
            .create_endpoint(&workload)
            .expect("the endpoint is attached");
    }
    cloud
}

fn client(cloud: &Cloud) -> Workload {
    cloud.lab().workload("client1").expect("the lab has it")
}

/// Runs a program in a workload's namespace; its output when it succeeds.
fn run(workload: &Workload, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = workload
        .namespace()
        .exec(command)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!(
            "{program} {arguments:?}: {}\n{text}{errors}",
            output.status
        ))
    }
}

/// Whether a program is there; says that the test is skipped when it is not.
fn has(program: &str, test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let is_there = directories.any(|directory| directory.join(program).exists());
    if !is_there {
        eprintln!("SKIPPED {test}: {program} is not installed");
    }
    is_there
}

#[test]
fn lab_a_workload_gets_its_address_by_dhcp() {
    if !can_run("lab_a_workload_gets_its_address_by_dhcp") {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    run(&client, "ip", &["-4", "address", "flush", "dev", "eth0"]).unwrap();

    let offer = exchange(&client, &dhcp(&client, v4::MessageType::Discover));
    assert_eq!(offer.opts().msg_type(), Some(v4::MessageType::Offer));
    assert_eq!(offer.yiaddr(), CLIENT);
    let mut request = dhcp(&client, v4::MessageType::Request);
    let options = request.opts_mut();
    options.insert(DhcpOption::RequestedIpAddress(offer.yiaddr()));
    options.insert(DhcpOption::ServerIdentifier(GATEWAY));
    let ack = exchange(&client, &request);
    assert_eq!(ack.opts().msg_type(), Some(v4::MessageType::Ack));
    assert_eq!(ack.yiaddr(), CLIENT);
    let option = |code| ack.opts().get(code).cloned();
    assert_eq!(
        option(OptionCode::SubnetMask),
        Some(DhcpOption::SubnetMask([255, 255, 0, 0].into()))
    );
    assert_eq!(
        option(OptionCode::Router),
        Some(DhcpOption::Router(vec![GATEWAY]))
    );
    assert_eq!(
        option(OptionCode::InterfaceMtu),
        Some(DhcpOption::InterfaceMtu(1300))
    );

    // With what it was told, it reaches its peer on the other node.
    let address = format!("{}/16", ack.yiaddr());
    run(&client, "ip", &["address", "add", &address, "dev", "eth0"]).unwrap();
    cloud.apply_policy("shop", OPEN).unwrap();
    assert_eq!(pings(&client, WEB.into()), 5);

    // The node it moves to tells it the same, as if nothing had happened.
    cloud.move_endpoint(&client, "far").unwrap();
    let mut renewal = dhcp(&client, v4::MessageType::Request);
    renewal.set_ciaddr(CLIENT);
    let again = exchange(&client, &renewal);
    assert_eq!(again.opts().msg_type(), Some(v4::MessageType::Ack));
    assert_eq!(again.yiaddr(), CLIENT);
    let lasting = |message: &v4::Message| {
        let options = message.opts().iter();
        options
            .map(|(_, option)| option.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(lasting(&again), lasting(&ack));
    assert_eq!(pings(&client, GATEWAY.into()), 5);
    cloud.down().unwrap();
}

fn pings(workload: &Workload, to: IpAddr) -> u32 {
    ping(workload.namespace(), to, PingOptions::default())
        .unwrap()
        .received()
}

#[test]
fn lab_a_stock_client_configures_itself() {
    let test = "lab_a_stock_client_configures_itself";
    if !can_run(test) || !has("busybox", test) {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    run(&client, "ip", &["-4", "address", "flush", "dev", "eth0"]).unwrap();
    // The client tells its script what it was given.
    let script = cloud.lab().dir().join("udhcpc.sh");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\n\
                ip address add $ip/$mask dev $interface\nip link set $interface mtu $mtu\n\
                ip route add default via $router\necho \"$domain $dns $serverid\"\n";
    std::fs::write(&script, text).unwrap();
    run(&client, "chmod", &["+x", &script.to_string_lossy()]).unwrap();
    let script = script.to_string_lossy();
    let arguments = [
        "udhcpc", "-f", "-q", "-n", "-t", "20", "-i", "eth0", "-s", &script,
    ];
    let said = run(&client, "busybox", &arguments).unwrap();
    assert!(
        said.contains(&format!("shop.internal {GATEWAY} {GATEWAY}")),
        "{said}"
    );
    let addresses = run(&client, "ip", &["-4", "address", "show", "dev", "eth0"]).unwrap();
    assert!(addresses.contains(&format!("{CLIENT}/16")), "{addresses}");
    assert!(addresses.contains("mtu 1300"), "{addresses}");
    cloud.apply_policy("shop", OPEN).unwrap();
    assert_eq!(pings(&client, WEB.into()), 5);
    cloud.down().unwrap();
}

#[test]
fn lab_a_stock_client_gets_its_ipv6_address_and_router() {
    let test = "lab_a_stock_client_gets_its_ipv6_address_and_router";
    if !can_run(test) || !has("dhclient", test) {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    // The lab's workloads ignore routers; this one asks for them when its device comes up, and
    // loses its addresses when it goes down.
    let restart = "echo 1 > /proc/sys/net/ipv6/conf/eth0/accept_ra && \
                   ip link set eth0 down && ip link set eth0 up";
    run(&client, "sh", &["-c", restart]).unwrap();
    // The kernel's own router discovery finds the gateway by its advertisement.
    eventually_ok("a default route", PATIENCE, || {
        let routes = run(&client, "ip", &["-6", "route", "show", "default"])?;
        let has_route = routes.contains("via fe80::53:57ff:fe00:1 dev eth0 proto ra");
        if has_route { Ok(()) } else { Err(routes) }
    })
    .unwrap();
    let directory = cloud.lab().dir();
    let file = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let script = file("dhclient.sh");
    let text = "#!/bin/sh\n[ \"$reason\" = BOUND6 ] || exit 0\n\
                ip address add $new_ip6_address/$new_ip6_prefixlen dev $interface\n\
                echo \"$new_dhcp6_name_servers $new_dhcp6_domain_search\" > OUT\n";
    std::fs::write(&script, text.replace("OUT", &file("dhclient.out"))).unwrap();
    run(&client, "chmod", &["+x", &script]).unwrap();
    let arguments = [
        "-6",
        "-1",
        "-v",
        "-cf",
        "/dev/null",
        "-sf",
        &script,
        "-lf",
        &file("leases"),
        "-pf",
        &file("pid"),
        "eth0",
    ];
    let outcome = run(&client, "dhclient", &arguments);
    let pid = std::fs::read_to_string(file("pid")).unwrap_or_default();
    if let Ok(pid) = pid.trim().parse() {
        // It went into the background; it is this test's own.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGTERM,
        );
    }
    outcome.unwrap();
    let said = std::fs::read_to_string(file("dhclient.out")).unwrap();
    assert_eq!(said.trim(), format!("{GATEWAY_V6} shop.internal."));
    let addresses = run(&client, "ip", &["-6", "address", "show", "dev", "eth0"]).unwrap();
    assert!(addresses.contains(CLIENT_V6), "{addresses}");
    cloud.apply_policy("shop", OPEN).unwrap();
    eventually_ok("the address to be usable", PATIENCE, || {
        match pings(&client, WEB_V6.parse().unwrap()) {
            0 => Err("no answer"),
            _ => Ok(()),
        }
    })
    .unwrap();
    cloud.down().unwrap();
}

#[test]
fn lab_the_gateway_answers_pings() {
    if !can_run("lab_the_gateway_answers_pings") {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    // Without any policy: the gateway is no endpoint.
    assert_eq!(pings(&client, GATEWAY.into()), 5);
    assert_eq!(pings(&client, GATEWAY_V6.parse().unwrap()), 5);
    cloud.down().unwrap();
}

/// A resolver that knows one name, and counts nothing else but that it was asked.
struct Resolver {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Resolver {
    fn start(cloud: &Cloud) -> Self {
        let namespace = &cloud.lab().node("third").unwrap().namespace;
        let over = Arc::new(AtomicBool::new(false));
        let (udp, tcp) = namespace
            .run(|| {
                let udp = UdpSocket::bind(RESOLVER).unwrap();
                let tcp = std::net::TcpListener::bind(RESOLVER).unwrap();
                (udp, tcp)
            })
            .unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        let is_over = Arc::clone(&over);
        let by_udp = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    let answer = known(&buffer[..length], 512);
                    udp.send_to(&answer, from).unwrap();
                }
            }
        });
        let is_over = Arc::clone(&over);
        let by_tcp = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = tcp.accept() else {
                    std::thread::park_timeout(Duration::from_millis(20));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                let query = read_message(&mut stream);
                write_message(&mut stream, &known(&query, usize::MAX));
            }
        });
        Resolver {
            over,
            threads: vec![by_udp, by_tcp],
        }
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}

/// Addresses of the outside name: more than fit into a datagram of 512 bytes.
fn outside_addresses() -> Vec<Ipv4Addr> {
    (0..100)
        .map(|last| Ipv4Addr::new(203, 0, 113, 80 + last))
        .collect()
}

/// What the resolver says to a query.
fn known(query: &[u8], bytes_max: usize) -> Vec<u8> {
    let asked = Message::from_vec(query).unwrap();
    let question = asked.queries[0].clone();
    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
    let name = question.name().clone();
    let text = name.to_ascii();
    answer.add_query(question);
    let add = |answer: &mut Message, address: Ipv4Addr| {
        let data = RData::A(A(address));
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    };
    if text == format!("{OUTSIDE}.") {
        add(&mut answer, OUTSIDE_ADDRESS);
    } else if text == format!("many.{OUTSIDE}.") {
        outside_addresses()
            .into_iter()
            .for_each(|address| add(&mut answer, address));
    } else {
        answer.metadata.response_code = ResponseCode::NXDomain;
    }
    let bytes = answer.to_vec().unwrap();
    if bytes.len() <= bytes_max {
        return bytes;
    }
    answer.answers.clear();
    answer.metadata.truncation = true;
    answer.to_vec().unwrap()
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn write_message(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    let bytes = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&bytes).unwrap();
}

/// Asks the gateway by TCP.
fn ask_tcp(workload: &Workload, server: IpAddr, name: &str, kind: RecordType) -> Message {
    let bytes = query(name, kind).to_vec().unwrap();
    let answer = workload.namespace().run(|| {
        let mut stream = TcpStream::connect((server, 53)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write_message(&mut stream, &bytes);
        read_message(&mut stream)
    });
    Message::from_vec(&answer.unwrap()).unwrap()
}

fn texts(answer: &Message) -> Vec<String> {
    let records = answer.answers.iter();
    let mut texts: Vec<String> = records.map(|record| record.data.to_string()).collect();
    texts.sort();
    texts
}

#[test]
fn lab_names_are_answered_and_the_rest_forwarded() {
    if !can_run("lab_names_are_answered_and_the_rest_forwarded") {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    let resolver = Resolver::start(&cloud);
    let (v4, v6): (IpAddr, IpAddr) = (GATEWAY.into(), GATEWAY_V6.parse().unwrap());

    for server in [v4, v6] {
        let answer = ask(&client, server, "web1.shop.internal.", RecordType::A);
        assert_eq!(texts(&answer), [WEB.to_string()]);
        assert!(answer.metadata.authoritative);
        let answer = ask(&client, server, "web1.shop.internal.", RecordType::AAAA);
        assert_eq!(texts(&answer), [WEB_V6]);
        let answer = ask(&client, server, "12.0.20.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(texts(&answer), ["web1.shop.internal."]);
        let answer = ask(&client, server, "none.shop.internal.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        let answer = ask(&client, server, &format!("{OUTSIDE}."), RecordType::A);
        assert_eq!(texts(&answer), [OUTSIDE_ADDRESS.to_string()]);

        // What is too long for a datagram comes by TCP.
        let many = format!("many.{OUTSIDE}.");
        let answer = ask(&client, server, &many, RecordType::A);
        assert!(answer.metadata.truncation);
        let answer = ask_tcp(&client, server, &many, RecordType::A);
        assert_eq!(answer.answers.len(), outside_addresses().len());
        let answer = ask_tcp(&client, server, "web1.shop.internal.", RecordType::A);
        assert_eq!(texts(&answer), [WEB.to_string()]);
    }
    resolver.stop();
    // Nobody knows now; the asker is told so in time.
    let answer = ask(&client, v4, "other.example.org.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);

    // What makes no sense is counted, and the controller hears of it.
    client
        .namespace()
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"no query", (GATEWAY, 53))
        })
        .unwrap()
        .unwrap();
    eventually_ok("the drop to be counted", PATIENCE, || {
        let counters = cloud.rest(|client| client.counters()).unwrap();
        let mut drops = counters.drops.iter();
        match drops.find(|drop| drop.reason == "punt_malformed") {
            Some(_) => Ok(()),
            None => Err(format!("{:?}", counters.drops)),
        }
    })
    .unwrap();
    cloud.down().unwrap();
}

#[test]
fn lab_the_systems_own_resolver_finds_a_workload() {
    let test = "lab_the_systems_own_resolver_finds_a_workload";
    if !can_run(test) || !has("getent", test) || !has("unshare", test) {
        return;
    }
    let cloud = cloud();
    let client = client(&cloud);
    let file = cloud.lab().dir().join("resolv.conf");
    let text = format!("nameserver {GATEWAY}\nsearch shop.internal\n");
    std::fs::write(&file, text).unwrap();
    let file = file.to_string_lossy();
    let look = format!(
        "mount --bind {file} /etc/resolv.conf && getent ahostsv4 web1 && getent hosts {WEB}"
    );
    let said = run(&client, "unshare", &["--mount", "sh", "-c", &look]).unwrap();
    assert!(said.contains(&WEB.to_string()), "{said}");
    assert!(said.contains("web1.shop.internal"), "{said}");
    cloud.down().unwrap();
}
