//! Records of labs on disk: who owns which namespaces and mounts, so that a
//! crash leaves nothing that the next start cannot remove.
//!
//! ```text
//! /run/sunwire/lab/.lock            held while a lab is claimed, swept or removed
//! /run/sunwire/lab/ID/lab.json      this record, written before anything is made
//! /run/sunwire/lab/ID/control.sock  the owner's socket
//! /run/sunwire/lab/ID/bpf/NODE/     one bpffs for the lab, a directory per node
//! /run/sunwire/lab/ID/node/NODE/    state of each node's processes
//! /run/sunwire/lab/ID/log/          their output
//! ```
//! A process is identified by its id and its start time, as ids are reused.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, LabError};
use crate::netns;

/// Where labs keep their records.
pub const STATE_DIR: &str = "/run/sunwire/lab";

/// A lab as recorded by its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabRecord {
    /// The lab's id.
    pub id: String,
    /// Process that owns it.
    pub owner: Owner,
    /// Names under `/run/netns` that are the lab's own.
    pub namespaces: Vec<String>,
    /// Mounts that are the lab's own.
    pub mounts: Vec<PathBuf>,
    /// Its nodes, the controller's included.
    pub nodes: Vec<NodeRecord>,
    /// Its workloads.
    pub workloads: Vec<WorkloadRecord>,
}

/// A process, beyond doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

/// A node as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Name.
    pub name: String,
    /// Region.
    pub region: String,
    /// Name of its namespace.
    pub namespace: String,
    /// Underlay address.
    pub address: Ipv4Addr,
}

/// A workload as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadRecord {
    /// Name.
    pub name: String,
    /// Name of its namespace.
    pub namespace: String,
    /// Node that has its host-side device.
    pub node: String,
    /// Virtual network.
    pub network: String,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Result<Self, LabError> {
        let pid = std::process::id();
        let (_, start_ticks) =
            state_and_start(pid).ok_or_else(|| LabError::Name("cannot read /proc".to_owned()))?;
        Ok(Self { pid, start_ticks })
    }

    /// The very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // A zombie has run to its end.
        state_and_start(self.pid)
            .is_some_and(|(state, start)| start == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }
}

/// State letter and start time of a process.
fn state_and_start(pid: u32) -> Option<(char, u64)> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(stat: &str) -> Option<(char, u64)> {
    // The second field is the program's name in parentheses and may hold
    // spaces and parentheses itself; the third is the state.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

impl LabRecord {
    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        dir_of(&self.id)
    }

    /// The directory of the state of a node's processes.
    #[must_use]
    pub fn state_dir_of(&self, node: &str) -> PathBuf {
        self.dir().join("node").join(node)
    }

    /// Name of the namespace of a node or workload.
    #[must_use]
    pub fn namespace_of(&self, name: &str) -> Option<&str> {
        let nodes = self.nodes.iter().map(|n| (&n.name, &n.namespace));
        let workloads = self.workloads.iter().map(|w| (&w.name, &w.namespace));
        let mut all = nodes.chain(workloads);
        all.find(|(other, _)| *other == name)
            .map(|(_, namespace)| namespace.as_str())
    }

    /// Writes the record in one step: readers see the old one or the new one.
    pub(crate) fn write(&self) -> Result<(), LabError> {
        let path = self.dir().join("lab.json");
        let temporary = self.dir().join("lab.json.new");
        let text = serde_json::to_vec_pretty(self).expect("a record of strings and numbers");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .doing(|| format!("write {}", path.display()))
    }

    /// Removes everything the record names. The owner must be dead or the
    /// caller. Goes on after failures and returns the first.
    pub(crate) fn remove_all(&self) -> Result<(), LabError> {
        let mut result = Ok(());
        let mut note = |step: Result<(), LabError>| {
            if result.is_ok() {
                result = step;
            }
        };
        for name in &self.namespaces {
            end_processes_in(name);
            note(netns::remove(name).doing(|| format!("remove network namespace {name}")));
        }
        for mount in &self.mounts {
            note(unmount(mount).doing(|| format!("unmount {}", mount.display())));
        }
        // Never walk into a mount that could not be taken away.
        if result.is_ok() {
            let dir = self.dir();
            result = fs::remove_dir_all(&dir).doing(|| format!("remove {}", dir.display()));
        }
        result
    }
}

/// A lab's directory.
pub(crate) fn dir_of(id: &str) -> PathBuf {
    Path::new(STATE_DIR).join(id)
}

fn unmount(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // Not mounted (any more), or never made.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Ends the processes whose network namespace is this one. They are in the lab
/// by this alone, whoever started them; its owner is never one of them.
fn end_processes_in(name: &str) {
    use std::os::unix::fs::MetadataExt;
    let Ok(namespace) = fs::metadata(netns::path_of(name)) else {
        return;
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let pid = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid: &i32| *pid as u32 != std::process::id()) else {
            continue;
        };
        let theirs = fs::metadata(process.path().join("ns/net"));
        if theirs
            .is_ok_and(|theirs| theirs.ino() == namespace.ino() && theirs.dev() == namespace.dev())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The lock under which labs are claimed and removed.
pub(crate) fn lock() -> Result<Flock<File>, LabError> {
    fs::create_dir_all(STATE_DIR).doing(|| format!("create {STATE_DIR}"))?;
    let path = Path::new(STATE_DIR).join(".lock");
    let file = File::create(&path).doing(|| format!("open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .doing(|| format!("lock {}", path.display()))
}

/// Reads a lab's record; `None` when there is none.
pub(crate) fn read(id: &str) -> Result<Option<LabRecord>, LabError> {
    let path = dir_of(id).join("lab.json");
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("read {}", path.display())),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| LabError::Record { path, source }),
    }
}

/// All readable records, live or not, by id.
pub(crate) fn all() -> Result<Vec<LabRecord>, LabError> {
    let entries = match fs::read_dir(STATE_DIR) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.doing(|| format!("read {STATE_DIR}"))?,
    };
    let mut ids: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    ids.sort();
    let mut records = Vec::new();
    for id in ids {
        match read(&id) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => {}
            // One unreadable record must not hide the others.
            Err(error) => tracing::warn!(%error, "skipped a lab's record"),
        }
    }
    Ok(records)
}

/// Removes what labs of dead owners left; returns their ids. Only what their
/// records name is touched.
///
/// # Errors
/// The first removal that failed; the others are made nevertheless.
pub fn sweep() -> Result<Vec<String>, LabError> {
    let _lock = lock()?;
    sweep_locked()
}

fn sweep_locked() -> Result<Vec<String>, LabError> {
    let mut swept = Vec::new();
    let mut result = Ok(());
    for record in all()? {
        if record.owner.is_alive() {
            continue;
        }
        let removed = record.remove_all();
        if result.is_ok() {
            result = removed;
        }
        swept.push(record.id);
    }
    result.map(|()| swept)
}

/// Sweeps, then makes `record` the one of its id.
///
/// # Errors
/// [`LabError::AlreadyUp`], [`LabError::NamespaceExists`].
pub(crate) fn claim(record: &LabRecord) -> Result<(), LabError> {
    let _lock = lock()?;
    if let Err(error) = sweep_locked() {
        tracing::warn!(%error, "could not remove all of a dead lab");
    }
    if let Some(other) = read(&record.id)? {
        return Err(LabError::AlreadyUp {
            id: other.id,
            pid: other.owner.pid,
        });
    }
    for name in &record.namespaces {
        if netns::path_of(name).exists() {
            return Err(LabError::NamespaceExists(name.clone()));
        }
    }
    // Without a record, under the lock, the directory is what a crash left
    // between making it and writing the record.
    let dir = record.dir();
    if dir.exists() {
        fs::remove_dir(&dir).doing(|| format!("remove {}", dir.display()))?;
    }
    fs::create_dir(&dir).doing(|| format!("create {}", dir.display()))?;
    record.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_name_with_parentheses_does_not_confuse_the_start_time() {
        let stat = "77 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(parse_stat(stat), Some(('S', 4242)));
    }

    #[test]
    fn this_process_is_alive_and_one_with_another_start_is_not() {
        let this = Owner::this().unwrap();
        assert!(this.is_alive());
        let other = Owner {
            start_ticks: this.start_ticks + 1,
            ..this
        };
        assert!(!other.is_alive());
    }
}
