//! Who listens to multicast: from workloads to the kernel and the controller, and from the
//! controller to the kernel.

use std::collections::BTreeSet;
use sunwire_api::agent::{self as wire, agent_message};
use tokio::time::Duration;

use super::{Agent, chain, own_number};
use crate::groups::listeners::{Groups, Known, from_bytes, to_bytes};

/// What the agent knows, and what it has told of it.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// What it knows.
    pub(super) known: Known,
    /// What it has told of endpoints here in this stream; `None` when it has told nothing.
    reported: Option<Groups>,
}

/// How long workloads are heard before what they said is told on: one that joins and leaves without
/// end makes no more work than this.
pub(super) const HEAR_FOR: Duration = Duration::from_millis(100);

impl Agent {
    /// Takes in what the controller tells of endpoints.
    pub(super) async fn learn_listeners(&mut self, listening: wire::Listening) {
        let telling = self.listeners.known.telling.clone();
        if listening.whole {
            // What this node knows of its own endpoints the controller may have forgotten.
            let desired = self.desired.as_ref();
            let own = desired.and_then(|desired| own_number(desired, &self.config.node));
            self.listeners.known.told.retain(|number, _| {
                let endpoint = desired.and_then(|desired| desired.endpoints.get(number));
                endpoint.is_some_and(|endpoint| Some(endpoint.node) == own)
            });
        }
        if let Some(telling) = listening.telling {
            self.listeners.known.telling = telling.nodes.into_iter().collect();
        }
        for listener in listening.listeners {
            let groups = listener.groups.iter().filter_map(|group| from_bytes(group));
            self.listeners
                .known
                .told
                .insert(listener.endpoint, groups.collect());
        }
        self.services.seed(self.listeners.known.told.clone());
        self.relisten(&telling).await;
    }

    /// The controller is away: what other nodes would tell is not known any more.
    pub(super) async fn forget_telling(&mut self) {
        let telling = std::mem::take(&mut self.listeners.known.telling);
        self.listeners.reported = None;
        self.relisten(&telling).await;
    }

    /// Goes by who tells now, where it were these before.
    async fn relisten(&mut self, telling: &BTreeSet<u32>) {
        let desired = self.desired.as_ref();
        let mut networks = desired.iter().flat_map(|desired| desired.networks.values());
        if *telling != self.listeners.known.telling && networks.any(|network| network.relayed) {
            // Other nodes are asked to send on.
            self.apply().await;
        } else {
            self.listen();
        }
    }

    /// Lets the kernel send multicast to who listens.
    pub(super) fn listen(&mut self) {
        let Some(desired) = &self.desired else { return };
        let Some(own) = own_number(desired, &self.config.node) else {
            return;
        };
        if let Err(error) = self.dataplane.listen(&self.listeners.known, desired, own) {
            tracing::error!(error = %chain(&error), "multicast does not go where it is listened to");
        }
    }

    /// Takes in what workloads said.
    pub(super) async fn hear_listeners(&mut self, heard: Groups) {
        self.listeners.known.heard = heard;
        self.listen();
        self.report_listeners().await;
    }

    /// Tells the controller what it does not know yet.
    pub(super) async fn report_listeners(&mut self) {
        if self.stream.is_none() {
            return;
        }
        let Some(desired) = &self.desired else { return };
        let heard = &self.listeners.known.heard;
        let is_first = self.listeners.reported.is_none();
        let reported = self.listeners.reported.get_or_insert_default();
        reported.retain(|number, _| heard.contains_key(number));
        let mut listeners = Vec::new();
        for (number, groups) in heard {
            let Some(endpoint) = desired.endpoints.get(number) else {
                continue;
            };
            if reported.get(number) != Some(groups) {
                reported.insert(*number, groups.clone());
                listeners.push(wire::listeners::Listener {
                    endpoint: endpoint.name.clone(),
                    groups: groups.iter().copied().map(to_bytes).collect(),
                });
            }
        }
        if is_first || !listeners.is_empty() {
            let report = wire::Listeners { listeners };
            self.send(agent_message::Message::Listeners(report)).await;
        }
    }
}
