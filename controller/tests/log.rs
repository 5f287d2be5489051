//! The log: durable, and clear about files that it cannot use.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use sunwire_controller::command::{Command, Entry, Outcome, Proposal};
use sunwire_controller::log::{Log, LogError, RedbLog, ReplayError, replay};
use sunwire_controller::state::State;
use sunwire_controller::{Config, Controller, OpenError};

const FILE: &str = "controller.redb";
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");

/// The table of entries, open for writing.
type Entries<'a> = redb::Table<'a, u64, &'static [u8]>;

fn entry(revision: u64) -> Entry {
    Entry {
        revision,
        proposal: Proposal::internal(Command::RegisterNode {
            public_keys: Vec::new(),
            tunnel_port: 51820,
            name: format!("node{revision}").parse().unwrap(),
            location: "aws:us-east-1".parse().unwrap(),
            underlay_address: Some([198, 18, 1, revision as u8].into()),
            underlay_address_v6: None,
        }),
        outcome: Some(Outcome::default()),
    }
}

fn log_of(directory: &Path, entries: u64) {
    let mut log = RedbLog::open(directory).unwrap();
    let entries: Vec<Entry> = (1..=entries).map(entry).collect();
    log.append(&entries).unwrap();
}

fn open_error(directory: &Path) -> OpenError {
    let config = Config {
        rest: vec![],
        grpc: vec![],
        data_dir: directory.to_owned(),
    };
    match Controller::open(&config) {
        Ok(_) => panic!("the log cannot be used"),
        Err(error) => error,
    }
}

#[test]
fn entries_survive_reopening_and_are_read_from_any_revision() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 5);
    let log = RedbLog::open(directory.path()).unwrap();
    assert_eq!(
        log.read_after(0).unwrap(),
        (1..=5).map(entry).collect::<Vec<_>>()
    );
    assert_eq!(log.read_after(3).unwrap(), [entry(4), entry(5)]);
    assert_eq!(log.read_after(5).unwrap(), []);
    assert_eq!(replay(&log).unwrap().revision(), 5);
}

#[test]
fn a_log_has_one_user_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let _log = RedbLog::open(directory.path()).unwrap();
    let error = open_error(directory.path());
    assert!(
        matches!(error, OpenError::Log(LogError::InUse { .. })),
        "{error}"
    );
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 1);
    {
        let database = Database::create(directory.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let newer = 3u32.to_le_bytes();
        let mut meta = transaction.open_table(META).unwrap();
        meta.insert("format", newer.as_slice()).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    }
    let error = open_error(directory.path()).to_string();
    assert!(
        error.contains("format 3") && error.contains("newer"),
        "{error}"
    );
}

#[test]
fn a_damaged_or_missing_entry_is_named() {
    let change = |change: &dyn Fn(&mut Entries<'_>)| {
        let directory = tempfile::tempdir().unwrap();
        log_of(directory.path(), 3);
        {
            let database = Database::create(directory.path().join(FILE)).unwrap();
            let transaction = database.begin_write().unwrap();
            change(&mut transaction.open_table(ENTRIES).unwrap());
            transaction.commit().unwrap();
        }
        let error = open_error(directory.path());
        assert!(
            matches!(
                error,
                OpenError::Replay(ReplayError::Log(LogError::Damaged { .. }))
            ),
            "{error}"
        );
        error.to_string()
    };
    let flipped = change(&|table| {
        let mut record = table.get(2).unwrap().unwrap().value().to_vec();
        let last = record.len() - 2;
        record[last] ^= 1;
        table.insert(2, record.as_slice()).unwrap();
    });
    assert!(flipped.contains("entry 2"), "{flipped}");
    let cut = change(&|table| {
        table.insert(3, b"cut".as_slice()).unwrap();
    });
    assert!(cut.contains("entry 3"), "{cut}");
    let missing = change(&|table| {
        table.remove(2).unwrap();
    });
    assert!(missing.contains("entry 2"), "{missing}");
}

#[test]
fn what_is_no_log_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let garbage: Vec<u8> = (0..8192u32).map(|index| (index * 7) as u8).collect();
    fs::write(&path, &garbage).unwrap();
    let error = open_error(directory.path());
    assert!(
        matches!(error, OpenError::Log(LogError::Damaged { .. })),
        "{error:?}"
    );
    assert_eq!(fs::read(&path).unwrap(), garbage);

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("occupied"), b"").unwrap();
    let error = open_error(&directory.path().join("occupied"));
    assert!(
        matches!(error, OpenError::Log(LogError::Directory { .. })),
        "{error:?}"
    );
}

#[test]
fn a_flipped_byte_anywhere_is_an_error_or_harmless_but_never_another_state() {
    let directory = tempfile::tempdir().unwrap();
    log_of(directory.path(), 20);
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    let expected: State = replay(&RedbLog::open(directory.path()).unwrap()).unwrap();
    let mut errors = 0;
    // Every 251st byte of the first pages, where everything is that was written.
    for at in (0..whole.len().min(64 << 10)).step_by(251) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        let outcome = RedbLog::open(directory.path())
            .map_err(ReplayError::from)
            .and_then(|log| replay(&log));
        match outcome {
            Ok(state) => assert_eq!(state, expected, "byte {at}"),
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 0);
}
