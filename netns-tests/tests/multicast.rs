//! Packets for several endpoints between five nodes: each member gets one, each node with members
//! gets one over the underlay, and no node sends on what it got.
//!
//! Everything is counted on the wire. A packet that is counted is followed by a broadcast on the same
//! way; when that has come out everywhere, there is nothing of the first left to come.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    collections::BTreeMap,
    io::IoSliceMut,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::JoinHandle,
};

use common::can_run;
use nix::{
    net::if_::if_nametoindex,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use sunwire_api::{
    EncryptionMode, EncryptionSpec, EndpointCreate, MacAddress, Name, NetworkCreate, TraceRequest,
    TunnelState, client::Guard,
};
use sunwire_dataplane_common::{address::Mac, punt::link_local};
use sunwire_lab::{
    Namespace, Topology, UNDERLAY_DEVICE, Workload, WorkloadSpec, eventually, eventually_ok,
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};

/// What is for several goes to all, everything else to whom it is for.
const POLICY: &str = "network shop\n\
    policy main = if dst in 224.0.0.0/4 or dst in 255.255.255.255/32 or dst in ff00::/8 then flood\n\
    else forward\n";
const PORT: u16 = 7500;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x123);
/// What stands in every packet that is counted, before its number.
const MARK: &[u8] = b"counted packet ";
const NODES: u8 = 5;

/// Frames with a number: how often each came in and went out by a device, and where to.
#[derive(Clone, Debug, Default)]
struct Seen {
    arrived: BTreeMap<u32, u64>,
    sent: BTreeMap<u32, Vec<Ipv4Addr>>,
}

/// Looks at the frames of a device.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(namespace: &Namespace, device: &'static str) -> Self {
        let opened = namespace.run(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            );
            Ok::<_, nix::Error>((socket?, if_nametoindex(device)?))
        });
        let (socket, device) = opened.unwrap().unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20)).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).unwrap();
        let mut watch = Watch {
            stop: Arc::default(),
            seen: Arc::default(),
            thread: None,
        };
        let (stop, seen) = (Arc::clone(&watch.stop), Arc::clone(&watch.seen));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while !stop.load(Ordering::Acquire) {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let received =
                    recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty());
                let Ok(message) = received else { continue };
                let length = message.bytes;
                let Some(from) = message.address else {
                    continue;
                };
                if from.ifindex() != device as usize {
                    continue;
                }
                let is_outgoing = from.pkttype() == 4;
                let frame = &buffer[..length];
                let Some(number) = number_of(frame) else {
                    continue;
                };
                let mut seen = seen.lock().unwrap();
                if is_outgoing {
                    let to = Ipv4Addr::new(frame[30], frame[31], frame[32], frame[33]);
                    seen.sent.entry(number).or_default().push(to);
                } else {
                    *seen.arrived.entry(number).or_default() += 1;
                }
            }
        });
        watch.thread = Some(thread);
        watch
    }

    fn arrived(&self, number: u32) -> u64 {
        let seen = self.seen.lock().unwrap();
        seen.arrived.get(&number).copied().unwrap_or(0)
    }

    fn sent(&self, number: u32) -> Vec<Ipv4Addr> {
        let seen = self.seen.lock().unwrap();
        seen.sent.get(&number).cloned().unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The number in a frame that is counted.
fn number_of(frame: &[u8]) -> Option<u32> {
    let at = frame.windows(MARK.len()).position(|part| part == MARK)?;
    let digits = frame.get(at + MARK.len()..at + MARK.len() + 8)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What became of one packet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fate {
    /// Nodes that a copy was sent to over the underlay, in the order of their names; one that is
    /// named twice got two.
    copies: Vec<String>,
    /// Workloads that got it, likewise.
    heard: Vec<String>,
}

fn fate(copies: &[&str], heard: &[&str]) -> Fate {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Fate {
        copies: owned(copies),
        heard: owned(heard),
    }
}

/// A cloud of five nodes, `n1` to `n5` with a workload each, `w1` to `w5`, and eyes everywhere.
struct Rig {
    cloud: Cloud,
    underlays: BTreeMap<String, Watch>,
    workloads: BTreeMap<String, Watch>,
    last: AtomicU32,
    /// Whether IPv6 packets come from the link-local address.
    from_link_local: bool,
    /// Whether nodes of other regions send on.
    relays: bool,
}

impl Rig {
    /// The workloads' addresses are 10.20.0.11 and so on, and fd00:20::11.
    fn start() -> Self {
        let rig = Rig::without_network();
        let cloud = &rig.cloud;
        cloud
            .create_network("shop", &["10.20.0.0/16", "fd00:20::/64"])
            .unwrap();
        for number in 1..=NODES {
            cloud
                .create_endpoint(&rig.workload(&format!("w{number}")))
                .unwrap();
        }
        cloud.apply_policy("shop", POLICY).unwrap();
        rig
    }

    fn without_network() -> Self {
        let mut topology = Topology::builder().controller("aws:us-east-1");
        for number in 1..=NODES {
            let node = format!("n{number}");
            let workload = WorkloadSpec::new(&format!("w{number}"), &node, "shop")
                .address(&format!("10.20.0.1{number}/16"))
                .and_then(|workload| workload.address(&format!("fd00:20::1{number}/64")))
                .unwrap();
            let region = ["aws:us-east-1", "aws:eu-west-1"][usize::from(number % 2)];
            topology = topology.node(&node, region).workload(workload);
        }
        let cloud = Cloud::up(topology.build().unwrap()).unwrap();
        let nodes = cloud.node_names().into_iter();
        let underlays = nodes.map(|name| {
            let namespace = &cloud.lab().node(&name).unwrap().namespace;
            let watch = Watch::start(namespace, UNDERLAY_DEVICE);
            (name, watch)
        });
        let underlays = underlays.collect();
        let workloads = (1..=NODES).map(|number| {
            let name = format!("w{number}");
            let workload = cloud.lab().workload(&name).unwrap();
            (name, Watch::start(workload.namespace(), "eth0"))
        });
        Rig {
            underlays,
            workloads: workloads.collect(),
            cloud,
            last: AtomicU32::new(0),
            from_link_local: false,
            relays: false,
        }
    }

    fn workload(&self, name: &str) -> Workload {
        self.cloud.lab().workload(name).unwrap()
    }

    /// Sends a packet of `from` and returns its number.
    fn send(&self, from: &str, to: IpAddr) -> u32 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut payload = MARK.to_vec();
        payload.extend(format!("{number:08}").bytes());
        let workload = self.workload(from);
        let address = workload.spec().addresses[0].ip;
        let mac = workload
            .spec()
            .effective_mac()
            .to_string()
            .parse::<MacAddress>();
        let local = link_local(Mac::new(mac.unwrap().0)).to_bytes().into();
        let sent = workload.namespace().run(|| {
            let (own, to) = match to {
                IpAddr::V4(to) => ((address, 0).into(), SocketAddr::from((to, PORT))),
                IpAddr::V6(to) => {
                    let device = if_nametoindex("eth0").unwrap();
                    let to = SocketAddrV6::new(to, PORT, 0, device);
                    let own = if self.from_link_local {
                        SocketAddrV6::new(local, 0, 0, device)
                    } else {
                        SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0)
                    };
                    (SocketAddr::V6(own), SocketAddr::V6(to))
                }
            };
            let socket = UdpSocket::bind::<SocketAddr>(own)?;
            if to.is_ipv4() {
                socket.set_broadcast(true)?;
            }
            socket.send_to(&payload, to)
        });
        sent.unwrap().unwrap();
        number
    }

    /// Sends a packet, and tells what became of it once all there is of it has come.
    fn cast(&self, from: &str, to: IpAddr) -> Fate {
        let fence = if to.is_ipv4() {
            IpAddr::V4(Ipv4Addr::BROADCAST)
        } else {
            "ff02::1".parse().unwrap()
        };
        let number = self.send(from, to);
        self.settle(from, fence);
        let names: BTreeMap<Ipv4Addr, String> = self
            .cloud
            .lab()
            .nodes()
            .iter()
            .map(|node| (node.underlay_address, node.name.clone()))
            .collect();
        let mut copies = Vec::new();
        for (node, watch) in &self.underlays {
            let sent = watch.sent(number);
            assert!(
                self.relays || sent.is_empty() || *node == self.workload(from).node().name,
                "{node} sent on what came by the underlay: {sent:?}"
            );
            copies.extend(sent.iter().map(|to| names[to].clone()));
        }
        copies.sort();
        let mut heard = Vec::new();
        for (name, watch) in &self.workloads {
            heard.extend((0..watch.arrived(number)).map(|_| name.clone()));
        }
        Fate { copies, heard }
    }

    /// Waits until a broadcast after all that was sent has come to all workloads.
    fn settle(&self, from: &str, fence: IpAddr) {
        let others = || self.workloads.iter().filter(|(name, _)| *name != from);
        eventually_ok("a broadcast to come to everybody", PATIENCE, || {
            let number = self.send(from, fence);
            eventually("it", std::time::Duration::from_secs(3), || {
                let is_heard = others().all(|(_, watch)| watch.arrived(number) > 0);
                // Who looks at a node's underlay may be later than the workload that heard it; where
                // nodes send on, these have to be looked at too.
                let sent = self
                    .underlays
                    .values()
                    .map(|watch| watch.sent(number).len());
                is_heard && (!self.relays || sent.sum::<usize>() >= others().count())
            })
        })
        .unwrap();
    }

    /// Sends packets until one has this fate.
    fn wait_fate(&self, from: &str, to: IpAddr, expected: &Fate) {
        eventually_ok("a packet to go to whom it should", PATIENCE, || {
            let found = self.cast(from, to);
            anyhow::ensure!(found == *expected, "{found:?} and not {expected:?}");
            // A trace says the same, copy by copy; of the endpoint's own address.
            if !self.from_link_local {
                let traced = self.traced(from, to)?;
                // What is encrypted on its way is not seen there.
                let is_same = traced == found || found.copies.is_empty();
                let is_same = is_same && traced.heard == found.heard;
                anyhow::ensure!(is_same, "traced {traced:?} and not {found:?}");
            }
            Ok(())
        })
        .unwrap();
    }

    /// What becomes of such a packet, by its trace.
    fn traced(&self, from: &str, to: IpAddr) -> anyhow::Result<Fate> {
        let mut request = TraceRequest::new(from.parse()?, &to.to_string());
        request.protocol = Some("udp".to_owned());
        request.destination_port = Some(PORT);
        let trace = self.cloud.rest(|client| client.trace(&request))?;
        anyhow::ensure!(trace.unfinished.is_none(), "{trace:?}");
        for (number, hop) in trace.hops.iter().enumerate() {
            // Each copy comes from where it was sent on.
            let before = hop.after.map(|before| &trace.hops[before].flow);
            let node = before.and_then(|flow| flow.next_node.as_ref());
            anyhow::ensure!(node.is_none_or(|node| *node == hop.flow.node), "{number}");
        }
        let mut copies: Vec<String> = trace
            .hops
            .iter()
            .filter_map(|hop| hop.flow.next_node.clone())
            .collect();
        copies.sort();
        let delivered = trace.hops.iter().filter(|hop| hop.device.is_some());
        let mut heard: Vec<String> = delivered
            .filter_map(|hop| hop.flow.destination.clone())
            .collect();
        heard.sort();
        Ok(Fate { copies, heard })
    }

    /// Lets a workload listen until what is returned is dropped.
    fn listen(&self, workload: &str, group: IpAddr) -> UdpSocket {
        let workload = self.workload(workload);
        let address = workload.spec().addresses[0].ip;
        let joined = workload.namespace().run(|| match (group, address) {
            (IpAddr::V4(group), IpAddr::V4(own)) => {
                let socket = UdpSocket::bind((group, PORT))?;
                socket.join_multicast_v4(&group, &own)?;
                Ok::<_, std::io::Error>(socket)
            }
            (IpAddr::V6(group), _) => {
                let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT))?;
                socket.join_multicast_v6(&group, if_nametoindex("eth0").unwrap())?;
                Ok(socket)
            }
            _ => unreachable!("the first address is of IPv4"),
        });
        joined.unwrap().unwrap()
    }
}

#[test]
fn lab_a_broadcast_is_sent_once_to_each_node_with_members_and_no_further() {
    if !can_run("lab_a_broadcast_is_sent_once_to_each_node_with_members_and_no_further") {
        return;
    }
    let rig = Rig::start();
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    rig.settle("w1", broadcast);
    for from in ["w1", "w3"] {
        let others = |letter: char| -> Vec<String> {
            let names = (1..=NODES).map(|number| format!("{letter}{number}"));
            names.filter(|name| name[1..] != from[1..]).collect()
        };
        let expected = Fate {
            copies: others('n'),
            heard: others('w'),
        };
        for _ in 0..20 {
            assert_eq!(rig.cast(from, broadcast), expected);
        }
    }
    rig.cloud.down().unwrap();
}

#[test]
fn lab_multicast_goes_to_those_who_listen_and_stops_when_they_leave() {
    if !can_run("lab_multicast_goes_to_those_who_listen_and_stops_when_they_leave") {
        return;
    }
    let rig = Rig::start();
    for group in [IpAddr::V4(GROUP), IpAddr::V6(GROUP_V6)] {
        // Until all nodes have told what is listened to there, they get everything.
        rig.wait_fate("w1", group, &fate(&[], &[]));
        let second = rig.listen("w2", group);
        let fourth = rig.listen("w4", group);
        let two = fate(&["n2", "n4"], &["w2", "w4"]);
        rig.wait_fate("w1", group, &two);
        for _ in 0..20 {
            assert_eq!(rig.cast("w1", group), two);
        }
        // A listener hears others, and not itself.
        assert_eq!(rig.cast("w4", group), fate(&["n2"], &["w2"]));
        drop(fourth);
        rig.wait_fate("w1", group, &fate(&["n2"], &["w2"]));
        drop(second);
        rig.wait_fate("w1", group, &fate(&[], &[]));
    }
    rig.cloud.down().unwrap();
}

#[test]
fn lab_a_listener_that_moves_hears_at_its_new_node_at_once() {
    if !can_run("lab_a_listener_that_moves_hears_at_its_new_node_at_once") {
        return;
    }
    let mut rig = Rig::start();
    let group = IpAddr::V4(GROUP);
    let _listener = rig.listen("w2", group);
    rig.wait_fate("w1", group, &fate(&["n2"], &["w2"]));
    let w2 = rig.workload("w2");
    rig.cloud.move_endpoint(&w2, "n5").unwrap();
    for _ in 0..5 {
        assert_eq!(rig.cast("w1", group), fate(&["n5"], &["w2"]));
    }
    // Nor do agents that start anew, and a controller that does, forget who listens.
    for node in ["n1", "n5"] {
        rig.cloud
            .stop_agent(node, nix::sys::signal::Signal::SIGKILL);
        let number = rig.send("w1", group);
        rig.settle("w1", IpAddr::V4(Ipv4Addr::BROADCAST));
        assert_eq!(
            rig.workloads["w2"].arrived(number),
            1,
            "without the agent of {node}"
        );
        rig.cloud.start_agent(node).unwrap();
        rig.cloud.wait_connected().unwrap();
        assert_eq!(rig.cast("w1", group).heard, ["w2"]);
    }
    rig.cloud.stop_controller(nix::sys::signal::Signal::SIGKILL);
    assert_eq!(rig.cast("w1", group).heard, ["w2"]);
    rig.cloud.start_controller().unwrap();
    rig.cloud.wait_connected().unwrap();
    assert_eq!(rig.cast("w1", group).heard, ["w2"]);
    rig.wait_fate("w1", group, &fate(&["n5"], &["w2"]));
    rig.cloud.down().unwrap();
}

#[test]
fn lab_copies_to_encrypted_nodes_are_encrypted() {
    if !can_run("lab_copies_to_encrypted_nodes_are_encrypted") {
        return;
    }
    let rig = Rig::start();
    let spec = EncryptionSpec {
        mode: EncryptionMode::Always,
    };
    let set = rig
        .cloud
        .rest(|client| client.put_encryption(&spec, Guard::Any));
    rig.cloud.wait_applied(set.unwrap().revision).unwrap();
    let n1: Name = "n1".parse().unwrap();
    eventually("tunnels to all nodes", PATIENCE, || {
        // What is sent makes sessions.
        rig.send("w1", IpAddr::V4(Ipv4Addr::BROADCAST));
        let node = rig.cloud.rest(|client| client.node(&n1)).unwrap();
        let tunnels = node.status.tunnels.iter();
        tunnels
            .filter(|tunnel| tunnel.state == TunnelState::Encrypted)
            .count()
            == 4
    })
    .unwrap();
    let everybody = fate(&[], &["w2", "w3", "w4", "w5"]);
    for _ in 0..10 {
        // No copy is seen on any underlay.
        let found = rig.cast("w1", IpAddr::V4(Ipv4Addr::BROADCAST));
        assert_eq!(found, everybody);
    }
    let _listener = rig.listen("w3", IpAddr::V4(GROUP));
    rig.wait_fate("w1", IpAddr::V4(GROUP), &fate(&[], &["w3"]));
    rig.cloud.down().unwrap();
}

#[test]
fn lab_where_nobody_is_asked_everybody_gets_what_is_for_several() {
    if !can_run("lab_where_nobody_is_asked_everybody_gets_what_is_for_several") {
        return;
    }
    let mut rig = Rig::without_network();
    rig.from_link_local = true;
    // Without a gateway of IPv6 nobody asks for listeners of IPv6.
    rig.cloud.create_network("shop", &["10.20.0.0/16"]).unwrap();
    for number in 1..=NODES {
        let workload = rig.workload(&format!("w{number}"));
        let body = EndpointCreate {
            name: workload.name().parse().unwrap(),
            network: "shop".parse().unwrap(),
            node: workload.node().name.parse().unwrap(),
            device: Some(workload.host_device_name().parse().unwrap()),
            addresses: Some(vec![workload.spec().addresses[0].ip]),
            mac: Some(workload.spec().effective_mac().to_string().parse().unwrap()),
            labels: Default::default(),
        };
        let made = rig
            .cloud
            .rest(|client| client.create_endpoint(&body, Guard::Key(workload.name())));
        rig.cloud.wait_attached(&made.unwrap().name).unwrap();
    }
    rig.cloud.apply_policy("shop", POLICY).unwrap();
    let all = fate(&["n2", "n3", "n4", "n5"], &["w2", "w3", "w4", "w5"]);
    for to in ["ff02::1", "ff15::123"] {
        for _ in 0..5 {
            assert_eq!(rig.cast("w1", to.parse().unwrap()), all);
        }
    }
    rig.wait_fate("w1", IpAddr::V4(GROUP), &fate(&[], &[]));
    rig.cloud.down().unwrap();
}

/// Region of a node, by its number.
fn region(node: &str) -> u32 {
    node[1..].parse::<u32>().unwrap() % 2
}

#[test]
fn lab_with_relays_a_packet_crosses_once_to_each_other_region() {
    if !can_run("lab_with_relays_a_packet_crosses_once_to_each_other_region") {
        return;
    }
    let mut rig = Rig::without_network();
    rig.relays = true;
    let body = NetworkCreate {
        outbound: Default::default(),
        name: "shop".parse().unwrap(),
        vni: None,
        subnets: vec![
            "10.20.0.0/16".parse().unwrap(),
            "fd00:20::/64".parse().unwrap(),
        ],
        mtu: None,
        encryption: Default::default(),
        relay: true,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    };
    rig.cloud
        .rest(|client| client.create_network(&body, Guard::Key("shop")))
        .unwrap();
    for number in 1..=NODES {
        rig.cloud
            .create_endpoint(&rig.workload(&format!("w{number}")))
            .unwrap();
    }
    rig.cloud.apply_policy("shop", POLICY).unwrap();
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    // Nodes that sent the last packet between regions, with where to.
    let crossings = || -> Vec<(String, String)> {
        let number = rig.last.load(Ordering::Relaxed);
        let mut crossings = Vec::new();
        for (node, watch) in &rig.underlays {
            for to in watch.sent(number) {
                let nodes = rig.cloud.lab().nodes().iter();
                let to = nodes.filter(|other| other.underlay_address == to);
                let to = to.map(|other| other.name.clone()).next().unwrap();
                if region(node) != region(&to) {
                    crossings.push((node.clone(), to));
                }
            }
        }
        crossings
    };
    // Every node gets a packet once, as without relays; between regions there is one.
    for (from, others) in [
        (
            "w1",
            fate(&["n2", "n3", "n4", "n5"], &["w2", "w3", "w4", "w5"]),
        ),
        (
            "w4",
            fate(&["n1", "n2", "n3", "n5"], &["w1", "w2", "w3", "w5"]),
        ),
    ] {
        let sender = format!("n{}", &from[1..]);
        // Which nodes are at work is told after the network is there.
        eventually_ok("one packet between regions", PATIENCE, || {
            rig.settle(from, broadcast);
            let crossings = crossings();
            anyhow::ensure!(crossings.len() == 1, "{crossings:?}");
            Ok(())
        })
        .unwrap();
        for _ in 0..20 {
            assert_eq!(rig.cast(from, broadcast), others);
            let crossings = crossings();
            assert_eq!(crossings.len(), 1, "{crossings:?}");
            assert_eq!(crossings[0].0, sender);
        }
        assert_eq!(rig.traced(from, broadcast).unwrap(), others);
    }
    // Listeners: two in the other region get one packet over the ocean, one alone gets it directly,
    // and without any there is none.
    let group = IpAddr::V4(GROUP);
    rig.wait_fate("w1", group, &fate(&[], &[]));
    let second = rig.listen("w2", group);
    let _fourth = rig.listen("w4", group);
    let _third = rig.listen("w3", group);
    rig.wait_fate("w1", group, &fate(&["n2", "n3", "n4"], &["w2", "w3", "w4"]));
    drop(second);
    eventually_ok("the second to have left", PATIENCE, || {
        let heard = rig.cast("w1", group).heard;
        anyhow::ensure!(heard == ["w3", "w4"], "{heard:?}");
        Ok(())
    })
    .unwrap();
    rig.cloud.down().unwrap();
}
