//! Probes: once a second each other node is asked, and answers from within its kernel.
//!
//! ```text
//!  agent --targets--> [Prober] --question, as data goes--> underlay or encryption --> other node
//!        <--reports--    |                                                               |
//!                   PROBES (map) <--time of the answer-- our program <------ bounced by its program
//! ```
//! The answer's time is noted by the kernel, so a busy agent makes no round trip longer. A probe goes
//! out of the same device, with the same outer headers and through the same encryption as packets of
//! workloads, so what it meets is what they meet. What is asked and how answers are told apart is in
//! `sunwire_dataplane_common::probe`.

mod frame;
pub mod window;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::maps::{Array, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use sunwire_dataplane_common::{
    entries::{PeerEntry, PeerEntryV6, peer},
    headers::ETHERNET_BYTES,
    probe::{self, ProbeSlot, SLOTS},
};

use crate::{pod::Pod, services::socket::AnswerSocket};

use window::Window;
pub use window::{Liveness, Probed, RoundTrips};

/// How often a node is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long an answer may take, ns. With one question a second, fewer wait than there are slots.
const DEADLINE_NS: u64 = 3_000_000_000;

/// The kernel's side: questions that wait for an answer.
pub struct ProbeMap(pub(crate) Array<MapData, Pod<ProbeSlot>>);

/// Asks the other nodes for as long as it is held.
pub struct Prober {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    peers: BTreeMap<u32, Peer>,
    is_over: bool,
}

/// How a node that is asked is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whatever family is used.
    pub peer: PeerEntry,
    /// What counts of one that is reached over IPv6.
    pub v6: PeerEntryV6,
}

impl Target {
    fn is_over_ipv6(&self) -> bool {
        self.peer.flags & peer::OVER_IPV6 != 0
    }

    /// What, when it changes, makes another way of it.
    fn way(&self) -> impl PartialEq {
        let flags = self.peer.flags & (peer::ENCRYPTED | peer::OVER_IPV6);
        let address = self.is_over_ipv6().then_some(self.v6.address);
        (self.peer.address, address, flags)
    }
}

/// A node that is asked.
struct Peer {
    /// How it is reached.
    target: Target,
    window: Window,
    /// Tokens of the questions that wait, by slot.
    waiting: [Option<u64>; SLOTS as usize],
    /// Questions so far.
    number: u32,
    /// When it is asked next.
    due: Instant,
}

impl Prober {
    /// Begins to ask; nobody until [`aim`](Self::aim).
    ///
    /// # Errors
    /// When there is no socket or no thread to be had.
    pub fn start(map: ProbeMap) -> io::Result<Self> {
        let socket = AnswerSocket::open()?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let ours = Arc::clone(&shared);
        // A thread of its own: how busy the agent is must not be told as loss.
        let thread = thread::Builder::new()
            .name("probes".to_owned())
            .spawn(move || ours.run(map, socket))?;
        Ok(Prober {
            shared,
            thread: Some(thread),
        })
    }

    /// From now on these nodes are asked, by how they are reached.
    pub fn aim(&self, targets: BTreeMap<u32, Target>) {
        let mut state = self.shared.lock();
        state.peers.retain(|number, _| targets.contains_key(number));
        let now = Instant::now();
        for (number, target) in targets {
            match state.peers.get_mut(&number) {
                Some(peer) => peer.aim(target),
                None => {
                    state.peers.insert(number, Peer::new(number, target, now));
                }
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// What is known of the tunnels, by the number of the other node.
    #[must_use]
    pub fn reports(&self) -> BTreeMap<u32, Probed> {
        let now_ns = monotonic_ns();
        let state = self.shared.lock();
        let reports = state.peers.iter();
        reports
            .map(|(number, peer)| (*number, peer.window.report(now_ns)))
            .collect()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say, not even why it panicked: that stands in the log.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // What panicked while it held the lock has changed whole values only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut map: ProbeMap, mut socket: AnswerSocket) {
        let mut state = self.lock();
        while !state.is_over {
            let now = Instant::now();
            let mut next = now + EVERY;
            for (number, peer) in &mut state.peers {
                if peer.due <= now {
                    if let Err(error) = peer.probe(*number, &mut map, &mut socket) {
                        tracing::warn!(%error, "tunnels cannot be probed");
                    }
                    // After a pause of the whole machine no second is made up for.
                    peer.due = (peer.due + EVERY).max(now);
                }
                next = next.min(peer.due);
            }
            let pause = next.saturating_duration_since(Instant::now());
            let waited = self.changed.wait_timeout(state, pause);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Peer {
    fn new(number: u32, target: Target, now: Instant) -> Self {
        // Spread over the second, by a hash of the number.
        let offset = EVERY.mul_f64(f64::from(number.wrapping_mul(0x9e37_79b9)) / 2_f64.powi(32));
        Peer {
            target,
            window: Window::default(),
            waiting: Default::default(),
            number: 0,
            due: now + offset,
        }
    }

    fn aim(&mut self, target: Target) {
        if self.target.way() != target.way() {
            self.window.begin_anew();
            self.waiting = Default::default();
        }
        self.target = target;
    }

    /// Takes the answers that have come, and asks again.
    fn probe(
        &mut self,
        node: u32,
        map: &mut ProbeMap,
        socket: &mut AnswerSocket,
    ) -> Result<(), MapError> {
        let now_ns = monotonic_ns();
        for slot in 0..SLOTS {
            let Some(token) = self.waiting[slot as usize] else {
                continue;
            };
            let found = map.0.get(&probe::place(node, slot), 0)?.0;
            if found.token == token && found.answered_ns >= token {
                self.window
                    .answered(found.answered_ns, found.answered_ns - token);
                self.waiting[slot as usize] = None;
            } else if now_ns.saturating_sub(token) > DEADLINE_NS {
                self.window.lost();
                self.waiting[slot as usize] = None;
            }
        }
        if self.target.peer.ifindex == 0 {
            self.window.unsent();
            return Ok(());
        }
        let slot = self.number % SLOTS;
        // The latest moment: what is done before is no part of the round trip.
        let token = monotonic_ns();
        let waiting = ProbeSlot {
            token,
            answered_ns: 0,
        };
        map.0.set(probe::place(node, slot), Pod(waiting), 0)?;
        let frame = frame::question(&self.target, self.number, slot, token);
        self.number = self.number.wrapping_add(1);
        // Packets of the kernel's WireGuard have no Ethernet header.
        let without = match self.target.peer.flags & peer::KERNEL {
            0 => 0,
            _ => ETHERNET_BYTES,
        };
        match socket.send(self.target.peer.ifindex, &frame[without..]) {
            Ok(()) => self.waiting[slot as usize] = Some(token),
            Err(error) => {
                tracing::debug!(node, %error, "a probe could not be sent");
                self.window.unsent();
            }
        }
        Ok(())
    }
}

/// The clock of the kernel's programs, ns.
fn monotonic_ns() -> u64 {
    // It cannot fail: the clock is there on every Linux.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
    })
}
