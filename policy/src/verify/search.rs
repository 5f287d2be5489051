//! The search behind an answer: which packets can be where in two automata at once.
//!
//! From all packets, forward and breadth first, along steps that are the same packet for both
//! sides (Bonchi and Pous, POPL 2013, with sets of packets instead of letters). A history that only
//! one side has is found at the first place where their outputs differ, so the trace is a shortest
//! one.

use std::collections::HashMap;
use std::rc::Rc;

use super::automaton::{Automaton, StateId};
use super::counterexample::Side;
use super::derivative::behaviour;
use super::image::Bits;
use super::options::Limit;
use super::partition::{Block, partition};
use super::program::NodeId;
use super::set::Set;
use super::spp::Spp;
use super::symbolic::Symbolic;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// The left side has no history.
    Empty,
    /// Both sides have the same.
    Equal,
    /// The right side has all of the left side.
    Contained,
}

/// A history that answers no.
pub(super) struct Trace {
    /// The packet that goes in, and the one at each `dup`.
    pub(super) packets: Vec<Bits>,
    pub(super) output: Bits,
    pub(super) side: Side,
}

/// States of both sides at the same time, in order.
type Pair = (Vec<StateId>, Vec<StateId>);

/// What is known of a pair.
struct Place {
    pair: Pair,
    /// Packets that were here.
    seen: Set,
    /// What it does, once asked.
    known: Option<Rc<Known>>,
}

struct Known {
    /// Outputs that only the left side has, and only the right side.
    differs: [Spp; 2],
    blocks: Vec<Block>,
    /// Packets with a way out, as a binary tree: at 1 for all blocks, at 2n and 2n + 1 for the
    /// halves of those at n, in its second half block by block. Of very many blocks, few are for
    /// the packets at hand.
    domains: Vec<Set>,
}

/// Packets that come to a place.
struct Visit {
    place: usize,
    packets: Set,
    /// From which visit, and how; the first has none.
    from: Option<(usize, Spp)>,
}

pub(super) struct Search<'s, 'p> {
    question: Question,
    symbolic: &'s mut Symbolic<'p>,
    automaton: &'s mut Automaton,
    places: Vec<Place>,
    index: HashMap<Pair, usize>,
    visits: Vec<Visit>,
}

impl<'s, 'p> Search<'s, 'p> {
    pub(super) fn new(
        question: Question,
        symbolic: &'s mut Symbolic<'p>,
        automaton: &'s mut Automaton,
    ) -> Self {
        Search {
            question,
            symbolic,
            automaton,
            places: Vec::new(),
            index: HashMap::new(),
            visits: Vec::new(),
        }
    }

    /// A history that answers no; `None` means yes.
    pub(super) fn run(mut self, left: NodeId, right: NodeId) -> Result<Option<Trace>, Limit> {
        let left = vec![self.automaton.whole(left)?];
        let right = match self.question {
            Question::Empty => vec![],
            _ => vec![self.automaton.whole(right)?],
        };
        let valid = self.symbolic.valid();
        self.visit((left, right), valid, None)?;
        let mut next = 0;
        while next < self.visits.len() {
            let (place, packets) = (self.visits[next].place, self.visits[next].packets);
            let known = self.known(place)?;
            for (differs, side) in known.differs.into_iter().zip([Side::Left, Side::Right]) {
                let differs = self.symbolic.diagrams.restrict_input(packets, differs)?;
                if let Some((at, output)) = self.symbolic.diagrams.pick(differs) {
                    return self.trace(next, at, output, side).map(Some);
                }
            }
            let leaves = known.domains.len() / 2;
            let mut waiting = vec![1];
            while let Some(at) = waiting.pop() {
                let diagrams = &mut self.symbolic.diagrams;
                let leaving = diagrams.sets.intersection(packets, known.domains[at])?;
                if leaving.is_empty() {
                    continue;
                }
                if at < leaves {
                    waiting.extend([2 * at + 1, 2 * at]);
                    continue;
                }
                let block = &known.blocks[at - leaves];
                let reached = diagrams.push(leaving, block.region)?;
                let pair = (block.left.clone(), block.right.clone());
                self.visit(pair, reached, Some((next, block.region)))?;
            }
            next += 1;
        }
        Ok(None)
    }

    /// Notes that packets come to a pair, unless they were there before or it settles itself.
    fn visit(&mut self, pair: Pair, packets: Set, from: Option<(usize, Spp)>) -> Result<(), Limit> {
        let settled = match self.question {
            Question::Empty => false,
            Question::Equal => pair.0 == pair.1,
            // Both are in order.
            Question::Contained => pair
                .0
                .iter()
                .all(|state| pair.1.binary_search(state).is_ok()),
        };
        if settled {
            return Ok(());
        }
        let place = match self.index.get(&pair) {
            Some(place) => *place,
            None => {
                let states = pair.0.len() + pair.1.len();
                self.automaton.budget().spend(1 + states)?;
                let place = self.places.len();
                self.places.push(Place {
                    pair: pair.clone(),
                    seen: Set::EMPTY,
                    known: None,
                });
                self.index.insert(pair, place);
                place
            }
        };
        let seen = self.places[place].seen;
        let sets = &mut self.symbolic.diagrams.sets;
        let packets = sets.difference(packets, seen)?;
        if packets.is_empty() {
            return Ok(());
        }
        self.places[place].seen = sets.union(packets, seen)?;
        self.automaton.budget().spend(1)?;
        self.visits.push(Visit {
            place,
            packets,
            from,
        });
        Ok(())
    }

    fn known(&mut self, place: usize) -> Result<Rc<Known>, Limit> {
        if let Some(known) = &self.places[place].known {
            return Ok(known.clone());
        }
        let (left, right) = self.places[place].pair.clone();
        let (left, left_accept) = self.side(&left)?;
        let (right, right_accept) = self.side(&right)?;
        let diagrams = &mut self.symbolic.diagrams;
        let differs = [
            diagrams.difference(left_accept, right_accept)?,
            match self.question {
                Question::Equal => diagrams.difference(right_accept, left_accept)?,
                Question::Empty | Question::Contained => Spp::DROP,
            },
        ];
        let budget = self.automaton.budget();
        let blocks = match self.question {
            // Any state of its own will do: nothing needs to be known of several at once.
            Question::Empty => (left.iter())
                .map(|(state, region)| Block {
                    region: *region,
                    left: vec![*state],
                    right: vec![],
                })
                .collect(),
            Question::Equal => partition(diagrams, budget, &left, &right)?,
            Question::Contained => {
                let mut blocks = partition(diagrams, budget, &left, &right)?;
                blocks.retain(|block| !block.left.is_empty());
                blocks
            }
        };
        let leaves = blocks.len().next_power_of_two();
        let mut domains = vec![Set::EMPTY; 2 * leaves];
        for (block, domain) in blocks.iter().zip(&mut domains[leaves..]) {
            *domain = diagrams.domain(block.region)?;
        }
        for at in (1..leaves).rev() {
            domains[at] = (diagrams.sets).union(domains[2 * at], domains[2 * at + 1])?;
        }
        let known = Rc::new(Known {
            differs,
            blocks,
            domains,
        });
        self.places[place].known = Some(known.clone());
        Ok(known)
    }

    /// All steps of these states, and what comes out of them.
    fn side(&mut self, states: &[StateId]) -> Result<(Vec<(StateId, Spp)>, Spp), Limit> {
        let mut accept = Vec::with_capacity(states.len());
        let mut steps: Vec<(StateId, Vec<Spp>)> = Vec::new();
        let mut index = HashMap::new();
        for state in states {
            let known = behaviour(self.automaton, self.symbolic, *state)?;
            accept.push(known.accept());
            for (to, step) in &known.steps {
                let at = *index.entry(*to).or_insert(steps.len());
                if at == steps.len() {
                    steps.push((*to, Vec::new()));
                }
                steps[at].1.push(*step);
            }
        }
        let diagrams = &mut self.symbolic.diagrams;
        let steps = (steps.into_iter())
            .map(|(to, steps)| Ok((to, diagrams.union_all(steps)?)))
            .collect::<Result<_, _>>()?;
        Ok((steps, diagrams.union_all(accept)?))
    }

    /// Back from a packet at a visit to the packet that went in.
    fn trace(&mut self, visit: usize, at: Bits, output: Bits, side: Side) -> Result<Trace, Limit> {
        let diagrams = &mut self.symbolic.diagrams;
        let mut packets = vec![at];
        let mut visit = visit;
        while let Some((from, region)) = self.visits[visit].from {
            let reached = packets.last().expect("there is one to begin with");
            let reached = diagrams.sets.point(reached)?;
            let before = diagrams.pull(region, reached)?;
            let before = (diagrams.sets).intersection(before, self.visits[from].packets)?;
            let levels = diagrams.levels;
            let before = (diagrams.sets.pick(before, levels))
                .expect("what was reached was reached from somewhere");
            packets.push(before);
            visit = from;
        }
        packets.reverse();
        Ok(Trace {
            packets,
            output,
            side,
        })
    }
}
