//! The log in one redb file.
//!
//! ```text
//! table "meta"     "format"   -> u32, little endian
//!                  "snapshot" -> record of State
//! table "entries"  revision   -> record of Entry, dense from the snapshot's revision + 1
//! record = BLAKE3-128 of the rest | JSON
//! ```
//! Every write is one transaction with two-phase commit, so that a torn write can never pass for a
//! commit. The digests find what the storage lost without noticing.

use std::fs;
use std::path::{Path, PathBuf};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Log, LogError};
use crate::command::Entry;
use crate::state::State;

/// The format that this version writes. 1: the first. 2: entries hold what was found of policies,
/// and policies have trials and candidates, which a version that knows 1 would overlook.
const FORMAT: u32 = 2;
/// Formats that are read, and become the present one when they are opened.
const FORMATS_BEFORE: std::ops::Range<u32> = 1..FORMAT;
const FILE: &str = "controller.redb";
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const FORMAT_KEY: &str = "format";
const SNAPSHOT_KEY: &str = "snapshot";
/// Bytes of a record's digest.
const DIGEST_BYTES: usize = 16;

/// A log in one file.
pub struct RedbLog {
    database: Database,
    path: PathBuf,
    entries_since_snapshot: u64,
}

impl RedbLog {
    /// Opens the log in a directory, and makes both where they are missing.
    ///
    /// # Errors
    /// The file is in use, damaged, of a newer format, or cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        fs::create_dir_all(directory).map_err(|source| LogError::Directory {
            directory: directory.to_owned(),
            source,
        })?;
        let path = directory.join(FILE);
        let database = open_database(&path)?;
        let mut log = RedbLog {
            database,
            path,
            entries_since_snapshot: 0,
        };
        log.entries_since_snapshot = log.check_format()?;
        Ok(log)
    }

    /// Writes the format into a new file, and checks it in an old one. Returns how many entries
    /// there are.
    fn check_format(&self) -> Result<u64, LogError> {
        self.commit(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let present = meta.get(FORMAT_KEY)?.map(|found| found.value().to_vec());
            let before = |bytes: &Vec<u8>| {
                let number = <[u8; 4]>::try_from(bytes.as_slice()).map(u32::from_le_bytes);
                number.is_ok_and(|number| FORMATS_BEFORE.contains(&number))
            };
            if present.as_ref().is_none_or(before) {
                meta.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
            }
            let entries = transaction.open_table(ENTRIES)?.len()?;
            Ok((present, entries))
        })
        .and_then(|(present, entries)| match present {
            None => Ok(entries),
            Some(bytes) => {
                let bytes = <[u8; 4]>::try_from(bytes.as_slice());
                let found = bytes.map_err(|_| self.damaged("the format is no number"))?;
                match u32::from_le_bytes(found) {
                    FORMAT => Ok(entries),
                    found if FORMATS_BEFORE.contains(&found) => Ok(entries),
                    found if found > FORMAT => Err(LogError::Newer {
                        path: self.path.clone(),
                        found,
                        known: FORMAT,
                    }),
                    found => Err(self.damaged(&format!("there never was a format {found}"))),
                }
            }
        })
    }

    /// Runs one durable transaction.
    fn commit<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LogError> {
        let run = || -> Result<T, redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(true);
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run().map_err(|source| storage(&self.path, source))
    }

    fn damaged(&self, what: &str) -> LogError {
        LogError::Damaged {
            path: self.path.clone(),
            what: what.to_owned(),
        }
    }

    fn decode<T: DeserializeOwned>(&self, record: &[u8], what: &str) -> Result<T, LogError> {
        let (digest, json) = record
            .split_at_checked(DIGEST_BYTES)
            .ok_or_else(|| self.damaged(&format!("{what} is cut off")))?;
        if blake3::hash(json).as_bytes()[..DIGEST_BYTES] != *digest {
            return Err(self.damaged(&format!("{what} does not have its digest")));
        }
        serde_json::from_slice(json)
            .map_err(|error| self.damaged(&format!("{what} is malformed: {error}")))
    }
}

impl Log for RedbLog {
    fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        self.commit(|transaction| {
            let mut table = transaction.open_table(ENTRIES)?;
            for entry in entries {
                table.insert(entry.revision, encode(entry).as_slice())?;
            }
            Ok(())
        })?;
        self.entries_since_snapshot += entries.len() as u64;
        Ok(())
    }

    fn read_after(&self, revision: u64) -> Result<Vec<Entry>, LogError> {
        let read = || -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
            let table = self.database.begin_read()?.open_table(ENTRIES)?;
            let mut records = Vec::new();
            for row in table.range(revision + 1..)? {
                let (key, value) = row?;
                records.push((key.value(), value.value().to_vec()));
            }
            Ok(records)
        };
        let records = read().map_err(|source| storage(&self.path, source))?;
        let mut entries = Vec::with_capacity(records.len());
        for ((found, record), expected) in records.iter().zip(revision + 1..) {
            let entry: Entry = self.decode(record, &format!("entry {found}"))?;
            if *found != expected || entry.revision != expected {
                return Err(self.damaged(&format!("entry {expected} is missing")));
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn snapshot(&self) -> Result<Option<State>, LogError> {
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let table = self.database.begin_read()?.open_table(META)?;
            let record = table.get(SNAPSHOT_KEY)?;
            Ok(record.map(|record| record.value().to_vec()))
        };
        let record = read().map_err(|source| storage(&self.path, source))?;
        record
            .map(|record| self.decode(&record, "the snapshot"))
            .transpose()
    }

    fn compact(&mut self, state: &State) -> Result<(), LogError> {
        let record = encode(state);
        self.entries_since_snapshot = self.commit(|transaction| {
            transaction
                .open_table(META)?
                .insert(SNAPSHOT_KEY, record.as_slice())?;
            let mut entries = transaction.open_table(ENTRIES)?;
            entries.retain_in(..=state.revision(), |_, _| false)?;
            Ok(entries.len()?)
        })?;
        Ok(())
    }

    fn entries_since_snapshot(&self) -> u64 {
        self.entries_since_snapshot
    }
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(value).expect("entries and states are plain JSON");
    let mut record = blake3::hash(&json).as_bytes()[..DIGEST_BYTES].to_vec();
    record.extend_from_slice(&json);
    record
}

/// Opens the file, and makes it where it is missing. Reads all of it: a page that changed since it
/// was written is found here, and not believed later.
fn open_database(path: &Path) -> Result<Database, LogError> {
    let opened = Database::builder()
        .set_check_integrity_on_open(true)
        .create(path);
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => LogError::InUse {
            path: path.to_owned(),
        },
        DatabaseError::UpgradeRequired(version) => LogError::Damaged {
            path: path.to_owned(),
            what: format!("it is a database of version {version}, which was never written here"),
        },
        other => storage(path, other.into()),
    })
}

/// Tells damage from a failing storage.
fn storage(path: &Path, source: redb::Error) -> LogError {
    let damaged = |what: String| LogError::Damaged {
        path: path.to_owned(),
        what,
    };
    match source {
        redb::Error::Corrupted(what) => damaged(what),
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            damaged(format!("it is no such file: {error}"))
        }
        redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. } => damaged(source.to_string()),
        source => LogError::Storage {
            path: path.to_owned(),
            source: Box::new(source),
        },
    }
}
