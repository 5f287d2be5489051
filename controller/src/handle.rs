//! How servers reach the owner of the state.

use std::sync::Arc;
use std::time::Duration;

use sunwire_api::{Name, Problem, ProblemCode, Question};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::beside::Beside;
use crate::command::Proposal;
use crate::effects::Effects;
use crate::examine::Prepared;
use crate::owner::{Cluster, Message, Tick};
use crate::questions::{Answers, Questions};
use crate::refusal::Refusal;

/// How often policies are examined beforehand for a change that others keep crossing.
const PREPARED_ATTEMPTS: usize = 3;

/// A way to the owner.
#[derive(Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<Message>,
    ticks: watch::Receiver<Tick>,
    examining: Arc<Mutex<()>>,
    beside: Beside,
    questions: Questions,
}

impl Handle {
    pub(crate) fn new(messages: mpsc::Sender<Message>, ticks: watch::Receiver<Tick>) -> Self {
        Handle {
            messages,
            ticks,
            examining: Arc::default(),
            beside: Beside::default(),
            questions: Questions::default(),
        }
    }

    /// Changes whenever something may have happened.
    pub(crate) fn ticks(&self) -> watch::Receiver<Tick> {
        self.ticks.clone()
    }

    /// Where long work is done that changes nothing.
    pub(crate) fn beside(&self) -> &Beside {
        &self.beside
    }

    /// What agents are asked beside the state.
    pub(crate) fn questions(&self) -> &Questions {
        &self.questions
    }

    /// Asks a node's agent; `None` when it is not connected or too busy.
    pub(crate) async fn ask(
        &self,
        node: &Name,
        question: &Question,
    ) -> Result<Option<Answers>, Problem> {
        let name = node.clone();
        let way = self
            .read(move |cluster| cluster.sessions.way(&name))
            .await?;
        Ok(way.and_then(|way| self.questions.ask(node, way, question)))
    }

    /// Proposes a change. `view` makes the answer out of the state right after it; it is returned
    /// once the change is durable. Policies are examined beforehand, beside the owner's thread.
    pub(crate) async fn propose<T: Send + 'static>(
        &self,
        proposal: Proposal,
        view: impl FnOnce(&Cluster, &Effects) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<T, Problem> {
        self.examine_and_propose(proposal, view)
            .await?
            .map_err(Problem::from)
    }

    /// Proposes a change of the controller's own. That it would change nothing is no failure.
    pub(crate) async fn propose_internal(&self, proposal: Proposal) -> Result<(), Problem> {
        match self.examine_and_propose(proposal, |_, _| Ok(())).await? {
            Ok(()) | Err(Refusal::Unchanged) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Examines what a proposal concerns, beside the owner's thread; `None` when that is nothing.
    pub(crate) async fn prepare(&self, proposal: &Proposal) -> Result<Option<Prepared>, Problem> {
        let examined = proposal.clone();
        let state = self.read(move |cluster| {
            let state = &cluster.state;
            state.examines(&examined).then(|| state.clone())
        });
        let Some(state) = state.await? else {
            return Ok(None);
        };
        let proposal = proposal.clone();
        let prepared = tokio::task::spawn_blocking(move || state.prepare(&proposal));
        // When it fails there, the owner examines, and says what is wrong.
        Ok(prepared.await.ok())
    }

    async fn examine_and_propose<T: Send + 'static>(
        &self,
        proposal: Proposal,
        view: impl FnOnce(&Cluster, &Effects) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<Result<T, Refusal>, Problem> {
        let examined = proposal.clone();
        let examines = self.read(move |cluster| cluster.state.examines(&examined));
        if !examines.await? {
            return self.propose_with(proposal, None, view).await;
        }
        // One after the other: those beside each other would make each other's work void.
        let _turn = self.examining.lock().await;
        for _ in 0..PREPARED_ATTEMPTS {
            let prepared = self.prepare(&proposal).await?;
            let outcome = self
                .propose_with(proposal.clone(), prepared, view.clone())
                .await?;
            if !matches!(outcome, Err(Refusal::Stale)) {
                return Ok(outcome);
            }
        }
        // Too much changes meanwhile: everybody has to wait for this one.
        self.propose_with(proposal, None, view).await
    }

    async fn propose_with<T: Send + 'static>(
        &self,
        proposal: Proposal,
        prepared: Option<Prepared>,
        view: impl FnOnce(&Cluster, &Effects) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<Result<T, Refusal>, Problem> {
        let (sender, receiver) = oneshot::channel();
        let answer: crate::owner::Answer = Box::new(move |outcome| {
            let result = outcome.and_then(|(cluster, effects)| view(cluster, effects));
            Box::new(move || {
                // Who does not wait any more needs no answer.
                let _ = sender.send(result);
            })
        });
        self.send(Message::Propose(proposal, prepared, answer))
            .await?;
        receiver.await.map_err(|_| stopping())
    }

    /// Reads what is durable.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Cluster) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let (sender, receiver) = oneshot::channel();
        let reader = Box::new(move |cluster: &Cluster| {
            let _ = sender.send(read(cluster));
        });
        self.send(Message::Read(reader)).await?;
        receiver.await.map_err(|_| stopping())
    }

    /// Reads again whenever something has happened, until `done` or the time is over; tells which.
    pub(crate) async fn read_until<T: Send + 'static>(
        &self,
        timeout: Duration,
        read: impl Fn(&Cluster) -> Result<T, Refusal> + Clone + Send + 'static,
        done: impl Fn(&T) -> bool,
    ) -> Result<(T, bool), Problem> {
        let deadline = Instant::now() + timeout;
        let mut ticks = self.ticks.clone();
        loop {
            // Before the read: what happens after it wakes the wait below.
            let stops = ticks.borrow_and_update().stopping;
            let value = self.read(read.clone()).await??;
            if done(&value) {
                return Ok((value, true));
            }
            if stops {
                return Err(stopping());
            }
            tokio::select! {
                changed = ticks.changed() => changed.map_err(|_| stopping())?,
                () = tokio::time::sleep_until(deadline) => return Ok((value, false)),
            }
        }
    }

    /// Passes a message on.
    pub(crate) async fn send(&self, message: Message) -> Result<(), Problem> {
        self.messages.send(message).await.map_err(|_| stopping())
    }
}

fn stopping() -> Problem {
    Problem::new(
        ProblemCode::Stopping,
        "the controller is stopping: ask again once it runs; a change may have been made or not",
    )
}
