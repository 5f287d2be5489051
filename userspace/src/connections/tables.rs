//! The kernel's flow entries, and the programs that go through them.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _},
};
use rustix::thread::{MembarrierCommand, membarrier};
use sunwire_dataplane_common::{
    address::Address,
    expiry::{FlowRecord, RECORD_BYTES, Sweep, exchange, pass},
    flow::{FlowEntry, TupleV6},
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
    /// The kernel has no membarrier system call.
    #[error("cannot wait for the packets that are on their way through the programs")]
    GracePeriod(#[source] std::io::Error),
    /// There was no memory for a flow, not even where others make way for it.
    #[error("the kernel has no room for a flow")]
    NoRoom,
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
    /// The table.
    Table,
    /// `OVERFLOW_V4`.
    OverflowV4,
    /// `OVERFLOW_V6`.
    OverflowV6,
    /// `OUTSIDE`: connections that leave the cloud here.
    Outside,
}

/// The kernel's flows.
pub struct Tables {
    ebpf: Ebpf,
    hertz: Hertz,
    sweep: Mutex<Array<MapData, Pod<Sweep>>>,
    records: Mutex<RingBuf<MapData>>,
    /// Held while a program runs that looks for flows: what it looks for is in memory that another
    /// one on the same processor would use, too.
    exchange: Mutex<()>,
    overflowed: Mutex<Array<MapData, Pod<u32>>>,
    overflow_counter: PerCpuArray<MapData, Pod<u64>>,
    limit_losses: PerCpuArray<MapData, Pod<u64>>,
    capacity: usize,
    outbound_capacity: usize,
}

const PROGRAMS: [&str; 4] = ["flow_clock", "flow_sweep", "flow_select", "flow_exchange"];

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
        let capacity = shadow::capacity(&take("FLOWS")?);
        let outbound_capacity = shadow::capacity(&take("OUTSIDE")?);
        Ok(Tables {
            hertz: Hertz::of_kernel().map_err(TablesError::Clock)?,
            sweep: Mutex::new(typed(take("SWEEP")?, "SWEEP")?),
            records: Mutex::new(typed(take("FLOW_RECORDS")?, "FLOW_RECORDS")?),
            exchange: Mutex::default(),
            overflowed: Mutex::new(typed(take("OVERFLOWED")?, "OVERFLOWED")?),
            overflow_counter: typed(take("OVERFLOW_COUNTER")?, "OVERFLOW_COUNTER")?,
            limit_losses: typed(take("LIMIT_LOSSES")?, "LIMIT_LOSSES")?,
            capacity,
            outbound_capacity,
            ebpf,
        })
    }

    /// Lines of the table: flows of both families that there would be room for, if each found one.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Connections that leave the cloud here that there is room for.
    #[must_use]
    pub fn outbound_capacity(&self) -> usize {
        self.outbound_capacity
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
        self.run("flow_clock", &[])
    }

    /// Goes through one map by these limits; returns them with what was found. Lines of the table that
    /// were taken by flows that are forgotten are free afterwards.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn sweep(&self, which: Which, limits: Sweep) -> Result<Sweep, TablesError> {
        let mut sweep = locked(&self.sweep);
        sweep
            .set(0, Pod(limits), 0)
            .map_err(access("SWEEP", "write"))?;
        match which {
            Which::Table => {
                self.visit(pass::TABLE)?;
                // Whoever found a flow before it was forgotten is done with it.
                membarrier(MembarrierCommand::Global)
                    .map_err(|error| TablesError::GracePeriod(error.into()))?;
                self.visit(pass::FREE)?;
            }
            Which::OverflowV4 => self.visit(pass::OVERFLOW_V4)?,
            Which::OverflowV6 => self.visit(pass::OVERFLOW_V6)?,
            Which::Outside => self.visit(pass::OUTSIDE)?,
        }
        let found = sweep.get(&0, 0).map_err(access("SWEEP", "read"))?;
        Ok(found.0)
    }

    fn visit(&self, map: u64) -> Result<(), TablesError> {
        let _exchange = locked(&self.exchange);
        match self.run("flow_sweep", &[map])? {
            0 => Ok(()),
            _ => Err(TablesError::Visit),
        }
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
        let exchange = locked(&self.exchange);
        let there = self.run(program, &[local.into(), part.into(), parts.into(), 0])?;
        drop(exchange);
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
        let _exchange = locked(&self.exchange);
        self.run("flow_select", &[local.into(), 0, 1, 1])?;
        Ok(())
    }

    /// Forgets one flow; it may be gone already.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn remove(&self, family: u32, key: &TupleV6) -> Result<(), TablesError> {
        self.exchange(exchange::FORGET, family, key, FlowEntry::default())?;
        Ok(())
    }

    /// Forgets one flow, if it is there and of this endpoint.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn remove_own(&self, family: u32, key: &TupleV6, local: u32) -> Result<(), TablesError> {
        let entry = FlowEntry {
            local,
            ..FlowEntry::default()
        };
        self.exchange(exchange::FORGET_OWN, family, key, entry)?;
        Ok(())
    }

    /// Whether a flow is there.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn has(&self, family: u32, key: &TupleV6) -> Result<bool, TablesError> {
        let answer = self.exchange(exchange::FIND, family, key, FlowEntry::default())?;
        Ok(answer != exchange::NO)
    }

    /// Sets a flow, in place of what is there. Where there is no room it goes where others make way
    /// for new ones.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn set(&self, family: u32, key: &TupleV6, entry: FlowEntry) -> Result<(), TablesError> {
        self.have(exchange::SET, family, key, entry)
    }

    /// As [`set`](Self::set), with what was seen of the flow here, if it is the same endpoint's.
    ///
    /// # Errors
    /// When the kernel does not run the program.
    pub fn join(&self, family: u32, key: &TupleV6, entry: FlowEntry) -> Result<(), TablesError> {
        self.have(exchange::JOIN, family, key, entry)
    }

    fn have(
        &self,
        what: u32,
        family: u32,
        key: &TupleV6,
        entry: FlowEntry,
    ) -> Result<(), TablesError> {
        match self.exchange(what, family, key, entry)? {
            exchange::NO => Err(TablesError::NoRoom),
            _ => Ok(()),
        }
    }

    fn exchange(
        &self,
        what: u32,
        family: u32,
        key: &TupleV6,
        entry: FlowEntry,
    ) -> Result<u32, TablesError> {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let address = |address: Address| {
            let [a, b, c, d] = address.0;
            [pair(a, b), pair(c, d)]
        };
        let mut arguments = vec![pair(what, family), pair(key.network_protocol, key.ports)];
        arguments.extend(address(key.local));
        arguments.extend(address(key.remote));
        arguments.extend(entry.to_words());
        let _exchange = locked(&self.exchange);
        self.run("flow_exchange", &arguments)
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
        self.visit(BUCKETS)
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

    fn run(&self, name: &'static str, arguments: &[u64]) -> Result<u32, TablesError> {
        let program = self
            .ebpf
            .program(name)
            .ok_or(ProgramsError::Missing(name))?;
        let program: &RawTracePoint = program
            .try_into()
            .map_err(|_| ProgramsError::Missing(name))?;
        let mut options = RawTracePointRunOptions::new();
        options.args[..arguments.len()].copy_from_slice(arguments);
        let result = program
            .test_run(options)
            .map_err(|source| TablesError::Run {
                program: name,
                source: Box::new(source),
            })?;
        Ok(result.return_value)
    }
}

fn typed<M: TryFrom<Map, Error = MapError>>(
    map: Map,
    name: &'static str,
) -> Result<M, ShadowError> {
    M::try_from(map).map_err(|source| ShadowError::Layout { map: name, source })
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
