//! Who a packet or a datagram belongs to: peers by address, tunnels by index, handshakes by key.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use boringtun::{
    noise::{
        Packet, Tunn, TunnResult, errors::WireGuardError, handshake::parse_handshake_anon,
        rate_limiter::RateLimiter,
    },
    x25519,
};
use sunwire_api::PublicKey;

use super::{
    peer::{PeerState, Tunnel, Which},
    protocol::Configuration,
};

/// Handshakes a second, for each key of this node, that are answered without asking the sender to
/// prove its address. The library counts each twice on its way here.
const HANDSHAKES_PER_S: u64 = 2 * 200;
/// Indices have 24 bits beside the library's 8.
const INDEX_MASK: u32 = 0x00ff_ffff;

/// One of this node's keys.
pub(super) struct OwnIdentity {
    pub(super) secret: x25519::StaticSecret,
    pub(super) public: PublicKey,
    pub(super) limiter: Arc<RateLimiter>,
}

/// A peer, shared by the threads.
pub(super) struct Peer {
    state: Mutex<PeerState>,
}

impl Peer {
    pub(super) fn lock(&self) -> MutexGuard<'_, PeerState> {
        // What a panic left is a peer like any other: each call leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything configured. Replaced whole; peers that stay are shared by the old and the new.
#[derive(Default)]
pub(super) struct Table {
    own: Vec<Arc<OwnIdentity>>,
    by_address: HashMap<Ipv4Addr, Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    by_key: HashMap<PublicKey, Arc<Peer>>,
    last_index: u32,
    /// This node's number and address.
    pub(super) node: u32,
    pub(super) address: Option<Ipv4Addr>,
}

/// Why a datagram was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    Malformed,
    NotForUs,
    StrangeKey,
    NoSession,
}

/// Whose a datagram is.
pub(super) enum Owner<'t> {
    Peer(&'t Arc<Peer>, Which),
    /// Under load, the sender is asked to prove its address first: so many bytes at the beginning
    /// of the buffer go back to it.
    Cookie(usize),
}

impl Table {
    /// The table of a configuration, and the tunnels in it that are new. What `self` has already
    /// goes on: sessions, counters, and where peers were heard.
    pub(super) fn with(&self, configuration: &Configuration) -> (Table, Vec<(Arc<Peer>, u32)>) {
        let own: Vec<Arc<OwnIdentity>> = configuration
            .private_keys
            .iter()
            .map(|key| {
                let public = key.public();
                let known = self.own.iter().find(|own| own.public == public);
                known.map_or_else(
                    || {
                        let secret = key.secret();
                        let theirs = x25519::PublicKey::from(&secret);
                        Arc::new(OwnIdentity {
                            public,
                            limiter: Arc::new(RateLimiter::new(&theirs, HANDSHAKES_PER_S)),
                            secret,
                        })
                    },
                    Arc::clone,
                )
            })
            .collect();
        let mut table = Table {
            own,
            last_index: self.last_index,
            node: configuration.node,
            address: Some(configuration.address),
            ..Table::default()
        };
        let mut begun = Vec::new();
        for wanted in &configuration.peers {
            let configured = SocketAddr::new(wanted.underlay, wanted.port);
            let peer = self.by_address.get(&wanted.address).map_or_else(
                || {
                    let state = Mutex::new(PeerState::new(wanted.node, wanted.address, configured));
                    Arc::new(Peer { state })
                },
                Arc::clone,
            );
            let mut state = peer.lock();
            state.node = wanted.node;
            if state.configured != configured {
                state.configured = configured;
                for tunnel in &mut state.tunnels {
                    tunnel.expect(configured);
                }
            }
            let mut before = std::mem::take(&mut state.tunnels);
            // The newest pair first.
            for own in table.own.iter().rev() {
                for theirs in wanted.keys.iter().rev() {
                    let known = before
                        .iter()
                        .position(|tunnel| tunnel.own == own.public && tunnel.theirs == *theirs);
                    let tunnel = match known {
                        Some(at) => before.swap_remove(at),
                        None => {
                            table.last_index = (table.last_index + 1) & INDEX_MASK;
                            begun.push((Arc::clone(&peer), table.last_index));
                            Tunnel::new(own, *theirs, table.last_index, configured)
                        }
                    };
                    table.by_index.insert(tunnel.index, Arc::clone(&peer));
                    state.tunnels.push(tunnel);
                }
            }
            for key in &wanted.keys {
                table.by_key.insert(*key, Arc::clone(&peer));
            }
            drop(state);
            table.by_address.insert(wanted.address, peer);
        }
        (table, begun)
    }

    /// The peer with an address.
    pub(super) fn peer(&self, address: Ipv4Addr) -> Option<&Arc<Peer>> {
        self.by_address.get(&address)
    }

    /// The peer that is expected at an address on the underlay.
    pub(super) fn peer_at(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.peers()
            .find(|peer| peer.lock().configured.ip() == address)
    }

    /// Every peer.
    pub(super) fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.by_address.values()
    }

    /// To be called once a second: counts of handshakes begin anew.
    pub(super) fn reset_limits(&self) {
        for own in &self.own {
            own.limiter.reset_count();
        }
    }

    /// Whose a datagram from `from` is.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub(super) fn owner(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Result<Owner<'_>, Unknown> {
        let packet = Tunn::parse_incoming_packet(datagram).map_err(|_| Unknown::Malformed)?;
        let index = match packet {
            Packet::HandshakeInit(_) => return self.initiator(from, datagram, buffer),
            Packet::HandshakeResponse(message) => message.receiver_idx,
            Packet::PacketCookieReply(message) => message.receiver_idx,
            Packet::PacketData(message) => message.receiver_idx,
        };
        let index = index >> 8;
        let peer = self.by_index.get(&index).ok_or(Unknown::NoSession)?;
        Ok(Owner::Peer(peer, Which::Index(index)))
    }

    fn initiator(
        &self,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Result<Owner<'_>, Unknown> {
        for own in &self.own {
            let address = from.ip();
            // Cheap, and before anything that is not: whether it is made for this key.
            let packet = match own.limiter.verify_packet(Some(address), datagram, buffer) {
                Ok(packet) => packet,
                Err(TunnResult::WriteToNetwork(cookie)) => return Ok(Owner::Cookie(cookie.len())),
                Err(TunnResult::Err(WireGuardError::InvalidMac)) => continue,
                Err(_) => return Err(Unknown::Malformed),
            };
            let Packet::HandshakeInit(message) = packet else {
                return Err(Unknown::Malformed);
            };
            let public = x25519::PublicKey::from(own.public.0);
            let half = parse_handshake_anon(&own.secret, &public, &message)
                .map_err(|_| Unknown::Malformed)?;
            let theirs = PublicKey(half.peer_static_public);
            let peer = self.by_key.get(&theirs).ok_or(Unknown::StrangeKey)?;
            return Ok(Owner::Peer(peer, Which::Keys(own.public, theirs)));
        }
        Err(Unknown::NotForUs)
    }
}
