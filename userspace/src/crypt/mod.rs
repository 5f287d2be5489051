//! Encryption of tunnels between nodes: VXLAN inside WireGuard, the kernel's or in user space.
//!
//! ```text
//!              +-- agent -----------------------------+      +-- sunwire crypt ------------------+
//!  controller  | keys made, kept, announced, rotated  | unix | tunnels, one per pair of keys     |
//!  <---------> | which peers must be encrypted        |----->| TAP sw-crypt <-> UDP port 51820   |
//!              +--------------------------------------+      +-----------------------------------+
//! ```
//!
//! To the kernel's programs the TAP device is an underlay like any other, but for the peers that
//! have to be encrypted: what they send is accepted there alone. The process that encrypts outlives
//! the agent, so an agent's restart loses no packet.
//!
//! Where the kernel has WireGuard, its devices take the place of the process and its TAP device:
//! the same keys, the same messages on the wire.
//!
//! - [`keeper`]: the agent's side, all together.
//! - [`kernel`]: tunnels by the kernel's own WireGuard; `genl`: how it is asked.
//! - [`key`]: this node's private keys.
//! - [`protocol`]: what the agent and the process say to each other.
//! - [`resolve`]: which nodes packets are encrypted to.
//! - [`rotation`]: when a key is replaced.
//! - [`slot`]: the port and the address that go with a key.
//! - [`supervisor`]: the agent's hold on the process.
//! - [`worker`]: the process.
//! - `table`, `peer`: who a datagram belongs to, and the tunnels of a peer.
//! - `segment`, `merge`: super-packets into packets and back.

mod genl;
pub mod keeper;
pub mod kernel;
pub mod key;
mod listener;
mod merge;
mod packet;
mod peer;
pub mod protocol;
pub mod resolve;
pub mod rotation;
mod segment;
pub mod slot;
mod socket;
pub mod supervisor;
mod sys;
mod table;
#[cfg(test)]
mod test_packets;
pub mod worker;

pub use listener::{PID, SOCKET, call};
