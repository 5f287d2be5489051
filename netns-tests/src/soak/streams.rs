//! TCP beside the datagrams: transfers that go on all the time, and new requests all the time.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use sunwire_lab::{
    monotonic_ns,
    traffic::{
        http::{self, HttpServer},
        tcp_bulk::{BulkReceiver, BulkSender},
    },
};

use super::world::{ENDPOINTS, World, addresses};
use crate::cloud::PATIENCE;

/// Rate of each transfer. A gap shows, and links are not filled.
const RATE_MBPS: f64 = 1.0;
/// First port of the transfers; the port of requests is 80.
const FIRST_PORT: u16 = 5000;
/// Pause between two requests of an endpoint.
const REQUEST_EVERY: Duration = Duration::from_millis(150);

/// All that goes on.
pub struct Streams {
    transfers: Vec<(usize, usize, bool, BulkSender, BulkReceiver)>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Requests>>,
    /// Serve until dropped.
    servers: Vec<HttpServer>,
}

/// A transfer that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Transfer {
    /// Name of the endpoint that sent.
    pub from: &'static str,
    /// Name of the endpoint that received.
    pub to: &'static str,
    /// Over IPv4, not IPv6.
    pub is_ipv4: bool,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Segments sent again.
    pub retransmits: u32,
    /// Longest time without a byte, ms.
    pub largest_gap_ms: f64,
    /// Why it broke, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// Requests of all endpoints.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// Answered as they should be.
    pub answered: u64,
    /// The slowest, ms.
    pub slowest_ms: f64,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// A request that was not answered.
#[derive(Clone, Debug, Serialize)]
pub struct Failure {
    /// When it was sent, ns of `CLOCK_MONOTONIC`.
    pub sent_at_ns: u64,
    /// What.
    pub what: String,
}

impl Streams {
    /// Starts them: each endpoint sends to the next, and asks all others.
    ///
    /// # Errors
    /// When something does not start.
    pub fn start(world: &World) -> Result<Self> {
        let count = ENDPOINTS.len();
        let mut streams = Streams {
            transfers: Vec::new(),
            stop: Arc::default(),
            clients: Vec::new(),
            servers: Vec::new(),
        };
        for (number, workload) in world.endpoints.iter().enumerate() {
            for address in addresses(number) {
                let address = SocketAddr::new(address, 80);
                let server = HttpServer::start(workload.namespace(), address, workload.name())?;
                streams.servers.push(server);
            }
        }
        for from in 0..count {
            let to = (from + 1) % count;
            for (family, address) in addresses(to).into_iter().enumerate() {
                let port = FIRST_PORT + (from * 2 + family) as u16;
                let address = SocketAddr::new(address, port);
                let receiver = BulkReceiver::start(world.endpoints[to].namespace(), address)?;
                let namespace = world.endpoints[from].namespace();
                let sender = BulkSender::start(namespace, address, Some(RATE_MBPS), PATIENCE)?;
                let is_ipv4 = address.is_ipv4();
                streams
                    .transfers
                    .push((from, to, is_ipv4, sender, receiver));
            }
        }
        for (from, workload) in world.endpoints.iter().enumerate() {
            let (stop, namespace) = (Arc::clone(&streams.stop), workload.namespace().clone());
            let client = move || {
                let mut requests = Requests::default();
                let others = (0..count).filter(|to| *to != from);
                let others: Vec<_> = others
                    .flat_map(|to| addresses(to).map(|address| (to, address)))
                    .collect();
                for (to, address) in others.into_iter().cycle() {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    requests.note(from, to, monotonic_ns(), |requests| {
                        let address = SocketAddr::new(address, 80);
                        let answer = http::get(&namespace, address, PATIENCE);
                        let answer = answer.map_err(|error| chain(&error))?;
                        let elapsed_ms = answer.elapsed.as_secs_f64() * 1e3;
                        requests.slowest_ms = requests.slowest_ms.max(elapsed_ms);
                        match (answer.status, &*answer.body) {
                            (200, name) if name == ENDPOINTS[to].0 => Ok(()),
                            other => Err(format!("answered {other:?}")),
                        }
                    });
                    std::thread::sleep(REQUEST_EVERY);
                }
                requests
            };
            let client = std::thread::Builder::new().spawn(client)?;
            streams.clients.push(client);
        }
        Ok(streams)
    }

    /// Ends everything in good order.
    ///
    /// # Errors
    /// When a transfer's account cannot be read.
    pub fn finish(self) -> Result<(Vec<Transfer>, Requests)> {
        self.stop.store(true, Ordering::Release);
        let mut requests = Requests::default();
        for client in self.clients {
            let of_one = match client.join() {
                Ok(of_one) => of_one,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            requests.answered += of_one.answered;
            requests.slowest_ms = requests.slowest_ms.max(of_one.slowest_ms);
            requests.failures.extend(of_one.failures);
        }
        let mut transfers = Vec::new();
        for (from, to, is_ipv4, sender, receiver) in self.transfers {
            let (sent, received) = (sender.stop()?, receiver.finish()?);
            transfers.push(Transfer {
                from: ENDPOINTS[from].0,
                to: ENDPOINTS[to].0,
                is_ipv4,
                sent_bytes: sent.bytes,
                received_bytes: received.bytes,
                retransmits: sent.retransmits,
                largest_gap_ms: received.largest_gap_ms,
                broken: sent.broken.or(received.broken),
            });
        }
        drop(self.servers);
        Ok((transfers, requests))
    }
}

impl Transfer {
    /// Whether every byte came over one connection.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.broken.is_none() && self.sent_bytes == self.received_bytes
    }
}

impl Requests {
    fn note(
        &mut self,
        from: usize,
        to: usize,
        sent_at_ns: u64,
        ask: impl FnOnce(&mut Self) -> Result<(), String>,
    ) {
        match ask(self) {
            Ok(()) => self.answered += 1,
            Err(what) => self.failures.push(Failure {
                sent_at_ns,
                what: format!("{} to {}: {what}", ENDPOINTS[from].0, ENDPOINTS[to].0),
            }),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
