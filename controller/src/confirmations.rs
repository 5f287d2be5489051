//! Puts back what was not confirmed in time: the clock beside the state, which has none.
//!
//! Deadlines are in the log. What is overdue when the controller starts is put back at once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sunwire_api::Problem;

use crate::command::{Command, Note, Proposal};
use crate::handle::Handle;

/// How long to sleep at most before looking at the clock again, which may have been set.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Milliseconds of Unix time.
pub(crate) fn now_unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 is wrong anyhow.
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Serves until the controller stops.
pub(crate) async fn watch(handle: Handle) {
    let mut ticks = handle.ticks();
    loop {
        if ticks.borrow_and_update().stopping {
            return;
        }
        let next = handle.read(|cluster| {
            let next = cluster.state.next_deadline();
            next.map(|(policy, revision, deadline)| (policy.clone(), revision, deadline))
        });
        let Ok(next) = next.await else {
            return;
        };
        let wait = match next {
            None => None,
            Some((policy, text_revision, deadline_unix_ms)) => {
                let now = now_unix_ms();
                if deadline_unix_ms <= now {
                    let command = Command::RevertPolicy {
                        name: policy.clone(),
                        text_revision,
                        note: Note {
                            at_unix_ms: Some(now),
                            ..Note::default()
                        },
                    };
                    match revert(&handle, command).await {
                        Ok(()) => {
                            tracing::warn!(%policy, text_revision, "not confirmed: put back");
                            continue;
                        }
                        Err(problem) => {
                            tracing::error!(%policy, %problem, "cannot be put back");
                            Some(LOOK_AGAIN_AFTER)
                        }
                    }
                } else {
                    let left = Duration::from_millis(deadline_unix_ms - now);
                    Some(left.min(LOOK_AGAIN_AFTER))
                }
            }
        };
        let slept = async {
            match wait {
                None => std::future::pending().await,
                Some(wait) => tokio::time::sleep(wait).await,
            }
        };
        tokio::select! {
            () = slept => {}
            changed = ticks.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

async fn revert(handle: &Handle, command: Command) -> Result<(), Problem> {
    let proposal = Proposal::internal(command);
    handle.propose_internal(proposal).await
}
