//! Packets for several endpoints: which sets there are, and who listens to which address.
//!
//! ```text
//! leaves of policies --[sets]--> GROUPS, GROUP_TAGS      who is in a set, here and on which nodes
//! ```
//!
//! - [`sets`]: the sets that verdicts send to, as the programs have them.

pub mod sets;
