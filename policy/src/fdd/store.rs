//! Where diagrams live: every distinct node and action once.
//!
//! Edges of all nodes stand in one vector and nodes refer to their part of it, so an operation
//! reads its operands without copying them, and nothing is counted or freed while it runs. Results
//! are put together on a stack that all operations share ([`Store::push_edge`]).

use std::sync::Arc;

use super::hash::{FastMap, hash_of};
use super::{Order, TESTED};
use crate::field::{Field, OWNER};
use crate::packet::{LabelId, NO_LABEL, Note};

/// A diagram, by its root node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(super) u32);

/// An action in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ActionId(pub(super) u32);

/// A set of notes in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct NotesId(u32);

/// Assignments to fields, by rank, each rank once; [`OWNER`] is a value of [`Field::Port`].
pub type Action = [(u8, u64)];

/// What a diagram leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Actions on copies of the packet, each with its first label.
    pub(super) copies: Arc<[(ActionId, LabelId)]>,
    /// First label of the drops reached.
    pub dropped: LabelId,
    /// What is noted of the packet.
    pub(super) notes: NotesId,
    /// No arm of a conditional has decided yet; never in a finished diagram.
    pub(super) undecided: bool,
}

/// Where an interval starts, and where it leads.
pub type Cut = (u64, Id);

/// A node of a diagram.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    /// The end.
    Leaf(&'a Leaf),
    /// A test.
    Test {
        /// Rank of the tested field.
        rank: u8,
        /// Where each interval starts, from 0, and where it leads; neighbours differ.
        cuts: &'a [Cut],
    },
}

/// A node as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Head {
    /// Index of the leaf.
    Leaf(u32),
    /// Rank, and the part of the edges that is the node's.
    Test { rank: u8, first: u32, end: u32 },
}

/// The diagrams of a compilation would be larger than the limit, or take longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compiling this policy takes more than {0} steps")]
pub struct TooLarge(pub usize);

/// What operations remember; the numbers are ids of nodes, actions and labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Memo(
    pub(super) u32,
    pub(super) u32,
    pub(super) u32,
    pub(super) u32,
);

/// All nodes, actions and remembered results of one compilation, or of several of one session.
pub struct Store {
    heads: Vec<Head>,
    edges: Vec<Cut>,
    leaves: Vec<Leaf>,
    leaf_ids: FastMap<Leaf, Id>,
    /// First test node with a hash; the others follow by `next_test`.
    test_ids: FastMap<u64, Id>,
    next_test: FastMap<Id, Id>,
    actions: Vec<Box<Action>>,
    action_ids: FastMap<Box<Action>, ActionId>,
    /// Sets of notes, sorted; the first one is empty.
    notes: Vec<Box<[Note]>>,
    note_ids: FastMap<Box<[Note]>, NotesId>,
    pub(super) memo: FastMap<Memo, Id>,
    pub(super) multiplexed: FastMap<(u8, Box<[Cut]>), Id>,
    /// Fields and values at which a diagram is split: the same form as an action.
    pub(super) splits: FastMap<(super::canonical::Mode, Id), Arc<Action>>,
    /// Edges of nodes in the making.
    stack: Vec<Cut>,
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
/// Nothing is noted.
pub(super) const NOTHING_NOTED: NotesId = NotesId(0);
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
            heads: Vec::new(),
            edges: Vec::new(),
            leaves: Vec::new(),
            leaf_ids: FastMap::default(),
            test_ids: FastMap::default(),
            next_test: FastMap::default(),
            actions: Vec::new(),
            action_ids: FastMap::default(),
            notes: vec![Box::new([])],
            note_ids: FastMap::from_iter([(Box::default(), NOTHING_NOTED)]),
            memo: FastMap::default(),
            multiplexed: FastMap::default(),
            splits: FastMap::default(),
            stack: Vec::new(),
            greatest,
            order,
            steps: 0,
            max_steps,
        };
        let keep = store.action(&[]);
        debug_assert_eq!(keep, KEEP);
        let empty = store.drop(NO_LABEL);
        let identity = store.decided(&[(KEEP, NO_LABEL)], NO_LABEL, NOTHING_NOTED);
        let undecided = store.intern_leaf(Leaf {
            copies: Arc::new([]),
            dropped: NO_LABEL,
            notes: NOTHING_NOTED,
            undecided: true,
        });
        debug_assert_eq!((empty, identity, undecided), (EMPTY, IDENTITY, UNDECIDED));
        store
    }

    /// Starts to count steps from zero, for another compilation in the same store.
    pub(crate) fn restart(&mut self, max_steps: usize) {
        self.steps = 0;
        self.max_steps = max_steps;
        self.stack.clear();
    }

    /// Steps counted so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
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
        self.heads.len()
    }

    /// Whether there are no nodes; there always are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Nodes, edges and remembered results together: what the store takes of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.heads.len() + self.edges.len() + self.memo.len() + self.multiplexed.len()
    }

    /// The root node of a diagram.
    #[must_use]
    pub fn node(&self, id: Id) -> Node<'_> {
        match self.head(id) {
            Head::Leaf(leaf) => Node::Leaf(&self.leaves[leaf as usize]),
            Head::Test { rank, first, end } => Node::Test {
                rank,
                cuts: &self.edges[first as usize..end as usize],
            },
        }
    }

    pub(super) fn head(&self, id: Id) -> Head {
        self.heads[id.0 as usize]
    }

    /// The edge at a place between the two of a test's [`Head`].
    pub(super) fn edge(&self, at: u32) -> Cut {
        self.edges[at as usize]
    }

    pub(super) fn cuts(&self, first: u32, end: u32) -> &[Cut] {
        &self.edges[first as usize..end as usize]
    }

    pub(super) fn leaf_at(&self, index: u32) -> &Leaf {
        &self.leaves[index as usize]
    }

    /// The rank of the test that a diagram starts with; [`TESTED`] for a leaf.
    pub(super) fn rank(&self, id: Id) -> u8 {
        match self.head(id) {
            Head::Leaf(_) => TESTED as u8,
            Head::Test { rank, .. } => rank,
        }
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
    pub fn child(cuts: &[Cut], value: u64) -> Id {
        // The first interval starts at zero, so there is always one before.
        cuts[cuts.partition_point(|(start, _)| *start <= value) - 1].1
    }

    fn add(&mut self, head: Head) -> Id {
        let id = Id(self.heads.len() as u32);
        self.heads.push(head);
        id
    }

    fn intern_leaf(&mut self, leaf: Leaf) -> Id {
        if let Some(id) = self.leaf_ids.get(&leaf) {
            return *id;
        }
        let id = self.add(Head::Leaf(self.leaves.len() as u32));
        self.leaves.push(leaf.clone());
        self.leaf_ids.insert(leaf, id);
        id
    }

    /// The action with these assignments, sorted by rank.
    pub(super) fn action(&mut self, assignments: &Action) -> ActionId {
        if let Some(id) = self.action_ids.get(assignments) {
            return *id;
        }
        let id = ActionId(self.actions.len() as u32);
        self.actions.push(assignments.into());
        self.action_ids.insert(assignments.into(), id);
        id
    }

    /// The leaf with these copies; a copy named twice has the lesser label.
    pub(super) fn leaf(
        &mut self,
        mut copies: Vec<(ActionId, LabelId)>,
        dropped: LabelId,
        notes: NotesId,
    ) -> Result<Id, TooLarge> {
        self.spend(copies.len())?;
        copies.sort_unstable();
        copies.dedup_by_key(|(action, _)| *action);
        Ok(self.decided(&copies, dropped, notes))
    }

    /// The leaf with these copies, which are sorted and distinct.
    fn decided(&mut self, copies: &[(ActionId, LabelId)], dropped: LabelId, notes: NotesId) -> Id {
        self.intern_leaf(Leaf {
            copies: copies.into(),
            dropped,
            notes,
            undecided: false,
        })
    }

    /// Where the edges of a new node begin; its [`Store::push_edge`]s follow, then its
    /// [`Store::test`].
    pub(super) fn begin(&self) -> usize {
        self.stack.len()
    }

    /// Adds an edge to the node that began at `base`, unless its neighbour leads there already.
    pub(super) fn push_edge(&mut self, base: usize, start: u64, child: Id) {
        match self.stack.get(base..).and_then(<[Cut]>::last) {
            Some((_, last)) if *last == child => {}
            _ => self.stack.push((start, child)),
        }
    }

    /// Takes the edges of the node that began at `base` back.
    pub(super) fn take_edges(&mut self, base: usize) -> Vec<Cut> {
        self.stack.split_off(base)
    }

    /// The test of a field with the edges pushed since `base`, or the one child that they all lead
    /// to.
    pub(super) fn test(&mut self, rank: u8, base: usize) -> Result<Id, TooLarge> {
        self.spend(self.stack.len() - base)?;
        let id = match &self.stack[base..] {
            [(_, only)] => *only,
            _ => self.intern_test(rank, base),
        };
        self.stack.truncate(base);
        Ok(id)
    }

    fn intern_test(&mut self, rank: u8, base: usize) -> Id {
        let cuts = &self.stack[base..];
        let hash = hash_of(&(rank, cuts));
        let known = self.test_ids.get(&hash).copied();
        let mut at = known;
        while let Some(id) = at {
            if let Head::Test {
                rank: r,
                first,
                end,
            } = self.head(id)
                && r == rank
                && self.cuts(first, end) == cuts
            {
                return id;
            }
            at = self.next_test.get(&id).copied();
        }
        let first = self.edges.len() as u32;
        self.edges.extend_from_slice(&self.stack[base..]);
        let end = self.edges.len() as u32;
        let id = self.add(Head::Test { rank, first, end });
        if let Some(known) = known {
            self.next_test.insert(id, known);
        }
        self.test_ids.insert(hash, id);
        id
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
        let base = self.begin();
        if ranges.first().is_none_or(|(first, _)| *first > 0) {
            self.push_edge(base, 0, EMPTY);
        }
        for (first, last) in ranges {
            // Ranges that touch are one interval.
            if self.stack.len() > base && self.stack.last() == Some(&(*first, EMPTY)) {
                self.stack.pop();
            }
            self.push_edge(base, *first, IDENTITY);
            if *last < greatest {
                self.push_edge(base, last + 1, EMPTY);
            }
        }
        self.test(rank, base)
    }

    /// Sets a field, with a label.
    pub fn assign(&mut self, field: Field, value: u64, label: LabelId) -> Id {
        let rank = self.order.rank(field);
        let action = self.action(&[(rank, value)]);
        self.decided(&[(action, label)], NO_LABEL, NOTHING_NOTED)
    }

    /// Drops, with a label.
    pub fn drop(&mut self, label: LabelId) -> Id {
        self.drop_noting(label, NOTHING_NOTED)
    }

    /// Drops, with a label and notes.
    pub(super) fn drop_noting(&mut self, label: LabelId, notes: NotesId) -> Id {
        self.decided(&[], label, notes)
    }

    /// Lets everything through unchanged, and notes it.
    pub fn note(&mut self, note: &Note) -> Id {
        let notes = self.note_set(std::slice::from_ref(note));
        self.decided(&[(KEEP, NO_LABEL)], NO_LABEL, notes)
    }

    /// What a leaf notes, sorted.
    #[must_use]
    pub fn notes(&self, leaf: &Leaf) -> &[Note] {
        &self.notes[leaf.notes.0 as usize]
    }

    /// The notes of both sets.
    pub(super) fn join_notes(&mut self, left: NotesId, right: NotesId) -> NotesId {
        if left == right || right == NOTHING_NOTED {
            return left;
        }
        if left == NOTHING_NOTED {
            return right;
        }
        let both = [left, right].map(|id| self.notes[id.0 as usize].iter());
        let mut joined: Vec<Note> = both.into_iter().flatten().cloned().collect();
        joined.sort_unstable();
        joined.dedup();
        self.note_set(&joined)
    }

    fn note_set(&mut self, notes: &[Note]) -> NotesId {
        if let Some(id) = self.note_ids.get(notes) {
            return *id;
        }
        let id = NotesId(self.notes.len() as u32);
        self.notes.push(notes.into());
        self.note_ids.insert(notes.into(), id);
        id
    }
}
