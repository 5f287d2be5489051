//! The streams of agents, and what is known of nodes beyond what is agreed.
//!
//! Feeding never waits: a stream has a bounded queue, and one that is full is behind. It gets no
//! more deltas, but everything anew once its agent has taken something out. A revision that is
//! queued is outstanding until the agent acknowledges it or a later one; a node without
//! outstanding revisions has all that concerns it.

use std::collections::{BTreeMap, VecDeque};

use sunwire_api::{Name, NodeError, NodeStatus, Totals, agent};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::listening::Listening;
use crate::state::{NodeRecord, State};
use crate::wire;

/// Deltas that wait for a slow agent before it is behind.
pub(crate) const QUEUE_MAX: usize = 256;

/// What goes to an agent: messages, then perhaps why the stream ends.
pub(crate) type Feed = mpsc::Sender<Result<agent::ControllerMessage, Status>>;

/// A stream, and a way into it that does not keep it open.
pub(crate) type Way = (
    SessionId,
    mpsc::WeakSender<Result<agent::ControllerMessage, Status>>,
);

/// Names a stream for as long as the controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u64);

/// All streams, and all that nodes said.
#[derive(Default)]
pub(crate) struct Sessions {
    last_id: u64,
    nodes: BTreeMap<Name, NodeProgress>,
    listening: Listening,
}

/// What is known of a node's agent.
#[derive(Default)]
struct NodeProgress {
    session: Option<Session>,
    acknowledged: u64,
    error: Option<NodeError>,
    version: Option<String>,
    counters: agent::Counters,
}

/// A stream.
struct Session {
    id: SessionId,
    feed: Feed,
    /// Ends the task that reads the stream when it is dropped.
    _reader: oneshot::Sender<()>,
    /// Revisions that are queued and not answered, ascending.
    outstanding: VecDeque<u64>,
    /// It has missed a delta: it needs everything, as soon as there is room.
    behind: bool,
    /// The agent could not apply something and goes on from a state of its own choice: the next
    /// change reaches it as everything. Not at once, lest it fail in a circle.
    failed: bool,
}

impl Sessions {
    /// Begins a stream with everything at `state`'s revision. A stream that the node had is closed:
    /// the agent that connects is the one that runs.
    pub(crate) fn begin(
        &mut self,
        node: &Name,
        version: String,
        feed: Feed,
        reader: oneshot::Sender<()>,
        state: &State,
    ) -> SessionId {
        self.last_id += 1;
        let id = SessionId(self.last_id);
        let progress = self.nodes.entry(node.clone()).or_default();
        if let Some(old) = progress.session.take() {
            old.close(Status::aborted(format!(
                "another agent connected as node {node}"
            )));
        }
        progress.version = Some(version);
        let mut session = Session {
            id,
            feed,
            _reader: reader,
            outstanding: VecDeque::new(),
            behind: true,
            failed: false,
        };
        session.catch_up(state, &self.listening);
        progress.session = Some(session);
        // Another agent than the one that told has not told yet.
        let number = state.nodes().get(node).map(|record| record.number);
        if let Some(news) = number.and_then(|number| self.listening.gone(number)) {
            self.pass_on(&news);
        }
        id
    }

    /// A node says what is listened to there.
    pub(crate) fn listen(&mut self, node: &Name, report: agent::Listeners, state: &State) {
        if let Some(news) = self.listening.hear(node, report, state) {
            self.pass_on(&news);
        }
    }

    /// A node without a stream does not say what is listened to there.
    pub(crate) fn unheard(&mut self, node: &Name, number: Option<u32>) {
        if self.is_connected(node) {
            return;
        }
        if let Some(news) = number.and_then(|number| self.listening.gone(number)) {
            self.pass_on(&news);
        }
    }

    /// Queues a message without a revision for every agent.
    fn pass_on(&mut self, message: &agent::ControllerMessage) {
        let nodes = self.nodes.values_mut();
        for session in nodes.filter_map(|node| node.session.as_mut()) {
            if !session.behind && session.feed.try_send(Ok(message.clone())).is_err() {
                session.behind = true;
            }
        }
    }

    /// The stream has ended, at the controller's `revision`.
    pub(crate) fn end(&mut self, node: &Name, id: SessionId, revision: u64) {
        if let Some(progress) = self.nodes.get_mut(node)
            && progress
                .session
                .as_ref()
                .is_some_and(|session| session.id == id)
        {
            progress.acknowledged = progress.acknowledged_revision(revision);
            progress.session = None;
        }
    }

    /// Ends every stream.
    pub(crate) fn end_all(&mut self) {
        for progress in self.nodes.values_mut() {
            if let Some(session) = progress.session.take() {
                session.close(Status::unavailable("the controller is stopping"));
            }
        }
    }

    /// Forgets a node that was deleted.
    pub(crate) fn forget(&mut self, node: &Name) {
        self.nodes.remove(node);
    }

    /// Whether `id` is the node's stream.
    pub(crate) fn is_current(&self, node: &Name, id: SessionId) -> bool {
        let session = self.nodes.get(node).and_then(|node| node.session.as_ref());
        session.is_some_and(|session| session.id == id)
    }

    /// Whether the node has a stream.
    pub(crate) fn is_connected(&self, node: &Name) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|node| node.session.is_some())
    }

    /// The node's stream and the way into it, if it has one.
    pub(crate) fn way(&self, node: &Name) -> Option<Way> {
        let session = self.nodes.get(node)?.session.as_ref()?;
        Some((session.id, session.feed.downgrade()))
    }

    /// Queues a delta for every agent.
    pub(crate) fn publish(&mut self, revision: u64, delta: &agent::ControllerMessage) {
        for node in self.nodes.values_mut() {
            let Some(session) = node.session.as_mut() else {
                continue;
            };
            session.behind |= std::mem::take(&mut session.failed);
            if session.behind {
                continue;
            }
            if session.outstanding.is_empty() {
                // What came between did not concern agents.
                node.acknowledged = revision - 1;
            }
            match session.feed.try_send(Ok(delta.clone())) {
                Ok(()) => session.outstanding.push_back(revision),
                Err(_) => session.behind = true,
            }
        }
    }

    /// Feeds everything to agents that are behind and can take it. To be called after what
    /// changes that: deltas and acknowledgements.
    pub(crate) fn catch_up(&mut self, state: &State) {
        for session in self
            .nodes
            .values_mut()
            .filter_map(|node| node.session.as_mut())
        {
            if session.behind {
                session.catch_up(state, &self.listening);
            }
        }
    }

    /// An agent has answered a revision of those up to the controller's `revision`.
    pub(crate) fn acknowledge(&mut self, node: &Name, answer: agent::Acknowledge, revision: u64) {
        if answer.revision > revision {
            tracing::warn!(%node, answer.revision, "acknowledged a revision that never was");
            return;
        }
        let Some(progress) = self.nodes.get_mut(node) else {
            return;
        };
        let Some(session) = progress.session.as_mut() else {
            return;
        };
        if answer.error.is_empty() {
            session
                .outstanding
                .retain(|revision| *revision > answer.revision);
            progress.acknowledged = progress.acknowledged.max(answer.revision);
            progress.error = None;
            session.failed = false;
        } else {
            session.failed = true;
            progress.error = Some(NodeError {
                revision: answer.revision,
                detail: answer.error,
            });
        }
    }

    /// Keeps the counters that an agent reports: totals, so the last report is all there is.
    pub(crate) fn count(&mut self, node: &Name, counters: agent::Counters) {
        if let Some(progress) = self.nodes.get_mut(node) {
            progress.counters = counters;
        }
    }

    /// Counters as the agents last reported them.
    pub(crate) fn counters(&self) -> impl Iterator<Item = (&Name, &agent::Counters)> {
        self.nodes.iter().map(|(name, node)| (name, &node.counters))
    }

    /// Whether every connected node has answered everything up to `revision` that concerns it,
    /// be it with an error.
    pub(crate) fn all_answered(&self, revision: u64) -> bool {
        self.nodes.values().all(|node| {
            let Some(session) = &node.session else {
                return true;
            };
            let failed = node.error.as_ref().map_or(0, |error| error.revision);
            let behind = session.behind && failed < revision;
            let mut open = session.outstanding.iter();
            !behind && !open.any(|open| *open <= revision && *open > failed)
        })
    }

    /// What is known of a node.
    pub(crate) fn status(&self, name: &Name, record: &NodeRecord, state: &State) -> NodeStatus {
        let revision = state.revision();
        let unknown = NodeProgress::default();
        let node = self.nodes.get(name).unwrap_or(&unknown);
        let mut labelled = Totals::default();
        for counter in &node.counters.labels {
            labelled += Totals {
                packets: counter.packets,
                bytes: counter.bytes,
            };
        }
        let mut dropped = Totals::default();
        for counter in &node.counters.drops {
            dropped += Totals {
                packets: counter.packets,
                bytes: counter.bytes,
            };
        }
        NodeStatus {
            number: record.number,
            connected: node.session.is_some(),
            acknowledged_revision: node.acknowledged_revision(revision),
            error: node.error.clone(),
            agent_version: node.version.clone(),
            labelled,
            dropped,
            tunnels: wire::tunnels(state, &node.counters.tunnels),
        }
    }
}

impl NodeProgress {
    /// Up to which revision the node has everything that concerns it.
    fn acknowledged_revision(&self, revision: u64) -> u64 {
        match &self.session {
            Some(session) if !session.behind && session.outstanding.is_empty() => revision,
            _ => self.acknowledged,
        }
    }
}

impl Session {
    fn catch_up(&mut self, state: &State, listening: &Listening) {
        // Only once there is room: making a snapshot costs.
        if let Ok(mut room) = self.feed.try_reserve_many(2) {
            let listening = listening.whole();
            let messages = [Some(wire::snapshot(state)), listening];
            for (room, message) in room.by_ref().zip(messages.into_iter().flatten()) {
                room.send(Ok(message));
            }
            self.outstanding.push_back(state.revision());
            self.behind = false;
        }
    }

    fn close(self, why: Status) {
        // A full queue or a closed stream ends without the reason.
        let _ = self.feed.try_send(Err(why));
    }
}
