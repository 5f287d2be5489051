//! A node of a running lab: its namespace and directories, and its processes.

use std::fs::OpenOptions;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::error::{Doing, LabError};
use crate::netns::Namespace;
use crate::topology::Underlay;

/// Name of every node's underlay device.
pub const UNDERLAY_DEVICE: &str = "wan0";

/// A node, to be handed to whoever starts its processes.
#[derive(Clone, Debug)]
pub struct NodeHandle {
    /// Name.
    pub name: String,
    /// Region, `cloud:name`.
    pub region: String,
    /// It is a host outside, where nothing is started.
    pub outside: bool,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Address of [`UNDERLAY_DEVICE`], in a /24 of its own.
    pub underlay_address: Ipv4Addr,
    /// The emulator's address in that /24, the node's default route.
    pub underlay_gateway: Ipv4Addr,
    /// What its tunnels go over.
    pub underlay: Underlay,
    /// IPv6 address of [`UNDERLAY_DEVICE`], in a /64 of its own, where the tunnels go over IPv6.
    pub underlay_address_v6: Option<Ipv6Addr>,
    /// The emulator's address in that /64, the default route there.
    pub underlay_gateway_v6: Ipv6Addr,
    /// A directory of the lab's bpffs that is this node's alone.
    pub bpf_dir: PathBuf,
    /// A directory for the state of the node's processes.
    pub state_dir: PathBuf,
    pub(crate) log_dir: PathBuf,
}

impl NodeHandle {
    /// The addresses that tunnels of the node have.
    pub fn tunnel_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = (self.underlay != Underlay::Ipv6).then_some(IpAddr::V4(self.underlay_address));
        v4.into_iter()
            .chain(self.underlay_address_v6.map(IpAddr::V6))
    }

    /// The log that [`spawn_logged`](Self::spawn_logged) writes for `program`.
    #[must_use]
    pub fn log_path(&self, program: &str) -> PathBuf {
        self.log_dir.join(format!("{}-{program}.log", self.name))
    }

    /// Starts a process on the node with its output appended to
    /// [`log_path`](Self::log_path) and no input. It dies with this process.
    ///
    /// # Errors
    /// The log could not be opened or the program not started.
    pub fn spawn_logged(&self, program: &str, mut command: Command) -> Result<Child, LabError> {
        let path = self.log_path(program);
        let doing = || format!("open {}", path.display());
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .doing(doing)?;
        let errors = log.try_clone().doing(doing)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.namespace.spawn(command)
    }
}

impl AsRef<Namespace> for NodeHandle {
    fn as_ref(&self) -> &Namespace {
        &self.namespace
    }
}
