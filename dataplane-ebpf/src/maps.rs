//! The maps, pinned by the agent under their own names.
//!
//! Sizes given here are the smallest useful ones; the agent sets the real ones at load.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
};
use sunwire_dataplane_common::{
    address::Address,
    audit::{AuditKey, StagedRoot},
    entries::{
        AddressKey, ClassKeyV4, ClassKeyV6, Control, Counter, EndpointEntry, IdKey, LabelKey,
        LocationEntry, NetworkEntry, PeerEntry, PeerEntryV6,
    },
    event::{EventLosses, EventRecord, EventSettings},
    expiry::Sweep,
    flow::{FlowEntry, TupleV4, TupleV6},
    flow_table::{Geometry, LINES_MIN, Line, LineAddresses},
    fragment::{FragmentKey, FragmentPorts},
    group::{GroupChunk, GroupKey, ListenerKey, TagKey, copies},
    headers::{Headers, Parsed},
    limit::LimitKey,
    outbound::{InsideKey, Mapping, Outbound, OutsideKey},
    probe::ProbeSlot,
    punt::PuntRecord,
    tables::{EdgeKey, Next, RootEntry, RootKey, Verdict},
    wire::WireEntry,
};

use crate::{classify::Question, group::Cast, lines::Wanted, outbound::Scratch};

#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static ENDPOINTS: Array<EndpointEntry> = Array::with_max_entries(4096, 0);
#[map]
pub(crate) static FOREIGN_ENDPOINTS: HashMap<u32, EndpointEntry> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static LOCATIONS: Array<LocationEntry> = Array::with_max_entries(4096, 0);
#[map]
pub(crate) static PEERS: Array<PeerEntry> = Array::with_max_entries(256, 0);
#[map]
pub(crate) static PEERS_V6: Array<PeerEntryV6> = Array::with_max_entries(256, 0);
#[map]
pub(crate) static ENCRYPTED_PEERS: Array<PeerEntry> = Array::with_max_entries(256, 0);

/// The same for packets of networks that are encrypted nowhere.
#[map]
pub(crate) static PLAIN_PEERS: Array<PeerEntry> = Array::with_max_entries(256, 0);
#[map]
pub(crate) static NETWORKS: HashMap<u32, NetworkEntry> = HashMap::with_max_entries(256, 0);
#[map]
pub(crate) static OWNERS: HashMap<AddressKey, u32> = HashMap::with_max_entries(4096, 0);
#[map]
pub(crate) static PEER_ADDRESSES: HashMap<Address, u32> = HashMap::with_max_entries(256, 0);
#[map]
pub(crate) static CLASSES_V4: LpmTrie<ClassKeyV4, [u32; 2]> =
    LpmTrie::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CLASSES_V6: LpmTrie<ClassKeyV6, [u32; 2]> =
    LpmTrie::with_max_entries(4096, BPF_F_NO_PREALLOC);
// Subnets of a network's peers, with the VNIs of those: see `routes`.
#[map]
pub(crate) static ROUTES_V4: LpmTrie<ClassKeyV4, u32> =
    LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ROUTES_V6: LpmTrie<ClassKeyV6, u32> =
    LpmTrie::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static ROOTS: HashMap<RootKey, RootEntry> = HashMap::with_max_entries(512, 0);
// Not preallocated: room for the largest policy costs nothing until there is one.
#[map]
pub(crate) static EDGES: HashMap<EdgeKey, Next> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static NODES: Array<Next> = Array::with_max_entries(4096, 0);
#[map]
pub(crate) static VERDICTS: Array<Verdict> = Array::with_max_entries(1024, 0);
#[map]
pub(crate) static LABEL_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(1024, 0);
#[map]
pub(crate) static DROP_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(64, 0);
// What is remembered of flows: see `flow` and `lines`.
#[map]
pub(crate) static FLOW_TABLE: Array<Geometry> = Array::with_max_entries(1, 0);
// Mappable because the values then begin at a page, so that each line is one of the processor's caches.
#[map]
pub(crate) static FLOWS: Array<Line> = Array::with_max_entries(LINES_MIN, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOW_ADDRESSES: Array<LineAddresses> =
    Array::with_max_entries(LINES_MIN, BPF_F_MMAPABLE);
#[map]
pub(crate) static WANTED: PerCpuArray<Wanted> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub(crate) static OVERFLOW_V4: LruHashMap<TupleV4, FlowEntry> =
    LruHashMap::with_max_entries(1024, 0);
#[map]
pub(crate) static OVERFLOW_V6: LruHashMap<TupleV6, FlowEntry> =
    LruHashMap::with_max_entries(1024, 0);
// Not zero from when there was no room on, until the agent sees that there is.
#[map]
pub(crate) static OVERFLOWED: Array<u32> = Array::with_max_entries(1, 0);
// Flows for which there was no room.
#[map]
pub(crate) static OVERFLOW_COUNTER: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
// When the buckets of rates are full, those that are shared when there is no room, and packets for
// which there was none: see `limit`.
#[map]
pub(crate) static LIMIT_BUCKETS: HashMap<LimitKey, u64> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static LIMIT_SHARED: Array<u64> = Array::with_max_entries(1024, 0);
#[map]
pub(crate) static LIMIT_LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static LIMIT_KEY: PerCpuArray<LimitKey> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> =
    LruHashMap::with_max_entries(4096, 0);
// What a sweep of the flows goes by and finds, and flows on their way to the agent: see `sweep`.
#[map]
pub(crate) static SWEEP: Array<Sweep> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static FLOW_RECORDS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
// Memory that a program uses while it runs.
#[map]
pub(crate) static SCRATCH: PerCpuArray<FlowEntry> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub(crate) static PACKET: PerCpuArray<Parsed> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static INNER: PerCpuArray<Headers> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static QUESTION: PerCpuArray<Question> = PerCpuArray::with_max_entries(1, 0);
// What a staged policy has beside the tables, and what is counted of it: see `audit`.
#[map]
pub(crate) static STAGED_V4: LpmTrie<ClassKeyV4, [u32; 2]> =
    LpmTrie::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static STAGED_V6: LpmTrie<ClassKeyV6, [u32; 2]> =
    LpmTrie::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static STAGED_ROOTS: HashMap<RootKey, StagedRoot> = HashMap::with_max_entries(512, 0);
// Preallocated: a pair of labels that comes up in a burst must not fail for want of memory.
#[map]
pub(crate) static AUDIT: PerCpuHashMap<AuditKey, Counter> =
    PerCpuHashMap::with_max_entries(1024, 0);
// What became of packets, for whoever listens: see `event`.
#[map]
pub(crate) static EVENT_SETTINGS: Array<EventSettings> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static EVENT_LOSSES: PerCpuArray<EventLosses> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static EVENT_RECORDS: PerCpuArray<EventRecord> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
#[map]
pub(crate) static CAPTURED: RingBuf = RingBuf::with_byte_size(1 << 22, 0);
// Questions to other nodes that wait for an answer: see `probe`.
#[map]
pub(crate) static PROBES: Array<ProbeSlot> = Array::with_max_entries(2048, 0);
// Packets to and from other nodes: see `counters`.
#[map]
pub(crate) static TUNNEL_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(512, 0);
// What is asked of the node: see `punt`.
#[map]
pub(crate) static PUNTS: RingBuf = RingBuf::with_byte_size(4096, 0);
#[map]
pub(crate) static PUNT_BUCKETS: Array<u64> = Array::with_max_entries(4096, 0);
#[map]
pub(crate) static PUNT_SCRATCH: PerCpuArray<PuntRecord> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static PUNT_COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(32, 0);
// Point-to-point connectors, and what their ends sent: see `wire`.
#[map]
pub(crate) static WIRES: HashMap<u32, WireEntry> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static WIRE_COUNTERS: PerCpuHashMap<u32, Counter> =
    PerCpuHashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
// Sets of endpoints that one packet goes to: see `group`.
#[map]
pub(crate) static GROUPS: HashMap<GroupKey, GroupChunk> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static GROUP_TAGS: HashMap<TagKey, u32> = HashMap::with_max_entries(1024, 0);
#[map]
pub(crate) static LISTENERS: HashMap<ListenerKey, u32> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static CAST: PerCpuArray<Cast> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static COPY_COUNTERS: PerCpuArray<Counter> =
    PerCpuArray::with_max_entries(copies::SLOTS, 0);
// The two maps below are the agent's own memory: the programs never read them. They are pinned with
// the others, so that a restarted agent gives out the same numbers.
#[map]
pub(crate) static IDS: HashMap<IdKey, u32> = HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static LABELS: HashMap<LabelKey, u32> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
// Packets that leave the cloud here, and what comes back: see `outbound`.
#[map]
pub(crate) static OUTBOUND: Array<Outbound> = Array::with_max_entries(1, 0);
#[map]
pub(crate) static INSIDE: HashMap<InsideKey, u32> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static OUTSIDE: HashMap<OutsideKey, Mapping> =
    HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);
#[map]
pub(crate) static OUTBOUND_SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);
