//! Tunnels between clouds are encrypted: nothing crosses in the clear, nothing that came in the clear
//! gets in, keys change and agents restart without a lost packet, and what cannot be encrypted is
//! not sent.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use common::{CLIENT, OPEN, WEB, can_run, cloud};
use nix::{
    net::if_::if_nametoindex,
    sys::{
        signal::Signal,
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use sunwire_api::{
    EncryptionMode, Name, NetworkCreate, NetworkEncryption, NetworkPatch, PublicKey, TunnelState,
    TunnelStatus, client::Guard,
};
use sunwire_lab::{
    UNDERLAY_DEVICE, Workload, WorkloadSpec, eventually, eventually_ok,
    traffic::{
        ping::{PingOptions, ping},
        tcp_bulk::{BulkReceiver, BulkSender},
        udp::{UdpReceiver, UdpSender},
    },
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::{
    control::{Answer, Request, call},
    crypt::{self, key::PrivateKey, protocol, supervisor::PORT},
};

/// What workloads say to each other, and nobody else may read.
const SECRET: &[u8] = b"the combination of the safe is 1-2-3-4-5";

/// Counts the frames on a node's underlay device, and those that have the secret in them.
struct Search {
    stop: Arc<AtomicBool>,
    frames: Arc<AtomicU64>,
    found: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Search {
    fn start(cloud: &Cloud, node: &str) -> Self {
        let namespace = &cloud.lab().node(node).unwrap().namespace;
        let opened = namespace.run(|| {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            );
            Ok::<_, nix::Error>((socket?, if_nametoindex(UNDERLAY_DEVICE)?))
        });
        let (socket, underlay) = opened.unwrap().unwrap();
        let underlay = underlay as usize;
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        let patience = TimeVal::new(0, 50_000);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
        let search = Search {
            stop: Arc::default(),
            frames: Arc::default(),
            found: Arc::default(),
            thread: None,
        };
        let (stop, frames, found) = (
            Arc::clone(&search.stop),
            Arc::clone(&search.frames),
            Arc::clone(&search.found),
        );
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Acquire) {
                let mut parts = [IoSliceMut::new(&mut buffer)];
                let received =
                    recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty());
                let Ok(message) = received else { continue };
                let device = message.address.map_or(0, |address| address.ifindex());
                let length = message.bytes;
                // What workloads get on their own devices is their own.
                if device != underlay {
                    continue;
                }
                frames.fetch_add(1, Ordering::Relaxed);
                if buffer[..length]
                    .windows(SECRET.len())
                    .any(|part| part == SECRET)
                {
                    found.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Search {
            thread: Some(thread),
            ..search
        }
    }

    /// Waits for frames; returns how many there were, and how many had the secret in them.
    fn finish(mut self) -> (u64, u64) {
        let frames = || self.frames.load(Ordering::Relaxed);
        eventually("frames on the underlay", PATIENCE, || frames() >= 20).unwrap();
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap();
        (frames(), self.found.load(Ordering::Relaxed))
    }
}

fn set(cloud: &Cloud, mode: EncryptionMode) {
    cloud.encrypt(mode).unwrap();
}

fn tunnels(cloud: &Cloud, node: &str) -> Vec<TunnelStatus> {
    let name: Name = node.parse().unwrap();
    cloud
        .rest(|client| client.node(&name))
        .unwrap()
        .status
        .tunnels
}

fn tunnel(cloud: &Cloud, from: &str, to: &str) -> TunnelStatus {
    let mut tunnels = tunnels(cloud, from).into_iter();
    tunnels
        .find(|tunnel| tunnel.node.as_str() == to)
        .unwrap_or_else(|| panic!("{from} says nothing of {to}"))
}

fn wait_state(cloud: &Cloud, from: &str, to: &str, state: TunnelState) -> TunnelStatus {
    eventually_ok("a tunnel's state", PATIENCE, || {
        let mut tunnels = tunnels(cloud, from).into_iter();
        match tunnels.find(|tunnel| tunnel.node.as_str() == to) {
            Some(tunnel) if tunnel.state == state => Ok(tunnel),
            other => Err(anyhow::anyhow!("{other:?}")),
        }
    })
    .unwrap()
}

fn encrypted(mode: EncryptionMode) -> Cloud {
    let cloud = cloud();
    set(&cloud, mode);
    cloud.apply_policy("shop", OPEN).unwrap();
    for (from, to) in [("near", "far"), ("far", "near")] {
        wait_state(&cloud, from, to, TunnelState::Encrypted);
    }
    cloud
}

fn workload(cloud: &Cloud, name: &str) -> Workload {
    cloud.lab().workload(name).unwrap()
}

/// Sends a datagram from the client to the web server until one arrives.
fn say(cloud: &Cloud, text: &[u8]) {
    let address: SocketAddr = format!("{WEB}:7400").parse().unwrap();
    let web = workload(cloud, "web1");
    let client = workload(cloud, "client1");
    let listener = web
        .namespace()
        .run(|| UdpSocket::bind(address))
        .unwrap()
        .unwrap();
    listener
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let speaker = client
        .namespace()
        .run(|| UdpSocket::bind((CLIENT, 0)))
        .unwrap()
        .unwrap();
    eventually_ok("a datagram to arrive", PATIENCE, || {
        speaker.send_to(text, address)?;
        let mut heard = [0; 2048];
        let length = listener.recv(&mut heard)?;
        anyhow::ensure!(&heard[..length] == text, "another datagram");
        Ok(())
    })
    .unwrap();
}

fn drops(cloud: &Cloud, reason: &str) -> u64 {
    let counters = cloud.rest(|client| client.counters()).unwrap();
    let mut drops = counters.drops.iter();
    drops
        .find(|drop| drop.reason == reason)
        .map_or(0, |drop| drop.totals.packets)
}

fn answers(cloud: &Cloud) -> bool {
    let options = PingOptions {
        timeout: Duration::from_secs(1),
        ..PingOptions::default()
    };
    let client = workload(cloud, "client1");
    ping(client.namespace(), WEB.parse().unwrap(), options)
        .unwrap()
        .received()
        > 0
}

/// Numbered datagrams from client to web server while `disturb` happens; none is lost.
fn loses_nothing(cloud: &mut Cloud, what: &str, disturb: impl FnOnce(&mut Cloud)) {
    let (client, web) = (workload(cloud, "client1"), workload(cloud, "web1"));
    let address = format!("{WEB}:7000").parse().unwrap();
    let receiver = UdpReceiver::start(web.namespace(), address).unwrap();
    let sender =
        UdpSender::start(client.namespace(), receiver.address(), 200, 1_000.0, None).unwrap();
    let flows = |from: u64| {
        eventually("traffic to flow", PATIENCE, || {
            receiver.received() > from + 500
        })
        .unwrap();
    };
    flows(0);
    disturb(cloud);
    flows(receiver.received());
    let sent = sender.stop();
    let all = || receiver.received() >= sent.sent;
    // What is still under way arrives; if something was lost, the figures below say so.
    let _ = eventually("the last packets", Duration::from_secs(5), all);
    let received = receiver.stop();
    eprintln!(
        "{what}: {} of {} packets lost",
        received.lost(&sent),
        sent.sent
    );
    assert_eq!(received.lost(&sent), 0, "{what}: {received:?} of {sent:?}");
}

fn keys(cloud: &Cloud, node: &str) -> Vec<PublicKey> {
    let name: Name = node.parse().unwrap();
    cloud
        .rest(|client| client.node(&name))
        .unwrap()
        .spec
        .public_keys
}

#[test]
fn nothing_crosses_between_clouds_in_the_clear() {
    if !can_run("nothing_crosses_between_clouds_in_the_clear") {
        return;
    }
    let cloud = cloud();
    cloud.apply_policy("shop", OPEN).unwrap();
    set(&cloud, EncryptionMode::Never);
    wait_state(&cloud, "near", "far", TunnelState::Plaintext);

    // The search finds what there is to be found.
    let search = Search::start(&cloud, "far");
    for _ in 0..20 {
        say(&cloud, SECRET);
    }
    let (frames, found) = search.finish();
    assert!(found >= 20, "{found} of {frames} frames");

    set(&cloud, EncryptionMode::BetweenClouds);
    for (from, to) in [("near", "far"), ("far", "near")] {
        let tunnel = wait_state(&cloud, from, to, TunnelState::Encrypted);
        assert!(tunnel.handshakes > 0, "{tunnel:?}");
        assert_eq!(tunnel.detail, None);
    }
    let searches = ["near", "far"].map(|node| Search::start(&cloud, node));
    for _ in 0..20 {
        say(&cloud, SECRET);
    }
    for search in searches {
        let (frames, found) = search.finish();
        assert_eq!(found, 0, "of {frames} frames");
    }
    assert!(answers(&cloud));
    let tunnel = tunnel(&cloud, "near", "far");
    assert!(tunnel.handshake_age_s.is_some_and(|age| age >= 0.0));
    cloud.down().unwrap();
}

#[test]
fn what_comes_in_the_clear_is_dropped_where_it_has_to_be_encrypted() {
    if !can_run("what_comes_in_the_clear_is_dropped_where_it_has_to_be_encrypted") {
        return;
    }
    let cloud = encrypted(EncryptionMode::BetweenClouds);
    assert!(answers(&cloud));
    let before = drops(&cloud, "unencrypted");
    let web = cloud
        .rest(|client| client.endpoint(&"web1".parse().unwrap()))
        .unwrap();
    let client = cloud
        .rest(|client| client.endpoint(&"client1".parse().unwrap()))
        .unwrap();
    let vni = cloud
        .rest(|client| client.network(&"shop".parse().unwrap()))
        .unwrap()
        .spec
        .vni;
    // From the node itself, so from its own address: right in everything but that it is plain.
    let near = cloud.lab().node("near").unwrap();
    let to = cloud.lab().node("far").unwrap().underlay_address;
    let forged = forged(vni.get(), client.spec.mac.0, web.spec.mac.0);
    let forger = near
        .namespace
        .run(|| UdpSocket::bind((near.underlay_address, 0)));
    let forger = forger.unwrap().unwrap();
    let listener = workload(&cloud, "web1")
        .namespace()
        .run(|| UdpSocket::bind((WEB, 7400)));
    let listener = listener.unwrap().unwrap();
    for _ in 0..10 {
        near.namespace
            .run(|| forger.send_to(&forged, (to, 4789)))
            .unwrap()
            .unwrap();
    }
    eventually("the drops to be counted", PATIENCE, || {
        drops(&cloud, "unencrypted") >= before + 10
    })
    .unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.recv(&mut [0; 100]).is_err(), "it was delivered");

    // The same packet is right where it need not be encrypted.
    set(&cloud, EncryptionMode::Never);
    wait_state(&cloud, "far", "near", TunnelState::Plaintext);
    near.namespace
        .run(|| forger.send_to(&forged, (to, 4789)))
        .unwrap()
        .unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0; 100];
    assert_eq!(listener.recv(&mut heard).unwrap(), SECRET.len());
    cloud.down().unwrap();
}

/// A VXLAN packet with a datagram from the client to the web server, from the VXLAN header on.
fn forged(vni: u32, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(from, to)
        .ipv4([10, 20, 0, 11], [10, 20, 0, 12], 64)
        .udp(4000, 7400);
    let mut packet = vec![8, 0, 0, 0];
    packet.extend((vni << 8).to_be_bytes());
    builder.write(&mut packet, SECRET).unwrap();
    packet
}

#[test]
fn tcp_flows_through_an_encrypted_tunnel() {
    if !can_run("tcp_flows_through_an_encrypted_tunnel") {
        return;
    }
    let cloud = encrypted(EncryptionMode::BetweenClouds);
    let (client, web) = (workload(&cloud, "client1"), workload(&cloud, "web1"));
    let address = format!("{WEB}:7100").parse().unwrap();
    let receiver = BulkReceiver::start(web.namespace(), address).unwrap();
    let sender = BulkSender::start(client.namespace(), receiver.address(), None, PATIENCE).unwrap();
    eventually("twenty megabytes", PATIENCE, || {
        receiver.bytes() > 20_000_000
    })
    .unwrap();
    assert_eq!(sender.stop().unwrap().broken, None);
    assert_eq!(receiver.finish().unwrap().broken, None);
    cloud.down().unwrap();
}

#[test]
fn restarts_of_agents_lose_no_encrypted_packet() {
    if !can_run("restarts_of_agents_lose_no_encrypted_packet") {
        return;
    }
    let mut cloud = encrypted(EncryptionMode::BetweenClouds);
    assert!(answers(&cloud));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for node in ["near", "far"] {
            let handshakes = tunnel(&cloud, node, "third").handshakes;
            let what = format!("{signal} to the agent of {node}");
            loses_nothing(&mut cloud, &what, |cloud| {
                cloud.stop_agent(node, signal);
                cloud.start_agent(node).unwrap();
                cloud.wait_connected().unwrap();
                // The new agent has the whole state in force, not only a connection.
                let revision = cloud.rest(|client| client.status()).unwrap().revision;
                cloud.wait_applied(revision).unwrap();
            });
            let after = wait_state(&cloud, node, "third", TunnelState::Encrypted);
            assert!(
                after.handshakes >= handshakes,
                "the process was adopted, not replaced"
            );
        }
    }
    cloud.down().unwrap();
}

#[test]
fn a_key_is_replaced_without_a_lost_packet() {
    if !can_run("a_key_is_replaced_without_a_lost_packet") {
        return;
    }
    let mut cloud = encrypted(EncryptionMode::BetweenClouds);
    assert!(answers(&cloud));
    let before = keys(&cloud, "far");
    assert_eq!(before.len(), 1);
    // Both at once, which is the harder case.
    loses_nothing(&mut cloud, "rotation", |cloud| {
        for node in ["near", "far"] {
            let directory = &cloud.lab().node(node).unwrap().state_dir;
            assert_eq!(
                call(directory, &Request::RotateKey).unwrap(),
                Answer::Accepted
            );
        }
        eventually("both keys to be announced", PATIENCE, || {
            keys(cloud, "far").len() == 2
        })
        .unwrap();
        eventually("the older keys to be given up", PATIENCE, || {
            ["near", "far"]
                .iter()
                .all(|node| keys(cloud, node).len() == 1)
                && keys(cloud, "far") != before
        })
        .unwrap();
        let revision = cloud.rest(|client| client.status()).unwrap().revision;
        cloud.wait_applied(revision).unwrap();
    });
    assert_eq!(tunnel(&cloud, "near", "far").state, TunnelState::Encrypted);
    cloud.down().unwrap();
}

#[test]
fn without_the_right_key_nothing_is_sent_and_the_status_says_why() {
    if !can_run("without_the_right_key_nothing_is_sent_and_the_status_says_why") {
        return;
    }
    let mut cloud = encrypted(EncryptionMode::BetweenClouds);
    assert!(answers(&cloud));
    // The process of far goes on with a key that the controller does not tell of: a node that is
    // not the one it says it is.
    let directory = |node| cloud.lab().node(node).unwrap().state_dir.clone();
    let (near, far) = (directory("near"), directory("far"));
    let address = cloud.lab().node("near").unwrap().underlay_address;
    let number = |node: &str| {
        let name: Name = node.parse().unwrap();
        let node = cloud.rest(|client| client.node(&name)).unwrap();
        node.status.number
    };
    let peer = protocol::Peer {
        node: number("near"),
        address,
        underlay: address.into(),
        port: PORT,
        keys: keys(&cloud, "near"),
    };
    let own = number("far");
    let own_address = cloud.lab().node("far").unwrap().underlay_address;
    cloud.stop_agent("far", Signal::SIGKILL);
    let stranger = protocol::Configuration {
        node: own,
        address: own_address,
        private_keys: vec![PrivateKey::generate()],
        peers: vec![peer],
    };
    crypt::call(&far, &protocol::Request::Configure(stranger)).unwrap();
    // And the process of near begins anew: its agent starts another one.
    crypt::call(&near, &protocol::Request::End).unwrap();
    let down = wait_state(&cloud, "near", "far", TunnelState::Down);
    let detail = down.detail.unwrap();
    assert!(
        detail.contains("no answer from") && detail.contains("another key"),
        "{detail}"
    );

    let search = Search::start(&cloud, "far");
    assert!(!answers(&cloud));
    eventually("drops to be counted", PATIENCE, || {
        drops(&cloud, "no_tunnel") > 0
    })
    .unwrap();
    let address: SocketAddr = format!("{WEB}:7400").parse().unwrap();
    let client = workload(&cloud, "client1");
    let speaker = client
        .namespace()
        .run(|| UdpSocket::bind((CLIENT, 0)))
        .unwrap()
        .unwrap();
    for _ in 0..20 {
        speaker.send_to(SECRET, address).unwrap();
    }
    let (frames, found) = search.finish();
    assert_eq!(found, 0, "of {frames} frames");

    cloud.start_agent("far").unwrap();
    cloud.wait_connected().unwrap();
    let up = wait_state(&cloud, "near", "far", TunnelState::Encrypted);
    assert_eq!(up.detail, None);
    eventually("the way to be whole again", PATIENCE, || answers(&cloud)).unwrap();
    cloud.down().unwrap();
}

#[test]
fn a_network_that_asks_for_it_is_encrypted_wherever_it_goes() {
    if !can_run("a_network_that_asks_for_it_is_encrypted_wherever_it_goes") {
        return;
    }
    let cloud = cloud();
    set(&cloud, EncryptionMode::Never);
    wait_state(&cloud, "near", "far", TunnelState::Plaintext);
    let (listener, speaker) = vault(&cloud, NetworkEncryption::Required);
    for (from, to) in [("near", "far"), ("far", "near")] {
        wait_state(&cloud, from, to, TunnelState::Encrypted);
    }
    let found = said_in_vault(&cloud, &listener, &speaker);
    assert_eq!(found, 0);
    // The other network is as it was.
    cloud.apply_policy("shop", OPEN).unwrap();
    assert!(said_in_shop(&cloud) >= 20);
    cloud.down().unwrap();
}

#[test]
fn lab_a_network_that_is_encrypted_nowhere_crosses_clouds_in_the_clear_and_no_other_does() {
    let test =
        "lab_a_network_that_is_encrypted_nowhere_crosses_clouds_in_the_clear_and_no_other_does";
    if !can_run(test) {
        return;
    }
    let cloud = encrypted(EncryptionMode::BetweenClouds);
    let (listener, speaker) = vault(&cloud, NetworkEncryption::Default);
    assert_eq!(said_in_shop(&cloud), 0);
    let encrypt_shop = |encryption| {
        let patch = NetworkPatch {
            encryption: Some(encryption),
            ..NetworkPatch::default()
        };
        let shop: Name = "shop".parse().unwrap();
        let changed = cloud.rest(|client| client.patch_network(&shop, &patch, Guard::Any));
        let changed = changed.unwrap();
        assert_eq!(changed.spec.encryption, encryption);
        cloud.wait_applied(changed.revision).unwrap();
    };
    // What the network says comes before what the cloud says, whichever that is.
    for mode in [EncryptionMode::BetweenClouds, EncryptionMode::Always] {
        set(&cloud, mode);
        encrypt_shop(NetworkEncryption::Never);
        assert!(said_in_shop(&cloud) >= 20, "{mode}");
        assert!(answers(&cloud), "{mode}");
        assert_eq!(said_in_vault(&cloud, &listener, &speaker), 0, "{mode}");
        wait_state(&cloud, "near", "far", TunnelState::Encrypted);
        encrypt_shop(NetworkEncryption::Default);
        assert_eq!(said_in_shop(&cloud), 0, "{mode}");
    }
    cloud.down().unwrap();
}

/// Says the secret twenty times in the network of [`cloud`]; returns how many frames between the nodes
/// had it in them.
fn said_in_shop(cloud: &Cloud) -> u64 {
    let search = Search::start(cloud, "far");
    for _ in 0..20 {
        say(cloud, SECRET);
    }
    search.finish().1
}

/// The same in [`vault`].
fn said_in_vault(cloud: &Cloud, listener: &UdpSocket, speaker: &UdpSocket) -> u64 {
    let search = Search::start(cloud, "far");
    for _ in 0..20 {
        speaker.send_to(SECRET, ("10.30.0.12", 7400)).unwrap();
        assert_eq!(listener.recv(&mut [0; 100]).unwrap(), SECRET.len());
    }
    search.finish().1
}

/// A second network, with who listens at `far` and who speaks at `near`.
fn vault(cloud: &Cloud, encryption: NetworkEncryption) -> (UdpSocket, UdpSocket) {
    let body = NetworkCreate {
        outbound: Default::default(),
        name: "vault".parse().unwrap(),
        vni: None,
        subnets: vec!["10.30.0.0/16".parse().unwrap()],
        mtu: None,
        encryption,
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    };
    let created = cloud.rest(|client| client.create_network(&body, Guard::Key("vault")));
    cloud.wait_applied(created.unwrap().revision).unwrap();
    let workloads = [
        ("client2", "near", "10.30.0.11"),
        ("web2", "far", "10.30.0.12"),
    ];
    let [client, web] = workloads.map(|(name, node, address)| {
        let spec = WorkloadSpec::new(name, node, "vault")
            .address(&format!("{address}/16"))
            .unwrap();
        let workload = cloud.lab().add_workload(spec).unwrap();
        cloud.create_endpoint(&workload).unwrap();
        workload
    });
    cloud
        .apply_policy("vault", "network vault\npolicy main = forward\n")
        .unwrap();
    let listener = web
        .namespace()
        .run(|| UdpSocket::bind(("10.30.0.12", 7400)));
    let listener = listener.unwrap().unwrap();
    listener.set_read_timeout(Some(PATIENCE)).unwrap();
    let speaker = client
        .namespace()
        .run(|| UdpSocket::bind(("10.30.0.11", 0)));
    (listener, speaker.unwrap().unwrap())
}
