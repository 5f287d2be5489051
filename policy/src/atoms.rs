//! Address classes: the atoms of all address tests of a policy.
//!
//! Two addresses are in the same class when every address set of the policy holds both or neither.
//! The compiler then tests a dense class number instead of an address, and the data plane finds the
//! class by one longest-prefix match.
//!
//! A class is named by the identities of the sets that hold it, and a named set's identity is its
//! name. So when an address joins or leaves a named set, [`Atoms::regions`] change and flow tables
//! stay as they are, unless the change makes a combination of sets that no address had before.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::address::{Address, AddressSet, Family, Prefix, number};
use crate::tables::Digest;

/// The classes of a compilation.
#[derive(Clone, Debug)]
pub struct Atoms {
    /// Name of every class, by its number.
    pub digests: Vec<Digest>,
    /// Class of every prefix: the longest prefix that holds an address decides.
    pub regions: BTreeMap<Prefix, u32>,
    /// Class of packets without addresses.
    pub none: u32,
    /// Classes in each set, ascending.
    members: Vec<Vec<u32>>,
}

impl Atoms {
    /// The classes that tell `sets` apart, and each of the addresses in `single` from all others.
    #[must_use]
    pub fn new(sets: &[&AddressSet], single: &BTreeSet<Address>) -> Self {
        let singles: Vec<AddressSet> = single.iter().filter_map(|a| host(*a)).collect();
        let all: Vec<&AddressSet> = sets.iter().copied().chain(&singles).collect();
        let mut ends: BTreeMap<Prefix, Vec<u32>> = Family::ALL
            .map(|family| (Prefix::all(family), Vec::new()))
            .into();
        for (index, set) in all.iter().enumerate() {
            for prefix in &set.prefixes {
                ends.entry(*prefix).or_default().push(index as u32);
            }
        }
        let everywhere: BTreeSet<u32> = (0..all.len() as u32)
            .filter(|index| all[*index as usize].complement)
            .collect();

        // Prefixes in order visit the trie from each node to its children.
        let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut signatures: Vec<Vec<u32>> = Vec::new();
        let mut number_of = |signature: &BTreeSet<u32>| {
            let signature: Vec<u32> = signature.iter().copied().collect();
            *known.entry(signature).or_insert_with_key(|signature| {
                signatures.push(signature.clone());
                signatures.len() as u32 - 1
            })
        };
        let mut regions = BTreeMap::new();
        let mut path: Vec<(Prefix, BTreeSet<u32>, u32)> = Vec::new();
        for (prefix, indices) in &ends {
            while path.last().is_some_and(|(outer, ..)| !holds(outer, prefix)) {
                path.pop();
            }
            let outer = path.last();
            let mut signature = outer.map_or_else(|| everywhere.clone(), |(_, s, _)| s.clone());
            for index in indices {
                if all[*index as usize].complement {
                    signature.remove(index);
                } else {
                    signature.insert(*index);
                }
            }
            let class = number_of(&signature);
            if outer.is_none_or(|(.., outer)| *outer != class) {
                regions.insert(*prefix, class);
            }
            path.push((*prefix, signature, class));
        }
        let none: BTreeSet<u32> = (0..all.len() as u32)
            .filter(|index| all[*index as usize].none)
            .collect();
        let none = number_of(&none);

        let mut members = vec![Vec::new(); all.len()];
        for (class, signature) in signatures.iter().enumerate() {
            for index in signature {
                members[*index as usize].push(class as u32);
            }
        }
        Atoms {
            digests: signatures.iter().map(|s| digest(s, &all)).collect(),
            regions,
            none,
            members,
        }
    }

    /// Number of classes.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.digests.len() as u32
    }

    /// The classes in the set with this index.
    #[must_use]
    pub fn members(&self, set: usize) -> &[u32] {
        &self.members[set]
    }

    /// The class of an address.
    #[must_use]
    pub fn class(&self, address: Address) -> u32 {
        let (family, number) = match address {
            Address::None => return self.none,
            Address::V4(v4) => number(v4.into()),
            Address::V6(v6) => number(v6.into()),
        };
        for length in (0..=family.bits()).rev() {
            let prefix = Prefix::new(family.address(number), length);
            if let Some(class) = self.regions.get(&prefix) {
                return *class;
            }
        }
        self.none
    }
}

/// The set of one address; `None` for the absent one, which needs no set.
fn host(address: Address) -> Option<AddressSet> {
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

fn holds(outer: &Prefix, inner: &Prefix) -> bool {
    outer.family == inner.family && outer.length <= inner.length && outer.contains(inner.first)
}

fn digest(signature: &[u32], sets: &[&AddressSet]) -> Digest {
    let mut identities: Vec<&str> = signature
        .iter()
        .map(|index| sets[*index as usize].identity.as_str())
        .collect();
    identities.sort_unstable();
    let mut hasher = blake3::Hasher::new_derive_key("sunwire class v1");
    for identity in identities {
        hasher.update(&(identity.len() as u64).to_le_bytes());
        hasher.update(identity.as_bytes());
    }
    Digest(*hasher.finalize().as_bytes())
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
                let is_in = atoms.members(index).contains(&class);
                assert_eq!(is_in, set.contains(v4(text)), "{text} in {}", set.identity);
            }
        }
        assert_ne!(atoms.class(v4("10.1.2.4")), atoms.class(v4("10.1.2.5")));
        assert_eq!(atoms.class(v4("10.1.2.6")), atoms.class(v4("10.1.2.5")));
        assert!(!atoms.members(0).contains(&atoms.none));
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
        let names = |atoms: &Atoms| atoms.digests.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(names(&before), names(&after));
        let name = |atoms: &Atoms, text| atoms.digests[atoms.class(v4(text)) as usize];
        assert_ne!(name(&before, "10.0.0.2"), name(&after, "10.0.0.2"));
        assert_eq!(name(&before, "10.0.0.3"), name(&after, "10.0.0.2"));
    }
}
