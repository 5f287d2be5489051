//! Policies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Diagnostic, Name, Resource, Vni};

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

/// What became of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyStatus {
    /// The network that it governs.
    pub network: Name,
    /// That network's VNI.
    pub vni: Vni,
    /// Revision since which the compiled tables are in force: a change of labels makes new tables
    /// of an unchanged text.
    pub tables_revision: u64,
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

/// The texts that a policy had, oldest first; the last is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHistory {
    /// The revisions that are kept.
    pub items: Vec<PolicyRevision>,
}

/// A text that a policy had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRevision {
    /// Revision since which it was in force.
    pub revision: u64,
    /// The source, byte for byte.
    pub text: String,
    /// The revision whose text a rollback brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
}

/// Body of the request that rolls a policy back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision to go back to; the one before the present one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}
