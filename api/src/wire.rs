//! Wires: point-to-point connectors between two endpoints.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Name, Resource, Totals};

/// A wire.
pub type Wire = Resource<WireSpec, WireStatus>;

/// Body of the request that connects two endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WireCreate {
    /// Unique name.
    pub name: Name,
    /// One end: an endpoint of a network without subnet, and in no other wire.
    pub a: Name,
    /// The other end: another endpoint of the same network.
    pub b: Name,
}

/// What a wire is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WireSpec {
    /// One end.
    pub a: Name,
    /// The other end.
    pub b: Name,
}

/// What became of a wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WireStatus {
    /// Dense number, never reused: what frames between nodes name the wire by.
    pub number: u32,
    /// The network of both ends.
    pub network: Name,
    /// Whether both ends have their device.
    pub state: WireState,
    /// Which end is missing or on its way, in words; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// What the first end has sent, over all nodes where it was, as agents last reported.
    pub from_a: Totals,
    /// What the second end has sent, likewise.
    pub from_b: Totals,
}

/// Whether what goes into a wire can come out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WireState {
    /// Both ends are attached, or on their way between two nodes.
    Up,
    /// An end has no device, or one that cannot be used.
    Down,
}

impl fmt::Display for WireState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WireState::Up => "up",
            WireState::Down => "down",
        })
    }
}
