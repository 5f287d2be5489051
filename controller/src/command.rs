//! Commands: the only way the state changes. What is accepted becomes a log entry.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use sunwire_api::{EndpointCreate, Name, NetworkCreate, NodeLocation};

/// A change that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// An agent said hello: its node comes into being, or is what it says now.
    RegisterNode {
        /// Name of the node.
        name: Name,
        /// Where it is.
        location: NodeLocation,
        /// Its address on the underlay.
        underlay_address: Ipv4Addr,
    },
    /// Forgets a node where no endpoint is.
    DeleteNode {
        /// Name of the node.
        name: Name,
    },
    /// Creates a network.
    CreateNetwork(NetworkCreate),
    /// Deletes a network without endpoints and policy.
    DeleteNetwork {
        /// Name of the network.
        name: Name,
    },
    /// Creates an endpoint.
    CreateEndpoint(EndpointCreate),
    /// Sets labels, and takes away those that are `None`.
    UpdateEndpoint {
        /// Name of the endpoint.
        name: Name,
        /// Labels by key.
        labels: BTreeMap<String, Option<String>>,
    },
    /// Deletes an endpoint.
    DeleteEndpoint {
        /// Name of the endpoint.
        name: Name,
    },
    /// From here on the endpoint's device may appear on another node.
    BeginMove {
        /// Name of the endpoint.
        endpoint: Name,
        /// The destination.
        node: Name,
    },
    /// Gives up a move.
    AbortMove {
        /// Name of the endpoint.
        endpoint: Name,
    },
    /// The device is on the destination: publishes the move to everybody.
    FinishMove {
        /// Name of the endpoint.
        endpoint: Name,
        /// The destination.
        node: Name,
        /// The epoch that ends.
        epoch: u32,
    },
    /// What an agent found on the node where the endpoint is.
    ReportEndpoint {
        /// Name of the endpoint.
        endpoint: Name,
        /// The node whose agent says so.
        node: Name,
        /// The endpoint's epoch that it speaks of.
        epoch: u32,
        /// What it found.
        condition: Condition,
        /// In words, where it needs words.
        detail: String,
    },
    /// Creates a policy or replaces its text.
    PutPolicy {
        /// Name of the policy.
        name: Name,
        /// The source.
        text: String,
    },
    /// Brings back an earlier text.
    RollbackPolicy {
        /// Name of the policy.
        name: Name,
        /// Revision of that text; the one before the present one when absent.
        to: Option<u64>,
    },
    /// Deletes a policy.
    DeletePolicy {
        /// Name of the policy.
        name: Name,
    },
}

/// How an endpoint's device is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Not seen.
    Absent,
    /// There, and its packets pass.
    Attached,
    /// There, and cannot be attached.
    Failed,
}

/// A command with what protects it from crossing another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The change.
    pub command: Command,
    /// What must hold of the resource that it changes.
    pub precondition: Precondition,
    /// Makes a repetition of the same request harmless.
    pub key: Option<IdempotencyKey>,
}

impl Proposal {
    /// A change that the controller itself makes, whatever revisions are.
    #[must_use]
    pub fn internal(command: Command) -> Self {
        Proposal {
            command,
            precondition: Precondition::Any,
            key: None,
        }
    }
}

/// What must hold of an existing resource for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// The client said nothing: enough only where nothing exists.
    None,
    /// It exists (`If-Match: *`).
    Any,
    /// It exists at this revision (`If-Match: "17"`).
    Revision(u64),
    /// It does not exist (`If-None-Match: *`).
    Absent,
}

/// A client's name for one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The client's name.
    pub key: String,
    /// Digest of the request, in hexadecimal: another request under the same name is refused.
    pub fingerprint: String,
}

/// An accepted proposal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Revision that it made: one more than the entry before.
    pub revision: u64,
    /// What was accepted.
    pub proposal: Proposal,
}
