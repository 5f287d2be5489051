//! The policy's decision on a packet: address classes, then the walk of the flow tables.

use aya_ebpf::maps::lpm_trie::Key;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{ClassKeyV4, ClassKeyV6, Control, EndpointEntry},
    flow_key::{Context, FlowKey},
    headers::{Family, Headers},
    tables::{EdgeKey, Next, RootKey, Tables, walk},
};

use crate::maps::{CLASSES_V4, CLASSES_V6, EDGES, NODES, ROOTS};

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

/// The slot of the verdict on a packet that entered at `endpoint`.
#[inline(always)]
pub(crate) fn verdict(
    headers: &Headers,
    endpoint: &EndpointEntry,
    control: Control,
) -> Result<u32, DropReason> {
    let parity = (control.generation & 1) as usize;
    let network = endpoint.network.to_be();
    // The source is the endpoint's own address, so its class needs no look-up.
    let (source_class, destination_class) = match headers.family {
        Family::V4 => {
            let address = headers.dst.0[0];
            let classes = CLASSES_V4.get(Key::new(64, ClassKeyV4 { network, address }));
            (
                endpoint.class_v4[parity],
                classes.ok_or(DropReason::NoPolicy)?[parity],
            )
        }
        Family::V6 => {
            let classes = CLASSES_V6.get(Key::new(
                160,
                ClassKeyV6 {
                    network,
                    address: headers.dst,
                },
            ));
            (
                endpoint.class_v6[parity],
                classes.ok_or(DropReason::NoPolicy)?[parity],
            )
        }
        Family::None => (endpoint.class_none[parity], endpoint.class_none[parity]),
    };
    let key = FlowKey::new(
        headers,
        Context {
            source_class,
            destination_class,
            endpoint: endpoint.number,
            node: control.node,
        },
    );
    let root_key = RootKey {
        network: endpoint.network,
        generation: control.generation,
    };
    // SAFETY: as for edges.
    let root = unsafe { ROOTS.get(root_key) }
        .copied()
        .ok_or(DropReason::NoPolicy)?;
    walk(&KernelTables, root, &key).ok_or(DropReason::BadTables)
}
