//! Tunnels as they are probed and counted: how each other node is reached, and what went there and came
//! from there.

use std::collections::BTreeMap;

use aya::maps::MapError;
use sunwire_dataplane_common::entries::{Counter, direction};

use super::Dataplane;
use crate::{
    counters::sum,
    crypt::resolve,
    probes::{ProbeMap, Target},
    state::Desired,
};

/// What went through the tunnel to a node, inner frames since the maps were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// To the node.
    pub sent: Counter,
    /// From it.
    pub received: Counter,
}

impl Dataplane {
    /// The kernel's side of probes, for one who asks; `None` when it was taken before.
    #[must_use]
    pub fn take_probes(&mut self) -> Option<ProbeMap> {
        self.maps.probes.take().map(ProbeMap)
    }

    /// How the other nodes are reached by packets of workloads: encrypted where any network's are.
    #[must_use]
    pub fn probe_targets(&self, desired: &Desired, own: u32) -> BTreeMap<u32, Target> {
        let Some(own_node) = desired.nodes.get(&own) else {
            return BTreeMap::new();
        };
        // One without an agent does not answer.
        let others = desired
            .nodes
            .iter()
            .filter(|(number, node)| **number != own && !node.foreign);
        let entries = others.map(|(number, node)| {
            let peer = match resolve::wanted(desired, own_node, node) {
                true => self.maps.encrypted_peers.get(*number),
                false => self.maps.peers.get(*number),
            };
            let target = Target {
                peer,
                v6: self.maps.peers_v6.get(*number),
            };
            (*number, target)
        });
        entries.collect()
    }

    /// What went through the tunnels to the other nodes.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn traffic(&self, desired: &Desired, own: u32) -> Result<BTreeMap<u32, Traffic>, MapError> {
        let others = desired.nodes.keys().filter(|number| **number != own);
        let counted = |number: u32, direction: u32| {
            let slot = number * direction::ALL + direction;
            Ok::<_, MapError>(sum(&self.maps.tunnel_counters.get(&slot, 0)?))
        };
        let traffic = others.map(|number| {
            let traffic = Traffic {
                sent: counted(*number, direction::SENT)?,
                received: counted(*number, direction::RECEIVED)?,
            };
            Ok((*number, traffic))
        });
        traffic.collect()
    }
}
