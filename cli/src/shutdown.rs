//! How servers run: on a small runtime, until a signal asks them to end.

use std::future::Future;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Two threads: one may be busy with the kernel or the disk while the other listens.
const THREADS: usize = 2;

/// Runs `serve` with a future that is done at the first SIGINT or SIGTERM.
pub(crate) fn until_signal<F>(
    serve: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // Taken over before anything is served, so that no signal finds the default action.
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot take over SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot take over SIGTERM")?;
        serve(Box::pin(async move {
            tokio::select! {
                _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
                _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            }
        }))
        .await
    })
}
