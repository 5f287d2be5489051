//! Queries by TCP (RFC 7766): one task for each workload that has connections.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
};

use super::{
    answer::{self, Outcome},
    forward::{self, Forwarder},
    message::Limit,
    stack::{Asked, Stack},
};
use crate::services::{
    directory::{Asker, Directory, Member, Network},
    frame,
    handler::{Answer, Handler, Malformed, Node},
    ring::Punt,
};

/// Segments of one workload that may wait for its task; as on every link, more are lost.
const QUEUE: usize = 64;

/// Answers queries by TCP.
pub(crate) struct DnsTcp {
    forwarder: Arc<Forwarder>,
    /// Where segments go.
    late: mpsc::Sender<Answer>,
    /// Tasks by the number of the endpoint and its device.
    tasks: BTreeMap<(u32, u32), mpsc::Sender<Segment>>,
}

/// An IP packet of a workload, and what it is answered by.
struct Segment {
    packet: Vec<u8>,
    directory: Arc<Directory>,
}

impl DnsTcp {
    pub(crate) fn new(forwarder: Arc<Forwarder>, late: mpsc::Sender<Answer>) -> Self {
        DnsTcp {
            forwarder,
            late,
            tasks: BTreeMap::new(),
        }
    }
}

impl Handler for DnsTcp {
    fn asked(&mut self, punt: &Punt<'_>, node: &mut Node<'_>) -> Result<(), Malformed> {
        let packet = frame::ip_packet(punt.frame)?;
        let Some(asker) = node.directory.asker(punt) else {
            return Ok(());
        };
        let segment = Segment {
            packet: packet.to_vec(),
            directory: Arc::clone(node.directory),
        };
        let whose = (asker.number, asker.ifindex);
        let segment = match self.tasks.get(&whose) {
            Some(task) => match task.try_send(segment) {
                Ok(()) | Err(TrySendError::Full(_)) => return Ok(()),
                // It had nothing left to do.
                Err(TrySendError::Closed(segment)) => segment,
            },
            None => segment,
        };
        let (sender, segments) = mpsc::channel(QUEUE);
        // The channel is new and holds one.
        let _ = sender.try_send(segment);
        let task = Task {
            number: asker.number,
            ifindex: asker.ifindex,
            vni: asker.vni,
            member: asker.member.clone(),
            network: asker.network.clone(),
            forwarder: Arc::clone(&self.forwarder),
            late: self.late.clone(),
        };
        tokio::spawn(task.run(segments));
        self.tasks.insert(whose, sender);
        Ok(())
    }

    fn tick(&mut self, node: &mut Node<'_>) {
        // The task of who left ends with its channel.
        let directory = node.directory;
        self.tasks.retain(|(number, ifindex), task| {
            let asker = directory.at(*ifindex);
            !task.is_closed() && asker.is_some_and(|asker| asker.number == *number)
        });
    }
}

struct Task {
    number: u32,
    ifindex: u32,
    vni: u32,
    member: Member,
    network: Network,
    forwarder: Arc<Forwarder>,
    late: mpsc::Sender<Answer>,
}

impl Task {
    async fn run(self, mut segments: mpsc::Receiver<Segment>) {
        let mut stack = Stack::new(&self.network, Instant::now());
        let mut resolving = JoinSet::new();
        let mut directory = Arc::default();
        loop {
            let (asked, packets) = stack.poll(Instant::now());
            for packet in packets {
                let frame = frame::ethernet(&self.asker(), &packet);
                let answer = Answer::to(&self.asker(), frame);
                if self.late.send(answer).await.is_err() {
                    return;
                }
            }
            let is_answered = !asked.is_empty();
            for Asked { connection, query } in asked {
                match self.outcome(&directory, &query) {
                    Ok(answer) => stack.answer(connection, &answer),
                    Err(forward) => match self.forwarder.admit(self.number) {
                        Some(permit) => {
                            let forwarder = Arc::clone(&self.forwarder);
                            resolving.spawn(async move {
                                let answer = forwarder.resolve(&forward, permit).await;
                                (connection, answer)
                            });
                        }
                        None => stack.answer(connection, &forward::failure(&forward)),
                    },
                }
            }
            if is_answered {
                continue;
            }
            if stack.is_idle() && segments.is_empty() {
                return;
            }
            let next = stack.next(Instant::now());
            tokio::select! {
                segment = segments.recv() => match segment {
                    Some(segment) => {
                        stack.receive(&segment.packet);
                        directory = segment.directory;
                    }
                    None => return,
                },
                Some(resolved) = resolving.join_next() => {
                    if let Ok((connection, answer)) = resolved {
                        stack.answer(connection, &answer);
                    }
                }
                () = tokio::time::sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            number: self.number,
            ifindex: self.ifindex,
            vni: self.vni,
            member: &self.member,
            network: &self.network,
        }
    }

    /// The answer to a query, or what has to be asked for it.
    fn outcome(&self, directory: &Directory, query: &[u8]) -> Result<Vec<u8>, answer::Forward> {
        let limit = Limit::Bytes(u16::MAX);
        match answer::outcome(&self.asker(), directory, query, limit) {
            Ok(Outcome::Answer(answer)) => Ok(answer),
            Ok(Outcome::Forward(forward)) => Err(forward),
            // Nobody can be told but by silence: an empty message ends most clients' patience.
            Err(bad) => Ok(bad.answer.unwrap_or_default()),
        }
    }
}
