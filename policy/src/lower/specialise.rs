//! The tables that one node needs.
//!
//! The whole policy decides where a packet enters. A node sees what its own endpoints send, so its
//! tables need no tests of other nodes, of endpoints elsewhere, or of the sources of other nodes'
//! packets; and address classes that the remaining tests never tell apart become one. A policy that
//! has rules for every node shrinks to those of the one.
//!
//! The price is that such tables depend on where endpoints are: a node's change when an endpoint
//! comes or goes. For a policy without rules about places they are worth little, which is why this
//! is an offer to whoever installs tables, and not what [`lower`](super::lower) does.

use super::{Capacity, ClassNames, Lowered, Refused, check};
use crate::address::{Address, Prefix};
use crate::compile::{Fdd, is_address};
use crate::fdd::hash::FastMap;
use crate::fdd::{Allowed, Id, Node, TooLarge};
use crate::field::Field;
use crate::tables::{AddressClass, Digest, FlowTables};
use crate::term::Resolved;

/// What enters at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosted {
    /// Number of the node.
    pub node: u32,
    /// Endpoints there; `None` when packets of any endpoint may enter.
    pub endpoints: Option<Vec<HostedEndpoint>>,
}

/// An endpoint at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedEndpoint {
    /// Its number.
    pub number: u32,
    /// The source addresses that it may use; a packet without addresses may always come.
    pub addresses: Vec<Address>,
}

/// Why there are no tables for a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unspecialised {
    /// The data plane cannot do what the policy says.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Making them takes too many steps.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

/// Makes the tables of one node after another.
pub struct Specialiser<'a> {
    fdd: &'a mut Fdd,
    policy: &'a Resolved,
    /// Classes in the order of their names.
    by_name: Vec<(Digest, u32)>,
    /// Prefixes with their classes, each with the place of the prefix around it.
    regions: Vec<(Prefix, u32, Option<usize>)>,
}

impl<'a> Specialiser<'a> {
    /// For the nodes of a compiled policy.
    pub fn new(fdd: &'a mut Fdd, policy: &'a Resolved) -> Self {
        let atoms = &fdd.atoms;
        let mut by_name: Vec<(Digest, u32)> = atoms
            .numbers()
            .map(|class| (atoms.digest(class), class))
            .collect();
        by_name.sort_unstable();
        let mut regions: Vec<(Prefix, u32, Option<usize>)> = Vec::new();
        let mut path: Vec<usize> = Vec::new();
        for (prefix, class) in atoms.regions() {
            let is_inside =
                |outer: &Prefix| outer.family == prefix.family && outer.contains(prefix.first);
            while path.last().is_some_and(|at| !is_inside(&regions[*at].0)) {
                path.pop();
            }
            regions.push((*prefix, *class, path.last().copied()));
            path.push(regions.len() - 1);
        }
        Specialiser {
            fdd,
            policy,
            by_name,
            regions,
        }
    }

    /// Tables that decide as those of [`lower`](super::lower) do about every packet that enters at
    /// a node.
    ///
    /// # Errors
    /// [`Unspecialised`] when the tables are refused, or making them takes too many steps.
    pub fn tables(
        &mut self,
        hosted: &Hosted,
        capacity: &Capacity,
    ) -> Result<FlowTables, Unspecialised> {
        let allowed = self.allowed(hosted);
        let root = self.fdd.store.restrict(self.fdd.root, &allowed)?;
        let merged = self.merged(root);
        let count = self.fdd.atoms.count();
        let names = ClassNames::renamed(count, merged.representatives());
        let mut lowered = Lowered::default();
        let root = lowered.lower(self.fdd, self.policy, root, &names)?;
        let tables = FlowTables {
            root,
            nodes: lowered.nodes,
            leaves: lowered.leaves,
            classes: self.classes(&merged),
            class_none: merged.name(self.fdd.atoms.none()),
            limit: self.policy.limit,
            bucket: self.policy.bucket,
        };
        check(&tables.size(), capacity)?;
        Ok(tables)
    }

    /// What fields can be in packets that enter at a node.
    fn allowed(&self, hosted: &Hosted) -> Vec<Allowed> {
        let exact = |mut numbers: Vec<u64>| {
            numbers.sort_unstable();
            numbers.dedup();
            numbers.into_iter().map(|number| (number, number)).collect()
        };
        let mut allowed = vec![Allowed {
            field: Field::Node,
            ranges: exact(vec![hosted.node.into()]),
        }];
        if let Some(endpoints) = &hosted.endpoints {
            let numbers = endpoints.iter().map(|e| u64::from(e.number));
            let addresses = endpoints.iter().flat_map(|e| e.addresses.iter().copied());
            let sources = addresses.chain([Address::None]);
            let sources = sources.map(|address| u64::from(self.fdd.atoms.class(address)));
            allowed.push(Allowed {
                field: Field::Port,
                ranges: exact(numbers.collect()),
            });
            allowed.push(Allowed {
                field: Field::Source,
                ranges: exact(sources.collect()),
            });
        }
        allowed
    }

    /// The classes that every test of a diagram sends the same way, together.
    fn merged(&self, root: Id) -> Merged {
        let tests = class_tests(self.fdd, root);
        // Between two starts of intervals no test tells numbers apart.
        let mut starts: Vec<u64> = vec![0];
        for cuts in &tests {
            starts.extend(cuts.iter().map(|(start, _)| *start));
        }
        starts.sort_unstable();
        starts.dedup();
        let mut parts: Vec<u32> = vec![0; starts.len()];
        for cuts in &tests {
            let mut refined: FastMap<(u32, Id), u32> = FastMap::default();
            let mut at = 0;
            for (start, part) in starts.iter().zip(&mut parts) {
                while cuts.get(at + 1).is_some_and(|(next, _)| next <= start) {
                    at += 1;
                }
                let fresh = refined.len() as u32;
                *part = *refined.entry((*part, cuts[at].1)).or_insert(fresh);
            }
        }
        let count = u64::from(self.fdd.atoms.count());
        let mut group_of: Vec<u32> = Vec::with_capacity(count as usize);
        for (at, part) in parts.iter().enumerate() {
            let end = starts.get(at + 1).map_or(count, |next| count.min(*next));
            group_of.resize(end as usize, *part);
        }
        let groups = parts.iter().max().map_or(0, |last| *last as usize + 1);
        let mut members: Vec<(Option<u32>, Vec<u8>)> = vec![(None, Vec::new()); groups];
        for (name, class) in &self.by_name {
            let (representative, names) = &mut members[group_of[*class as usize] as usize];
            *representative = Some(representative.map_or(*class, |known| known.min(*class)));
            names.extend_from_slice(&name.0);
        }
        Merged {
            groups: members
                .into_iter()
                .map(|(representative, names)| (representative, name_of(&names)))
                .collect(),
            group_of,
        }
    }

    /// The class of every prefix whose class is not that of the prefix around it.
    fn classes(&self, merged: &Merged) -> Vec<AddressClass> {
        let group = |at: usize| merged.group_of[self.regions[at].1 as usize];
        let regions = self.regions.iter().enumerate();
        let own = regions
            .filter(|(at, (.., outer))| outer.is_none_or(|outer| group(outer) != group(*at)));
        own.map(|(_, (prefix, class, _))| AddressClass {
            address: prefix.family.address(prefix.first),
            prefix: prefix.length,
            class: merged.name(*class),
        })
        .collect()
    }
}

/// Tables for one node; see [`Specialiser::tables`].
///
/// # Errors
/// [`Unspecialised`] when the tables are refused, or making them takes too many steps.
pub fn specialise(
    fdd: &mut Fdd,
    policy: &Resolved,
    hosted: &Hosted,
    capacity: &Capacity,
) -> Result<FlowTables, Unspecialised> {
    Specialiser::new(fdd, policy).tables(hosted, capacity)
}

/// Groups of classes.
struct Merged {
    /// The least class of each group, if it has any, and what its classes together are called.
    groups: Vec<(Option<u32>, Digest)>,
    /// The group of each number.
    group_of: Vec<u32>,
}

impl Merged {
    fn name(&self, class: u32) -> Digest {
        self.groups[self.group_of[class as usize] as usize].1
    }

    /// One class of each group, with the name of the group.
    fn representatives(&self) -> impl Iterator<Item = (u32, Digest)> + '_ {
        let groups = self.groups.iter();
        groups.filter_map(|(representative, name)| Some(((*representative)?, *name)))
    }
}

/// The intervals of every test of an address class in a diagram.
fn class_tests(fdd: &Fdd, root: Id) -> Vec<&[(u64, Id)]> {
    let order = fdd.store.order();
    let mut tests = Vec::new();
    let mut open = vec![root];
    let mut seen: FastMap<Id, ()> = FastMap::default();
    while let Some(id) = open.pop() {
        let Node::Test { rank, cuts } = fdd.store.node(id) else {
            continue;
        };
        if seen.insert(id, ()).is_some() {
            continue;
        }
        open.extend(cuts.iter().map(|(_, child)| *child));
        if is_address(order.0[usize::from(rank)]) {
            tests.push(cuts);
        }
    }
    tests
}

/// What classes with these names, in order, are called together: one alone as it is.
fn name_of(names: &[u8]) -> Digest {
    match <[u8; 32]>::try_from(names) {
        Ok(only) => Digest(only),
        Err(_) => Digest(blake3::derive_key("sunwire classes v1", names)),
    }
}
