//! The state that is in force, on disk: what an agent goes by that starts while the controller is away.
//!
//! ```text
//! controller --Snapshot, Delta--> [items] --once in force--> [file] last-known
//!                                                               |
//! agent that starts <--------- until the first snapshot --------'
//! ```
//!
//! - [`items`]: the controller's messages made one state, item by item, as they came.
//! - [`file`]: its bytes, and what is refused of them.
//!
//! The file is either what is in force, or not there. So going by it removes nothing that a later state
//! put in force: before a change is made of which the file does not know, it is set aside, and it comes back
//! when the change is in force and written. The generation that the kernel had says the same once more, of
//! agents that know nothing of this file. There is no private key in it; see [`crate::crypt::key`].

mod file;
mod items;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sunwire_api::agent as wire;

pub use file::FileError;
use items::Items;

/// Name of the file in the state directory.
const FILE: &str = "last-known";
/// Its name while something else may be in force.
const ASIDE: &str = "last-known.aside";
/// Its name while it is written.
const NEW: &str = "last-known.new";

/// A message of the controller that was understood.
#[derive(Debug)]
pub struct News(Message);

#[derive(Debug)]
enum Message {
    Whole(Items),
    Part(Box<wire::Delta>),
}

impl News {
    /// Everything there is.
    #[must_use]
    pub fn whole(snapshot: &wire::Snapshot) -> Self {
        News(Message::Whole(Items::new(snapshot)))
    }

    /// What changes.
    #[must_use]
    pub fn part(delta: &wire::Delta) -> Self {
        News(Message::Part(Box::new(delta.clone())))
    }
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Recalled {
    /// The state.
    pub snapshot: wire::Snapshot,
    /// The kernel's generation with it.
    pub generation: u32,
}

/// Keeps the state that is in force.
#[derive(Debug)]
pub struct LastKnown {
    directory: PathBuf,
    node: String,
    inner: Mutex<Inner>,
    /// Held by the one who writes.
    writing: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    items: Items,
    generation: u32,
    /// Counts what changed of the two.
    changes: u64,
    /// `items` are in force.
    in_force: bool,
    /// What `changes` was of the file that is there, if one is.
    on_disk: Option<u64>,
}

impl LastKnown {
    /// What is kept in a state directory for a node.
    #[must_use]
    pub fn new(directory: &Path, node: &str) -> Self {
        LastKnown {
            directory: directory.to_owned(),
            node: node.to_owned(),
            inner: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Reads what an earlier agent kept; `None` when it kept nothing.
    ///
    /// # Errors
    /// When the file is not one that may be gone by. It stays where it is until another state is in
    /// force.
    pub fn read(&self) -> Result<Option<Recalled>, FileError> {
        let mut inner = self.inner();
        match file::read(&self.directory.join(FILE), &self.node) {
            Ok(recalled) => {
                inner.items = Items::new(&recalled.snapshot);
                inner.generation = recalled.generation;
                inner.on_disk = Some(inner.changes);
                Ok(Some(recalled))
            }
            Err(FileError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
                match self.directory.join(ASIDE).exists() {
                    true => Err(FileError::Older),
                    false => Ok(None),
                }
            }
            Err(error) => {
                inner.on_disk = Some(inner.changes);
                Err(error)
            }
        }
    }

    /// Takes in what is about to be put in force; from now on there is no file.
    pub fn note(&self, news: News) {
        let mut inner = self.inner();
        if inner.on_disk.take().is_some() {
            self.set_aside();
        }
        match news.0 {
            Message::Whole(items) => inner.items = items,
            Message::Part(delta) => inner.items.apply(&delta),
        }
        inner.changes += 1;
        inner.in_force = false;
    }

    /// What was taken in is in force, with this generation of the kernel's.
    pub fn in_force(&self, generation: u32) {
        let mut inner = self.inner();
        inner.in_force = true;
        if inner.generation != generation {
            inner.generation = generation;
            inner.changes += 1;
        }
    }

    /// The kernel's generation is this one now, with the same state.
    pub fn flipped(&self, generation: u32) {
        let mut inner = self.inner();
        if inner.in_force && inner.generation != generation {
            inner.generation = generation;
            inner.changes += 1;
        }
    }

    /// Whether what is in force is not on disk.
    #[must_use]
    pub fn is_due(&self) -> bool {
        let inner = self.inner();
        inner.in_force && inner.on_disk != Some(inner.changes)
    }

    /// Writes what is in force, whole or not at all; nothing when it is there already. Waits for the
    /// disk.
    ///
    /// # Errors
    /// When it cannot be written, or is too large; then there is no file.
    pub fn write(&self) -> Result<(), FileError> {
        let _one_at_a_time = locked(&self.writing);
        let (bytes, changes) = {
            let inner = self.inner();
            if !inner.in_force || inner.on_disk == Some(inner.changes) {
                return Ok(());
            }
            let bytes = file::encode(&self.node, inner.generation, &inner.items.encode());
            (bytes?, inner.changes)
        };
        let new = self.directory.join(NEW);
        file::write(&new, &bytes).map_err(FileError::Write)?;
        let mut inner = self.inner();
        if inner.changes != changes || !inner.in_force {
            // Something else is about to be in force, and is written later.
            return Ok(());
        }
        let placed = fs::rename(&new, self.directory.join(FILE)).and_then(|()| self.sync());
        placed.map_err(FileError::Write)?;
        inner.on_disk = Some(changes);
        // Of no use to anybody; only a file that is there says that something is missing.
        let _ = fs::remove_file(self.directory.join(ASIDE));
        Ok(())
    }

    /// Takes the file out of the way.
    fn set_aside(&self) {
        let file = self.directory.join(FILE);
        let moved = fs::rename(&file, self.directory.join(ASIDE))
            .or_else(|_| fs::remove_file(&file))
            .and_then(|()| self.sync());
        match moved {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::error!(
                file = %file.display(), %error,
                "an outdated state stays on disk: remove it, lest an agent go by it that starts while \
                 the controller is away"
            ),
            _ => {}
        }
    }

    /// Makes names durable.
    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        locked(&self.inner)
    }
}

/// Nothing that a lock protects here is half-changed by what may panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
