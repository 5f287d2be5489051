//! Policies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Diagnostic, Name, Resource, Violation, Vni};

/// A policy: its text, and the network it governs.
pub type Policy = Resource<PolicySpec, PolicyStatus>;

/// Body of the requests that put or check a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyText {
    /// The source.
    pub text: String,
}

/// What a policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicySpec {
    /// The source, byte for byte.
    pub text: String,
}

/// Whether a policy is in force, and as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyState {
    /// Its tables are in force, and what it asserts holds.
    InForce,
    /// Its tables are in force, and something that it asserts does not hold: somebody insisted.
    Violated,
    /// This version's compiler refuses its text: everything in its network is dropped.
    Refused,
}

impl PolicyState {
    /// The state as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            PolicyState::InForce => "in-force",
            PolicyState::Violated => "violated",
            PolicyState::Refused => "refused",
        }
    }
}

impl std::fmt::Display for PolicyState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What became of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStatus {
    /// The network that it governs.
    pub network: Name,
    /// That network's VNI.
    pub vni: Vni,
    /// Whether it is in force, and as it should be.
    pub state: PolicyState,
    /// Revision since which the text is in force: the last one of the history.
    pub text_revision: u64,
    /// BLAKE3-256 of the text, in hexadecimal.
    pub text_hash: String,
    /// Revision since which the compiled tables are in force: a change of labels makes new tables
    /// of an unchanged text.
    pub tables_revision: u64,
    /// Inner nodes of the tables.
    pub table_nodes: u64,
    /// Verdicts in the tables.
    pub leaves: u64,
    /// Prefixes that have an address class of their own.
    pub address_prefixes: u64,
    /// What the compiler has to say about it besides; its errors when it refuses the text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
    /// What it asserts and does not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// The text is in force until this, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unconfirmed: Option<Unconfirmed>,
    /// The candidate that is audited beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<StagedSummary>,
}

/// A text that goes away again unless it is confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unconfirmed {
    /// When the text before it is put back: milliseconds since 1970-01-01T00:00:00Z.
    pub deadline_unix_ms: u64,
    /// Revision of the text that is put back; absent when there was no policy: it is deleted then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_revision: Option<u64>,
}

/// A candidate, in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StagedSummary {
    /// Revision that staged it.
    pub revision: u64,
    /// BLAKE3-256 of its text, in hexadecimal.
    pub text_hash: String,
}

/// Answer of a check that found no error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyChecked {
    /// The network that the policy would govern.
    pub network: Name,
    /// Inner nodes of the tables.
    pub table_nodes: u64,
    /// Verdicts in the tables.
    pub leaves: u64,
    /// Prefixes that have an address class of their own.
    pub address_prefixes: u64,
    /// What the compiler has to say about it besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
}

/// The texts that a policy had, oldest first; the last is in force. A page of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHistory {
    /// The revisions that are kept.
    pub items: Vec<PolicyRevision>,
    /// What to pass as `page_token` for the next page; absent on the last. Opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// How a text came into force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RevisionReason {
    /// Somebody applied it.
    #[default]
    Applied,
    /// Somebody rolled back to it.
    RolledBack,
    /// The text after it was not confirmed in time.
    NotConfirmed,
}

impl std::fmt::Display for RevisionReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            RevisionReason::Applied => "applied",
            RevisionReason::RolledBack => "rolled-back",
            RevisionReason::NotConfirmed => "not-confirmed",
        })
    }
}

/// A text that a policy had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRevision {
    /// Revision since which it was in force.
    pub revision: u64,
    /// The source, byte for byte.
    pub text: String,
    /// BLAKE3-256 of the text, in hexadecimal.
    pub text_hash: String,
    /// How it came into force.
    pub reason: RevisionReason,
    /// The revision whose text was brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
    /// When: milliseconds since 1970-01-01T00:00:00Z. Absent where that was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_unix_ms: Option<u64>,
    /// Who applied it, as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why, as they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Body of the request that puts a text in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The source; the staged candidate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Put the text before it back unless this one is confirmed within so many seconds, 1 to
    /// 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_seconds: Option<u32>,
    /// Put it in force although something that it asserts does not hold.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Who applies it, for the history: at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why, for the history: at most 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Body of the request that rolls a policy back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision to go back to; the one before the present one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// Put the present text back unless the rollback is confirmed within so many seconds, 1 to
    /// 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_within_seconds: Option<u32>,
    /// Go back although something that the earlier text asserts does not hold now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// Who rolls back, for the history: at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why, for the history: at most 4096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A candidate that is compiled and asked beside the text in force, and drops nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StagedPolicy {
    /// Revision that staged it.
    pub revision: u64,
    /// The source, byte for byte.
    pub text: String,
    /// BLAKE3-256 of the text, in hexadecimal.
    pub text_hash: String,
    /// Revision since which its tables are as they are; counts begin anew with it.
    pub tables_revision: u64,
    /// Whether it compiles against what exists now; `warnings` holds the errors when not.
    pub compiles: bool,
    /// What the compiler has to say about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
    /// What both policies said of the packets that came by, summed over nodes; most packets first.
    pub audit: Vec<AuditTotals>,
    /// Nodes whose agents have reported counts of this candidate.
    pub reporting_nodes: Vec<Name>,
    /// Nodes that cannot ask it, such as for want of room; what is in force there is untouched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusing_nodes: Vec<StagedRefusal>,
}

/// Why a node does not ask a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StagedRefusal {
    /// The node.
    pub node: Name,
    /// Why, in its agent's words.
    pub detail: String,
}

/// Packets of live flows by what the text in force and the candidate say of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditTotals {
    /// Label of the rule in force that decided.
    pub live_label: String,
    /// Label of the candidate's rule that would.
    pub staged_label: String,
    /// Whether they passed.
    pub live_allowed: bool,
    /// Whether the candidate would let them pass.
    pub staged_allowed: bool,
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}
