//! Forgets flows that are over or not heard of, on a thread of its own, and says how much room is
//! left.
//!
//! ```text
//! every 2 s, or every second while more than half of the room is taken:
//!   FLOWS     forget what is over; the fuller, the sooner; free what was forgotten
//!   OVERFLOW  forget what is over; take back what there is room for, both ways first
//!   all back and room left -> packets look in one map only again
//!   OUTSIDE   forget what is over, and have its ports back
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sunwire_dataplane_common::expiry::{
    CLOSED_WHEN_HALF_FULL_S, ENDINGS, Ending, Lifetime, SILENCE_S, SILENCE_UNDER_PRESSURE_S, Sweep,
    take,
};

use super::{
    Connections,
    clock::Hertz,
    tables::{Tables, TablesError, Which},
};
use crate::dataplane::chain;

/// How often there is a sweep.
const EVERY: Duration = Duration::from_secs(2);
/// How often while more than half of the room is taken.
const EVERY_WHEN_HALF_FULL: Duration = Duration::from_secs(1);

/// How many flows there are, and what became of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// IPv4 flows, as of the last sweep.
    pub in_use_v4: u32,
    /// IPv6 flows, likewise.
    pub in_use_v6: u32,
    /// Lines of the table that both families share.
    pub capacity: u32,
    /// Flows there was no room for that are remembered while others do not need their place.
    pub overflow: u32,
    /// Flows for which there was no room, since the maps were made.
    pub overflowed_total: u64,
    /// Whether there is no room now.
    pub is_overflowing: bool,
    /// Packets under a `limit` that shared a bucket because there was no room for theirs, since the
    /// maps were made.
    #[serde(default)]
    pub unbucketed_total: u64,
    /// Flows that were forgotten since the agent started, by reason.
    pub ended_total: BTreeMap<String, u64>,
    /// How long the last sweep took, µs.
    pub sweep_us: u64,
    /// Connections that leave the cloud at this node, as of the last sweep.
    #[serde(default)]
    pub outbound: u32,
    /// Connections of that kind that there is room for.
    #[serde(default)]
    pub outbound_capacity: u32,
}

/// What sweeps remember from one to the next.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    in_use: [u32; 2],
    overflow: u32,
    ended: [u64; ENDINGS],
    overflowed_total: u64,
    is_overflowing: bool,
    unbucketed_total: u64,
    sweep_us: u64,
    outbound: u32,
    outbound_capacity: u32,
}

/// Flows up to which there is room: above, new ones that nobody answers go early.
fn comfortable(capacity: usize) -> u32 {
    (capacity - capacity / 8) as u32
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    /// More than half.
    Plenty,
    /// Less than half: what is over goes early, so that a server of short connections does not fill
    /// the rest with them.
    Half,
    /// Little, or none.
    Little,
}

/// The limits of a sweep.
fn limits(hertz: Hertz, room: Room) -> Sweep {
    let mut silence = SILENCE_S.map(|seconds| hertz.jiffies(seconds));
    if room >= Room::Half {
        silence[Lifetime::TcpClosed as usize] = hertz.jiffies(CLOSED_WHEN_HALF_FULL_S);
    }
    let one_way = match room {
        Room::Little => hertz.jiffies(SILENCE_UNDER_PRESSURE_S),
        Room::Plenty | Room::Half => 0,
    };
    Sweep {
        silence,
        one_way,
        ..Sweep::default()
    }
}

impl Sweeper {
    /// How much room there was at the last sweep.
    fn room(&self, capacity: usize) -> Room {
        let in_use = self.total();
        if self.is_overflowing || in_use > comfortable(capacity) {
            Room::Little
        } else if in_use > (capacity / 2) as u32 {
            Room::Half
        } else {
            Room::Plenty
        }
    }

    fn total(&self) -> u32 {
        self.in_use.iter().sum()
    }

    /// Sweeps once.
    pub(super) fn sweep(&mut self, tables: &Tables) -> Result<(), TablesError> {
        let started = Instant::now();
        let capacity = tables.capacity();
        self.is_overflowing = tables.is_overflowed()?;
        let limits = limits(tables.hertz(), self.room(capacity));
        let found = tables.sweep(Which::Table, limits)?;
        self.in_use = found.kept;
        self.count(&found);
        if self.is_overflowing {
            self.take_back(tables, limits, take::BOTH_WAYS)?;
            self.take_back(tables, limits, take::ALL)?;
            if self.overflow == 0 && self.total() < comfortable(capacity) {
                tables.clear_overflowed()?;
                // What came between the last look and the word.
                self.take_back(tables, limits, take::ALL)?;
                self.is_overflowing = false;
            }
        }
        self.sweep_outbound(tables)?;
        self.overflowed_total = tables.overflow_total()?;
        tables.sweep_buckets()?;
        self.unbucketed_total = tables.unbucketed_total()?;
        self.sweep_us = started.elapsed().as_micros() as u64;
        Ok(())
    }

    /// Connections that leave the cloud here, which have a table of their own.
    fn sweep_outbound(&mut self, tables: &Tables) -> Result<(), TablesError> {
        let capacity = tables.outbound_capacity();
        let room = match self.outbound as usize {
            many if many > capacity - capacity / 8 => Room::Little,
            many if many > capacity / 2 => Room::Half,
            _ => Room::Plenty,
        };
        let found = tables.sweep(Which::Outside, limits(tables.hertz(), room))?;
        self.outbound = found.kept.iter().sum();
        self.outbound_capacity = capacity as u32;
        Ok(())
    }

    fn take_back(&mut self, tables: &Tables, limits: Sweep, take: u32) -> Result<(), TablesError> {
        self.overflow = 0;
        let maps = [Which::OverflowV4, Which::OverflowV6];
        for (family, which) in maps.into_iter().enumerate() {
            let room = comfortable(tables.capacity()).saturating_sub(self.total());
            let limits = Sweep {
                room,
                take,
                ..limits
            };
            let found = tables.sweep(which, limits)?;
            self.in_use[family] += found.taken;
            self.overflow += found.kept[family];
            self.count(&found);
        }
        Ok(())
    }

    fn count(&mut self, found: &Sweep) {
        for (total, count) in self.ended.iter_mut().zip(found.ended) {
            *total += u64::from(count);
        }
    }

    /// What is to be told of it.
    pub(super) fn usage(&self, capacity: usize) -> Usage {
        let ended = Ending::ALL.iter();
        let ended = ended.map(|ending| (ending.name().to_owned(), self.ended[*ending as usize]));
        Usage {
            in_use_v4: self.in_use[0],
            in_use_v6: self.in_use[1],
            capacity: capacity as u32,
            overflow: self.overflow,
            overflowed_total: self.overflowed_total,
            is_overflowing: self.is_overflowing,
            unbucketed_total: self.unbucketed_total,
            ended_total: ended.collect(),
            sweep_us: self.sweep_us,
            outbound: self.outbound,
            outbound_capacity: self.outbound_capacity,
        }
    }
}

/// Sweeps until it is dropped.
pub struct Sweeping {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeping {
    /// Starts to sweep.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(connections: &Arc<Connections>) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let connections = Arc::downgrade(connections);
        let thread = thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || run(&connections, &stopped))?;
        Ok(Sweeping {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Sweeping {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A sweep is over in a moment; if it panicked, that was told.
            let _ = thread.join();
        }
    }
}

fn run(connections: &Weak<Connections>, stopped: &mpsc::Receiver<()>) {
    let mut every = EVERY;
    let mut was_overflowing = false;
    let mut was_failing = false;
    while let Err(mpsc::RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
        let Some(connections) = connections.upgrade() else {
            return;
        };
        let outcome = connections.sweep();
        let usage = connections.usage();
        match outcome {
            Ok(()) => was_failing = false,
            // Once until it works again.
            Err(error) if !was_failing => {
                was_failing = true;
                tracing::error!(error = %chain(&error), "flows are not swept");
            }
            Err(_) => {}
        }
        // Once when it begins, and once when it ends.
        if usage.is_overflowing && !was_overflowing {
            tracing::warn!(
                capacity = usage.capacity,
                in_use_v4 = usage.in_use_v4,
                in_use_v6 = usage.in_use_v6,
                overflowed_total = usage.overflowed_total,
                "there is no room for new flows: they make way for each other; those that are \
                 there stay"
            );
        } else if was_overflowing && !usage.is_overflowing {
            tracing::info!(
                overflowed_total = usage.overflowed_total,
                "there is room for flows again"
            );
        }
        was_overflowing = usage.is_overflowing;
        every = match connections.room() {
            Room::Plenty => EVERY,
            Room::Half | Room::Little => EVERY_WHEN_HALF_FULL,
        };
    }
}

impl Connections {
    /// Forgets what is over. Before the first state was applied nothing is known of endpoints, and
    /// nothing is done.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn sweep(&self) -> Result<(), TablesError> {
        if !self.is_known() {
            return Ok(());
        }
        self.sweeper().sweep(&self.tables)
    }

    /// How many flows there are, as of the last sweep.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.sweeper().usage(self.tables.capacity())
    }

    fn room(&self) -> Room {
        self.sweeper().room(self.tables.capacity())
    }
}
