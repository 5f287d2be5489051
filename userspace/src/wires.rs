//! Wires as the agent knows them, and what is counted of them.
//!
//! Which wires there are is the controller's to say; `dataplane/wires.rs` writes them.

use std::collections::BTreeMap;

use aya::maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use sunwire_dataplane_common::{entries::Counter, wire::counter_key};

use crate::{counters::sum, pod::Pod, shadow::ShadowError};

/// A point-to-point connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Unique name.
    pub name: String,
    /// VNI of the network of both ends.
    pub vni: u32,
    /// Numbers of the endpoints.
    pub ends: [u32; 2],
}

/// Wires by number; an endpoint is an end of one at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wires {
    by_number: BTreeMap<u32, Wire>,
    by_end: BTreeMap<u32, u32>,
}

impl Wires {
    /// Adds a wire, or replaces the one of its number; wires that its ends were in lose them.
    pub fn insert(&mut self, number: u32, wire: Wire) {
        self.remove(number);
        self.by_end.extend(wire.ends.map(|end| (end, number)));
        self.by_number.insert(number, wire);
    }

    /// Takes a wire away.
    pub fn remove(&mut self, number: u32) {
        self.by_number.remove(&number);
        self.by_end.retain(|_, wire| *wire != number);
    }

    /// A wire by its number.
    #[must_use]
    pub fn get(&self, number: u32) -> Option<&Wire> {
        self.by_number.get(&number)
    }

    /// Number of the wire that an endpoint is an end of.
    #[must_use]
    pub fn of(&self, endpoint: u32) -> Option<u32> {
        self.by_end.get(&endpoint).copied()
    }

    /// All wires by number.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Wire)> {
        self.by_number.iter().map(|(number, wire)| (*number, wire))
    }
}

/// Frames that one end of a wire sent on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireTotal {
    /// Number of the wire.
    pub number: u32,
    /// The second end sent them.
    pub from_b: bool,
    /// How many.
    pub total: Counter,
}

/// The map of what ends have sent: the programs count where there is an entry, the agent makes it.
pub(crate) struct WireCounters(PerCpuHashMap<MapData, Pod<u32>, Pod<Counter>>);

impl WireCounters {
    /// Takes the map over.
    pub(crate) fn open(map: Map) -> Result<Self, ShadowError> {
        let map = PerCpuHashMap::try_from(map).map_err(|source| ShadowError::Layout {
            map: "WIRE_COUNTERS",
            source,
        })?;
        Ok(WireCounters(map))
    }

    /// What was counted.
    pub(crate) fn read(&self) -> Result<Vec<WireTotal>, MapError> {
        let counters = self.0.iter();
        counters
            .map(|entry| {
                let (Pod(key), values) = entry?;
                Ok(WireTotal {
                    number: key >> 1,
                    from_b: key & 1 != 0,
                    total: sum(&values),
                })
            })
            .collect()
    }

    /// Begins to count for both ends of a wire, unless that has begun.
    pub(crate) fn begin(&mut self, number: u32) -> Result<(), ShadowError> {
        for from_b in [false, true] {
            let key = Pod(counter_key(number, from_b));
            match self.0.get(&key, 0) {
                Ok(_) => {}
                Err(MapError::KeyNotFound) => {
                    let cpus = aya::util::nr_cpus().unwrap_or(1);
                    let zeros = vec![Pod(Counter::default()); cpus];
                    let zeros =
                        PerCpuValues::try_from(zeros).expect("one value for each processor");
                    self.0.insert(key, zeros, 0).map_err(failed("write"))?;
                }
                Err(source) => return Err(failed("read")(source)),
            }
        }
        Ok(())
    }

    /// Forgets what was counted of wires that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(u32) -> bool) -> Result<(), ShadowError> {
        let keys = self.0.keys().collect::<Result<Vec<_>, _>>();
        let keys = keys.map_err(failed("read"))?;
        for Pod(key) in keys.into_iter().filter(|Pod(key)| !keep(key >> 1)) {
            match self.0.remove(&Pod(key)) {
                Ok(()) | Err(MapError::KeyNotFound) => {}
                Err(source) => return Err(failed("delete from")(source)),
            }
        }
        Ok(())
    }
}

fn failed(verb: &'static str) -> impl Fn(MapError) -> ShadowError {
    move |source| ShadowError::Access {
        map: "WIRE_COUNTERS",
        verb,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_in_the_wire_that_has_it_and_in_none_afterwards() {
        let wire = |ends| Wire {
            name: "patch".to_owned(),
            vni: 5,
            ends,
        };
        let mut wires = Wires::default();
        wires.insert(1, wire([10, 11]));
        wires.insert(2, wire([12, 13]));
        assert_eq!(
            (wires.of(11), wires.of(12), wires.of(14)),
            (Some(1), Some(2), None)
        );
        wires.insert(1, wire([10, 14]));
        assert_eq!((wires.of(11), wires.of(14)), (None, Some(1)));
        wires.remove(1);
        assert_eq!((wires.of(10), wires.of(13)), (None, Some(2)));
        assert_eq!(wires.iter().count(), 1);
    }
}
