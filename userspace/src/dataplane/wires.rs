//! Wires in the kernel.

use sunwire_dataplane_common::{entries::EndpointEntry, wire::WireEntry};

use super::{Dataplane, expected};
use crate::{shadow::ShadowError, state::Desired};

impl Dataplane {
    /// Writes the wires there are, and takes away those that are gone: from here on they carry
    /// nothing on this node, in either direction.
    pub(super) fn write_wires(&mut self, desired: &Desired, own: u32) -> Result<(), ShadowError> {
        self.maps
            .wires
            .retain(|number| desired.wires.get(*number).is_some())?;
        let endpoints: Vec<(u32, EndpointEntry)> = self
            .maps
            .endpoints
            .content()
            .iter()
            .map(|(ifindex, entry)| (*ifindex, *entry))
            .collect();
        for (ifindex, entry) in endpoints {
            let wire = desired.wires.of(entry.number).unwrap_or(0);
            if entry.wire != 0 && entry.wire != wire {
                self.maps
                    .endpoints
                    .set(ifindex, EndpointEntry { wire: 0, ..entry })?;
            }
        }
        let maps = &mut self.maps;
        maps.wire_counters
            .retain(|number| desired.wires.get(number).is_some())?;
        for (number, wire) in desired.wires.iter() {
            let mut ends = wire.ends.iter();
            let is_here = |end: &u32| {
                let endpoint = desired.endpoints.get(end);
                endpoint.is_some_and(|endpoint| expected(endpoint, own))
            };
            if ends.any(is_here) {
                maps.wire_counters.begin(number)?;
            }
            let entry = WireEntry {
                network: wire.vni,
                ends: wire.ends,
            };
            maps.wires.set(number, entry)?;
        }
        Ok(())
    }
}
