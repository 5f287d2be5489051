//! Endpoints: virtual NICs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DeviceName, MacAddress, Name, Resource};

/// An endpoint.
pub type Endpoint = Resource<EndpointSpec, EndpointStatus>;

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Body of the request that creates an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointCreate {
    /// Unique name.
    pub name: Name,
    /// Its network.
    pub network: Name,
    /// The node where it is.
    pub node: Name,
    /// Host-side device on the node; derived from the name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceName>,
    /// At most one of each family; the lowest free of each subnet when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub addresses: Option<Vec<IpAddr>>,
    /// MAC address; derived from the number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<MacAddress>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
}

/// Body of the request that changes an endpoint: a JSON merge patch (RFC 7396).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointPatch {
    /// Labels to set; those that are null are taken away.
    #[serde(default)]
    pub labels: BTreeMap<String, Option<String>>,
}

/// Body of the request that begins a move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveRequest {
    /// The node to move to.
    pub node: Name,
}

/// What an endpoint is, wherever it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointSpec {
    /// Its network.
    pub network: Name,
    /// Host-side device.
    pub device: DeviceName,
    /// At most one of each family.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// MAC address.
    pub mac: MacAddress,
    /// Labels.
    pub labels: Labels,
}

/// Where an endpoint is, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointStatus {
    /// Dense number, from 1, never reused.
    pub number: u32,
    /// How it is.
    pub state: EndpointState,
    /// The node where it is.
    pub node: Name,
    /// The node that it moves to, while it moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving_to: Option<Name>,
    /// Rises with every completed move.
    pub epoch: u32,
    /// What an agent last said of it, where that needs words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndpointState {
    /// Its device has not been seen on its node.
    Pending,
    /// Its device is on its node and its packets pass.
    Attached,
    /// It is on its way to another node.
    Moving,
    /// Its device is on its node and cannot be attached.
    Failed,
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EndpointState::Pending => "pending",
            EndpointState::Attached => "attached",
            EndpointState::Moving => "moving",
            EndpointState::Failed => "failed",
        })
    }
}
