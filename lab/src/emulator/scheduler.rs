//! All links of a lab and the frames under way, ordered by when they are due.
//! Pure: the shell passes the time in and carries frames `F` in and out.
//!
//! Every offered frame either comes out of [`Scheduler::pop_due`] once or is in
//! the drop log of its pair (or of its source node, when it has no destination).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::drop_log::DropLog;
use super::histogram::Histogram;
use super::random::Random;
use super::shaper::{DropReason, Fate, Nanos, Shaper};
use crate::link::LinkParams;

/// Frames that a lab holds at most, 256 MiB of buffers and more than a second of
/// gigabit: memory stays bounded even with long delays and no rate limit.
pub(crate) const IN_FLIGHT_FRAMES_MAX: usize = 1 << 17;

/// One ordered pair's link with its books.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) shaper: Shaper,
    pub(crate) books: Books,
}

/// What a link counts; cleared together by [`Scheduler::reset_books`].
#[derive(Clone, Default)]
pub(crate) struct Books {
    pub(crate) delivered_frames: u64,
    pub(crate) delivered_bytes: u64,
    /// Real minus scheduled transmit time.
    pub(crate) lateness: Histogram,
    pub(crate) drops: DropLog,
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Books({} delivered)", self.delivered_frames)
    }
}

/// A frame that is due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Departure<F> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) due: Nanos,
    pub(crate) length: u32,
    pub(crate) frame: F,
}

#[derive(Debug)]
struct Scheduled<F> {
    order: (Nanos, u64),
    departure: Departure<F>,
}

impl<F> PartialEq for Scheduled<F> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl<F> Eq for Scheduled<F> {}
impl<F> PartialOrd for Scheduled<F> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<F> Ord for Scheduled<F> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// The links between `nodes` nodes and what is under way on them.
#[derive(Debug)]
pub(crate) struct Scheduler<F> {
    nodes: usize,
    links: Vec<Link>,
    unrouted: Vec<DropLog>,
    under_way: BinaryHeap<Reverse<Scheduled<F>>>,
    sequence: u64,
}

impl<F> Scheduler<F> {
    /// Links by `params(from, to)`, loss and jitter by `seed`.
    pub(crate) fn new(
        nodes: usize,
        seed: u64,
        params: impl Fn(usize, usize) -> LinkParams,
    ) -> Self {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        Self {
            nodes,
            links: pairs
                .map(|(from, to)| Link {
                    shaper: Shaper::new(params(from, to), Random::for_pair(seed, from, to)),
                    books: Books::default(),
                })
                .collect(),
            unrouted: vec![DropLog::default(); nodes],
            under_way: BinaryHeap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> &Link {
        &self.links[from * self.nodes + to]
    }

    pub(crate) fn link_mut(&mut self, from: usize, to: usize) -> &mut Link {
        &mut self.links[from * self.nodes + to]
    }

    pub(crate) fn unrouted(&self, from: usize) -> &DropLog {
        &self.unrouted[from]
    }

    /// Takes a frame that reached the emulator at `now`; a dropped frame is
    /// booked and handed back with the reason, so that its buffer can be used again.
    pub(crate) fn offer(
        &mut self,
        now: Nanos,
        from: usize,
        to: usize,
        length: u32,
        frame: F,
    ) -> Result<(), (DropReason, F)> {
        let full = self.under_way.len() >= IN_FLIGHT_FRAMES_MAX;
        let link = self.link_mut(from, to);
        let fate = if full {
            Fate::Drop(DropReason::InFlightLimit)
        } else {
            link.shaper.offer(now, length)
        };
        match fate {
            Fate::Drop(reason) => {
                link.books.drops.record(now, length, reason);
                Err((reason, frame))
            }
            Fate::Deliver(due) => {
                let departure = Departure {
                    from,
                    to,
                    due,
                    length,
                    frame,
                };
                // The sequence keeps the order of frames due at the same time.
                let order = (due, self.sequence);
                self.sequence += 1;
                self.under_way.push(Reverse(Scheduled { order, departure }));
                Ok(())
            }
        }
    }

    /// Books a frame of node `from` that no link takes.
    pub(crate) fn refuse(&mut self, now: Nanos, from: usize, length: u32, reason: DropReason) {
        self.unrouted[from].record(now, length, reason);
    }

    /// When the next frame is due.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        self.under_way.peek().map(|Reverse(next)| next.order.0)
    }

    /// The next frame due at `now` or before.
    pub(crate) fn pop_due(&mut self, now: Nanos) -> Option<Departure<F>> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(next) = self.under_way.pop()?;
        Some(next.departure)
    }

    /// Books the end of a departure: transmitted at `at`, or refused by the
    /// kernel. Hands the frame back.
    pub(crate) fn finish(&mut self, departure: Departure<F>, at: Nanos, sent: bool) -> F {
        let books = &mut self.link_mut(departure.from, departure.to).books;
        if sent {
            books.delivered_frames += 1;
            books.delivered_bytes += u64::from(departure.length);
            books.lateness.record(at.saturating_sub(departure.due));
        } else {
            books
                .drops
                .record(at, departure.length, DropReason::SocketError);
        }
        departure.frame
    }

    /// Forgets counts, lateness and drops, not the frames under way.
    pub(crate) fn reset_books(&mut self) {
        self.links
            .iter_mut()
            .for_each(|link| link.books = Books::default());
        self.unrouted.fill(DropLog::default());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn scheduler(params: LinkParams) -> Scheduler<usize> {
        Scheduler::new(3, 42, |_, _| params)
    }

    proptest! {
        #[test]
        fn every_frame_comes_out_once_or_is_in_the_drop_log(
            offers in prop::collection::vec((0_u64..500_000, 0_usize..3, 0_usize..3, 42_u32..1515), 1..300),
            loss in 0.0_f64..0.9, jitter_us in 0_u64..5_000,
        ) {
            let mut params = LinkParams::with_delay(Duration::from_millis(2));
            params.loss = loss;
            params.jitter = Duration::from_micros(jitter_us);
            params.rate_bits_per_s = Some(50_000_000);
            params.queue = crate::link::QueueLimit::Packets(4);
            let mut scheduler = scheduler(params);
            let (mut now, mut seen, mut returned) = (0, vec![0; offers.len()], 0);
            for (id, (gap, from, to, length)) in offers.iter().enumerate() {
                now += gap;
                if let Err((_, frame)) = scheduler.offer(now, *from, *to, *length, id) {
                    prop_assert_eq!(frame, id);
                    seen[id] += 1;
                    returned += 1;
                }
                while let Some(departure) = scheduler.pop_due(now) {
                    prop_assert!(departure.due <= now);
                    seen[scheduler.finish(departure, now, true)] += 1;
                }
            }
            let mut previous = 0;
            while let Some(departure) = scheduler.pop_due(u64::MAX) {
                prop_assert!(departure.due >= previous);
                previous = departure.due;
                let at = departure.due;
                seen[scheduler.finish(departure, at, true)] += 1;
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
            let pairs = (0..3).flat_map(|a| (0..3).map(move |b| (a, b)));
            let (mut dropped, mut delivered) = (0, 0);
            for (from, to) in pairs {
                let books = &scheduler.link(from, to).books;
                dropped += books.drops.counts().values().sum::<u64>();
                delivered += books.delivered_frames;
            }
            prop_assert_eq!(dropped, returned);
            prop_assert_eq!(dropped + delivered, offers.len() as u64);
            prop_assert_eq!(scheduler.next_due(), None);
        }
    }

    #[test]
    fn memory_of_frames_under_way_is_bounded() {
        let mut scheduler = scheduler(LinkParams::with_delay(Duration::from_secs(60)));
        for id in 0..IN_FLIGHT_FRAMES_MAX {
            assert_eq!(scheduler.offer(0, 0, 1, 60, id), Ok(()));
        }
        let refused = Err((DropReason::InFlightLimit, 9));
        assert_eq!(scheduler.offer(0, 0, 1, 60, 9), refused);
        let drops = &scheduler.link(0, 1).books.drops;
        assert_eq!(drops.counts()[&DropReason::InFlightLimit], 1);
    }

    #[test]
    fn refused_transmission_is_a_drop_not_a_delivery() {
        let mut scheduler = scheduler(LinkParams::with_delay(Duration::ZERO));
        scheduler.offer(5, 0, 1, 60, 1).unwrap();
        let departure = scheduler.pop_due(5).unwrap();
        scheduler.finish(departure, 6, false);
        let books = &scheduler.link(0, 1).books;
        assert_eq!(books.delivered_frames, 0);
        assert_eq!(books.drops.counts()[&DropReason::SocketError], 1);
    }
}
