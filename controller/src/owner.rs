//! The one thread that owns the state: proposals come by a channel and are answered once they are
//! durable.
//!
//! ```text
//! REST, agents --Message--> apply to the state --> pending --> one durable append --> deltas to
//!                                (in memory)        (batch)                           agents, answers
//! ```
//! Nobody sees a state that could be lost: reads wait for the append of what was applied before
//! them, and refusals too, since what refuses may be pending. A thread and not a task, because an
//! append waits for the disk.

use sunwire_api::{Name, ProblemCode, agent};
use tokio::sync::{mpsc, oneshot, watch};

use crate::audit::Audit;
use crate::command::{Command, Entry, Proposal};
use crate::effects::Effects;
use crate::examine::Prepared;
use crate::grpc;
use crate::log::{Log, LogError};
use crate::refusal::Refusal;
use crate::report;
use crate::sessions::{Feed, SessionId, Sessions};
use crate::state::State;
use crate::wire;

/// Proposals that wait before those who propose have to.
pub(crate) const MESSAGES_MAX: usize = 1024;
/// Entries that are made durable together at most.
const BATCH_MAX: usize = 128;
/// Entries after which a snapshot takes their place.
const COMPACT_AFTER: u64 = 1024;

/// Runs with what is agreed and what is known of agents.
pub(crate) type Reader = Box<dyn FnOnce(&Cluster) + Send>;
/// Takes the outcome of a proposal and returns what is to be done once it is durable.
pub(crate) type Answer = Box<dyn FnOnce(Result<(&Cluster, &Effects), Refusal>) -> Deferred + Send>;
/// Sends an answer.
pub(crate) type Deferred = Box<dyn FnOnce() + Send>;

/// What the owner is asked to do.
pub(crate) enum Message {
    /// Apply a proposal, with policies that were examined beforehand.
    Propose(Proposal, Option<Prepared>, Answer),
    /// Read.
    Read(Reader),
    /// An agent connects.
    Hello(Hello),
    /// An agent says something.
    Said(Name, SessionId, agent::AgentMessage),
    /// A stream has ended.
    Gone(Name, SessionId),
    /// Stop, with everything durable.
    Stop,
}

/// An agent that connects.
pub(crate) struct Hello {
    /// Registers the node.
    pub(crate) register: Proposal,
    /// What that means for policies, examined beforehand.
    pub(crate) prepared: Option<Prepared>,
    /// The node.
    pub(crate) node: Name,
    /// Version of the agent.
    pub(crate) version: String,
    /// Where to feed it.
    pub(crate) feed: Feed,
    /// Dropped to end the task that reads the stream.
    pub(crate) reader: oneshot::Sender<()>,
    /// Whether it may stay.
    pub(crate) answer: oneshot::Sender<Result<SessionId, Refusal>>,
}

/// What is agreed, and what is known of agents.
pub(crate) struct Cluster {
    /// What is agreed.
    pub(crate) state: State,
    /// What is known of agents.
    pub(crate) sessions: Sessions,
    /// What agents have counted of staged candidates.
    pub(crate) audit: Audit,
}

/// Changes whenever something that can be waited for may have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tick {
    count: u64,
    /// The controller is stopping: nothing will happen any more.
    pub(crate) stopping: bool,
}

/// The owner, before its thread runs.
pub(crate) struct Owner {
    cluster: Cluster,
    log: Box<dyn Log>,
    ticks: watch::Sender<Tick>,
    /// Applied and not durable.
    entries: Vec<Entry>,
    deltas: Vec<(u64, agent::ControllerMessage)>,
    deferred: Vec<Deferred>,
}

impl Owner {
    pub(crate) fn new(state: State, log: Box<dyn Log>, ticks: watch::Sender<Tick>) -> Self {
        Owner {
            cluster: Cluster {
                state,
                sessions: Sessions::default(),
                audit: Audit::default(),
            },
            log,
            ticks,
            entries: Vec::new(),
            deltas: Vec::new(),
            deferred: Vec::new(),
        }
    }

    /// Serves until it is told to stop or nobody is left to tell it.
    ///
    /// # Errors
    /// The log failed: what is pending is unanswered, and whether it is durable is unknown.
    pub(crate) fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Result<(), LogError> {
        let outcome = self.serve(&mut messages);
        self.cluster.sessions.end_all();
        self.ticks.send_modify(|tick| tick.stopping = true);
        outcome
    }

    fn serve(&mut self, messages: &mut mpsc::Receiver<Message>) -> Result<(), LogError> {
        while let Some(message) = messages.blocking_recv() {
            let mut next = Some(message);
            while let Some(message) = next {
                if matches!(message, Message::Stop) {
                    self.flush()?;
                    return self.log.compact(&self.cluster.state);
                }
                self.handle(message)?;
                if self.entries.len() >= BATCH_MAX {
                    self.flush()?;
                }
                next = messages.try_recv().ok();
            }
            self.flush()?;
        }
        Ok(())
    }

    fn handle(&mut self, message: Message) -> Result<(), LogError> {
        match message {
            Message::Propose(proposal, prepared, answer) => {
                let outcome = self.apply(proposal, prepared.as_ref());
                let deferred = match &outcome {
                    Ok(effects) => answer(Ok((&self.cluster, effects))),
                    Err(refusal) => answer(Err(refusal.clone())),
                };
                self.deferred.push(deferred);
            }
            Message::Read(read) => {
                self.flush()?;
                read(&self.cluster);
            }
            Message::Hello(hello) => self.hello(hello)?,
            Message::Said(node, session, said) => self.said(&node, session, said),
            Message::Gone(node, session) => {
                self.flush()?;
                let revision = self.cluster.state.revision();
                let state = &self.cluster.state;
                let number = state.nodes().get(&node).map(|record| record.number);
                self.cluster.sessions.end(&node, session, revision);
                self.cluster.sessions.unheard(&node, number);
                self.tick();
            }
            Message::Stop => unreachable!("the loop has ended"),
        }
        Ok(())
    }

    /// Applies a proposal; what it changed is pending until the next flush.
    fn apply(
        &mut self,
        proposal: Proposal,
        prepared: Option<&Prepared>,
    ) -> Result<Effects, Refusal> {
        let deleted = match &proposal.command {
            Command::DeleteNode { name } if self.cluster.sessions.is_connected(name) => {
                return Err(Refusal::new(
                    ProblemCode::NodeConnected,
                    format!("the agent of node {name} is connected: stop it first"),
                ));
            }
            Command::DeleteNode { name } => Some(name.clone()),
            _ => None,
        };
        let effects = match prepared {
            Some(prepared) => self.cluster.state.apply_prepared(&proposal, prepared)?,
            None => self.cluster.state.apply(&proposal)?,
        };
        if effects.repeated {
            return Ok(effects);
        }
        for network in effects.staged.keys() {
            self.cluster.audit.forget_network(network);
        }
        if effects.concern_agents() {
            let delta = wire::delta(&self.cluster.state, &effects);
            self.deltas.push((effects.revision, delta));
        }
        self.entries.push(Entry {
            revision: effects.revision,
            proposal,
            outcome: Some(effects.outcome.clone()),
        });
        if let Some(node) = deleted {
            self.cluster.sessions.forget(&node);
            self.cluster.audit.forget_node(&node);
        }
        Ok(effects)
    }

    /// Makes what is pending durable, and then tells.
    fn flush(&mut self) -> Result<(), LogError> {
        let changed = !self.entries.is_empty();
        if changed {
            self.log.append(&self.entries)?;
            self.entries.clear();
            for (revision, delta) in self.deltas.drain(..) {
                self.cluster.sessions.publish(revision, &delta);
            }
            self.cluster.sessions.catch_up(&self.cluster.state);
        }
        for answer in self.deferred.drain(..) {
            answer();
        }
        if changed {
            self.tick();
            if self.log.entries_since_snapshot() >= COMPACT_AFTER {
                self.log.compact(&self.cluster.state)?;
            }
        }
        Ok(())
    }

    fn hello(&mut self, hello: Hello) -> Result<(), LogError> {
        let outcome = self.register(&hello);
        // The snapshot holds only what is durable.
        self.flush()?;
        let answer = outcome.map(|()| {
            self.cluster.sessions.begin(
                &hello.node,
                hello.version,
                hello.feed,
                hello.reader,
                &self.cluster.state,
            )
        });
        let gone = match &answer {
            Ok(session) => Some(*session),
            Err(_) => None,
        };
        if hello.answer.send(answer).is_err()
            && let Some(session) = gone
        {
            let revision = self.cluster.state.revision();
            self.cluster.sessions.end(&hello.node, session, revision);
        }
        self.tick();
        Ok(())
    }

    /// Registers a node, and refuses one whose name is at work at another address.
    fn register(&mut self, hello: &Hello) -> Result<(), Refusal> {
        if let Command::RegisterNode {
            underlay_address,
            underlay_address_v6,
            ..
        } = &hello.register.command
            && let Some(known) = self.cluster.state.nodes().get(&hello.node)
            && (known.underlay_address, known.underlay_address_v6)
                != (*underlay_address, *underlay_address_v6)
            && self.cluster.sessions.is_connected(&hello.node)
        {
            return Err(Refusal::new(
                ProblemCode::NodeConnected,
                format!(
                    "an agent is connected as node {} from {}: give this node another name, or \
                     stop that agent",
                    hello.node,
                    known.addresses_text()
                ),
            ));
        }
        let outcome = match self.apply(hello.register.clone(), hello.prepared.as_ref()) {
            Err(Refusal::Stale) => self.apply(hello.register.clone(), None),
            outcome => outcome,
        };
        match outcome {
            Ok(_) | Err(Refusal::Unchanged) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    fn said(&mut self, node: &Name, session: SessionId, said: agent::AgentMessage) {
        if !self.cluster.sessions.is_current(node, session) {
            return;
        }
        match said.message {
            Some(agent::agent_message::Message::Acknowledge(answer)) => {
                let revision = self.cluster.state.revision();
                self.cluster.sessions.acknowledge(node, answer, revision);
                if self.entries.is_empty() {
                    self.cluster.sessions.catch_up(&self.cluster.state);
                }
                self.tick();
            }
            Some(agent::agent_message::Message::Endpoint(report)) => {
                let command = report::command(&self.cluster.state, node, &report);
                if let Some(command) = command {
                    match self.apply(Proposal::internal(command), None) {
                        Ok(_) | Err(Refusal::Unchanged) => {}
                        Err(refusal) => {
                            tracing::warn!(%node, %refusal, "an agent's report was refused");
                        }
                    }
                }
            }
            Some(agent::agent_message::Message::Counters(mut counters)) => {
                for staged in std::mem::take(&mut counters.staged) {
                    let revision = staged.revision;
                    let audited = wire::audited(&self.cluster.state, staged);
                    if let Some((network, counts)) = audited {
                        let audit = &mut self.cluster.audit;
                        audit.report(&network, node, revision, counts);
                    }
                }
                self.cluster.sessions.count(node, counters);
                self.tick();
            }
            Some(agent::agent_message::Message::Listeners(report)) => {
                let state = &self.cluster.state;
                self.cluster.sessions.listen(node, report, state);
            }
            Some(agent::agent_message::Message::Keys(keys)) => {
                let command = grpc::public_keys(&keys.public_keys).map(|public_keys| {
                    let name = node.clone();
                    Command::SetNodeKeys { name, public_keys }
                });
                match command.map(|command| self.apply(Proposal::internal(command), None)) {
                    Ok(Ok(_) | Err(Refusal::Unchanged)) => {}
                    Ok(Err(refusal)) => tracing::warn!(%node, %refusal, "keys were refused"),
                    Err(error) => tracing::warn!(%node, error, "keys were refused"),
                }
            }
            // Answers have gone past here.
            Some(
                agent::agent_message::Message::Hello(_) | agent::agent_message::Message::Answer(_),
            )
            | None => {
                tracing::warn!(%node, "an agent said something out of place");
            }
        }
    }

    fn tick(&self) {
        self.ticks.send_modify(|tick| tick.count += 1);
    }
}
