//! Ctrl-C during long proofs: the prover is told, gives up, and the command ends in good order.
//!
//! What cannot be told (reading, compiling) ends with the process after [`PATIENCE`], or at the
//! second Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;
use sunwire_policy::verify::options::{Limit, Options};
use tokio::signal::unix::{SignalKind, signal};

/// How long a command may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(2);

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// The user ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: there is no answer")]
pub(super) struct Interrupted;

/// Whether Ctrl-C was pressed.
pub(super) fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// What ends a question early, in the words of the command.
pub(super) fn or_limit(limit: Limit) -> anyhow::Error {
    match limit {
        Limit::Cancelled => Interrupted.into(),
        limit => limit.into(),
    }
}

/// Options for the prover that let Ctrl-C end it.
pub(super) fn options() -> anyhow::Result<Options> {
    let (ready, is_ready) = mpsc::channel();
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || listen(&ready))
        .context("cannot start a thread")?;
    is_ready.recv().context("cannot take over SIGINT")??;
    Ok(Options {
        cancelled: Some(Arc::new(happened)),
        ..Options::default()
    })
}

fn listen(ready: &mpsc::Sender<anyhow::Result<()>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime.context("cannot start the runtime") {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let mut interrupt = match signal(SignalKind::interrupt()) {
            Ok(interrupt) => interrupt,
            Err(error) => return drop(ready.send(Err(error.into()))),
        };
        // Whoever asked waits for it.
        let _ = ready.send(Ok(()));
        if interrupt.recv().await.is_none() {
            return;
        }
        HAPPENED.store(true, Ordering::Relaxed);
        // Whether by time or by a second signal, the end is the same.
        let _ = tokio::time::timeout(PATIENCE, interrupt.recv()).await;
        eprintln!("error: {Interrupted}");
        std::process::exit(i32::from(crate::exit::FAILED));
    });
}
