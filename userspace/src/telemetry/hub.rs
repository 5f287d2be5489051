//! From the rings to those who listen: a bounded history, bounded queues, and counted losses.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, poll};
use sunwire_api::{
    CaptureItem, CaptureQuery, CapturedPacket, Flow, FlowFilter, FlowItem, FlowLosses, FlowQuery,
    to_hex,
};
use sunwire_dataplane_common::event::{
    EVENT_BYTES, Event, EventSettings, FRAME_BYTES_MAX, WINDOW_SHIFT, why,
};
use tokio::sync::{broadcast, mpsc};

use super::{EventMaps, EventSwitch, Losses, decode, names::Names};

/// Flows that are kept for those who ask later.
const HISTORY: usize = 8192;
/// Flows that may wait for a slow listener.
const QUEUE: usize = 4096;
/// Bytes of the frame that headers may take: a tunnel's, and those that policies test.
const FRAME_BYTES: u32 = 192;
/// Events that a CPU tells per second unless a listener asks for samples.
const EVENTS_PER_S: u64 = 1_000;
/// Events that a CPU tells per second while one does.
const SAMPLES_PER_S: u64 = 20_000;
/// How long to wait for events before looking whether anybody still wants them.
const LOOK_EVERY: u16 = 1000;
/// How often losses are looked up.
const LOSSES_EVERY: Duration = Duration::from_secs(1);

/// Where flows go.
pub struct Hub {
    state: Mutex<State>,
    flows: broadcast::Sender<Arc<Flow>>,
    captured: broadcast::Sender<Arc<CapturedPacket>>,
    told: AtomicU64,
}

struct State {
    history: VecDeque<Arc<Flow>>,
    names: Arc<Names>,
    /// Round trips of tunnels in seconds, by the name of the other node.
    rtts: Arc<BTreeMap<String, f64>>,
    switch: Option<EventSwitch>,
    last_listener: u64,
    /// What listeners want sampled.
    samples: BTreeMap<u64, u32>,
    /// Endpoints and bytes that are captured.
    captures: BTreeMap<u64, (u32, u32)>,
}

/// Takes a listener's wishes back when it goes.
struct Wish {
    hub: Arc<Hub>,
    listener: u64,
}

/// A question that cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The filter is none.
    #[error(transparent)]
    Filter(#[from] sunwire_api::FlowFilterError),
    /// No endpoint has the name.
    #[error("there is no endpoint {0}")]
    NoEndpoint(String),
    /// The kernel does not take the wish.
    #[error(transparent)]
    Ring(#[from] super::RingError),
}

impl Hub {
    /// A hub that reads the kernel's rings for as long as somebody holds it.
    ///
    /// # Errors
    /// When there is no thread to be had, or the kernel cannot be told what to tell.
    pub fn start(maps: EventMaps) -> io::Result<Arc<Self>> {
        let hub = Arc::new(Hub {
            state: Mutex::new(State {
                history: VecDeque::with_capacity(HISTORY),
                names: Arc::default(),
                rtts: Arc::default(),
                switch: Some(maps.settings),
                last_listener: 0,
                samples: BTreeMap::new(),
                captures: BTreeMap::new(),
            }),
            flows: broadcast::Sender::new(QUEUE),
            captured: broadcast::Sender::new(QUEUE),
            told: AtomicU64::new(0),
        });
        hub.lock().switch().map_err(io::Error::other)?;
        let (mut events, mut captured) = (maps.events, maps.captured);
        let weak = Arc::downgrade(&hub);
        // A thread of its own: what a flood of events takes is then not taken from the agent.
        thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || {
                while let Some(hub) = weak.upgrade() {
                    let names = hub.names();
                    events.drain(|event, frame| hub.publish(&names, &event, frame));
                    captured.drain(|event, frame| hub.publish_captured(&names, &event, frame));
                    drop(hub);
                    let mut fds = [
                        PollFd::new(events.as_fd(), PollFlags::POLLIN),
                        PollFd::new(captured.as_fd(), PollFlags::POLLIN),
                    ];
                    // A signal only ends the wait early.
                    let _ = poll(&mut fds, LOOK_EVERY);
                }
            })?;
        Ok(hub)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What panicked while it held the lock has changed whole values only.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on things have these names.
    pub fn rename(&self, names: Names) {
        self.lock().names = Arc::new(names);
    }

    /// From now on tunnels take so long there and back, in seconds by the name of the other node.
    pub fn measured(&self, rtts: BTreeMap<String, f64>) {
        self.lock().rtts = Arc::new(rtts);
    }

    /// Says how long the tunnel takes that a packet goes or came through.
    pub fn tell_round_trip(&self, flow: &mut Flow) {
        let rtts = Arc::clone(&self.lock().rtts);
        let node = flow.next_node.as_ref().or(flow.previous_node.as_ref());
        flow.tunnel_rtt_s = node.and_then(|node| rtts.get(node)).copied();
    }

    /// The names that things have.
    #[must_use]
    pub fn names(&self) -> Arc<Names> {
        Arc::clone(&self.lock().names)
    }

    /// What the kernel could not tell since its maps were made.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let state = self.lock();
        let losses = state.switch.as_ref().map(EventSwitch::losses);
        match losses {
            Some(Ok(losses)) => losses,
            Some(Err(error)) => {
                tracing::warn!(%error, "losses of events are not known");
                Losses::default()
            }
            None => Losses::default(),
        }
    }

    /// Events that were told since the agent started.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    fn publish(&self, names: &Names, event: &Event, frame: &[u8]) {
        let mut flow = decode::flow(event, frame, names);
        self.tell_round_trip(&mut flow);
        let flow = Arc::new(flow);
        self.told.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if state.history.len() == HISTORY {
            state.history.pop_front();
        }
        state.history.push_back(Arc::clone(&flow));
        // Under the lock, so that who takes the history and then listens misses none and hears
        // none twice. Nobody may be listening.
        let _ = self.flows.send(flow);
    }

    fn publish_captured(&self, names: &Names, event: &Event, frame: &[u8]) {
        let mut flow = decode::flow(event, frame, names);
        self.tell_round_trip(&mut flow);
        let tunnel = frame.len() - decode::inner(event, frame).len();
        let captured = CapturedPacket {
            flow,
            frame: to_hex(&frame[tunnel..]),
            length: event.length.saturating_sub(tunnel as u32),
        };
        let _ = self.captured.send(Arc::new(captured));
    }

    fn wish(self: &Arc<Self>, change: impl FnOnce(&mut State, u64)) -> Result<Wish, HubError> {
        let mut state = self.lock();
        state.last_listener += 1;
        let listener = state.last_listener;
        change(&mut state, listener);
        let switched = state.switch();
        drop(state);
        let wish = Wish {
            hub: Arc::clone(self),
            listener,
        };
        switched?;
        Ok(wish)
    }

    /// Tells a listener what it asked for, until that is done or the listener goes.
    ///
    /// # Errors
    /// When the question cannot be answered; what is sent is told before that.
    pub async fn tell(
        self: Arc<Self>,
        query: FlowQuery,
        out: mpsc::Sender<FlowItem>,
    ) -> Result<(), HubError> {
        let filter: FlowFilter = query.filter.parse()?;
        let sample = query.sample;
        let _wish = self.wish(|state, listener| {
            if sample > 0 && query.follow {
                state.samples.insert(listener, sample);
            }
        })?;
        let before = self.losses();
        let (history, mut live) = {
            let state = self.lock();
            let passing = state
                .history
                .iter()
                .rev()
                .filter(|flow| filter.matches(flow));
            let mut last: Vec<Arc<Flow>> = passing.take(query.last).cloned().collect();
            last.reverse();
            (last, self.flows.subscribe())
        };
        for flow in history {
            if out
                .send(FlowItem::Flow(Box::new(Flow::clone(&flow))))
                .await
                .is_err()
            {
                return Ok(());
            }
        }
        if !query.follow {
            return Ok(());
        }
        let mut told = FlowLosses::default();
        let mut slow = 0;
        let mut ticks = tokio::time::interval(LOSSES_EVERY);
        loop {
            tokio::select! {
                flow = live.recv() => match flow {
                    Ok(flow) if filter.matches(&flow) => {
                        let item = FlowItem::Flow(Box::new(Flow::clone(&flow)));
                        if out.send(item).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(count)) => slow += count,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = ticks.tick() => {
                    let now = self.losses();
                    let losses = FlowLosses {
                        limited: now.limited - before.limited,
                        ring_full: now.full - before.full,
                        capture_ring_full: 0,
                        listener_slow: slow,
                    };
                    if losses != told {
                        told = losses.clone();
                        let node = self.names().own.clone();
                        if out.send(FlowItem::Lost { node, losses }).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                () = out.closed() => return Ok(()),
            }
        }
    }

    /// Tells a listener of captured packets, until it goes.
    ///
    /// # Errors
    /// When the question cannot be answered.
    pub async fn capture(
        self: Arc<Self>,
        query: CaptureQuery,
        out: mpsc::Sender<CaptureItem>,
    ) -> Result<(), HubError> {
        let filter: FlowFilter = query.filter.parse()?;
        let number = match &query.endpoint {
            Some(name) => {
                let number = self.names().endpoint_number(name);
                number.ok_or_else(|| HubError::NoEndpoint(name.clone()))?
            }
            None => 0,
        };
        let bytes = query.bytes.clamp(64, FRAME_BYTES_MAX as u32);
        let mut live = self.captured.subscribe();
        let before = self.losses();
        let _wish = self.wish(|state, listener| {
            state.captures.insert(listener, (number, bytes));
        })?;
        let is_of = |flow: &Flow, name: &String| {
            let ends = [&flow.from.endpoint, &flow.to.endpoint, &flow.destination];
            ends.contains(&&Some(name.clone()))
        };
        let mut told = 0;
        let mut slow = 0;
        let mut ticks = tokio::time::interval(LOSSES_EVERY);
        loop {
            tokio::select! {
                packet = live.recv() => match packet {
                    Ok(packet) => {
                        let of_endpoint = query.endpoint.as_ref();
                        let ours = of_endpoint.is_none_or(|name| is_of(&packet.flow, name));
                        if ours && filter.matches(&packet.flow) {
                            let packet = CapturedPacket::clone(&packet);
                            let item = CaptureItem::Packet(Box::new(packet));
                            if out.send(item).await.is_err() {
                                return Ok(());
                            }
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(count)) => slow += count,
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = ticks.tick() => {
                    let lost = slow + self.losses().captured_full - before.captured_full;
                    if lost != told {
                        told = lost;
                        let node = self.names().own.clone();
                        let item = CaptureItem::Lost { node, packets: lost };
                        if out.send(item).await.is_err() {
                            return Ok(());
                        }
                    }
                }
                () = out.closed() => return Ok(()),
            }
        }
    }
}

impl State {
    /// Tells the kernel what all listeners together want.
    fn switch(&mut self) -> Result<(), super::RingError> {
        let windows_per_s = |per_s: u64| ((per_s << WINDOW_SHIFT) / 1_000_000_000) as u32;
        let mut settings = EventSettings {
            wanted: why::DROP | why::NEW | why::LOG,
            per_window: windows_per_s(EVENTS_PER_S),
            frame_bytes: FRAME_BYTES,
            ..EventSettings::default()
        };
        if let Some(one_of) = self.samples.values().min() {
            settings.wanted |= why::SAMPLE;
            settings.sample_below = u32::MAX / *one_of;
            settings.per_window = windows_per_s(SAMPLES_PER_S);
        }
        let mut endpoints = self.captures.values().map(|(endpoint, _)| *endpoint);
        if let Some(first) = endpoints.next() {
            settings.wanted |= why::CAPTURE;
            // Several captures: the kernel tells of all endpoints, and each takes its own.
            let same = endpoints.all(|endpoint| endpoint == first);
            settings.capture_endpoint = if same { first } else { 0 };
            let bytes = self.captures.values().map(|(_, bytes)| *bytes).max();
            settings.capture_bytes = bytes.unwrap_or(FRAME_BYTES);
        }
        match &mut self.switch {
            Some(switch) => switch.set(settings),
            None => Ok(()),
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.samples.remove(&self.listener);
        state.captures.remove(&self.listener);
        if let Err(error) = state.switch() {
            tracing::warn!(%error, "the kernel goes on telling what nobody wants");
        }
    }
}

const _: () = assert!(FRAME_BYTES as usize + EVENT_BYTES < FRAME_BYTES_MAX);
