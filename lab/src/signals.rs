//! Ending on `SIGINT` and `SIGTERM` with the lab taken down.
//!
//! Without this the signals end the process at once: nothing is lost, as the
//! next start sweeps, but namespaces stay until then.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Doing, LabError};

/// Becomes requested at the first `SIGINT` or `SIGTERM`.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<(Mutex<bool>, Condvar)>);

impl Shutdown {
    /// Takes over both signals for the whole process. From now on they end
    /// nothing by themselves: wait for the request and drop the lab.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub fn on_signals() -> Result<Self, LabError> {
        let doing = || "take over SIGINT and SIGTERM".to_owned();
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .doing(doing)?;
        let guard = runtime.enter();
        let mut interrupt = signal(SignalKind::interrupt()).doing(doing)?;
        let mut terminate = signal(SignalKind::terminate()).doing(doing)?;
        drop(guard);
        let shutdown = Self(Arc::default());
        let requested = shutdown.clone();
        thread::Builder::new()
            .name("sunwire-signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                });
                requested.request();
            })
            .doing(doing)?;
        Ok(shutdown)
    }

    /// A request without a signal.
    pub fn request(&self) {
        let (requested, changed) = &*self.0;
        *requested.lock().unwrap_or_else(PoisonError::into_inner) = true;
        changed.notify_all();
    }

    /// Whether to end.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the request.
    pub fn wait(&self) {
        let (requested, changed) = &*self.0;
        let requested = requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_while(requested, |requested| !*requested);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for the request for at most `timeout`; whether it has come.
    #[must_use]
    pub fn wait_for(&self, timeout: Duration) -> bool {
        let (requested, changed) = &*self.0;
        let requested = requested.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(requested, timeout, |requested| !*requested);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
