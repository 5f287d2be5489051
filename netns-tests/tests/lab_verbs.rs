//! What a policy counts, logs, limits and mirrors is so for real traffic between nodes.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use common::{CLIENT, WEB, can_run, cloud, cloud_with};
use nix::sys::{
    socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
        socket, sockopt,
    },
    time::TimeVal,
};
use sunwire_api::{Flow, FlowItem, FlowQuery, Question, Telling};
use sunwire_lab::{
    Namespace, eventually,
    traffic::ping::{PingOptions, ping},
};
use sunwire_netns_tests::cloud::{Cloud, PATIENCE};
use sunwire_userspace::control::{self, Answer, Request};

/// Packets per second, and those that pass at once.
const RATE: u64 = 100;
const AT_ONCE: u64 = 10;
const PORT: u16 = 7000;
const SENT: u64 = 2_000;

fn bound(cloud: &Cloud, name: &str, address: &str, port: u16) -> UdpSocket {
    let workload = cloud.lab().workload(name).unwrap();
    let bound = workload.namespace().run(|| {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        std::io::Result::Ok(socket)
    });
    bound.unwrap().unwrap()
}

/// Has the client know its way to web1, so that no packet waits for an answer about it.
fn find_each_other(cloud: &Cloud) {
    let client = cloud.lab().workload("client1").unwrap();
    let options = PingOptions {
        timeout: PATIENCE,
        ..PingOptions::default()
    };
    let answered = ping(client.namespace(), WEB.parse().unwrap(), options).unwrap();
    assert!(answered.received() > 0);
}

/// The last flows that the agent of `node` tells of, by a filter.
fn told(cloud: &Cloud, node: &str, filter: &str) -> Vec<Flow> {
    let state = cloud.lab().node(node).unwrap().state_dir.clone();
    let query = FlowQuery {
        filter: filter.to_owned(),
        last: 100,
        ..FlowQuery::default()
    };
    let answers = control::listen(&state, &Request::Ask(Question::Flows(query))).unwrap();
    // The answers end by themselves: nothing is followed.
    let flows = answers.map(|answer| match answer.unwrap() {
        Answer::Told(Telling::Flow {
            item: FlowItem::Flow(flow),
        }) => *flow,
        other => panic!("{other:?}"),
    });
    flows.collect()
}

#[test]
fn lab_a_rate_is_held_and_what_comes_by_is_counted_and_logged() {
    if !can_run("lab_a_rate_is_held_and_what_comes_by_is_counted_and_logged") {
        return;
    }
    let cloud = cloud();
    let policy = "network shop
        policy main =
            if udp and dst port 7000 then
                (count asked; log \"asks\"; if token = 1 then (limit 100/s per src; forward \"in time\") else drop \"too many\")
            else forward \"other\"
    ";
    cloud.apply_policy("shop", policy).unwrap();
    find_each_other(&cloud);
    let server = bound(&cloud, "web1", WEB, PORT);
    let client = bound(&cloud, "client1", CLIENT, 4000);
    client.connect((WEB, PORT)).unwrap();
    let started = Instant::now();
    for word in 0..SENT {
        // The kernel says when there is no room for a moment.
        let sent = || client.send(&word.to_be_bytes()).is_ok();
        eventually("room for a packet", PATIENCE, sent).unwrap();
    }
    // Every packet has been decided on when the client's node has counted it.
    let asked = || -> u64 {
        let counters = cloud.rest(|client| client.counters()).unwrap();
        let asked = counters.counts.iter().filter(|count| count.name == "asked");
        asked.map(|count| count.totals.packets).sum()
    };
    let labelled = |label: &str| cloud.label_packets(label).unwrap();
    eventually("all that was sent is counted", PATIENCE, || {
        asked() == SENT && labelled("in time") + labelled("too many") == SENT
    })
    .unwrap();
    // Longer than the packets took: an upper bound of what may have passed meanwhile.
    let elapsed_ms = started.elapsed().as_millis() as u64;
    let (passed, held) = (labelled("in time"), labelled("too many"));
    assert!(passed >= AT_ONCE, "{passed}");
    let most = AT_ONCE + RATE * (elapsed_ms + 1) / 1000 + 1;
    assert!(passed <= most, "{passed} in {elapsed_ms} ms");
    assert!(held > 0, "{SENT} packets took {elapsed_ms} ms");
    // What had a token arrives, in order.
    let mut before = None;
    for _ in 0..passed {
        let mut word = [0; 8];
        assert_eq!(server.recv(&mut word).unwrap(), 8);
        let number = Some(u64::from_be_bytes(word));
        assert!(number > before, "{number:?} after {before:?}");
        before = number;
    }

    // The flow is told once, as logged, by its first packet; what got no token each time.
    let logged = "logged and log asks and forwarded";
    eventually("the log", PATIENCE, || {
        !told(&cloud, "near", logged).is_empty()
    })
    .unwrap();
    let flows = told(&cloud, "near", logged);
    let [flow] = &flows[..] else {
        panic!("{flows:#?}");
    };
    assert_eq!(flow.log.as_deref(), Some("asks"));
    assert_eq!(flow.label.as_deref(), Some("in time"));
    assert_eq!(flow.from.endpoint.as_deref(), Some("client1"));
    let drops = told(&cloud, "near", "logged and log asks and drop");
    assert!(!drops.is_empty());
    assert!(
        drops
            .iter()
            .all(|flow| flow.label.as_deref() == Some("too many"))
    );
    assert_eq!(told(&cloud, "far", "logged"), []);
    cloud.down().unwrap();
}

/// Frames that come in at a workload.
struct Frames(OwnedFd);

impl Frames {
    fn of(namespace: &Namespace) -> Self {
        let opened = namespace.run(|| {
            socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        });
        let socket = opened.unwrap().unwrap();
        let patience = TimeVal::new(PATIENCE.as_secs() as i64, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &patience).unwrap();
        setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20)).unwrap();
        Frames(socket)
    }

    /// The next one that is IPv4 of a protocol.
    fn next(&self, protocol: u8) -> Vec<u8> {
        loop {
            let mut buffer = vec![0; 1 << 17];
            let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
            let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::empty());
            let received = recvmsg::<LinkAddr>(fd, &mut parts, None, flags).unwrap();
            // PACKET_OUTGOING, packet(7): what this workload sends itself.
            let outgoing = received.address.is_some_and(|from| from.pkttype() == 4);
            let length = received.bytes;
            let frame = &buffer[..length];
            if !outgoing && length >= 34 && frame[12..14] == [8, 0] && frame[23] == protocol {
                return frame.to_vec();
            }
        }
    }
}

#[test]
fn lab_a_mirror_in_a_third_cloud_gets_what_matches_and_the_original_is_untouched() {
    if !can_run("lab_a_mirror_in_a_third_cloud_gets_what_matches_and_the_original_is_untouched") {
        return;
    }
    const UDP: u8 = 17;
    const TCP: u8 = 6;
    let cloud = cloud_with("watch1", "third", "10.20.0.13");
    let policy = "network shop
        policy main =
            if src = client1 and dst = web1 and (tcp or dst port 7000) then forward \"watched\" + mirror to watch1
            else forward \"other\"
    ";
    cloud.apply_policy("shop", policy).unwrap();
    find_each_other(&cloud);
    let namespace = |name: &str| cloud.lab().workload(name).unwrap().namespace().clone();
    let (at_web, at_watch) = (
        Frames::of(&namespace("web1")),
        Frames::of(&namespace("watch1")),
    );
    let server = bound(&cloud, "web1", WEB, PORT);
    let unwatched = bound(&cloud, "web1", WEB, PORT + 1);
    let client = bound(&cloud, "client1", CLIENT, 4000);
    // What the mirror gets is what the destination gets, in other hands; what does not match, and what
    // is answered, it never gets: it would stand between the others.
    let macs = |name: &str| {
        let spec = cloud.lab().workload(name).unwrap().spec().clone();
        spec.effective_mac().0
    };
    for number in 0..50_u8 {
        let bytes = vec![number; 1 + 20 * usize::from(number)];
        client.send_to(&bytes, (WEB, PORT + 1)).unwrap();
        client.send_to(&bytes, (WEB, PORT)).unwrap();
        let mut heard = vec![0; 2000];
        for socket in [&unwatched, &server] {
            let (length, from) = socket.recv_from(&mut heard).unwrap();
            assert_eq!(heard[..length], bytes);
            assert_eq!(from.to_string(), format!("{CLIENT}:4000"));
        }
        server.send_to(&bytes, (CLIENT, 4000)).unwrap();
        assert_eq!(client.recv(&mut heard).unwrap(), bytes.len());
        let _not_watched = at_web.next(UDP);
        let mut original = at_web.next(UDP);
        let copy = at_watch.next(UDP);
        assert_eq!(original[..6], macs("web1"));
        original[..6].copy_from_slice(&macs("watch1"));
        assert_eq!(copy, original);
    }
    // A connection does not notice, and what of it goes one way is mirrored.
    let listener = namespace("web1")
        .run(|| TcpListener::bind((WEB, 80)))
        .unwrap()
        .unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 7) as u8).collect();
    let sent = bytes.clone();
    let sending = namespace("client1")
        .start_thread("sending", move || {
            let mut stream = TcpStream::connect((WEB, 80)).unwrap();
            stream.write_all(&sent).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut end = Vec::new();
            stream.read_to_end(&mut end).unwrap();
            end
        })
        .unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, bytes);
    stream.write_all(b"thanks").unwrap();
    drop(stream);
    assert_eq!(sending.join().unwrap(), b"thanks");
    let mut mirrored = 0;
    while mirrored < bytes.len() {
        let copy = at_watch.next(TCP);
        assert_eq!(copy[..6], macs("watch1"));
        assert_eq!(copy[26..30], [10, 20, 0, 11]);
        assert_eq!(copy[30..34], [10, 20, 0, 12]);
        let total = usize::from(u16::from_be_bytes([copy[16], copy[17]]));
        let total = if total == 0 { copy.len() - 14 } else { total };
        mirrored += total - 20 - usize::from(copy[46] >> 4) * 4;
    }
    cloud.down().unwrap();
}
