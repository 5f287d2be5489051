//! How many entries a node's maps hold, unless its agent is told otherwise.
//!
//! The one place for these figures: the compiler refuses a policy that they have no room for, and
//! the agent makes its maps of these sizes. They admit a policy of 100,000 rules.

/// Nodes of the flow tables, leaves included.
pub const TABLE_NODES: u32 = 1 << 18;
/// Exact edges of the flow tables.
pub const EDGES: u32 = 1 << 20;
/// Verdicts.
pub const VERDICTS: u32 = 1 << 14;
/// Prefixes with a class of their own, per address family.
pub const PREFIXES: u32 = 1 << 17;
/// Labels.
pub const LABELS: u32 = 1 << 12;
/// Pairs of a rule in force and a staged one that packets are counted under.
pub const AUDITED: u32 = 1 << 12;
/// Sets of endpoints that one packet goes to, counted in parts of 64.
pub const GROUPS: u32 = 1 << 12;
/// Multicast addresses that endpoints here and other nodes listen to.
pub const LISTENERS: u32 = 1 << 16;
/// Buckets of `limit`: one for each that a rate is held for.
pub const LIMITED: u32 = 1 << 16;
/// Flows, of both address families.
pub const FLOWS: u32 = 1 << 17;
/// Flows that are remembered beside them while there is no room, per address family.
pub const OVERFLOW: u32 = 1 << 14;
/// Connections that leave the cloud at a node, of both address families.
pub const OUTBOUND: u32 = 1 << 16;
