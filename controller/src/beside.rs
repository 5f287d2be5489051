//! Long work beside the servers' threads: a few at a time, and ended when nobody waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sunwire_api::{Problem, ProblemCode};
use sunwire_policy::verify::options::{Cancelled, Options};
use tokio::sync::Semaphore;

/// How many may work at the same time; others wait for their turn.
const WORKING_MAX: usize = 2;

/// Turns of long work.
#[derive(Clone)]
pub(crate) struct Beside {
    turns: Arc<Semaphore>,
}

impl Default for Beside {
    fn default() -> Self {
        Beside {
            turns: Arc::new(Semaphore::new(WORKING_MAX)),
        }
    }
}

/// Tells that nobody waits any more when it is dropped.
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Beside {
    /// Does `work`, with options for the prover that end it early when the answer is not awaited
    /// any more.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Options) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let failed = |_| Problem::new(ProblemCode::Internal, "the policy could not be examined");
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("turns are never taken away");
        let gone = Arc::new(AtomicBool::new(false));
        let waiting = Waiting(Arc::clone(&gone));
        let cancelled: Cancelled = Arc::new(move || gone.load(Ordering::Relaxed));
        let options = Options {
            cancelled: Some(cancelled),
            ..Options::default()
        };
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&options)
        });
        let done = done.await.map_err(failed);
        drop(waiting);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_told_to_end() {
        let beside = Beside::default();
        let (begun, began) = tokio::sync::oneshot::channel();
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = beside.run(move |options| {
            begun.send(()).unwrap();
            let cancelled = options.cancelled.as_ref().unwrap();
            while !cancelled() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
        });
        tokio::select! {
            _ = work => panic!("it works until nobody waits"),
            began = began => began.unwrap(),
        }
        end.await.unwrap();
    }
}
