//! What a program means, packet by packet, straight from the papers (Anderson et al., POPL 2014,
//! figure 2; the set operations from Moeller et al., PLDI 2024). Slow and simple: the oracle.
//!
//! - [`histories`]: with `dup`, up to a number of them;
//! - [`evaluate`]: which packets come out.

use std::collections::BTreeSet;

use super::program::{Node, NodeId, Program, Value};
use super::space::Packet;

/// What one packet can become: the packets recorded on the way, and the one that comes out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History {
    /// The packet at each `dup`, in order.
    pub hops: Vec<Packet>,
    /// The packet that comes out.
    pub output: Packet,
}

/// Why there is no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nodes within nodes, deeper than [`DEPTH`].
    #[error("the program is nested deeper than {DEPTH} levels")]
    TooDeep,
    /// More results than [`RESULTS`] at once.
    #[error("more than {RESULTS} results for one packet")]
    TooMany,
    /// `∩`, `⊕` or `∖` of programs with `dup` compares histories, which only [`histories`] knows.
    #[error("the program compares histories, which takes the verifier")]
    ComparesHistories,
}

/// Nodes within nodes are followed to this depth.
pub const DEPTH: usize = 500;

/// So many histories of one packet are kept.
pub const RESULTS: usize = 1 << 20;

/// All histories of a packet with at most `dups` hops.
///
/// # Errors
/// [`Refused`] when the program or the result is too large.
pub fn histories(
    program: &Program,
    node: NodeId,
    packet: &[Value],
    dups: usize,
) -> Result<BTreeSet<History>, Refused> {
    let meaning = Meaning {
        program,
        record: true,
    };
    meaning.of(node, &packet.to_vec(), Left { dups, depth: DEPTH })
}

/// The packets that a program makes of one.
///
/// # Errors
/// [`Refused`] when the program or the result is too large, or needs to know histories.
pub fn evaluate(
    program: &Program,
    node: NodeId,
    packet: &[Value],
) -> Result<BTreeSet<Packet>, Refused> {
    let meaning = Meaning {
        program,
        record: false,
    };
    let histories = meaning.of(
        node,
        &packet.to_vec(),
        Left {
            dups: 0,
            depth: DEPTH,
        },
    )?;
    Ok(histories
        .into_iter()
        .map(|history| history.output)
        .collect())
}

struct Meaning<'p> {
    program: &'p Program,
    /// Whether `dup` records the packet; else it does nothing.
    record: bool,
}

/// What may still be used.
#[derive(Clone, Copy)]
struct Left {
    /// Hops.
    dups: usize,
    /// Nodes within nodes.
    depth: usize,
}

type Histories = BTreeSet<History>;

/// One method per node that has operands, which keeps the frames of the recursion small.
impl Meaning<'_> {
    fn of(&self, node: NodeId, packet: &Packet, left: Left) -> Result<Histories, Refused> {
        let left = Left {
            depth: left.depth.checked_sub(1).ok_or(Refused::TooDeep)?,
            ..left
        };
        match self.program.node(node) {
            Node::Not(operand) => {
                let passes = self.of(*operand, packet, left)?.is_empty();
                Ok(filtered(passes, packet))
            }
            Node::Union(parts) => self.union(parts, packet, left),
            Node::Sequence(parts) => self.sequence(parts, packet, left),
            Node::Star(body) => self.star(*body, packet, left),
            Node::Conditional(arms, otherwise) => self.conditional(arms, *otherwise, packet, left),
            Node::Intersection(..) | Node::Difference(..) | Node::SymmetricDifference(..) => {
                self.operation(node, packet, left)
            }
            leaf => Ok(self.leaf(leaf, packet, left.dups)),
        }
    }

    fn leaf(&self, leaf: &Node, packet: &Packet, dups: usize) -> Histories {
        match leaf {
            Node::Drop => Histories::new(),
            Node::Dup if self.record && dups == 0 => Histories::new(),
            Node::Dup if self.record => Histories::from([History {
                hops: vec![packet.clone()],
                output: packet.clone(),
            }]),
            Node::Test(field, set) => {
                let value = packet[usize::from(field.0)];
                let mut ranges = self.program.set(*set).iter();
                let passes = ranges.any(|(first, last)| *first <= value && value <= *last);
                filtered(passes, packet)
            }
            Node::Assign(field, value) => {
                let mut output = packet.clone();
                output[usize::from(field.0)] = *value;
                filtered(true, &output)
            }
            _ => filtered(true, packet),
        }
    }

    fn union(&self, parts: &[NodeId], packet: &Packet, left: Left) -> Result<Histories, Refused> {
        let mut all = Histories::new();
        for part in parts {
            all.append(&mut self.of(*part, packet, left)?);
            bounded(&all)?;
        }
        Ok(all)
    }

    fn sequence(
        &self,
        parts: &[NodeId],
        packet: &Packet,
        left: Left,
    ) -> Result<Histories, Refused> {
        let mut all = filtered(true, packet);
        for part in parts {
            all = self.after(&all, *part, left)?;
        }
        Ok(all)
    }

    /// The least fixpoint: there are finitely many histories with so many hops.
    fn star(&self, body: NodeId, packet: &Packet, left: Left) -> Result<Histories, Refused> {
        let mut all = filtered(true, packet);
        let mut fresh = all.clone();
        while !fresh.is_empty() {
            let next = self.after(&fresh, body, left)?;
            fresh = next.difference(&all).cloned().collect();
            all.extend(fresh.iter().cloned());
            bounded(&all)?;
        }
        Ok(all)
    }

    fn conditional(
        &self,
        arms: &[(NodeId, NodeId)],
        otherwise: NodeId,
        packet: &Packet,
        left: Left,
    ) -> Result<Histories, Refused> {
        for (predicate, then) in arms {
            if !self.of(*predicate, packet, left)?.is_empty() {
                return self.of(*then, packet, left);
            }
        }
        self.of(otherwise, packet, left)
    }

    fn operation(&self, node: NodeId, packet: &Packet, left: Left) -> Result<Histories, Refused> {
        let (Node::Intersection(one, other)
        | Node::Difference(one, other)
        | Node::SymmetricDifference(one, other)) = self.program.node(node)
        else {
            return Ok(Histories::new());
        };
        if !self.record && self.has_dup(node) {
            return Err(Refused::ComparesHistories);
        }
        let one = self.of(*one, packet, left)?;
        let other = self.of(*other, packet, left)?;
        Ok(match self.program.node(node) {
            Node::Intersection(..) => one.intersection(&other).cloned().collect(),
            Node::Difference(..) => one.difference(&other).cloned().collect(),
            _ => one.symmetric_difference(&other).cloned().collect(),
        })
    }

    /// Each history continued by a node.
    fn after(&self, histories: &Histories, node: NodeId, left: Left) -> Result<Histories, Refused> {
        let mut all = Histories::new();
        for history in histories {
            let left = Left {
                dups: left.dups.saturating_sub(history.hops.len()),
                ..left
            };
            for next in self.of(node, &history.output, left)? {
                let mut hops = history.hops.clone();
                hops.extend(next.hops);
                all.insert(History {
                    hops,
                    output: next.output,
                });
            }
            bounded(&all)?;
        }
        Ok(all)
    }

    fn has_dup(&self, node: NodeId) -> bool {
        let nodes = self.program.reachable(&[node]);
        (nodes.iter()).any(|node| *self.program.node(*node) == Node::Dup)
    }
}

/// The packet as it is, or nothing.
fn filtered(passes: bool, packet: &Packet) -> Histories {
    let history = passes.then(|| History {
        hops: vec![],
        output: packet.clone(),
    });
    history.into_iter().collect()
}

fn bounded(histories: &BTreeSet<History>) -> Result<(), Refused> {
    if histories.len() > RESULTS {
        return Err(Refused::TooMany);
    }
    Ok(())
}
