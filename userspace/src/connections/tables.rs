//! The kernel's flow entries, and the programs that go through them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use sunwire_dataplane_common::{
    expiry::{FlowRecord, RECORD_BYTES, Sweep},
    flow::{FlowEntry, TupleV4, TupleV6},
    limit::BUCKETS,
};

use super::clock::Hertz;
use crate::{
    maps::Capacity,
    pod::Pod,
    programs::{self, ProgramsError},
    shadow::{self, ShadowError},
};

/// Records that the ring buffer holds, with the kernel's 8 bytes before each.
const RING_RECORDS: u32 = (1 << 20) / (RECORD_BYTES as u32 + 12);
/// Divisions into parts that are tried while flows come faster than they are told.
const ATTEMPTS: u32 = 8;

/// The kernel's flows cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TablesError {
    /// The programs that go through them cannot be loaded.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// A map is missing or has another layout.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A map cannot be read or written.
    #[error("cannot {verb} map {map}")]
    Access {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        #[source]
        source: Box<MapError>,
    },
    /// A program cannot be run.
    #[error("the kernel does not run program {program}")]
    Run {
        /// Name of the program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program says that it cannot go through a map.
    #[error("the kernel does not go through its flows")]
    Visit,
    /// The kernel does not say how fast its clock is.
    #[error("the kernel does not say how fast its clock is")]
    Clock(#[source] nix::Error),
    /// Flows came faster than they were told.
    #[error("there are more flows than can be told")]
    TooMany,
}

/// One of the kernel's maps of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// `FLOWS_V4`.
    V4,
    /// `FLOWS_V6`.
    V6,
    /// `OVERFLOW_V4`.
    OverflowV4,
    /// `OVERFLOW_V6`.
    OverflowV6,
}

/// The kernel's flows.
pub struct Tables {
    ebpf: Ebpf,
    hertz: Hertz,
    sweep: Mutex<Array<MapData, Pod<Sweep>>>,
    records: Mutex<RingBuf<MapData>>,
    flows: Mutex<Flows>,
    overflowed: Mutex<Array<MapData, Pod<u32>>>,
    overflow_counter: PerCpuArray<MapData, Pod<u64>>,
    limit_losses: PerCpuArray<MapData, Pod<u64>>,
    capacity: [usize; 2],
}

type FlowMap<K> = HashMap<MapData, Pod<K>, Pod<FlowEntry>>;

struct Flows {
    v4: FlowMap<TupleV4>,
    v6: FlowMap<TupleV6>,
    overflow_v4: FlowMap<TupleV4>,
    overflow_v6: FlowMap<TupleV6>,
}

const PROGRAMS: [&str; 3] = ["flow_clock", "flow_sweep", "flow_select"];

impl Tables {
    /// Opens the flows of the node whose maps are pinned in `directory`.
    ///
    /// # Errors
    /// When the kernel refuses, or the maps have another layout.
    pub fn load(directory: &Path, capacity: Capacity) -> Result<Self, TablesError> {
        let mut ebpf = programs::open(directory, capacity)?;
        for name in PROGRAMS {
            let missing = || ProgramsError::Missing(name);
            let program = ebpf.program_mut(name).ok_or_else(missing)?;
            let program: &mut RawTracePoint = program.try_into().map_err(|_| missing())?;
            program.load().map_err(|source| ProgramsError::Program {
                name,
                source: Box::new(source),
            })?;
        }
        let mut take = |map: &'static str| ebpf.take_map(map).ok_or(ShadowError::Missing { map });
        let (v4, v6) = (take("FLOWS_V4")?, take("FLOWS_V6")?);
        let capacity = [shadow::capacity(&v4), shadow::capacity(&v6)];
        let flows = Flows {
            v4: typed(v4, "FLOWS_V4")?,
            v6: typed(v6, "FLOWS_V6")?,
            overflow_v4: typed(take("OVERFLOW_V4")?, "OVERFLOW_V4")?,
            overflow_v6: typed(take("OVERFLOW_V6")?, "OVERFLOW_V6")?,
        };
        Ok(Tables {
            hertz: Hertz::of_kernel().map_err(TablesError::Clock)?,
            sweep: Mutex::new(typed(take("SWEEP")?, "SWEEP")?),
            records: Mutex::new(typed(take("FLOW_RECORDS")?, "FLOW_RECORDS")?),
            flows: Mutex::new(flows),
            overflowed: Mutex::new(typed(take("OVERFLOWED")?, "OVERFLOWED")?),
            overflow_counter: typed(take("OVERFLOW_COUNTER")?, "OVERFLOW_COUNTER")?,
            limit_losses: typed(take("LIMIT_LOSSES")?, "LIMIT_LOSSES")?,
            capacity,
            ebpf,
        })
    }

    /// Flows that there is room for, IPv4 and IPv6.
    #[must_use]
    pub fn capacity(&self) -> [usize; 2] {
        self.capacity
    }

    /// How fast the clock of the entries is.
    #[must_use]
    pub fn hertz(&self) -> Hertz {
        self.hertz
    }

    /// What the clock of the entries shows.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn now(&self) -> Result<u32, TablesError> {
        self.run("flow_clock", [0; 4])
    }

    /// Goes through one map by these limits; returns them with what was found.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn sweep(&self, which: Which, limits: Sweep) -> Result<Sweep, TablesError> {
        let mut sweep = locked(&self.sweep);
        sweep
            .set(0, Pod(limits), 0)
            .map_err(access("SWEEP", "write"))?;
        let map = match which {
            Which::V4 => 4,
            Which::V6 => 6,
            Which::OverflowV4 => 104,
            Which::OverflowV6 => 106,
        };
        if self.run("flow_sweep", [map, 0, 0, 0])? != 0 {
            return Err(TablesError::Visit);
        }
        let found = sweep.get(&0, 0).map_err(access("SWEEP", "read"))?;
        Ok(found.0)
    }

    /// The flows of an endpoint, or with zero all flows, in no order.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn select(&self, local: u32) -> Result<Vec<FlowRecord>, TablesError> {
        let mut parts = 1;
        for _ in 0..ATTEMPTS {
            let mut found = BTreeMap::new();
            let mut missing = 0;
            for part in 0..parts {
                missing = self.select_part(local, part, parts, &mut found)?;
                if missing > 0 {
                    break;
                }
            }
            if missing == 0 {
                return Ok(found.into_values().collect());
            }
            let part = (missing + RING_RECORDS).saturating_mul(parts);
            parts = (parts * 2).max(part / (RING_RECORDS * 3 / 4) + 1);
        }
        Err(TablesError::TooMany)
    }

    /// Reads one part of the flows; returns how many of it there was no room for. Nobody waits for
    /// the lock longer than this takes.
    fn select_part(
        &self,
        local: u32,
        part: u32,
        parts: u32,
        found: &mut BTreeMap<(u32, TupleV6), FlowRecord>,
    ) -> Result<u32, TablesError> {
        let mut ring = locked(&self.records);
        let program = "flow_select";
        let there = self.run(program, [local.into(), part.into(), parts.into(), 0])?;
        let mut told = 0;
        while let Some(item) = ring.next() {
            let Some(record) = FlowRecord::from_bytes(&item) else {
                continue;
            };
            told += 1;
            found.insert((record.family, record.key), record);
        }
        Ok(there.saturating_sub(told))
    }

    /// Forgets all flows of an endpoint.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn forget(&self, local: u32) -> Result<(), TablesError> {
        self.run("flow_select", [local.into(), 0, 1, 1])?;
        Ok(())
    }

    /// Forgets one flow; it may be gone already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self, family: u32, key: &TupleV6) -> Result<(), TablesError> {
        let mut flows = locked(&self.flows);
        let Flows {
            v4,
            v6,
            overflow_v4,
            overflow_v6,
        } = &mut *flows;
        if family == 4 {
            erase(v4, "FLOWS_V4", short(key))?;
            erase(overflow_v4, "OVERFLOW_V4", short(key))
        } else {
            erase(v6, "FLOWS_V6", *key)?;
            erase(overflow_v6, "OVERFLOW_V6", *key)
        }
    }

    /// A flow, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, family: u32, key: &TupleV6) -> Result<Option<FlowEntry>, TablesError> {
        let flows = locked(&self.flows);
        if family == 4 {
            let key = short(key);
            let found = read(&flows.v4, "FLOWS_V4", key)?;
            Ok(match found {
                Some(entry) => Some(entry),
                None => read(&flows.overflow_v4, "OVERFLOW_V4", key)?,
            })
        } else {
            let found = read(&flows.v6, "FLOWS_V6", *key)?;
            Ok(match found {
                Some(entry) => Some(entry),
                None => read(&flows.overflow_v6, "OVERFLOW_V6", *key)?,
            })
        }
    }

    /// Sets a flow, in place of what is there. Where there is no room it goes where others make way
    /// for new ones.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&self, family: u32, key: &TupleV6, entry: FlowEntry) -> Result<(), TablesError> {
        let mut flows = locked(&self.flows);
        let written = if family == 4 {
            flows.v4.insert(Pod(short(key)), Pod(entry), 0)
        } else {
            flows.v6.insert(Pod(*key), Pod(entry), 0)
        };
        match written {
            Ok(()) => return Ok(()),
            Err(error) if is_full(&error) => {}
            Err(source) => return Err(access("FLOWS", "write")(source)),
        }
        locked(&self.overflowed)
            .set(0, Pod(1), 0)
            .map_err(access("OVERFLOWED", "write"))?;
        if family == 4 {
            let inserted = flows.overflow_v4.insert(Pod(short(key)), Pod(entry), 0);
            inserted.map_err(access("OVERFLOW_V4", "write"))
        } else {
            let inserted = flows.overflow_v6.insert(Pod(*key), Pod(entry), 0);
            inserted.map_err(access("OVERFLOW_V6", "write"))
        }
    }

    /// Whether there was no room since the word was last cleared.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_overflowed(&self) -> Result<bool, TablesError> {
        let word = locked(&self.overflowed).get(&0, 0);
        Ok(word.map_err(access("OVERFLOWED", "read"))?.0 != 0)
    }

    /// Lets packets look in one map only again.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn clear_overflowed(&self) -> Result<(), TablesError> {
        let mut word = locked(&self.overflowed);
        word.set(0, Pod(0), 0)
            .map_err(access("OVERFLOWED", "write"))
    }

    /// Flows for which there was no room, since the maps were made.
    ///
    /// # Errors
    /// When the counter cannot be read.
    pub fn overflow_total(&self) -> Result<u64, TablesError> {
        let values = self.overflow_counter.get(&0, 0);
        let values = values.map_err(access("OVERFLOW_COUNTER", "read"))?;
        Ok(values.iter().map(|value| value.0).sum())
    }

    /// Forgets the buckets of rates that are full: they are the same as none.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn sweep_buckets(&self) -> Result<(), TablesError> {
        match self.run("flow_sweep", [BUCKETS, 0, 0, 0])? {
            0 => Ok(()),
            _ => Err(TablesError::Visit),
        }
    }

    /// Packets for which there was no room for a bucket, since the maps were made.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unbucketed_total(&self) -> Result<u64, TablesError> {
        let values = self.limit_losses.get(&0, 0);
        let values = values.map_err(access("LIMIT_LOSSES", "read"))?;
        Ok(values.iter().map(|value| value.0).sum())
    }

    fn run(&self, name: &'static str, arguments: [u64; 4]) -> Result<u32, TablesError> {
        let program = self
            .ebpf
            .program(name)
            .ok_or(ProgramsError::Missing(name))?;
        let program: &RawTracePoint = program
            .try_into()
            .map_err(|_| ProgramsError::Missing(name))?;
        let mut options = RawTracePointRunOptions::new();
        options.args[..arguments.len()].copy_from_slice(&arguments);
        let result = program
            .test_run(options)
            .map_err(|source| TablesError::Run {
                program: name,
                source: Box::new(source),
            })?;
        Ok(result.return_value)
    }
}

/// The key of an IPv4 flow, from the form that both families are told in.
fn short(key: &TupleV6) -> TupleV4 {
    TupleV4 {
        network_protocol: key.network_protocol,
        local: key.local.0[0],
        remote: key.remote.0[0],
        ports: key.ports,
    }
}

fn typed<M: TryFrom<Map, Error = MapError>>(
    map: Map,
    name: &'static str,
) -> Result<M, ShadowError> {
    M::try_from(map).map_err(|source| ShadowError::Layout { map: name, source })
}

fn erase<K>(map: &mut FlowMap<K>, name: &'static str, key: K) -> Result<(), TablesError>
where
    Pod<K>: aya::Pod,
{
    match map.remove(&Pod(key)) {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(error) if is_absent(&error) => Ok(()),
        Err(source) => Err(access(name, "delete from")(source)),
    }
}

fn read<K>(map: &FlowMap<K>, name: &'static str, key: K) -> Result<Option<FlowEntry>, TablesError>
where
    Pod<K>: aya::Pod,
{
    match map.get(&Pod(key), 0) {
        Ok(entry) => Ok(Some(entry.0)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(source) => Err(access(name, "read")(source)),
    }
}

fn error_number(error: &MapError) -> Option<i32> {
    match error {
        MapError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}

fn is_full(error: &MapError) -> bool {
    error_number(error) == Some(nix::errno::Errno::E2BIG as i32)
}

fn is_absent(error: &MapError) -> bool {
    error_number(error) == Some(nix::errno::Errno::ENOENT as i32)
}

fn access(map: &'static str, verb: &'static str) -> impl FnOnce(MapError) -> TablesError {
    move |source| TablesError::Access {
        map,
        verb,
        source: Box::new(source),
    }
}

/// What a lock protects stays whole when its holder panics: one value, or the kernel's own.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
