//! Connections of the endpoints on this node: what the kernel remembers of their flows, for as long
//! as it should, wherever they are.
//!
//! ```text
//!                    sweep.rs     forgets what is over, every few seconds
//! kernel: FLOWS,     listing.rs   shows them with names
//!   OVERFLOW    <--- exchange.rs  hands them over when their endpoint moves, takes them over (mover.rs)
//!     tables.rs      parcel.rs    the form that they travel in
//!     clock.rs
//! ```
//!
//! The programs write flows, packet by packet, and are never waited for: here they are only read,
//! added and forgotten. No lock is held longer than the kernel needs to go through its flows once.

pub mod clock;
pub mod exchange;
pub mod listing;
pub mod mover;
pub mod parcel;
pub mod sweep;
pub mod tables;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use sunwire_dataplane_common::{address::Address, headers::Family};

use self::{
    exchange::{ExchangeError, Exports},
    parcel::Ends,
    sweep::Sweeper,
    tables::{Tables, TablesError},
};
use crate::{
    dataplane::Attachment,
    maps::Capacity,
    state::{Desired, kernel_address},
    telemetry::names::Names,
};

/// The connections of a node.
pub struct Connections {
    tables: Tables,
    known: Mutex<Known>,
    exports: Mutex<Exports>,
    sweeper: Mutex<Sweeper>,
    token: AtomicU64,
}

/// What is known of endpoints, as of the last state that was applied.
#[derive(Default)]
struct Known {
    places: BTreeMap<String, Place>,
    names: Arc<Names>,
    generation: u32,
    /// Whether a state was applied.
    is_known: bool,
}

/// An endpoint, as far as its connections are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    number: u32,
    vni: u32,
    ipv4: Address,
    ipv6: Address,
    /// It lives here or is about to.
    is_expected: bool,
    /// Its device is attached here.
    is_attached: bool,
}

impl Connections {
    /// Opens the flows of the node whose maps are pinned in `directory`.
    ///
    /// # Errors
    /// When the kernel refuses, or the maps have another layout.
    pub fn load(directory: &Path, capacity: Capacity) -> Result<Arc<Self>, TablesError> {
        // Tokens of an agent before this one are not taken for ours.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let token = since.map_or(1, |since| since.as_micros() as u64);
        Ok(Arc::new(Connections {
            tables: Tables::load(directory, capacity)?,
            known: Mutex::default(),
            exports: Mutex::default(),
            sweeper: Mutex::default(),
            token: AtomicU64::new(token),
        }))
    }

    /// The kernel's flows.
    #[must_use]
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Goes by a state that was applied for node `own`.
    pub fn publish(
        &self,
        desired: &Desired,
        own: u32,
        attachments: &BTreeMap<u32, Attachment>,
        names: Arc<Names>,
        generation: u32,
    ) {
        let places = desired.endpoints.iter().map(|(number, endpoint)| {
            let attachment = attachments.get(number);
            let place = Place {
                number: *number,
                vni: endpoint.vni,
                ipv4: endpoint.ipv4,
                ipv6: endpoint.ipv6,
                is_expected: crate::dataplane::expected(endpoint, own),
                is_attached: matches!(attachment, Some(Attachment::Attached { .. })),
            };
            (endpoint.name.clone(), place)
        });
        *self.known() = Known {
            places: places.collect(),
            names,
            generation,
            is_known: true,
        };
    }

    fn place(&self, endpoint: &str) -> Result<Place, ExchangeError> {
        let known = self.known();
        if !known.is_known {
            return Err(ExchangeError::NotReady);
        }
        let place = known.places.get(endpoint).cloned();
        place.ok_or_else(|| ExchangeError::NoEndpoint(endpoint.to_owned()))
    }

    fn names(&self) -> Arc<Names> {
        Arc::clone(&self.known().names)
    }

    fn generation(&self) -> u32 {
        self.known().generation
    }

    fn is_known(&self) -> bool {
        self.known().is_known
    }

    /// Name of the endpoint that owns the local address of a connection.
    fn owner(&self, vni: u32, ends: &Ends) -> Option<String> {
        let family = match ends.local {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        self.names().owner(vni, family, kernel_address(ends.local))
    }

    fn next_token(&self) -> u64 {
        self.token.fetch_add(1, Ordering::Relaxed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        locked(&self.known)
    }

    fn exports(&self) -> MutexGuard<'_, Exports> {
        locked(&self.exports)
    }

    fn sweeper(&self) -> MutexGuard<'_, Sweeper> {
        locked(&self.sweeper)
    }
}

/// What a lock protects is replaced whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
