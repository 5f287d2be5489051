//! Address classes: the atoms of all address tests of a policy.
//!
//! Two addresses are in the same class when every address set of the policy holds both or neither.
//! The compiler then tests a dense class number instead of an address, and the data plane finds the
//! class by one longest-prefix match.
//!
//! A class is named by the identities of the sets that hold it, and a named set's identity is its
//! name. So when an address joins or leaves a named set, [`Atoms::regions`] change and flow tables
//! stay as they are, unless the change makes a combination of sets that no address had before.
//!
//! The classes follow changes of the sets: [`Atoms::set`] notes what a set has become, and
//! [`Atoms::settle`] looks at the prefixes that changed and at those inside them, no others. A class
//! keeps its number as long as some prefix has it.

mod settle;

use std::collections::{BTreeMap, BTreeSet};

use crate::address::{Address, AddressSet, Family, Prefix, number};
use crate::fdd::hash::FastMap;
use crate::tables::Digest;

/// Sets by index, ascending: those that hold a class.
type Signature = Box<[u32]>;

/// The classes of a compilation.
#[derive(Clone, Debug)]
pub struct Atoms {
    sets: Vec<Option<Kept>>,
    /// Every prefix that some set lists, and all addresses of each family.
    ends: BTreeMap<Prefix, End>,
    /// How many of `ends` have each length, by family.
    lengths: [BTreeMap<u8, usize>; 2],
    /// Class of every prefix: the longest prefix that holds an address decides.
    regions: BTreeMap<Prefix, u32>,
    /// Class of packets without addresses.
    none: u32,
    classes: Vec<Class>,
    known: FastMap<Signature, u32>,
    /// Numbers of no class.
    free: Vec<u32>,
    /// Classes in each set.
    members: Vec<BTreeSet<u32>>,
    /// Prefixes whose classes, and those of the prefixes inside, have to be looked at again.
    dirty: BTreeSet<Prefix>,
    /// Changes whenever a number gets or loses its class.
    generation: u64,
}

/// The number of no class, before classes are settled for the first time.
const NOT_YET: u32 = u32::MAX;

/// What is kept of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    identity: String,
    prefixes: Vec<Prefix>,
    complement: bool,
    none: bool,
}

/// A prefix that sets list.
#[derive(Clone, Debug, Default)]
struct End {
    /// Sets that list it, ascending.
    sets: Vec<u32>,
    /// Its class; `None` until it is settled.
    class: Option<u32>,
}

/// A class, or a free number.
#[derive(Clone, Debug)]
struct Class {
    signature: Signature,
    digest: Digest,
    /// Prefixes with this class, and one more for "no address".
    uses: usize,
}

/// A prefix whose class is another than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionChange {
    /// The prefix.
    pub prefix: Prefix,
    /// Its class before; `None` when it had none of its own.
    pub before: Option<Digest>,
    /// Its class now; `None` when it has the class of what is around it.
    pub after: Option<Digest>,
}

impl Default for Atoms {
    /// No sets, and no classes before they are settled.
    fn default() -> Self {
        let mut atoms = Atoms {
            sets: Vec::new(),
            ends: BTreeMap::new(),
            lengths: Default::default(),
            regions: BTreeMap::new(),
            none: NOT_YET,
            classes: Vec::new(),
            known: FastMap::default(),
            free: Vec::new(),
            members: Vec::new(),
            dirty: BTreeSet::new(),
            generation: 0,
        };
        for family in Family::ALL {
            atoms.end(Prefix::all(family));
            atoms.dirty.insert(Prefix::all(family));
        }
        atoms
    }
}

impl Atoms {
    /// The classes that tell `sets` apart, and each of the addresses in `single` from all others.
    #[must_use]
    pub fn new(sets: &[&AddressSet], single: &BTreeSet<Address>) -> Self {
        let mut atoms = Atoms::default();
        let singles = single.iter().filter_map(|address| host(*address));
        let mut index = 0;
        for set in sets {
            atoms.set(index, Some(set));
            index += 1;
        }
        for set in singles {
            atoms.set(index, Some(&set));
            index += 1;
        }
        atoms.settle();
        atoms
    }

    /// Numbers of classes are below this.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.classes.len() as u32
    }

    /// The numbers of all classes, ascending.
    pub fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.count()).filter(|class| self.is_class(*class))
    }

    /// Whether a number is that of a class.
    #[must_use]
    pub fn is_class(&self, class: u32) -> bool {
        self.classes.get(class as usize).is_some_and(|c| c.uses > 0)
    }

    /// The name of a class.
    #[must_use]
    pub fn digest(&self, class: u32) -> Digest {
        self.classes[class as usize].digest
    }

    /// Class of every prefix: the longest prefix that holds an address decides.
    #[must_use]
    pub fn regions(&self) -> &BTreeMap<Prefix, u32> {
        &self.regions
    }

    /// Class of packets without addresses.
    #[must_use]
    pub fn none(&self) -> u32 {
        self.none
    }

    /// Another number than before whenever a number has got or lost its class.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The classes in the set with this index, ascending.
    pub fn members(&self, set: usize) -> impl Iterator<Item = u32> + '_ {
        self.members[set].iter().copied()
    }

    /// The class of an address.
    #[must_use]
    pub fn class(&self, address: Address) -> u32 {
        let (family, number) = match address {
            Address::None => return self.none,
            Address::V4(v4) => number(v4.into()),
            Address::V6(v6) => number(v6.into()),
        };
        let host = Prefix::new(family.address(number), family.bits());
        let own = self.ends.get(&host).and_then(|end| end.class);
        own.or_else(|| self.around(&host)).unwrap_or(self.none)
    }

    /// Says what the set with this index is now; `None` when it is not there any more. An index is
    /// for one identity, always. Returns whether the set is another than before.
    pub fn set(&mut self, index: usize, set: Option<&AddressSet>) -> bool {
        if self.sets.len() <= index {
            self.sets.resize(index + 1, None);
            self.members.resize(index + 1, BTreeSet::new());
        }
        let before = self.sets[index].take();
        let after = set.map(|set| Kept {
            identity: set.identity.clone(),
            prefixes: set.prefixes.clone(),
            complement: set.complement,
            none: set.none,
        });
        let shape = |kept: &Option<Kept>| kept.as_ref().map(|k| (k.complement, k.none));
        if shape(&before) != shape(&after) {
            // It holds, or leaves out, addresses that no prefix names.
            self.dirty.extend(Family::ALL.map(Prefix::all));
        }
        let old = before.as_ref().map_or(&[][..], |kept| &kept.prefixes);
        let new = after.as_ref().map_or(&[][..], |kept| &kept.prefixes);
        for prefix in differences(old, new) {
            self.toggle(prefix, index as u32);
        }
        let changed = before != after;
        self.sets[index] = after;
        changed
    }

    /// Adds a prefix to the set with this index, or takes it away.
    pub fn change(&mut self, index: usize, prefix: Prefix, is_in: bool) {
        let Some(kept) = self.sets.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        match (kept.prefixes.binary_search(&prefix), is_in) {
            (Ok(at), false) => {
                kept.prefixes.remove(at);
            }
            (Err(at), true) => kept.prefixes.insert(at, prefix),
            _ => return,
        }
        self.toggle(prefix, index as u32);
    }

    /// Notes that a set lists a prefix, or no more.
    fn toggle(&mut self, prefix: Prefix, index: u32) {
        let end = self.end(prefix);
        match end.sets.binary_search(&index) {
            Ok(at) => {
                end.sets.remove(at);
            }
            Err(at) => end.sets.insert(at, index),
        }
        self.dirty.insert(prefix);
    }

    fn end(&mut self, prefix: Prefix) -> &mut End {
        self.ends.entry(prefix).or_insert_with(|| {
            *self.lengths[prefix.family as usize]
                .entry(prefix.length)
                .or_default() += 1;
            End::default()
        })
    }

    /// The class of the longest listed prefix around a prefix, itself not counted.
    fn around(&self, prefix: &Prefix) -> Option<u32> {
        let shorter = self.lengths[prefix.family as usize].range(..prefix.length);
        let outer = |length: &u8| Prefix::new(prefix.family.address(prefix.first), *length);
        let mut classes = shorter
            .rev()
            .filter_map(|(length, _)| self.ends.get(&outer(length))?.class);
        classes.next()
    }
}

/// The set of one address; `None` for the absent one, which needs no set.
pub(crate) fn host(address: Address) -> Option<AddressSet> {
    let ip = match address {
        Address::None => return None,
        Address::V4(v4) => v4.into(),
        Address::V6(v6) => v6.into(),
    };
    Some(AddressSet {
        identity: format!("address {ip}"),
        prefixes: vec![Prefix::new(ip, 128)],
        complement: false,
        none: false,
        selection: None,
    })
}

/// What is in one of two sorted lists and not in both.
fn differences(old: &[Prefix], new: &[Prefix]) -> Vec<Prefix> {
    let mut out = Vec::new();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (old.peek(), new.peek()) {
            (Some(a), Some(b)) if a == b => {
                old.next();
                new.next();
            }
            (Some(a), Some(b)) if a < b => out.extend(old.next().copied()),
            (Some(_), None) => out.extend(old.next().copied()),
            (_, Some(_)) => out.extend(new.next().copied()),
            (None, None) => return out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(identity: &str, prefixes: &[(&str, u8)], complement: bool) -> AddressSet {
        AddressSet {
            identity: identity.to_owned(),
            prefixes: prefixes
                .iter()
                .map(|(a, l)| Prefix::new(a.parse().unwrap(), *l))
                .collect(),
            complement,
            none: false,
            selection: None,
        }
    }

    fn v4(text: &str) -> Address {
        Address::V4(text.parse().unwrap())
    }

    #[test]
    fn a_class_is_in_a_set_exactly_when_its_addresses_are() {
        let sets = [
            set(
                "a",
                &[("10.0.0.0", 8), ("10.1.0.0", 16), ("fd00::", 8)],
                false,
            ),
            set("b", &[("10.1.0.0", 16), ("10.1.2.3", 32)], false),
            set("c", &[("10.1.0.0", 16)], true),
            set("d", &[("0.0.0.0", 0)], false),
        ];
        let borrowed: Vec<&AddressSet> = sets.iter().collect();
        let atoms = Atoms::new(&borrowed, &BTreeSet::from([v4("10.1.2.4")]));
        for text in [
            "10.1.2.3", "10.1.2.4", "10.1.0.0", "10.2.0.0", "11.0.0.0", "0.0.0.0",
        ] {
            let class = atoms.class(v4(text));
            for (index, set) in sets.iter().enumerate() {
                let is_in = atoms.members(index).any(|c| c == class);
                assert_eq!(is_in, set.contains(v4(text)), "{text} in {}", set.identity);
            }
        }
        assert_ne!(atoms.class(v4("10.1.2.4")), atoms.class(v4("10.1.2.5")));
        assert_eq!(atoms.class(v4("10.1.2.6")), atoms.class(v4("10.1.2.5")));
        assert!(!atoms.members(0).any(|c| c == atoms.none()));
    }

    #[test]
    fn moving_an_address_between_named_sets_moves_a_region_and_keeps_the_classes() {
        let all = set("all", &[("10.0.0.0", 8)], false);
        let before = [
            all.clone(),
            set("web", &[("10.0.0.1", 32), ("10.0.0.2", 32)], false),
            set("db", &[("10.0.0.3", 32)], false),
        ];
        let after = [
            all,
            set("web", &[("10.0.0.1", 32)], false),
            set("db", &[("10.0.0.2", 32), ("10.0.0.3", 32)], false),
        ];
        let of =
            |sets: &[AddressSet; 3]| Atoms::new(&sets.iter().collect::<Vec<_>>(), &BTreeSet::new());
        let (before, after) = (of(&before), of(&after));
        let names = |atoms: &Atoms| {
            atoms
                .numbers()
                .map(|c| atoms.digest(c))
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(names(&before), names(&after));
        let name = |atoms: &Atoms, text| atoms.digest(atoms.class(v4(text)));
        assert_ne!(name(&before, "10.0.0.2"), name(&after, "10.0.0.2"));
        assert_eq!(name(&before, "10.0.0.3"), name(&after, "10.0.0.2"));
    }
}
