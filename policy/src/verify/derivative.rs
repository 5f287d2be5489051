//! Derivatives of programs with `dup`, for all packets at once: what a state does.
//!
//! In the NetKAT automata of Foster et al. (POPL 2015) a state reads a packet and the packet at the
//! next `dup`. Here, as in KATch (Moeller et al., PLDI 2024), it does so for all pairs of packets,
//! with one symbolic packet program per state that can follow. Parts without `dup` are one such
//! program, so the states are the places after each `dup`.

use std::collections::HashMap;
use std::rc::Rc;

use super::automaton::{Automaton, Behaviour, Operation, State, StateId};
use super::options::Limit;
use super::partition::partition;
use super::program::{Node, NodeId};
use super::set::Set;
use super::spp::{Diagrams, Spp};
use super::symbolic::Symbolic;

/// Steps while they are collected: how packets get to each state, in several ways.
#[derive(Default)]
struct Steps {
    ways: Vec<(StateId, Vec<Spp>)>,
    index: HashMap<StateId, usize>,
}

impl Steps {
    fn add(&mut self, diagrams: &mut Diagrams, state: StateId, way: Spp) -> Result<(), Limit> {
        if way.is_drop() {
            return Ok(());
        }
        let next = self.ways.len();
        let at = *self.index.entry(state).or_insert(next);
        if at == next {
            self.ways.push((state, Vec::new()));
        }
        let ways = &mut self.ways[at].1;
        ways.push(way);
        if ways.len() >= MOST_WAYS {
            // A program may pass the same `dup` in any number of ways; they shall not all be kept.
            *ways = vec![diagrams.union_all(std::mem::take(ways))?];
        }
        Ok(())
    }

    fn joined(self, symbolic: &mut Symbolic<'_>) -> Result<Vec<(StateId, Spp)>, Limit> {
        (self.ways.into_iter())
            .map(|(state, ways)| Ok((state, symbolic.diagrams.union_all(ways)?)))
            .collect()
    }
}

/// So many ways are kept before they are joined.
const MOST_WAYS: usize = 4096;

/// A behaviour, or the states whose behaviours must be known first.
enum Attempt {
    Known(Behaviour),
    Needs(Vec<StateId>),
}

/// The behaviour of a state.
pub(super) fn behaviour(
    automaton: &mut Automaton,
    symbolic: &mut Symbolic<'_>,
    state: StateId,
) -> Result<Rc<Behaviour>, Limit> {
    // An explicit stack: operations nest as deep as the program does.
    let mut waiting = vec![state];
    while let Some(next) = waiting.last() {
        let next = *next;
        if automaton.known(next).is_some() {
            waiting.pop();
            continue;
        }
        let mut derivation = Derivation {
            automaton,
            symbolic,
            steps: Steps::default(),
            needs: Vec::new(),
        };
        match derivation.attempt(next)? {
            Attempt::Needs(needs) => waiting.extend(needs),
            Attempt::Known(behaviour) => {
                automaton.remember(next, behaviour)?;
                waiting.pop();
            }
        }
    }
    Ok(automaton
        .known(state)
        .expect("the stack is empty, so the state at its bottom is known"))
}

struct Derivation<'d, 'p> {
    automaton: &'d mut Automaton,
    symbolic: &'d mut Symbolic<'p>,
    steps: Steps,
    needs: Vec<StateId>,
}

impl Derivation<'_, '_> {
    fn attempt(&mut self, state: StateId) -> Result<Attempt, Limit> {
        let mut accept = Vec::new();
        // What has come through so far, and what remains.
        let mut through = Spp::ID;
        let mut at = state;
        while !through.is_drop() {
            if at != state
                && let Some(known) = self.automaton.known(at)
            {
                self.follow(&known, through)?;
                accept.push(self.symbolic.diagrams.sequence(through, known.accept())?);
                break;
            }
            match self.automaton.get(at).clone() {
                State::Done => {
                    accept.push(through);
                    break;
                }
                State::Run(node, from, next) => {
                    through = self.run(node, from, next, through)?;
                    at = next;
                }
                State::Both(operation, left, right, next) => {
                    let Some(core) = self.combined(operation, left, right, next)? else {
                        break;
                    };
                    self.follow(&core, through)?;
                    through = self.symbolic.diagrams.sequence(through, core.accept())?;
                    at = next;
                }
                State::Any(states) => {
                    for state in states {
                        if let Some(known) = self.behaviour_of(state) {
                            self.follow(&known, through)?;
                            let diagrams = &mut self.symbolic.diagrams;
                            accept.push(diagrams.sequence(through, known.accept())?);
                        }
                    }
                    break;
                }
            }
        }
        if !self.needs.is_empty() {
            return Ok(Attempt::Needs(std::mem::take(&mut self.needs)));
        }
        let steps = std::mem::take(&mut self.steps).joined(self.symbolic)?;
        Ok(Attempt::Known(Behaviour {
            accept: Some(self.symbolic.diagrams.union_all(accept)?),
            steps,
        }))
    }

    /// The behaviour of another state; `None` when it must be worked out first.
    fn behaviour_of(&mut self, state: StateId) -> Option<Rc<Behaviour>> {
        let known = self.automaton.known(state);
        if known.is_none() {
            self.needs.push(state);
        }
        known
    }

    /// The steps of `known` after what came through.
    fn follow(&mut self, known: &Behaviour, through: Spp) -> Result<(), Limit> {
        for (state, step) in &known.steps {
            let way = self.symbolic.diagrams.sequence(through, *step)?;
            let diagrams = &mut self.symbolic.diagrams;
            self.steps.add(diagrams, *state, way)?;
        }
        Ok(())
    }

    /// Collects the steps of a node (of a sequence, from a part on) after what came `through`, and
    /// says what comes through the node without `dup`.
    fn run(&mut self, node: NodeId, from: u32, next: StateId, through: Spp) -> Result<Spp, Limit> {
        let mut waiting = Vec::new();
        let after = match self.symbolic.program().node(node) {
            Node::Sequence(parts) => {
                self.sequence(node, parts, from, next, through, &mut waiting)?
            }
            _ => {
                waiting.push((node, next, through));
                let spp = self.symbolic.compile(node)?;
                self.symbolic.diagrams.sequence(through, spp)?
            }
        };
        while let Some((node, next, through)) = waiting.pop() {
            self.symbolic.diagrams.sets.meter.tick()?;
            if through.is_drop() || !self.symbolic.has_dup(node) {
                continue;
            }
            match self.symbolic.program().node(node) {
                Node::Dup => self.steps.add(&mut self.symbolic.diagrams, next, through)?,
                Node::Union(arms) => {
                    waiting.extend(arms.iter().rev().map(|arm| (*arm, next, through)));
                }
                Node::Sequence(parts) => {
                    self.sequence(node, parts, 0, next, through, &mut waiting)?;
                }
                Node::Star(body) => {
                    let rounds = self.symbolic.compile(node)?;
                    let through = self.symbolic.diagrams.sequence(through, rounds)?;
                    let again = self.automaton.state(State::Run(node, 0, next))?;
                    waiting.push((*body, again, through));
                }
                Node::Conditional(arms, otherwise) => {
                    let mut left = Set::ALL;
                    for (predicate, then) in arms {
                        self.symbolic.compile(*predicate)?;
                        let guard = self.symbolic.passing(*predicate)?;
                        let diagrams = &mut self.symbolic.diagrams;
                        let taken = diagrams.sets.intersection(left, guard)?;
                        left = diagrams.sets.difference(left, guard)?;
                        if self.symbolic.has_dup(*then) {
                            let diagrams = &mut self.symbolic.diagrams;
                            let through = diagrams.restrict_output(through, taken)?;
                            waiting.push((*then, next, through));
                        }
                    }
                    let through = self.symbolic.diagrams.restrict_output(through, left)?;
                    waiting.push((*otherwise, next, through));
                }
                Node::Intersection(left, right) => {
                    self.operation(Operation::Intersection, (*left, *right), next, through)?;
                }
                Node::Difference(left, right) => {
                    self.operation(Operation::Difference, (*left, *right), next, through)?;
                }
                Node::SymmetricDifference(left, right) => {
                    let operation = Operation::SymmetricDifference;
                    self.operation(operation, (*left, *right), next, through)?;
                }
                Node::Drop | Node::Id | Node::Test(..) | Node::Assign(..) | Node::Not(_) => {}
            }
        }
        Ok(after)
    }

    /// Puts the parts of a sequence that have a `dup` on the list, each with what follows it and
    /// what came through those before it; says what comes through all of them.
    fn sequence(
        &mut self,
        node: NodeId,
        parts: &[NodeId],
        from: u32,
        next: StateId,
        through: Spp,
        waiting: &mut Vec<(NodeId, StateId, Spp)>,
    ) -> Result<Spp, Limit> {
        let mut through = through;
        for (part, after) in parts[from as usize..].iter().zip(from + 1..) {
            if through.is_drop() {
                break;
            }
            if self.symbolic.has_dup(*part) {
                let rest = if after as usize == parts.len() {
                    next
                } else {
                    self.automaton.state(State::Run(node, after, next))?
                };
                waiting.push((*part, rest, through));
            }
            let spp = self.symbolic.compile(*part)?;
            through = self.symbolic.diagrams.sequence(through, spp)?;
        }
        Ok(through)
    }

    fn operation(
        &mut self,
        operation: Operation,
        (left, right): (NodeId, NodeId),
        next: StateId,
        through: Spp,
    ) -> Result<(), Limit> {
        let (left, right) = (self.automaton.whole(left)?, self.automaton.whole(right)?);
        if let Some(core) = self.combined(operation, left, right, next)? {
            self.follow(&core, through)?;
        }
        Ok(())
    }

    /// What an operation on two states does, with `next` after its steps; `None` when a state must
    /// be worked out first.
    fn combined(
        &mut self,
        operation: Operation,
        left: StateId,
        right: StateId,
        next: StateId,
    ) -> Result<Option<Behaviour>, Limit> {
        let (Some(left), Some(right)) = (self.behaviour_of(left), self.behaviour_of(right)) else {
            return Ok(None);
        };
        let diagrams = &mut self.symbolic.diagrams;
        let mut steps = Steps::default();
        let accept = match operation {
            Operation::Intersection => {
                for (left, way) in &left.steps {
                    for (right, other) in &right.steps {
                        let way = diagrams.intersection(*way, *other)?;
                        if way.is_drop() {
                            continue;
                        }
                        let both = State::Both(operation, *left, *right, next);
                        steps.add(diagrams, self.automaton.state(both)?, way)?;
                    }
                }
                diagrams.intersection(left.accept(), right.accept())?
            }
            Operation::Difference => {
                // What is taken away must be known for sure, so the right side is made
                // deterministic.
                let blocks = partition(diagrams, self.automaton.budget(), &[], &right.steps)?;
                let nothing = self.automaton.any(&[])?;
                for (left, way) in &left.steps {
                    let mut rest = *way;
                    for block in &blocks {
                        let way = diagrams.intersection(rest, block.region)?;
                        if way.is_drop() {
                            continue;
                        }
                        rest = diagrams.difference(rest, block.region)?;
                        let right = self.automaton.any(&block.right)?;
                        let both = State::Both(operation, *left, right, next);
                        steps.add(diagrams, self.automaton.state(both)?, way)?;
                    }
                    if rest.is_drop() {
                        continue;
                    }
                    let alone = State::Both(operation, *left, nothing, next);
                    steps.add(diagrams, self.automaton.state(alone)?, rest)?;
                }
                diagrams.difference(left.accept(), right.accept())?
            }
            Operation::SymmetricDifference => {
                let budget = self.automaton.budget();
                let blocks = partition(diagrams, budget, &left.steps, &right.steps)?;
                for block in blocks {
                    let left = self.automaton.any(&block.left)?;
                    let right = self.automaton.any(&block.right)?;
                    let both = State::Both(operation, left, right, next);
                    steps.add(diagrams, self.automaton.state(both)?, block.region)?;
                }
                diagrams.symmetric_difference(left.accept(), right.accept())?
            }
        };
        let steps = steps.joined(self.symbolic)?;
        Ok(Some(Behaviour {
            accept: Some(accept),
            steps,
        }))
    }
}
