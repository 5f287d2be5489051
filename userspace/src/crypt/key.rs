//! This node's private keys: made here, kept in its state directory, never sent anywhere.
//!
//! A node has one key, and two while it rotates: the newer one is announced beside the older one,
//! tunnels come up with it, and then the older one is given up.

use std::{
    fmt, fs, io,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use boringtun::x25519;
use serde::{Deserialize, Serialize};
use sunwire_api::PublicKey;

use super::slot;

/// Name of the file in the agent's state directory.
const FILE: &str = "keys.json";

/// A Curve25519 private key. Shown nowhere: its debug form is its public key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PrivateKey([u8; 32]);

/// A private key with the time it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnKey {
    /// The key.
    pub private: PrivateKey,
    /// Seconds of Unix time.
    pub made_at: u64,
}

/// The keys of this node, the oldest first: one, or two while the newer one takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<OwnKey>", into = "Vec<OwnKey>")]
pub struct KeyRing {
    older: Option<OwnKey>,
    newest: OwnKey,
}

/// Keys could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("cannot {verb} the node's private keys in {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error(
        "{} is open to others (mode {mode:o}): the keys in it may be known; remove it, and the node \
         makes new ones",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file has another content.
    #[error("{} holds no keys; remove it, and the node makes new ones", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl PrivateKey {
    /// A new key.
    #[must_use]
    pub fn generate() -> Self {
        PrivateKey(x25519::StaticSecret::random().to_bytes())
    }

    /// A new key of a slot.
    #[must_use]
    pub fn generate_in(slot: u8) -> Self {
        // Each second one is.
        loop {
            let key = PrivateKey::generate();
            if slot::of(&key.public()) == slot {
                return key;
            }
        }
    }

    /// The key that others know.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    /// The key as the kernel takes it.
    pub(super) fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    /// The key as the WireGuard library takes it.
    pub(super) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private key of {}", self.public())
    }
}

impl OwnKey {
    fn generate_in(slot: u8) -> Self {
        OwnKey {
            private: PrivateKey::generate_in(slot),
            made_at: now(),
        }
    }
}

impl KeyRing {
    /// A ring of one new key.
    #[must_use]
    pub fn generate() -> Self {
        KeyRing {
            older: None,
            newest: OwnKey::generate_in(0),
        }
    }

    /// The keys kept in `directory`; a new one when there are none.
    ///
    /// # Errors
    /// When the file cannot be used. A key is never replaced by itself: nodes that know it would
    /// not be told.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let path = directory.join(FILE);
        let failed = |verb| {
            let path = path.clone();
            move |source| KeyError::File { path, verb, source }
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let ring = KeyRing::generate();
                ring.store(directory)?;
                return Ok(ring);
            }
            Err(error) => return Err(failed("read")(error)),
        };
        let mode = fs::metadata(&path)
            .map_err(failed("read"))?
            .permissions()
            .mode()
            & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path, mode });
        }
        serde_json::from_slice(&text).map_err(|source| KeyError::Content { path, source })
    }

    /// Keeps the keys in `directory`, readable by nobody else. Whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written; the one before is still there then.
    pub fn store(&self, directory: &Path) -> Result<(), KeyError> {
        let path = directory.join(FILE);
        let written = || {
            let new = directory.join(format!("{FILE}.new"));
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            // The name is durable with its directory.
            fs::File::open(directory)?.sync_all()
        };
        written().map_err(|source| KeyError::File {
            path: path.clone(),
            verb: "write",
            source,
        })
    }

    /// The keys, the oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &OwnKey> {
        self.older.iter().chain([&self.newest])
    }

    /// Their public halves, the oldest first.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.keys().map(|key| key.private.public()).collect()
    }

    /// The newest key.
    #[must_use]
    pub fn newest(&self) -> &OwnKey {
        &self.newest
    }

    /// Whether a newer key is taking over.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.older.is_some()
    }

    /// Adds a newer key. While one is taking over already, nothing changes.
    #[must_use]
    pub fn with_newer(&self) -> Self {
        if self.is_rotating() {
            return self.clone();
        }
        KeyRing {
            older: Some(self.newest.clone()),
            // Both are in use for a while, side by side.
            newest: OwnKey::generate_in(1 - slot::of(&self.newest.private.public())),
        }
    }

    /// Gives the older key up.
    #[must_use]
    pub fn without_older(&self) -> Self {
        KeyRing {
            older: None,
            newest: self.newest.clone(),
        }
    }
}

impl TryFrom<Vec<OwnKey>> for KeyRing {
    type Error = String;

    fn try_from(keys: Vec<OwnKey>) -> Result<Self, String> {
        let count = keys.len();
        let mut keys = keys.into_iter();
        match (keys.next(), keys.next(), keys.next()) {
            (Some(newest), None, None) => Ok(KeyRing {
                older: None,
                newest,
            }),
            (Some(older), Some(newest), None) => Ok(KeyRing {
                older: Some(older),
                newest,
            }),
            _ => Err(format!("{count} keys where one or two are expected")),
        }
    }
}

impl From<KeyRing> for Vec<OwnKey> {
    fn from(ring: KeyRing) -> Self {
        ring.older.into_iter().chain([ring.newest]).collect()
    }
}

/// Seconds of Unix time; a clock before 1970 is 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of one test's own, removed at its end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sunwire-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn keys_are_made_once_and_readable_by_the_owner_alone() {
        let directory = Directory::new("keys-once");
        let ring = KeyRing::open(&directory.0).unwrap();
        assert_eq!(KeyRing::open(&directory.0).unwrap(), ring);
        let mode = fs::metadata(directory.0.join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = Directory::new("keys-exposed");
        KeyRing::open(&directory.0).unwrap();
        let path = directory.0.join(FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = KeyRing::open(&directory.0).unwrap_err();
        assert!(
            matches!(error, KeyError::Exposed { mode: 0o640, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let directory = Directory::new("keys-damaged");
        let path = directory.0.join(FILE);
        for content in ["", "[]", "[1]", "{\"a\":1}"] {
            KeyRing::generate().store(&directory.0).unwrap();
            fs::write(&path, content).unwrap();
            let error = KeyRing::open(&directory.0).unwrap_err();
            assert!(matches!(error, KeyError::Content { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_rotation_keeps_both_keys_and_then_the_newer_one() {
        let directory = Directory::new("keys-rotation");
        let first = KeyRing::open(&directory.0).unwrap();
        let both = first.with_newer();
        both.store(&directory.0).unwrap();
        let read = KeyRing::open(&directory.0).unwrap();
        assert_eq!(read, both);
        assert_eq!(read.public()[0], first.public()[0]);
        assert_ne!(read.public()[1], first.public()[0]);
        assert_eq!(read.with_newer(), read, "one rotation at a time");
        let after = read.without_older();
        assert_eq!(after.public(), [read.public()[1]]);
        assert!(!after.is_rotating());
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let key = PrivateKey::generate();
        let secret = sunwire_api::PublicKey(key.0).to_string();
        assert!(!format!("{key:?}").contains(&secret));
        assert!(format!("{key:?}").contains(&key.public().to_string()));
    }
}
