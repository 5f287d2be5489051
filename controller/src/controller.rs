//! The controller as a whole: opens the log, binds, serves, stops.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use sunwire_api::agent::agents_server::AgentsServer;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

use crate::confirmations;
use crate::grpc::AgentService;
use crate::handle::Handle;
use crate::listen::{self, ListenError};
use crate::log::{Log, LogError, RedbLog, ReplayError, replay};
use crate::owner::{MESSAGES_MAX, Message, Owner, Tick};
use crate::rest;
use crate::state::State;

/// How long requests that are under way may take when the controller stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// A stream whose agent is silent for an interval and a timeout is ended.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest message of an agent, in bytes: counters of many labels.
const AGENT_MESSAGE_BYTES_MAX: usize = 64 << 20;

/// How much an agent may have said that is not heard yet, in bytes. The HTTP/2 library takes many
/// small frames that nobody reads for an attack, and measures "many" by this window.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Where the controller listens and keeps its state.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses for REST clients. Port 0 takes a free one.
    pub rest: Vec<SocketAddr>,
    /// Addresses for agents. Port 0 takes a free one.
    pub grpc: Vec<SocketAddr>,
    /// Directory of the log; made when it is missing.
    pub data_dir: PathBuf,
}

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log does not give a state.
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Why a controller stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A server failed.
    #[error("a server failed")]
    Server(#[source] io::Error),
    /// The agents' server failed.
    #[error("the agents' server failed")]
    Agents(#[source] tonic::transport::Error),
    /// The log failed. What was not answered may have happened or not.
    #[error("the log failed, and nothing can be changed any more")]
    Log(#[from] LogError),
    /// The owner of the state panicked: a mistake in the controller.
    #[error("the controller failed inside; its log is whole")]
    Panicked,
}

/// A controller that is bound and not yet serving.
pub struct Controller {
    state: State,
    log: Box<dyn Log>,
    rest: Vec<TcpListener>,
    grpc: Vec<TcpListener>,
}

impl Controller {
    /// Binds, opens the log and makes the state out of it.
    ///
    /// # Errors
    /// An address is not allowed or cannot be bound; the log is in use, damaged, or of another
    /// version.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let bind = |addresses: &[SocketAddr]| -> Result<Vec<TcpListener>, ListenError> {
            addresses
                .iter()
                .map(|address| listen::bind(*address))
                .collect()
        };
        let (rest, grpc) = (bind(&config.rest)?, bind(&config.grpc)?);
        let log = RedbLog::open(&config.data_dir)?;
        let state = replay(&log)?;
        tracing::info!(revision = state.revision(), "state is whole");
        Ok(Controller {
            state,
            log: Box::new(log),
            rest,
            grpc,
        })
    }

    /// Where REST clients are served.
    #[must_use]
    pub fn rest_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.rest)
    }

    /// Where agents are served.
    #[must_use]
    pub fn grpc_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.grpc)
    }

    /// Serves until `shutdown` is done; then ends streams, answers what is under way, and leaves
    /// everything durable. Needs a runtime with time and network.
    ///
    /// # Errors
    /// A server or the log failed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let (ticks, ticking) = watch::channel(Tick::default());
        let handle = Handle::new(messages.clone(), ticking.clone());
        let owner = Owner::new(self.state, self.log, ticks);
        let mut owner = tokio::task::spawn_blocking(move || owner.run(inbox));

        let confirmations = tokio::spawn(confirmations::watch(handle.clone()));
        let mut servers = JoinSet::new();
        for listener in self.rest {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(RunError::Server)?;
            let service = rest::router(handle.clone());
            let stopped = stopped(ticking.clone());
            servers.spawn(async move {
                let server = axum::serve(listener, service).with_graceful_shutdown(stopped);
                server.await.map_err(RunError::Server)
            });
        }
        for listener in self.grpc {
            let listener = tokio::net::TcpListener::from_std(listener).map_err(RunError::Server)?;
            let service = AgentsServer::new(AgentService::new(handle.clone()))
                .max_decoding_message_size(AGENT_MESSAGE_BYTES_MAX);
            let stopped = stopped(ticking.clone());
            servers.spawn(async move {
                tonic::transport::Server::builder()
                    .tcp_nodelay(true)
                    .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
                    .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
                    .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
                    .add_service(service)
                    .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
                    .await
                    .map_err(RunError::Agents)
            });
        }
        drop(handle);

        let mut outcome = tokio::select! {
            () = shutdown => Ok(()),
            done = &mut owner => {
                // It ends by itself only when the log has failed.
                return owner_outcome(done);
            }
            Some(server) = servers.join_next() => server.unwrap_or(Err(RunError::Panicked)),
        };
        // Fails only when the owner has ended, and then it has ended for a reason of its own.
        let _ = messages.send(Message::Stop).await;
        let ended = owner_outcome(owner.await);
        // It ends when it hears that the owner has stopped; a panic in it was reported by itself.
        let _ = confirmations.await;
        let drained = tokio::time::timeout(DRAIN_WITHIN, async {
            while let Some(server) = servers.join_next().await {
                let server = server.unwrap_or(Err(RunError::Panicked));
                outcome = std::mem::replace(&mut outcome, Ok(())).and(server);
            }
        });
        if drained.await.is_err() {
            tracing::warn!("clients held on to their connections until the end");
        }
        ended.and(outcome)
    }
}

fn owner_outcome(
    done: Result<Result<(), LogError>, tokio::task::JoinError>,
) -> Result<(), RunError> {
    match done {
        Ok(outcome) => outcome.map_err(RunError::Log),
        Err(_) => Err(RunError::Panicked),
    }
}

/// Done when the owner has stopped.
async fn stopped(mut ticks: watch::Receiver<Tick>) {
    // An owner that is gone has stopped, too.
    let _ = ticks.wait_for(|tick| tick.stopping).await;
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    let address = |listener: &TcpListener| {
        listener
            .local_addr()
            .expect("a bound listener has an address")
    };
    listeners.iter().map(address).collect()
}
