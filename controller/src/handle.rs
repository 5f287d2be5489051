//! How servers reach the owner of the state.

use std::time::Duration;

use sunwire_api::{Problem, ProblemCode};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::command::Proposal;
use crate::effects::Effects;
use crate::owner::{Cluster, Message, Tick};
use crate::refusal::Refusal;

/// A way to the owner.
#[derive(Clone)]
pub(crate) struct Handle {
    messages: mpsc::Sender<Message>,
    ticks: watch::Receiver<Tick>,
}

impl Handle {
    pub(crate) fn new(messages: mpsc::Sender<Message>, ticks: watch::Receiver<Tick>) -> Self {
        Handle { messages, ticks }
    }

    /// Proposes a change. `view` makes the answer out of the state right after it; it is returned
    /// once the change is durable.
    pub(crate) async fn propose<T: Send + 'static>(
        &self,
        proposal: Proposal,
        view: impl FnOnce(&Cluster, &Effects) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Problem> {
        let (sender, receiver) = oneshot::channel();
        let answer: crate::owner::Answer = Box::new(move |outcome| {
            let result = outcome.and_then(|(cluster, effects)| view(cluster, effects));
            Box::new(move || {
                // Who does not wait any more needs no answer.
                let _ = sender.send(result);
            })
        });
        self.send(Message::Propose(proposal, answer)).await?;
        receiver
            .await
            .map_err(|_| stopping())?
            .map_err(Problem::from)
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
