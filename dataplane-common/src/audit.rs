//! What a staged policy would have done, counted beside what the policy in force did.
//!
//! A staged policy has a root of its own in the tables that the policy in force walks, so equal
//! nodes are there once. Its classes are not the policy in force's: the two may mean different
//! addresses by one name. So it has tries and endpoint classes of its own, and changing it touches
//! nothing that a verdict is made of. `Control::staged` says whether there is anything to do.
//!
//! The number in `Control::staged` is 1 or 2 by turns: an agent writes the roots and classes of the
//! number that no packet reads, then flips the word, like the generation.

use crate::tables::RootEntry;

/// Root of a network's staged policy, in `STAGED_ROOTS` by network and the number in
/// `Control::staged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct StagedRoot {
    /// Revision of the candidate: what is counted is counted of this one.
    pub revision: u64,
    /// Its root.
    pub root: RootEntry,
    /// Keeps the size a multiple of the alignment; zero.
    pub padding: u32,
}

/// Key of `AUDIT`: the rule that decided and the staged one that would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct AuditKey {
    /// Revision of the candidate.
    pub revision: u64,
    /// VXLAN network identifier.
    pub network: u32,
    /// Slot of the label of the rule that decided; [`NO_LABEL`] when no policy is in force.
    pub live_label: u32,
    /// Slot of the label of the staged rule.
    pub staged_label: u32,
    /// Bits of [`allowed`].
    pub allowed: u32,
}

/// The slot of no label.
pub const NO_LABEL: u32 = u32::MAX;

/// Bits of [`AuditKey::allowed`]: which of the two policies emits at least one copy.
pub mod allowed {
    /// The policy in force.
    pub const LIVE: u32 = 1 << 0;
    /// The staged one.
    pub const STAGED: u32 = 1 << 1;
}

/// Why a packet is in no count of a pair. It is counted under [`AuditKey::lost`] instead, a key that
/// the agent puts into `AUDIT` before it stages the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AuditLoss {
    /// There is no room for another pair of labels.
    Full = 0,
    /// The staged tables are incomplete: an error of the agent.
    BadTables = 1,
}

impl AuditLoss {
    /// Every reason.
    pub const ALL: [AuditLoss; 2] = [AuditLoss::Full, AuditLoss::BadTables];
}

impl AuditKey {
    /// The key of packets that are in no count of a pair. No staged rule has [`NO_LABEL`], so it is
    /// no pair's key.
    #[inline(always)]
    #[must_use]
    pub const fn lost(network: u32, revision: u64, loss: AuditLoss) -> Self {
        AuditKey {
            revision,
            network,
            live_label: loss as u32,
            staged_label: NO_LABEL,
            allowed: 0,
        }
    }
}

const _: () = assert!(size_of::<StagedRoot>() == 40);
const _: () = assert!(size_of::<AuditKey>() == 24);
