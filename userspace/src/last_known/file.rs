//! The bytes of a kept state.
//!
//! ```text
//! "sunwire state 1\n" | BLAKE3-256 of the rest | generation, u32 | length of the name, u32 | name of the
//! node | Snapshot of the agent protocol
//! ```
//!
//! Numbers are little-endian. The state is in the protocol's own form, so that an agent reads what an older or
//! newer one kept just as it reads what an older or newer controller sends.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use prost::Message as _;
use sunwire_api::agent as wire;

use super::Recalled;

/// What every version of the file begins with, the number and a line feed behind it.
const MAGIC: &[u8] = b"sunwire state ";
/// This version's number, and the end of the line.
const VERSION: &[u8] = b"1\n";
/// Bytes of the digest.
const DIGEST_BYTES: usize = 32;
/// Longest file: many times what the kernel's tables hold at their default sizes.
const BYTES_MAX: u64 = 256 << 20;

/// A kept state cannot be used, or a state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
    /// It is longer than anything that is kept.
    #[error("it has {bytes} bytes, and at most {BYTES_MAX} are kept")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// Others could have written it.
    #[error("others than its owner may write it (mode {mode:o})")]
    Exposed {
        /// Permission bits.
        mode: u32,
    },
    /// It is something else.
    #[error("it is no state of an agent")]
    Foreign,
    /// Another version of the agent kept it.
    #[error("it is of another version of the agent")]
    Version,
    /// It is not as it was written.
    #[error("it is damaged or cut short")]
    Torn,
    /// It is another node's.
    #[error("it is of node {node}")]
    OtherNode {
        /// Whose it is.
        node: String,
    },
    /// What is in it makes no sense.
    #[error("what is in it makes no sense")]
    Content(#[source] prost::DecodeError),
    /// Something else was put in force later.
    #[error("something was put in force that was not kept in time")]
    Older,
}

/// A file's content; `snapshot` is an encoded one.
pub(super) fn encode(node: &str, generation: u32, snapshot: &[u8]) -> Result<Vec<u8>, FileError> {
    let mut rest = Vec::with_capacity(8 + node.len() + snapshot.len());
    rest.extend(generation.to_le_bytes());
    // Names have at most 63 bytes.
    rest.extend((node.len() as u32).to_le_bytes());
    rest.extend(node.as_bytes());
    rest.extend(snapshot);
    let digest = *blake3::hash(&rest).as_bytes();
    let bytes = [MAGIC, VERSION, &digest, &rest].concat();
    match bytes.len() as u64 {
        ..=BYTES_MAX => Ok(bytes),
        bytes => Err(FileError::TooLarge { bytes }),
    }
}

/// Writes a file that only its owner may read, durably.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Reads what was kept for `node`.
pub(super) fn read(path: &Path, node: &str) -> Result<Recalled, FileError> {
    let file = fs::File::open(path).map_err(FileError::Read)?;
    let about = file.metadata().map_err(FileError::Read)?;
    let mode = about.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(FileError::Exposed { mode });
    }
    if about.len() > BYTES_MAX {
        return Err(FileError::TooLarge { bytes: about.len() });
    }
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX).read_to_end(&mut bytes);
    read.map_err(FileError::Read)?;
    decode(&bytes, node)
}

fn decode(bytes: &[u8], node: &str) -> Result<Recalled, FileError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(FileError::Foreign)?;
    let rest = rest.strip_prefix(VERSION).ok_or(FileError::Version)?;
    let (digest, rest) = rest.split_at_checked(DIGEST_BYTES).ok_or(FileError::Torn)?;
    if blake3::hash(rest).as_bytes() != digest {
        return Err(FileError::Torn);
    }
    let (generation, rest) = number(rest)?;
    let (length, rest) = number(rest)?;
    let (name, snapshot) = rest
        .split_at_checked(length as usize)
        .ok_or(FileError::Torn)?;
    if name != node.as_bytes() {
        let node = String::from_utf8_lossy(name).into_owned();
        return Err(FileError::OtherNode { node });
    }
    Ok(Recalled {
        snapshot: wire::Snapshot::decode(snapshot).map_err(FileError::Content)?,
        generation,
    })
}

fn number(bytes: &[u8]) -> Result<(u32, &[u8]), FileError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(FileError::Torn)?;
    Ok((u32::from_le_bytes(*number), rest))
}
