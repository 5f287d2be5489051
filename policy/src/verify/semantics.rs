//! What a program means, packet by packet, straight from the papers (Anderson et al., POPL 2014,
//! figure 2; the set operations from Moeller et al., PLDI 2024). Slow and simple: the oracle.
//!
//! - [`histories`]: with `dup`, up to a number of them;
//! - [`evaluate`]: which packets come out.

use std::collections::BTreeSet;

use super::program::{Node, NodeId, Program};
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
    packet: &[super::program::Value],
    dups: usize,
) -> Result<BTreeSet<History>, Refused> {
    let meaning = Meaning {
        program,
        record: true,
    };
    meaning.of(node, &packet.to_vec(), dups, DEPTH)
}

/// The packets that a program makes of one.
///
/// # Errors
/// [`Refused`] when the program or the result is too large, or needs to know histories.
pub fn evaluate(
    program: &Program,
    node: NodeId,
    packet: &[super::program::Value],
) -> Result<BTreeSet<Packet>, Refused> {
    let meaning = Meaning {
        program,
        record: false,
    };
    let histories = meaning.of(node, &packet.to_vec(), 0, DEPTH)?;
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

impl Meaning<'_> {
    /// Histories with at most `dups` hops; `depth` bounds the recursion.
    fn of(
        &self,
        node: NodeId,
        packet: &Packet,
        dups: usize,
        depth: usize,
    ) -> Result<BTreeSet<History>, Refused> {
        let depth = depth.checked_sub(1).ok_or(Refused::TooDeep)?;
        let of = |node, packet: &Packet| self.of(node, packet, dups, depth);
        let one = |hops, output| Ok(BTreeSet::from([History { hops, output }]));
        match self.program.node(node) {
            Node::Drop => Ok(BTreeSet::new()),
            Node::Id => one(vec![], packet.clone()),
            Node::Dup if !self.record => one(vec![], packet.clone()),
            Node::Dup if dups == 0 => Ok(BTreeSet::new()),
            Node::Dup => one(vec![packet.clone()], packet.clone()),
            Node::Test(field, set) => {
                let value = packet[usize::from(field.0)];
                let ranges = self.program.set(*set);
                if ranges
                    .iter()
                    .any(|(first, last)| *first <= value && value <= *last)
                {
                    one(vec![], packet.clone())
                } else {
                    Ok(BTreeSet::new())
                }
            }
            Node::Assign(field, value) => {
                let mut output = packet.clone();
                output[usize::from(field.0)] = *value;
                one(vec![], output)
            }
            Node::Not(operand) => {
                if of(*operand, packet)?.is_empty() {
                    one(vec![], packet.clone())
                } else {
                    Ok(BTreeSet::new())
                }
            }
            Node::Union(parts) => {
                let mut all = BTreeSet::new();
                for part in parts {
                    all.append(&mut of(*part, packet)?);
                    bounded(&all)?;
                }
                Ok(all)
            }
            Node::Sequence(parts) => {
                let mut all = one(vec![], packet.clone())?;
                for part in parts {
                    all = self.after(&all, *part, dups, depth)?;
                }
                Ok(all)
            }
            Node::Star(body) => {
                let mut all = one(vec![], packet.clone())?;
                let mut fresh = all.clone();
                while !fresh.is_empty() {
                    let next = self.after(&fresh, *body, dups, depth)?;
                    fresh = next.difference(&all).cloned().collect();
                    all.extend(fresh.iter().cloned());
                    bounded(&all)?;
                }
                Ok(all)
            }
            Node::Conditional(arms, otherwise) => {
                for (predicate, then) in arms {
                    if !of(*predicate, packet)?.is_empty() {
                        return of(*then, packet);
                    }
                }
                of(*otherwise, packet)
            }
            Node::Intersection(left, right) => {
                let (left, right) = self.compared(node, *left, *right, packet, dups, depth)?;
                Ok(left.intersection(&right).cloned().collect())
            }
            Node::Difference(left, right) => {
                let (left, right) = self.compared(node, *left, *right, packet, dups, depth)?;
                Ok(left.difference(&right).cloned().collect())
            }
            Node::SymmetricDifference(left, right) => {
                let (left, right) = self.compared(node, *left, *right, packet, dups, depth)?;
                Ok(left.symmetric_difference(&right).cloned().collect())
            }
        }
    }

    /// Each history continued by a node.
    fn after(
        &self,
        histories: &BTreeSet<History>,
        node: NodeId,
        dups: usize,
        depth: usize,
    ) -> Result<BTreeSet<History>, Refused> {
        let mut all = BTreeSet::new();
        for history in histories {
            let left = dups - history.hops.len().min(dups);
            for next in self.of(node, &history.output, left, depth)? {
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

    fn compared(
        &self,
        node: NodeId,
        left: NodeId,
        right: NodeId,
        packet: &Packet,
        dups: usize,
        depth: usize,
    ) -> Result<(BTreeSet<History>, BTreeSet<History>), Refused> {
        let has_dup = || {
            let nodes = self.program.reachable(&[node]);
            nodes
                .iter()
                .any(|node| *self.program.node(*node) == Node::Dup)
        };
        if !self.record && has_dup() {
            return Err(Refused::ComparesHistories);
        }
        let left = self.of(left, packet, dups, depth)?;
        Ok((left, self.of(right, packet, dups, depth)?))
    }
}

fn bounded(histories: &BTreeSet<History>) -> Result<(), Refused> {
    if histories.len() > RESULTS {
        return Err(Refused::TooMany);
    }
    Ok(())
}
