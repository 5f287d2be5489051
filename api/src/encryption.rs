//! Which tunnels between nodes are encrypted.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, Resource, TunnelProbes, TunnelTraffic};

/// Whether tunnels are encrypted, for the whole cloud. There is one.
pub type Encryption = Resource<EncryptionSpec, EncryptionStatus>;

/// Which tunnels are encrypted, but for packets of networks that say so themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionMode {
    /// None. Was called `off` before it had to be asked for.
    #[serde(alias = "off")]
    Never,
    /// Those between nodes of different clouds: what crosses a network that nobody vouches for.
    #[default]
    BetweenClouds,
    /// All.
    Always,
}

/// Whether a network's packets are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkEncryption {
    /// Where the cloud's setting says so.
    #[default]
    Default,
    /// On their way to any other node.
    Required,
    /// Nowhere, between clouds neither, whatever the cloud's setting says: everybody on their way can
    /// read and change them.
    Never,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EncryptionSpec {
    /// Which tunnels are encrypted.
    pub mode: EncryptionMode,
}

/// What stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EncryptionStatus {
    /// Nodes that have announced no key: packets that have to be encrypted do not reach them.
    pub nodes_without_key: Vec<Name>,
}

/// How the tunnel from one node to another is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TunnelStatus {
    /// The other node.
    pub node: Name,
    /// How packets travel to it.
    pub state: TunnelState,
    /// Seconds since the handshake of the present session; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake_age_s: Option<f64>,
    /// Handshakes completed since the process that encrypts was started.
    pub handshakes: u64,
    /// Packets and bytes sent before they were encrypted.
    pub sent: crate::Totals,
    /// Packets and bytes received after they were decrypted.
    pub received: crate::Totals,
    /// Packets that did not decrypt, were replayed, or claimed to be another node's.
    pub decrypt_errors: u64,
    /// Packets that were to be encrypted and could not be sent.
    pub unsent_packets: u64,
    /// Packets of workloads that went to it.
    #[serde(default)]
    pub transmitted: TunnelTraffic,
    /// Packets of workloads that came from it.
    #[serde(default)]
    pub arrived: TunnelTraffic,
    /// What became of probes; absent for a node that is not probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probes: Option<TunnelProbes>,
    /// What is wrong, and what to do; absent when nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How packets travel to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TunnelState {
    /// In the clear.
    Plaintext,
    /// Encrypted.
    Encrypted,
    /// Not at all: they have to be encrypted, and there is no session yet, or none any more.
    Down,
}

impl std::fmt::Display for EncryptionMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            EncryptionMode::Never => "never",
            EncryptionMode::BetweenClouds => "between-clouds",
            EncryptionMode::Always => "always",
        })
    }
}

impl std::fmt::Display for NetworkEncryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NetworkEncryption::Default => "default",
            NetworkEncryption::Required => "required",
            NetworkEncryption::Never => "never",
        })
    }
}

impl std::fmt::Display for TunnelState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TunnelState::Plaintext => "plaintext",
            TunnelState::Encrypted => "encrypted",
            TunnelState::Down => "down",
        })
    }
}
