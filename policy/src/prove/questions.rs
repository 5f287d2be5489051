//! Claims as questions to the prover: the packets that break them.

use std::collections::BTreeSet;

use super::traffic::{Ends, hosts, initiating, ports, sent, well_formed};
use super::translate::Translation;
use super::witness::preferences;
use crate::claim::{Claim, ClaimKind, Group, Operand};
use crate::environment::Environment;
use crate::field::{Field, OWNER};
use crate::term::Resolved;
use crate::verify::options::Limit;
use crate::verify::program::{Kind, NodeId};
use crate::verify::set::Set;
use crate::verify::symbolic::Symbolic;

/// A policy, and the questions about it.
pub(super) struct Asked<'a> {
    pub(super) to: Translation,
    policy: &'a Resolved,
    pub(super) environment: &'a Environment,
    /// What becomes of a packet until it is delivered or lost.
    network: NodeId,
    step: NodeId,
    /// On its way: at a transparent endpoint that it is not addressed to.
    on_its_way: NodeId,
    well_formed: NodeId,
    initiating: NodeId,
    /// What a packet that is shown should be, in the order of importance.
    pub(super) preferred: Vec<NodeId>,
}

/// Which packets break a claim.
pub(super) enum Question {
    /// Those of the first that the second lets nothing out of.
    Uncovered(NodeId, NodeId),
    /// Those that something comes out of.
    Any(Vec<NodeId>),
    /// Those of `start` that come back to where they were by `step`.
    Returning {
        start: NodeId,
        step: NodeId,
        same: NodeId,
    },
    /// Those that the first makes more of than the second.
    Beyond(Vec<(NodeId, NodeId)>),
    /// Those that the first lets something out of and the second nothing.
    Only(Vec<(NodeId, NodeId)>),
}

impl<'a> Asked<'a> {
    pub(super) fn new(policy: &'a Resolved, environment: &'a Environment) -> Self {
        let mut to = Translation::new();
        let step = to.term(policy, policy.whole);
        let on_its_way = on_its_way(&mut to, policy, environment);
        let again = to.program.sequence([on_its_way, step]);
        let again = to.program.star(again);
        let network = to.program.sequence([step, again]);
        let preferred = preferences(&mut to, environment);
        Asked {
            preferred,
            well_formed: well_formed(&mut to),
            initiating: initiating(&mut to),
            to,
            policy,
            environment,
            network,
            step,
            on_its_way,
        }
    }

    pub(super) fn question(&mut self, claim: &Claim) -> Question {
        let condition = match claim.condition {
            Some(condition) => self.to.predicate(self.policy, condition),
            None => self.to.program.id(),
        };
        let usual = self.to.program.sequence([self.well_formed, condition]);
        let first = self.to.program.sequence([usual, self.initiating]);
        match &claim.kind {
            ClaimKind::Reach(from, to) => {
                let ends = Ends::new(&mut self.to, self.policy, from, to);
                let sent = ends.sent(&mut self.to, from);
                let addressed = ends.addressed(&mut self.to, to);
                let delivered = ends.delivered(&mut self.to, to);
                let input = self.to.program.sequence([first, addressed, sent]);
                let good = self.to.program.sequence([input, self.network, delivered]);
                Question::Uncovered(input, good)
            }
            ClaimKind::Isolated { left, right, both } => {
                let meant = if *both { usual } else { first };
                let ways = [(left, right), (right, left)].map(|(from, to)| {
                    let ends = Ends::new(&mut self.to, self.policy, from, to);
                    let sent = ends.sent(&mut self.to, from);
                    let delivered = ends.delivered(&mut self.to, to);
                    let way = [meant, sent, self.network, delivered];
                    self.to.program.sequence(way)
                });
                Question::Any(ways.into())
            }
            ClaimKind::Waypoint { from, to, via } => self.waypoint(usual, from, to, via),
            ClaimKind::LoopFree => {
                let step = [self.on_its_way, self.step, self.on_its_way];
                let start = [usual, self.step, self.on_its_way];
                Question::Returning {
                    start: self.to.program.sequence(start),
                    step: self.to.program.sequence(step),
                    same: self.to.program.id(),
                }
            }
            ClaimKind::NoBlackHole => self.black_hole(usual, claim.condition.is_some()),
            ClaimKind::Equal(left, right) => {
                let (left, right, packets) = self.operands(usual, *left, *right);
                let pairs = vec![(left, right), (right, left)];
                match packets {
                    true => Question::Beyond(pairs),
                    false => Question::Only(pairs),
                }
            }
            ClaimKind::Contained(left, right) => {
                let (left, right, packets) = self.operands(usual, *left, *right);
                match packets {
                    true => Question::Beyond(vec![(left, right)]),
                    false => Question::Only(vec![(left, right)]),
                }
            }
        }
    }

    /// Ways that never stop at one of `via`.
    fn waypoint(&mut self, usual: NodeId, from: &Group, to: &Group, via: &Group) -> Question {
        // What a way-point sends itself has passed it.
        let passed = via.numbers();
        let mut from = from.clone();
        from.members.retain(|m| !passed.contains(&m.number));
        from.addresses = hosts(
            from.members
                .iter()
                .flat_map(|m| m.addresses.iter().copied()),
        );
        let ends = Ends::new(&mut self.to, self.policy, &from, to);
        let sent = ends.sent(&mut self.to, &from);
        let delivered = ends.delivered(&mut self.to, to);
        let at_via = ports(&mut self.to, via.numbers().into_iter());
        let avoiding = self.to.program.not(at_via);
        let hop = [self.on_its_way, self.step, avoiding];
        let hop = self.to.program.sequence(hop);
        let hops = self.to.program.star(hop);
        // Being delivered to a way-point that is addressed is no way around it.
        let via_addressed = self.to.address(Field::Destination, &via.addresses);
        let to_via = self.to.equals(Field::Port, OWNER);
        let to_via = self.to.program.sequence([to_via, via_addressed]);
        let elsewhere = self.to.program.not(to_via);
        let way = [usual, sent, self.step, avoiding, hops, elsewhere, delivered];
        Question::Any(vec![self.to.program.sequence(way)])
    }

    /// What is let out and reaches no endpoint.
    fn black_hole(&mut self, usual: NodeId, any_address: bool) -> Question {
        let own = self.environment.endpoints.iter();
        let own: Vec<_> = own
            .filter(|e| e.network == self.policy.network.name)
            .collect();
        let addresses = own.iter().flat_map(|e| e.addresses.iter().copied());
        let owned = self.to.address(Field::Destination, &hosts(addresses));
        let numbers = own.iter().map(|e| e.number);
        let at_endpoint = ports(&mut self.to, numbers);
        let v4 = self.to.kind(Field::Destination, Kind::V4);
        let v6 = self.to.kind(Field::Destination, Kind::V6);
        let addressed = match any_address {
            true => self.to.program.union([v4, v6]),
            false => owned,
        };
        let to_owner = self.to.equals(Field::Port, OWNER);
        let unowned = self.to.program.not(owned);
        let hole = self.to.program.sequence([to_owner, unowned]);
        let sources = own.iter().flat_map(|e| e.addresses.iter().copied());
        let sources = self.to.address(Field::Source, &hosts(sources));
        let senders = self.to.program.sequence([at_endpoint, sources]);
        let way = [usual, senders, addressed, self.network, hole];
        Question::Any(vec![self.to.program.sequence(way)])
    }

    /// Both sides of a comparison, and whether the packets that come out are compared, or only
    /// those that something is sent of.
    fn operands(&mut self, usual: NodeId, left: Operand, right: Operand) -> (NodeId, NodeId, bool) {
        let packets = matches!((left, right), (Operand::Policy(_), Operand::Policy(_)));
        let sides = [left, right].map(|operand| {
            let inner = match operand {
                Operand::Policy(term) => self.to.term(self.policy, term),
                Operand::Predicate(predicate) => self.to.predicate(self.policy, predicate),
            };
            let whole = match operand {
                Operand::Policy(_) if !packets => self.sent_of(inner),
                _ => inner,
            };
            self.to.program.sequence([usual, whole])
        });
        (sides[0], sides[1], packets)
    }

    /// What a policy sends somewhere.
    fn sent_of(&mut self, policy: NodeId) -> NodeId {
        sent(&mut self.to, self.policy, policy)
    }
}

/// At a transparent endpoint, and not addressed to it.
fn on_its_way(to: &mut Translation, policy: &Resolved, environment: &Environment) -> NodeId {
    let transparent: BTreeSet<u32> = policy.transparent.clone();
    let endpoints = environment.endpoints.iter();
    let arms: Vec<NodeId> = endpoints
        .filter(|e| transparent.contains(&e.number))
        .map(|endpoint| {
            let there = to.equals(Field::Port, endpoint.number.into());
            let own = hosts(endpoint.addresses.iter().copied());
            let arrived = to.address(Field::Destination, &own);
            let going_on = to.program.not(arrived);
            to.program.sequence([there, going_on])
        })
        .collect();
    to.program.union(arms)
}

impl Question {
    /// The nodes that it asks about.
    pub(super) fn roots(&self) -> Vec<NodeId> {
        match self {
            Question::Uncovered(input, good) => vec![*input, *good],
            Question::Any(ways) => ways.clone(),
            Question::Returning { start, step, same } => vec![*start, *step, *same],
            Question::Beyond(pairs) | Question::Only(pairs) => {
                pairs.iter().flat_map(|(a, b)| [*a, *b]).collect()
            }
        }
    }

    /// The packets, as they enter, that break the claim.
    pub(super) fn broken(&self, engine: &mut Symbolic<'_>) -> Result<Set, Limit> {
        match self {
            Question::Uncovered(input, good) => {
                let (input, good) = (engine.set_of(*input)?, engine.set_of(*good)?);
                engine.diagrams.sets.difference(input, good)
            }
            Question::Any(ways) => {
                let mut broken = Set::EMPTY;
                for way in ways {
                    let set = engine.set_of(*way)?;
                    broken = engine.diagrams.sets.union(broken, set)?;
                }
                Ok(broken)
            }
            Question::Returning { start, step, same } => {
                let (start, step) = (engine.spp_of(*start)?, engine.spp_of(*step)?);
                let same = engine.spp_of(*same)?;
                let diagrams = &mut engine.diagrams;
                let often = diagrams.star(step)?;
                let at_least_once = diagrams.sequence(step, often)?;
                let back = diagrams.intersection(at_least_once, same)?;
                let cycle = diagrams.domain(back)?;
                let way = diagrams.sequence(start, often)?;
                diagrams.pull(way, cycle)
            }
            Question::Beyond(pairs) => {
                let mut broken = Set::EMPTY;
                for (left, right) in pairs {
                    let (left, right) = (engine.spp_of(*left)?, engine.spp_of(*right)?);
                    let more = engine.diagrams.difference(left, right)?;
                    let set = engine.diagrams.domain(more)?;
                    broken = engine.diagrams.sets.union(broken, set)?;
                }
                Ok(broken)
            }
            Question::Only(pairs) => {
                let mut broken = Set::EMPTY;
                for (left, right) in pairs {
                    let (left, right) = (engine.set_of(*left)?, engine.set_of(*right)?);
                    let set = engine.diagrams.sets.difference(left, right)?;
                    broken = engine.diagrams.sets.union(broken, set)?;
                }
                Ok(broken)
            }
        }
    }
}
