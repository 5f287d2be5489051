//! Address classes into the kernel, for the coming generation only.
//!
//! The policies in force and the staged ones have tries and endpoint classes of their own, written
//! by the same code: a [`Lane`] says whose. A prefix holds its class twice, by the parity of the
//! generation. Staging writes the slot that
//! no packet reads yet; prefixes that are new take, for the generation in force, the class that
//! its own longest match gives, so that adding them changes nothing before the flip.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
};

use sunwire_dataplane_common::{
    address::Address,
    entries::{ClassKeyV4, ClassKeyV6, EndpointEntry, id_kind},
};

use crate::{
    flow_map::InstallError,
    ids::Numbers,
    maps::Maps,
    pod::Pod,
    shadow::{LpmShadow, ShadowError},
    state::{Digest, Program},
};

/// Whose classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Of the policies in force.
    InForce,
    /// Of the staged ones.
    Staged,
}

/// Bits of the network in front of the address.
const NETWORK_BITS: u32 = 32;

/// The classes of all networks.
pub(crate) struct ClassMap {
    numbers: Numbers,
}

/// One address family's trie: how its keys are made and cut. Written once for both families.
trait Family: Copy + Ord
where
    Pod<Self>: aya::Pod,
{
    fn new(network: u32, address: IpAddr) -> Option<Self>;
    /// The key with all but its first `bits` bits, network included, cleared.
    fn masked(&self, bits: u32) -> Self;
    fn trie(maps: &Maps, lane: Lane) -> &LpmShadow<Self, [u32; 2]>;
    fn trie_mut(maps: &mut Maps, lane: Lane) -> &mut LpmShadow<Self, [u32; 2]>;
}

impl Family for ClassKeyV4 {
    fn new(network: u32, address: IpAddr) -> Option<Self> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        let address = u32::from_ne_bytes(address.octets());
        Some(ClassKeyV4 {
            network: network.to_be(),
            address,
        })
    }

    fn masked(&self, bits: u32) -> Self {
        let mask = u32::MAX.checked_shl(32 + NETWORK_BITS - bits).unwrap_or(0);
        ClassKeyV4 {
            network: self.network,
            address: self.address & mask.to_be(),
        }
    }

    fn trie(maps: &Maps, lane: Lane) -> &LpmShadow<Self, [u32; 2]> {
        match lane {
            Lane::InForce => &maps.classes_v4,
            Lane::Staged => &maps.staged_v4,
        }
    }

    fn trie_mut(maps: &mut Maps, lane: Lane) -> &mut LpmShadow<Self, [u32; 2]> {
        match lane {
            Lane::InForce => &mut maps.classes_v4,
            Lane::Staged => &mut maps.staged_v4,
        }
    }
}

impl Family for ClassKeyV6 {
    fn new(network: u32, address: IpAddr) -> Option<Self> {
        let IpAddr::V6(address) = address else {
            return None;
        };
        Some(ClassKeyV6 {
            network: network.to_be(),
            address: Address::v6(address.octets()),
        })
    }

    fn masked(&self, bits: u32) -> Self {
        let mask = u128::MAX
            .checked_shl(128 + NETWORK_BITS - bits)
            .unwrap_or(0);
        let number = u128::from_be_bytes(self.address.to_bytes()) & mask;
        ClassKeyV6 {
            network: self.network,
            address: Address::v6(number.to_be_bytes()),
        }
    }

    fn trie(maps: &Maps, lane: Lane) -> &LpmShadow<Self, [u32; 2]> {
        match lane {
            Lane::InForce => &maps.classes_v6,
            Lane::Staged => &maps.staged_v6,
        }
    }

    fn trie_mut(maps: &mut Maps, lane: Lane) -> &mut LpmShadow<Self, [u32; 2]> {
        match lane {
            Lane::InForce => &mut maps.classes_v6,
            Lane::Staged => &mut maps.staged_v6,
        }
    }
}

type Keyed<K> = BTreeMap<(u32, K), Digest>;

fn wanted<K: Family>(programs: &BTreeMap<u32, Program>) -> Keyed<K>
where
    Pod<K>: aya::Pod,
{
    let mut keyed = Keyed::new();
    for (vni, program) in programs {
        for (address, prefix, class) in &program.classes {
            if let Some(key) = K::new(*vni, *address) {
                keyed.insert((NETWORK_BITS + u32::from(*prefix), key), *class);
            }
        }
    }
    keyed
}

/// The value of the longest prefix that covers the first `bits` bits of `key`. A prefix is never
/// shorter than the network in front of it.
fn longest<K, V>(entries: &BTreeMap<(u32, K), V>, bits: u32, key: &K) -> Option<V>
where
    K: Family,
    V: Copy,
    Pod<K>: aya::Pod,
{
    (NETWORK_BITS..=bits)
        .rev()
        .find_map(|bits| entries.get(&(bits, key.masked(bits))).copied())
}

/// The classes that programs want, by key.
#[derive(Default)]
pub(crate) struct Wanted {
    v4: Keyed<ClassKeyV4>,
    v6: Keyed<ClassKeyV6>,
    none: BTreeMap<u32, Digest>,
}

impl Wanted {
    pub(crate) fn new(programs: &BTreeMap<u32, Program>) -> Self {
        let none: BTreeMap<u32, Digest> = programs
            .iter()
            .filter(|(_, program)| program.root.is_some())
            .map(|(vni, program)| (*vni, program.class_none))
            .collect();
        let mut v4: Keyed<ClassKeyV4> = wanted(programs);
        // For packets of endpoints of other nodes, of which there is no entry to hold it.
        v4.extend(none.iter().map(|(vni, class)| {
            let key = ClassKeyV4::without_address(*vni);
            ((NETWORK_BITS, key), *class)
        }));
        Wanted {
            v4,
            v6: wanted(programs),
            none,
        }
    }

    /// All of them.
    pub(crate) fn classes(&self) -> impl Iterator<Item = &Digest> {
        let by_address = self.v4.values().chain(self.v6.values());
        by_address.chain(self.none.values())
    }
}

impl ClassMap {
    pub(crate) fn open(maps: &Maps) -> Self {
        // A class number is at home in a flow key slot, so there are as many as there is room to
        // remember them.
        let end = maps.ids.capacity() as u32;
        ClassMap {
            numbers: Numbers::open(&maps.ids, id_kind::CLASS, "address classes", end),
        }
    }

    /// The number of a class.
    pub(crate) fn number(&mut self, maps: &mut Maps, class: Digest) -> Result<u32, InstallError> {
        Ok(self.numbers.number(&mut maps.ids, class)?)
    }

    pub(crate) fn check_capacity(
        &self,
        maps: &Maps,
        lane: Lane,
        wanted: &Wanted,
    ) -> Result<(), ShadowError> {
        fn check<K: Family>(maps: &Maps, lane: Lane, wanted: &Keyed<K>) -> Result<(), ShadowError>
        where
            Pod<K>: aya::Pod,
        {
            let trie = K::trie(maps, lane);
            let held = trie.content();
            let new = wanted.keys().filter(|key| !held.contains_key(key)).count();
            trie.check_capacity(held.len() + new)
        }
        check(maps, lane, &wanted.v4)?;
        check(maps, lane, &wanted.v6)
    }

    /// Writes the classes of `generation`, which no packet reads yet, and those of the endpoints.
    pub(crate) fn stage(
        &mut self,
        maps: &mut Maps,
        lane: Lane,
        wanted: &Wanted,
        generation: u32,
    ) -> Result<(), InstallError> {
        let parity = (generation & 1) as usize;
        self.stage_family(maps, lane, &wanted.v4, parity)?;
        self.stage_family(maps, lane, &wanted.v6, parity)?;
        let endpoints: Vec<_> = maps
            .endpoints
            .content()
            .iter()
            .map(|(k, v)| (*k, *v))
            .collect();
        for (ifindex, mut entry) in endpoints {
            self.classify(maps, lane, wanted, &mut entry, parity)?;
            maps.endpoints.set(ifindex, entry)?;
        }
        let foreign: Vec<_> = maps
            .foreign_endpoints
            .content()
            .iter()
            .map(|(k, v)| (*k, *v))
            .collect();
        for (number, mut entry) in foreign {
            self.classify(maps, lane, wanted, &mut entry, parity)?;
            maps.foreign_endpoints.set(number, entry)?;
        }
        Ok(())
    }

    fn stage_family<K: Family>(
        &mut self,
        maps: &mut Maps,
        lane: Lane,
        wanted: &Keyed<K>,
        parity: usize,
    ) -> Result<(), InstallError>
    where
        Pod<K>: aya::Pod,
    {
        let before = K::trie(maps, lane).content().clone();
        let mut after = BTreeMap::new();
        for ((bits, key), class) in wanted {
            after.insert((*bits, *key), self.number(maps, *class)?);
        }
        // A prefix that goes stays until the sweep, with what the new generation's own longest
        // match gives there.
        for (bits, key) in before.keys() {
            if !after.contains_key(&(*bits, *key)) {
                let mut value = before[&(*bits, *key)];
                value[parity] = longest(&after, *bits, key).unwrap_or(0);
                K::trie_mut(maps, lane).set((*bits, *key), value)?;
            }
        }
        for ((bits, key), number) in &after {
            let mut value = before
                .get(&(*bits, *key))
                .copied()
                .or_else(|| longest(&before, *bits, key))
                .unwrap_or_default();
            value[parity] = *number;
            K::trie_mut(maps, lane).set((*bits, *key), value)?;
        }
        Ok(())
    }

    /// Sets an endpoint's own classes in one parity's slots.
    pub(crate) fn classify(
        &mut self,
        maps: &mut Maps,
        lane: Lane,
        wanted: &Wanted,
        entry: &mut EndpointEntry,
        parity: usize,
    ) -> Result<(), InstallError> {
        let Some(class_none) = wanted.none.get(&entry.network) else {
            return Ok(());
        };
        let mut classes = match lane {
            Lane::InForce => entry.classes,
            Lane::Staged => entry.staged_classes,
        };
        classes.none[parity] = self.number(maps, *class_none)?;
        let network = entry.network.to_be();
        let v4 = ClassKeyV4 {
            network,
            address: entry.ipv4.0[0],
        };
        let v6 = ClassKeyV6 {
            network,
            address: entry.ipv6,
        };
        if let Some(class) = longest(&wanted.v4, NETWORK_BITS + 32, &v4) {
            classes.v4[parity] = self.number(maps, class)?;
        }
        if let Some(class) = longest(&wanted.v6, NETWORK_BITS + 128, &v6) {
            classes.v6[parity] = self.number(maps, class)?;
        }
        match lane {
            Lane::InForce => entry.classes = classes,
            Lane::Staged => entry.staged_classes = classes,
        }
        Ok(())
    }

    /// Deletes prefixes that only the generation before used.
    pub(crate) fn sweep(
        &self,
        maps: &mut Maps,
        lane: Lane,
        wanted: &Wanted,
    ) -> Result<(), InstallError> {
        ClassKeyV4::trie_mut(maps, lane).retain(|key| wanted.v4.contains_key(key))?;
        ClassKeyV6::trie_mut(maps, lane).retain(|key| wanted.v6.contains_key(key))?;
        Ok(())
    }

    /// Takes back the numbers of classes that nothing uses.
    pub(crate) fn release(
        &mut self,
        maps: &mut Maps,
        used: &HashSet<Digest>,
    ) -> Result<(), InstallError> {
        for (digest, number) in self
            .numbers
            .dead(&maps.ids, |digest| used.contains(&digest))
        {
            self.numbers.release(&mut maps.ids, digest, number)?;
        }
        Ok(())
    }
}
