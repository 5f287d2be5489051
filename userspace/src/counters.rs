//! Totals of the per-CPU counters, by label and by drop reason.

use aya::maps::{MapError, PerCpuValues};
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{Counter, LabelKey, label_kind},
    group::copies,
    punt::Kind,
};

use crate::{maps::Maps, pod::Pod, wires::WireTotal};

/// Packets and bytes under one label of one network, or under a name of `count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTotal {
    /// VNI of the network.
    pub vni: u32,
    /// The label, or the name.
    pub label: String,
    /// The total.
    pub total: Counter,
}

/// Totals since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By label; every label that was ever in force or staged.
    pub labels: Vec<LabelTotal>,
    /// By name of `count`; every name that was ever in force or staged.
    pub counts: Vec<LabelTotal>,
    /// By drop reason; only reasons that occurred.
    pub drops: Vec<(DropReason, Counter)>,
    /// What was asked of the node; only kinds that occurred.
    pub asked: Vec<(Kind, Counter)>,
    /// What ends of wires sent here.
    pub wires: Vec<WireTotal>,
    /// Copies to endpoints of this node, of packets for several.
    pub local_copies: Counter,
    /// Copies to other nodes of such packets.
    pub tunnel_copies: Counter,
}

impl Totals {
    /// Reads the kernel's counters.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub(crate) fn read(maps: &Maps) -> Result<Self, MapError> {
        let mut totals = Totals::default();
        for (key, slot) in maps.labels.content() {
            let kind = match key.kind() {
                label_kind::LABEL => &mut totals.labels,
                label_kind::COUNT => &mut totals.counts,
                _ => continue,
            };
            kind.push(LabelTotal {
                vni: key.network(),
                label: label_text(key),
                total: sum(&maps.label_counters.get(slot, 0)?),
            });
        }
        for reason in DropReason::ALL {
            let total = sum(&maps.drop_counters.get(&(*reason as u32), 0)?);
            if total.packets > 0 {
                totals.drops.push((*reason, total));
            }
        }
        totals.wires = maps.wire_counters.read()?;
        totals.local_copies = sum(&maps.copy_counters.get(&copies::LOCAL, 0)?);
        totals.tunnel_copies = sum(&maps.copy_counters.get(&copies::TUNNEL, 0)?);
        for kind in Kind::ALL {
            let total = sum(&maps.punt_counters.get(&(*kind as u32), 0)?);
            if total.packets > 0 {
                totals.asked.push((*kind, total));
            }
        }
        Ok(totals)
    }
}

/// The text of a label.
pub(crate) fn label_text(key: &LabelKey) -> String {
    let length = key.text.iter().position(|byte| *byte == 0);
    let text = &key.text[..length.unwrap_or(key.text.len())];
    String::from_utf8_lossy(text).into_owned()
}

/// The sum over all CPUs.
pub(crate) fn sum(values: &PerCpuValues<Pod<Counter>>) -> Counter {
    let mut total = Counter::default();
    for value in values.iter() {
        total.packets += value.0.packets;
        total.bytes += value.0.bytes;
    }
    total
}
