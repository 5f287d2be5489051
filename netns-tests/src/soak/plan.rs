//! What a soak does, in which order: decided by its seed alone, without looking at the cloud.
//!
//! Kinds of events are dealt like cards: every deck has them all, shuffled, so that a short run sees
//! each kind and a long one sees them in many orders.

use nix::sys::signal::Signal;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;

/// Something that must cost no packet, or only those that it may.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// An endpoint moves to another node.
    Move {
        /// The endpoint.
        endpoint: usize,
        /// The node that it leaves.
        from: usize,
        /// The node that it comes to.
        to: usize,
    },
    /// Another policy is put in force that lets the same traffic through.
    Flip {
        /// Its number.
        policy: usize,
    },
    /// A node's agent ends by a signal and is started again.
    RestartAgent {
        /// The node.
        node: usize,
        /// By which signal.
        signal: Ending,
    },
    /// The controller ends by a signal and is started again.
    RestartController {
        /// By which signal.
        signal: Ending,
    },
    /// The link between two nodes is down for a while, both ways.
    LinkDown {
        /// A node.
        a: usize,
        /// Another one.
        b: usize,
        /// How long, ms.
        for_ms: u64,
    },
    /// The link between two nodes loses many frames for a while, both ways, while an endpoint moves
    /// over it.
    LossyMove {
        /// The endpoint.
        endpoint: usize,
        /// The node that it leaves.
        from: usize,
        /// The node that it comes to.
        to: usize,
        /// Fraction of the frames that are lost.
        loss: f64,
    },
    /// The policy changes while an agent is away: it finds the new one when it comes back.
    FlipWithoutAgent {
        /// The node whose agent is away.
        node: usize,
        /// The policy's number.
        policy: usize,
    },
}

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// In good order.
    Terminated,
    /// At once.
    Killed,
}

impl Ending {
    /// The signal that does it.
    #[must_use]
    pub fn signal(self) -> Signal {
        match self {
            Ending::Terminated => Signal::SIGTERM,
            Ending::Killed => Signal::SIGKILL,
        }
    }
}

/// Kinds of events, as often as a deck has them.
#[derive(Clone, Copy, Debug)]
enum Card {
    Move,
    Flip,
    Agent(Ending),
    Controller(Ending),
    LinkDown,
    LossyMove,
    FlipWithoutAgent,
}

const DECK: [Card; 12] = [
    Card::Move,
    Card::Move,
    Card::Move,
    Card::Flip,
    Card::Flip,
    Card::Agent(Ending::Terminated),
    Card::Agent(Ending::Killed),
    Card::Controller(Ending::Terminated),
    Card::Controller(Ending::Killed),
    Card::LinkDown,
    Card::LossyMove,
    Card::FlipWithoutAgent,
];

/// A pause between two events, ms.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=500;
/// How long a link is down, ms: shorter than any connection's patience.
const DOWN_MS: std::ops::RangeInclusive<u64> = 100..=1_200;

/// The events of a soak, without end.
#[derive(Debug)]
pub struct Plan {
    random: StdRng,
    deck: Vec<Card>,
    nodes: usize,
    policies: usize,
    /// Where each endpoint is once all events so far have happened.
    places: Vec<usize>,
    policy: usize,
}

impl Plan {
    /// The plan of a seed, for endpoints at these of `nodes` nodes.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, places: Vec<usize>, policies: usize) -> Self {
        Plan {
            random: StdRng::seed_from_u64(seed),
            deck: Vec::new(),
            nodes,
            policies,
            places,
            policy: 0,
        }
    }

    /// The next event, and the pause before it in ms.
    pub fn next_event(&mut self) -> (u64, Event) {
        let pause_ms = self.random.random_range(PAUSE_MS);
        if self.deck.is_empty() {
            self.deck = DECK.to_vec();
            self.deck.shuffle(&mut self.random);
        }
        let card = self.deck.pop().expect("a deck that was just filled");
        let event = match card {
            Card::Move => {
                let (endpoint, from, to) = self.moved();
                Event::Move { endpoint, from, to }
            }
            Card::LossyMove => {
                let loss = f64::from(self.random.random_range(2..=20_u32)) / 100.0;
                let (endpoint, from, to) = self.moved();
                Event::LossyMove {
                    endpoint,
                    from,
                    to,
                    loss,
                }
            }
            Card::Flip => Event::Flip {
                policy: self.other_policy(),
            },
            Card::Agent(signal) => Event::RestartAgent {
                node: self.random.random_range(0..self.nodes),
                signal,
            },
            Card::Controller(signal) => Event::RestartController { signal },
            Card::LinkDown => {
                let a = self.random.random_range(0..self.nodes);
                Event::LinkDown {
                    a,
                    b: self.other(a, self.nodes),
                    for_ms: self.random.random_range(DOWN_MS),
                }
            }
            Card::FlipWithoutAgent => Event::FlipWithoutAgent {
                node: self.random.random_range(0..self.nodes),
                policy: self.other_policy(),
            },
        };
        (pause_ms, event)
    }

    fn moved(&mut self) -> (usize, usize, usize) {
        let endpoint = self.random.random_range(0..self.places.len());
        let from = self.places[endpoint];
        let to = self.other(from, self.nodes);
        self.places[endpoint] = to;
        (endpoint, from, to)
    }

    fn other_policy(&mut self) -> usize {
        self.policy = self.other(self.policy, self.policies);
        self.policy
    }

    /// One of `count` that is not `this`.
    fn other(&mut self, this: usize, count: usize) -> usize {
        let other = self.random.random_range(0..count - 1);
        other + usize::from(other >= this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(seed: u64, count: usize) -> Vec<(u64, Event)> {
        let mut plan = Plan::new(seed, 4, vec![0, 1, 2, 3], 3);
        (0..count).map(|_| plan.next_event()).collect()
    }

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(events(7, 200), events(7, 200));
        assert_ne!(events(7, 200), events(8, 200));
    }

    #[test]
    fn endpoints_move_from_where_they_are_and_policies_change() {
        for seed in 0..50 {
            let (mut places, mut in_force) = (vec![0, 1, 2, 3], 0);
            for (_, event) in events(seed, 100) {
                match event {
                    Event::Move { endpoint, from, to }
                    | Event::LossyMove {
                        endpoint, from, to, ..
                    } => {
                        assert_eq!(places[endpoint], from);
                        assert!(to != from && to < 4);
                        places[endpoint] = to;
                    }
                    Event::Flip { policy } | Event::FlipWithoutAgent { policy, .. } => {
                        assert!(policy != in_force && policy < 3);
                        in_force = policy;
                    }
                    Event::LinkDown { a, b, .. } => assert!(a != b && a < 4 && b < 4),
                    Event::RestartAgent { node, .. } => assert!(node < 4),
                    Event::RestartController { .. } => {}
                }
            }
        }
    }

    #[test]
    fn every_deck_has_every_kind() {
        let deck = events(3, DECK.len());
        let kinds: std::collections::HashSet<_> = deck
            .iter()
            .map(|(_, event)| std::mem::discriminant(event))
            .collect();
        assert_eq!(kinds.len(), 7);
    }
}
