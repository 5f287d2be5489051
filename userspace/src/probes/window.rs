//! What became of the last probes to a node. Pure: time is told.

use std::collections::VecDeque;

/// Probes that loss and round trips are told of: a minute of them.
pub const WINDOW: usize = 60;
/// Failures in a row after which a tunnel is down. With one packet in ten lost, that is by chance once a
/// day; with one in twenty, once a month.
pub const DOWN_AFTER: u32 = 5;

/// Whether a tunnel carries packets both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Liveness {
    /// Too few probes yet to say so.
    #[default]
    Unknown,
    /// The last answer is not long ago.
    Up,
    /// The last [`DOWN_AFTER`] probes had no answer.
    Down,
}

/// What is known of a tunnel by its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Probed {
    /// Whether it carries packets.
    pub liveness: Liveness,
    /// Probes in the window: sent, and answered or given up.
    pub asked: u32,
    /// Those without an answer in time.
    pub lost: u32,
    /// Shortest, middle and longest round trip of the window, ns; `None` while there is no answer in it.
    pub rtt_ns: Option<RoundTrips>,
    /// Probes that were answered or given up since the agent started.
    pub asked_total: u64,
    /// Those without an answer in time.
    pub lost_total: u64,
    /// Since the last answer, ns; `None` when there was none.
    pub answer_age_ns: Option<u64>,
}

/// Round trips of a window, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    /// The shortest.
    pub min: u64,
    /// Half are not longer.
    pub median: u64,
    /// The longest.
    pub max: u64,
}

/// The last probes to a node, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Round trips, ns; `None` for a lost one.
    outcomes: VecDeque<Option<u64>>,
    /// Probes since the last answer that were lost or could not be sent.
    failures: u32,
    answered_at_ns: Option<u64>,
    asked_total: u64,
    lost_total: u64,
}

impl Window {
    /// An answer came at `at_ns`, after `rtt_ns`.
    pub(super) fn answered(&mut self, at_ns: u64, rtt_ns: u64) {
        self.failures = 0;
        self.answered_at_ns = self.answered_at_ns.max(Some(at_ns));
        self.note(Some(rtt_ns));
    }

    /// No answer came in time.
    pub(super) fn lost(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.lost_total += 1;
        self.note(None);
    }

    /// A probe could not be sent: there is no way to the node. On the way none was lost.
    pub(super) fn unsent(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Another way to the node has taken the place of the one that was probed: its round trips say nothing
    /// of the new one.
    pub(super) fn begin_anew(&mut self) {
        self.outcomes.clear();
        self.failures = 0;
        self.answered_at_ns = None;
    }

    fn note(&mut self, outcome: Option<u64>) {
        self.asked_total += 1;
        if self.outcomes.len() == WINDOW {
            self.outcomes.pop_front();
        }
        self.outcomes.push_back(outcome);
    }

    /// What is known at `now_ns`.
    pub(super) fn report(&self, now_ns: u64) -> Probed {
        let mut trips: Vec<u64> = self.outcomes.iter().flatten().copied().collect();
        trips.sort_unstable();
        let rtt_ns = match trips[..] {
            [] => None,
            [min, ..] => Some(RoundTrips {
                min,
                median: trips[(trips.len() - 1) / 2],
                max: trips[trips.len() - 1],
            }),
        };
        let liveness = match self.answered_at_ns {
            _ if self.failures >= DOWN_AFTER => Liveness::Down,
            Some(_) => Liveness::Up,
            None => Liveness::Unknown,
        };
        Probed {
            liveness,
            asked: self.outcomes.len() as u32,
            lost: (self.outcomes.len() - trips.len()) as u32,
            rtt_ns,
            asked_total: self.asked_total,
            lost_total: self.lost_total,
            answer_age_ns: self.answered_at_ns.map(|at| now_ns.saturating_sub(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_tells_of_the_last_minute_and_totals_of_all() {
        let mut window = Window::default();
        window.lost();
        for at in 1..=WINDOW as u64 {
            window.answered(at * 1000, at);
        }
        let report = window.report(70_000);
        assert_eq!((report.asked, report.lost), (60, 0));
        assert_eq!((report.asked_total, report.lost_total), (61, 1));
        let trips = RoundTrips {
            min: 1,
            median: 30,
            max: 60,
        };
        assert_eq!(report.rtt_ns, Some(trips));
        assert_eq!(report.answer_age_ns, Some(10_000));
        for _ in 0..2 {
            window.lost();
        }
        let report = window.report(70_000);
        assert_eq!((report.asked, report.lost), (60, 2));
        assert_eq!(report.rtt_ns.unwrap().min, 3);
    }

    #[test]
    fn a_tunnel_is_down_after_failures_in_a_row_and_up_with_one_answer() {
        let mut window = Window::default();
        let liveness = |window: &Window| window.report(0).liveness;
        assert_eq!(liveness(&window), Liveness::Unknown);
        window.answered(1, 1);
        for _ in 1..DOWN_AFTER {
            window.lost();
            assert_eq!(liveness(&window), Liveness::Up);
        }
        window.unsent();
        assert_eq!(liveness(&window), Liveness::Down);
        assert_eq!(window.report(9).answer_age_ns, Some(8));
        window.answered(2, 1);
        assert_eq!(liveness(&window), Liveness::Up);
        // What could not be sent was not lost on the way.
        assert_eq!(window.report(2).lost, DOWN_AFTER - 1);
    }

    #[test]
    fn another_way_begins_anew_and_totals_go_on() {
        let mut window = Window::default();
        window.answered(1, 1);
        window.lost();
        window.begin_anew();
        let report = window.report(5);
        assert_eq!(report.liveness, Liveness::Unknown);
        assert_eq!((report.asked, report.rtt_ns), (0, None));
        assert_eq!((report.asked_total, report.lost_total), (2, 1));
        assert_eq!(report.answer_age_ns, None);
    }
}
