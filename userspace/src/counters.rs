//! Totals of the per-CPU counters, by label and by drop reason.

use aya::maps::MapError;
use sunwire_dataplane_common::{drop_reason::DropReason, entries::Counter};

use crate::maps::Maps;

/// Packets and bytes under one label of one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelTotal {
    /// VNI of the network.
    pub vni: u32,
    /// The label.
    pub label: String,
    /// The total.
    pub total: Counter,
}

/// Totals since the maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// By label; every label that was ever in force.
    pub labels: Vec<LabelTotal>,
    /// By drop reason; only reasons that occurred.
    pub drops: Vec<(DropReason, Counter)>,
}

impl Totals {
    /// Reads the kernel's counters.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub(crate) fn read(maps: &Maps) -> Result<Self, MapError> {
        let mut totals = Totals::default();
        for (key, slot) in maps.labels.content() {
            let total = sum(&maps.label_counters, *slot)?;
            let length = key
                .text
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(key.text.len());
            let label = String::from_utf8_lossy(&key.text[..length]).into_owned();
            totals.labels.push(LabelTotal {
                vni: key.network,
                label,
                total,
            });
        }
        for reason in DropReason::ALL {
            let total = sum(&maps.drop_counters, *reason as u32)?;
            if total.packets > 0 {
                totals.drops.push((*reason, total));
            }
        }
        Ok(totals)
    }
}

fn sum(
    map: &aya::maps::PerCpuArray<aya::maps::MapData, crate::pod::Pod<Counter>>,
    slot: u32,
) -> Result<Counter, MapError> {
    let mut total = Counter::default();
    for value in map.get(&slot, 0)?.iter() {
        total.packets += value.0.packets;
        total.bytes += value.0.bytes;
    }
    Ok(total)
}
