//! The TCP side of a gateway toward one workload: packets in, queries out; answers in, packets out.
//!
//! A user-space TCP, because the gateway's addresses exist on no machine and networks may overlap.
//! It knows no clock and no device. Everything is bounded: connections, what one may ask at once,
//! and what is buffered; who does not read its answers loses the connection.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer},
    time,
    wire::{HardwareAddress, IpCidr},
};
use sunwire_dataplane_common::punt::DNS_PORT;

use crate::services::directory::Network;

/// Connections of one workload at once; more are refused until one ends.
const CONNECTIONS: usize = 8;
/// Queries of one connection that are under way; the rest waits unread.
const UNDER_WAY_MAX: usize = 16;
/// Bytes that may be under way to the gateway: no segment, not even one of several packets, is then
/// longer than what the programs hand over.
const RECEIVE_BYTES: usize = 1400;
const SEND_BYTES: usize = 16_384;
/// Longest query in bytes, with its length.
const QUERY_BYTES_MAX: usize = 4096;
/// Bytes of answers that wait to be sent before the connection is given up.
const WAITING_BYTES_MAX: usize = 1 << 18;
/// A connection on which nothing happens is closed after this (RFC 7766, 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

/// A query of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which connection: its place and which one in it, so that an answer never reaches another.
    pub(crate) connection: (usize, u64),
    /// The message.
    pub(crate) query: Vec<u8>,
}

/// A workload's connections.
pub(crate) struct Stack {
    interface: Interface,
    wires: Wires,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    started: Instant,
}

struct Connection {
    socket: SocketHandle,
    /// Which one in this place.
    generation: u64,
    /// What was read and is no whole query yet.
    read: Vec<u8>,
    waiting: VecDeque<u8>,
    under_way: usize,
    last: Instant,
}

/// IP packets on their way in and out.
struct Wires {
    mtu: usize,
    inward: VecDeque<Vec<u8>>,
    outward: Vec<Vec<u8>>,
}

impl Stack {
    /// The gateway of a network, listening.
    pub(crate) fn new(network: &Network, now: Instant) -> Self {
        let mut wires = Wires {
            mtu: usize::from(network.mtu),
            inward: VecDeque::new(),
            outward: Vec::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        // Sequence numbers must not be guessable (RFC 9293, 3.4.1).
        config.random_seed = rand::random();
        let mut interface = Interface::new(config, &mut wires, time::Instant::ZERO);
        let v4 = network.v4.map(|of| (IpAddr::V4(of.gateway), of.prefix));
        let v6 = network.v6.map(|of| (IpAddr::V6(of.gateway), of.prefix));
        interface.update_ip_addrs(|addresses| {
            for (gateway, prefix) in v4.into_iter().chain(v6) {
                let pushed = addresses.push(IpCidr::new(gateway.into(), prefix));
                pushed.expect("there is room for one of each family");
            }
        });
        let mut sockets = SocketSet::new(Vec::new());
        let connections = (0..CONNECTIONS).map(|_| {
            let buffer = |bytes| SocketBuffer::new(vec![0; bytes]);
            let mut socket = Socket::new(buffer(RECEIVE_BYTES), buffer(SEND_BYTES));
            socket.set_ack_delay(None);
            socket.set_nagle_enabled(false);
            listen(&mut socket);
            Connection {
                socket: sockets.add(socket),
                generation: 0,
                read: Vec::new(),
                waiting: VecDeque::new(),
                under_way: 0,
                last: now,
            }
        });
        let connections = connections.collect();
        Stack {
            interface,
            wires,
            sockets,
            connections,
            started: now,
        }
    }

    /// An IP packet comes in.
    pub(crate) fn receive(&mut self, packet: &[u8]) {
        self.wires.inward.push_back(packet.to_vec());
    }

    /// An answer to a query; it is left if the connection has ended.
    pub(crate) fn answer(&mut self, (place, generation): (usize, u64), answer: &[u8]) {
        let connection = self.connections.get_mut(place);
        let Some(connection) = connection.filter(|of| of.generation == generation) else {
            return;
        };
        connection.under_way -= 1;
        if let Ok(length) = u16::try_from(answer.len()) {
            connection.waiting.extend(length.to_be_bytes());
            connection.waiting.extend(answer);
        }
    }

    /// Does all that can be done now: returns the queries that came and the IP packets to be sent.
    pub(crate) fn poll(&mut self, now: Instant) -> (Vec<Asked>, Vec<Vec<u8>>) {
        let mut asked = Vec::new();
        self.turn(now);
        for place in 0..self.connections.len() {
            self.serve(place, now, &mut asked);
        }
        self.turn(now);
        (asked, std::mem::take(&mut self.wires.outward))
    }

    /// How long until there is something to do though nothing comes; `None` when there will not be.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let timestamp = self.time(now);
        let retransmission = self.interface.poll_delay(timestamp, &self.sockets);
        let idle = (!self.is_idle()).then_some(IDLE);
        retransmission
            .map(Duration::from)
            .into_iter()
            .chain(idle)
            .min()
    }

    /// Whether there is no connection.
    pub(crate) fn is_idle(&self) -> bool {
        let mut sockets = self.connections.iter().map(|of| of.socket);
        sockets.all(|handle| self.sockets.get::<Socket<'_>>(handle).is_listening())
    }

    fn turn(&mut self, now: Instant) {
        let timestamp = self.time(now);
        self.interface
            .poll(timestamp, &mut self.wires, &mut self.sockets);
    }

    fn time(&self, now: Instant) -> time::Instant {
        time::Instant::ZERO + now.saturating_duration_since(self.started).into()
    }

    fn serve(&mut self, place: usize, now: Instant, asked: &mut Vec<Asked>) {
        let connection = &mut self.connections[place];
        let socket = self.sockets.get_mut::<Socket<'_>>(connection.socket);
        if !socket.is_open() {
            connection.generation += 1;
            connection.read.clear();
            connection.waiting.clear();
            connection.under_way = 0;
            listen(socket);
            return;
        }
        if socket.is_listening() {
            connection.last = now;
            return;
        }
        let moved = connection.read_queries(place, socket, asked) | connection.send_answers(socket);
        if moved {
            connection.last = now;
        }
        let is_done = connection.under_way == 0 && connection.waiting.is_empty();
        let idle = now.saturating_duration_since(connection.last);
        if connection.read.len() > QUERY_BYTES_MAX
            || connection.waiting.len() > WAITING_BYTES_MAX
            || idle >= 2 * IDLE
        {
            socket.abort();
        } else if is_done && socket.may_send() && (!socket.may_recv() || idle >= IDLE) {
            socket.close();
        }
    }
}

impl Connection {
    /// Reads what came; returns whether anything did.
    fn read_queries(
        &mut self,
        place: usize,
        socket: &mut Socket<'static>,
        asked: &mut Vec<Asked>,
    ) -> bool {
        let mut has_read = false;
        while self.under_way < UNDER_WAY_MAX {
            if let Some(query) = self.take_query() {
                self.under_way += 1;
                let connection = (place, self.generation);
                asked.push(Asked { connection, query });
            } else if self.read.len() <= QUERY_BYTES_MAX && socket.can_recv() {
                let mut buffer = [0; RECEIVE_BYTES];
                let length = socket.recv_slice(&mut buffer).unwrap_or(0);
                self.read.extend(&buffer[..length]);
                has_read = true;
            } else {
                break;
            }
        }
        has_read
    }

    /// The first whole query that was read (RFC 1035, 4.2.2).
    fn take_query(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.read.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let query = rest.get(..length)?.to_vec();
        self.read.drain(..2 + length);
        Some(query)
    }

    /// Sends what there is room for; returns whether anything was.
    fn send_answers(&mut self, socket: &mut Socket<'static>) -> bool {
        let mut has_sent = false;
        while socket.can_send() && !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            let Ok(length) = socket.send_slice(first) else {
                break;
            };
            self.waiting.drain(..length);
            has_sent = true;
        }
        has_sent
    }
}

fn listen(socket: &mut Socket<'_>) {
    let listening = socket.listen(DNS_PORT);
    listening.expect("it is closed, and the port is not zero");
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
        capabilities.max_transmission_unit = self.mtu;
        // A workload on the same machine may leave its checksums to a network card.
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
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
