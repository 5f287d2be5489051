//! What became of packets: from the kernel's rings to whoever asks.
//!
//! ```text
//!  EVENTS, CAPTURED --> [rings] --> [decode] with [names] --> [hub] --> listeners
//!                                                              history, bounded
//!  a packet that somebody asks about --> [step] --> what this node would do with it
//! ```
//!
//! Nothing here changes what the data plane does. What cannot be told, because the kernel limited
//! it, a ring was full or a listener was slow, is counted and said.

pub mod decode;
pub mod hub;
pub mod names;
mod rings;
pub mod step;
pub(crate) mod trace;

pub use rings::{EventMaps, EventReader, EventSwitch, Losses, RingError};
