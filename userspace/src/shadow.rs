//! Kernel maps with their content remembered, so that only differences are written.
//!
//! A shadow is read from the kernel once, when the agent starts; from then on the agent is the
//! only writer. Setting a value that is there already costs no system call, which is what makes
//! "apply the whole desired state again" cheap enough to be the only way of applying it.

use std::{collections::BTreeMap, fmt};

use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie};

use crate::pod::Pod;

/// A kernel map could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// The object has no such map, or it has another type or layout.
    #[error("map {map} does not have the layout this version uses; remove the node's pinned maps")]
    Layout {
        /// Name of the map.
        map: &'static str,
        /// What the library found.
        #[source]
        source: MapError,
    },
    /// The object has no map of this name.
    #[error("the kernel programs have no map {map}")]
    Missing {
        /// Name of the map.
        map: &'static str,
    },
    /// A system call failed.
    #[error("cannot {verb} map {map}")]
    Access {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        #[source]
        source: MapError,
    },
    /// The map is full.
    #[error("map {map} is full: it holds {capacity} entries and {needed} are needed")]
    Full {
        /// Name of the map.
        map: &'static str,
        /// Entries it can hold.
        capacity: usize,
        /// Entries that were asked for.
        needed: usize,
    },
}

/// The kernel side of a shadow.
trait Store<K, V>: TryFrom<Map, Error = MapError> {
    fn read(&self) -> Result<BTreeMap<K, V>, MapError>;
    fn write(&mut self, key: &K, value: &V) -> Result<(), MapError>;
    fn erase(&mut self, key: &K) -> Result<(), MapError>;
}

/// A hash map or LPM trie and what it holds.
pub(crate) struct Shadow<S, K, V> {
    name: &'static str,
    capacity: usize,
    store: S,
    content: BTreeMap<K, V>,
}

/// A hash map.
pub(crate) type HashShadow<K, V> = Shadow<HashMap<MapData, Pod<K>, Pod<V>>, K, V>;
/// An LPM trie; keys are prefix length and data.
pub(crate) type LpmShadow<K, V> = Shadow<LpmTrie<MapData, Pod<K>, Pod<V>>, (u32, K), V>;

impl<K, V> Store<K, V> for HashMap<MapData, Pod<K>, Pod<V>>
where
    K: Copy + Ord,
    V: Copy,
    Pod<K>: aya::Pod,
    Pod<V>: aya::Pod,
{
    fn read(&self) -> Result<BTreeMap<K, V>, MapError> {
        let entries = self.iter();
        entries
            .map(|entry| entry.map(|(key, value)| (key.0, value.0)))
            .collect()
    }

    fn write(&mut self, key: &K, value: &V) -> Result<(), MapError> {
        self.insert(Pod(*key), Pod(*value), 0)
    }

    fn erase(&mut self, key: &K) -> Result<(), MapError> {
        self.remove(&Pod(*key))
    }
}

impl<K, V> Store<(u32, K), V> for LpmTrie<MapData, Pod<K>, Pod<V>>
where
    K: Copy + Ord,
    V: Copy,
    Pod<K>: aya::Pod,
    Pod<V>: aya::Pod,
{
    fn read(&self) -> Result<BTreeMap<(u32, K), V>, MapError> {
        let entries = self.iter();
        let plain = |(key, value): (lpm_trie::Key<Pod<K>>, Pod<V>)| {
            ((key.prefix_len(), key.data().0), value.0)
        };
        entries.map(|entry| entry.map(plain)).collect()
    }

    fn write(&mut self, (prefix, data): &(u32, K), value: &V) -> Result<(), MapError> {
        self.insert(&lpm_trie::Key::new(*prefix, Pod(*data)), Pod(*value), 0)
    }

    fn erase(&mut self, (prefix, data): &(u32, K)) -> Result<(), MapError> {
        self.remove(&lpm_trie::Key::new(*prefix, Pod(*data)))
    }
}

#[allow(private_bounds, reason = "the kernel side is an implementation detail")]
impl<S, K, V> Shadow<S, K, V>
where
    S: Store<K, V>,
    K: Copy + Ord,
    V: Copy + PartialEq,
{
    /// Takes the map over and reads it.
    pub(crate) fn open(map: Map, name: &'static str) -> Result<Self, ShadowError> {
        let capacity = capacity(&map);
        let store = S::try_from(map).map_err(|source| ShadowError::Layout { map: name, source })?;
        let content = store.read().map_err(|source| ShadowError::Access {
            map: name,
            verb: "read",
            source,
        })?;
        Ok(Shadow {
            name,
            capacity,
            store,
            content,
        })
    }

    /// What the map holds.
    pub(crate) fn content(&self) -> &BTreeMap<K, V> {
        &self.content
    }

    /// Entries the map can hold.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Fails when the map cannot hold `needed` entries.
    pub(crate) fn check_capacity(&self, needed: usize) -> Result<(), ShadowError> {
        if needed > self.capacity {
            return Err(ShadowError::Full {
                map: self.name,
                capacity: self.capacity,
                needed,
            });
        }
        Ok(())
    }

    /// Sets a value, unless it is there already.
    pub(crate) fn set(&mut self, key: K, value: V) -> Result<(), ShadowError> {
        if self.content.get(&key) == Some(&value) {
            return Ok(());
        }
        if !self.content.contains_key(&key) {
            self.check_capacity(self.content.len() + 1)?;
        }
        self.store
            .write(&key, &value)
            .map_err(|source| ShadowError::Access {
                map: self.name,
                verb: "write",
                source,
            })?;
        self.content.insert(key, value);
        Ok(())
    }

    /// Removes a key, if it is there.
    pub(crate) fn remove(&mut self, key: &K) -> Result<(), ShadowError> {
        if self.content.remove(key).is_none() {
            return Ok(());
        }
        match self.store.erase(key) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(ShadowError::Access {
                map: self.name,
                verb: "delete from",
                source,
            }),
        }
    }

    /// Removes every key that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) -> Result<(), ShadowError> {
        let gone: Vec<K> = self
            .content
            .keys()
            .filter(|key| !keep(key))
            .copied()
            .collect();
        gone.iter().try_for_each(|key| self.remove(key))
    }

    /// Removes every key whose value `keep` refuses.
    pub(crate) fn retain_values(&mut self, keep: impl Fn(&V) -> bool) -> Result<(), ShadowError> {
        let entries = self.content.iter().filter(|(_, value)| !keep(value));
        let gone: Vec<K> = entries.map(|(key, _)| *key).collect();
        gone.iter().try_for_each(|key| self.remove(key))
    }
}

/// An array and what it holds; a slot that is zero is empty.
pub(crate) struct ArrayShadow<V>
where
    Pod<V>: aya::Pod,
{
    name: &'static str,
    store: Array<MapData, Pod<V>>,
    empty: V,
    content: BTreeMap<u32, V>,
}

impl<V> ArrayShadow<V>
where
    V: Copy + PartialEq + fmt::Debug,
    Pod<V>: aya::Pod,
{
    /// Takes the array over and reads it; `empty` is the zeroed value.
    pub(crate) fn open(map: Map, name: &'static str, empty: V) -> Result<Self, ShadowError> {
        let store = Self::store(map, name)?;
        let slots = 0..store.len();
        Self::read(store, name, empty, slots)
    }

    /// Takes the array over and reads some of its slots; the others are known to be empty.
    pub(crate) fn open_slots(
        map: Map,
        name: &'static str,
        empty: V,
        slots: impl Iterator<Item = u32>,
    ) -> Result<Self, ShadowError> {
        Self::read(Self::store(map, name)?, name, empty, slots)
    }

    fn store(map: Map, name: &'static str) -> Result<Array<MapData, Pod<V>>, ShadowError> {
        Array::try_from(map).map_err(|source| ShadowError::Layout { map: name, source })
    }

    fn read(
        store: Array<MapData, Pod<V>>,
        name: &'static str,
        empty: V,
        slots: impl Iterator<Item = u32>,
    ) -> Result<Self, ShadowError> {
        let mut content = BTreeMap::new();
        for slot in slots {
            let value = store.get(&slot, 0).map_err(|source| ShadowError::Access {
                map: name,
                verb: "read",
                source,
            })?;
            if value.0 != empty {
                content.insert(slot, value.0);
            }
        }
        Ok(ArrayShadow {
            name,
            store,
            empty,
            content,
        })
    }

    /// Slots the array has.
    pub(crate) fn len(&self) -> u32 {
        self.store.len()
    }

    /// The slots that are not empty.
    pub(crate) fn content(&self) -> &BTreeMap<u32, V> {
        &self.content
    }

    /// The value of a slot.
    pub(crate) fn get(&self, slot: u32) -> V {
        self.content.get(&slot).copied().unwrap_or(self.empty)
    }

    /// Sets a slot, unless it has the value already.
    pub(crate) fn set(&mut self, slot: u32, value: V) -> Result<(), ShadowError> {
        if self.get(slot) == value {
            return Ok(());
        }
        if slot >= self.store.len() {
            let capacity = self.store.len() as usize;
            return Err(ShadowError::Full {
                map: self.name,
                capacity,
                needed: slot as usize + 1,
            });
        }
        self.store
            .set(slot, Pod(value), 0)
            .map_err(|source| ShadowError::Access {
                map: self.name,
                verb: "write",
                source,
            })?;
        if value == self.empty {
            self.content.remove(&slot);
        } else {
            self.content.insert(slot, value);
        }
        Ok(())
    }

    /// Empties every slot that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), ShadowError> {
        let gone: Vec<u32> = self
            .content
            .keys()
            .filter(|slot| !keep(**slot))
            .copied()
            .collect();
        let empty = self.empty;
        gone.into_iter().try_for_each(|slot| self.set(slot, empty))
    }
}

/// Entries that a map can hold.
pub(crate) fn capacity(map: &Map) -> usize {
    let data = match map {
        Map::Array(data) | Map::HashMap(data) | Map::LpmTrie(data) | Map::PerCpuHashMap(data) => {
            data
        }
        _ => return 0,
    };
    data.info()
        .map(|info| info.max_entries() as usize)
        .unwrap_or(0)
}
