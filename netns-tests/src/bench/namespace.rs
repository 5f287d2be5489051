//! Network namespaces without a name: each lives as long as a handle, a device link or a socket in
//! it, so that nothing is left behind, whatever ends the process.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::Handle;

use super::veth;

/// A handle on a network namespace; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Namespace(Arc<File>);

impl Namespace {
    /// Makes a namespace with loopback up and everything set that would add noise or make the
    /// systems differ.
    pub(super) fn new() -> Result<Self> {
        let file = thread::scope(|scope| {
            let made = scope.spawn(|| -> io::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                File::open("/proc/thread-self/ns/net")
            });
            join(made.join())
        });
        let file = file.context("cannot make a network namespace")?;
        let namespace = Namespace(Arc::new(file));
        namespace.run(prepare)?;
        namespace.netlink(async |handle| veth::set_up(handle, "lo").await)?;
        Ok(namespace)
    }

    /// Runs `work` on a thread inside and waits for it. Sockets that it opens stay inside.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter()?;
                work()
            });
            join(worker.join())
        })
    }

    /// Runs `work` with a route socket inside and waits for it.
    pub(super) fn netlink<T: Send>(
        &self,
        work: impl AsyncFnOnce(&Handle) -> Result<T> + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("cannot start an event loop")?;
            runtime.block_on(async {
                let (connection, handle, _) =
                    rtnetlink::new_connection().context("cannot open a route socket")?;
                tokio::spawn(connection);
                work(&handle).await
            })
        })
    }

    /// Starts a thread inside.
    pub(super) fn start_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter()?;
            work()
        })
    }

    /// Descriptor of the namespace, for moving devices into it.
    pub(super) fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn enter(&self) -> Result<()> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }
}

/// What a thread returned; its panic goes on here.
fn join<T>(outcome: thread::Result<T>) -> T {
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Settings of a fresh namespace, made from inside.
fn prepare() -> Result<()> {
    for (key, value) in [
        // No router solicitations and listener reports between the samples.
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
        // What paces itself, as BBR does, measures its own timers; and at round trips this short
        // CUBIC is Reno (RFC 9438, section 4.3), which every namespace may choose.
        ("net/ipv4/tcp_congestion_control", "reno"),
    ] {
        set(key, value)?;
    }
    // A bridge that hands its frames to netfilter would be an unfair peer.
    for protocol in ["iptables", "ip6tables", "arptables"] {
        let key = format!("net/bridge/bridge-nf-call-{protocol}");
        if Path::new("/proc/sys").join(&key).exists() {
            set(&key, "0")?;
        }
    }
    Ok(())
}

/// Sets a kernel setting of the calling thread's namespace.
pub(super) fn set(key: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys").join(key);
    fs::write(&path, value).map_err(|error| {
        anyhow!(error).context(format!("cannot set {} to {value}", path.display()))
    })
}
