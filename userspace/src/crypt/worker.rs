//! The process that encrypts: packets from the TAP device into datagrams, and back.
//!
//! ```text
//!  programs --redirect--> TAP --read--> split --encrypt--> UDP --> peer
//!  programs <--TCX------- TAP <-write-- merge <-decrypt--- UDP <-- peer
//!                                  ^
//!  agent --unix socket--> keys, peers; status
//! ```
//!
//! It outlives its agent, so that an agent's restart loses nothing, and is adopted by the next. It
//! ends when it is told to, or when its socket in the state directory is gone: then nobody can
//! reach it any more.

use std::{
    fs::{self, File},
    io::{self, IoSlice, Read as _, Write as _},
    net::SocketAddr,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    listener,
    merge::Merger,
    packet::{self, ETHERNET_BYTES, VNET_BYTES, VnetHeader},
    peer::{MESSAGE_BYTES_MIN, Received},
    protocol::{Configuration, PeerStatus, Refused, Status, VERSION},
    segment,
    slot::SLOTS,
    socket::{Outbox, Socket},
    sys,
    table::{Owner, Table, Unknown},
};

/// How the process is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where its socket and its process number are.
    pub directory: PathBuf,
    /// Name of the TAP device that it makes.
    pub device: String,
    /// UDP port that it listens on.
    pub port: u16,
}

/// The process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// No TAP device.
    #[error("cannot make the TAP device {device}")]
    Device {
        /// Its name.
        device: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No UDP socket.
    #[error("cannot listen on UDP port {port}")]
    Port {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No local socket, or none any more.
    #[error("cannot be reached in {}", directory.display())]
    Directory {
        /// The state directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Longest frame of the device with the kernel's header before it.
const FRAME_BYTES_MAX: usize = VNET_BYTES + 2 * 65_536;
/// Frames or receptions in a row before what they made is handed on.
const BURST: usize = 32;
/// Bytes that wait to be sent in the outbox at most, but for one frame.
const OUTBOX_BYTES: usize = 128 << 10;
/// How often the tunnels' timers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often the rate of handshakes is counted anew, and the socket looked for.
const SECOND: Duration = Duration::from_secs(1);
/// Queues of the device at most: each has a thread either way.
const QUEUES_MAX: usize = 4;

/// What the threads share.
pub(super) struct Shared {
    table: RwLock<Arc<Table>>,
    /// Held while a configuration takes the place of another.
    configuring: Mutex<()>,
    /// By queue and slot.
    sockets: Vec<[Socket; SLOTS]>,
    device: String,
    port: u16,
    unroutable: AtomicU64,
    malformed: AtomicU64,
    not_for_us: AtomicU64,
    unknown_key: AtomicU64,
    no_session: AtomicU64,
}

/// Runs until it is told to end, or cannot be reached any more.
///
/// # Errors
/// When it cannot start.
pub fn run(options: &Options) -> Result<(), WorkerError> {
    let failed = |source| WorkerError::Directory {
        directory: options.directory.clone(),
        source,
    };
    let no_device = |source| WorkerError::Device {
        device: options.device.clone(),
        source,
    };
    let no_port = |source| WorkerError::Port {
        port: options.port,
        source,
    };
    // Threads come in pairs; two processors have work for one.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let queues = (processors / 2).clamp(1, QUEUES_MAX);
    let mut taps = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..queues {
        let tap = sys::open_tap(&options.device).map_err(no_device)?;
        fcntl(&tap, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map_err(|error| no_device(error.into()))?;
        taps.push(Arc::new(tap));
        let next = options
            .port
            .checked_add(1)
            .ok_or(io::ErrorKind::InvalidInput);
        let next = next.map_err(|kind| no_port(kind.into()))?;
        sockets.push([
            Socket::open(options.port).map_err(no_port)?,
            Socket::open(next).map_err(no_port)?,
        ]);
    }
    let shared = Arc::new(Shared {
        table: RwLock::default(),
        configuring: Mutex::default(),
        sockets,
        device: options.device.clone(),
        port: options.port,
        unroutable: AtomicU64::new(0),
        malformed: AtomicU64::new(0),
        not_for_us: AtomicU64::new(0),
        unknown_key: AtomicU64::new(0),
        no_session: AtomicU64::new(0),
    });
    let (socket, path) = listener::bind(&options.directory).map_err(failed)?;
    for (queue, tap) in taps.into_iter().enumerate() {
        let (ours, theirs) = (Arc::clone(&shared), Arc::clone(&tap));
        spawn("encrypt", move || encrypt(&ours, queue, &tap))?;
        let ours = Arc::clone(&shared);
        spawn("decrypt", move || decrypt(&ours, queue, &theirs))?;
    }
    let ours = Arc::clone(&shared);
    spawn("timers", move || ours.keep_time())?;
    let ours = Arc::clone(&shared);
    let (end, ended) = std::sync::mpsc::channel();
    spawn("control", move || listener::serve(&socket, &ours, &end))?;
    tracing::info!(device = %options.device, port = options.port, queues, "encrypting");

    let inode = inode(&path).map_err(failed)?;
    loop {
        if ended.recv_timeout(SECOND).is_ok() {
            tracing::info!("told to end");
            listener::remove(&options.directory);
            return Ok(());
        }
        if self::inode(&path).ok() != Some(inode) {
            tracing::info!("nobody can reach this process any more");
            return Ok(());
        }
    }
}

fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<thread::JoinHandle<()>, WorkerError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(WorkerError::Thread)
}

fn inode(path: &Path) -> io::Result<u64> {
    fs::symlink_metadata(path).map(|metadata| metadata.ino())
}

/// Waits until there is something to read from one of them.
fn wait<const N: usize>(descriptors: [BorrowedFd<'_>; N]) {
    let mut waiting = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    // An interruption is looked after like an event: there is just nothing to read.
    let _ = poll(&mut waiting, PollTimeout::NONE);
}

/// From the device to the peers.
fn encrypt(shared: &Shared, queue: usize, tap: &File) {
    let sockets = &shared.sockets[queue];
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let mut scratch = Vec::new();
    let mut outboxes: [Outbox; SLOTS] = Default::default();
    loop {
        wait([tap.as_fd()]);
        let table = shared.table();
        for _ in 0..BURST {
            let length = match (&*tap).read(&mut frame) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // A device that was taken down gives none until it is up again.
                    tracing::debug!(%error, "the device gives no packet");
                    thread::sleep(TICK);
                    break;
                }
            };
            let sent = outward(&table, &mut frame[..length], &mut scratch, &mut outboxes);
            if sent.is_none() {
                shared.unroutable.fetch_add(1, Ordering::Relaxed);
            }
            for (socket, outbox) in sockets.iter().zip(&mut outboxes) {
                if outbox.bytes.len() > OUTBOX_BYTES {
                    socket.send_all(outbox);
                }
            }
        }
        for (socket, outbox) in sockets.iter().zip(&mut outboxes) {
            socket.send_all(outbox);
        }
    }
}

/// Encrypts a frame of the device into the outbox; `None` when it is to nobody.
fn outward(
    table: &Table,
    frame: &mut [u8],
    scratch: &mut Vec<u8>,
    outboxes: &mut [Outbox; SLOTS],
) -> Option<()> {
    let (header, ethernet) = frame.split_first_chunk_mut::<VNET_BYTES>()?;
    let about = VnetHeader::parse(header)?;
    let packet = ethernet.get_mut(ETHERNET_BYTES..)?;
    let (_, to) = packet::tunnelled(packet)?;
    let mut peer = table.peer(to)?.lock();
    let Some(way) = peer.way(table.node) else {
        peer.count_unsent();
        return Some(());
    };
    packet::set_addresses(packet, way.source, way.destination);
    let outbox = &mut outboxes[way.slot];
    segment::split(packet, about, scratch, |packet| {
        if let Some(length) = peer.encrypt(packet, &mut outbox.bytes) {
            outbox.add(way.endpoint, length);
        }
    })
    .ok()?;
    Some(())
}

/// From the peers to the device.
fn decrypt(shared: &Shared, queue: usize, tap: &File) {
    let sockets = &shared.sockets[queue];
    let mut datagrams = vec![0; 65_536];
    let mut buffer = vec![0; 65_536];
    let mut merger = Merger::default();
    let mut to_device = |about: VnetHeader, packet: &[u8]| write_frame(tap, about, packet);
    loop {
        wait(sockets.each_ref().map(|socket| socket.as_udp().as_fd()));
        let table = shared.table();
        for socket in sockets {
            for _ in 0..BURST {
                match socket.receive(&mut datagrams) {
                    Ok(Some((from, length, size))) => {
                        for datagram in datagrams[..length].chunks(size) {
                            if let Some(length) =
                                shared.inward(&table, socket, from, datagram, &mut buffer)
                            {
                                merger.take(&buffer[..length], &mut to_device);
                            }
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(%error, "the socket gives no datagram");
                        break;
                    }
                }
            }
        }
        merger.flush(&mut to_device);
    }
}

/// Hands a packet to the device. A device that is down or out of memory drops it, like any other.
fn write_frame(mut tap: &File, about: VnetHeader, packet: &[u8]) {
    let mut ethernet = [0; ETHERNET_BYTES];
    ethernet[..6].copy_from_slice(&sys::TAP_MAC);
    ethernet[6..12].copy_from_slice(&sys::PEER_MAC);
    ethernet[12..].copy_from_slice(&sunwire_dataplane_common::headers::ETHER_IPV4.to_be_bytes());
    let header = about.to_bytes();
    let parts = [
        IoSlice::new(&header),
        IoSlice::new(&ethernet),
        IoSlice::new(packet),
    ];
    if let Err(error) = tap.write_vectored(&parts) {
        tracing::debug!(%error, "the device takes no packet");
    }
}

impl Shared {
    fn table(&self) -> Arc<Table> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&table)
    }

    /// Takes a datagram. Returns how many bytes of a packet for the device it left in `buffer`.
    fn inward(
        &self,
        table: &Table,
        socket: &Socket,
        from: SocketAddr,
        datagram: &[u8],
        buffer: &mut [u8],
    ) -> Option<usize> {
        let (peer, which) = match table.owner(from, datagram, buffer) {
            Ok(Owner::Peer(peer, which)) => (peer, which),
            Ok(Owner::Cookie(length)) => {
                socket.send(from, &buffer[..length]);
                return None;
            }
            Err(unknown) => {
                self.count(unknown);
                if unknown == Unknown::NotForUs
                    && let Some(peer) = table.peer_at(from.ip())
                {
                    peer.lock().counters.wrong_key += 1;
                }
                return None;
            }
        };
        let mut peer = peer.lock();
        match peer.decrypt(which, from, datagram, buffer) {
            Received::Packet(length) => {
                // To the kernel both nodes have the addresses of the underlay.
                let packet = &mut buffer[..length];
                packet::set_addresses(packet, peer.address, table.address?);
                packet::set_outer_lengths(packet);
                Some(length)
            }
            Received::Nothing => None,
            Received::Answer(length) => {
                socket.send(from, &buffer[..length]);
                while let Some(length) = peer.waiting(which, buffer) {
                    socket.send(from, &buffer[..length]);
                }
                None
            }
        }
    }

    fn count(&self, unknown: Unknown) {
        let counter = match unknown {
            Unknown::Malformed => &self.malformed,
            Unknown::NotForUs => &self.not_for_us,
            Unknown::StrangeKey => &self.unknown_key,
            Unknown::NoSession => &self.no_session,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a configuration in the place of the one before, and begins the handshakes of tunnels
    /// that are new.
    pub(super) fn configure(&self, configuration: &Configuration) {
        let _alone = self
            .configuring
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (table, begun) = self.table().with(configuration);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        let mut buffer = [0; MESSAGE_BYTES_MIN];
        for (peer, index) in begun {
            let send = |slot: usize, to, message: &[u8]| self.sockets[0][slot].send(to, message);
            peer.lock().begin(index, &mut buffer, send);
        }
    }

    /// Runs the tunnels' timers.
    fn keep_time(&self) {
        let mut buffer = [0; MESSAGE_BYTES_MIN];
        let mut reset_at = Instant::now();
        loop {
            thread::sleep(TICK);
            let table = self.table();
            for peer in table.peers() {
                let send = |slot: usize, to, message: &[u8]| {
                    self.sockets[0][slot].send(to, message);
                };
                peer.lock().tick(&mut buffer, send);
            }
            if reset_at.elapsed() >= SECOND {
                table.reset_limits();
                reset_at = Instant::now();
            }
        }
    }

    /// How everything is.
    pub(super) fn status(&self) -> Status {
        let table = self.table();
        let mut peers: Vec<PeerStatus> = table
            .peers()
            .map(|peer| {
                let peer = peer.lock();
                let keys = |tunnel: &super::peer::Tunnel| (tunnel.own, tunnel.theirs);
                let up = peer
                    .tunnels
                    .iter()
                    .filter(|t| t.handshake_age_s().is_some());
                let sessions: Vec<_> = up.clone().map(keys).collect();
                let by = |tunnel: &super::peer::Tunnel| {
                    (tunnel.own, tunnel.theirs, tunnel.received_bytes)
                };
                let received_by = peer.tunnels.iter().map(by).collect();
                let sending = up.clone().next();
                let mut errors = self.sockets.iter().flatten();
                let endpoint = peer.endpoint();
                PeerStatus {
                    address: peer.address,
                    endpoint,
                    handshake_age_s: sending.and_then(|tunnel| tunnel.handshake_age_s()),
                    keys: sending.or(peer.tunnels.first()).map(keys),
                    sessions,
                    received_by,
                    handshakes: peer.counters.handshakes,
                    sent_packets: peer.counters.sent_packets,
                    sent_bytes: peer.counters.sent_bytes,
                    received_packets: peer.counters.received_packets,
                    received_bytes: peer.counters.received_bytes,
                    decrypt_errors: peer.counters.decrypt_errors,
                    unsent_packets: peer.counters.unsent_packets,
                    wrong_key: peer.counters.wrong_key,
                    send_error: errors.find_map(|socket| socket.error(endpoint)),
                }
            })
            .collect();
        peers.sort_by_key(|peer| peer.address);
        let total = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Status {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.device.clone(),
            port: self.port,
            peers,
            refused: Refused {
                malformed: total(&self.malformed),
                not_for_us: total(&self.not_for_us),
                unknown_key: total(&self.unknown_key),
                no_session: total(&self.no_session),
            },
            unsent_packets: 0,
            unroutable_packets: total(&self.unroutable),
        }
    }
}
