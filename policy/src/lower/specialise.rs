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

use std::collections::BTreeMap;

use super::{Capacity, ClassNames, Lowered, Refused, check};
use crate::address::{Address, Family, Prefix};
use crate::compile::Fdd;
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

/// Tables that decide as those of [`lower`](super::lower) do about every packet that enters at a
/// node.
///
/// # Errors
/// [`Unspecialised`] when the tables are refused, or making them takes too many steps.
pub fn specialise(
    fdd: &mut Fdd,
    policy: &Resolved,
    hosted: &Hosted,
    capacity: &Capacity,
) -> Result<FlowTables, Unspecialised> {
    let allowed = allowed(fdd, hosted);
    let root = fdd.store.restrict(fdd.root, &allowed)?;
    let merged = merged_classes(fdd, root);
    let representatives = merged.iter().enumerate().filter_map(|(class, merged)| {
        let merged = merged.as_ref()?;
        (merged.representative == class as u32).then_some((class as u32, merged.name))
    });
    let names = ClassNames::renamed(fdd.atoms.count(), representatives);
    let mut lowered = Lowered::default();
    let root = lowered.lower(fdd, policy, root, &names)?;
    let name = |class: u32| {
        let merged = merged[class as usize].as_ref();
        merged.map_or_else(|| fdd.atoms.digest(class), |merged| merged.name)
    };
    let tables = FlowTables {
        root,
        nodes: lowered.nodes,
        leaves: lowered.leaves,
        classes: classes(fdd, name),
        class_none: name(fdd.atoms.none()),
    };
    check(&tables.size(), capacity)?;
    Ok(tables)
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

/// What fields can be in packets that enter at a node.
fn allowed(fdd: &Fdd, hosted: &Hosted) -> Vec<Allowed> {
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
        let sources = sources.map(|address| u64::from(fdd.atoms.class(address)));
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

/// What a class is among those that a diagram tells apart.
struct Merged {
    /// The least class that leads wherever this one leads.
    representative: u32,
    /// Of the classes together.
    name: Digest,
}

/// By number: the classes that every test of a diagram sends the same way are one.
fn merged_classes(fdd: &Fdd, root: Id) -> Vec<Option<Merged>> {
    let order = fdd.store.order();
    let mut parts: Vec<u32> = vec![0; fdd.atoms.count() as usize];
    let mut count = 1;
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
        let field = order.0[usize::from(rank)];
        if !matches!(field, Field::Source | Field::Destination) {
            continue;
        }
        // Refines the parts by where this test sends their classes.
        let mut refined: FastMap<(u32, Id), u32> = FastMap::default();
        let mut at = 0;
        for (class, part) in parts.iter_mut().enumerate() {
            while cuts
                .get(at + 1)
                .is_some_and(|(next, _)| *next <= class as u64)
            {
                at += 1;
            }
            let fresh = refined.len() as u32;
            *part = *refined.entry((*part, cuts[at].1)).or_insert(fresh);
        }
        count = refined.len().max(count);
    }
    let mut members: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for class in fdd.atoms.numbers() {
        members
            .entry(parts[class as usize])
            .or_default()
            .push(class);
    }
    let mut out: Vec<Option<Merged>> = parts.iter().map(|_| None).collect();
    for classes in members.into_values() {
        let name = name_of(fdd, &classes);
        for class in &classes {
            out[*class as usize] = Some(Merged {
                representative: classes[0],
                name,
            });
        }
    }
    out
}

/// A class alone keeps its name; several are named by what they are called, in order.
fn name_of(fdd: &Fdd, classes: &[u32]) -> Digest {
    let mut names: Vec<Digest> = classes.iter().map(|c| fdd.atoms.digest(*c)).collect();
    if let [only] = names.as_slice() {
        return *only;
    }
    names.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("sunwire classes v1");
    for name in names {
        hasher.update(&name.0);
    }
    Digest(*hasher.finalize().as_bytes())
}

/// The class of every prefix whose class is not that of the prefix around it.
fn classes(fdd: &Fdd, name: impl Fn(u32) -> Digest) -> Vec<AddressClass> {
    let mut out = Vec::new();
    let mut path: Vec<(Prefix, Digest)> = Vec::new();
    for (prefix, class) in fdd.atoms.regions() {
        let around = |(outer, _): &(Prefix, Digest)| {
            outer.family == prefix.family && outer.contains(prefix.first)
        };
        while path.last().is_some_and(|outer| !around(outer)) {
            path.pop();
        }
        let name = name(*class);
        if path.last().is_none_or(|(_, outer)| *outer != name) {
            out.push(AddressClass {
                address: prefix.family.address(prefix.first),
                prefix: prefix.length,
                class: name,
            });
        }
        path.push((*prefix, name));
    }
    debug_assert!(Family::ALL.len() <= out.len(), "every family has its whole");
    out
}
