//! The link emulator: one thread that carries every underlay frame of a lab.
//!
//! It sits in the lab's `wan` namespace with one leg per node, answers ARP for
//! the nodes' gateways, forwards IPv4 by destination and delays, drops and
//! limits as each ordered pair's [`LinkParams`] say. [`scheduler`] and
//! [`shaper`] decide and are pure; [`engine`] is the thin shell with the
//! socket and the clock.

mod clocks;
mod drop_log;
mod engine;
mod frame;
mod histogram;
mod kept;
mod random;
mod report;
mod scheduler;
mod shaper;
mod socket;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

pub(crate) use frame::UNDERLAY_MTU;
pub use kept::{DroppedFrame, DroppedFrames, HEAD_BYTES};
pub use report::{DropRecord, EmulatorReport, Lateness, LinkReport, UnroutedReport};
pub use shaper::DropReason;

use crate::link::{LinkChange, LinkError, LinkParams};
use crate::mac::Mac;
use crate::netns::Namespace;

/// One node as the emulator sees it.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    /// The node's name, for reports.
    pub(crate) node: String,
    /// The device in the `wan` namespace.
    pub(crate) ifindex: u32,
    /// The node's underlay address; frames for its whole /24 go to this leg.
    pub(crate) address: Ipv4Addr,
    /// The gateway's address, which the emulator answers for.
    pub(crate) gateway: Ipv4Addr,
    /// The node's IPv6 address; frames for its whole /64 go to this leg.
    pub(crate) address_v6: Option<Ipv6Addr>,
    /// The gateway's IPv6 address.
    pub(crate) gateway_v6: Ipv6Addr,
    /// The gateway's hardware address. It is not the leg's own, so that the
    /// kernel takes the frames for somebody else's and drops its copy early.
    pub(crate) gateway_mac: Mac,
    /// The node's hardware address; learnt anew from the node's ARP requests.
    pub(crate) node_mac: Mac,
}

/// A request to the emulator's thread.
enum Command {
    Change {
        from: usize,
        to: usize,
        change: LinkChange,
        done: SyncSender<Result<LinkParams, LinkError>>,
    },
    Report(SyncSender<EmulatorReport>),
    ResetBooks(SyncSender<()>),
    Keep {
        frames_max: usize,
        done: SyncSender<()>,
    },
    TakeKept(SyncSender<DroppedFrames>),
    Stop,
}

/// A running emulator; stops when dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    remote: EmulatorRemote,
    thread: Option<JoinHandle<()>>,
}

/// The emulator as other threads reach it.
#[derive(Clone, Debug)]
pub(crate) struct EmulatorRemote {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

/// The emulator's thread has ended.
#[derive(Debug, thiserror::Error)]
#[error("the link emulator has stopped")]
pub(crate) struct Stopped;

impl Emulator {
    /// Starts the emulator in `namespace`, whose legs are up.
    pub(crate) fn start(
        namespace: &Namespace,
        legs: Vec<Leg>,
        seed: u64,
        params: impl Fn(usize, usize) -> LinkParams,
    ) -> io::Result<Self> {
        let wake = Arc::new(EventFd::from_flags(
            EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC,
        )?);
        let (commands, inbox) = mpsc::channel();
        let (ready, started) = mpsc::sync_channel(1);
        let scheduler = scheduler::Scheduler::new(legs.len(), seed, params);
        let for_engine = Arc::clone(&wake);
        let thread = namespace.start_thread("sunwire-wan", move || {
            match engine::Engine::open(scheduler, legs, inbox, for_engine) {
                Ok(engine) => {
                    let _ = ready.send(Ok(()));
                    engine.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        started
            .recv()
            .map_err(|_| io::Error::other("the link emulator's thread ended at its start"))??;
        Ok(Self {
            remote: EmulatorRemote { commands, wake },
            thread: Some(thread),
        })
    }

    pub(crate) fn remote(&self) -> &EmulatorRemote {
        &self.remote
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.remote.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl EmulatorRemote {
    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        self.wake.write(1).map_err(|_| Stopped)?;
        Ok(())
    }

    fn ask<T>(&self, command: impl FnOnce(SyncSender<T>) -> Command) -> Result<T, Stopped> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| Stopped)
    }

    /// Changes one ordered pair; returns the parameters now in force.
    pub(crate) fn change(
        &self,
        from: usize,
        to: usize,
        change: LinkChange,
    ) -> Result<Result<LinkParams, LinkError>, Stopped> {
        self.ask(|done| Command::Change {
            from,
            to,
            change,
            done,
        })
    }

    pub(crate) fn report(&self) -> Result<EmulatorReport, Stopped> {
        self.ask(Command::Report)
    }

    pub(crate) fn keep_dropped(&self, frames_max: usize) -> Result<(), Stopped> {
        self.ask(|done| Command::Keep { frames_max, done })
    }

    pub(crate) fn take_dropped(&self) -> Result<DroppedFrames, Stopped> {
        self.ask(Command::TakeKept)
    }

    pub(crate) fn reset_books(&self) -> Result<(), Stopped> {
        self.ask(Command::ResetBooks)
    }
}
