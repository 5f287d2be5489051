//! A peer and its tunnels: one WireGuard tunnel for each pair of keys that is in force.
//!
//! ```text
//!   this node's keys      peer's keys
//!   older   newer    x    older   newer        up to four tunnels while both rotate, else one
//! ```
//!
//! Packets are accepted from any of them and sent by the newest that has a session. So a new key
//! takes over when its handshake is done, and nothing is lost: until then the older tunnel carries
//! on, and what is still under way in it is let in for as long as the older key is in force.

use std::net::{Ipv4Addr, SocketAddr};

use boringtun::noise::{Tunn, TunnResult};
use sunwire_api::PublicKey;

use super::{packet, slot};

/// Bytes that encryption adds: header and tag of a WireGuard data message (WireGuard, 5.4.6).
pub(super) const OVERHEAD_BYTES: usize = 32;
/// The shortest buffer the library wants: a handshake initiation.
pub(super) const MESSAGE_BYTES_MIN: usize = 148;
/// How often an idle tunnel says that it is there, so that address translations on the way stay
/// and both ends know whether it is up.
const KEEPALIVE_S: u16 = 25;

/// A tunnel for one pair of keys.
pub(super) struct Tunnel {
    /// This node's key.
    pub(super) own: PublicKey,
    /// The peer's key.
    pub(super) theirs: PublicKey,
    /// What the sessions' indices begin with.
    pub(super) index: u32,
    /// Where datagrams go.
    pub(super) endpoint: SocketAddr,
    /// Bytes received and let in.
    pub(super) received_bytes: u64,
    tunn: Tunn,
}

/// A peer. Whoever sends to it or receives from it holds it exclusively meanwhile.
pub(super) struct PeerState {
    /// Its number.
    pub(super) node: u32,
    /// Its address on the underlay.
    pub(super) address: Ipv4Addr,
    /// Where it is expected with a key in slot 0; tunnels' endpoints may be elsewhere.
    pub(super) configured: SocketAddr,
    /// The newest pair of keys first.
    pub(super) tunnels: Vec<Tunnel>,
    pub(super) counters: Counters,
}

/// What is counted of a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) handshakes: u64,
    pub(super) sent_packets: u64,
    pub(super) sent_bytes: u64,
    pub(super) received_packets: u64,
    pub(super) received_bytes: u64,
    pub(super) decrypt_errors: u64,
    pub(super) unsent_packets: u64,
    pub(super) wrong_key: u64,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A packet for the device: this many bytes at the beginning of the buffer.
    Packet(usize),
    /// An answer to where it came from: this many bytes at the beginning of the buffer. Packets
    /// that waited may follow; see [`PeerState::waiting`].
    Answer(usize),
    /// Nothing more to do.
    Nothing,
}

impl Tunnel {
    pub(super) fn new(
        own: &super::table::OwnIdentity,
        theirs: PublicKey,
        index: u32,
        configured: SocketAddr,
    ) -> Self {
        let tunn = Tunn::new(
            own.secret.clone(),
            boringtun::x25519::PublicKey::from(theirs.0),
            None,
            Some(KEEPALIVE_S),
            index,
            Some(std::sync::Arc::clone(&own.limiter)),
        );
        Tunnel {
            own: own.public,
            theirs,
            index,
            endpoint: expected(configured, &theirs),
            received_bytes: 0,
            tunn,
        }
    }

    /// It is expected at its port of a node whose usual one is `configured`.
    pub(super) fn expect(&mut self, configured: SocketAddr) {
        self.endpoint = expected(configured, &self.theirs);
    }

    /// Seconds since the handshake of the session that packets are sent by.
    pub(super) fn handshake_age_s(&self) -> Option<f64> {
        let age = self.tunn.time_since_last_handshake();
        age.map(|age| age.as_secs_f64())
    }
}

impl PeerState {
    pub(super) fn new(node: u32, address: Ipv4Addr, configured: SocketAddr) -> Self {
        PeerState {
            node,
            address,
            configured,
            tunnels: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The tunnel that packets are sent by: the newest with a session, else the newest.
    fn sending(&mut self) -> Option<&mut Tunnel> {
        let up = self
            .tunnels
            .iter()
            .position(|tunnel| tunnel.tunn.time_since_last_handshake().is_some());
        self.tunnels.get_mut(up.unwrap_or(0))
    }

    /// How packets are sent now; `None` without any keys.
    pub(super) fn way(&mut self, own_node: u32) -> Option<Way> {
        let node = self.node;
        let tunnel = self.sending()?;
        Some(Way {
            slot: usize::from(slot::of(&tunnel.own)),
            endpoint: tunnel.endpoint,
            source: slot::address(own_node, &tunnel.own),
            destination: slot::address(node, &tunnel.theirs),
        })
    }

    /// Where packets are sent now, or are expected to be.
    pub(super) fn endpoint(&self) -> SocketAddr {
        let is_up = |tunnel: &&Tunnel| tunnel.handshake_age_s().is_some();
        let tunnel = self.tunnels.iter().find(is_up).or(self.tunnels.first());
        tunnel.map_or(self.configured, |tunnel| tunnel.endpoint)
    }

    /// A packet was to be sent, and there are no keys.
    pub(super) fn count_unsent(&mut self) {
        self.counters.sent_packets += 1;
        self.counters.unsent_packets += 1;
    }

    /// Encrypts a packet to the end of `out`. A packet that finds no session waits, as long as
    /// there is room, and a handshake begins: the message to send is then another one, or none.
    pub(super) fn encrypt(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        self.counters.sent_packets += 1;
        self.counters.sent_bytes += packet.len() as u64;
        let start = out.len();
        let room = (packet.len() + OVERHEAD_BYTES).max(MESSAGE_BYTES_MIN);
        out.resize(start + room, 0);
        let mut has_session = false;
        let mut written = 0;
        if let Some(tunnel) = self.sending() {
            has_session = tunnel.handshake_age_s().is_some();
            if let TunnResult::WriteToNetwork(message) =
                tunnel.tunn.encapsulate(packet, &mut out[start..])
            {
                written = message.len();
            }
        }
        self.counters.unsent_packets += u64::from(!has_session);
        out.truncate(start + written);
        (written > 0).then_some(written)
    }

    /// Takes a datagram that names the tunnel with `index`, or is a handshake for the tunnel with
    /// these keys.
    pub(super) fn decrypt(
        &mut self,
        which: Which,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Received {
        let found = self.tunnels.iter_mut().find(|tunnel| match which {
            Which::Index(index) => tunnel.index == index,
            Which::Keys(own, theirs) => tunnel.own == own && tunnel.theirs == theirs,
        });
        let Some(tunnel) = found else {
            return Received::Nothing;
        };
        let is_handshake = datagram
            .first()
            .is_some_and(|kind| *kind == 1 || *kind == 2);
        let address = from.ip();
        let result = tunnel.tunn.decapsulate(Some(address), datagram, buffer);
        let received = match result {
            TunnResult::Done => Received::Nothing,
            TunnResult::Err(error) => {
                tracing::debug!(peer = %self.address, ?error, "a datagram was refused");
                self.counters.decrypt_errors += 1;
                return Received::Nothing;
            }
            // A cookie under load tells nothing of the sender.
            TunnResult::WriteToNetwork([3, rest @ ..]) => return Received::Answer(1 + rest.len()),
            TunnResult::WriteToNetwork(message) => Received::Answer(message.len()),
            TunnResult::WriteToTunnelV4(inner, _) => {
                // A peer speaks for itself alone, and of nothing but VXLAN.
                let own_address = slot::address(self.node, &tunnel.theirs);
                let is_its_own =
                    packet::tunnelled(inner).is_some_and(|(source, _)| source == own_address);
                if !is_its_own {
                    self.counters.decrypt_errors += 1;
                    return Received::Nothing;
                }
                self.counters.received_packets += 1;
                self.counters.received_bytes += inner.len() as u64;
                tunnel.received_bytes += inner.len() as u64;
                Received::Packet(inner.len())
            }
            TunnResult::WriteToTunnelV6(..) => {
                self.counters.decrypt_errors += 1;
                return Received::Nothing;
            }
        };
        if is_handshake && matches!(received, Received::Answer(_)) {
            self.counters.handshakes += 1;
        }
        // Authenticated: from here it is reached where it spoke from.
        tunnel.endpoint = from;
        received
    }

    /// Encrypts the next packet that waited for a session; to be called after an answer until
    /// there are no more.
    pub(super) fn waiting(&mut self, which: Which, buffer: &mut [u8]) -> Option<usize> {
        let found = self.tunnels.iter_mut().find(|tunnel| match which {
            Which::Index(index) => tunnel.index == index,
            Which::Keys(own, theirs) => tunnel.own == own && tunnel.theirs == theirs,
        });
        match found?.tunn.decapsulate(None, &[], buffer) {
            TunnResult::WriteToNetwork(message) => {
                self.counters.unsent_packets = self.counters.unsent_packets.saturating_sub(1);
                Some(message.len())
            }
            _ => None,
        }
    }

    /// What the timers of the tunnels want sent now; `send` gets each message.
    pub(super) fn tick(
        &mut self,
        buffer: &mut [u8],
        mut send: impl FnMut(usize, SocketAddr, &[u8]),
    ) {
        for tunnel in &mut self.tunnels {
            let result = tunnel.tunn.update_timers(buffer);
            let result = match result {
                // It gave up after 90 seconds. We do not: the peer may come back at any time.
                TunnResult::Err(_) => tunnel.tunn.format_handshake_initiation(buffer, false),
                result => result,
            };
            if let TunnResult::WriteToNetwork(message) = result {
                let slot = usize::from(slot::of(&tunnel.own));
                send(slot, tunnel.endpoint, message);
            }
        }
    }

    /// Begins the handshake of a tunnel that is new.
    pub(super) fn begin(
        &mut self,
        index: u32,
        buffer: &mut [u8],
        mut send: impl FnMut(usize, SocketAddr, &[u8]),
    ) {
        for tunnel in self.tunnels.iter_mut().filter(|t| t.index == index) {
            if let TunnResult::WriteToNetwork(message) =
                tunnel.tunn.format_handshake_initiation(buffer, false)
            {
                let slot = usize::from(slot::of(&tunnel.own));
                send(slot, tunnel.endpoint, message);
            }
        }
    }
}

/// Where a node whose usual port is `configured` is reached with a key.
fn expected(configured: SocketAddr, key: &PublicKey) -> SocketAddr {
    SocketAddr::new(configured.ip(), slot::port(configured.port(), key))
}

/// How packets are sent by a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// By which of the sockets.
    pub(super) slot: usize,
    /// Where datagrams go.
    pub(super) endpoint: SocketAddr,
    /// This node's address within the tunnel.
    pub(super) source: Ipv4Addr,
    /// The peer's.
    pub(super) destination: Ipv4Addr,
}

/// Which tunnel of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// By the beginning of its sessions' indices.
    Index(u32),
    /// By its keys, this node's first.
    Keys(PublicKey, PublicKey),
}
