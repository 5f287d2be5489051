//! Questions to the node's resolvers, and their answers, checked.
//!
//! Every question goes out from a port of its own under an identifier of its own, both random, and
//! its answer is taken only from the resolver that was asked, for the question that was asked
//! (RFC 5452). How many are under way is bounded for the node and for each endpoint; whoever asks
//! beyond that is told that it failed.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::op::{Query, ResponseCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::{
    answer::Forward,
    message::{self, Limit},
    upstream::Upstream,
};

/// Questions under way at once.
const UNDER_WAY_MAX: usize = 2048;
/// Of one endpoint.
const UNDER_WAY_PER_ENDPOINT: usize = 128;
/// How long one resolver may take. Clients wait for five seconds and then ask again
/// (resolv.conf(5)), so all tries together have to take less.
const TRY: Duration = Duration::from_millis(1500);
/// Resolvers asked before giving up, the same one again when there is only one.
const TRIES: usize = 3;
/// Bytes of the largest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// Asks resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstream: Upstream,
    under_way: Arc<Mutex<UnderWay>>,
}

#[derive(Debug, Default)]
struct UnderWay {
    total: usize,
    by_endpoint: HashMap<u32, usize>,
}

/// The right to have one question under way.
#[derive(Debug)]
pub(crate) struct Permit {
    under_way: Arc<Mutex<UnderWay>>,
    endpoint: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut under_way = lock(&self.under_way);
        under_way.total -= 1;
        if let Some(count) = under_way.by_endpoint.get_mut(&self.endpoint) {
            *count -= 1;
            if *count == 0 {
                under_way.by_endpoint.remove(&self.endpoint);
            }
        }
    }
}

fn lock(under_way: &Mutex<UnderWay>) -> std::sync::MutexGuard<'_, UnderWay> {
    // The counts are whole after every statement.
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forwarder {
    pub(crate) fn new(upstream: Upstream) -> Self {
        Forwarder {
            upstream,
            under_way: Arc::default(),
        }
    }

    /// Admits a question of an endpoint, unless too many are under way.
    pub(crate) fn admit(&self, endpoint: u32) -> Option<Permit> {
        let mut under_way = lock(&self.under_way);
        let of_endpoint = under_way.by_endpoint.get(&endpoint).copied().unwrap_or(0);
        if under_way.total >= UNDER_WAY_MAX || of_endpoint >= UNDER_WAY_PER_ENDPOINT {
            return None;
        }
        under_way.total += 1;
        under_way.by_endpoint.insert(endpoint, of_endpoint + 1);
        Some(Permit {
            under_way: Arc::clone(&self.under_way),
            endpoint,
        })
    }

    /// The answer to a question: a resolver's, or that there is none.
    pub(crate) async fn resolve(&self, forward: &Forward, _permit: Permit) -> Vec<u8> {
        let by_tcp = forward.limit == Limit::Bytes(u16::MAX);
        let resolvers = self.upstream.resolvers();
        if let [question] = &forward.asked.queries[..] {
            for resolver in resolvers.iter().cycle().take(TRIES) {
                let asked = timeout(TRY, async {
                    if by_tcp {
                        ask_tcp(*resolver, &forward.query, question).await
                    } else {
                        ask_udp(*resolver, &forward.query, question).await
                    }
                });
                match asked.await {
                    Ok(Ok(answer)) => {
                        return message::relay(answer, &forward.asked, forward.limit);
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%resolver, %error, "a resolver cannot be asked")
                    }
                    Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
                }
            }
        }
        failure(forward)
    }
}

/// The answer when nobody could be asked.
pub(crate) fn failure(forward: &Forward) -> Vec<u8> {
    let failed = message::reply(&forward.asked, ResponseCode::ServFail);
    message::write(&failed, forward.limit)
}

async fn ask_udp(resolver: SocketAddr, query: &[u8], question: &Query) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    // From here on the kernel lets nobody else's datagrams through.
    socket.connect(resolver).await?;
    let id = rand::random();
    let mut query = query.to_vec();
    message::set_id(&mut query, id);
    socket.send(&query).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if message::is_answer(&buffer[..length], id, question) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, query: &[u8], question: &Query) -> io::Result<Vec<u8>> {
    let invalid = |text| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut stream = TcpStream::connect(resolver).await?;
    let id = rand::random();
    let length = u16::try_from(query.len()).map_err(|_| invalid("the query is too long"))?;
    let mut bytes = [&length.to_be_bytes()[..], query].concat();
    message::set_id(&mut bytes[2..], id);
    stream.write_all(&bytes).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if message::is_answer(&answer, id, question) {
        Ok(answer)
    } else {
        Err(invalid("the resolver answered something else"))
    }
}
