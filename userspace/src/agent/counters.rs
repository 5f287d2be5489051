//! What is counted on this node, told to the controller and to who scrapes.

use std::collections::BTreeMap;

use sunwire_api::agent::agent_message;
use sunwire_dataplane_common::drop_reason::DropReason;

use super::{Agent, chain};
use crate::{dataplane::Attachment, metrics::Readings, report};

impl Agent {
    /// Reads all counters, for who scrapes and for the controller.
    pub(super) async fn read_counters(&mut self) {
        let refused = self.services.refused();
        let unheard = self.services.unheard();
        let read = self.dataplane.totals().and_then(|mut totals| {
            if refused.packets > 0 {
                totals.drops.push((DropReason::PuntMalformed, refused));
            }
            if unheard.packets > 0 {
                totals.drops.push((DropReason::TooManyGroups, unheard));
            }
            Ok((totals, self.dataplane.audit()?))
        });
        let (totals, staged) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "counters cannot be read");
                return;
            }
        };
        self.look_at_tunnels();
        let readings = Readings {
            counters: report::counters(
                totals,
                staged,
                self.tunnels.clone(),
                self.keeper.unsent_packets(),
            ),
            ..self.readings()
        };
        let counters = self.stream.is_some().then(|| readings.counters.clone());
        self.board.post(readings);
        if let Some(counters) = counters {
            self.send(agent_message::Message::Counters(counters)).await;
        }
    }

    /// What there is to tell beside counters.
    fn readings(&self) -> Readings {
        let mut endpoints = BTreeMap::from([("attached", 0), ("absent", 0), ("failed", 0)]);
        for attachment in self.attachments.values() {
            let state = match attachment {
                Attachment::Attached { .. } => "attached",
                Attachment::Absent => "absent",
                Attachment::Failed(_) => "failed",
            };
            *endpoints.entry(state).or_default() += 1;
        }
        let desired = || self.desired.iter();
        let networks = desired().flat_map(|desired| &desired.networks);
        let nodes = desired().flat_map(|desired| &desired.nodes);
        let wires = desired().flat_map(|desired| {
            let end = |number: u32| {
                let endpoint = desired.endpoints.get(&number);
                endpoint.map_or_else(|| number.to_string(), |endpoint| endpoint.name.clone())
            };
            let wires = desired.wires.iter();
            wires.map(move |(number, wire)| (number, (wire.name.clone(), wire.ends.map(end))))
        });
        Readings {
            wires: wires.collect(),
            node: self.config.node.clone(),
            is_connected: self.stream.is_some(),
            revision: self.revision,
            generation: self.dataplane.generation(),
            endpoints,
            flows: self.connections.usage(),
            networks: networks
                .map(|(vni, network)| (*vni, network.name.clone()))
                .collect(),
            nodes: nodes
                .map(|(number, node)| (*number, node.name.clone()))
                .collect(),
            ..Readings::default()
        }
    }
}
