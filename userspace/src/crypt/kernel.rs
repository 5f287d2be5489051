//! Tunnels by the kernel's own WireGuard, where it has one: one device for each key of this node.
//!
//! ```text
//!   sw-wg0   the key in slot 0, UDP port P        peers: every key of every other node, each with
//!   sw-wg1   the key in slot 1, UDP port P + 1    the address of that key alone
//! ```
//!
//! Most of the time there is one of them. While a key is replaced there are both, and packets go by
//! the newest pair of keys that has a session, as with the process that encrypts: what others send
//! by either arrives. Devices outlive the agent, and so do their sessions.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use rtnetlink::{Handle, LinkUnspec, LinkWireguard};
use sunwire_api::PublicKey;

use super::{
    genl::{Genl, Known, Wanted},
    protocol::{Configuration, Peer, PeerStatus, Status, VERSION},
    slot::{self, SLOTS},
};
use crate::netlink::{self, NetlinkError};

/// Names of the devices, by slot.
pub const DEVICES: [&str; SLOTS] = ["sw-wg0", "sw-wg1"];
/// Padding goes by it and nothing else: packets are redirected into the device.
const MTU: u32 = 65_520;
/// A session ends so many seconds after its handshake (WireGuard, 6.1: Reject-After-Time).
const SESSION_S: f64 = 180.0;
/// The kernel gives up after 90 seconds without an answer. We do not: the peer may come back.
const NUDGE_EVERY: Duration = Duration::from_secs(90);

/// The kernel's WireGuard cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It has none, or none that can be asked.
    #[error(
        "this kernel has no WireGuard that can be asked (module `wireguard`); `--wireguard auto` or \
         `user` encrypts without"
    )]
    Absent(#[source] io::Error),
    /// It refuses.
    #[error("the kernel's WireGuard does not {what} on {device}")]
    Refused {
        /// What it was asked.
        what: &'static str,
        /// Of which device.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device cannot be made, changed or removed.
    #[error(transparent)]
    Device(#[from] NetlinkError),
}

/// How packets to a node are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The device.
    pub ifindex: u32,
    /// This node's address within the tunnel.
    pub source: Ipv4Addr,
    /// The other's.
    pub destination: Ipv4Addr,
}

/// A hold on the kernel's devices.
#[derive(Debug, Default)]
pub struct KernelWireguard {
    port: u16,
    wanted: Option<Configuration>,
    /// By slot.
    ifindexes: BTreeMap<usize, u32>,
    /// Where peers were told to be, by slot and key.
    told: BTreeMap<(usize, PublicKey), SocketAddr>,
    /// The last handshake seen of each pair, and how many there were.
    handshakes: BTreeMap<(usize, PublicKey), (Duration, u64)>,
    nudged: Option<Instant>,
    ways: BTreeMap<u32, Way>,
}

impl KernelWireguard {
    /// A hold on the devices of this network namespace, which use `port` and the next one.
    #[must_use]
    pub fn new(port: u16) -> Self {
        KernelWireguard {
            port,
            ..KernelWireguard::default()
        }
    }

    /// Whether the kernel has it: found by asking for it, which loads the module if there is one.
    ///
    /// # Errors
    /// [`KernelError::Absent`].
    pub async fn offered() -> Result<(), KernelError> {
        Genl::open().await.map(drop).map_err(KernelError::Absent)
    }

    /// Devices there are, with their slots.
    pub fn devices(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.ifindexes
            .iter()
            .map(|(slot, ifindex)| (*slot, *ifindex))
    }

    /// How packets are sent now, by number of the node.
    #[must_use]
    pub fn ways(&self) -> &BTreeMap<u32, Way> {
        &self.ways
    }

    /// Has devices, keys and peers be as wanted. What is there and stays is left alone.
    ///
    /// # Errors
    /// When the kernel refuses something; then some of it may not be there.
    pub async fn ensure(
        &mut self,
        handle: &Handle,
        wanted: Option<&Configuration>,
    ) -> Result<(), KernelError> {
        let present = netlink::devices(handle).await?;
        let is_there = |(at, ifindex): (&usize, &u32)| {
            let found = present.get(DEVICES[*at]);
            found.is_some_and(|device| device.ifindex == *ifindex && device.up)
        };
        if wanted.is_some() && self.wanted.as_ref() == wanted && self.ifindexes.iter().all(is_there)
        {
            return Ok(());
        }
        let genl = match wanted {
            Some(_) => Some(Genl::open().await.map_err(KernelError::Absent)?),
            None => None,
        };
        for (at, name) in DEVICES.into_iter().enumerate() {
            let found = present.get(name);
            let key = wanted.and_then(|wanted| {
                // The newest, should two be of one slot.
                let mut keys = wanted.private_keys.iter().rev();
                keys.find(|key| usize::from(slot::of(&key.public())) == at)
            });
            let (Some(wanted), Some(key), Some(genl)) = (wanted, key, &genl) else {
                self.ifindexes.remove(&at);
                if let Some(device) = found {
                    remove(handle, device.ifindex, name).await?;
                }
                continue;
            };
            if found.is_none() {
                let add = handle.link().add(LinkWireguard::new(name).build());
                let failed = netlink::failed(format!("make device {name}"));
                add.execute().await.map_err(failed)?;
            }
            let port = slot::port(self.port, &key.public());
            genl.set_key(name, key.to_bytes(), port)
                .await
                .map_err(refused("take a key", name))?;
            self.set_peers(genl, at, &wanted.peers).await?;
            let ifindex = widened(handle, name).await?;
            self.ifindexes.insert(at, ifindex);
        }
        self.wanted = wanted.cloned();
        match wanted {
            Some(_) => self.status(handle).await.map(drop),
            None => {
                *self = KernelWireguard::new(self.port);
                Ok(())
            }
        }
    }

    /// Sets the devices up. Handshakes begin with it, and then packets: our program has to be
    /// attached before.
    ///
    /// # Errors
    /// When netlink fails.
    pub async fn set_up(&self, handle: &Handle) -> Result<(), NetlinkError> {
        if self.ifindexes.is_empty() {
            return Ok(());
        }
        let present = netlink::devices(handle).await?;
        for at in self.ifindexes.keys() {
            let name = DEVICES[*at];
            if let Some(device) = present.get(name).filter(|device| !device.up) {
                let message = LinkUnspec::new_with_index(device.ifindex).up();
                let set = handle.link().set(message.build()).execute().await;
                set.map_err(netlink::failed(format!("set up device {name}")))?;
            }
        }
        Ok(())
    }

    async fn set_peers(
        &mut self,
        genl: &Genl,
        at: usize,
        peers: &[Peer],
    ) -> Result<(), KernelError> {
        let name = DEVICES[at];
        let known = genl
            .peers(name)
            .await
            .map_err(refused("tell its peers", name))?;
        let mut changes = Vec::new();
        let mut wanted = BTreeSet::new();
        for peer in peers {
            for key in &peer.keys {
                wanted.insert(*key);
                let endpoint = SocketAddr::new(peer.underlay, slot::port(peer.port, key));
                let address = slot::address(peer.node, key);
                let there = known.iter().find(|known| known.key == *key);
                let told = self.told.insert((at, *key), endpoint);
                // Where a peer was heard from counts for more than where it should be.
                let moves = there.is_none_or(|there| match told {
                    Some(told) => told != endpoint,
                    None => {
                        let at = there.endpoint.map(|endpoint| endpoint.ip());
                        at != Some(peer.underlay) && age_s(there).is_none()
                    }
                });
                let allows = there.is_none_or(|there| there.allowed != [IpAddr::V4(address)]);
                if moves || allows {
                    changes.push(Wanted::Peer {
                        key: *key,
                        endpoint: moves.then_some(endpoint),
                        address,
                    });
                }
            }
        }
        for gone in known.iter().filter(|known| !wanted.contains(&known.key)) {
            self.told.remove(&(at, gone.key));
            self.handshakes.remove(&(at, gone.key));
            changes.push(Wanted::Gone(gone.key));
        }
        genl.change(name, &changes)
            .await
            .map_err(refused("take peers", name))
    }

    /// How the tunnels are; what is sent from now on goes by the [`ways`](Self::ways) that follow
    /// from it.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub async fn status(&mut self, handle: &Handle) -> Result<Status, KernelError> {
        let mut status = Status {
            version: VERSION,
            program: "kernel".to_owned(),
            device: DEVICES[0].to_owned(),
            port: self.port,
            ..Status::default()
        };
        let Some(wanted) = self.wanted.clone() else {
            return Ok(status);
        };
        let genl = Genl::open().await.map_err(KernelError::Absent)?;
        let mut told = BTreeMap::new();
        for at in self.ifindexes.keys() {
            let name = DEVICES[*at];
            let peers = genl.peers(name).await;
            for peer in peers.map_err(refused("tell its peers", name))? {
                told.insert((*at, peer.key), peer);
            }
        }
        for (pair, peer) in &told {
            let seen = self.handshakes.entry(*pair).or_default();
            if let Some(at) = peer.handshake_at
                && at != seen.0
            {
                *seen = (at, seen.1 + 1);
            }
        }
        let mut ways = BTreeMap::new();
        let mut silent = Vec::new();
        for peer in &wanted.peers {
            let (status_of, way) = self.peer_status(&wanted, peer, &told);
            if status_of.handshake_age_s.is_none() {
                silent.extend(peer.keys.iter().copied());
            }
            if let Some(way) = way {
                ways.insert(peer.node, way);
            }
            status.peers.push(status_of);
        }
        self.ways = ways;
        status.peers.sort_by_key(|peer| peer.address);
        status.unsent_packets = netlink::dropped_at(handle, &DEVICES).await?;
        let is_due = *self.nudged.get_or_insert_with(Instant::now);
        if is_due.elapsed() >= NUDGE_EVERY {
            self.nudged = Some(Instant::now());
            for at in self.ifindexes.keys() {
                let name = DEVICES[*at];
                let nudged = genl.nudge(name, &silent).await;
                nudged.map_err(refused("begin handshakes", name))?;
            }
        }
        Ok(status)
    }

    /// How the tunnel to a peer is, and how packets are sent to it: by the newest pair of keys that
    /// has a session, else the newest, whose first packets the kernel keeps for a while.
    fn peer_status(
        &self,
        wanted: &Configuration,
        peer: &Peer,
        told: &BTreeMap<(usize, PublicKey), Known>,
    ) -> (PeerStatus, Option<Way>) {
        let mut pairs = Vec::new();
        for own in wanted.private_keys.iter().rev().map(|key| key.public()) {
            let at = usize::from(slot::of(&own));
            for theirs in peer.keys.iter().rev() {
                if let Some(known) = told.get(&(at, *theirs)) {
                    pairs.push((own, *theirs, at, known));
                }
            }
        }
        let up = |pair: &&(PublicKey, PublicKey, usize, &Known)| age_s(pair.3).is_some();
        let sending = pairs.iter().find(up);
        let newest = sending.or(pairs.first());
        let endpoint = newest.and_then(|pair| pair.3.endpoint);
        let total = |count: fn(&Known) -> u64| pairs.iter().map(|pair| count(pair.3)).sum();
        let handshakes = pairs.iter().map(|(_, theirs, at, _)| {
            let seen = self.handshakes.get(&(*at, *theirs));
            seen.map_or(0, |seen| seen.1)
        });
        let status = PeerStatus {
            address: peer.address,
            endpoint: endpoint.unwrap_or(SocketAddr::new(peer.underlay, peer.port)),
            handshake_age_s: sending.and_then(|pair| age_s(pair.3)),
            keys: newest.map(|pair| (pair.0, pair.1)),
            sessions: pairs
                .iter()
                .filter(up)
                .map(|pair| (pair.0, pair.1))
                .collect(),
            received_by: pairs
                .iter()
                .map(|pair| (pair.0, pair.1, pair.3.received_bytes))
                .collect(),
            handshakes: handshakes.sum(),
            // The kernel counts bytes alone, as they are on the wire.
            sent_packets: 0,
            sent_bytes: total(|known| known.sent_bytes),
            received_packets: 0,
            received_bytes: total(|known| known.received_bytes),
            decrypt_errors: 0,
            unsent_packets: 0,
            wrong_key: 0,
            send_error: None,
        };
        let way = newest.and_then(|(own, theirs, at, _)| {
            Some(Way {
                ifindex: *self.ifindexes.get(at)?,
                source: slot::address(wanted.node, own),
                destination: slot::address(peer.node, theirs),
            })
        });
        (status, way)
    }
}

/// Seconds since the handshake of a session that is still good.
fn age_s(known: &Known) -> Option<f64> {
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).ok()?;
    let age = now.saturating_sub(known.handshake_at?).as_secs_f64();
    (age < SESSION_S).then_some(age)
}

fn refused(what: &'static str, device: &str) -> impl FnOnce(io::Error) -> KernelError {
    let device = device.to_owned();
    move |source| KernelError::Refused {
        what,
        device,
        source,
    }
}

async fn widened(handle: &Handle, name: &str) -> Result<u32, NetlinkError> {
    let found = netlink::devices(handle).await?;
    let device = found
        .get(name)
        .ok_or_else(|| NetlinkError::NoDevice(name.to_owned()))?;
    if device.mtu != MTU {
        let message = LinkUnspec::new_with_index(device.ifindex).mtu(MTU);
        let set = handle.link().set(message.build()).execute().await;
        set.map_err(netlink::failed(format!("change device {name}")))?;
    }
    Ok(device.ifindex)
}

async fn remove(handle: &Handle, ifindex: u32, name: &str) -> Result<(), NetlinkError> {
    let removed = handle.link().del(ifindex).execute().await;
    removed.map_err(netlink::failed(format!("remove device {name}")))
}
