//! What became of packets: from the kernel's rings to whoever asks.
//!
//! Nothing here changes what the data plane does. What cannot be told, because the kernel limited
//! it or a ring was full, is counted.

mod rings;
pub mod step;

pub use rings::{EventMaps, EventReader, EventSwitch, Losses, RingError};
