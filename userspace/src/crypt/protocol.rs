//! What the agent and the process that encrypts say to each other, one JSON object a line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use sunwire_api::PublicKey;

use super::key::PrivateKey;

/// Rises with every change that an older process would not understand.
pub const VERSION: u32 = 3;

/// What the agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Have these keys and peers from now on. Tunnels that are in both stay as they are.
    Configure(Configuration),
    /// Tell how tunnels are.
    Status,
    /// End.
    End,
}

/// What the process answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Configure`] and [`Request::End`].
    Done,
    /// To [`Request::Status`].
    Status(Status),
    /// The request was not understood.
    Refused {
        /// Why.
        reason: String,
    },
}

/// Keys and peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// This node's number.
    pub node: u32,
    /// This node's address on the underlay.
    pub address: Ipv4Addr,
    /// This node's keys, the oldest first.
    pub private_keys: Vec<PrivateKey>,
    /// The other nodes.
    pub peers: Vec<Peer>,
}

/// A node that tunnels lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its number.
    pub node: u32,
    /// What it is called within tunnels of ours: its IPv4 address on the underlay, if it has one.
    pub address: Ipv4Addr,
    /// Its address on the underlay, until it is heard from elsewhere.
    pub underlay: IpAddr,
    /// Its UDP port of keys in slot 0 (see [`slot`](super::slot)), until it is heard from elsewhere.
    pub port: u16,
    /// Its keys, the oldest first.
    pub keys: Vec<PublicKey>,
}

/// How the process and its tunnels are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`] of the process.
    pub version: u32,
    /// Version of its program.
    pub program: String,
    /// Name of its device.
    pub device: String,
    /// UDP port on which it listens.
    pub port: u16,
    /// By peer.
    pub peers: Vec<PeerStatus>,
    /// What came in and was not let in.
    pub refused: Refused,
    /// Packets that were to be encrypted and could not be sent, of those that nobody counts by
    /// peer: the kernel's WireGuard counts them by device.
    #[serde(default)]
    pub unsent_packets: u64,
    /// Packets that the device handed over and that are to no peer, or malformed.
    pub unroutable_packets: u64,
}

/// Datagrams that were not let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// No WireGuard message.
    pub malformed: u64,
    /// Handshakes made for a key that this node does not have.
    pub not_for_us: u64,
    /// Handshakes with a key that no known node has.
    pub unknown_key: u64,
    /// Of a session that there is not any more, or never was.
    pub no_session: u64,
}

/// How the tunnel to a peer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Address of the peer.
    pub address: Ipv4Addr,
    /// From where it was last heard, or is expected.
    pub endpoint: SocketAddr,
    /// Seconds since the handshake of the session that packets are sent by; `None`: there is none.
    pub handshake_age_s: Option<f64>,
    /// Keys of that session, this node's and the peer's; of the newest pair while there is none.
    pub keys: Option<(PublicKey, PublicKey)>,
    /// Pairs of keys for which there is a session.
    pub sessions: Vec<(PublicKey, PublicKey)>,
    /// Bytes received by each pair of keys.
    #[serde(default)]
    pub received_by: Vec<(PublicKey, PublicKey, u64)>,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Packets and bytes sent, as they were before encryption.
    pub sent_packets: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Packets and bytes received and let in, after decryption.
    pub received_packets: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Packets that did not decrypt, were replayed, or claimed another source.
    pub decrypt_errors: u64,
    /// Packets that found no session and were not sent later either: a few wait for one, the rest
    /// are given up.
    pub unsent_packets: u64,
    /// Handshakes from this peer's address that were for another key than this node's.
    pub wrong_key: u64,
    /// The last error when sending to it.
    pub send_error: Option<String>,
}
