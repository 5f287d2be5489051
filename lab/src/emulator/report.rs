//! What the emulator tells of itself: per pair the traffic, the lateness and
//! the drops. Serialised as it stands by the control socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::drop_log::DropLog;
use super::histogram::Histogram;
use super::scheduler::Scheduler;
use super::shaper::{DropReason, Nanos};
use crate::link::LinkParams;

/// State of the whole emulator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmulatorReport {
    /// The emulator runs with `SCHED_FIFO`.
    pub realtime: bool,
    /// Why it does not, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realtime_refused: Option<String>,
    /// Frames that the kernel dropped because the emulator read too slowly;
    /// their pair is unknown. Any is a sign of an overloaded machine.
    pub socket_overflow_frames: u64,
    /// Packets that the kernel dropped between devices because a processor's
    /// backlog was full (`net.core.netdev_max_backlog`). The kernel counts them
    /// for the whole machine, so they need not be the lab's; but a frame that
    /// is in no drop log and did not arrive is one of these, or was dropped by
    /// its receiver.
    pub machine_backlog_drops: u64,
    /// Every ordered pair of different nodes.
    pub links: Vec<LinkReport>,
    /// Frames that no link took, per source node with any.
    pub unrouted: Vec<UnroutedReport>,
}

/// State of one ordered pair.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Source node.
    pub from: String,
    /// Destination node.
    pub to: String,
    /// Parameters in force.
    pub params: LinkParams,
    /// Frames delivered.
    pub delivered_frames: u64,
    /// Bytes delivered, Ethernet headers included.
    pub delivered_bytes: u64,
    /// Real minus scheduled transmit time.
    pub lateness: Lateness,
    /// Dropped frames by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// The latest drops, oldest first.
    pub recent_drops: Vec<DropRecord>,
}

/// How much later than scheduled frames left, microseconds. The real time is
/// taken after the system call that transmits, so it is never flattering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lateness {
    /// Frames measured.
    pub frames: u64,
    /// Half of the frames were at most this late.
    pub p50_us: f64,
    /// 99 % of the frames were at most this late.
    pub p99_us: f64,
    /// The latest frame.
    pub max_us: f64,
}

/// One dropped frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropRecord {
    /// When, seconds since the Unix epoch.
    pub unix_seconds: f64,
    /// Length of the frame, bytes.
    pub length_bytes: u32,
    /// Why.
    pub reason: DropReason,
}

/// Frames of one node that had nowhere to go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnroutedReport {
    /// Source node.
    pub from: String,
    /// Dropped frames by reason.
    pub dropped: BTreeMap<DropReason, u64>,
    /// The latest drops, oldest first.
    pub recent_drops: Vec<DropRecord>,
}

impl EmulatorReport {
    /// The report of one ordered pair.
    #[must_use]
    pub fn link(&self, from: &str, to: &str) -> Option<&LinkReport> {
        self.links.iter().find(|l| l.from == from && l.to == to)
    }

    /// The worst 99th percentile and maximum of the lateness over all links.
    #[must_use]
    pub fn worst_lateness(&self) -> Lateness {
        self.links
            .iter()
            .fold(Lateness::default(), |worst, link| Lateness {
                frames: worst.frames + link.lateness.frames,
                p50_us: worst.p50_us.max(link.lateness.p50_us),
                p99_us: worst.p99_us.max(link.lateness.p99_us),
                max_us: worst.max_us.max(link.lateness.max_us),
            })
    }
}

impl From<&Histogram> for Lateness {
    fn from(histogram: &Histogram) -> Self {
        Self {
            frames: histogram.count(),
            p50_us: histogram.percentile(50.0) as f64 / 1e3,
            p99_us: histogram.percentile(99.0) as f64 / 1e3,
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

/// The reports of all links and of the sources with unrouted frames.
/// `unix_minus_monotonic_ns` translates the drops' times.
pub(crate) fn links<F>(
    scheduler: &Scheduler<F>,
    names: &[String],
    unix_minus_monotonic_ns: u64,
) -> (Vec<LinkReport>, Vec<UnroutedReport>) {
    let records = |log: &DropLog| {
        log.recent()
            .map(|drop| DropRecord {
                unix_seconds: unix_seconds(drop.at, unix_minus_monotonic_ns),
                length_bytes: drop.length,
                reason: drop.reason,
            })
            .collect()
    };
    let mut links = Vec::new();
    for (from, from_name) in names.iter().enumerate() {
        for (to, to_name) in names.iter().enumerate().filter(|(to, _)| *to != from) {
            let link = scheduler.link(from, to);
            links.push(LinkReport {
                from: from_name.clone(),
                to: to_name.clone(),
                params: *link.shaper.params(),
                delivered_frames: link.books.delivered_frames,
                delivered_bytes: link.books.delivered_bytes,
                lateness: Lateness::from(&link.books.lateness),
                dropped: link.books.drops.counts().clone(),
                recent_drops: records(&link.books.drops),
            });
        }
    }
    let unrouted = names
        .iter()
        .enumerate()
        .map(|(from, name)| (name, scheduler.unrouted(from)))
        .filter(|(_, log)| !log.counts().is_empty())
        .map(|(name, log)| UnroutedReport {
            from: name.clone(),
            dropped: log.counts().clone(),
            recent_drops: records(log),
        })
        .collect();
    (links, unrouted)
}

fn unix_seconds(at: Nanos, unix_minus_monotonic_ns: u64) -> f64 {
    at.saturating_add(unix_minus_monotonic_ns) as f64 / 1e9
}
