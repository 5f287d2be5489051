//! When the state in force is written, and when it is gone by.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Agent, chain, own_number};
use crate::{
    last_known::{FileError, LastKnown, Recalled},
    state::Desired,
};

/// Of the time that writing takes at most: a large state that changes all the time is written less often.
const SHARE: u32 = 10;
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);

/// What is being written.
#[derive(Debug, Default)]
pub(super) struct Writing {
    running: Option<tokio::task::JoinHandle<(Duration, Result<(), FileError>)>>,
    /// Not before.
    next: Option<Instant>,
    /// The last attempt failed, and this was told.
    failed: bool,
}

impl Agent {
    /// Goes by the state that an earlier agent kept, until the controller tells a newer one.
    pub(super) async fn recall(&mut self) {
        let recalled = match self.last_known.read() {
            Ok(None) => return,
            Ok(Some(recalled)) => recalled,
            Err(error) => return ignored(&chain(&error)),
        };
        let Recalled {
            snapshot,
            generation,
        } = recalled;
        // In maps that were made anew nothing is in force yet.
        let now = self.dataplane.generation();
        if now != 0 && now != generation {
            return ignored(&chain(&FileError::Older));
        }
        let revision = snapshot.revision;
        let mut desired = match Desired::from_snapshot(snapshot.state.unwrap_or_default()) {
            Ok(desired) => desired,
            Err(error) => return ignored(&chain(&error)),
        };
        if own_number(&desired, &self.config.node).is_none() {
            return ignored("this node is not in it");
        }
        desired.forget_unreachable();
        self.desired = Some(desired);
        self.look_around().await;
        if self.apply().await.is_none() {
            self.revision = revision;
            self.last_known.in_force(self.dataplane.generation());
            tracing::info!(
                revision,
                "goes by the state that was in force last until the controller is reached"
            );
        }
    }

    /// Has what is in force be written; to be called every second or so.
    pub(super) fn keep_state(&mut self) {
        if self.desired.is_none() {
            return;
        }
        let now = Instant::now();
        if let Some(running) = &mut self.writing.running {
            use futures_util::FutureExt as _;
            let Some(outcome) = running.now_or_never() else {
                return;
            };
            self.writing.running = None;
            let pause = match outcome {
                Ok((took, Ok(()))) => {
                    self.writing.failed = false;
                    took * SHARE
                }
                Ok((_, Err(error))) => {
                    if !std::mem::replace(&mut self.writing.failed, true) {
                        not_kept(&error);
                    }
                    RETRY
                }
                Err(error) => {
                    tracing::error!(%error, "the state in force is not kept");
                    RETRY
                }
            };
            self.writing.next = Some(now + pause);
        }
        self.last_known.flipped(self.dataplane.generation());
        let is_time = self.writing.next.is_none_or(|next| next <= now);
        if is_time && self.last_known.is_due() {
            let last_known = Arc::clone(&self.last_known);
            self.writing.running = Some(tokio::task::spawn_blocking(move || {
                let since = Instant::now();
                let outcome = last_known.write();
                (since.elapsed(), outcome)
            }));
        }
    }
}

/// Writes what is in force before the agent ends.
pub(super) fn write(last_known: &LastKnown) {
    if let Err(error) = last_known.write() {
        not_kept(&error);
    }
}

fn ignored(why: &str) {
    tracing::warn!(
        why,
        "the state that is kept on disk is not gone by; workloads are answered once the controller is \
         reached, and forwarding goes on meanwhile"
    );
}

fn not_kept(error: &FileError) {
    tracing::warn!(
        error = %chain(error),
        "the state in force is not kept; an agent that starts while the controller is away will know nothing"
    );
}
