//! The agent's side of encryption: this node's keys, what encrypts (the kernel's WireGuard or a
//! process), and how tunnels are.
//!
//! What cannot be encrypted is not sent: without the process, a key or a session, packets that have
//! to be encrypted are dropped and counted, and [`Keeper::tunnels`] says why.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use rtnetlink::Handle;
use sunwire_api::{PublicKey, agent as wire};

use super::{
    kernel::{KernelWireguard, Way},
    key::{self, KeyError, KeyRing},
    protocol::{Configuration, PeerStatus, Status},
    resolve,
    rotation::{Rotation, Step},
    supervisor::Supervisor,
};
use crate::{
    dataplane::chain,
    netlink::NetlinkError,
    state::{Desired, Node},
};

/// How a node encrypts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// UDP port on which encrypted packets are received.
    pub port: u16,
    /// Age at which a key is replaced.
    pub key_lifetime: Duration,
    /// Whose WireGuard.
    pub wireguard: Choice,
}

/// Whose WireGuard is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The kernel's where it has one, else a process's.
    Auto,
    /// The kernel's or none.
    Kernel,
    /// A process's.
    #[default]
    User,
}

/// Whose WireGuard is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The kernel's.
    Kernel,
    /// A process's.
    User,
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Backend::Kernel => "kernel",
            Backend::User => "user",
        })
    }
}

/// Keeps keys and tunnels.
#[derive(Debug)]
pub struct Keeper {
    directory: PathBuf,
    settings: Settings,
    ring: KeyRing,
    rotation: Rotation,
    supervisor: Supervisor,
    kernel: KernelWireguard,
    /// `None` until it was asked for the first time.
    backend: Option<Backend>,
    status: Option<Status>,
    /// Why there is no process that encrypts although there should be.
    failure: Option<String>,
}

impl Keeper {
    /// Takes over what is kept in a state directory, keys and perhaps a process.
    ///
    /// # Errors
    /// When the keys cannot be used.
    pub fn open(directory: &Path, settings: Settings) -> Result<Self, KeyError> {
        Ok(Keeper {
            directory: directory.to_owned(),
            ring: KeyRing::open(directory)?,
            rotation: Rotation::default(),
            supervisor: Supervisor::new(directory, settings.port),
            kernel: KernelWireguard::new(settings.port),
            backend: None,
            settings,
            status: None,
            failure: None,
        })
    }

    /// This node's public keys, the oldest first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        self.ring.public()
    }

    /// UDP port on which encrypted packets are received.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// A local caller wants a new key.
    pub fn rotate(&mut self) {
        self.rotation.ask();
    }

    /// Whose WireGuard is used; `None` before anything had to be encrypted.
    #[must_use]
    pub fn backend(&self) -> Option<Backend> {
        self.backend
    }

    /// Devices of the kernel's WireGuard, with their slots.
    pub fn kernel_devices(&self) -> Vec<(usize, u32)> {
        self.kernel.devices().collect()
    }

    /// How packets are sent by the kernel's WireGuard, by number of the node.
    #[must_use]
    pub fn ways(&self) -> &BTreeMap<u32, Way> {
        self.kernel.ways()
    }

    /// Sets the devices of the kernel's WireGuard up, once our program is attached to them.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn set_up(&self, handle: &Handle) -> Result<(), NetlinkError> {
        self.kernel.set_up(handle).await
    }

    /// Packets that were to be encrypted and could not be sent, of those that no tunnel counts.
    #[must_use]
    pub fn unsent_packets(&self) -> u64 {
        self.status
            .as_ref()
            .map_or(0, |status| status.unsent_packets)
    }

    /// Finds out whose WireGuard to use, and ends what an earlier agent used instead: both would
    /// want the same ports.
    async fn choose(&mut self, handle: &Handle) -> Result<Backend, String> {
        if let Some(backend) = self.backend {
            return Ok(backend);
        }
        let offered = match self.settings.wireguard {
            Choice::User => None,
            Choice::Kernel | Choice::Auto => Some(KernelWireguard::offered().await),
        };
        let backend = match offered {
            Some(Ok(())) => Backend::Kernel,
            Some(Err(error)) if self.settings.wireguard == Choice::Kernel => {
                return Err(chain(&error));
            }
            Some(Err(_)) | None => Backend::User,
        };
        match backend {
            Backend::Kernel => {
                let ended = self.supervisor.ensure(None).await;
                ended.map_err(|error| chain(&error))?;
            }
            Backend::User => {
                let removed = self.kernel.ensure(handle, None).await;
                removed.map_err(|error| chain(&error))?;
            }
        }
        tracing::info!(%backend, "WireGuard");
        self.backend = Some(backend);
        Ok(backend)
    }

    async fn ensure(
        &mut self,
        handle: &Handle,
        wanted: Option<&Configuration>,
    ) -> Result<(), String> {
        match self.choose(handle).await? {
            Backend::Kernel => {
                let outcome = self.kernel.ensure(handle, wanted).await;
                outcome.map_err(|error| chain(&error))
            }
            Backend::User => {
                let outcome = self.supervisor.ensure(wanted).await;
                outcome.map_err(|error| chain(&error))
            }
        }
    }

    /// Has what encrypts be as node `own` needs it. Returns whether it is to be used.
    pub async fn prepare(&mut self, handle: &Handle, desired: &Desired, own: u32) -> bool {
        let wanted = resolve::configuration(desired, own, &self.ring);
        let failure = self.ensure(handle, wanted.as_ref()).await.err();
        if let Some(failure) = &failure
            && self.failure.as_ref() != Some(failure)
        {
            tracing::error!(error = %failure, "what has to be encrypted is not sent");
        }
        self.failure = failure;
        wanted.is_some() && self.failure.is_none()
    }

    /// Looks at the tunnels and the age of the key; to be called every second or so. Returns the
    /// keys to announce, when they are others than before.
    ///
    /// # Errors
    /// When new keys cannot be kept; then the old ones stay in force.
    pub async fn look(
        &mut self,
        handle: &Handle,
        desired: &Desired,
        own: u32,
    ) -> Result<Option<Vec<PublicKey>>, KeyError> {
        let is_wanted = resolve::configuration(desired, own, &self.ring).is_some();
        self.status = None;
        if is_wanted {
            let status = match self.backend {
                Some(Backend::Kernel) => {
                    let status = self.kernel.status(handle).await;
                    status.map_err(|error| chain(&error))
                }
                _ => {
                    let status = self.supervisor.status().await;
                    status.map_err(|error| chain(&error))
                }
            };
            match status {
                Ok(status) => self.status = Some(status),
                Err(error) => tracing::debug!(%error, "no status of tunnels"),
            }
        }
        let known = desired
            .nodes
            .get(&own)
            .map_or(&[][..], |node| &node.public_keys);
        let lifetime_s = self.settings.key_lifetime.as_secs();
        let status = self.status.as_ref();
        let step = self
            .rotation
            .step(&self.ring, known, status, lifetime_s, key::now());
        let ring = match step {
            Step::Wait => return Ok(None),
            Step::Begin => self.ring.with_newer(),
            Step::Finish => self.ring.without_older(),
        };
        ring.store(&self.directory)?;
        self.ring = ring;
        match step {
            Step::Begin => tracing::info!("a new key is announced"),
            _ => tracing::info!("the older key is given up"),
        }
        Ok(Some(self.public_keys()))
    }

    /// Whether the process that should run was found not to.
    #[must_use]
    pub fn is_broken(&self, desired: &Desired, own: u32) -> bool {
        self.status.is_none() && resolve::configuration(desired, own, &self.ring).is_some()
    }

    /// How packets travel to the other nodes.
    #[must_use]
    pub fn tunnels(&self, desired: &Desired, own: u32) -> Vec<wire::Tunnel> {
        let Some(node) = desired.nodes.get(&own) else {
            return Vec::new();
        };
        let others = desired.nodes.iter().filter(|(number, _)| **number != own);
        let tunnel = |(number, other): (&u32, &Node)| {
            if !resolve::is_reachable(node, other) {
                return wire::Tunnel {
                    node: *number,
                    state: wire::tunnel::State::Down.into(),
                    detail:
                        "one node has an IPv4 address on the underlay alone, the other one an IPv6 \
                             address: give one of them both by --address"
                            .to_owned(),
                    ..wire::Tunnel::default()
                };
            }
            if !resolve::wanted(desired, node, other) {
                return wire::Tunnel {
                    node: *number,
                    state: wire::tunnel::State::Plaintext.into(),
                    ..wire::Tunnel::default()
                };
            }
            let mut peers = self.status.iter().flat_map(|status| &status.peers);
            let peer = peers.find(|peer| peer.address == other.address);
            let state = match peer.and_then(|peer| peer.handshake_age_s) {
                Some(_) => wire::tunnel::State::Encrypted,
                None => wire::tunnel::State::Down,
            };
            let detail = self.detail(node, other, peer);
            let mut tunnel = wire::Tunnel {
                node: *number,
                state: state.into(),
                detail,
                ..wire::Tunnel::default()
            };
            if let Some(peer) = peer {
                tunnel.handshake_age_s = peer.handshake_age_s;
                tunnel.handshakes = peer.handshakes;
                tunnel.sent_packets = peer.sent_packets;
                tunnel.sent_bytes = peer.sent_bytes;
                tunnel.received_packets = peer.received_packets;
                tunnel.received_bytes = peer.received_bytes;
                tunnel.decrypt_errors = peer.decrypt_errors;
                tunnel.unsent_packets = peer.unsent_packets;
            }
            tunnel
        };
        others.map(tunnel).collect()
    }

    /// What is wrong with the tunnel to a node, and what to do; empty when nothing is.
    fn detail(&self, own: &Node, other: &Node, peer: Option<&PeerStatus>) -> String {
        if let Some(failure) = &self.failure {
            return failure.clone();
        }
        if let Some(obstacle) = resolve::obstacle(&own.public_keys, other) {
            return obstacle.to_owned();
        }
        let Some(peer) = peer else {
            return "what encrypts tells nothing of it yet".to_owned();
        };
        if let Some(error) = &peer.send_error {
            return format!("cannot send to {}: {error}", peer.endpoint);
        }
        if peer.handshake_age_s.is_some() {
            return String::new();
        }
        if peer.wrong_key > 0 {
            return format!(
                "{} handshakes from {} were made for another key than this node's: it has not heard \
                 of the present one, or of another controller's",
                peer.wrong_key, peer.address
            );
        }
        format!(
            "no answer from {} to handshakes: UDP port {} may be blocked on the way, or the node \
             has another key than the one it announced",
            peer.endpoint,
            peer.endpoint.port()
        )
    }
}
