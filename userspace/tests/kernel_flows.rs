//! What the programs remember of flows changes how fast a packet is decided, and never how; and what
//! is remembered of connections is kept, handed over and forgotten as it should be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod fixture;
mod flows;
#[allow(dead_code, reason = "kernel_packets uses all of it")]
mod packets;
