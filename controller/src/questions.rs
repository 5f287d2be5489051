//! Questions to agents, and the way back for what they tell.
//!
//! ```text
//! REST --ask--> [Questions] --Question--> agent
//!      <------- bounded queue <---Answer---
//! ```
//! None of it is agreed or kept, so none of it goes through the owner of the state: what agents
//! tell would crowd out what they acknowledge. A queue that is full loses what comes next; whoever
//! reads it is told how much.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sunwire_api::agent::{self, controller_message::Message};
use sunwire_api::{Name, Question, Telling};
use tokio::sync::mpsc;

use crate::sessions::{Feed, SessionId, Way};

/// Tellings that wait for a slow reader.
const QUEUE: usize = 1024;

/// All questions that are open.
#[derive(Clone, Default)]
pub(crate) struct Questions(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    last: u64,
    by_number: BTreeMap<u64, Asked>,
}

struct Asked {
    node: Name,
    session: SessionId,
    answers: mpsc::Sender<Answered>,
    lost: u64,
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Answered {
    /// An answer.
    Told(Telling),
    /// So many answers before this are missing.
    Lost(u64),
}

/// Answers to one question; to drop it withdraws the question.
pub(crate) struct Answers {
    questions: Questions,
    number: u64,
    feed: mpsc::WeakSender<Result<agent::ControllerMessage, tonic::Status>>,
    receiver: mpsc::Receiver<Answered>,
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, Open> {
        // What panicked while it held the lock has changed whole entries only.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the agent of a stream; `None` when it is too busy to be asked.
    pub(crate) fn ask(
        &self,
        node: &Name,
        (session, feed): Way,
        question: &Question,
    ) -> Option<Answers> {
        let (answers, receiver) = mpsc::channel(QUEUE);
        let number = {
            let mut open = self.lock();
            open.last += 1;
            let number = open.last;
            let node = node.clone();
            let asked = Asked {
                node,
                session,
                answers,
                lost: 0,
            };
            open.by_number.insert(number, asked);
            number
        };
        let waiting = Answers {
            questions: self.clone(),
            number,
            feed,
            receiver,
        };
        let question = serde_json::to_vec(question).expect("a question is plain JSON");
        let question = agent::Question { number, question };
        let question = agent::ControllerMessage {
            message: Some(Message::Question(question)),
        };
        waiting.feed(question).then_some(waiting)
    }

    /// Takes an answer of an agent. To one that nobody waits for, the answer is a withdrawal: an
    /// earlier one may have found the agent's queue full.
    pub(crate) fn answered(
        &self,
        node: &Name,
        session: SessionId,
        answer: agent::Answer,
    ) -> Option<agent::ControllerMessage> {
        let mut open = self.lock();
        let number = answer.question;
        let Some(asked) = open.by_number.get_mut(&number) else {
            return (!answer.last).then_some(withdrawal(number));
        };
        if asked.node != *node || asked.session != session {
            tracing::warn!(%node, "answers a question that another agent was asked");
            return None;
        }
        if !answer.telling.is_empty() {
            match serde_json::from_slice(&answer.telling) {
                Ok(telling) => asked.told(telling),
                Err(error) => tracing::warn!(%node, %error, "tells what is not understood"),
            }
        }
        if answer.last {
            open.by_number.remove(&number);
        }
        None
    }

    /// A stream has ended: its questions have no more answers.
    pub(crate) fn gone(&self, node: &Name, session: SessionId) {
        self.lock()
            .by_number
            .retain(|_, asked| asked.node != *node || asked.session != session);
    }
}

impl Asked {
    fn told(&mut self, telling: Telling) {
        if self.lost > 0 && self.answers.try_send(Answered::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        if self.lost > 0 || self.answers.try_send(Answered::Told(telling)).is_err() {
            self.lost += 1;
        }
    }
}

impl Answers {
    /// The next answer; `None` after the last, and when the agent went away.
    pub(crate) async fn next(&mut self) -> Option<Answered> {
        self.receiver.recv().await
    }

    fn feed(&self, message: agent::ControllerMessage) -> bool {
        let feed: Option<Feed> = self.feed.upgrade();
        feed.is_some_and(|feed| feed.try_send(Ok(message)).is_ok())
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let open = self.questions.lock().by_number.remove(&self.number);
        if open.is_some() {
            // When the agent's queue is full, it is told at its next answer.
            self.feed(withdrawal(self.number));
        }
    }
}

fn withdrawal(question: u64) -> agent::ControllerMessage {
    agent::ControllerMessage {
        message: Some(Message::Withdrawal(agent::Withdrawal { question })),
    }
}
