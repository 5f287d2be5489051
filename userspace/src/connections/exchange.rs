//! Connections leave with their endpoint, and arrive with it.
//!
//! ```text
//! source                                    destination
//! export  all connections, while it runs -> adopt   before or after its device is attached
//! release what has changed since         -> adopt
//! ```
//!
//! What is adopted has no verdict: the first packet of each connection is decided by the policy of
//! the destination, as one of an established connection where a packet had come in.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use sunwire_dataplane_common::{
    address::Address,
    expiry::FlowRecord,
    flow::{FlowEntry, TupleV6, seen, tag},
    headers::Family,
};

use super::{
    Connections, Place,
    clock::Hertz,
    parcel::{Connection, Ends, Parcel, ParcelError},
    tables::TablesError,
};
use crate::{state::kernel_address, telemetry::names::ip};

/// Exports of which the rest may be asked for, at once.
const EXPORTS_MAX: usize = 64;
/// For how long it may be.
const EXPORTED_FOR: Duration = Duration::from_secs(3600);
/// By how much the destination may take a connection for more silent than it is, ms: little beside the
/// shortest lifetime of a connection that goes both ways.
const SILENCE_ERROR_MS: u64 = 10_000;
/// Bits that are known of what was sent or received.
const SEEN: u8 = seen::PACKET | seen::SYN | seen::FIN | seen::RST;

/// Connections cannot be handed over or taken over.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nothing was applied yet.
    #[error("the controller has not been reached yet")]
    NotReady,
    /// No endpoint has the name.
    #[error("there is no endpoint {0}")]
    NoEndpoint(String),
    /// The endpoint neither lives here nor is about to.
    #[error(
        "endpoint {0} is not on this node and not moving to it; begin the move at the controller"
    )]
    NotExpected(String),
    /// The bytes are no connections.
    #[error(transparent)]
    Parcel(#[from] ParcelError),
    /// A connection is another endpoint's.
    #[error("a connection at {local} is none of endpoint {endpoint}")]
    Foreign {
        /// The endpoint that connections were handed over for.
        endpoint: String,
        /// The local address of the connection.
        local: std::net::IpAddr,
    },
    /// The kernel's flows cannot be used.
    #[error(transparent)]
    Tables(#[from] TablesError),
}

/// All connections of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// By which what changes afterwards is asked for.
    pub token: u64,
    /// How many there are.
    pub connections: u64,
    /// The connections.
    pub parcels: Vec<Parcel>,
}

/// What was exported, to tell what has changed.
#[derive(Debug)]
pub(super) struct Exported {
    number: u32,
    at: Instant,
    connections: HashMap<Ends, Connection>,
}

impl Connections {
    /// All connections of an endpoint here, while it goes on.
    ///
    /// # Errors
    /// When there is no such endpoint, or the kernel does not tell.
    pub fn export(&self, endpoint: &str) -> Result<Export, ExchangeError> {
        let place = self.place(endpoint)?;
        let connections = self.connections_of(place.number)?;
        let by_ends = connections.iter().map(|found| (found.ends, *found));
        let exported = Exported {
            number: place.number,
            at: Instant::now(),
            connections: by_ends.collect(),
        };
        let token = self.remember(exported);
        Ok(Export {
            token,
            connections: connections.len() as u64,
            parcels: Parcel::pack(true, connections, Vec::new()),
        })
    }

    /// What of an endpoint's connections has changed since an export; without one that is known here,
    /// all of them. Call it after the endpoint's device was detached: then it is the last word.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn rest(&self, number: u32, since: Option<u64>) -> Result<Vec<Parcel>, TablesError> {
        let connections = self.connections_of(number)?;
        let exported = since.and_then(|token| self.exports().remove(&token));
        let Some(exported) = exported.filter(|exported| exported.number == number) else {
            return Ok(Parcel::pack(true, connections, Vec::new()));
        };
        let elapsed_ms = exported.at.elapsed().as_millis() as u64;
        let mut before = exported.connections;
        let mut changed = Vec::new();
        for connection in connections {
            let known = before.remove(&connection.ends);
            if !known.is_some_and(|known| is_good_enough(&known, &connection, elapsed_ms)) {
                changed.push(connection);
            }
        }
        let gone = before.into_keys().collect();
        Ok(Parcel::pack(false, changed, gone))
    }

    /// Takes connections of an endpoint over that lives here or is about to.
    ///
    /// # Errors
    /// When it is not, or they are not its own; nothing was taken over then.
    pub fn adopt(&self, endpoint: &str, bytes: &[u8]) -> Result<u64, ExchangeError> {
        let place = self.place(endpoint)?;
        if !place.is_expected {
            return Err(ExchangeError::NotExpected(endpoint.to_owned()));
        }
        let parcel = Parcel::from_bytes(bytes)?;
        for connection in &parcel.connections {
            self.check(endpoint, &place, connection)?;
        }
        if parcel.is_whole && parcel.sequence == 0 && !place.is_attached {
            // What an earlier stay here left.
            self.tables.forget(place.number)?;
        }
        let now = self.tables.now()?;
        for connection in &parcel.connections {
            let (family, key) = key(place.vni, &connection.ends);
            let entry = entry(connection, place.number, now, self.tables.hertz());
            if place.is_attached {
                // Its packets pass here already.
                self.tables.join(family, &key, entry)?;
            } else {
                self.tables.set(family, &key, entry)?;
            }
        }
        for ends in &parcel.gone {
            let (family, key) = key(place.vni, ends);
            self.tables.remove_own(family, &key, place.number)?;
        }
        Ok(parcel.connections.len() as u64)
    }

    /// Refuses a connection that would be another endpoint's.
    fn check(
        &self,
        endpoint: &str,
        place: &Place,
        connection: &Connection,
    ) -> Result<(), ExchangeError> {
        let ends = &connection.ends;
        if ends.local.is_ipv4() != ends.remote.is_ipv4() {
            return Err(ParcelError::Field { field: "address" }.into());
        }
        if (connection.sent | connection.received) & !SEEN != 0 {
            return Err(ParcelError::Field { field: "state" }.into());
        }
        let local = kernel_address(ends.local);
        let is_own = local != Address::ZERO && (local == place.ipv4 || local == place.ipv6);
        // A policy may have given the endpoint an address that nobody owns.
        let is_given = connection.translated.is_some() && self.owner(place.vni, ends).is_none();
        if is_own || is_given {
            return Ok(());
        }
        Err(ExchangeError::Foreign {
            endpoint: endpoint.to_owned(),
            local: ends.local,
        })
    }

    fn connections_of(&self, number: u32) -> Result<Vec<Connection>, TablesError> {
        let now = self.tables.now()?;
        let hertz = self.tables.hertz();
        let records = self.tables.select(number)?;
        let portable = records.iter();
        Ok(portable
            .filter_map(|record| connection(record, now, hertz))
            .collect())
    }

    fn remember(&self, exported: Exported) -> u64 {
        let mut exports = self.exports();
        exports.retain(|_, exported| exported.at.elapsed() < EXPORTED_FOR);
        if exports.len() >= EXPORTS_MAX {
            exports.pop_first();
        }
        let token = self.next_token();
        exports.insert(token, exported);
        token
    }
}

/// Whether what was exported some time ago still says what is. The destination takes what it was
/// told of as silent since.
fn is_good_enough(known: &Connection, now: &Connection, elapsed_ms: u64) -> bool {
    let alike = Connection {
        silent_ms: now.silent_ms,
        ..*known
    };
    let taken_for_ms = known.silent_ms.saturating_add(elapsed_ms);
    alike == *now && taken_for_ms.saturating_sub(now.silent_ms) <= SILENCE_ERROR_MS
}

/// Exports by their token, the oldest first.
pub(super) type Exports = BTreeMap<u64, Exported>;

/// The key of a connection in the kernel, and its family.
fn key(vni: u32, ends: &Ends) -> (u32, TupleV6) {
    let key = TupleV6 {
        network_protocol: vni << 8 | u32::from(ends.protocol),
        ports: u32::from(ends.local_port) << 16 | u32::from(ends.remote_port),
        local: kernel_address(ends.local),
        remote: kernel_address(ends.remote),
    };
    (if ends.local.is_ipv4() { 4 } else { 6 }, key)
}

/// A connection as an entry without a verdict.
fn entry(connection: &Connection, number: u32, now: u32, hertz: Hertz) -> FlowEntry {
    let mut entry = FlowEntry {
        local: number,
        seen: hertz.seen(now, connection.silent_ms),
        sent: connection.sent,
        received: connection.received,
        bucket: connection.bucket,
        ..FlowEntry::default()
    };
    if let Some((address, port)) = connection.translated {
        entry.tag = tag::ALIAS;
        entry.set_original(kernel_address(address));
        entry.original_port = port;
    }
    entry
}

/// What a record says to another node; `None` when it is of no kind that is known here.
pub(super) fn connection(record: &FlowRecord, now: u32, hertz: Hertz) -> Option<Connection> {
    let family = match record.family {
        4 => Family::V4,
        6 => Family::V6,
        _ => return None,
    };
    let entry = &record.entry;
    let translated = if entry.is_alias() {
        Some((ip(family, entry.original())?, entry.original_port))
    } else {
        None
    };
    Some(Connection {
        ends: Ends {
            protocol: record.key.network_protocol as u8,
            local: ip(family, record.key.local)?,
            remote: ip(family, record.key.remote)?,
            local_port: (record.key.ports >> 16) as u16,
            remote_port: record.key.ports as u16,
        },
        sent: entry.sent & SEEN,
        received: entry.received & SEEN,
        silent_ms: hertz.silent_ms(now, entry.seen),
        translated,
        bucket: entry.kept_bucket(),
    })
}
