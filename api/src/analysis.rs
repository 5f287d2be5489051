//! What the controller finds of a policy's text without changing anything: a plan, proofs, and why
//! a packet is treated as it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Span;
use crate::{Diagnostic, Name, Violation};

/// What would change if a text came into force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyPlan {
    /// The network that the text is for.
    pub network: Name,
    /// Revision of the text that it is compared with; absent when the network has no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_revision: Option<u64>,
    /// Packets that would be treated differently.
    pub changes: Vec<PacketChange>,
    /// There are more than are listed.
    pub more: bool,
    /// Endpoints that could begin to reach each other, or no longer could.
    pub reachability: Vec<ReachabilityChange>,
    /// What the text claims and would not hold: it would be refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// What the compiler has to say about the text besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
    /// The changes for people.
    pub rendered: String,
}

/// How packets are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PacketChangeKind {
    /// Something is sent of them, and nothing was.
    Allowed,
    /// Nothing is sent of them, and something was.
    Denied,
    /// Something else is sent of them.
    Changed,
}

/// Packets that would be treated differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PacketChange {
    /// How.
    pub kind: PacketChangeKind,
    /// Which packets, in words: the fields that matter.
    pub packets: String,
    /// One of them.
    pub example: String,
    /// What becomes of the example now.
    pub before: String,
    /// What would become of it.
    pub after: String,
}

/// Endpoints that could begin to reach each other, or no longer could: each of the first, each of
/// the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReachabilityChange {
    /// Whether they could.
    pub reachable: bool,
    /// Who begins: a set, or the names of the first endpoints.
    pub from: String,
    /// Who is reached.
    pub to: String,
    /// How many pairs of endpoints that are.
    pub pairs: u64,
}

/// What is known of the claims of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVerification {
    /// Whether every assertion holds and every test passes.
    pub holds: bool,
    /// Assertions, in the order of the text.
    pub assertions: Vec<AssertionResult>,
    /// Tests, in the order of the text.
    pub tests: Vec<PolicyTestResult>,
    /// What fails, drawn under its line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
}

/// Whether an assertion holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AssertionVerdict {
    /// For all packets.
    Holds,
    /// Not for the packet shown.
    Fails,
    /// The prover's limits were reached.
    Undecided,
}

/// What is known of an assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssertionResult {
    /// The assertion as written, on one line.
    pub assertion: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the text, in bytes.
    pub span: Span,
    /// Whether it holds.
    pub verdict: AssertionVerdict,
    /// How far the verdict goes, where that needs saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// A packet for which it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterexample: Option<String>,
    /// Where that packet goes, hop by hop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
}

/// What a test of a text showed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyTestResult {
    /// Its name.
    pub name: String,
    /// Whether everything went as expected.
    pub passed: bool,
    /// Packets that were tried.
    pub packets: u64,
    /// What went otherwise, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<String>,
}

/// Body of the request that explains what becomes of a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The packet by field name, such as
    /// `{"ethTyp": "0x800", "ip4Src": "10.0.0.1", "ip4Dst": "10.0.0.2"}`; absent fields are zero.
    #[schema(value_type = Object)]
    pub packet: serde_json::Map<String, serde_json::Value>,
    /// The source to ask; the text in force when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Why a packet is treated as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyExplanation {
    /// The packet, on one line.
    pub packet: String,
    /// Decisions about it, in order; more than one where it is sent through transparent endpoints.
    pub decisions: Vec<PolicyDecision>,
}

/// A decision about a packet at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDecision {
    /// The endpoint where the packet is.
    pub at: String,
    /// Label of the decision.
    pub label: String,
    /// The statement that decided; absent when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<PolicyClause>,
    /// The conditions that led there, outermost and first written first.
    pub conditions: Vec<PolicyCondition>,
    /// What is done with each copy, in words; none is a drop.
    pub copies: Vec<PolicyCopy>,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyClause {
    /// Where in the text, in bytes.
    pub span: Span,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The part itself, on one line.
    pub text: String,
}

/// A condition on the way to a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCondition {
    /// The condition.
    #[serde(flatten)]
    pub clause: PolicyClause,
    /// Whether it holds for the packet.
    pub holds: bool,
}

/// What is done with a copy of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyCopy {
    /// In words, such as `forwards it to db1`.
    pub what: String,
    /// Fields that are rewritten, in words; empty when none is.
    pub rewritten: String,
}
