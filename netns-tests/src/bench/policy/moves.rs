//! An endpoint moves: what a node that is neither its old one nor its new one changes in its kernel.
//!
//! The maps are read back from the kernel before and after, entry by entry, so that the figures say
//! what was done and not what was meant.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData};
use nix::time::{ClockId, clock_gettime};
use sunwire_dataplane_common::address::{Address, Mac};
use sunwire_dataplane_common::entries::{ClassKeyV4, IdKey, LocationEntry};
use sunwire_dataplane_common::tables::{EdgeKey, Next, RootKey, Verdict};
use sunwire_userspace::dataplane::{Dataplane, Surroundings};
use sunwire_userspace::maps::Capacity;
use sunwire_userspace::state::{Desired, Endpoint, Network, Node};

use super::report::{Figure, Section};
use super::rules::{self, Rules, VNI};
use crate::bench::dataplane::{BPF_DIRECTORY, own_bpf_file_system};
use crate::bench::namespace::Namespace;
use crate::bench::tables;

const ENDPOINTS: u32 = 10_000;
const RULES: usize = 1_000;
/// The endpoint that moves.
const MOVING: u32 = 17;
/// The node that is measured, and those that the endpoint moves between.
const OWN: u32 = 1;
const OTHERS: [u32; 2] = [2, 3];
const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Moves an endpoint back and forth. Mounts a BPF file system that only the calling thread and those
/// it starts see.
///
/// # Errors
/// When the policy cannot be compiled or installed, or the kernel's maps cannot be read.
pub(super) fn run(rounds: usize) -> Result<Section> {
    own_bpf_file_system()?;
    let compiled = Rules::new(RULES).compile()?;
    let mut desired = cloud();
    tables::install(&compiled, VNI, &mut desired);
    let namespace = Namespace::new()?;
    let moves = namespace.run(|| {
        let directory = Path::new(BPF_DIRECTORY).join("moves");
        let mut dataplane = Dataplane::load(&directory, Capacity::default())?;
        let around = Surroundings::default();
        dataplane.apply(&desired, OWN, VTEP, &around)?;
        let mut moves = Vec::with_capacity(rounds);
        for nth in 0..rounds {
            let before = Content::read(&directory)?;
            move_to(&mut desired, OTHERS[(nth + 1) % OTHERS.len()]);
            let start = cpu_time()?;
            dataplane.apply(&desired, OWN, VTEP, &around)?;
            let taken = cpu_time()? - start;
            let after = Content::read(&directory)?;
            moves.push(Move {
                taken,
                locations: differing(&before.locations, &after.locations),
                all: after.tables.len(),
                tables: differing(&before.tables, &after.tables),
            });
        }
        Ok(moves)
    })?;
    Ok(Section {
        title: "an endpoint moves",
        figures: figures(&moves),
        notes: vec![format!(
            "{ENDPOINTS} endpoints, {RULES} rules; entries of the maps of a node that sends to it"
        )],
    })
}

/// What one move did.
struct Move {
    taken: Duration,
    locations: usize,
    /// Entries of all tables of the policy, and those that differ.
    all: usize,
    tables: usize,
}

fn figures(moves: &[Move]) -> Vec<Figure> {
    let figure = |metric, unit, value: &dyn Fn(&Move) -> f64| {
        Figure::new(
            "kernel-move",
            metric,
            unit,
            moves.iter().map(value).collect(),
        )
    };
    vec![
        figure("cpu_ms", "ms", &|m| m.taken.as_secs_f64() * 1e3),
        figure("location_entries", "entries", &|m| m.locations as f64).at_most(1.0),
        figure("tables_hold", "entries", &|m| m.all as f64),
        figure("table_entries", "entries", &|m| m.tables as f64).at_most(0.0),
    ]
}

/// CPU time of this process.
fn cpu_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).context("the clock is missing")?;
    Ok(time.into())
}

fn move_to(desired: &mut Desired, node: u32) {
    if let Some(endpoint) = desired.endpoints.get_mut(&MOVING) {
        endpoint.node = node;
        endpoint.epoch += 1;
    }
}

/// Many endpoints on other nodes, and no policy yet.
fn cloud() -> Desired {
    let mut desired = Desired::default();
    for number in [OWN].into_iter().chain(OTHERS) {
        let node = Node::without_key(
            &format!("node{number}"),
            Ipv4Addr::from(u32::from(VTEP) + number - OWN),
        );
        desired.nodes.insert(number, node);
    }
    let network = Network {
        outbound: 0,
        encryption: Default::default(),
        relayed: false,
        enforced: false,
        checksum: false,
        port: sunwire_dataplane_common::vxlan::PORT,
        peers: Vec::new(),
        name: "bench".to_owned(),
        mtu: 1_300,
        gateway_v4: Address::v4([10, 255, 255, 254]),
        gateway_v6: Address::ZERO,
        gateway_mac: Mac::new([2, 0, 0, 20, 255, 254]),
        prefix_v4: 8,
        prefix_v6: 0,
    };
    desired.networks.insert(VNI, network);
    for number in 1..=ENDPOINTS {
        let endpoint = Endpoint {
            name: format!("e{number}"),
            vni: VNI,
            device: format!("host{number}"),
            mac: Mac::new(rules::mac(number)),
            ipv4: Address::v4(rules::address(number).octets()),
            ipv6: Address::ZERO,
            node: OTHERS[0],
            other: 0,
            moving: false,
            epoch: 1,
        };
        desired.endpoints.insert(number, endpoint);
    }
    desired
}

/// Entries by map and key.
type Entries = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// What the kernel has.
struct Content {
    locations: Entries,
    /// Classes, roots, nodes, edges, verdicts, and the numbers of those.
    tables: Entries,
}

impl Content {
    fn read(directory: &Path) -> Result<Self> {
        let mut content = Content {
            locations: Entries::new(),
            tables: Entries::new(),
        };
        slots::<{ size_of::<LocationEntry>() }>(directory, "LOCATIONS", &mut content.locations)?;
        let tables = &mut content.tables;
        slots::<{ size_of::<Next>() }>(directory, "NODES", tables)?;
        slots::<{ size_of::<Verdict>() }>(directory, "VERDICTS", tables)?;
        const NEXT: usize = size_of::<Next>();
        keyed::<{ size_of::<EdgeKey>() }, NEXT>(directory, "EDGES", tables)?;
        keyed::<{ size_of::<RootKey>() }, NEXT>(directory, "ROOTS", tables)?;
        keyed::<{ size_of::<IdKey>() }, 4>(directory, "IDS", tables)?;
        prefixes::<{ size_of::<ClassKeyV4>() }, 8>(directory, "CLASSES_V4", tables)?;
        Ok(content)
    }
}

/// Entries that only one has, or that are not the same in both.
fn differing(before: &Entries, after: &Entries) -> usize {
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    let new = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value));
    gone.count() + new.count()
}

fn slots<const VALUE: usize>(
    directory: &Path,
    name: &'static str,
    entries: &mut Entries,
) -> Result<()> {
    let map = Array::<_, [u8; VALUE]>::try_from(Map::Array(pinned(directory, name)?))?;
    for (slot, value) in (0_u32..).zip(map.iter()) {
        let value = value.with_context(|| format!("cannot read {name}"))?;
        if value != [0; VALUE] {
            entries.insert((name, slot.to_be_bytes().into()), value.into());
        }
    }
    Ok(())
}

fn keyed<const KEY: usize, const VALUE: usize>(
    directory: &Path,
    name: &'static str,
    entries: &mut Entries,
) -> Result<()> {
    let map = Map::HashMap(pinned(directory, name)?);
    let map = HashMap::<_, [u8; KEY], [u8; VALUE]>::try_from(map)?;
    for entry in map.iter() {
        let (key, value) = entry.with_context(|| format!("cannot read {name}"))?;
        entries.insert((name, key.into()), value.into());
    }
    Ok(())
}

fn prefixes<const KEY: usize, const VALUE: usize>(
    directory: &Path,
    name: &'static str,
    entries: &mut Entries,
) -> Result<()> {
    let map = Map::LpmTrie(pinned(directory, name)?);
    let map = LpmTrie::<_, [u8; KEY], [u8; VALUE]>::try_from(map)?;
    for entry in map.iter() {
        let (key, value) = entry.with_context(|| format!("cannot read {name}"))?;
        let mut whole = key.prefix_len().to_be_bytes().to_vec();
        whole.extend(key.data());
        entries.insert((name, whole), value.into());
    }
    Ok(())
}

/// A map of the data plane that lives in `directory`.
fn pinned(directory: &Path, name: &str) -> Result<MapData> {
    for folder in directory.read_dir()? {
        let path = folder?.path().join(name);
        if path.exists() {
            return MapData::from_pin(&path)
                .with_context(|| format!("cannot open the map {}", path.display()));
        }
    }
    bail!("no map {name} is pinned in {}", directory.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_come_go_or_change_are_counted_once() {
        let entry = |key: u8, value: u8| (("A", vec![key]), vec![value]);
        let before = Entries::from([entry(1, 1), entry(2, 2), entry(3, 3)]);
        let after = Entries::from([entry(1, 1), entry(2, 9), entry(4, 4)]);
        assert_eq!(differing(&before, &after), 3);
        assert_eq!(differing(&before, &before), 0);
    }
}
