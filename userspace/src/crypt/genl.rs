//! What the kernel's WireGuard is asked and told, by generic netlink (Linux
//! `include/uapi/linux/wireguard.h`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::StreamExt as _;
use genetlink::{GenetlinkError, GenetlinkHandle};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};
use sunwire_api::PublicKey;

/// Peers in one message; an attribute has at most 64 KiB, and each takes some hundred bytes.
const PEERS_MAX: usize = 64;
/// How often an idle tunnel says that it is there.
const KEEPALIVE_S: u16 = 25;

/// An open connection to it. Ends when it is dropped.
pub(super) struct Genl {
    handle: GenetlinkHandle,
    connection: tokio::task::JoinHandle<()>,
}

/// A peer as the kernel tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) key: PublicKey,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) allowed: Vec<IpAddr>,
    /// Unix time; `None` when there was none.
    pub(super) handshake_at: Option<Duration>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

/// What is to become of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It is there, with this address and no other.
    Peer {
        key: PublicKey,
        /// Stays where it was heard from when absent.
        endpoint: Option<SocketAddr>,
        address: Ipv4Addr,
    },
    /// It is not there.
    Gone(PublicKey),
}

impl Drop for Genl {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Genl {
    /// Asks for WireGuard.
    ///
    /// # Errors
    /// When the kernel has none.
    pub(super) async fn open() -> io::Result<Self> {
        let (connection, handle, _) = genetlink::new_connection()?;
        let genl = Genl {
            handle,
            connection: tokio::spawn(connection),
        };
        let asked = genl.handle.resolve_family::<WireguardMessage>().await;
        asked.map(|_| genl).map_err(into_io)
    }

    /// Gives a device its private key and its port. One that has them keeps its sessions.
    pub(super) async fn set_key(&self, device: &str, key: [u8; 32], port: u16) -> io::Result<()> {
        self.set(
            device,
            vec![
                WireguardAttribute::PrivateKey(clamped(key)),
                WireguardAttribute::ListenPort(port),
            ],
        )
        .await
    }

    /// Changes some peers of a device; the others stay.
    pub(super) async fn change(&self, device: &str, changes: &[Wanted]) -> io::Result<()> {
        self.set_each(device, changes.iter().map(peer).collect())
            .await
    }

    /// Has handshakes begin with these peers, if the device has them.
    pub(super) async fn nudge(&self, device: &str, keys: &[PublicKey]) -> io::Result<()> {
        for interval_s in [0, KEEPALIVE_S] {
            let peers = keys.iter().map(|key| {
                WireguardPeer(vec![
                    WireguardPeerAttribute::PublicKey(key.0),
                    WireguardPeerAttribute::Flags(WireguardPeerFlags::UpdateOnly),
                    WireguardPeerAttribute::PersistentKeepalive(interval_s),
                ])
            });
            self.set_each(device, peers.collect()).await?;
        }
        Ok(())
    }

    /// The peers of a device.
    pub(super) async fn peers(&self, device: &str) -> io::Result<Vec<Known>> {
        let attributes = vec![WireguardAttribute::IfName(device.to_owned())];
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let answers = self.ask(WireguardCmd::GetDevice, attributes, flags).await?;
        let mut known: Vec<Known> = Vec::new();
        for attribute in answers {
            let WireguardAttribute::Peers(peers) = attribute else {
                continue;
            };
            for peer in peers.iter().filter_map(read) {
                // A peer whose addresses do not fit one message goes on in the next.
                match known.last_mut().filter(|last| last.key == peer.key) {
                    Some(last) => last.allowed.extend(peer.allowed),
                    None => known.push(peer),
                }
            }
        }
        Ok(known)
    }

    async fn set_each(&self, device: &str, peers: Vec<WireguardPeer>) -> io::Result<()> {
        for peers in peers.chunks(PEERS_MAX) {
            let attributes = vec![WireguardAttribute::Peers(peers.to_vec())];
            self.set(device, attributes).await?;
        }
        Ok(())
    }

    async fn set(&self, device: &str, mut attributes: Vec<WireguardAttribute>) -> io::Result<()> {
        attributes.insert(0, WireguardAttribute::IfName(device.to_owned()));
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        let answered = self.ask(WireguardCmd::SetDevice, attributes, flags).await;
        answered.map(drop)
    }

    async fn ask(
        &self,
        cmd: WireguardCmd,
        attributes: Vec<WireguardAttribute>,
        flags: u16,
    ) -> io::Result<Vec<WireguardAttribute>> {
        let message = GenlMessage::from_payload(WireguardMessage { cmd, attributes });
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        let mut handle = self.handle.clone();
        let mut answers = handle.request(message).await.map_err(into_io)?;
        let mut all = Vec::new();
        while let Some(answer) = answers.next().await {
            let answer = answer.map_err(io::Error::other)?;
            match answer.payload {
                NetlinkPayload::InnerMessage(message) => all.extend(message.payload.attributes),
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                _ => {}
            }
        }
        Ok(all)
    }
}

/// A private key as the kernel keeps it (RFC 7748, 5). It takes any other form of the same key for another
/// key, and with another key sessions send nothing more.
fn clamped(mut key: [u8; 32]) -> [u8; 32] {
    key[0] &= 0b1111_1000;
    key[31] &= 0b0111_1111;
    key[31] |= 0b0100_0000;
    key
}

fn peer(wanted: &Wanted) -> WireguardPeer {
    let (key, endpoint, address) = match wanted {
        Wanted::Peer {
            key,
            endpoint,
            address,
        } => (key, endpoint, address),
        Wanted::Gone(key) => {
            return WireguardPeer(vec![
                WireguardPeerAttribute::PublicKey(key.0),
                WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
            ]);
        }
    };
    let mut attributes = vec![
        WireguardPeerAttribute::PublicKey(key.0),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
    ];
    if let Some(endpoint) = endpoint {
        attributes.push(WireguardPeerAttribute::Endpoint(*endpoint));
    }
    attributes.extend([
        WireguardPeerAttribute::AllowedIps(vec![WireguardAllowedIp(vec![
            WireguardAllowedIpAttr::Family(WireguardAddressFamily::Ipv4),
            WireguardAllowedIpAttr::IpAddr(IpAddr::V4(*address)),
            WireguardAllowedIpAttr::Cidr(32),
        ])]),
        // With it the kernel begins the handshake at once.
        WireguardPeerAttribute::PersistentKeepalive(KEEPALIVE_S),
    ]);
    WireguardPeer(attributes)
}

fn read(peer: &WireguardPeer) -> Option<Known> {
    let mut known = Known {
        key: PublicKey([0; 32]),
        endpoint: None,
        allowed: Vec::new(),
        handshake_at: None,
        sent_bytes: 0,
        received_bytes: 0,
    };
    let mut has_key = false;
    for attribute in &peer.0 {
        match attribute {
            WireguardPeerAttribute::PublicKey(key) => {
                known.key = PublicKey(*key);
                has_key = true;
            }
            WireguardPeerAttribute::Endpoint(endpoint) => known.endpoint = Some(*endpoint),
            WireguardPeerAttribute::LastHandshake(at) => {
                let seconds = u64::try_from(at.seconds).unwrap_or(0);
                let nanoseconds = u32::try_from(at.nano_seconds).unwrap_or(0);
                let at = Duration::new(seconds, nanoseconds);
                known.handshake_at = (!at.is_zero()).then_some(at);
            }
            WireguardPeerAttribute::TxBytes(bytes) => known.sent_bytes = *bytes,
            WireguardPeerAttribute::RxBytes(bytes) => known.received_bytes = *bytes,
            WireguardPeerAttribute::AllowedIps(allowed) => {
                let addresses = allowed.iter().flat_map(|allowed| &allowed.0);
                known.allowed = addresses
                    .filter_map(|attribute| match attribute {
                        WireguardAllowedIpAttr::IpAddr(address) => Some(*address),
                        _ => None,
                    })
                    .collect();
            }
            _ => {}
        }
    }
    has_key.then_some(known)
}

fn into_io(error: GenetlinkError) -> io::Error {
    match error {
        GenetlinkError::NetlinkError(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::clamped;
    use crate::crypt::key::PrivateKey;

    #[test]
    fn a_private_key_is_the_same_one_as_the_kernel_keeps_it() {
        for _ in 0..20 {
            let key = PrivateKey::generate();
            let kept = clamped(key.to_bytes());
            assert_eq!(clamped(kept), kept);
            let kept = boringtun::x25519::StaticSecret::from(kept);
            let public = boringtun::x25519::PublicKey::from(&kept);
            assert_eq!(public.to_bytes(), key.public().0);
        }
    }
}
