//! What was accepted under which idempotency key: the last thousand or so.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use sunwire_api::ProblemCode;

use crate::command::IdempotencyKey;
use crate::refusal::Refusal;

/// How many keys are remembered; then the oldest is forgotten.
const REPLIES_MAX: usize = 1024;

/// Keys in the order of acceptance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Replies(VecDeque<Reply>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reply {
    key: IdempotencyKey,
    revision: u64,
}

impl Replies {
    /// Revision that the same request made before, or `None` when the key is new.
    pub(super) fn recall(&self, key: &IdempotencyKey) -> Result<Option<u64>, Refusal> {
        match self.0.iter().find(|reply| reply.key.key == key.key) {
            None => Ok(None),
            Some(reply) if reply.key == *key => Ok(Some(reply.revision)),
            Some(reply) => Err(Refusal::new(
                ProblemCode::IdempotencyKeyReused,
                format!(
                    "the key {:?} was used with another request, accepted as revision {}: use a \
                     key of its own for each request",
                    key.key, reply.revision
                ),
            )),
        }
    }

    pub(super) fn remember(&mut self, key: IdempotencyKey, revision: u64) {
        if self.0.len() == REPLIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Reply { key, revision });
    }
}
