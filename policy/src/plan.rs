//! What a change of policy changes, for all packets: which are newly allowed, newly denied, or
//! treated differently, and which endpoints can begin to reach each other, or no longer can.
//!
//! The difference is symbolic, so nothing is missed; it is shown as products of values per field,
//! named after the sets of the policies, each with one packet as an example.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::environment::{Endpoint, Environment};
use crate::field::Field;
use crate::packet::Packet;
use crate::prove::traffic::{initiating, sent, well_formed};
use crate::prove::translate::Translation;
use crate::prove::witness::{packet, preferences};
use crate::prove::{Step, first_step};
use crate::show::show_packet;
use crate::term::Resolved;
use crate::verify::options::{Limit, Options};
use crate::verify::program::{NodeId, Range, Value};
use crate::verify::set::Set;
use crate::verify::symbolic::Symbolic;

mod names;

use names::Names;

/// Changes of packets that are listed; the rest is counted as more.
pub const MAX_CHANGES: usize = 64;
/// Endpoints that are named on one side of a change of reachability.
pub const MAX_NAMED: usize = 8;

/// What a change of policy changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Packets that become something else.
    pub changes: Vec<PacketChange>,
    /// There are more than are listed.
    pub more: bool,
    /// Endpoints that can begin to reach each other, or no longer can.
    pub reachability: Vec<ReachabilityChange>,
}

/// How packets are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// Something is sent of them, and nothing was.
    Allowed,
    /// Nothing is sent of them, and something was.
    Denied,
    /// Something else is sent of them.
    Changed,
}

/// Packets that become something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketChange {
    /// How.
    pub kind: ChangeKind,
    /// Which packets, in words: the fields that matter.
    pub packets: String,
    /// One of them.
    pub example: String,
    /// What became of the example.
    pub before: String,
    /// What becomes of it.
    pub after: String,
}

/// Endpoints that can begin to reach each other, or no longer can: each of the first, each of the
/// second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReachabilityChange {
    /// Whether they can now.
    pub reachable: bool,
    /// Who begins: a set, or the names of the first endpoints.
    pub from: String,
    /// Who is reached.
    pub to: String,
    /// How many pairs of endpoints that are.
    pub pairs: usize,
}

impl Plan {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "No packet is treated differently.");
        }
        for change in &self.changes {
            let sign = match change.kind {
                ChangeKind::Allowed => '+',
                ChangeKind::Denied => '-',
                ChangeKind::Changed => '~',
            };
            writeln!(f, "{sign} {}", change.packets)?;
            writeln!(f, "    e.g. {}", change.example)?;
            writeln!(f, "    before: {}", change.before)?;
            writeln!(f, "    after:  {}", change.after)?;
        }
        if self.more {
            writeln!(f, "… and more: only the first {MAX_CHANGES} are shown")?;
        }
        for change in &self.reachability {
            let sign = if change.reachable { '+' } else { '-' };
            let can = if change.reachable {
                "can now"
            } else {
                "can no longer"
            };
            let pairs = match change.pairs {
                1 => "1 pair of endpoints".to_owned(),
                pairs => format!("{pairs} pairs of endpoints"),
            };
            writeln!(
                f,
                "{sign} {} {can} reach {} ({pairs})",
                change.from, change.to
            )?;
        }
        Ok(())
    }
}

/// Compares what two policies make of packets; without an old one, everything was dropped. Both are
/// resolved in `environment`.
///
/// # Errors
/// [`Limit`] when the options allow too little, or the work is cancelled.
pub fn plan(
    old: Option<&Resolved>,
    new: &Resolved,
    environment: &Environment,
    options: &Options,
) -> Result<Plan, Limit> {
    let mut to = Translation::new();
    let sides = [old, Some(new)].map(|policy| match policy {
        Some(policy) => {
            let whole = to.term(policy, policy.whole);
            sent(&mut to, policy, whole)
        }
        None => to.program.drop(),
    });
    let exist = well_formed(&mut to);
    let first = initiating(&mut to);
    let preferred = preferences(&mut to, environment);
    let mut names = Names::new(&mut to, [old, Some(new)].into_iter().flatten());
    names.endpoints(environment, &new.network.name);
    let roots: Vec<NodeId> = sides
        .into_iter()
        .chain([exist, first])
        .chain(preferred.iter().copied())
        .collect();
    let options = Options {
        order: [
            Field::Source,
            Field::Destination,
            Field::Protocol,
            Field::DestinationPort,
        ]
        .map(|field| to.field(field))
        .to_vec(),
        ..options.clone()
    };
    let mut engine = Symbolic::new(&to.program, &roots, &options)?;
    let mut planned = Planned {
        old,
        new,
        environment,
        to: &to,
        names: &names,
        preferred: &preferred,
        exist: engine.set_of(exist)?,
        plan: Plan::default(),
    };
    let [before, after] = sides;
    let (left, right) = (engine.spp_of(before)?, engine.spp_of(after)?);
    let (was, is) = (engine.set_of(before)?, engine.set_of(after)?);
    let sets = &mut engine.diagrams.sets;
    let (allowed, denied) = (sets.difference(is, was)?, sets.difference(was, is)?);
    let both = sets.intersection(was, is)?;
    let differ = engine.diagrams.symmetric_difference(left, right)?;
    let differ = engine.diagrams.domain(differ)?;
    let changed = engine.diagrams.sets.intersection(differ, both)?;
    for (kind, set) in [
        (ChangeKind::Allowed, allowed),
        (ChangeKind::Denied, denied),
        (ChangeKind::Changed, changed),
    ] {
        planned.list(&mut engine, kind, set)?;
    }
    let first = engine.set_of(first)?;
    planned.reachability(&mut engine, first, was, is)?;
    Ok(planned.plan)
}

struct Planned<'a> {
    old: Option<&'a Resolved>,
    new: &'a Resolved,
    environment: &'a Environment,
    to: &'a Translation,
    names: &'a Names,
    preferred: &'a [NodeId],
    /// Packets as networks carry them.
    exist: Set,
    plan: Plan,
}

impl Planned<'_> {
    /// Lists packets as products, each with an example.
    fn list(&mut self, engine: &mut Symbolic<'_>, kind: ChangeKind, set: Set) -> Result<(), Limit> {
        // What cannot exist is left out product by product: the products stay simple that way.
        let cubes: Vec<_> = engine.cubes(set).take(16 * MAX_CHANGES).collect();
        for cube in cubes {
            let part = engine.set_of_cube(&cube)?;
            let part = engine.diagrams.sets.intersection(part, self.exist)?;
            if part.is_empty() {
                continue;
            }
            if self.plan.changes.len() == MAX_CHANGES {
                self.plan.more = true;
                return Ok(());
            }
            let example = packet(self.to, self.environment, self.preferred, engine, part);
            self.plan.changes.push(PacketChange {
                kind,
                packets: self.names.describe(self.to, &cube),
                example: show_packet(&example),
                before: self.outcome(self.old, example),
                after: self.outcome(Some(self.new), example),
            });
        }
        Ok(())
    }

    fn outcome(&self, policy: Option<&Resolved>, packet: Packet) -> String {
        match policy {
            Some(policy) => decided(&first_step(policy, self.environment, packet)),
            None => "dropped: there was no policy".to_owned(),
        }
    }

    /// Which endpoints can begin to reach each other, or no longer can.
    fn reachability(
        &mut self,
        engine: &mut Symbolic<'_>,
        first: Set,
        was: Set,
        is: Set,
    ) -> Result<(), Limit> {
        let space = engine.space();
        let ends = [Field::Source, Field::Destination].map(|field| {
            let field = space.field(self.to.field(field));
            field.map_or(0, |field| field.level + field.width)
        });
        let rest = ends[0].max(ends[1]);
        let meant = engine.diagrams.sets.intersection(first, self.exist)?;
        let mut pairs = [was, is];
        for side in &mut pairs {
            let sets = &mut engine.diagrams.sets;
            *side = sets.intersection(*side, meant)?;
            *side = sets.forget_from(*side, rest)?;
        }
        let [was, is] = pairs;
        // Each way of naming once: the two families often say the same.
        let mut found: BTreeMap<(bool, String, String), usize> = BTreeMap::new();
        for (reachable, set) in [
            (true, engine.diagrams.sets.difference(is, was)?),
            (false, engine.diagrams.sets.difference(was, is)?),
        ] {
            for cube in engine.cubes(set).take(1 << 14) {
                let of = |field| {
                    let id = self.to.field(field);
                    let named = cube.fields.iter().find(|(named, _)| *named == id);
                    self.inside(named.map(|(_, ranges)| ranges.as_slice()))
                };
                let (from, mut to) = (of(Field::Source), of(Field::Destination));
                if let [only] = from.as_slice() {
                    to.retain(|e| e.number != only.number);
                }
                let same = from
                    .iter()
                    .filter(|e| to.iter().any(|o| o.number == e.number));
                let pairs = from.len() * to.len() - same.count();
                if pairs > 0 {
                    let key = (reachable, self.names.group(&from), self.names.group(&to));
                    let known = found.entry(key).or_default();
                    *known = pairs.max(*known);
                }
            }
        }
        let changes = found
            .into_iter()
            .map(|((reachable, from, to), pairs)| ReachabilityChange {
                reachable,
                from,
                to,
                pairs,
            });
        self.plan.reachability = changes.collect();
        self.plan
            .reachability
            .sort_by_key(|change| !change.reachable);
        Ok(())
    }

    /// The endpoints of the network with an address in ranges; all without ranges.
    fn inside(&self, ranges: Option<&[Range]>) -> Vec<&Endpoint> {
        let policy = self.new;
        let own =
            |e: &&Endpoint| e.network == policy.network.name || policy.peers.contains(&e.network);
        let endpoints = self.environment.endpoints.iter().filter(own);
        endpoints
            .filter(|endpoint| {
                let mut addresses = endpoint.addresses.iter();
                ranges.is_none_or(|ranges| addresses.any(|a| within(ranges, *a)))
            })
            .collect()
    }
}

/// Whether an address is in ranges, which are in order.
fn within(ranges: &[Range], address: std::net::IpAddr) -> bool {
    let value = Value::address(address.into());
    let behind = ranges.partition_point(|(first, _)| *first <= value);
    behind
        .checked_sub(1)
        .is_some_and(|at| value <= ranges[at].1)
}

/// A decision in words.
fn decided(step: &Step) -> String {
    let text = step.to_string();
    match text.split_once(": ") {
        Some((_, decided)) => decided.to_owned(),
        None => text,
    }
}
