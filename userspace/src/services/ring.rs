//! Frames that the programs hand over, from the ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use sunwire_dataplane_common::punt::{Kind, PuntHeader};
use tokio::io::{Interest, unix::AsyncFd};

/// A frame that a workload sent, and what is known of it for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt<'a> {
    /// What it asks for.
    pub kind: Kind,
    /// ifindex of the host-side device it came in by.
    pub ifindex: u32,
    /// Number of the endpoint that sent it; its MAC address was checked.
    pub endpoint: u32,
    /// VNI of the endpoint's network.
    pub network: u32,
    /// From the Ethernet header on. Checksums above IP may be unfinished, as between a machine and
    /// its own devices; nothing on the way can have corrupted them.
    pub frame: &'a [u8],
}

impl<'a> Punt<'a> {
    /// Reads a record; `None` when it is of no kind that is known here.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let (header, frame) = PuntHeader::split(record)?;
        Some(Punt {
            kind: Kind::from_value(header.kind)?,
            ifindex: header.ifindex,
            endpoint: header.endpoint,
            network: header.network,
            frame,
        })
    }
}

/// The reading end of the ring buffer. There is one: what is read is gone.
///
/// It is pinned, so what is asked while no agent runs is answered by the next one.
pub struct Punts {
    ring: RingBuf<MapData>,
}

impl Punts {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Punts { ring }
    }

    /// Takes the next frame, if one waits, and shows it to `look`.
    pub fn next<T>(&mut self, look: impl FnOnce(Option<Punt<'_>>) -> T) -> Option<T> {
        let item = self.ring.next()?;
        Some(look(Punt::parse(&item)))
    }

    /// Lets tokio wait for frames.
    ///
    /// # Errors
    /// When the kernel or the runtime refuses.
    #[allow(
        deprecated,
        reason = "its successor is unsafe for the sake of types that give another descriptor each \
                  time; the ring owns its map's, and keeps it"
    )]
    pub(crate) fn watch(self) -> io::Result<AsyncFd<RingBuf<MapData>>> {
        AsyncFd::with_interest(self.ring, Interest::READABLE)
    }
}
