//! Resolved policy to forwarding decision diagram.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::address::{Address, AddressSet};
use crate::atoms::Atoms;
use crate::fdd::hash::FastMap;
use crate::fdd::{Id, Leaf, Node, Order, Store, TooLarge};
use crate::field::Field;
use crate::packet::{LabelId, NO_LABEL, Outcome, Packet};
use crate::term::{Pred, PredId, Resolved, Term, TermId};

/// What compiling may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The order of tests.
    pub order: Order,
    /// Edges that may be made on the way: a bound on time and memory.
    pub max_steps: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            order: Order::default(),
            max_steps: 32 << 20,
        }
    }
}

impl Options {
    /// With the order of tests that suits a policy.
    #[must_use]
    pub fn for_policy(policy: &Resolved) -> Self {
        Options {
            order: Order::for_policy(policy),
            ..Options::default()
        }
    }
}

/// A compiled policy.
pub struct Fdd {
    /// The nodes.
    pub store: Store,
    /// The whole policy.
    pub root: Id,
    /// Classes of addresses.
    pub atoms: Atoms,
    /// The address that an assigned class stands for.
    pub assigned: BTreeMap<u32, Address>,
    /// What stands for labels in the diagram.
    pub(crate) labels: LabelNumbers,
}

/// Numbers that stand for labels in a diagram, in the order of the labels; empty when the labels
/// stand for themselves.
///
/// A label is its place in the text, so a word added to the text makes every label behind it
/// another. Numbers of their own let the diagram stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelNumbers {
    numbers: FastMap<LabelId, LabelId>,
    labels: FastMap<LabelId, LabelId>,
}

impl LabelNumbers {
    /// Labels and their numbers.
    pub(crate) fn new(pairs: impl Iterator<Item = (LabelId, LabelId)> + Clone) -> Self {
        LabelNumbers {
            numbers: pairs.clone().collect(),
            labels: pairs.map(|(label, number)| (number, label)).collect(),
        }
    }

    /// What stands for a label.
    pub(crate) fn number(&self, label: LabelId) -> LabelId {
        self.numbers.get(&label).copied().unwrap_or(label)
    }

    /// The label that a number stands for.
    pub(crate) fn label(&self, number: LabelId) -> LabelId {
        self.labels.get(&number).copied().unwrap_or(number)
    }
}

/// Compiles a policy.
///
/// # Errors
/// [`TooLarge`] when it would take more than the given steps.
pub fn compile(policy: &Resolved, options: &Options) -> Result<Fdd, TooLarge> {
    let (mut fdd, sets) = Fdd::new(&[policy], options);
    fdd.root = fdd.decide(policy, &sets[0])?;
    Ok(fdd)
}

/// Whether two policies make the same packets of every packet, labels aside.
///
/// # Errors
/// [`TooLarge`] when deciding takes more than the given steps.
pub fn equivalent(left: &Resolved, right: &Resolved, options: &Options) -> Result<bool, TooLarge> {
    let (mut fdd, sets) = Fdd::new(&[left, right], options);
    let mut canonical = [left, right].into_iter().zip(&sets).map(|(policy, sets)| {
        let root = fdd.translate(policy, sets)?;
        let root = fdd.store.erase_labels(root)?;
        fdd.store.canonical(root)
    });
    let (left, right) = (canonical.next(), canonical.next());
    Ok(left.transpose()? == right.transpose()?)
}

impl Fdd {
    /// What the diagram makes of a packet.
    #[must_use]
    pub fn evaluate(&self, packet: &Packet) -> Outcome {
        let leaf = self.leaf(packet);
        let order = self.store.order();
        let mut out = Outcome {
            copies: BTreeMap::new(),
            dropped: self.labels.label(leaf.dropped),
            notes: self.store.notes(leaf).iter().cloned().collect(),
        };
        for (action, label) in self.store.copies(leaf) {
            let mut copy = *packet;
            for (rank, value) in action.iter() {
                let field = order.0[usize::from(*rank)];
                match self.assigned.get(&(*value as u32)) {
                    Some(address) if is_address(field) => copy.set_address(field, *address),
                    _ => copy.set_number(field, *value),
                }
            }
            let label = self.labels.label(label);
            let known = out.copies.entry(copy).or_insert(label);
            *known = label.min(*known);
        }
        out
    }

    /// The leaf that a packet leads to.
    #[must_use]
    pub fn leaf(&self, packet: &Packet) -> &Leaf {
        let mut at = self.root;
        loop {
            match self.store.node(at) {
                Node::Leaf(leaf) => return leaf,
                Node::Test { rank, cuts } => {
                    let field = self.store.order().0[usize::from(rank)];
                    let value = if is_address(field) {
                        self.atoms.class(packet.address(field)).into()
                    } else {
                        packet.number(field)
                    };
                    at = Store::child(cuts, value);
                }
            }
        }
    }
}

/// Whether a field holds an address.
#[must_use]
pub(crate) const fn is_address(field: Field) -> bool {
    matches!(field, Field::Source | Field::Destination)
}

/// Index in the classes of each set of one policy.
pub(crate) type SetIndices = Vec<usize>;

impl Fdd {
    /// Nothing compiled yet: the classes of several policies, so that their diagrams can be
    /// compared.
    fn new(policies: &[&Resolved], options: &Options) -> (Self, Vec<SetIndices>) {
        let mut sets: Vec<&AddressSet> = Vec::new();
        let mut known: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut indices = Vec::new();
        let mut single = BTreeSet::new();
        for policy in policies {
            let mut own = SetIndices::new();
            for set in &policy.sets {
                // Two policies may mean different things by one name.
                let same = known.entry(set.identity.as_str()).or_default();
                let index = same.iter().copied().find(|index| sets[*index] == set);
                own.push(index.unwrap_or_else(|| {
                    sets.push(set);
                    same.push(sets.len() - 1);
                    sets.len() - 1
                }));
            }
            indices.push(own);
            single.extend(assigned_addresses(policy));
        }
        let atoms = Atoms::new(&sets, &single);
        let mut store = Store::new(options.order, atoms.count(), options.max_steps);
        let fdd = Fdd {
            root: store.drop(NO_LABEL),
            store,
            assigned: single
                .iter()
                .map(|address| (atoms.class(*address), *address))
                .collect(),
            atoms,
            labels: LabelNumbers::default(),
        };
        (fdd, indices)
    }

    /// An empty store for compilations whose classes come and go.
    pub(crate) fn empty(order: Order) -> Self {
        let mut store = Store::new(order, u32::MAX, usize::MAX);
        Fdd {
            root: store.drop(NO_LABEL),
            store,
            assigned: BTreeMap::new(),
            atoms: Atoms::default(),
            labels: LabelNumbers::default(),
        }
    }

    /// The diagram of a policy whose every leaf holds the packets that come out.
    pub(crate) fn decide(&mut self, policy: &Resolved, sets: &SetIndices) -> Result<Id, TooLarge> {
        let root = self.translate(policy, sets)?;
        self.store.separated(root)
    }

    /// The diagram of a policy.
    fn translate(&mut self, policy: &Resolved, sets: &SetIndices) -> Result<Id, TooLarge> {
        let mut walk = Walk {
            fdd: self,
            policy,
            sets,
            terms: FastMap::default(),
            predicates: FastMap::default(),
        };
        walk.term(policy.root)
    }
}

/// The addresses that a policy writes into packets.
pub(crate) fn assigned_addresses(policy: &Resolved) -> impl Iterator<Item = Address> + '_ {
    policy.terms.iter().filter_map(|term| match term {
        Term::SetAddress(_, address) => Some(*address),
        _ => None,
    })
}

/// One policy on its way through the compiler.
struct Walk<'a> {
    fdd: &'a mut Fdd,
    policy: &'a Resolved,
    sets: &'a SetIndices,
    terms: FastMap<TermId, Id>,
    predicates: FastMap<PredId, Id>,
}

impl Walk<'_> {
    fn term(&mut self, id: TermId) -> Result<Id, TooLarge> {
        if let Some(done) = self.terms.get(&id) {
            return Ok(*done);
        }
        let done = match self.policy.term(id) {
            Term::Filter(predicate) => self.predicate(*predicate)?,
            Term::SetNumber(field, value) => self.fdd.store.assign(*field, *value, NO_LABEL),
            Term::SetAddress(field, address) => {
                let class = self.fdd.atoms.class(*address).into();
                self.fdd.store.assign(*field, class, NO_LABEL)
            }
            Term::SetPort(port, label) => {
                let label = self.fdd.labels.number(*label);
                self.fdd.store.assign(Field::Port, *port, label)
            }
            Term::Drop(label) => {
                let label = self.fdd.labels.number(*label);
                self.fdd.store.drop(label)
            }
            Term::Note(note) => self.fdd.store.note(note),
            // Tables make packets, not histories.
            Term::Dup => self.fdd.store.all(&[])?,
            Term::Union(arms) => {
                let arms = self.terms(arms)?;
                self.fdd.store.union(&arms)?
            }
            Term::Sequence(parts) => self.sequence(parts)?,
            Term::Star(body) => {
                let body = self.term(*body)?;
                self.fdd.store.star(body)?
            }
            Term::Conditional(arms, otherwise) => {
                let mut done = Vec::with_capacity(arms.len());
                for (condition, body) in arms {
                    done.push((self.predicate(*condition)?, self.term(*body)?));
                }
                let otherwise = self.term(*otherwise)?;
                self.fdd.store.choose(&done, otherwise)?
            }
        };
        self.terms.insert(id, done);
        Ok(done)
    }

    fn terms(&mut self, ids: &[TermId]) -> Result<Vec<Id>, TooLarge> {
        ids.iter().map(|id| self.term(*id)).collect()
    }

    /// A sequence from its end: a filter in front of what is done already costs no composition.
    fn sequence(&mut self, parts: &[TermId]) -> Result<Id, TooLarge> {
        let Some((last, front)) = parts.split_last() else {
            return self.fdd.store.all(&[]);
        };
        let mut done = self.term(*last)?;
        for part in front.iter().rev() {
            let first = self.term(*part)?;
            done = match self.policy.term(*part) {
                Term::Filter(_) => self.fdd.store.filter(first, done)?,
                _ => self.fdd.store.sequence(first, done)?,
            };
        }
        Ok(done)
    }

    fn predicate(&mut self, id: PredId) -> Result<Id, TooLarge> {
        if let Some(done) = self.predicates.get(&id) {
            return Ok(*done);
        }
        let done = match self.policy.predicate(id) {
            Pred::True => self.fdd.store.all(&[])?,
            Pred::False => self.fdd.store.union(&[])?,
            Pred::Number(field, ranges) => self.fdd.store.number(*field, ranges)?,
            Pred::Address(field, set) => {
                let index = self.sets[set.0 as usize];
                let classes = runs(self.fdd.atoms.members(index));
                self.fdd.store.number(*field, &classes)?
            }
            Pred::And(parts) => {
                let parts = self.predicate_list(parts)?;
                self.fdd.store.all(&parts)?
            }
            Pred::Or(parts) => {
                let parts = self.predicate_list(parts)?;
                self.fdd.store.union(&parts)?
            }
            Pred::Not(inner) => {
                let inner = self.predicate(*inner)?;
                self.fdd.store.negate(inner)?
            }
            Pred::Conditional(arms, otherwise) => {
                let mut done = Vec::with_capacity(arms.len());
                for (condition, then) in arms {
                    done.push((self.predicate(*condition)?, self.predicate(*then)?));
                }
                let otherwise = self.predicate(*otherwise)?;
                self.fdd.store.choose(&done, otherwise)?
            }
            Pred::Reverse => match self.policy.reverse {
                Some(reverse) => self.predicate(reverse)?,
                None => self.fdd.store.union(&[])?,
            },
        };
        self.predicates.insert(id, done);
        Ok(done)
    }

    fn predicate_list(&mut self, ids: &[PredId]) -> Result<Vec<Id>, TooLarge> {
        ids.iter().map(|id| self.predicate(*id)).collect()
    }
}

/// Ascending numbers as ranges.
fn runs(numbers: impl Iterator<Item = u32>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        let number = u64::from(number);
        match out.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => out.push((number, number)),
        }
    }
    out
}
