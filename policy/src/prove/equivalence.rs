//! Whether two policies are the same: the packets that come out, and their ways.

use super::failure::{Step, first_step};
use super::traffic::well_formed;
use super::translate::Translation;
use super::witness::{packet, preferences};
use crate::environment::Environment;
use crate::packet::Packet;
use crate::term::Resolved;
use crate::verify::counterexample::{Counterexample, Side};
use crate::verify::decide::{Answer, Verifier, equivalent};
use crate::verify::options::{Limit, Options};
use crate::verify::program::{FieldId, Node, NodeId, Value};
use crate::verify::symbolic::Symbolic;

/// Compares two policies for every packet, whatever a network carries: what comes out, and what
/// `dup` and links record on the way. Labels are left aside.
///
/// # Errors
/// [`Limit`] when the options allow too little, or the work is cancelled.
pub fn equivalent_policies(
    left: &Resolved,
    right: &Resolved,
    options: &Options,
) -> Result<Answer, Limit> {
    let mut to = Translation::with_histories();
    let [left, right] = [left, right].map(|policy| to.policy(policy));
    equivalent(&to.program, left, right, options)
}

/// A packet that two policies treat differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The packet, where it enters.
    pub packet: Packet,
    /// Whether networks carry such packets: two policies may differ only in what never occurs, such
    /// as IPv4 addresses in a frame that is no IPv4.
    pub is_carried: bool,
    /// What the first makes of it.
    pub left: Step,
    /// What the second makes of it.
    pub right: Step,
    /// A way that only one of them has, where ways were compared.
    pub way: Option<Way>,
}

/// The way of a packet in one of two policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The policy that has it.
    pub side: Side,
    /// The packet at each `dup`, in order.
    pub hops: Vec<Packet>,
    /// The packet that comes out.
    pub output: Packet,
}

/// Compares two policies as [`equivalent_policies`] does; where they differ, for a packet that a
/// network carries if there is one. Both are resolved in `environment`.
///
/// # Errors
/// [`Limit`] when the options allow too little, or the work is cancelled.
pub fn difference(
    left: &Resolved,
    right: &Resolved,
    environment: &Environment,
    options: &Options,
) -> Result<Option<Difference>, Limit> {
    let mut to = Translation::with_histories();
    let sides = [left, right].map(|policy| to.policy(policy));
    let nodes = to.program.reachable(&sides);
    let records = nodes.iter().any(|id| *to.program.node(*id) == Node::Dup);
    let found = match records {
        true => by_way(&mut to, sides, options)?,
        false => by_packet(&mut to, sides, environment, options)?.map(|(p, c)| (p, c, None)),
    };
    Ok(found.map(|(packet, is_carried, way)| Difference {
        packet,
        is_carried,
        left: first_step(left, environment, packet),
        right: first_step(right, environment, packet),
        way,
    }))
}

/// A packet of which different packets come out, and whether networks carry it.
fn by_packet(
    to: &mut Translation,
    sides: [NodeId; 2],
    environment: &Environment,
    options: &Options,
) -> Result<Option<(Packet, bool)>, Limit> {
    if sides[0] == sides[1] {
        return Ok(None);
    }
    let exist = well_formed(to);
    let preferred = preferences(to, environment);
    let roots: Vec<NodeId> = sides
        .into_iter()
        .chain([exist])
        .chain(preferred.iter().copied())
        .collect();
    let mut engine = Symbolic::new(&to.program, &roots, options)?;
    let (left, right) = (engine.spp_of(sides[0])?, engine.spp_of(sides[1])?);
    let differ = engine.diagrams.symmetric_difference(left, right)?;
    let differ = engine.diagrams.domain(differ)?;
    if differ.is_empty() {
        return Ok(None);
    }
    let exist = engine.set_of(exist)?;
    let carried = engine.diagrams.sets.intersection(differ, exist)?;
    let shown = if carried.is_empty() { differ } else { carried };
    let example = packet(to, environment, &preferred, &mut engine, shown);
    Ok(Some((example, !carried.is_empty())))
}

/// A packet with a way that only one has, and whether networks carry it.
fn by_way(
    to: &mut Translation,
    sides: [NodeId; 2],
    options: &Options,
) -> Result<Option<(Packet, bool, Option<Way>)>, Limit> {
    let exist = well_formed(to);
    let carried = sides.map(|side| to.program.sequence([exist, side]));
    let roots = [sides, carried].concat();
    let mut verifier = Verifier::new(&to.program, &roots, options)?;
    let Answer::Fails(any) = verifier.equivalent(sides[0], sides[1])? else {
        return Ok(None);
    };
    let answer = verifier.equivalent(carried[0], carried[1])?;
    let (shown, is_carried) = match answer {
        Answer::Fails(carried) => (carried, true),
        Answer::Holds => (any, false),
    };
    let Counterexample {
        input,
        hops,
        output,
        side,
        ..
    } = *shown;
    let way = Way {
        side,
        hops: hops.iter().map(|hop| read(to, hop)).collect(),
        output: read(to, &output),
    };
    Ok(Some((read(to, &input), is_carried, Some(way))))
}

/// A packet of the program as one of the policy.
fn read(to: &Translation, packet: &[Value]) -> Packet {
    let fields = (0..).map(FieldId).zip(packet.iter().copied());
    to.packet(&fields.collect::<Vec<_>>())
}
