//! States of the automaton of a program with `dup`: what is still to be done after one.
//!
//! A state is a list of what remains, front first, each distinct one once. Its behaviour (what
//! comes out without another `dup`, and which states follow a `dup`) is worked out by
//! [`derivative`](super::derivative) when it is first asked for.

use std::collections::HashMap;
use std::rc::Rc;

use super::options::Limit;
use super::program::NodeId;
use super::spp::Spp;

/// A state, of the [`Automaton`] that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct StateId(u32);

/// The operations of which both operands must be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Intersection,
    Difference,
    SymmetricDifference,
}

/// What remains to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Nothing: the packet comes out.
    Done,
    /// A node, of a sequence only its parts from this one on, and then another state.
    Run(NodeId, u32, StateId),
    /// Both operands of an operation, and then another state.
    Both(Operation, StateId, StateId, StateId),
    /// Any of these states, in order, none of them an `Any`; never followed by anything.
    Any(Box<[StateId]>),
}

/// What a state does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// What comes out without another `dup`.
    pub(super) accept: Option<Spp>,
    /// States after the next `dup`, each once, with how packets get there.
    pub(super) steps: Vec<(StateId, Spp)>,
}

impl Behaviour {
    pub(super) fn accept(&self) -> Spp {
        self.accept.unwrap_or(Spp::DROP)
    }
}

/// How many states, steps and places may still be made.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn spend(&mut self, count: usize) -> Result<(), Limit> {
        self.0 = self.0.checked_sub(count).ok_or(Limit::States)?;
        Ok(())
    }
}

/// All states met so far.
pub(super) struct Automaton {
    states: Vec<State>,
    ids: HashMap<State, StateId>,
    behaviours: Vec<Option<Rc<Behaviour>>>,
    budget: Budget,
}

impl Automaton {
    pub(super) fn new(states: usize) -> Self {
        Automaton {
            states: Vec::new(),
            ids: HashMap::new(),
            behaviours: Vec::new(),
            budget: Budget(states.min(u32::MAX as usize)),
        }
    }

    pub(super) fn state(&mut self, state: State) -> Result<StateId, Limit> {
        if let Some(known) = self.ids.get(&state) {
            return Ok(*known);
        }
        self.budget.spend(1)?;
        let id = StateId(self.states.len() as u32);
        self.states.push(state.clone());
        self.behaviours.push(None);
        self.ids.insert(state, id);
        Ok(id)
    }

    pub(super) fn done(&mut self) -> Result<StateId, Limit> {
        self.state(State::Done)
    }

    /// A whole node and then nothing.
    pub(super) fn whole(&mut self, node: NodeId) -> Result<StateId, Limit> {
        let done = self.done()?;
        self.state(State::Run(node, 0, done))
    }

    /// Any of these states, which are in order.
    pub(super) fn any(&mut self, states: &[StateId]) -> Result<StateId, Limit> {
        if let [one] = states {
            return Ok(*one);
        }
        let mut flat = Vec::with_capacity(states.len());
        for state in states {
            match self.get(*state) {
                State::Any(inner) => flat.extend_from_slice(inner),
                _ => flat.push(*state),
            }
        }
        flat.sort_unstable();
        flat.dedup();
        self.state(State::Any(flat.into()))
    }

    pub(super) fn get(&self, id: StateId) -> &State {
        &self.states[id.0 as usize]
    }

    pub(super) fn known(&self, id: StateId) -> Option<Rc<Behaviour>> {
        self.behaviours[id.0 as usize].clone()
    }

    pub(super) fn remember(&mut self, id: StateId, behaviour: Behaviour) -> Result<(), Limit> {
        self.budget.spend(behaviour.steps.len())?;
        self.behaviours[id.0 as usize] = Some(Rc::new(behaviour));
        Ok(())
    }

    /// What may still be made, of [`Limits::states`](super::options::Limits).
    pub(super) fn budget(&mut self) -> &mut Budget {
        &mut self.budget
    }
}
