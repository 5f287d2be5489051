//! Network namespaces with a name under `/run/netns`, and running things inside.
//!
//! A namespace is entered by `setns` on a thread made for it; mount namespaces
//! are left alone, so a bpffs mounted for the lab is visible everywhere.
//! Child processes are forked by one long-lived thread, because the kernel's
//! parent-death signal fires when the forking *thread* ends, and die with it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, LabError};
use crate::sys;

/// Where named namespaces live; the directory that `ip netns` uses.
pub const NETNS_DIR: &str = "/run/netns";

/// A handle on a network namespace. Clones share it; dropping a handle does not
/// remove the namespace, [`Lab`](crate::Lab) does.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// Makes a namespace with loopback up, IPv6 without duplicate address
    /// detection and no reverse-path filter.
    pub(crate) fn create(name: &str) -> Result<Self, LabError> {
        let _lock = share_directory()?;
        let path = path_of(name);
        let created = OpenOptions::new().write(true).create_new(true).open(&path);
        match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LabError::NamespaceExists(name.to_owned()));
            }
            other => drop(other.doing(|| format!("create {}", path.display()))?),
        }
        let made = on_thread("sunwire-netns", || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let this = Path::new("/proc/thread-self/ns/net");
            mount(
                Some(this),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        });
        if let Err(error) = made.and_then(|result| result) {
            let _ = fs::remove_file(&path);
            return Err(error).doing(|| format!("make network namespace {name}"));
        }
        let namespace = Self::open(name)?;
        namespace.enter_and(prepare)?;
        Ok(namespace)
    }

    /// Opens an existing namespace by its name under [`NETNS_DIR`].
    ///
    /// # Errors
    /// [`LabError::Io`] when there is none.
    pub fn open(name: &str) -> Result<Self, LabError> {
        let file = File::open(path_of(name)).doing(|| format!("open network namespace {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            file: Arc::new(file),
        })
    }

    /// Name under `/run/netns`, as `ip netns exec` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the bind mount.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Inode of the namespace: equal for the same namespace only.
    ///
    /// # Errors
    /// The failing `stat`.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` on a new thread inside the namespace and waits for it.
    /// Sockets that it opens stay in the namespace wherever they go. A panic in
    /// `work` is passed on.
    ///
    /// # Errors
    /// The thread could not be made or could not enter the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        on_thread("sunwire-in-netns", || {
            self.enter()?;
            Ok(work())
        })
        .and_then(|result| result)
        .doing(|| format!("enter network namespace {}", self.name))
    }

    /// As [`run`](Self::run), for work that reports its own [`LabError`].
    pub(crate) fn enter_and<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, LabError> + Send,
    ) -> Result<T, LabError> {
        self.run(work)?
    }

    /// Starts a thread inside the namespace that outlives the call.
    ///
    /// # Errors
    /// The thread could not be made. One that cannot enter the namespace
    /// (which cannot be while the handle is open) panics.
    pub fn start_thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let namespace = self.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            namespace
                .enter()
                .expect("an open namespace can be entered by a process that made it");
            work()
        })
    }

    /// Starts a process inside the namespace. It is killed when this process
    /// ends, however that comes about. Its standard streams are as `command`
    /// says.
    ///
    /// # Errors
    /// The program could not be started.
    pub fn spawn(&self, command: Command) -> Result<Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        spawn_on_forker(command, Arc::clone(&self.file))
            .doing(|| format!("start {program} in network namespace {}", self.name))
    }

    /// Runs a process inside the namespace to its end, without input, and
    /// returns what it wrote and its exit status.
    ///
    /// # Errors
    /// The program could not be started or waited for. A program that fails is
    /// no error here: look at the status.
    pub fn exec(&self, mut command: Command) -> Result<Output, LabError> {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.spawn(command)?;
        child
            .wait_with_output()
            .doing(|| format!("wait for a process in network namespace {}", self.name))
    }

    fn enter(&self) -> io::Result<()> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }
}

/// Removes a named namespace; one that is not there is no error. The kernel
/// keeps it alive until the last socket and process inside are gone.
pub(crate) fn remove(name: &str) -> io::Result<()> {
    let path = path_of(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: the file is there but nothing is mounted on it.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The path of a namespace's bind mount.
pub(crate) fn path_of(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

/// Makes [`NETNS_DIR`] a shared mount point as `ip netns add` does, so that a
/// later removal reaches every mount namespace. Holds the directory's lock.
fn share_directory() -> Result<Flock<File>, LabError> {
    fs::create_dir_all(NETNS_DIR).doing(|| format!("create {NETNS_DIR}"))?;
    let directory = File::open(NETNS_DIR).doing(|| format!("open {NETNS_DIR}"))?;
    let lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .doing(|| format!("lock {NETNS_DIR}"))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, NETNS_DIR, None::<&str>, flags, None::<&str>)
    };
    if share().is_err() {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(
            Some(NETNS_DIR),
            NETNS_DIR,
            None::<&str>,
            flags,
            None::<&str>,
        )
        .and_then(|()| share())
        .doing(|| format!("make {NETNS_DIR} a shared mount"))?;
    }
    Ok(lock)
}

/// Settings of a fresh namespace, made from inside.
fn prepare() -> Result<(), LabError> {
    crate::netlink::Netlink::open()?.set_up("lo")?;
    for (key, value) in [
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // Addresses must be usable at once, not after a second of detection.
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/all/accept_ra", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        // Bridges in a node must not hand frames to netfilter.
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ] {
        sysctl(key, value)?;
    }
    Ok(())
}

/// Sets a sysctl of the calling thread's namespace; one that this kernel does
/// not have is left out.
pub(crate) fn sysctl(key: &str, value: &str) -> Result<(), LabError> {
    let path = Path::new("/proc/sys").join(key);
    match fs::write(&path, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.doing(|| format!("set {} to {value}", path.display())),
    }
}

/// Runs `work` on a thread of its own, so that namespaces it enters do not leak
/// into the caller's thread.
fn on_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name(name.to_owned());
        let handle = builder.spawn_scoped(scope, work)?;
        match handle.join() {
            Ok(value) => Ok(value),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

struct Fork {
    command: Command,
    namespace: Arc<File>,
    reply: Sender<io::Result<Child>>,
}

/// Spawns on the one thread that lives as long as the process.
fn spawn_on_forker(command: Command, namespace: Arc<File>) -> io::Result<Child> {
    static FORKER: OnceLock<Mutex<Sender<Fork>>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Fork>();
        // Detached: it ends with the process and only then.
        thread::Builder::new()
            .name("sunwire-forker".to_owned())
            .spawn(move || {
                for mut fork in inbox {
                    sys::start_in_namespace(&mut fork.command, fork.namespace.as_raw_fd());
                    let _ = fork.reply.send(fork.command.spawn());
                }
            })
            .expect("a process that cannot make a thread cannot run a lab");
        Mutex::new(requests)
    });
    let (reply, answer) = mpsc::channel();
    let request = Fork {
        command,
        namespace,
        reply,
    };
    let gone = || io::Error::other("the forking thread has ended");
    forker
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(request)
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}
