//! Metrics of a node, for Prometheus to fetch by HTTP.
//!
//! ```text
//! agent's loop --readings, once a second--> [`Board`] <--GET /metrics-- who scrapes
//! ```
//! A scrape reads no map and waits for nobody: it tells what was last read, at most a second ago while
//! the agent is not busy. It needs no controller.

mod text;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, http::header, response::IntoResponse, routing::get};
use sunwire_api::{agent as wire, metrics::MEDIA_TYPE};
use tokio::net::TcpListener;

use crate::connections::sweep::Usage;

/// What was last read of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    /// Name of the node.
    pub(crate) node: String,
    /// Whether the controller's stream is open.
    pub(crate) is_connected: bool,
    /// Last revision applied.
    pub(crate) revision: u64,
    /// Generation of the flow tables in force.
    pub(crate) generation: u32,
    /// Endpoints that are or are expected here, by what became of their devices.
    pub(crate) endpoints: BTreeMap<&'static str, u64>,
    /// What the controller is told.
    pub(crate) counters: wire::Counters,
    /// How many flows are remembered.
    pub(crate) flows: Usage,
    /// Names of networks by VNI.
    pub(crate) networks: BTreeMap<u32, String>,
    /// Wires by number: their names, and those of their ends.
    pub(crate) wires: BTreeMap<u32, (String, [String; 2])>,
    /// Names of nodes by number.
    pub(crate) nodes: BTreeMap<u32, String>,
}

/// Where the loop leaves what it reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board(Arc<Mutex<Readings>>);

impl Board {
    pub(crate) fn post(&self, readings: Readings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = readings;
    }

    fn text(&self) -> String {
        let readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text::render(&readings)
    }
}

/// Serves a board on `address` until the agent ends.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) async fn serve(address: SocketAddr, board: Board) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let scrape =
        move || async move { ([(header::CONTENT_TYPE, MEDIA_TYPE)], board.text()).into_response() };
    let router = Router::new().route("/metrics", get(scrape));
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are served no more");
        }
    });
    Ok(())
}
