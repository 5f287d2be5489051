//! The durable log: what was accepted, in order, and a snapshot that stands for its beginning.
//!
//! The state is always the snapshot with the entries after it applied. Whoever replicates the log
//! takes the place of the one member here behind the same interface.

mod redb;

pub use self::redb::RedbLog;

use std::path::PathBuf;

use crate::command::Entry;
use crate::state::State;

/// A durable log of one member.
pub trait Log: Send {
    /// Appends entries. They are durable when this returns, all of them or, after an error, none
    /// or all.
    ///
    /// # Errors
    /// The storage failed: what is durable is unknown until the log is opened again.
    fn append(&mut self, entries: &[Entry]) -> Result<(), LogError>;

    /// The entries after `revision`, in order.
    ///
    /// # Errors
    /// The storage failed, or an entry is damaged or missing.
    fn read_after(&self, revision: u64) -> Result<Vec<Entry>, LogError>;

    /// The latest snapshot, as it was stored.
    ///
    /// # Errors
    /// The storage failed, or the snapshot is damaged.
    fn snapshot(&self) -> Result<Option<State>, LogError>;

    /// Lets `state` stand for every entry up to its revision, and forgets these.
    ///
    /// # Errors
    /// The storage failed: the log is as before.
    fn compact(&mut self, state: &State) -> Result<(), LogError>;

    /// How many entries [`Log::read_after`] would read after the snapshot.
    fn entries_since_snapshot(&self) -> u64;
}

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The directory cannot be made or used.
    #[error("cannot use the data directory {directory}")]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// What failed.
        #[source]
        source: std::io::Error,
    },
    /// Another process has the file.
    #[error("{path} is in use: another controller runs on this data directory; stop it first")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version.
    #[error(
        "{path} has format {found} and this version reads up to {known}: run the newer version, \
         which wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        found: u32,
        /// Newest format that is understood.
        known: u32,
    },
    /// The file is damaged.
    #[error("{path} is damaged ({what}): restore it from a backup; nothing was changed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The storage failed.
    #[error("cannot read or write {path}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What failed.
        #[source]
        source: Box<::redb::Error>,
    },
}

/// Why a state cannot be made from a log.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An entry is refused that was accepted once.
    #[error(
        "the log's entry {revision} was accepted by another version and this one refuses it: run \
         the version that wrote it"
    )]
    Refused {
        /// Revision of the entry.
        revision: u64,
        /// Why it is refused.
        #[source]
        source: crate::refusal::Refusal,
    },
}

/// The state that a log stands for. A policy that this version's compiler refuses is out of force,
/// and no reason not to start.
///
/// # Errors
/// The log cannot be read, or was written by a version that decided otherwise.
pub fn replay(log: &dyn Log) -> Result<State, ReplayError> {
    let mut state = log.snapshot()?.unwrap_or_default();
    let entries = log.read_after(state.revision())?;
    if entries.iter().any(|entry| entry.outcome.is_none()) {
        // What such an entry made of policies is found by comparing with what was in force.
        state = state.restore();
    }
    for entry in entries {
        state
            .replay(&entry)
            .map_err(|source| ReplayError::Refused {
                revision: entry.revision,
                source,
            })?;
    }
    Ok(state.restore())
}
