//! What every lost datagram is owed to. Pure: accounts go in, a judgement comes out.
//!
//! ```text
//! sent and not arrived
//!   --> in the emulator's drop log                           dropped
//!   --> in a tunnel's encrypted frame of it, by time         dropped
//!   --> sent around the blackout of one of its endpoints     blackout, at most rate x blackout
//!   --> else                                                 unexplained: the property is broken
//! ```

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

/// For how long an encrypted frame may have been under way before it was dropped, ns: waiting for a
/// processor, and another node on the way.
const UNDER_WAY_NS: u64 = 1_000_000_000;

/// The account of a flow.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Its number.
    pub flow: u32,
    /// Number of the endpoint that sends.
    pub from: usize,
    /// Number of the endpoint that receives.
    pub to: usize,
    /// Over IPv4, not IPv6.
    pub is_ipv4: bool,
    /// When each datagram was sent, by number, ns of `CLOCK_MONOTONIC`.
    pub sent_at_ns: Vec<u64>,
    /// When each arrived, by number; 0 and missing ones did not.
    pub arrived_at_ns: Vec<u64>,
    /// Attempts that the sender's kernel refused; they have no number.
    pub refused: u64,
    /// Datagrams that arrived again.
    pub duplicates: u64,
    /// Datagrams that are not this flow's.
    pub strange: u64,
}

impl Book {
    fn lost(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let sent = self.sent_at_ns.iter().enumerate();
        sent.filter(|(number, _)| self.arrived_at_ns.get(*number).copied().unwrap_or(0) == 0)
            .map(|(number, at)| (number as u64, *at))
    }

    /// The longest that one that arrived was under way, ns.
    #[must_use]
    pub fn slowest_ns(&self) -> u64 {
        self.under_way().max().unwrap_or(0)
    }

    /// How many of those that arrived were under way for longer than `way_ns`: they waited somewhere.
    #[must_use]
    pub fn late(&self, way_ns: u64) -> u64 {
        self.under_way()
            .filter(|under_way| *under_way > way_ns)
            .count() as u64
    }

    /// How long each that arrived was under way, ns.
    fn under_way(&self) -> impl Iterator<Item = u64> + '_ {
        let both = self.sent_at_ns.iter().zip(&self.arrived_at_ns);
        both.filter(|(_, arrived)| **arrived != 0)
            .map(|(sent, arrived)| arrived.saturating_sub(*sent))
    }

    /// The most datagrams that were sent within any `length_ns`: what rate x time means for a sender
    /// that is not perfectly even.
    fn most_within(&self, length_ns: u64) -> u64 {
        let (mut most, mut first) = (0, 0);
        for (last, at) in self.sent_at_ns.iter().enumerate() {
            while self.sent_at_ns[first] + length_ns < *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most as u64
    }
}

/// The time for which a moving endpoint's packets may be lost.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Blackout {
    /// Number of the event that made it.
    pub event: usize,
    /// Number of the endpoint.
    pub endpoint: usize,
    /// Just before the source was asked to let go, ns of `CLOCK_MONOTONIC`.
    pub from_ns: u64,
    /// The device was up at the destination, and the endpoint had a link again.
    pub to_ns: u64,
}

/// What the emulator says that it dropped.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// Datagrams by flow and number.
    pub known: HashSet<(u32, u64)>,
    /// When frames were dropped that are encrypted and as long as one with a datagram.
    pub opaque_at_ns: Vec<u64>,
}

/// A datagram that nothing explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unexplained {
    /// The flow.
    pub flow: u32,
    /// The datagram's number.
    pub number: u64,
    /// When it was sent, ns of `CLOCK_MONOTONIC`.
    pub sent_at_ns: u64,
}

/// Losses of a flow in a blackout that are more than rate x blackout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Excess {
    /// Number of the event.
    pub event: usize,
    /// The flow.
    pub flow: u32,
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams that may have been.
    pub at_most: u64,
}

/// What the losses are owed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Datagrams sent.
    pub sent: u64,
    /// Different datagrams that arrived.
    pub arrived: u64,
    /// Lost, and in the drop log.
    pub dropped: u64,
    /// Lost in blackouts, by number of the event.
    pub in_blackouts: BTreeMap<usize, u64>,
    /// Flows that lost more in a blackout than they may.
    pub excesses: Vec<Excess>,
    /// Lost, and nothing explains it.
    pub unexplained: Vec<Unexplained>,
}

/// Judges all flows. `way_ns` is the longest that a packet may be under way: what arrives in a
/// blackout was sent so much earlier.
#[must_use]
pub fn judge(books: &[Book], drops: &Drops, blackouts: &[Blackout], way_ns: u64) -> Judgement {
    let mut judgement = Judgement::default();
    let mut left = Vec::new();
    for book in books {
        judgement.sent += book.sent_at_ns.len() as u64;
        let mut lost_in: BTreeMap<usize, u64> = BTreeMap::new();
        let mut lost = 0;
        for (number, sent_at_ns) in book.lost() {
            lost += 1;
            if drops.known.contains(&(book.flow, number)) {
                judgement.dropped += 1;
                continue;
            }
            let concerns = |blackout: &&Blackout| {
                (blackout.endpoint == book.from || blackout.endpoint == book.to)
                    && sent_at_ns + way_ns >= blackout.from_ns
                    && sent_at_ns <= blackout.to_ns
            };
            match blackouts.iter().find(concerns) {
                Some(blackout) => *lost_in.entry(blackout.event).or_default() += 1,
                None => left.push(Unexplained {
                    flow: book.flow,
                    number,
                    sent_at_ns,
                }),
            }
        }
        judgement.arrived += book.sent_at_ns.len() as u64 - lost;
        for (event, lost) in lost_in {
            *judgement.in_blackouts.entry(event).or_default() += lost;
            let mut of_event = blackouts.iter().filter(|blackout| blackout.event == event);
            let blackout = of_event.next().expect("a loss was counted for it");
            // An encrypted frame that the emulator dropped just then may have been any flow's.
            let around = blackout.from_ns.saturating_sub(way_ns)..=blackout.to_ns + way_ns;
            let opaque = drops.opaque_at_ns.iter().filter(|at| around.contains(at));
            let rate_by_blackout = book.most_within(blackout.to_ns - blackout.from_ns);
            let at_most = rate_by_blackout + opaque.count() as u64;
            if lost > at_most {
                judgement.excesses.push(Excess {
                    event,
                    flow: book.flow,
                    lost,
                    at_most,
                });
            }
        }
    }
    // Encrypted frames cannot be told apart: each explains one datagram that was sent shortly before.
    left.sort_by_key(|lost| lost.sent_at_ns);
    let mut opaque = drops.opaque_at_ns.clone();
    opaque.sort_unstable();
    let mut opaque = opaque.into_iter().peekable();
    for lost in left {
        // Those before this datagram explain no later one either.
        while opaque.next_if(|at| *at < lost.sent_at_ns).is_some() {}
        if opaque
            .next_if(|at| *at <= lost.sent_at_ns + UNDER_WAY_NS)
            .is_some()
        {
            judgement.dropped += 1;
        } else {
            judgement.unexplained.push(lost);
        }
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A flow from endpoint 1 to endpoint 2 that sends each 10 ms and loses these numbers.
    fn book(lost: &[u64]) -> Book {
        let arrived = |number| if lost.contains(&number) { 0 } else { 1 };
        Book {
            flow: 9,
            from: 1,
            to: 2,
            sent_at_ns: (0..100).map(|number| (100 + number * 10) * MS).collect(),
            // The last ones are missing in the account when they did not arrive.
            arrived_at_ns: (0..100).map(arrived).collect(),
            ..Book::default()
        }
    }

    fn blackout(endpoint: usize, from_ms: u64, to_ms: u64) -> Blackout {
        Blackout {
            event: 5,
            endpoint,
            from_ns: from_ms * MS,
            to_ns: to_ms * MS,
        }
    }

    #[test]
    fn a_loss_that_nothing_explains_is_told() {
        let drops = Drops {
            known: HashSet::from([(9, 3), (8, 4)]),
            opaque_at_ns: Vec::new(),
        };
        let judgement = judge(&[book(&[3, 4])], &drops, &[blackout(3, 0, 9_000)], 0);
        assert_eq!((judgement.sent, judgement.arrived), (100, 98));
        assert_eq!(judgement.dropped, 1);
        let [lost] = judgement.unexplained[..] else {
            panic!("{judgement:?}")
        };
        assert_eq!((lost.flow, lost.number, lost.sent_at_ns), (9, 4, 140 * MS));
    }

    #[test]
    fn datagrams_that_waited_somewhere_are_counted() {
        let mut book = book(&[5]);
        for (arrived, sent) in book.arrived_at_ns.iter_mut().zip(&book.sent_at_ns) {
            *arrived = if *arrived == 0 { 0 } else { sent + 20 * MS };
        }
        book.arrived_at_ns[7] += 300 * MS;
        assert_eq!((book.late(60 * MS), book.slowest_ns()), (1, 320 * MS));
    }

    #[test]
    fn datagrams_that_never_arrived_at_the_end_are_lost_too() {
        let mut book = book(&[]);
        book.arrived_at_ns.truncate(98);
        let judgement = judge(&[book], &Drops::default(), &[], 0);
        assert_eq!((judgement.arrived, judgement.unexplained.len()), (98, 2));
    }

    #[test]
    fn a_blackout_explains_losses_of_its_endpoint_up_to_its_length() {
        let drops = Drops::default();
        for endpoint in [1, 2] {
            // 40 ms after 20 ms on the way: numbers 8 to 14, of which no more than five in any 40 ms.
            let blackouts = [blackout(endpoint, 200, 240)];
            let judgement = judge(&[book(&[8, 9, 10, 11, 12])], &drops, &blackouts, 20 * MS);
            assert_eq!(judgement.in_blackouts, BTreeMap::from([(5, 5)]));
            assert!(judgement.excesses.is_empty() && judgement.unexplained.is_empty());
            let judgement = judge(
                &[book(&[8, 9, 10, 11, 12, 13])],
                &drops,
                &blackouts,
                20 * MS,
            );
            let [excess] = judgement.excesses[..] else {
                panic!("{judgement:?}")
            };
            assert_eq!((excess.lost, excess.at_most), (6, 5));
            let judgement = judge(&[book(&[7, 15])], &drops, &blackouts, 20 * MS);
            assert_eq!(judgement.unexplained.len(), 2);
        }
    }

    #[test]
    fn an_encrypted_frame_explains_one_datagram_sent_before_it() {
        let drops = |opaque: &[u64]| Drops {
            known: HashSet::new(),
            opaque_at_ns: opaque.iter().map(|at| at * MS).collect(),
        };
        let lost = book(&[3, 4]);
        let unexplained = |opaque: &[u64]| {
            let judgement = judge(std::slice::from_ref(&lost), &drops(opaque), &[], 0);
            judgement.unexplained.len()
        };
        assert_eq!(unexplained(&[150, 131]), 0);
        assert_eq!(unexplained(&[131]), 1);
        assert_eq!(unexplained(&[120, 125]), 2, "before they were sent");
        assert_eq!(unexplained(&[1_600, 1_700]), 2, "long after");
        assert_eq!(unexplained(&[145, 146]), 0);
    }
}
