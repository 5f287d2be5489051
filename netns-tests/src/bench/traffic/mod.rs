//! The traffic of every metric: a client and a server that run until told to stop and count as they
//! go, so that all metrics are read off in the same way.
//!
//! All threads of the traffic are real-time threads, so that other programs of the machine are not
//! measured. What a system costs is measured, and not what it costs to wake a processor, which in a
//! virtual machine takes ten times as long as the whole way of a packet:
//!
//! - where client and server wait for each other, both run on one processor;
//! - else the server has a processor of its own, and of datagrams it takes what has come meanwhile
//!   at short intervals, so no packet wakes it.
//!
//! The server listens on port 80, which the benchmark's policy admits.

mod flows;
mod processor;
mod tcp;
mod udp;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use sunwire_lab::measure_in_real_time;

use super::metric::{FLOWS, Metric};
use super::namespace::Namespace;

/// Port of the server.
const PORT: u16 = 80;
/// How often a thread that waits looks whether it is told to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Connections and caches settle for this long before anything is counted.
const WARM_UP: Duration = Duration::from_millis(100);

/// What the threads of a run share.
#[derive(Clone, Debug, Default)]
struct Shared {
    count: Arc<AtomicU64>,
    stopped: Arc<AtomicBool>,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What one sample measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// The metric's value.
    pub(super) value: f64,
    /// What was counted in all, the warm-up included.
    pub(super) count: u64,
}

/// Sends a metric's traffic from `client` to `server` and measures for `window`.
pub(super) fn sample(
    metric: Metric,
    client: &Namespace,
    server: &Namespace,
    window: Duration,
) -> Result<Sample> {
    sample_while(metric, client, server, || {
        thread::sleep(window);
        Ok(())
    })
}

/// As [`sample`], for as long as `watch` takes.
pub(super) fn sample_while(
    metric: Metric,
    client: &Namespace,
    server: &Namespace,
    watch: impl FnOnce() -> Result<()>,
) -> Result<Sample> {
    let mut threads = Threads::new(metric.takes_turns());
    let shared = threads.shared.clone();
    let started = match metric {
        Metric::Tcp1 => tcp::stream(&mut threads, client, server, 1),
        Metric::Tcp4 => tcp::stream(&mut threads, client, server, 4),
        Metric::UdpSmall => udp::datagrams(&mut threads, client, server),
        Metric::UdpSmall16k => flows::datagrams(&mut threads, client, server, FLOWS),
        Metric::UdpTwoWay => udp::both_ways(&mut threads, client, server),
        Metric::UdpRr => udp::request_response(&mut threads, client, server),
        Metric::TcpRr => tcp::request_response(&mut threads, client, server),
        Metric::TcpCrr => tcp::connect_request_response(&mut threads, client, server),
    };
    let mut value = 0.0;
    let watched = started.and_then(|()| {
        thread::sleep(WARM_UP);
        let (began, before) = (Instant::now(), shared.count());
        watch()?;
        let (elapsed, after) = (began.elapsed(), shared.count());
        value = metric.value(after - before, elapsed.as_secs_f64());
        Ok(())
    });
    let ended = threads.stop();
    watched.and(ended)?;
    Ok(Sample {
        value,
        count: shared.count(),
    })
}

/// Sends datagrams of `flows` flows in turn from `client` to ports of the server that nobody listens on,
/// while `watch` runs.
pub(super) fn send_flows_while(
    client: &Namespace,
    flows: u32,
    watch: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut threads = Threads::new(false);
    let started = flows::endless(&mut threads, client, flows);
    let watched = started.and_then(|()| watch());
    let ended = threads.stop();
    watched.and(ended)
}

/// Sends SYNs from `client` that nobody answers, each from the next port, while `watch` runs.
pub(super) fn send_syns_while<T>(
    client: &Namespace,
    watch: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let mut threads = Threads::new(false);
    let started = flows::syns(&mut threads, client);
    let watched = started.and_then(|()| watch());
    threads.stop()?;
    watched
}

/// The threads of a run. All are stopped and waited for before it ends.
struct Threads {
    shared: Shared,
    /// Client and server wait for each other.
    takes_turns: bool,
    running: Vec<(&'static str, JoinHandle<Result<()>>)>,
    /// Open until all threads have ended; see [`Threads::keep`].
    sockets: Vec<Arc<UdpSocket>>,
}

/// Which end a thread is.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

impl Threads {
    fn new(takes_turns: bool) -> Self {
        Threads {
            shared: Shared::default(),
            takes_turns,
            running: Vec::new(),
            sockets: Vec::new(),
        }
    }

    /// Keeps a socket open until all threads have ended. One thread stops before the other: were its
    /// socket closed by then, what the other still sends would come back as an ICMP error, and the
    /// other would take the end of the run for a failure (`ECONNREFUSED`).
    fn keep(&mut self, socket: UdpSocket) -> Arc<UdpSocket> {
        let socket = Arc::new(socket);
        self.sockets.push(Arc::clone(&socket));
        socket
    }

    /// Starts a thread. Its sockets may belong to any namespace: `namespace` only says where it
    /// opens new ones.
    fn start(
        &mut self,
        side: Side,
        namespace: &Namespace,
        work: impl FnOnce(&Shared) -> Result<()> + Send + 'static,
    ) {
        let shared = self.shared.clone();
        let takes_turns = self.takes_turns;
        let thread = namespace.start_thread(move || {
            processor::pin(side, takes_turns)?;
            measure_in_real_time().context("real-time scheduling is refused")?;
            work(&shared)
        });
        self.running.push((side.name(), thread));
    }

    fn stop(self) -> Result<()> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let mut result = Ok(());
        for (side, thread) in self.running {
            let ended = thread
                .join()
                .map_err(|_| anyhow!("panicked"))
                .and_then(|result| result)
                .with_context(|| format!("the traffic's {side} failed"));
            result = result.and(ended);
        }
        result
    }
}

/// `None` when a blocking call on a socket only ran into its time limit.
fn unless_timed_out<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;

    /// Two sockets connected to each other, in a namespace of their own; `None` where none can be
    /// made.
    fn pair() -> Option<(Namespace, [UdpSocket; 2])> {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(error) => {
                println!("SKIPPED: a network namespace cannot be made ({error:#})");
                return None;
            }
        };
        let sockets = namespace.run(|| {
            let first = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            let second = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            first.connect(second.local_addr()?)?;
            second.connect(first.local_addr()?)?;
            Ok([first, second])
        });
        Some((namespace, sockets.unwrap()))
    }

    /// Sends to who ended, until it would have been told so.
    fn send_on(socket: &UdpSocket) -> Result<()> {
        // What a datagram is answered with is told by the call after it.
        for _ in 0..2 {
            socket.send(&[0])?;
        }
        Ok(())
    }

    #[test]
    fn who_ends_first_is_no_failure_of_who_still_sends() {
        let Some((namespace, [first, second])) = pair() else {
            return;
        };
        let mut threads = Threads::new(false);
        let (first, second) = (threads.keep(first), threads.keep(second));
        let (ended, end) = mpsc::channel();
        threads.start(Side::Server, &namespace, move |_| {
            drop(first);
            ended.send(())?;
            Ok(())
        });
        threads.start(Side::Client, &namespace, move |_| {
            end.recv()?;
            send_on(&second)
        });
        threads.stop().unwrap();
    }

    /// What the test above would see of sockets that nobody keeps.
    #[test]
    fn what_is_sent_to_a_closed_socket_comes_back() {
        let Some((_namespace, [first, second])) = pair() else {
            return;
        };
        drop(first);
        send_on(&second).unwrap_err();
    }
}
