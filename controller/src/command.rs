//! Commands: the only way the state changes. What is accepted becomes a log entry.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sunwire_api::{
    EncryptionMode, EndpointCreate, Name, NetworkChecksum, NetworkCreate, NetworkEncryption,
    NetworkEnforcement, NetworkOutbound, NodeCreate, NodeLocation, PublicKey, Violation,
    WireCreate,
};

use crate::state::Source;

/// A change that somebody wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// An agent said hello: its node comes into being, or is what it says now.
    RegisterNode {
        /// Name of the node.
        name: Name,
        /// Where it is.
        location: NodeLocation,
        /// Its IPv4 address on the underlay.
        underlay_address: Option<Ipv4Addr>,
        /// Its IPv6 address there: it has one of them, or both.
        #[serde(default)]
        underlay_address_v6: Option<Ipv6Addr>,
        /// Its public keys, the oldest first.
        #[serde(default)]
        public_keys: Vec<PublicKey>,
        /// UDP port of encrypted packets.
        #[serde(default)]
        tunnel_port: u16,
    },
    /// Declares a node without an agent.
    CreateNode(NodeCreate),
    /// An agent said which keys its node has from now on.
    SetNodeKeys {
        /// Name of the node.
        name: Name,
        /// Its public keys, the oldest first.
        public_keys: Vec<PublicKey>,
    },
    /// Decides which tunnels are encrypted.
    SetEncryption {
        /// Which.
        mode: EncryptionMode,
    },
    /// Forgets a node where no endpoint is.
    DeleteNode {
        /// Name of the node.
        name: Name,
    },
    /// Creates a network.
    CreateNetwork(NetworkCreate),
    /// Changes a network.
    #[serde(alias = "SetOutbound")]
    UpdateNetwork {
        /// Name of the network.
        name: Name,
        /// Where packets leave the cloud from now on; as it is when absent.
        outbound: Option<NetworkOutbound>,
        /// The outer checksum of its packets from now on; as it is when absent.
        #[serde(default)]
        checksum: Option<NetworkChecksum>,
        /// Whether its packets are encrypted from now on; as it is when absent.
        #[serde(default)]
        encryption: Option<NetworkEncryption>,
    },
    /// Deletes a network without endpoints and policy.
    DeleteNetwork {
        /// Name of the network.
        name: Name,
    },
    /// Has packets routed between two networks.
    PeerNetworks {
        /// Name of one network.
        name: Name,
        /// Name of the other one.
        peer: Name,
    },
    /// Ends that.
    UnpeerNetworks {
        /// Name of one network.
        name: Name,
        /// Name of the other one.
        peer: Name,
    },
    /// Says who decides about a network's packets.
    EnforceNetwork {
        /// Name of the network.
        name: Name,
        /// Who.
        enforce: NetworkEnforcement,
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
    /// Makes two endpoints the ends of a wire.
    ConnectWire(WireCreate),
    /// Takes a wire away.
    DisconnectWire {
        /// Name of the wire.
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
        text: Source,
        /// For the history.
        #[serde(default)]
        note: Note,
        /// The text before it comes back unless this one is confirmed by then: milliseconds of
        /// Unix time.
        #[serde(default)]
        confirm_by_unix_ms: Option<u64>,
    },
    /// Puts the staged candidate in force.
    ApplyStaged {
        /// Name of the policy.
        name: Name,
        /// For the history.
        note: Note,
        /// As for [`Command::PutPolicy`].
        confirm_by_unix_ms: Option<u64>,
    },
    /// Brings back an earlier text.
    RollbackPolicy {
        /// Name of the policy.
        name: Name,
        /// Revision of that text; the one before the present one when absent.
        to: Option<u64>,
        /// For the history.
        #[serde(default)]
        note: Note,
        /// As for [`Command::PutPolicy`].
        #[serde(default)]
        confirm_by_unix_ms: Option<u64>,
    },
    /// Keeps the text in force for good.
    ConfirmPolicy {
        /// Name of the policy.
        name: Name,
    },
    /// The text of that revision was not confirmed in time: the one before it comes back.
    RevertPolicy {
        /// Name of the policy.
        name: Name,
        /// Revision of the text that was to be confirmed.
        text_revision: u64,
        /// When, for the history.
        note: Note,
    },
    /// Has a candidate asked beside the text in force, on live flows.
    StagePolicy {
        /// Name of the policy.
        name: Name,
        /// The source of the candidate.
        text: Source,
    },
    /// Takes the candidate away.
    UnstagePolicy {
        /// Name of the policy.
        name: Name,
    },
    /// Deletes a policy.
    DeletePolicy {
        /// Name of the policy.
        name: Name,
    },
}

/// What a history keeps of a change besides the text. The time is the client's server's: the state
/// itself has no clock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When: milliseconds of Unix time.
    pub at_unix_ms: Option<u64>,
    /// Who, as they say.
    pub author: Option<String>,
    /// Why, as they say.
    pub comment: Option<String>,
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
    /// Make it although an assertion of a policy will not hold: the policy is violated then.
    #[serde(default)]
    pub force: bool,
}

impl Proposal {
    /// A change that the controller itself makes, whatever revisions are.
    #[must_use]
    pub fn internal(command: Command) -> Self {
        Proposal {
            command,
            precondition: Precondition::Any,
            key: None,
            force: false,
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
    /// What it made of policies. Absent in entries of the first format, where it is found anew.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// What an accepted proposal made of policies: decided once, so that applying the entry again needs
/// neither compiler nor prover, and does not depend on their versions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Policies whose text in force was examined.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub policies: BTreeMap<Name, Found>,
    /// Policies whose staged tables are new, different or gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub staged: BTreeSet<Name>,
}

/// What was found of a policy's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The network that it governs.
    pub network: Name,
    /// Whether its tables are others than before.
    pub tables_changed: bool,
    /// Its assertions that do not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
}
