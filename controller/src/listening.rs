//! Who listens to which multicast groups, as agents report it: passed on to all nodes, and nowhere
//! kept but in memory.
//!
//! Workloads join and leave as they like, and report it again and again (RFC 3376, RFC 3810), so
//! nothing of it is agreed, and a controller that starts anew is told anew. Until then nodes send
//! everything to the nodes that have not told yet.
//!
//! What was reported of an endpoint stays when its node goes away or it moves: the node that it
//! comes to begins with it.

use std::collections::{BTreeMap, BTreeSet};

use sunwire_api::{
    Name,
    agent::{self, controller_message::Message},
};

use crate::state::State;

/// Groups of one endpoint; what a report has beyond them is left out. Agents refuse earlier.
const GROUPS_MAX: usize = 1024;

/// All that is known.
#[derive(Default)]
pub(crate) struct Listening {
    /// Groups by the number of their endpoint, as they travel.
    groups: BTreeMap<u32, Vec<Vec<u8>>>,
    /// Numbers of the nodes that tell.
    telling: BTreeSet<u32>,
}

impl Listening {
    /// Takes a node's report in; returns what is new for all nodes.
    ///
    /// Only the node where an endpoint is, or that it moves to or from, is heard of it.
    pub(crate) fn hear(
        &mut self,
        node: &Name,
        report: agent::Listeners,
        state: &State,
    ) -> Option<agent::ControllerMessage> {
        let number = state.nodes().get(node)?.number;
        let begins = self.telling.insert(number);
        let mut news = Vec::new();
        for listener in report.listeners {
            let name = listener.endpoint.parse::<Name>().ok();
            let endpoint = name.and_then(|name| state.endpoints().get(&name));
            let Some(endpoint) = endpoint.filter(|endpoint| {
                endpoint.node == *node || endpoint.moving_to.as_ref() == Some(node)
            }) else {
                // It was deleted or moved on meanwhile.
                continue;
            };
            let groups = listener.groups.into_iter().filter(|group| is_group(group));
            let groups: Vec<Vec<u8>> = groups.take(GROUPS_MAX).collect();
            if self.groups.get(&endpoint.number) != Some(&groups) {
                self.groups.insert(endpoint.number, groups.clone());
                let endpoint = endpoint.number;
                news.push(agent::listening::Listener { endpoint, groups });
            }
        }
        if self.groups.len() > state.endpoints().len() {
            self.forget_deleted(state);
        }
        let telling = begins.then(|| self.telling());
        (begins || !news.is_empty()).then(|| message(false, telling, news))
    }

    /// A node does not tell any more; returns what is new for all nodes.
    pub(crate) fn gone(&mut self, number: u32) -> Option<agent::ControllerMessage> {
        let told = self.telling.remove(&number);
        told.then(|| message(false, Some(self.telling()), Vec::new()))
    }

    /// Everything, for a node that knows nothing; `None` when there is nothing to know.
    pub(crate) fn whole(&self) -> Option<agent::ControllerMessage> {
        let groups = self.groups.iter();
        let groups = groups.map(|(endpoint, groups)| agent::listening::Listener {
            endpoint: *endpoint,
            groups: groups.clone(),
        });
        let is_empty = self.groups.is_empty() && self.telling.is_empty();
        (!is_empty).then(|| message(true, Some(self.telling()), groups.collect()))
    }

    fn telling(&self) -> agent::listening::Telling {
        agent::listening::Telling {
            nodes: self.telling.iter().copied().collect(),
        }
    }

    fn forget_deleted(&mut self, state: &State) {
        let endpoints = state.endpoints().values();
        let known: BTreeSet<u32> = endpoints.map(|endpoint| endpoint.number).collect();
        self.groups.retain(|number, _| known.contains(number));
    }
}

/// Whether bytes are those of a multicast address.
fn is_group(bytes: &[u8]) -> bool {
    match bytes {
        [first, ..] if bytes.len() == 4 => first >> 4 == 0xe,
        [first, ..] if bytes.len() == 16 => *first == 0xff,
        _ => false,
    }
}

fn message(
    whole: bool,
    telling: Option<agent::listening::Telling>,
    listeners: Vec<agent::listening::Listener>,
) -> agent::ControllerMessage {
    agent::ControllerMessage {
        message: Some(Message::Listening(agent::Listening {
            whole,
            telling,
            listeners,
        })),
    }
}
