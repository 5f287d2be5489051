//! Packets for several endpoints: which sets there are, and who listens to which address.
//!
//! ```text
//! leaves of policies --[sets]-------> GROUPS, GROUP_TAGS    who is in a set, here and on which nodes
//! reports of workloads --[membership]--> [listeners] --> LISTENERS    who of these listens to what
//! ```
//!
//! - [`sets`]: the sets that verdicts send to, as the programs have them.
//! - [`membership`]: what one endpoint listens to, by its reports and by time.
//! - `relays`: which node of another region sends on, where a network asks for it.
//! - [`listeners`]: who listens, here and on which nodes, as the programs have it.
//!
//! Reports come in by [`services`](crate::services), and to and from other nodes by the controller.

pub mod listeners;
pub mod membership;
pub(crate) mod relays;
pub mod sets;
