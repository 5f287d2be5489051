//! The kernel's maps as the agent holds them.

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf},
};
use sunwire_dataplane_common::{
    address::Address,
    audit::{AuditKey, StagedRoot},
    capacity,
    entries::{
        AddressKey, ClassKeyV4, ClassKeyV6, Control, Counter, EndpointEntry, IdKey, LabelKey,
        LocationEntry, NetworkEntry, PeerEntry, PeerEntryV6, direction, id_kind,
    },
    flow_table::Geometry,
    group::{GroupChunk, GroupKey, ListenerKey, TagKey},
    outbound::Outbound,
    probe::{self, ProbeSlot},
    tables::{EdgeKey, MAX_VERDICTS, Next, RootEntry, RootKey, Verdict},
    wire::WireEntry,
};

use crate::{
    pod::Pod,
    shadow::{self, ArrayShadow, HashShadow, LpmShadow, ShadowError},
    telemetry::EventMaps,
    wires::WireCounters,
};

/// How many entries the maps hold; fixed when they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Largest ifindex of a host-side device, and number of endpoints of the whole cloud.
    pub endpoints: u32,
    /// Nodes of the mesh.
    pub nodes: u32,
    /// Virtual networks.
    pub networks: u32,
    /// Prefixes with a class of their own, per address family.
    pub classes: u32,
    /// Nodes of the flow tables.
    pub table_nodes: u32,
    /// Exact edges of the flow tables.
    pub edges: u32,
    /// Verdicts.
    pub verdicts: u32,
    /// Labels.
    pub labels: u32,
    /// Pairs of a rule in force and a staged one that packets are counted under.
    pub audited: u32,
    /// Bytes of the buffer for what is asked of the node: a power of 2, and a multiple of 4096.
    pub punt_bytes: u32,
    /// Sets of endpoints that one packet goes to, in parts of 64.
    pub groups: u32,
    /// Multicast addresses that endpoints and other nodes listen to.
    pub listeners: u32,
    /// Buckets of `limit`: one for each that a rate is held for.
    pub limited: u32,
    /// Flows that are remembered, of both address families. The table has twice as many lines, so that
    /// each finds one soon, and is used up to seven eighths.
    pub flows: u32,
    /// Flows that are remembered while there is no room, per address family.
    pub overflow: u32,
    /// Connections that leave the cloud at this node.
    pub outbound: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Capacity {
            endpoints: 16_384,
            nodes: 1_024,
            networks: 1_024,
            classes: capacity::PREFIXES,
            table_nodes: capacity::TABLE_NODES,
            edges: capacity::EDGES,
            verdicts: capacity::VERDICTS,
            labels: capacity::LABELS,
            audited: capacity::AUDITED,
            punt_bytes: 1 << 20,
            groups: capacity::GROUPS,
            listeners: capacity::LISTENERS,
            limited: capacity::LIMITED,
            flows: capacity::FLOWS,
            overflow: capacity::OVERFLOW,
            outbound: capacity::OUTBOUND,
        }
    }
}

impl Capacity {
    /// Subnets of networks and of their peers: each network may have a few.
    fn routes(&self) -> u32 {
        self.networks.saturating_mul(16)
    }

    /// Entries by map name, for the loader.
    pub(crate) fn by_map(&self) -> [(&'static str, u32); 41] {
        [
            ("ENDPOINTS", self.endpoints),
            ("FOREIGN_ENDPOINTS", self.endpoints),
            ("LOCATIONS", self.endpoints),
            // An IPv4, an IPv6 and a MAC address each.
            ("OWNERS", self.endpoints.saturating_mul(3)),
            // Each end is in one; of each, what both ends send is counted.
            ("WIRES", self.endpoints / 2),
            ("WIRE_COUNTERS", self.endpoints),
            ("PEERS", self.nodes),
            ("PEERS_V6", self.nodes),
            ("ENCRYPTED_PEERS", self.nodes),
            ("PLAIN_PEERS", self.nodes),
            ("PEER_ADDRESSES", self.nodes),
            ("PROBES", self.nodes.saturating_mul(probe::SLOTS)),
            ("TUNNEL_COUNTERS", self.nodes.saturating_mul(direction::ALL)),
            ("NETWORKS", self.networks),
            ("CLASSES_V4", self.classes),
            ("CLASSES_V6", self.classes),
            ("ROUTES_V4", self.routes()),
            ("ROUTES_V6", self.routes()),
            ("STAGED_V4", self.classes),
            ("STAGED_V6", self.classes),
            // Two generations.
            ("ROOTS", self.networks.saturating_mul(2)),
            ("STAGED_ROOTS", self.networks.saturating_mul(2)),
            ("AUDIT", self.audited),
            ("PUNTS", self.punt_bytes),
            ("PUNT_BUCKETS", self.endpoints),
            ("GROUPS", self.groups),
            ("GROUP_TAGS", self.groups),
            ("LISTENERS", self.listeners),
            ("LIMIT_BUCKETS", self.limited),
            ("FLOWS", Geometry::lines_for(self.flows)),
            ("FLOW_ADDRESSES", Geometry::lines_for(self.flows)),
            ("OVERFLOW_V4", self.overflow),
            ("OVERFLOW_V6", self.overflow),
            ("INSIDE", self.outbound),
            ("OUTSIDE", self.outbound),
            ("EDGES", self.edges),
            ("NODES", self.table_nodes),
            // Their slots stand in marks of packets.
            ("VERDICTS", self.verdicts.min(MAX_VERDICTS)),
            ("LABEL_COUNTERS", self.labels),
            ("LABELS", self.labels),
            (
                "IDS",
                self.table_nodes
                    .saturating_add(self.verdicts)
                    .saturating_add(self.groups)
                    // Of the policies in force and of the staged ones.
                    .saturating_add(self.classes.saturating_mul(2)),
            ),
        ]
    }
}

/// Every map.
pub(crate) struct Maps {
    pub(crate) control: ArrayShadow<Control>,
    pub(crate) endpoints: ArrayShadow<EndpointEntry>,
    /// By number: endpoints at nodes without an agent.
    pub(crate) foreign_endpoints: HashShadow<u32, EndpointEntry>,
    pub(crate) locations: ArrayShadow<LocationEntry>,
    pub(crate) peers: ArrayShadow<PeerEntry>,
    pub(crate) peers_v6: ArrayShadow<PeerEntryV6>,
    pub(crate) encrypted_peers: ArrayShadow<PeerEntry>,
    pub(crate) plain_peers: ArrayShadow<PeerEntry>,
    pub(crate) networks: HashShadow<u32, NetworkEntry>,
    pub(crate) owners: HashShadow<AddressKey, u32>,
    pub(crate) peer_addresses: HashShadow<Address, u32>,
    pub(crate) classes_v4: LpmShadow<ClassKeyV4, [u32; 2]>,
    pub(crate) classes_v6: LpmShadow<ClassKeyV6, [u32; 2]>,
    pub(crate) staged_v4: LpmShadow<ClassKeyV4, [u32; 2]>,
    pub(crate) staged_v6: LpmShadow<ClassKeyV6, [u32; 2]>,
    pub(crate) routes_v4: LpmShadow<ClassKeyV4, u32>,
    pub(crate) routes_v6: LpmShadow<ClassKeyV6, u32>,
    /// How packets leave the cloud here.
    pub(crate) outbound: ArrayShadow<Outbound>,
    pub(crate) roots: HashShadow<RootKey, RootEntry>,
    pub(crate) staged_roots: HashShadow<RootKey, StagedRoot>,
    pub(crate) edges: HashShadow<EdgeKey, Next>,
    pub(crate) nodes: ArrayShadow<Next>,
    pub(crate) verdicts: ArrayShadow<Verdict>,
    pub(crate) wires: HashShadow<u32, WireEntry>,
    pub(crate) wire_counters: WireCounters,
    pub(crate) groups: HashShadow<GroupKey, GroupChunk>,
    pub(crate) group_tags: HashShadow<TagKey, u32>,
    pub(crate) listeners: HashShadow<ListenerKey, u32>,
    pub(crate) copy_counters: PerCpuArray<MapData, Pod<Counter>>,
    pub(crate) ids: HashShadow<IdKey, u32>,
    pub(crate) labels: HashShadow<LabelKey, u32>,
    pub(crate) label_counters: PerCpuArray<MapData, Pod<Counter>>,
    pub(crate) drop_counters: PerCpuArray<MapData, Pod<Counter>>,
    /// Written by the kernel, so without a memory of its content.
    pub(crate) audit: PerCpuHashMap<MapData, Pod<AuditKey>, Pod<Counter>>,
    pub(crate) audit_capacity: usize,
    /// Until somebody reads events.
    pub(crate) events: Option<EventMaps>,
    /// Until somebody listens.
    pub(crate) punts: Option<RingBuf<MapData>>,
    pub(crate) punt_counters: PerCpuArray<MapData, Pod<Counter>>,
    pub(crate) tunnel_counters: PerCpuArray<MapData, Pod<Counter>>,
    /// Until somebody probes.
    pub(crate) probes: Option<Array<MapData, Pod<ProbeSlot>>>,
}

impl Maps {
    /// Takes the maps of a loaded object over and reads them.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, ShadowError> {
        let mut take = |map: &'static str| ebpf.take_map(map).ok_or(ShadowError::Missing { map });
        let mut counters = |map: &'static str| {
            PerCpuArray::try_from(take(map)?).map_err(|source| ShadowError::Layout { map, source })
        };
        let (label_counters, drop_counters) =
            (counters("LABEL_COUNTERS")?, counters("DROP_COUNTERS")?);
        let punt_counters = counters("PUNT_COUNTERS")?;
        let copy_counters = counters("COPY_COUNTERS")?;
        let tunnel_counters = counters("TUNNEL_COUNTERS")?;
        let probes = Array::try_from(take("PROBES")?).map_err(|source| ShadowError::Layout {
            map: "PROBES",
            source,
        })?;
        let punts = RingBuf::try_from(take("PUNTS")?).map_err(|source| ShadowError::Layout {
            map: "PUNTS",
            source,
        })?;
        let audit = take("AUDIT")?;
        let audit_capacity = shadow::capacity(&audit);
        let audit = PerCpuHashMap::try_from(audit).map_err(|source| ShadowError::Layout {
            map: "AUDIT",
            source,
        })?;
        // What has no number is in no slot: reading the others one by one would take long.
        let ids = HashShadow::<IdKey, u32>::open(take("IDS")?, "IDS")?;
        let numbered = |kind: u32| {
            let ids = ids.content().iter();
            ids.filter(move |(key, _)| key.kind == kind)
                .map(|(_, number)| *number)
        };
        let nodes = ArrayShadow::open_slots(
            take("NODES")?,
            "NODES",
            Next::default(),
            numbered(id_kind::TABLE),
        )?;
        let verdicts = ArrayShadow::open_slots(
            take("VERDICTS")?,
            "VERDICTS",
            Verdict::default(),
            numbered(id_kind::VERDICT),
        )?;
        let events = Some(EventMaps::open(&mut take)?);
        Ok(Maps {
            events,
            label_counters,
            drop_counters,
            audit,
            audit_capacity,
            punts: Some(punts),
            punt_counters,
            tunnel_counters,
            probes: Some(probes),
            copy_counters,
            wires: HashShadow::open(take("WIRES")?, "WIRES")?,
            wire_counters: WireCounters::open(take("WIRE_COUNTERS")?)?,
            groups: HashShadow::open(take("GROUPS")?, "GROUPS")?,
            group_tags: HashShadow::open(take("GROUP_TAGS")?, "GROUP_TAGS")?,
            listeners: HashShadow::open(take("LISTENERS")?, "LISTENERS")?,
            control: ArrayShadow::open(take("CONTROL")?, "CONTROL", Control::default())?,
            endpoints: ArrayShadow::open(
                take("ENDPOINTS")?,
                "ENDPOINTS",
                EndpointEntry::default(),
            )?,
            foreign_endpoints: HashShadow::open(take("FOREIGN_ENDPOINTS")?, "FOREIGN_ENDPOINTS")?,
            locations: ArrayShadow::open(
                take("LOCATIONS")?,
                "LOCATIONS",
                LocationEntry::default(),
            )?,
            peers: ArrayShadow::open(take("PEERS")?, "PEERS", PeerEntry::default())?,
            peers_v6: ArrayShadow::open(take("PEERS_V6")?, "PEERS_V6", PeerEntryV6::default())?,
            encrypted_peers: ArrayShadow::open(
                take("ENCRYPTED_PEERS")?,
                "ENCRYPTED_PEERS",
                PeerEntry::default(),
            )?,
            plain_peers: ArrayShadow::open(
                take("PLAIN_PEERS")?,
                "PLAIN_PEERS",
                PeerEntry::default(),
            )?,
            networks: HashShadow::open(take("NETWORKS")?, "NETWORKS")?,
            owners: HashShadow::open(take("OWNERS")?, "OWNERS")?,
            peer_addresses: HashShadow::open(take("PEER_ADDRESSES")?, "PEER_ADDRESSES")?,
            classes_v4: LpmShadow::open(take("CLASSES_V4")?, "CLASSES_V4")?,
            classes_v6: LpmShadow::open(take("CLASSES_V6")?, "CLASSES_V6")?,
            staged_v4: LpmShadow::open(take("STAGED_V4")?, "STAGED_V4")?,
            staged_v6: LpmShadow::open(take("STAGED_V6")?, "STAGED_V6")?,
            routes_v4: LpmShadow::open(take("ROUTES_V4")?, "ROUTES_V4")?,
            routes_v6: LpmShadow::open(take("ROUTES_V6")?, "ROUTES_V6")?,
            outbound: ArrayShadow::open(take("OUTBOUND")?, "OUTBOUND", Outbound::default())?,
            roots: HashShadow::open(take("ROOTS")?, "ROOTS")?,
            staged_roots: HashShadow::open(take("STAGED_ROOTS")?, "STAGED_ROOTS")?,
            edges: HashShadow::open(take("EDGES")?, "EDGES")?,
            nodes,
            verdicts,
            ids,
            labels: HashShadow::open(take("LABELS")?, "LABELS")?,
        })
    }

    /// Sets the counter in a slot to zero, before another label gets the slot.
    pub(crate) fn reset_label_counter(&mut self, slot: u32) -> Result<(), ShadowError> {
        let failed = |verb| {
            move |source| ShadowError::Access {
                map: "LABEL_COUNTERS",
                verb,
                source,
            }
        };
        let values = self.label_counters.get(&slot, 0).map_err(failed("read"))?;
        let zeros = vec![Pod(Counter::default()); values.len()];
        let zeros = PerCpuValues::try_from(zeros).expect("one value for each that was read");
        self.label_counters
            .set(slot, zeros, 0)
            .map_err(failed("write"))
    }
}
