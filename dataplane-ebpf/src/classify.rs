//! The policy's decision on a packet: address classes, then the walk of the flow tables.

use aya_ebpf::maps::{LpmTrie, lpm_trie::Key};
use sunwire_dataplane_common::{
    entries::{ClassKeyV4, ClassKeyV6, EndpointEntry, SourceClasses},
    flow_key::{Context, FlowKey},
    headers::{Family, Headers},
    tables::{EdgeKey, Next, RootKey, Tables, walk},
};

use crate::maps::{
    CLASSES_V4, CLASSES_V6, EDGES, NODES, ROOTS, STAGED_ROOTS, STAGED_V4, STAGED_V6,
};

/// The tables that policies in force and staged ones share.
struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn edge(&self, key: &EdgeKey) -> Option<Next> {
        // SAFETY: an edge is replaced whole and freed only after a grace period.
        unsafe { EDGES.get(key) }.copied()
    }

    #[inline(always)]
    fn node(&self, slot: u32) -> Option<Next> {
        NODES.get(slot).copied()
    }
}

/// No policy has anything to say of the packet: its network has none, or its address no class.
pub(crate) const NO_POLICY: u32 = u32::MAX;
/// The tables are incomplete.
pub(crate) const BAD_TABLES: u32 = u32::MAX - 1;

/// The slot in `VERDICTS` of the policy in force on a packet that entered at `endpoint`, or
/// [`NO_POLICY`] or [`BAD_TABLES`].
///
/// A function of its own, as is [`staged`]: one after the other they use the same stack, of which
/// there are 512 bytes in all. For the same reason an outcome is a number: it fits a register.
#[inline(never)]
pub(crate) fn in_force(
    headers: &Headers,
    endpoint: &EndpointEntry,
    generation: u32,
    node: u32,
) -> u32 {
    let own = &endpoint.classes;
    let find = |key| {
        // SAFETY: a root is replaced whole and freed only after a grace period.
        unsafe { ROOTS.get(key) }.copied()
    };
    let classes = (&CLASSES_V4, &CLASSES_V6, own);
    decide(headers, endpoint, classes, generation, node, find)
}

/// The slot in `VERDICTS` of the staged policy, as [`in_force`]; `number` is `Control::staged`.
#[inline(never)]
pub(crate) fn staged(headers: &Headers, endpoint: &EndpointEntry, number: u32, node: u32) -> u32 {
    let own = &endpoint.staged_classes;
    // SAFETY: as for the policy in force.
    let find = |key| unsafe { STAGED_ROOTS.get(key) }.map(|staged| staged.root);
    let classes = (&STAGED_V4, &STAGED_V6, own);
    decide(headers, endpoint, classes, number, node, find)
}

/// The class maps of a policy, and the classes of the endpoint itself.
type Classes<'a> = (
    &'static LpmTrie<ClassKeyV4, [u32; 2]>,
    &'static LpmTrie<ClassKeyV6, [u32; 2]>,
    &'a SourceClasses,
);

#[inline(always)]
fn decide(
    headers: &Headers,
    endpoint: &EndpointEntry,
    (classes_v4, classes_v6, own): Classes<'_>,
    generation: u32,
    node: u32,
    find_root: impl FnOnce(RootKey) -> Option<Next>,
) -> u32 {
    let parity = (generation & 1) as usize;
    let network = endpoint.network.to_be();
    // The source is the endpoint's own address, so its class needs no look-up.
    let (source_class, destination_class) = match headers.family {
        Family::V4 => {
            let address = headers.dst.0[0];
            let classes = classes_v4.get(Key::new(64, ClassKeyV4 { network, address }));
            let Some(classes) = classes else {
                return NO_POLICY;
            };
            (own.v4[parity], classes[parity])
        }
        Family::V6 => {
            let address = headers.dst;
            let classes = classes_v6.get(Key::new(160, ClassKeyV6 { network, address }));
            let Some(classes) = classes else {
                return NO_POLICY;
            };
            (own.v6[parity], classes[parity])
        }
        Family::None => (own.none[parity], own.none[parity]),
    };
    let key = FlowKey::new(
        headers,
        Context {
            source_class,
            destination_class,
            endpoint: endpoint.number,
            node,
        },
    );
    let root = find_root(RootKey {
        network: endpoint.network,
        generation,
    });
    match root {
        Some(root) => walk(&KernelTables, root, &key).unwrap_or(BAD_TABLES),
        None => NO_POLICY,
    }
}
