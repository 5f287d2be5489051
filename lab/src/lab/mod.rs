//! A running lab: bringing it up, using it, taking it down.

mod underlay;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::mount::{MsFlags, mount};

use crate::control::server::ControlServer;
use crate::emulator::{DroppedFrames, Emulator, EmulatorRemote, EmulatorReport};
use crate::error::{Doing, LabError};
use crate::link::{LinkChange, LinkParams};
use crate::netns::Namespace;
use crate::node::NodeHandle;
use crate::state::{self, LabRecord, NodeRecord, Owner, WorkloadRecord};
use crate::topology::{CONTROLLER, NodeSpec, Topology, WAN, WorkloadSpec};
use crate::workload::{MoveTimes, Workload};

/// A lab that this process owns. Dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
    /// Taken in this order when the lab goes down.
    control: Option<ControlServer>,
    emulator: Option<Emulator>,
    down: bool,
}

/// What the lab shares with its control socket.
#[derive(Debug)]
pub(crate) struct Inner {
    id: String,
    nodes: Vec<NodeHandle>,
    emulator: EmulatorRemote,
    changing: Mutex<Changing>,
}

#[derive(Debug)]
struct Changing {
    record: LabRecord,
    workloads: BTreeMap<String, Workload>,
}

/// Removes everything when bringing a lab up fails half-way.
struct Unfinished(Option<LabRecord>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(record) = self.0.take()
            && let Err(error) = remove(&record)
        {
            tracing::warn!(%error, "could not remove all of an unfinished lab");
        }
    }
}

fn remove(record: &LabRecord) -> Result<(), LabError> {
    let _lock = state::lock()?;
    record.remove_all()
}

impl Lab {
    /// Brings a topology up: sweeps what dead labs left, makes the namespaces,
    /// the underlay, the emulator and the workloads. Blocks until all is there;
    /// call it by `spawn_blocking` from async code.
    ///
    /// # Errors
    /// [`LabError::NotRoot`], [`LabError::AlreadyUp`], or what the system
    /// refused; nothing is left behind then.
    pub fn up(topology: Topology) -> Result<Self, LabError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let id = topology.id.clone().unwrap_or_else(random_id);
        let record = new_record(&id, &topology)?;
        state::claim(&record)?;
        let mut unfinished = Unfinished(Some(record.clone()));
        let nodes = make_nodes(&record, &topology.nodes)?;
        let wan = Namespace::create(&namespace_name(&id, WAN))?;
        let legs = underlay::connect(&wan, &nodes)?;
        let count = nodes.len();
        let params = |from: usize, to: usize| topology.links[from * count + to];
        let emulator = Emulator::start(&wan, legs, topology.seed, params)
            .doing(|| "start the link emulator".to_owned())?;
        let inner = Arc::new(Inner {
            id,
            nodes,
            emulator: emulator.remote().clone(),
            changing: Mutex::new(Changing {
                record,
                workloads: BTreeMap::new(),
            }),
        });
        let control = ControlServer::start(&inner)?;
        for spec in topology.workloads {
            inner.add_workload(spec)?;
        }
        unfinished.0 = None;
        Ok(Self {
            inner,
            control: Some(control),
            emulator: Some(emulator),
            down: false,
        })
    }

    /// The lab's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// The lab's directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        state::dir_of(&self.inner.id)
    }

    /// The directory of the logs of processes started on nodes.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.dir().join("log")
    }

    /// All nodes, the controller's last when there is one.
    #[must_use]
    pub fn nodes(&self) -> &[NodeHandle] {
        &self.inner.nodes
    }

    /// A node by name; the controller's is named `controller`.
    ///
    /// # Errors
    /// [`LabError::NoSuchName`].
    pub fn node(&self, name: &str) -> Result<&NodeHandle, LabError> {
        self.inner.index(name).map(|index| &self.inner.nodes[index])
    }

    /// The controller's node, when the topology has one.
    #[must_use]
    pub fn controller(&self) -> Option<&NodeHandle> {
        self.inner.nodes.iter().find(|node| node.name == CONTROLLER)
    }

    /// All workloads, by name.
    #[must_use]
    pub fn workloads(&self) -> Vec<Workload> {
        self.inner.locked().workloads.values().cloned().collect()
    }

    /// A workload by name.
    ///
    /// # Errors
    /// [`LabError::NoSuchName`].
    pub fn workload(&self, name: &str) -> Result<Workload, LabError> {
        let found = self.inner.locked().workloads.get(name).cloned();
        found.ok_or_else(|| self.inner.no_such("workload", name))
    }

    /// Adds a workload to the running lab.
    ///
    /// # Errors
    /// A refused specification, a name that is taken, or the system's refusal.
    pub fn add_workload(&self, spec: WorkloadSpec) -> Result<Workload, LabError> {
        self.inner.add_workload(spec)
    }

    /// Moves a workload's host-side device from one node's namespace to
    /// another's. It arrives down and with a new index: the agent there sets
    /// it up.
    ///
    /// # Errors
    /// [`LabError::NotThere`] when it is not on `from`; the kernel's refusal.
    pub fn move_host_side(
        &self,
        workload: &Workload,
        from: &NodeHandle,
        to: &NodeHandle,
    ) -> Result<MoveTimes, LabError> {
        let times = workload.move_host_side(from, to)?;
        self.inner.record_place(workload.name(), &to.name)?;
        Ok(times)
    }

    /// Changes the link from one node to another; returns what is in force.
    ///
    /// # Errors
    /// [`LabError::NoSuchName`] or [`LabError::Link`].
    pub fn set_link(
        &self,
        from: &str,
        to: &str,
        change: LinkChange,
    ) -> Result<LinkParams, LabError> {
        self.inner.set_link(from, to, change)
    }

    /// Changes both directions between two nodes.
    ///
    /// # Errors
    /// As [`set_link`](Self::set_link).
    pub fn set_link_both(&self, a: &str, b: &str, change: LinkChange) -> Result<(), LabError> {
        self.inner.set_link(a, b, change)?;
        self.inner.set_link(b, a, change)?;
        Ok(())
    }

    /// What the emulator has seen: traffic, lateness and drops per link.
    ///
    /// # Errors
    /// [`LabError::EmulatorStopped`].
    pub fn report(&self) -> Result<EmulatorReport, LabError> {
        self.inner.report()
    }

    /// Keeps the frames that links do not deliver from now on, up to `frames_max` of them, so that
    /// it can be told which packets they were; 0 keeps none, as at first.
    ///
    /// # Errors
    /// [`LabError::EmulatorStopped`].
    pub fn keep_dropped(&self, frames_max: usize) -> Result<(), LabError> {
        let keeps = self.inner.emulator.keep_dropped(frames_max);
        keeps.map_err(|_| LabError::EmulatorStopped)
    }

    /// The frames kept since the last call.
    ///
    /// # Errors
    /// [`LabError::EmulatorStopped`].
    pub fn take_dropped(&self) -> Result<DroppedFrames, LabError> {
        let taken = self.inner.emulator.take_dropped();
        taken.map_err(|_| LabError::EmulatorStopped)
    }

    /// Starts the report's counts, lateness and drop logs anew.
    ///
    /// # Errors
    /// [`LabError::EmulatorStopped`].
    pub fn reset_report(&self) -> Result<(), LabError> {
        let reset = self.inner.emulator.reset_books();
        reset.map_err(|_| LabError::EmulatorStopped)
    }

    /// Takes the lab down: ends the processes inside, removes namespaces,
    /// mounts and the lab's directory with its logs.
    ///
    /// # Errors
    /// The first removal that failed; the others are made nevertheless.
    pub fn down(mut self) -> Result<(), LabError> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<(), LabError> {
        if std::mem::replace(&mut self.down, true) {
            return Ok(());
        }
        drop(self.control.take());
        drop(self.emulator.take());
        let record = self.inner.locked().record.clone();
        remove(&record)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.take_down() {
            tracing::warn!(%error, "could not remove all of a lab");
        }
    }
}

impl Inner {
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn record(&self) -> LabRecord {
        self.locked().record.clone()
    }

    pub(crate) fn report(&self) -> Result<EmulatorReport, LabError> {
        self.emulator
            .report()
            .map_err(|_| LabError::EmulatorStopped)
    }

    pub(crate) fn set_link(
        &self,
        from: &str,
        to: &str,
        change: LinkChange,
    ) -> Result<LinkParams, LabError> {
        let (from, to) = (self.index(from)?, self.index(to)?);
        let changed = self.emulator.change(from, to, change);
        Ok(changed.map_err(|_| LabError::EmulatorStopped)??)
    }

    /// Moves a host-side device from wherever it is.
    pub(crate) fn move_host_side(&self, workload: &str, to: &str) -> Result<MoveTimes, LabError> {
        let to = &self.nodes[self.index(to)?];
        let found = self.locked().workloads.get(workload).cloned();
        let found = found.ok_or_else(|| self.no_such("workload", workload))?;
        let times = found.move_host_side(&found.node(), to)?;
        self.record_place(workload, &to.name)?;
        Ok(times)
    }

    fn record_place(&self, workload: &str, node: &str) -> Result<(), LabError> {
        let mut changing = self.locked();
        let records = changing.record.workloads.iter_mut();
        for record in records.filter(|record| record.name == workload) {
            node.clone_into(&mut record.node);
        }
        changing.record.write()
    }

    fn index(&self, name: &str) -> Result<usize, LabError> {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.ok_or_else(|| self.no_such("node", name))
    }

    fn no_such(&self, kind: &'static str, name: &str) -> LabError {
        LabError::NoSuchName {
            lab: self.id.clone(),
            kind,
            name: name.to_owned(),
        }
    }

    fn add_workload(&self, spec: WorkloadSpec) -> Result<Workload, LabError> {
        spec.check().map_err(crate::topology::TopologyError::from)?;
        let node = self.nodes[self.index(&spec.node)?].clone();
        let mut changing = self.locked();
        let namespace = namespace_name(&self.id, &spec.name);
        let taken = |other: &Workload| other.host_device_name() == spec.host_device();
        if self.nodes.iter().any(|node| node.name == spec.name)
            || changing.workloads.values().any(taken)
        {
            let text = format!("name `{}` is taken in lab `{}`", spec.name, self.id);
            return Err(LabError::Name(text));
        }
        if !changing.record.namespaces.contains(&namespace) {
            if crate::netns::path_of(&namespace).exists() {
                return Err(LabError::NamespaceExists(namespace));
            }
            // Recorded before it is made, so that a crash leaves no stranger.
            changing.record.namespaces.push(namespace.clone());
            changing.record.write()?;
        }
        let name = spec.name.clone();
        let made = Namespace::create(&namespace)?;
        let record = WorkloadRecord {
            name: name.clone(),
            namespace,
            node: spec.node.clone(),
            network: spec.network.clone(),
        };
        let workload = Workload::create(spec, made, node)?;
        changing.workloads.insert(name, workload.clone());
        changing.record.workloads.push(record);
        changing.record.write()?;
        Ok(workload)
    }

    fn locked(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `sw-LAB-NAME`. The id has no hyphen, so no two labs' names are equal.
fn namespace_name(id: &str, name: &str) -> String {
    format!("sw-{id}-{name}")
}

fn new_record(id: &str, topology: &Topology) -> Result<LabRecord, LabError> {
    let nodes = topology.nodes.iter().map(|node| node.name.as_str());
    let workloads = topology.workloads.iter().map(|w| w.name.as_str());
    let names = nodes.chain([WAN]).chain(workloads);
    Ok(LabRecord {
        id: id.to_owned(),
        owner: Owner::this()?,
        namespaces: names.map(|name| namespace_name(id, name)).collect(),
        mounts: vec![state::dir_of(id).join("bpf")],
        nodes: topology
            .nodes
            .iter()
            .map(|node| NodeRecord {
                name: node.name.clone(),
                region: node.region.clone(),
                namespace: namespace_name(id, &node.name),
                address: node.address,
            })
            .collect(),
        workloads: Vec::new(),
    })
}

/// The lab's directories and bpffs, and every node's namespace.
fn make_nodes(lab: &LabRecord, specs: &[NodeSpec]) -> Result<Vec<NodeHandle>, LabError> {
    let dir = lab.dir();
    let (bpf, log) = (dir.join("bpf"), dir.join("log"));
    make_dir(&bpf)?;
    make_dir(&log)?;
    mount(
        Some("bpf"),
        &bpf,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .doing(|| format!("mount a bpffs on {}", bpf.display()))?;
    let make = |(spec, record): (&NodeSpec, &NodeRecord)| {
        let node = NodeHandle {
            name: spec.name.clone(),
            region: spec.region.clone(),
            outside: spec.outside,
            namespace: Namespace::create(&record.namespace)?,
            underlay_address: spec.address,
            underlay_gateway: spec.gateway(),
            underlay: spec.underlay,
            underlay_address_v6: spec.address_v6(),
            underlay_gateway_v6: spec.gateway_v6(),
            bpf_dir: bpf.join(&spec.name),
            state_dir: lab.state_dir_of(&spec.name),
            log_dir: log.clone(),
        };
        make_dir(&node.bpf_dir)?;
        make_dir(&node.state_dir)?;
        Ok(node)
    };
    specs.iter().zip(&lab.nodes).map(make).collect()
}

fn make_dir(path: &Path) -> Result<(), LabError> {
    fs::create_dir_all(path).doing(|| format!("create {}", path.display()))
}

/// Six letters and digits; taken ids are refused by the claim.
fn random_id() -> String {
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{:06x}", random & 0xff_ffff)
}
