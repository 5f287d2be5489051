//! What answers: one handler for each kind of question.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use sunwire_dataplane_common::punt::Kind;

use super::{
    directory::{Asker, Directory},
    ring::Punt,
};

/// A frame to a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// ifindex of the host-side device that it goes out of.
    pub ifindex: u32,
    /// Number of the endpoint that is meant: if another one is behind the device when the frame is
    /// to be sent, it is not.
    pub endpoint: u32,
    /// From the Ethernet header on.
    pub frame: Vec<u8>,
}

impl Answer {
    /// A frame to who asked.
    #[must_use]
    pub fn to(asker: &Asker<'_>, frame: Vec<u8>) -> Self {
        Answer {
            ifindex: asker.ifindex,
            endpoint: asker.number,
            frame,
        }
    }
}

/// A frame that makes no sense: what about it, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// What a handler knows of the node, and what it sends.
pub struct Node<'a> {
    /// Who is here, and what answers are made of.
    pub directory: &'a Arc<Directory>,
    /// The time.
    pub now: Instant,
    /// What is to be sent when the handler is done.
    pub answers: &'a mut Vec<Answer>,
}

/// Answers questions of some kinds.
///
/// It runs on the task that serves all workloads of the node: it must not block, and what it keeps
/// of a workload must be bounded. What takes time goes to a task of its own, which sends its
/// answers through the channel of [`Services::answers`](super::Services).
pub trait Handler: Send {
    /// A workload asks. It is not answered but by frames left in `node.answers`.
    ///
    /// # Errors
    /// [`Malformed`] when the frame makes no sense; it is counted.
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed>;

    /// About once a second, and after every change of the directory.
    fn tick(&mut self, _node: &mut Node<'_>) {}
}

/// The handlers by kind.
///
/// A new one takes three steps: a [`Kind`] with its condition in `dataplane-common/src/punt.rs` (or
/// a call of the programs' `punt::hand_over`), an implementation of [`Handler`], and a line in
/// [`Services::start`](super::Services::start).
#[derive(Default)]
pub struct Handlers {
    handlers: Vec<Box<dyn Handler>>,
    by_kind: BTreeMap<Kind, usize>,
}

impl Handlers {
    /// Adds a handler for some kinds.
    pub fn add(&mut self, kinds: &[Kind], handler: impl Handler + 'static) {
        for kind in kinds {
            let earlier = self.by_kind.insert(*kind, self.handlers.len());
            assert!(earlier.is_none(), "{} has one handler", kind.name());
        }
        self.handlers.push(Box::new(handler));
    }

    /// Hands a frame to the handler of its kind; one of a kind without is left alone.
    ///
    /// # Errors
    /// What the handler says.
    pub fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        match self.by_kind.get(&punt.kind) {
            Some(index) => self.handlers[*index].asked(punt, node),
            None => Ok(()),
        }
    }

    /// Lets every handler do what is due.
    pub fn tick(&mut self, node: &mut Node<'_>) {
        for handler in &mut self.handlers {
            handler.tick(node);
        }
    }
}
