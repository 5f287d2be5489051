//! Where a session makes diagrams and tables, and what it remembers of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::labels::Labels;
use crate::address::{Address, AddressSet, Prefix};
use crate::atoms::host;
use crate::compile::{Fdd, LabelNumbers, Options, assigned_addresses};
use crate::diagnostic::Diagnostic;
use crate::fdd::Order;
use crate::field::OWNER;
use crate::lower::group::Named;
use crate::lower::{ClassNames, Lowered};
use crate::pipeline::too_long;
use crate::tables::Digest;
use crate::term::{Resolved, Term};

/// Garbage is collected when there is more than this many times what is in use.
pub(super) const GARBAGE: usize = 4;
/// Garbage that is not worth collecting.
pub(super) const LITTLE: usize = 1 << 16;

/// Where diagrams and tables are made.
pub(super) struct Workshop {
    pub(super) fdd: Fdd,
    /// Index of every set that the classes know, by its identity.
    indices: HashMap<String, usize>,
    /// Indices of the policy's sets, in its order; then those of addresses that it assigns.
    pub(super) sets: Vec<usize>,
    singles: Vec<usize>,
    labels: Labels,
    pub(super) lowered: Lowered,
    lowered_by: LoweredBy,
    /// What was kept after the first compilation.
    pub(super) kept_at_first: Option<usize>,
}

/// What tables were lowered by, beside the diagrams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LoweredBy {
    generation: u64,
    assigned: BTreeMap<u32, Address>,
    policy: String,
    links: bool,
    /// The endpoints that there are, for a policy that sends to them by number.
    endpoints: Option<BTreeSet<u32>>,
    groups: Named,
}

impl LoweredBy {
    fn new(fdd: &Fdd, policy: &Resolved) -> Self {
        let by_number = |term: &Term| matches!(term, Term::SetPort(port, _) if *port != OWNER);
        let sends = policy.terms.iter().any(by_number);
        LoweredBy {
            generation: fdd.atoms.generation(),
            assigned: fdd.assigned.clone(),
            policy: policy.policy.clone(),
            links: policy.links,
            endpoints: sends.then(|| policy.endpoints.clone()),
            groups: policy.groups.clone(),
        }
    }
}

impl Workshop {
    /// Nothing made yet.
    pub(super) fn new(order: Order) -> Self {
        Workshop {
            fdd: Fdd::empty(order),
            indices: HashMap::new(),
            sets: Vec::new(),
            singles: Vec::new(),
            labels: Labels::default(),
            lowered: Lowered::default(),
            lowered_by: LoweredBy::default(),
            kept_at_first: None,
        }
    }

    /// Whether it is time to throw everything away that can be made again.
    pub(super) fn is_littered(&self) -> bool {
        let first = self.kept_at_first.unwrap_or(0);
        self.fdd.store.size() > GARBAGE * first + LITTLE
    }

    /// Tells the classes what sets the policy has; returns how many are others than before.
    pub(super) fn take_sets(&mut self, policy: &Resolved) -> usize {
        let before: Vec<usize> = self.sets.drain(..).chain(self.singles.drain(..)).collect();
        let mut index_of = |identity: &str| match self.indices.get(identity) {
            Some(index) => *index,
            None => {
                let index = self.indices.len();
                self.indices.insert(identity.to_owned(), index);
                index
            }
        };
        let atoms = &mut self.fdd.atoms;
        let mut changed = 0;
        for set in &policy.sets {
            let index = index_of(&set.identity);
            self.sets.push(index);
            changed += usize::from(atoms.set(index, Some(set)));
        }
        let assigned: BTreeSet<Address> = assigned_addresses(policy).collect();
        for set in assigned.into_iter().filter_map(host) {
            let index = index_of(&set.identity);
            self.singles.push(index);
            atoms.set(index, Some(&set));
        }
        let now: HashSet<usize> = self.sets.iter().chain(&self.singles).copied().collect();
        for gone in before.into_iter().filter(|index| !now.contains(index)) {
            atoms.set(gone, None);
        }
        changed
    }

    /// Adds a prefix to a set of the policy, or takes it away.
    pub(super) fn move_prefix(
        &mut self,
        set: usize,
        content: &mut AddressSet,
        prefix: Prefix,
        is_in: bool,
    ) {
        match (content.prefixes.binary_search(&prefix), is_in) {
            (Ok(at), false) => {
                content.prefixes.remove(at);
            }
            (Err(at), true) => content.prefixes.insert(at, prefix),
            _ => {}
        }
        self.fdd.atoms.change(self.sets[set], prefix, is_in);
    }

    /// Gives the policy's labels their numbers.
    pub(super) fn take_labels(&mut self, policy: &Resolved) {
        let numbers = self.labels.follow(policy);
        if self.labels.differ(policy, &numbers) {
            self.lowered.forget_diagrams();
        }
        self.fdd.labels = LabelNumbers::new(numbers.into_iter());
    }

    /// Compiles and lowers a policy whose sets and labels were taken; returns where its tables
    /// start.
    pub(super) fn compile(&mut self, policy: &Resolved) -> Result<Digest, Box<Diagnostic>> {
        let fdd = &mut self.fdd;
        let assigned = assigned_addresses(policy).map(|a| (fdd.atoms.class(a), a));
        fdd.assigned = assigned.collect();
        let by = LoweredBy::new(fdd, policy);
        if by != self.lowered_by {
            self.lowered.forget_diagrams();
            self.lowered_by = by;
        }
        fdd.store.restart(Options::default().max_steps);
        let root = fdd.decide(policy, &self.sets);
        fdd.root = root.map_err(|too_large| Box::new(too_long(policy, too_large)))?;
        let names = ClassNames::new(&fdd.atoms);
        self.lowered
            .lower(fdd, policy, fdd.root, &names)
            .map_err(|refused| Box::new(refused.locate(policy)))
    }
}
