//! The emulator's thread: read frames, ask the scheduler, transmit on time.
//!
//! How late a sleep ends depends on the machine (a virtual one that went idle
//! takes a tenth of a millisecond, a busy one next to nothing), so the thread
//! learns it, asks to be woken by that much earlier, and spins for what is
//! left, at most [`SPIN_NS`].

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::EventFd;
use nix::sys::time::TimeSpec;

use super::clocks::Clocks;
use super::frame::{self, FRAME_MAX, Frame};
use super::kept::Kept;
use super::report::{self, EmulatorReport};
use super::scheduler::{Departure, Scheduler};
use super::shaper::{DropReason, Nanos};
use super::socket::PacketSocket;
use super::{Command, Leg};
use crate::mac::Mac;
use crate::realtime::{EMULATOR_PRIORITY, monotonic_ns};
use crate::sys::{self, FRAME_CAPACITY, RECEIVE_BATCH, ReceivedFrame, SEND_BATCH};

/// The longest spin: what is left of a sleep that ended early.
const SPIN_NS: u64 = 50_000;
/// The earliest that a sleep is made to end before a frame is due.
const LEAD_NS_MAX: u64 = 200_000;
/// A frame is taken to have waited unread no longer than this.
const UNREAD_NS_MAX: u64 = 100_000_000;
/// Batches read before due frames are looked at again.
const RECEIVE_ROUNDS: usize = 2;

/// Buffers kept for later frames at most, 32 MiB; more are given back.
const SPARE_MAX: usize = 1 << 14;

type Buffer = Box<[u8; FRAME_CAPACITY]>;

/// The shell around the scheduler.
pub(super) struct Engine {
    scheduler: Scheduler<Buffer>,
    legs: Vec<Leg>,
    leg_by_ifindex: HashMap<u32, usize>,
    leg_by_subnet: HashMap<[u8; 3], usize>,
    leg_by_prefix: HashMap<[u16; 4], usize>,
    socket: PacketSocket,
    inbox: Receiver<Command>,
    wake: Arc<EventFd>,
    spare: Vec<Buffer>,
    kept: Kept,
    clocks: Clocks,
    /// How late sleeps have ended of late, nanoseconds.
    oversleep: u64,
    overflow_frames: u64,
    /// Backlog drops of the machine when the books were opened.
    backlog_drops_before: u64,
    realtime_refused: Option<String>,
}

impl Engine {
    /// Opens the socket and asks for real-time scheduling on this thread.
    pub(super) fn open(
        scheduler: Scheduler<Buffer>,
        legs: Vec<Leg>,
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let realtime_refused = sys::set_fifo(EMULATOR_PRIORITY).err().map(|error| {
            let reason = format!(
                "SCHED_FIFO was refused ({error}), so link delays include scheduling noise; \
                 run with CAP_SYS_NICE"
            );
            tracing::warn!("{reason}");
            reason
        });
        let by_ifindex = legs.iter().enumerate().map(|(i, leg)| (leg.ifindex, i));
        let by_subnet = legs
            .iter()
            .enumerate()
            .map(|(i, leg)| (subnet(leg.address), i));
        let by_prefix = legs
            .iter()
            .enumerate()
            .filter_map(|(i, leg)| Some((prefix(leg.address_v6?), i)));
        Ok(Self {
            leg_by_prefix: by_prefix.collect(),
            leg_by_ifindex: by_ifindex.collect(),
            leg_by_subnet: by_subnet.collect(),
            socket: PacketSocket::open()?,
            scheduler,
            legs,
            inbox,
            wake,
            spare: Vec::new(),
            kept: Kept::default(),
            clocks: Clocks::measure(),
            oversleep: 0,
            overflow_frames: 0,
            backlog_drops_before: backlog_drops(),
            realtime_refused,
        })
    }

    /// Runs until told to stop, or until the lab that owns it is gone.
    pub(super) fn run(mut self) {
        let mut due = Vec::with_capacity(SEND_BATCH);
        let mut batch = Vec::with_capacity(RECEIVE_BATCH);
        while self.obey() {
            self.spare.truncate(SPARE_MAX);
            for _ in 0..RECEIVE_ROUNDS {
                if !self.receive(&mut batch) {
                    break;
                }
            }
            while self.transmit_due(&mut due) {}
            self.wait();
        }
    }

    fn obey(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
                Ok(Command::Change {
                    from,
                    to,
                    change,
                    done,
                }) => {
                    let shaper = &mut self.scheduler.link_mut(from, to).shaper;
                    let mut params = *shaper.params();
                    let result = change.apply(&mut params).map(|()| params);
                    shaper.set_params(params);
                    let _ = done.send(result);
                }
                Ok(Command::Report(reply)) => {
                    let _ = reply.send(self.report());
                }
                Ok(Command::Keep { frames_max, done }) => {
                    self.kept.keep(frames_max);
                    let _ = done.send(());
                }
                Ok(Command::TakeKept(reply)) => {
                    let _ = reply.send(self.kept.take(|leg| self.legs[leg].node.clone()));
                }
                Ok(Command::ResetBooks(done)) => {
                    self.scheduler.reset_books();
                    let _ = self.socket.overflow_frames();
                    self.overflow_frames = 0;
                    self.backlog_drops_before = backlog_drops();
                    let _ = done.send(());
                }
            }
        }
    }

    fn report(&mut self) -> EmulatorReport {
        self.overflow_frames += self.socket.overflow_frames();
        let names: Vec<String> = self.legs.iter().map(|leg| leg.node.clone()).collect();
        let offset = self.clocks.unix_minus_monotonic;
        let (links, unrouted) = report::links(&self.scheduler, &names, offset);
        EmulatorReport {
            realtime: self.realtime_refused.is_none(),
            realtime_refused: self.realtime_refused.clone(),
            socket_overflow_frames: self.overflow_frames,
            machine_backlog_drops: backlog_drops().saturating_sub(self.backlog_drops_before),
            links,
            unrouted,
        }
    }

    /// Reads one batch; true when more may be waiting.
    fn receive(&mut self, batch: &mut Vec<Buffer>) -> bool {
        while batch.len() < RECEIVE_BATCH {
            let buffer = self.spare.pop();
            batch.push(buffer.unwrap_or_else(|| Box::new([0; FRAME_CAPACITY])));
        }
        let mut received = [ReceivedFrame::default(); RECEIVE_BATCH];
        let count = match sys::receive_batch(self.socket.as_fd(), batch, &mut received) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "the link emulator could not read frames");
                0
            }
        };
        let now = monotonic_ns();
        self.clocks.look(now);
        for (frame, buffer) in received.iter().zip(batch.drain(..count)) {
            let arrived = frame
                .realtime_ns
                .map_or(now, |at| self.clocks.monotonic(at));
            // Should the wall clock step just now, no frame moves far in time.
            let arrived = arrived.clamp(now.saturating_sub(UNREAD_NS_MAX), now);
            if let Some(unused) = self.accept(arrived, frame, buffer) {
                self.spare.push(unused);
            }
        }
        count == RECEIVE_BATCH
    }

    /// Takes in one frame; returns its buffer when it is of no more use.
    fn accept(
        &mut self,
        at: Nanos,
        received: &ReceivedFrame,
        mut buffer: Buffer,
    ) -> Option<Buffer> {
        let Some(from) = self.leg_by_ifindex.get(&received.ifindex).copied() else {
            // The namespace's loopback device carries no underlay traffic.
            return Some(buffer);
        };
        let length = received.length;
        if received.truncated || length > FRAME_MAX {
            let booked = length.min(u32::MAX as usize) as u32;
            self.scheduler.refuse(at, from, booked, DropReason::TooLong);
            let head = &buffer[..length.min(FRAME_CAPACITY)];
            self.kept.record(at, from, None, DropReason::TooLong, head);
            return Some(buffer);
        }
        let bytes = &mut buffer[..length];
        let reason = match frame::parse(bytes) {
            // A gateway takes what is addressed to it and nothing else.
            Frame::Ipv4 { .. } | Frame::Ipv6 { .. }
                if frame::destination(bytes) == Some(self.legs[from].gateway_mac) =>
            {
                if let Some(to) = self.leg_to(bytes) {
                    frame::readdress(bytes, self.legs[to].gateway_mac, self.legs[to].node_mac);
                    let offered = self.scheduler.offer(at, from, to, length as u32, buffer);
                    let (reason, buffer) = offered.err()?;
                    self.kept
                        .record(at, from, Some(to), reason, &buffer[..length]);
                    return Some(buffer);
                }
                DropReason::NoRoute
            }
            Frame::ArpRequest { sender, target } => {
                // The sender may be announcing a new hardware address.
                if let Some(mac) = frame::source(bytes)
                    && sender == self.legs[from].address
                {
                    self.legs[from].node_mac = mac;
                }
                if target == self.legs[from].gateway {
                    self.answer_arp(from, frame::source(bytes), sender);
                }
                // Others are for neighbours that a node does not have.
                return Some(buffer);
            }
            Frame::Solicitation { sender, target } => {
                if target == self.legs[from].gateway_v6 {
                    self.advertise(from, frame::source(bytes), sender);
                }
                return Some(buffer);
            }
            Frame::OfTheLink => return Some(buffer),
            Frame::Ipv4 { .. } | Frame::Ipv6 { .. } | Frame::Other => DropReason::NotForwardable,
        };
        self.scheduler.refuse(at, from, length as u32, reason);
        self.kept.record(at, from, None, reason, &buffer[..length]);
        Some(buffer)
    }

    /// Where a packet goes.
    fn leg_to(&self, bytes: &[u8]) -> Option<usize> {
        match frame::parse(bytes) {
            Frame::Ipv4 { destination } => self.leg_by_subnet.get(&subnet(destination)).copied(),
            Frame::Ipv6 { destination } => self.leg_by_prefix.get(&prefix(destination)).copied(),
            _ => None,
        }
    }

    fn advertise(&self, leg: usize, asker_mac: Option<Mac>, asker: Ipv6Addr) {
        let leg = &self.legs[leg];
        let asker_mac = asker_mac.unwrap_or(leg.node_mac);
        let answer = frame::advertisement(leg.gateway_mac, leg.gateway_v6, asker_mac, asker);
        if let Err(error) = sys::send_batch(self.socket.as_fd(), &[(leg.ifindex, &answer)]) {
            tracing::warn!(node = leg.node, %error, "could not advertise the gateway");
        }
    }

    fn answer_arp(&self, leg: usize, asker_mac: Option<Mac>, asker: Ipv4Addr) {
        let leg = &self.legs[leg];
        let asker_mac = asker_mac.unwrap_or(leg.node_mac);
        let reply = frame::arp_reply(leg.gateway_mac, leg.gateway, asker_mac, asker);
        if let Err(error) = sys::send_batch(self.socket.as_fd(), &[(leg.ifindex, &reply)]) {
            tracing::warn!(node = leg.node, %error, "could not answer ARP for the gateway");
        }
    }

    /// Sends what is due now; true when it sent anything.
    fn transmit_due(&mut self, due: &mut Vec<Departure<Buffer>>) -> bool {
        let now = monotonic_ns();
        while due.len() < SEND_BATCH
            && let Some(departure) = self.scheduler.pop_due(now)
        {
            due.push(departure);
        }
        let any = !due.is_empty();
        while !due.is_empty() {
            let mut frames = [(0, &[][..]); SEND_BATCH];
            for (slot, departure) in frames.iter_mut().zip(due.iter()) {
                let bytes = &departure.frame[..departure.length as usize];
                *slot = (self.legs[departure.to].ifindex, bytes);
            }
            let (count, sent) = match sys::send_batch(self.socket.as_fd(), &frames[..due.len()]) {
                // Zero cannot be for a non-empty batch; never loop on it.
                Ok(count) => (count.max(1), count > 0),
                Err(_) => (1, false),
            };
            let at = monotonic_ns();
            for departure in due.drain(..count) {
                if !sent {
                    let (from, to) = (departure.from, Some(departure.to));
                    let frame = &departure.frame[..departure.length as usize];
                    let reason = DropReason::SocketError;
                    self.kept.record(at, from, to, reason, frame);
                }
                let buffer = self.scheduler.finish(departure, at, sent);
                self.spare.push(buffer);
            }
        }
        any
    }

    /// Waits until a frame arrives, a command comes or a frame is due.
    fn wait(&mut self) {
        let now = monotonic_ns();
        let remaining = self.scheduler.next_due().map(|due| due.saturating_sub(now));
        if let Some(remaining) = remaining
            && remaining <= SPIN_NS
        {
            let due = now + remaining;
            while monotonic_ns() < due {
                std::hint::spin_loop();
            }
            return;
        }
        let lead = SPIN_NS.max(self.oversleep.min(LEAD_NS_MAX));
        // Too near for the whole lead: sleep as long as the spin allows.
        let sleep = remaining.map(|ns| ns.checked_sub(lead).unwrap_or(ns - SPIN_NS));
        let mut waited = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
        ];
        // EINTR is as good as any other reason to look again.
        let events = ppoll(&mut waited, sleep.map(timespec), None);
        if let (Ok(0), Some(sleep)) = (events, sleep) {
            let overslept = monotonic_ns().saturating_sub(now + sleep);
            self.oversleep = (self.oversleep * 7 + overslept) / 8;
        }
        if waited[1].any().unwrap_or(true) {
            let _ = self.wake.read();
        }
    }
}

/// Packets that the kernel dropped because a processor's backlog was full, all
/// namespaces together: the second column of each processor's line.
fn backlog_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let column = |line: &str| u64::from_str_radix(line.split(' ').nth(1)?, 16).ok();
    text.lines().filter_map(column).sum()
}

fn timespec(ns: u64) -> TimeSpec {
    TimeSpec::new((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64)
}

/// Each node's /64 is routed to it whole.
fn prefix(address: Ipv6Addr) -> [u16; 4] {
    let [a, b, c, d, ..] = address.segments();
    [a, b, c, d]
}

/// Each node's /24 is routed to it whole.
fn subnet(address: Ipv4Addr) -> [u8; 3] {
    let [a, b, c, _] = address.octets();
    [a, b, c]
}
