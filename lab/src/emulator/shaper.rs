//! One ordered pair's link: loss, queue, serialisation, delay, jitter. Pure:
//! time and lengths go in, a fate comes out.
//!
//! ```text
//! frame --link up?--loss?--queue full?--> serialise (rate) --delay + jitter--> due
//! ```
//! With constant parameters: no frame is due before `offered + delay`; without
//! jitter frames are due in the order of the times they were offered at (a frame
//! that crossed another processor's backlog may be read after a later one);
//! what is due in any window never exceeds the rate by more than one frame.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::random::Random;
use crate::link::{LinkParams, QueueLimit};

/// Nanoseconds on the clock that the shell injects (`CLOCK_MONOTONIC`).
pub(crate) type Nanos = u64;

/// Why the emulator dropped a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// Lost by the configured probability.
    Loss,
    /// The queue before the rate limit was full.
    QueueFull,
    /// The link was down.
    LinkDown,
    /// The lab as a whole holds too many frames under way.
    InFlightLimit,
    /// No node has the destination address.
    NoRoute,
    /// No IPv4, malformed, or not for the gateway's hardware address.
    NotForwardable,
    /// Longer than the underlay's MTU allows: an offload was turned back on.
    TooLong,
    /// The kernel refused to transmit the frame.
    SocketError,
}

/// What becomes of an offered frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives at this time.
    Deliver(Nanos),
    /// It does not arrive.
    Drop(DropReason),
}

/// The state of one ordered pair.
#[derive(Debug)]
pub(crate) struct Shaper {
    params: LinkParams,
    random: Random,
    /// When the serialiser becomes free.
    free_at: Nanos,
    /// Frames not yet fully serialised: (end of serialisation, length).
    queue: VecDeque<(Nanos, u32)>,
    queue_bytes: u64,
}

impl Shaper {
    pub(crate) fn new(params: LinkParams, random: Random) -> Self {
        Self {
            params,
            random,
            free_at: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
        }
    }

    pub(crate) fn params(&self) -> &LinkParams {
        &self.params
    }

    /// Puts other parameters in force for frames offered from now on.
    pub(crate) fn set_params(&mut self, params: LinkParams) {
        self.params = params;
    }

    /// Decides a frame of `length` bytes that reached the link at `now`.
    pub(crate) fn offer(&mut self, now: Nanos, length: u32) -> Fate {
        if !self.params.up {
            return Fate::Drop(DropReason::LinkDown);
        }
        if self.params.loss > 0.0 && self.random.chance(self.params.loss) {
            return Fate::Drop(DropReason::Loss);
        }
        self.expire(now);
        let start = now.max(self.free_at);
        let serialised = match self.params.rate_bits_per_s {
            // A queue left over from a rate that was lifted keeps its order.
            None => start,
            Some(rate) => {
                if !self.fits(length) {
                    return Fate::Drop(DropReason::QueueFull);
                }
                let bits_ns = u128::from(length) * 8 * 1_000_000_000;
                start + bits_ns.div_ceil(u128::from(rate)) as u64
            }
        };
        if serialised > now {
            self.queue.push_back((serialised, length));
            self.queue_bytes += u64::from(length);
            self.free_at = serialised;
        }
        let jitter = match self.params.jitter {
            Duration::ZERO => 0,
            jitter => self.random.up_to(jitter.as_nanos() as u64),
        };
        Fate::Deliver(serialised + self.params.delay.as_nanos() as u64 + jitter)
    }

    fn fits(&self, length: u32) -> bool {
        match self.params.queue {
            QueueLimit::Packets(limit) => self.queue.len() < limit as usize,
            QueueLimit::Bytes(limit) => self.queue_bytes + u64::from(length) <= limit,
        }
    }

    fn expire(&mut self, now: Nanos) {
        while let Some((end, length)) = self.queue.front().copied() {
            if end > now {
                break;
            }
            self.queue.pop_front();
            self.queue_bytes -= u64::from(length);
        }
    }
}

#[cfg(test)]
#[path = "shaper_tests.rs"]
mod tests;
