//! The programs and their attachments.
//!
//! Maps are pinned and programs stay attached, so forwarding goes on without the agent. A new agent
//! loads its own programs against the pinned maps and puts them in place of the attached ones, one
//! system call each: every packet is handled by the old program or by the new one.

mod clsact;
mod hook;
mod link;
mod tcx;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::Array,
    programs::{ProgramError, SchedClassifier},
};

use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use sunwire_dataplane_common::{flow_table::Geometry, vxlan};

use crate::{
    maps::{Capacity, Maps},
    object::OBJECT,
    pod::Pod,
    shadow::{self, ShadowError},
};

pub use hook::Hook;

/// Layout of the pinned maps; a change that old programs could not read needs a new number.
const LAYOUT: &str = "v18";
/// Layout of those that hold what is known of flows, which are pinned apart: so that connections stay
/// when only others change. The verdicts in them are of a generation, of which no two layouts have the
/// same.
const FLOWS_LAYOUT: &str = "v2";

/// The programs could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The kernel refused the object.
    #[error("the kernel refused the programs; Linux 6.1 or later with BPF and BTF is needed")]
    Load(#[source] Box<EbpfError>),
    /// The kernel refused one program.
    #[error("the kernel refused program {name}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program could not be attached to a device.
    #[error("cannot attach to device {device}")]
    Attach {
        /// Name of the device.
        device: String,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// A link could not be pinned or found again.
    #[error("cannot keep the link {}", path.display())]
    Link {
        /// Where it is pinned.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory for pins is in no BPF file system.
    #[error(
        "cannot pin maps in {}, which is in no BPF file system; `mount -t bpf bpf DIRECTORY` makes \
         one",
        path.display()
    )]
    NoBpfFileSystem {
        /// The directory.
        path: PathBuf,
    },
    /// The directory for pins cannot be made.
    #[error("cannot use {} for pinned maps", path.display())]
    Pins {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The object lacks a program.
    #[error("the object has no program {0}")]
    Missing(&'static str),
    /// A pinned map does not fit.
    #[error(transparent)]
    Maps(#[from] ShadowError),
}

/// Which program a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Endpoint,
    Underlay,
    /// Takes what comes from nodes without an agent.
    Foreign,
    /// Like `Underlay`, for packets without an Ethernet header.
    Tunnel,
    /// Writes outer UDP checksums.
    Checksum,
    /// Like `Endpoint`, for packets that are asked about; attached to nothing.
    EndpointTrace,
    /// Like `Underlay`, likewise.
    UnderlayTrace,
}

impl Kind {
    /// Those that every node needs, and are loaded at once.
    const FIRST: [Kind; 2] = [Kind::Endpoint, Kind::Underlay];
    /// Those that are loaded when they are needed for the first time: the verifier takes its time.
    const LATER: [Kind; 5] = [
        Kind::Foreign,
        Kind::Tunnel,
        Kind::Checksum,
        Kind::EndpointTrace,
        Kind::UnderlayTrace,
    ];

    const fn program(self) -> &'static str {
        match self {
            Kind::Endpoint => "endpoint_ingress",
            Kind::Underlay => "underlay_ingress",
            Kind::Foreign => "foreign_ingress",
            Kind::Tunnel => "tunnel_ingress",
            Kind::Checksum => "checksum_ingress",
            Kind::EndpointTrace => "endpoint_trace",
            Kind::UnderlayTrace => "underlay_trace",
        }
    }
}

/// The loaded programs.
pub(crate) struct Programs {
    ebpf: Ebpf,
    links: PathBuf,
    hook: Hook,
}

impl Programs {
    /// Loads the programs against the maps pinned under `directory`, which are made when they are
    /// not there yet. They are attached at `hook`, or at the best one that this kernel has.
    pub(crate) fn load(
        directory: &Path,
        capacity: Capacity,
        hook: Option<Hook>,
    ) -> Result<(Self, Maps), ProgramsError> {
        let links = directory.join("links");
        let mut ebpf = open(directory, capacity)?;
        fs::create_dir_all(&links).map_err(|source| ProgramsError::Pins {
            path: links.clone(),
            source,
        })?;
        for kind in Kind::FIRST {
            loaded(&mut ebpf, kind)?;
        }
        let maps = Maps::open(&mut ebpf)?;
        remove_older_layouts(directory);
        let hook = hook.unwrap_or_else(Hook::probe);
        Ok((Programs { ebpf, links, hook }, maps))
    }

    /// Loads the programs, too, that would else be loaded when they are needed.
    pub(crate) fn load_rest(&mut self) -> Result<(), ProgramsError> {
        for kind in Kind::LATER {
            loaded(&mut self.ebpf, kind)?;
        }
        Ok(())
    }

    /// Where programs are attached.
    pub(crate) fn hook(&self) -> Hook {
        self.hook
    }

    /// Runs the endpoint program on a device's packets, from now on or instead of the program
    /// that an earlier agent attached.
    pub(crate) fn attach_endpoint(
        &mut self,
        device: &str,
        number: u32,
    ) -> Result<(), ProgramsError> {
        let path = self.endpoint_link(number);
        self.attach(Kind::Endpoint, device, &path)
    }

    /// Runs the underlay program on a device's packets.
    pub(crate) fn attach_underlay(&mut self, device: &str) -> Result<(), ProgramsError> {
        let path = self.links.join("underlay");
        self.attach(Kind::Underlay, device, &path)
    }

    /// Runs the underlay program on the packets of the device that encrypts.
    pub(crate) fn attach_tunnel(&mut self, device: &str) -> Result<(), ProgramsError> {
        let path = self.links.join("tunnel");
        self.attach(Kind::Underlay, device, &path)
    }

    /// Runs the program for packets of nodes without an agent on those of the device that holds a port
    /// and takes them out of their tunnel.
    pub(crate) fn attach_foreign(&mut self, port: u16, device: &str) -> Result<(), ProgramsError> {
        let path = self.foreign_link(port);
        self.attach(Kind::Foreign, device, &path)
    }

    /// Takes that program off.
    pub(crate) fn detach_foreign(&mut self, port: u16) -> Result<(), ProgramsError> {
        hook::detach(&self.foreign_link(port))
    }

    /// Ports on whose devices it is.
    pub(crate) fn foreign_ports(&self) -> Vec<u16> {
        let names = hook::attached(&self.links);
        let port = |name: &String| match name.strip_prefix("foreign")? {
            "" => Some(vxlan::PORT),
            port => port.strip_prefix('-')?.parse().ok(),
        };
        names.iter().filter_map(port).collect()
    }

    fn foreign_link(&self, port: u16) -> PathBuf {
        self.links.join(match port {
            vxlan::PORT => "foreign".to_owned(),
            port => format!("foreign-{port}"),
        })
    }

    /// Runs the program for packets without an Ethernet header on a device of the kernel's WireGuard.
    pub(crate) fn attach_kernel_tunnel(&mut self, device: &str) -> Result<(), ProgramsError> {
        let path = self.links.join(device);
        self.attach(Kind::Tunnel, device, &path)
    }

    /// Takes it off again. The device may be gone already.
    pub(crate) fn detach_kernel_tunnel(&mut self, device: &str) -> Result<(), ProgramsError> {
        hook::detach(&self.links.join(device))
    }

    /// Runs the program that writes outer checksums on a device.
    pub(crate) fn attach_checksum(&mut self, device: &str) -> Result<(), ProgramsError> {
        let path = self.links.join("checksum");
        self.attach(Kind::Checksum, device, &path)
    }

    /// Takes it off again. The device may be gone already.
    pub(crate) fn detach_checksum(&mut self) -> Result<(), ProgramsError> {
        hook::detach(&self.links.join("checksum"))
    }

    /// Takes the endpoint program off its device. The device may be gone already.
    pub(crate) fn detach_endpoint(&mut self, number: u32) -> Result<(), ProgramsError> {
        hook::detach(&self.endpoint_link(number))
    }

    /// Numbers of the endpoints that an agent attached.
    pub(crate) fn attached(&self) -> Vec<u32> {
        hook::attached(&self.links)
            .iter()
            .filter_map(|name| name.strip_prefix("endpoint-")?.parse().ok())
            .collect()
    }

    /// The endpoint program, to be run on test packets.
    pub(crate) fn endpoint_program(&mut self) -> Result<&mut SchedClassifier, ProgramsError> {
        loaded(&mut self.ebpf, Kind::Endpoint)
    }

    /// The underlay program, to be run on test packets.
    pub(crate) fn underlay_program(&mut self) -> Result<&mut SchedClassifier, ProgramsError> {
        loaded(&mut self.ebpf, Kind::Underlay)
    }

    /// The program that writes outer checksums, to be run on test packets.
    pub(crate) fn checksum_program(&mut self) -> Result<&mut SchedClassifier, ProgramsError> {
        loaded(&mut self.ebpf, Kind::Checksum)
    }

    /// The program that says what becomes of an endpoint's packet, or of one from the underlay.
    pub(crate) fn trace_program(
        &mut self,
        underlay: bool,
    ) -> Result<&mut SchedClassifier, ProgramsError> {
        let kind = if underlay {
            Kind::UnderlayTrace
        } else {
            Kind::EndpointTrace
        };
        loaded(&mut self.ebpf, kind)
    }

    fn endpoint_link(&self, number: u32) -> PathBuf {
        self.links.join(format!("endpoint-{number}"))
    }

    fn attach(&mut self, kind: Kind, device: &str, path: &Path) -> Result<(), ProgramsError> {
        let hook = self.hook;
        hook::attach(hook, loaded(&mut self.ebpf, kind)?, device, path)
    }
}

/// Opens the object with the maps pinned under `directory`, which are made when they are not there
/// yet; its programs are not loaded.
pub(crate) fn open(directory: &Path, capacity: Capacity) -> Result<Ebpf, ProgramsError> {
    let maps = directory.join(format!("maps-{LAYOUT}"));
    // Before anything is made, by the nearest directory that is there.
    let there = directory.ancestors().find(|path| path.exists());
    let found = there.map(statfs).transpose().ok().flatten();
    if found.is_none_or(|found| found.filesystem_type() != BPF_FS_MAGIC) {
        let path = directory.to_owned();
        return Err(ProgramsError::NoBpfFileSystem { path });
    }
    let flows = directory.join(format!("flows-{FLOWS_LAYOUT}"));
    for path in [&maps, &flows] {
        fs::create_dir_all(path).map_err(|source| ProgramsError::Pins {
            path: path.clone(),
            source,
        })?;
    }
    let mut loader = EbpfLoader::new();
    let pinned = |names: &'static [&str], directory: PathBuf| {
        names.iter().map(move |name| (*name, directory.join(name)))
    };
    let names: Vec<(&str, PathBuf)> = pinned(&MAP_NAMES, maps)
        .chain(pinned(&FLOW_MAP_NAMES, flows))
        .collect();
    for (name, path) in &names {
        loader.map_pin_path(name, path.as_path());
    }
    for (name, entries) in capacity.by_map() {
        loader.map_max_entries(name, entries);
    }
    let mut ebpf = loader
        .load(OBJECT)
        .map_err(|source| ProgramsError::Load(Box::new(source)))?;
    lay_out_flows(&mut ebpf)?;
    Ok(ebpf)
}

/// Tells a new table of flows how large it is and what its secret is; one that has both keeps them.
fn lay_out_flows(ebpf: &mut Ebpf) -> Result<(), ShadowError> {
    const NAME: &str = "FLOW_TABLE";
    let flows = ebpf
        .map("FLOWS")
        .ok_or(ShadowError::Missing { map: "FLOWS" })?;
    let lines = shadow::capacity(flows) as u32;
    let table = ebpf
        .map_mut(NAME)
        .ok_or(ShadowError::Missing { map: NAME })?;
    let failed = |verb| {
        move |source| ShadowError::Access {
            map: NAME,
            verb,
            source,
        }
    };
    let mut table = Array::<_, Pod<Geometry>>::try_from(table)
        .map_err(|source| ShadowError::Layout { map: NAME, source })?;
    if table.get(&0, 0).map_err(failed("read"))?.0.mask != 0 {
        return Ok(());
    }
    let geometry = Geometry::new(lines, rand::random());
    table.set(0, Pod(geometry), 0).map_err(failed("write"))
}

/// Removes what an agent of another layout pinned: its programs keep the maps they use until they
/// are swapped, and pins that nobody reads again would keep them for ever.
fn remove_older_layouts(directory: &Path) {
    let current = [format!("maps-{LAYOUT}"), format!("flows-{FLOWS_LAYOUT}")];
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_older = name.to_str().is_some_and(|name| {
            ["maps-v", "flows-v"]
                .iter()
                .any(|kind| name.starts_with(kind))
        }) && !current.iter().any(|current| name == current.as_str());
        if is_older && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "older pins stay");
        }
    }
}

/// A program, which is loaded if it is not yet.
fn loaded(ebpf: &mut Ebpf, kind: Kind) -> Result<&mut SchedClassifier, ProgramsError> {
    let name = kind.program();
    let program: &mut SchedClassifier = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(ProgramsError::Missing(name))?;
    if program.fd().is_err() {
        program.load().map_err(|source| ProgramsError::Program {
            name,
            source: Box::new(source),
        })?;
    }
    Ok(program)
}

/// The maps that hold what is known of flows.
const FLOW_MAP_NAMES: [&str; 9] = [
    "INSIDE",
    "OUTSIDE",
    "FLOW_TABLE",
    "FLOWS",
    "FLOW_ADDRESSES",
    "OVERFLOW_V4",
    "OVERFLOW_V6",
    "OVERFLOWED",
    "OVERFLOW_COUNTER",
];

/// Every other map of the object, each pinned under its own name, too.
const MAP_NAMES: [&str; 56] = [
    "OUTBOUND",
    "CONTROL",
    "ENDPOINTS",
    "FOREIGN_ENDPOINTS",
    "LOCATIONS",
    "PEERS",
    "PEERS_V6",
    "ENCRYPTED_PEERS",
    "PLAIN_PEERS",
    "NETWORKS",
    "OWNERS",
    "PEER_ADDRESSES",
    "PROBES",
    "TUNNEL_COUNTERS",
    "CLASSES_V4",
    "CLASSES_V6",
    "ROUTES_V4",
    "ROUTES_V6",
    "STAGED_V4",
    "STAGED_V6",
    "ROOTS",
    "STAGED_ROOTS",
    "AUDIT",
    "EDGES",
    "WANTED",
    "FRAGMENTS",
    "SWEEP",
    "FLOW_RECORDS",
    "SCRATCH",
    "PACKET",
    "INNER",
    "QUESTION",
    "NODES",
    "VERDICTS",
    "LABEL_COUNTERS",
    "DROP_COUNTERS",
    "EVENT_SETTINGS",
    "EVENT_LOSSES",
    "EVENT_RECORDS",
    "EVENTS",
    "CAPTURED",
    "IDS",
    "LABELS",
    "PUNTS",
    "PUNT_BUCKETS",
    "PUNT_SCRATCH",
    "PUNT_COUNTERS",
    "GROUPS",
    "GROUP_TAGS",
    "LISTENERS",
    "CAST",
    "COPY_COUNTERS",
    "LIMIT_BUCKETS",
    "LIMIT_SHARED",
    "LIMIT_LOSSES",
    "LIMIT_KEY",
];
