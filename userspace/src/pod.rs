//! The kernel layouts of `dataplane-common`, as types that may be copied to and from the kernel
//! byte by byte. With `crypt/sys.rs`, `netlink/ethtool.rs` and `programs/link.rs` the only unsafe code of this
//! crate.

use sunwire_dataplane_common::{
    address::Address,
    audit::{AuditKey, StagedRoot},
    entries::{
        AddressKey, ClassKeyV4, ClassKeyV6, Control, Counter, EndpointEntry, IdKey, LabelKey,
        LocationEntry, NetworkEntry, PeerEntry, PeerEntryV6,
    },
    event::{EventLosses, EventSettings},
    expiry::Sweep,
    flow_table::Geometry,
    group::{GroupChunk, GroupKey, ListenerKey, TagKey},
    outbound::Outbound,
    probe::ProbeSlot,
    tables::{EdgeKey, Next, RootEntry, RootKey, Verdict},
    wire::WireEntry,
};

/// A value in its kernel layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Pod<T>(pub T);

macro_rules! pod {
    ($($type:ty),+ $(,)?) => {
        $(
            // SAFETY: `repr(C)` (or an integer) made of integers only, so every bit pattern is
            // valid; padding is explicit and the size asserted where the type is defined, so no
            // uninitialised byte is read. `Pod` is `repr(transparent)`.
            unsafe impl aya::Pod for Pod<$type> {}
        )+
    };
}

pod!(
    u32,
    u64,
    [u32; 2],
    Address,
    AddressKey,
    AuditKey,
    ClassKeyV4,
    ClassKeyV6,
    Control,
    Counter,
    EdgeKey,
    EndpointEntry,
    EventLosses,
    EventSettings,
    Geometry,
    GroupChunk,
    GroupKey,
    IdKey,
    LabelKey,
    ListenerKey,
    LocationEntry,
    NetworkEntry,
    Outbound,
    Next,
    PeerEntry,
    PeerEntryV6,
    ProbeSlot,
    RootEntry,
    RootKey,
    StagedRoot,
    Sweep,
    TagKey,
    Verdict,
    WireEntry,
);
