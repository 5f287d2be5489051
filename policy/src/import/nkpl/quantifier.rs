//! `exists @f p` and `forall @f p`: a predicate freed of a field.
//!
//! The field's values fall into finitely many classes that the predicate cannot tell apart, each a
//! range. For each class the tests of the field are decided, which leaves a predicate over the
//! other fields; `exists` is the union of these.

use std::collections::{BTreeSet, HashMap};

use crate::import::builder::{Builder, Excess};
use crate::verify::program::{Domain, FieldId, Node, NodeId};

/// The packets that some value of the field makes pass the predicate.
pub(super) fn exists(
    builder: &mut Builder<'_>,
    field: FieldId,
    predicate: NodeId,
) -> Result<NodeId, Excess> {
    let nodes = below(builder, predicate);
    let representatives = representatives(builder, field, &nodes);
    builder.spend(nodes.len().saturating_mul(representatives.len()))?;
    let mut arms = Vec::with_capacity(representatives.len());
    for value in representatives {
        arms.push(decided(builder, field, value, &nodes, predicate)?);
    }
    builder.union(&arms)
}

/// The packets that every value of the field makes pass the predicate.
pub(super) fn forall(
    builder: &mut Builder<'_>,
    field: FieldId,
    predicate: NodeId,
) -> Result<NodeId, Excess> {
    let negated = builder.not(predicate)?;
    let counterexample = exists(builder, field, negated)?;
    builder.not(counterexample)
}

/// The nodes that a predicate is made of, itself included: operands before what uses them.
fn below(builder: &Builder<'_>, predicate: NodeId) -> Vec<NodeId> {
    let mut seen = BTreeSet::from([predicate]);
    let mut open = vec![predicate];
    while let Some(id) = open.pop() {
        for operand in operands(builder.program().node(id)) {
            if seen.insert(operand) {
                open.push(operand);
            }
        }
    }
    seen.into_iter().collect()
}

fn operands(node: &Node) -> Vec<NodeId> {
    match node {
        Node::Not(operand) => vec![*operand],
        Node::Union(operands) | Node::Sequence(operands) => operands.to_vec(),
        Node::Intersection(left, right)
        | Node::Difference(left, right)
        | Node::SymmetricDifference(left, right) => vec![*left, *right],
        _ => Vec::new(),
    }
}

/// One value of each class, as numbers of the domain of integers.
fn representatives(builder: &Builder<'_>, field: FieldId, nodes: &[NodeId]) -> BTreeSet<u128> {
    // The least integer begins the first class.
    let mut firsts = BTreeSet::from([0]);
    for id in nodes {
        if let Node::Test(tested, set) = builder.program().node(*id)
            && *tested == field
        {
            for (first, last) in builder.program().set(*set) {
                firsts.insert(first.number);
                if last.number < Domain::Integer.all()[0].1.number {
                    firsts.insert(last.number + 1);
                }
            }
        }
    }
    firsts
}

/// The predicate with the field known to have a value.
fn decided(
    builder: &mut Builder<'_>,
    field: FieldId,
    value: u128,
    nodes: &[NodeId],
    predicate: NodeId,
) -> Result<NodeId, Excess> {
    let mut new: HashMap<NodeId, NodeId> = HashMap::with_capacity(nodes.len());
    for id in nodes {
        let node = builder.program().node(*id).clone();
        let now = |operand: &NodeId| new[operand];
        let made = match &node {
            Node::Test(tested, set) if *tested == field => {
                let ranges = builder.program().set(*set);
                let holds = ranges
                    .iter()
                    .any(|(first, last)| (first.number..=last.number).contains(&value));
                if holds { builder.id() } else { builder.drop() }
            }
            Node::Not(operand) => builder.not(now(operand))?,
            Node::Union(operands) => {
                let operands: Vec<NodeId> = operands.iter().map(now).collect();
                builder.union(&operands)?
            }
            Node::Sequence(operands) => {
                let operands: Vec<NodeId> = operands.iter().map(now).collect();
                builder.sequence(&operands)?
            }
            Node::Intersection(left, right) => builder.intersection(now(left), now(right))?,
            Node::Difference(left, right) => builder.difference(now(left), now(right))?,
            Node::SymmetricDifference(left, right) => {
                builder.symmetric_difference(now(left), now(right))?
            }
            _ => *id,
        };
        new.insert(*id, made);
    }
    Ok(new[&predicate])
}
