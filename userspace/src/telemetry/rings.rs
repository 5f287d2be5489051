//! The kernel's rings of events, and the switch that says what goes into them.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use sunwire_dataplane_common::event::{Event, EventLosses, EventSettings};

use crate::{pod::Pod, shadow::ShadowError};

/// Events handed out at once: a flood must not keep their reader from everything else.
const DRAINED: usize = 16_384;

/// A ring or its switch cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} map {map}")]
pub struct RingError {
    verb: &'static str,
    map: &'static str,
    #[source]
    source: Box<MapError>,
}

/// What the kernel could not tell since the maps were made, summed over CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events above the rate limit.
    pub limited: u64,
    /// Events for which the ring had no room.
    pub full: u64,
    /// Captured packets for which the ring had no room.
    pub captured_full: u64,
}

/// The maps that tell what became of packets.
pub struct EventMaps {
    /// Switches what is told.
    pub settings: EventSwitch,
    /// Flow events.
    pub events: EventReader,
    /// Captured packets.
    pub captured: EventReader,
}

/// Says what the programs tell, and what they could not.
pub struct EventSwitch {
    settings: Array<MapData, Pod<EventSettings>>,
    losses: PerCpuArray<MapData, Pod<EventLosses>>,
}

/// Reads one ring.
pub struct EventReader {
    ring: RingBuf<MapData>,
}

impl EventMaps {
    /// Takes the maps of a loaded object over.
    pub(crate) fn open(
        take: &mut impl FnMut(&'static str) -> Result<Map, ShadowError>,
    ) -> Result<Self, ShadowError> {
        fn layout(map: &'static str) -> impl FnOnce(MapError) -> ShadowError {
            move |source| ShadowError::Layout { map, source }
        }
        let settings =
            Array::try_from(take("EVENT_SETTINGS")?).map_err(layout("EVENT_SETTINGS"))?;
        let losses =
            PerCpuArray::try_from(take("EVENT_LOSSES")?).map_err(layout("EVENT_LOSSES"))?;
        let mut reader = |map| {
            let ring = RingBuf::try_from(take(map)?).map_err(layout(map))?;
            Ok::<_, ShadowError>(EventReader { ring })
        };
        Ok(EventMaps {
            events: reader("EVENTS")?,
            captured: reader("CAPTURED")?,
            settings: EventSwitch { settings, losses },
        })
    }
}

impl EventSwitch {
    /// Sets what the programs tell from the next packet on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&mut self, settings: EventSettings) -> Result<(), RingError> {
        self.settings
            .set(0, Pod(settings), 0)
            .map_err(|source| RingError {
                verb: "write",
                map: "EVENT_SETTINGS",
                source: source.into(),
            })
    }

    /// What could not be told.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn losses(&self) -> Result<Losses, RingError> {
        let values = self.losses.get(&0, 0).map_err(|source| RingError {
            verb: "read",
            map: "EVENT_LOSSES",
            source: source.into(),
        })?;
        let mut losses = Losses::default();
        for Pod(of_cpu) in values.iter() {
            losses.limited += of_cpu.limited;
            losses.full += of_cpu.full;
            losses.captured_full += of_cpu.captured_full;
        }
        Ok(losses)
    }
}

impl EventReader {
    /// Hands out what waits in the ring, oldest first and a bounded number of them; returns
    /// how many.
    pub fn drain(&mut self, mut each: impl FnMut(Event, &[u8])) -> usize {
        let mut count = 0;
        while count < DRAINED
            && let Some(record) = self.ring.next()
        {
            // The programs write nothing else into it.
            if let Some((event, frame)) = Event::read(&record) {
                each(event, frame);
                count += 1;
            }
        }
        count
    }
}

impl AsFd for EventReader {
    /// Readable when something waits.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
