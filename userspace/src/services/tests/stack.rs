//! The gateway's TCP, against another instance of the same library as the workload.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time,
    wire::{HardwareAddress, IpCidr},
};

use super::{asker, directory};
use crate::services::dns::stack::{Asked, Stack};

/// A workload with connections to the gateway, both on one clock that the test turns.
struct Link {
    interface: Interface,
    wires: Wires,
    sockets: SocketSet<'static>,
    stack: Stack,
    start: Instant,
    now: Duration,
    asked: Vec<Asked>,
}

#[derive(Default)]
struct Wires {
    inward: VecDeque<Vec<u8>>,
    outward: Vec<Vec<u8>>,
}

impl Link {
    fn new() -> Self {
        let directory = directory();
        let network = asker(&directory, 1).network;
        let start = Instant::now();
        let mut wires = Wires::default();
        let config = Config::new(HardwareAddress::Ip);
        let mut interface = Interface::new(config, &mut wires, time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for (address, prefix) in [("10.20.0.11", 16), ("fd00:20::11", 64)] {
                let address: IpAddr = address.parse().unwrap();
                addresses.push(IpCidr::new(address.into(), prefix)).unwrap();
            }
        });
        Link {
            interface,
            wires,
            sockets: SocketSet::new(Vec::new()),
            stack: Stack::new(network, start),
            start,
            now: Duration::ZERO,
            asked: Vec::new(),
        }
    }

    fn connect(&mut self, gateway: &str, port: u16) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; 1 << 17]);
        let mut socket = Socket::new(buffer(), buffer());
        let gateway: IpAddr = gateway.parse().unwrap();
        let connected = socket.connect(self.interface.context(), (gateway, 53), port);
        connected.unwrap();
        let handle = self.sockets.add(socket);
        self.settle();
        handle
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Lets packets go to and fro until there are none.
    fn settle(&mut self) {
        loop {
            let now = self.start + self.now;
            let at = time::Instant::ZERO + self.now.into();
            self.interface.poll(at, &mut self.wires, &mut self.sockets);
            let sent = std::mem::take(&mut self.wires.outward);
            let is_quiet = sent.is_empty();
            sent.iter().for_each(|packet| self.stack.receive(packet));
            let (asked, packets) = self.stack.poll(now);
            self.asked.extend(asked);
            if is_quiet && packets.is_empty() {
                return;
            }
            self.wires.inward.extend(packets);
        }
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += Duration::from_secs(1);
            self.settle();
        }
    }

    fn send(&mut self, handle: SocketHandle, bytes: &[u8]) {
        assert_eq!(self.socket(handle).send_slice(bytes), Ok(bytes.len()));
        self.settle();
    }

    fn received(&mut self, handle: SocketHandle) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let mut buffer = [0; 4096];
            match self.socket(handle).recv_slice(&mut buffer) {
                Ok(length) if length > 0 => all.extend(&buffer[..length]),
                _ => return all,
            }
            self.settle();
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

#[test]
fn queries_come_in_and_answers_go_out_of_both_families() {
    let mut link = Link::new();
    for (gateway, port) in [("10.20.0.1", 4001), ("fd00:20::1", 4002)] {
        let socket = link.connect(gateway, port);
        link.send(socket, &framed(b"one question"));
        let [asked] = &std::mem::take(&mut link.asked)[..] else {
            panic!("one question");
        };
        assert_eq!(asked.query, b"one question");
        link.stack.answer(asked.connection, b"the answer");
        link.settle();
        assert_eq!(link.received(socket), framed(b"the answer"));
    }
}

#[test]
fn questions_may_come_in_pieces_and_several_at_once() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    let bytes = [framed(b"first"), framed(b"second"), framed(b"third")].concat();
    for piece in bytes.chunks(4) {
        link.send(socket, piece);
    }
    let queries: Vec<&[u8]> = link.asked.iter().map(|asked| &asked.query[..]).collect();
    assert_eq!(queries, [&b"first"[..], b"second", b"third"]);
}

#[test]
fn the_longest_answer_arrives_whole() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    link.send(socket, &framed(b"everything"));
    let answer: Vec<u8> = (0..65_535_u32).map(|index| (index % 251) as u8).collect();
    let connection = link.asked[0].connection;
    link.stack.answer(connection, &answer);
    link.settle();
    assert!(link.received(socket) == framed(&answer));
}

#[test]
fn so_many_questions_of_one_connection_are_taken_at_once() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    for _ in 0..100 {
        let bytes = framed(b"again");
        let _ = link.socket(socket).send_slice(&bytes);
        link.settle();
    }
    assert_eq!(link.asked.len(), 16);
    let connection = link.asked[0].connection;
    link.stack.answer(connection, b"yes");
    link.settle();
    assert_eq!(link.asked.len(), 17, "an answer makes room for one more");
}

#[test]
fn so_many_connections_and_no_more() {
    let mut link = Link::new();
    let sockets: Vec<SocketHandle> = (0..9)
        .map(|n| link.connect("10.20.0.1", 4000 + n))
        .collect();
    let states: Vec<State> = sockets.iter().map(|of| link.socket(*of).state()).collect();
    assert_eq!(states[..8], [State::Established; 8]);
    assert_eq!(states[8], State::Closed, "refused");
    // One that ends makes room.
    link.socket(sockets[0]).abort();
    link.settle();
    let again = link.connect("10.20.0.1", 5000);
    assert_eq!(link.socket(again).state(), State::Established);
}

#[test]
fn a_connection_on_which_nothing_happens_is_closed() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    link.pass(9);
    assert_eq!(link.socket(socket).state(), State::Established);
    link.pass(3);
    assert_eq!(link.socket(socket).state(), State::CloseWait);
    link.socket(socket).close();
    link.pass(30);
    assert!(link.stack.is_idle());
    assert_eq!(
        link.stack.next(link.start + link.now),
        None,
        "nothing is left to do"
    );
}

#[test]
fn an_answer_that_comes_too_late_reaches_nobody() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    link.send(socket, &framed(b"slow"));
    let connection = link.asked[0].connection;
    link.socket(socket).abort();
    link.settle();
    let another = link.connect("10.20.0.1", 4002);
    link.stack.answer(connection, b"of somebody else");
    link.settle();
    assert_eq!(link.received(another), b"");
}

#[test]
fn a_question_that_is_too_long_ends_the_connection() {
    let mut link = Link::new();
    let socket = link.connect("10.20.0.1", 4001);
    let _ = link.socket(socket).send_slice(&framed(&[7; 60_000]));
    link.settle();
    assert_eq!(link.socket(socket).state(), State::Closed);
    assert!(link.asked.is_empty());
}

impl Device for Wires {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Inward, Outward<'_>)> {
        let packet = self.inward.pop_front()?;
        Some((Inward(packet), Outward(&mut self.outward)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Outward<'_>> {
        Some(Outward(&mut self.outward))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1300;
        capabilities
    }
}

struct Inward(Vec<u8>);

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Outward<'a>(&'a mut Vec<Vec<u8>>);

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let result = fill(&mut packet);
        self.0.push(packet);
        result
    }
}
