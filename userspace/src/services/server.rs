//! The loop: frames from the programs to their handlers, and the answers to the workloads.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use sunwire_dataplane_common::{entries::Counter, punt::Kind};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use super::{
    dhcp4::Dhcp4,
    dhcp6::Dhcp6,
    directory::Directory,
    dns::{forward::Forwarder, tcp::DnsTcp, udp::DnsUdp, upstream::Upstream},
    handler::{Answer, Handlers, Node},
    listening::{Listening, Refusals},
    ring::{Punt, Punts},
    router::Router,
    socket::AnswerSocket,
};
use crate::{groups::listeners::Groups, state::Desired};

/// Frames that are handled before anything else is looked at.
const BATCH: usize = 64;
/// Answers of tasks that may wait.
const QUEUE: usize = 256;
/// How often handlers may do what is due.
const TICK_EVERY: Duration = Duration::from_secs(1);

/// The services cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The ring buffer cannot be waited on, or somebody else reads it.
    #[error("cannot listen to what workloads ask")]
    Ring(#[source] io::Error),
    /// No packet socket.
    #[error("cannot open a packet socket for answers to workloads; CAP_NET_RAW is needed")]
    Socket(#[source] io::Error),
}

/// Questions that made no sense, counted.
#[derive(Debug, Default)]
struct Refused {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// The running services of a node; they end when this is dropped.
#[derive(Debug)]
pub struct Services {
    directory: watch::Sender<Arc<Directory>>,
    refused: Arc<Refused>,
    task: tokio::task::JoinHandle<()>,
    seeds: watch::Sender<Arc<Groups>>,
    heard: watch::Receiver<Arc<Groups>>,
    unheard: Arc<Refusals>,
}

impl Drop for Services {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Services {
    /// Serves what comes in by `punts`; must be called within a tokio runtime. Names that are not
    /// the networks' own are asked of `upstream_dns` or, when that is empty, of the resolvers of
    /// the node's own /etc/resolv.conf.
    ///
    /// # Errors
    /// When the kernel refuses the means to.
    pub fn start(punts: Punts, upstream_dns: &[SocketAddr]) -> Result<Self, ServicesError> {
        let forwarder = Arc::new(Forwarder::new(Upstream::new(upstream_dns.to_vec())));
        Services::with(punts, |late| {
            let mut handlers = Handlers::default();
            handlers.add(&[Kind::Dhcp4], Dhcp4);
            handlers.add(&[Kind::Dhcp6], Dhcp6);
            handlers.add(&[Kind::RouterSolicitation], Router::default());
            let udp = DnsUdp {
                forwarder: Arc::clone(&forwarder),
                late: late.clone(),
            };
            handlers.add(&[Kind::DnsUdp], udp);
            handlers.add(&[Kind::DnsTcp], DnsTcp::new(forwarder, late));
            handlers
        })
    }

    /// Serves with the handlers that `make` returns; it is given where tasks of theirs send answers.
    ///
    /// # Errors
    /// When the kernel refuses the means to.
    pub fn with(
        punts: Punts,
        make: impl FnOnce(mpsc::Sender<Answer>) -> Handlers,
    ) -> Result<Self, ServicesError> {
        let (directory, changed) = watch::channel(Arc::default());
        let (late, answers) = mpsc::channel(QUEUE);
        let refused = Arc::new(Refused::default());
        let (seeds, known) = watch::channel(Arc::default());
        let (telling, heard) = watch::channel(Arc::default());
        let unheard = Arc::<Refusals>::default();
        let mut handlers = make(late.clone());
        let listening = Listening::new(known, telling, Arc::clone(&unheard));
        handlers.add(&[Kind::Igmp, Kind::Mld], listening);
        let server = Server {
            ring: punts.watch().map_err(ServicesError::Ring)?,
            socket: AnswerSocket::open().map_err(ServicesError::Socket)?,
            handlers,
            changed,
            answers,
            _late: late,
            refused: Arc::clone(&refused),
        };
        Ok(Services {
            directory,
            refused,
            task: tokio::spawn(server.run()),
            seeds,
            heard,
            unheard,
        })
    }

    /// What is known of endpoints that were elsewhere before, or were here before this agent: an
    /// endpoint that is attached from now on listens to it, until it reports otherwise.
    pub fn seed(&self, groups: Groups) {
        self.seeds.send_if_modified(|seeds| {
            let is_other = **seeds != groups;
            if is_other {
                *seeds = Arc::new(groups);
            }
            is_other
        });
    }

    /// What the endpoints here listen to, by what they report.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<Arc<Groups>> {
        self.heard.clone()
    }

    /// Reports of groups beyond what an endpoint or its network may listen to.
    #[must_use]
    pub fn unheard(&self) -> Counter {
        self.unheard.counter()
    }

    /// From now on answers are made of `desired`; `here` are the attached endpoints by the ifindex
    /// of their device.
    pub fn publish(&self, desired: &Desired, here: BTreeMap<u32, u32>) {
        if !self.directory.borrow().reflects(desired, &here) {
            let directory = Directory::new(desired, here);
            self.directory.send_replace(Arc::new(directory));
        }
    }

    /// Questions that made no sense since the start.
    #[must_use]
    pub fn refused(&self) -> Counter {
        Counter {
            packets: self.refused.packets.load(Ordering::Relaxed),
            bytes: self.refused.bytes.load(Ordering::Relaxed),
        }
    }
}

struct Server {
    ring: AsyncFd<RingBuf<MapData>>,
    socket: AnswerSocket,
    handlers: Handlers,
    changed: watch::Receiver<Arc<Directory>>,
    answers: mpsc::Receiver<Answer>,
    /// Keeps the channel open when no handler needs it.
    _late: mpsc::Sender<Answer>,
    refused: Arc<Refused>,
}

impl Server {
    async fn run(mut self) {
        let mut directory = Arc::clone(&self.changed.borrow_and_update());
        let mut tick = tokio::time::interval(TICK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The agent ends when nobody publishes any more.
                changed = self.changed.changed() => match changed {
                    Ok(()) => {
                        directory = Arc::clone(&self.changed.borrow_and_update());
                        self.tick(&directory);
                    }
                    Err(_) => return,
                },
                _ = tick.tick() => self.tick(&directory),
                Some(answer) = self.answers.recv() => self.send(&directory, &answer),
                ready = self.ring.readable_mut() => match ready {
                    Ok(mut guard) => {
                        let ring = guard.get_inner_mut();
                        let answers = serve(ring, &mut self.handlers, &directory, &self.refused);
                        match answers {
                            Some(answers) => answers
                                .iter()
                                .for_each(|answer| self.send(&directory, answer)),
                            None => guard.clear_ready(),
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, "workloads are not answered any more");
                        return;
                    }
                },
            }
        }
    }

    fn tick(&mut self, directory: &Arc<Directory>) {
        let mut answers = Vec::new();
        self.handlers.tick(&mut Node {
            directory,
            now: Instant::now(),
            answers: &mut answers,
        });
        for answer in &answers {
            self.send(directory, answer);
        }
    }

    /// Sends an answer if the endpoint is still where it is meant to be.
    fn send(&mut self, directory: &Directory, answer: &Answer) {
        let asker = directory.at(answer.ifindex);
        if asker.is_none_or(|asker| asker.number != answer.endpoint) {
            return;
        }
        if let Err(error) = self.socket.send(answer.ifindex, &answer.frame) {
            // As on every link, what is lost is asked for again.
            tracing::debug!(ifindex = answer.ifindex, %error, "an answer is lost");
        }
    }
}

/// Handles what waits in the ring, up to a batch; `None` when nothing does.
fn serve(
    ring: &mut RingBuf<MapData>,
    handlers: &mut Handlers,
    directory: &Arc<Directory>,
    refused: &Refused,
) -> Option<Vec<Answer>> {
    let mut answers = Vec::new();
    for number in 0..BATCH {
        let Some(item) = ring.next() else {
            return (number > 0).then_some(answers);
        };
        // A kind of a newer program, while an agent is downgraded, is nobody's.
        let Some(punt) = Punt::parse(&item) else {
            continue;
        };
        let mut node = Node {
            directory,
            now: Instant::now(),
            answers: &mut answers,
        };
        if let Err(error) = handlers.asked(&punt, &mut node) {
            refused.packets.fetch_add(1, Ordering::Relaxed);
            let bytes = punt.frame.len() as u64;
            refused.bytes.fetch_add(bytes, Ordering::Relaxed);
            tracing::debug!(endpoint = punt.endpoint, kind = punt.kind.name(), %error, "not answered");
        }
    }
    Some(answers)
}
