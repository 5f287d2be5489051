//! Errors as clients see them: `application/problem+json` (RFC 9457) with a machine code.
//!
//! [`ProblemCode`] is the one list of what can go wrong; status and title follow from the code.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Name;

/// Media type of a [`Problem`].
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was refused. A refused request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail} ({code})")]
pub struct Problem {
    /// `urn:sunwire:problem:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem this is, for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What is wrong here and what to do about it.
    pub detail: String,
    /// For programs.
    pub code: ProblemCode,
    /// Errors in a policy's text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// Assertions of a policy that would not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:sunwire:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            diagnostics: Vec::new(),
            violations: Vec::new(),
        }
    }
}

/// One finding in a policy's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Diagnostic {
    /// For programs.
    pub code: String,
    /// Whether it stops the policy.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Line of the end, from 1.
    #[serde(default)]
    pub end_line: u32,
    /// Column after the last character, from 1.
    #[serde(default)]
    pub end_column: u32,
    /// Where in the text, in bytes.
    pub span: Span,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The finding drawn under its line of the text, for a terminal.
    pub rendered: String,
}

/// A claim of a policy, an assertion or a test, that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Violation {
    /// The policy.
    pub policy: Name,
    /// The assertion as written, on one line; `test "…"` for a test.
    pub assertion: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where in the text, in bytes.
    pub span: Span,
    /// What is wrong, in words.
    pub message: String,
    /// A packet that shows it; absent when the assertion could not be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counterexample: Option<String>,
    /// Where that packet goes, hop by hop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<String>,
}

/// Whether a finding stops a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy means something, but perhaps not what its author meant.
    Warning,
}

/// Bytes of a text, from `start` up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One after the last byte.
    pub end: u32,
}

/// Line and column, in characters and both from 1, of a byte of a text; of its end when it is
/// shorter.
#[must_use]
pub fn line_and_column(text: &str, byte: u32) -> (u32, u32) {
    let mut end = (byte as usize).min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = before.bytes().filter(|byte| *byte == b'\n').count();
    let column = before[line_start..].chars().count();
    (
        count(line).saturating_add(1),
        count(column).saturating_add(1),
    )
}

macro_rules! problem_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:literal, $title:literal;)*) => {
        /// What can go wrong, for programs.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            ToSchema,
        )]
        pub enum ProblemCode {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)*
        }

        impl ProblemCode {
            /// Every code.
            pub const ALL: &'static [ProblemCode] = &[$(ProblemCode::$variant,)*];

            /// The code as it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(ProblemCode::$variant => $text,)* }
            }

            /// HTTP status that it is answered with.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(ProblemCode::$variant => $status,)* }
            }

            /// What kind of problem it is, for people.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(ProblemCode::$variant => $title,)* }
            }
        }
    };
}

problem_codes! {
    /// The body is not JSON.
    MalformedJson = "malformed-json", 400, "The body is not JSON";
    /// A query parameter is unknown or has a value that it cannot have.
    InvalidQuery = "invalid-query", 400, "A query parameter is wrong";
    /// A header has a value that it cannot have.
    InvalidHeader = "invalid-header", 400, "A header is wrong";
    /// No such path.
    RouteNotFound = "route-not-found", 404, "No such path";
    /// No node has this name.
    NodeNotFound = "node-not-found", 404, "No such node";
    /// No network has this name.
    NetworkNotFound = "network-not-found", 404, "No such network";
    /// No endpoint has this name.
    EndpointNotFound = "endpoint-not-found", 404, "No such endpoint";
    /// No wire has this name.
    WireNotFound = "wire-not-found", 404, "No such wire";
    /// No policy has this name.
    PolicyNotFound = "policy-not-found", 404, "No such policy";
    /// The policy's history does not hold this revision.
    RevisionNotFound = "revision-not-found", 404, "No such revision";
    /// The path exists and does not take this method.
    MethodNotAllowed = "method-not-allowed", 405, "Method not allowed";
    /// The name is taken by another resource of the same kind.
    NameTaken = "name-taken", 409, "The name is taken";
    /// The VNI is taken by another network.
    VniTaken = "vni-taken", 409, "The VNI is taken";
    /// No VNI is free.
    VnisExhausted = "vnis-exhausted", 409, "No VNI is free";
    /// No number is left for a node or endpoint.
    NumbersExhausted = "numbers-exhausted", 409, "No number is left";
    /// An endpoint of the network has the address.
    AddressTaken = "address-taken", 409, "The address is taken";
    /// No address of the subnet is free.
    AddressesExhausted = "addresses-exhausted", 409, "No address is free";
    /// An endpoint of the network has the MAC address.
    MacTaken = "mac-taken", 409, "The MAC address is taken";
    /// An endpoint on the node has a device of this name.
    DeviceTaken = "device-taken", 409, "The device is taken";
    /// Another node has the underlay address.
    UnderlayAddressTaken = "underlay-address-taken", 409, "The underlay address is taken";
    /// An endpoint is on the node or moves there.
    NodeInUse = "node-in-use", 409, "The node is in use";
    /// The node runs no agent, and what was asked for needs one.
    NodeWithoutAgent = "node-without-agent", 409, "The node runs no agent";
    /// Packets would have to be encrypted on their way to a node that cannot.
    NotEncryptable = "not-encryptable", 409, "The packets cannot be encrypted";
    /// The node's agent is connected.
    NodeConnected = "node-connected", 409, "The node is connected";
    /// The network has endpoints or a policy.
    NetworkInUse = "network-in-use", 409, "The network is in use";
    /// The networks are not peered.
    NotPeered = "not-peered", 409, "The networks are not peered";
    /// The endpoint is an end of a wire.
    EndpointWired = "endpoint-wired", 409, "The endpoint is an end of a wire";
    /// The endpoint is on that node already.
    AlreadyThere = "already-there", 409, "The endpoint is there already";
    /// The endpoint moves already.
    AlreadyMoving = "already-moving", 409, "The endpoint moves already";
    /// The endpoint does not move.
    NotMoving = "not-moving", 409, "The endpoint does not move";
    /// The change would leave a policy that does not compile.
    PolicyBroken = "policy-broken", 409, "A policy would not compile any more";
    /// The change would leave an assertion of a policy that does not hold; `violations` has them.
    AssertionViolated = "assertion-violated", 409, "An assertion would not hold";
    /// Another policy governs the network.
    PolicyNetworkTaken = "policy-network-taken", 409, "The network has another policy";
    /// The policy has no earlier revision.
    NothingToRollBack = "nothing-to-roll-back", 409, "No earlier revision";
    /// The policy does not wait to be confirmed.
    NothingToConfirm = "nothing-to-confirm", 409, "Nothing waits to be confirmed";
    /// The policy has no staged candidate.
    NothingStaged = "nothing-staged", 409, "Nothing is staged";
    /// The candidate is for another network than the policy.
    StagedElsewhere = "staged-elsewhere", 409, "The candidate is for another network";
    /// The resource changed since the revision in `If-Match`, or `If-None-Match: *` met one.
    StaleRevision = "stale-revision", 412, "The resource has changed";
    /// The body is longer than 4 MiB.
    BodyTooLarge = "body-too-large", 413, "The body is too large";
    /// The body's media type is none that the path takes.
    UnsupportedMediaType = "unsupported-media-type", 415, "Unsupported media type";
    /// The body is JSON, and a member is missing, unknown or has a value that it cannot have.
    InvalidBody = "invalid-body", 422, "The body is wrong";
    /// The body names a node that does not exist.
    UnknownNode = "unknown-node", 422, "The body names an unknown node";
    /// The body names a network that does not exist.
    UnknownNetwork = "unknown-network", 422, "The body names an unknown network";
    /// The body names an endpoint that does not exist.
    UnknownEndpoint = "unknown-endpoint", 422, "The body names an unknown endpoint";
    /// These two endpoints cannot be the ends of a wire.
    WireInvalid = "wire-invalid", 422, "The wire cannot be";
    /// The two networks cannot be peered.
    PeeringInvalid = "peering-invalid", 422, "The networks cannot be peered";
    /// Packets of the network cannot leave the cloud in that way.
    OutboundInvalid = "outbound-invalid", 422, "Packets cannot leave that way";
    /// Two subnets of one network, or of networks that packets are routed between, overlap.
    SubnetOverlap = "subnet-overlap", 422, "Subnets overlap";
    /// A subnet cannot be a network's.
    SubnetInvalid = "subnet-invalid", 422, "A subnet is wrong";
    /// The MTU is outside what can be carried.
    MtuInvalid = "mtu-invalid", 422, "The MTU is wrong";
    /// A network's UDP port is none, has another use, or is one too many.
    VxlanPortInvalid = "vxlan-port-invalid", 422, "The UDP port cannot be a network's";
    /// A node announces a public key that is none, too many of them, or another node's.
    PublicKeyInvalid = "public-key-invalid", 422, "The public key cannot be used";
    /// An address is outside the network's subnets, reserved, or one too many of its family.
    AddressInvalid = "address-invalid", 422, "An address is wrong";
    /// The MAC address is a group's, zero or the gateway's.
    MacInvalid = "mac-invalid", 422, "The MAC address is wrong";
    /// A label's key or value is malformed, or there are too many.
    LabelInvalid = "label-invalid", 422, "A label is wrong";
    /// The policy's text has errors; `diagnostics` holds them all.
    PolicyInvalid = "policy-invalid", 422, "The policy has errors";
    /// What was asked about the policy takes more than the controller spends on it.
    Undecided = "undecided", 422, "The question is too large";
    /// The Idempotency-Key was used with another request.
    IdempotencyKeyReused = "idempotency-key-reused", 422, "The Idempotency-Key was used before";
    /// A write of an existing resource has no `If-Match` and no `Idempotency-Key`.
    PreconditionRequired = "precondition-required", 428, "If-Match is required";
    /// The controller has failed at something that is not the request's fault.
    Internal = "internal", 500, "The controller failed";
    /// The packet cannot be traced: it is none, or the node where it would enter does not answer.
    NotTraceable = "not-traceable", 422, "The packet cannot be traced";
    /// The controller is stopping.
    Stopping = "stopping", 503, "The controller is stopping";
}

impl fmt::Display for ProblemCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_count_characters_from_one() {
        let text = "a\nbé c\n";
        let at = |byte| line_and_column(text, byte);
        assert_eq!((at(0), at(1), at(2)), ((1, 1), (1, 2), (2, 1)));
        assert_eq!((at(3), at(4), at(5)), ((2, 2), (2, 2), (2, 3)));
        assert_eq!((at(8), at(99)), ((3, 1), (3, 1)));
    }

    #[test]
    fn codes_are_distinct_and_serialize_as_they_are_written() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ProblemCode::ALL {
            assert!(seen.insert(code.as_str()), "{code} stands twice");
            let json = serde_json::to_string(code).unwrap();
            assert_eq!(json, format!("\"{code}\""));
            assert!((400..600).contains(&code.status()));
        }
    }
}
