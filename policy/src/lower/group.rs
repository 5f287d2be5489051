//! Copies that differ only in where they go, gathered into one copy to a set of endpoints.
//!
//! `flood` and `multicast` mean one copy to each endpoint but the one where the packet is, so the
//! leaf for each sender lacks another endpoint. The data plane leaves the sender out by itself;
//! so where the sender is known to be `k`, a leaf that sends to all of a set but `k` sends to the
//! set: every sender has the same verdict then, and a node one set instead of one for each sender.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_dataplane_common::group::MAX_MEMBERS;
use sunwire_dataplane_common::tables::MAX_COPIES;

use super::Lowering;
use crate::fdd::{Id, Node};
use crate::field::{Field, OWNER};
use crate::packet::LabelId;
use crate::tables::{Copied, Out};

/// The sets that a policy's verbs name, by the label of the verb: sorted, each number once.
pub(crate) type Named = BTreeMap<LabelId, Vec<u32>>;

/// Gathers copies, each with its label; `sender` is where the packet is, if only one place leads
/// here.
pub(super) fn gather(
    copies: Vec<(Copied, LabelId)>,
    sender: Option<u32>,
    named: &Named,
) -> Vec<Copied> {
    let mut gathered = Vec::new();
    // By what is rewritten: numbers of endpoints, and the sets of the verbs that sent there.
    let mut alike: Vec<(Copied, BTreeSet<u32>, BTreeSet<LabelId>)> = Vec::new();
    for (mut copy, label) in copies {
        // One that is given an address of its own is for whom has it.
        let is_addressed = copy.eth_dst.is_some_and(|mac| mac[0] & 1 == 0);
        match copy.out {
            Some(Out::Endpoint(number)) if !is_addressed => {
                copy.out = None;
                let place = alike.iter().position(|(other, ..)| *other == copy);
                let place = place.unwrap_or_else(|| {
                    alike.push((copy, BTreeSet::new(), BTreeSet::new()));
                    alike.len() - 1
                });
                alike[place].1.insert(number);
                alike[place].2.insert(label);
            }
            _ => gathered.push(copy),
        }
    }
    let singles: usize = alike.iter().map(|(_, numbers, _)| numbers.len()).sum();
    let is_too_many = gathered.len() + singles > MAX_COPIES;
    for (copy, numbers, labels) in alike {
        let sets = labels.iter().filter_map(|label| named.get(label));
        let set = sets.into_iter().find(|set| is_set(&numbers, sender, set));
        let members = match set {
            Some(set) => set.clone(),
            None if is_too_many && numbers.len() > 1 => numbers.iter().copied().collect(),
            None => {
                gathered.extend(numbers.into_iter().map(|number| Copied {
                    out: Some(Out::Endpoint(number)),
                    ..copy.clone()
                }));
                continue;
            }
        };
        gathered.push(Copied { members, ..copy });
    }
    gathered
}

/// Whether a set, without the sender, is these numbers.
fn is_set(numbers: &BTreeSet<u32>, sender: Option<u32>, set: &[u32]) -> bool {
    let others = set.iter().filter(|number| Some(**number) != sender);
    set.len() <= MAX_MEMBERS && others.eq(numbers)
}

impl Lowering<'_> {
    /// Whether tables of a diagram may be others for another sender.
    pub(super) fn depends_on_sender(&mut self, id: Id) -> bool {
        if self.policy.groups.is_empty() {
            return false;
        }
        if let Some(known) = self.lowered.dependent.get(&id) {
            return *known;
        }
        let depends = match self.fdd.store.node(id) {
            Node::Leaf(leaf) => {
                let order = self.fdd.store.order();
                let sends = |rank: u8, value: u64| {
                    order.0[usize::from(rank)] == Field::Port && value != OWNER
                };
                self.fdd
                    .store
                    .copies(leaf)
                    .any(|(action, _)| action.iter().any(|(rank, value)| sends(*rank, *value)))
            }
            Node::Test { cuts, .. } => {
                let children: Vec<Id> = cuts.iter().map(|(_, child)| *child).collect();
                children
                    .into_iter()
                    .any(|child| self.depends_on_sender(child))
            }
        };
        self.lowered.dependent.insert(id, depends);
        depends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(number: u32) -> Copied {
        Copied {
            out: Some(Out::Endpoint(number)),
            ..Copied::default()
        }
    }

    fn named() -> Named {
        Named::from([(7, vec![1, 2, 3])])
    }

    fn members(copies: &[u32], sender: Option<u32>) -> Vec<Vec<u32>> {
        let copies = copies.iter().map(|number| (to(*number), 7)).collect();
        let gathered = gather(copies, sender, &named());
        gathered.into_iter().map(|copy| copy.members).collect()
    }

    #[test]
    fn every_sender_of_a_set_sends_to_the_set() {
        for sender in [1, 2, 3] {
            let others: Vec<u32> = (1..=3).filter(|number| *number != sender).collect();
            assert_eq!(members(&others, Some(sender)), [vec![1, 2, 3]]);
        }
        assert_eq!(members(&[1, 2, 3], Some(9)), [vec![1, 2, 3]]);
        assert_eq!(members(&[1, 2, 3], None), [vec![1, 2, 3]]);
    }

    #[test]
    fn no_one_is_added_to_a_set_but_the_sender() {
        assert_eq!(members(&[1, 2], None), [vec![], vec![]]);
        assert_eq!(members(&[1, 2], Some(2)), [vec![], vec![]]);
        assert_eq!(members(&[1], Some(2)), [vec![]]);
    }

    #[test]
    fn many_copies_without_a_name_are_one() {
        let copies = (1..=5).map(|number| (to(number), 8)).collect();
        let gathered = gather(copies, Some(9), &named());
        assert_eq!(gathered.len(), 1);
        assert_eq!(gathered[0].members, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn copies_that_are_rewritten_otherwise_stay_apart() {
        let marked = |number| Copied {
            dscp: Some(46),
            ..to(number)
        };
        let copies = vec![(to(1), 7), (to(2), 7), (to(3), 7), (marked(1), 9)];
        let gathered = gather(copies, None, &named());
        assert_eq!(gathered.len(), 2);
        assert!(gathered.contains(&marked(1)));
        let addressed = Copied {
            eth_dst: Some([2, 0, 0, 0, 0, 1]),
            ..to(2)
        };
        let copies = vec![(addressed.clone(), 7)];
        assert_eq!(gather(copies, None, &named()), [addressed]);
    }
}
