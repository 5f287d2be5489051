//! Where diagrams live: every distinct node and action once.

use std::collections::HashMap;
use std::rc::Rc;

use super::{Order, TESTED};
use crate::field::{Field, OWNER};
use crate::packet::{LabelId, NO_LABEL};

/// A diagram, by its root node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(super) u32);

/// An action in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ActionId(pub(super) u32);

/// Assignments to fields, by rank, each rank once; [`OWNER`] is a value of [`Field::Port`].
pub type Action = Rc<[(u8, u64)]>;

/// What a diagram leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Actions on copies of the packet, each with its first label.
    pub(super) copies: Rc<[(ActionId, LabelId)]>,
    /// First label of the drops reached.
    pub dropped: LabelId,
    /// No arm of a conditional has decided yet; never in a finished diagram.
    pub(super) undecided: bool,
}

/// A node of a diagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The end.
    Leaf(Leaf),
    /// A test.
    Test {
        /// Rank of the tested field.
        rank: u8,
        /// Where each interval starts, from 0, and where it leads; neighbours differ.
        cuts: Rc<[(u64, Id)]>,
    },
}

/// The diagrams of a compilation would be larger than the limit, or take longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compiling this policy takes more than {0} steps")]
pub struct TooLarge(pub usize);

/// What operations remember.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Memo {
    Apply(super::apply::Operation, Id, Id),
    Map(super::apply::LeafMap, Id),
    Sequence(Id, Id),
    Act(ActionId, LabelId, Id),
    Multiplex(u8, Rc<[(u64, Id)]>),
    Canonical(super::canonical::Mode, u8, Id),
}

/// All nodes, actions and remembered results of one compilation.
pub struct Store {
    nodes: Vec<Node>,
    node_ids: HashMap<Node, Id>,
    actions: Vec<Action>,
    action_ids: HashMap<Action, ActionId>,
    pub(super) memo: HashMap<Memo, Id>,
    /// Fields and values at which a diagram is split: the same form as an action.
    pub(super) splits: HashMap<(super::canonical::Mode, Id), Action>,
    /// Greatest value of each field, by rank.
    greatest: [u64; TESTED],
    order: Order,
    steps: usize,
    max_steps: usize,
}

/// Drops everything, without a label.
pub(super) const EMPTY: Id = Id(0);
/// Lets everything through unchanged.
pub(super) const IDENTITY: Id = Id(1);
/// No arm has decided.
pub(super) const UNDECIDED: Id = Id(2);
/// The action that changes nothing.
pub(super) const KEEP: ActionId = ActionId(0);

impl Store {
    /// An empty store for diagrams over `classes` address classes.
    ///
    /// `max_steps` bounds time and memory: it counts edges made.
    #[must_use]
    pub fn new(order: Order, classes: u32, max_steps: usize) -> Self {
        let greatest = order.0.map(|field| match field {
            Field::Source | Field::Destination => u64::from(classes.max(1)) - 1,
            Field::Port => OWNER,
            _ => field.max(),
        });
        let mut store = Store {
            nodes: Vec::new(),
            node_ids: HashMap::new(),
            actions: Vec::new(),
            action_ids: HashMap::new(),
            memo: HashMap::new(),
            splits: HashMap::new(),
            greatest,
            order,
            steps: 0,
            max_steps,
        };
        let keep = store.action(Vec::new());
        debug_assert_eq!(keep, KEEP);
        let empty = store.drop(NO_LABEL);
        let identity = store.decided(Rc::new([(KEEP, NO_LABEL)]), NO_LABEL);
        let undecided = store.intern(Node::Leaf(Leaf {
            copies: Rc::new([]),
            dropped: NO_LABEL,
            undecided: true,
        }));
        debug_assert_eq!((empty, identity, undecided), (EMPTY, IDENTITY, UNDECIDED));
        store
    }

    /// The order of tests.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// Greatest value of the field with this rank.
    #[must_use]
    pub fn greatest(&self, rank: u8) -> u64 {
        self.greatest[usize::from(rank)]
    }

    /// Number of nodes made so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The root node of a diagram.
    #[must_use]
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// The copies of a leaf with their assignments and labels.
    pub fn copies<'a>(&'a self, leaf: &'a Leaf) -> impl Iterator<Item = (&'a Action, LabelId)> {
        leaf.copies
            .iter()
            .map(|(action, label)| (self.assignments(*action), *label))
    }

    pub(super) fn assignments(&self, action: ActionId) -> &Action {
        &self.actions[action.0 as usize]
    }

    /// The child of a test for a value.
    #[must_use]
    pub fn child(cuts: &[(u64, Id)], value: u64) -> Id {
        // The first interval starts at zero, so there is always one before.
        cuts[cuts.partition_point(|(start, _)| *start <= value) - 1].1
    }

    fn intern(&mut self, node: Node) -> Id {
        if let Some(id) = self.node_ids.get(&node) {
            return *id;
        }
        let id = Id(self.nodes.len() as u32);
        self.nodes.push(node.clone());
        self.node_ids.insert(node, id);
        id
    }

    /// The action with these assignments, sorted by rank.
    pub(super) fn action(&mut self, assignments: Vec<(u8, u64)>) -> ActionId {
        let action: Action = assignments.into();
        if let Some(id) = self.action_ids.get(&action) {
            return *id;
        }
        let id = ActionId(self.actions.len() as u32);
        self.actions.push(action.clone());
        self.action_ids.insert(action, id);
        id
    }

    /// The leaf with these copies; a copy named twice has the lesser label.
    pub(super) fn leaf(
        &mut self,
        mut copies: Vec<(ActionId, LabelId)>,
        dropped: LabelId,
    ) -> Result<Id, TooLarge> {
        self.spend(copies.len())?;
        copies.sort_unstable();
        copies.dedup_by_key(|(action, _)| *action);
        Ok(self.decided(copies.into(), dropped))
    }

    /// The leaf with these copies, which are sorted and distinct.
    fn decided(&mut self, copies: Rc<[(ActionId, LabelId)]>, dropped: LabelId) -> Id {
        self.intern(Node::Leaf(Leaf {
            copies,
            dropped,
            undecided: false,
        }))
    }

    /// The test of a field with these intervals, or the one child that they all lead to.
    pub(super) fn test(&mut self, rank: u8, mut cuts: Vec<(u64, Id)>) -> Result<Id, TooLarge> {
        cuts.dedup_by_key(|(_, child)| *child);
        self.spend(cuts.len())?;
        match cuts.as_slice() {
            [(_, only)] => Ok(*only),
            _ => Ok(self.intern(Node::Test {
                rank,
                cuts: cuts.into(),
            })),
        }
    }

    /// Counts work against the limit.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), TooLarge> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.max_steps {
            return Err(TooLarge(self.max_steps));
        }
        Ok(())
    }

    /// The predicate that a field's value is in one of the ranges, which are sorted and disjoint.
    ///
    /// # Errors
    /// [`TooLarge`] beyond the limit on steps.
    pub fn number(&mut self, field: Field, ranges: &[(u64, u64)]) -> Result<Id, TooLarge> {
        let rank = self.order.rank(field);
        if usize::from(rank) == TESTED {
            // No tagged packet reaches a policy, so the field is zero.
            let zero = ranges.first().is_some_and(|(first, _)| *first == 0);
            return Ok(if zero { IDENTITY } else { EMPTY });
        }
        let greatest = self.greatest(rank);
        let mut cuts = vec![(0, EMPTY)];
        for (first, last) in ranges {
            if cuts.last().is_some_and(|(start, _)| start == first) {
                cuts.pop();
            }
            cuts.push((*first, IDENTITY));
            if *last < greatest {
                cuts.push((last + 1, EMPTY));
            }
        }
        self.test(rank, cuts)
    }

    /// Sets a field, with a label.
    pub fn assign(&mut self, field: Field, value: u64, label: LabelId) -> Id {
        let rank = self.order.rank(field);
        let action = self.action(vec![(rank, value)]);
        self.decided(Rc::new([(action, label)]), NO_LABEL)
    }

    /// Drops, with a label.
    pub fn drop(&mut self, label: LabelId) -> Id {
        self.decided(Rc::new([]), label)
    }
}
