//! What can go wrong while a lab is brought up, used or taken down.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::link::LinkError;
use crate::topology::TopologyError;

/// A lab's failure.
#[derive(Debug, Error)]
pub enum LabError {
    /// Namespaces, mounts and packet sockets need root.
    #[error("a lab needs root: it makes network namespaces, mounts and packet sockets")]
    NotRoot,
    /// The topology is not one that can be built.
    #[error("the topology is refused")]
    Topology(#[from] TopologyError),
    /// A live process owns a lab of this id.
    #[error("lab `{id}` is already up, owned by process {pid}: choose another id or take it down")]
    AlreadyUp {
        /// Id of the lab.
        id: String,
        /// Process that owns it.
        pid: u32,
    },
    /// No live lab has this id.
    #[error("no lab `{0}` is up: `sunwire lab list` shows those that are")]
    NoSuchLab(String),
    /// There was a lab of this id, and nobody took it down.
    #[error("the owner of lab `{0}` was killed: `sunwire lab sweep` removes what it left")]
    OwnerKilled(String),
    /// A namespace of that name belongs to someone else.
    #[error("network namespace `{0}` exists already and is not this lab's")]
    NamespaceExists(String),
    /// The lab has no node or workload of that name.
    #[error("lab `{lab}` has no {kind} `{name}`")]
    NoSuchName {
        /// Id of the lab.
        lab: String,
        /// What was looked for: `node` or `workload`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A workload's host-side device is not where the caller said.
    #[error("the host-side device of workload `{workload}` is on node `{actual}`, not `{claimed}`")]
    NotThere {
        /// The workload.
        workload: String,
        /// Where the caller said it was.
        claimed: String,
        /// Where it is.
        actual: String,
    },
    /// A name is taken or malformed.
    #[error("{0}")]
    Name(String),
    /// A link's new value is refused.
    #[error("the link is unchanged")]
    Link(#[from] LinkError),
    /// The emulator's thread is gone.
    #[error("the link emulator has stopped")]
    EmulatorStopped,
    /// A device request to the kernel failed.
    #[error("the kernel refused to {action}")]
    Netlink {
        /// What was asked, in words.
        action: String,
        /// The kernel's answer.
        #[source]
        source: rtnetlink::Error,
    },
    /// A system call or file failed.
    #[error("could not {action}")]
    Io {
        /// What was tried, in words.
        action: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A lab's record on disk is not one of this version.
    #[error("{path} is not a lab's record")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        #[source]
        source: serde_json::Error,
    },
    /// The lab's owner answered with an error.
    #[error("lab `{id}` refused: {reason}")]
    Refused {
        /// Id of the lab.
        id: String,
        /// The owner's sentence.
        reason: String,
    },
    /// An assertion about reachability did not hold.
    #[error("{from} {expected} {to}, but {found}")]
    Reachability {
        /// Namespace that pinged.
        from: String,
        /// `should reach` or `should not reach`.
        expected: &'static str,
        /// Address pinged.
        to: IpAddr,
        /// What happened instead.
        found: String,
    },
    /// A condition did not become true in time.
    #[error("{what} did not happen within {seconds} s{last}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long, seconds.
        seconds: f64,
        /// What was seen last, with a leading separator, or nothing.
        last: String,
    },
}

/// Adds what was being done to an I/O error.
pub(crate) trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, LabError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, LabError> {
        self.map_err(|source| LabError::Io {
            action: action(),
            source: source.into(),
        })
    }
}
