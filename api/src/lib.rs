//! What clients and agents speak: the REST resources, their errors, and the agent protocol.
//!
//! Values are parsed once, into types that cannot be wrong: deserializing runs the same check as
//! `FromStr`. Nothing here decides anything; the controller does.
//!
//! ```
//! use sunwire_api::{Cidr, Name, NetworkSpec};
//!
//! let body = r#"{"subnets": ["10.20.0.0/16", "fd00:20::/64"], "mtu": 1300, "vni": 7}"#;
//! let spec: NetworkSpec = serde_json::from_str(body)?;
//! assert_eq!(spec.subnets[0], "10.20.0.0/16".parse::<Cidr>()?);
//! assert!("Shop".parse::<Name>().is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod agent;
mod analysis;
mod cidr;
#[cfg(feature = "client")]
pub mod client;
mod encryption;
mod endpoint;
mod flow;
mod location;
mod mac;
#[cfg(feature = "metrics")]
pub mod metrics;
mod name;
mod network;
mod node;
mod policy;
pub mod problem;
mod public_key;
mod question;
mod resource;
mod status;
mod trace;
mod tunnel;
mod vni;
mod wire;

pub use analysis::{
    AssertionResult, AssertionVerdict, ExplainRequest, PacketChange, PacketChangeKind,
    PolicyClause, PolicyCondition, PolicyCopy, PolicyDecision, PolicyExplanation, PolicyPlan,
    PolicyTestResult, PolicyVerification, ReachabilityChange,
};
pub use cidr::{Cidr, CidrError};
pub use encryption::{
    Encryption, EncryptionMode, EncryptionSpec, EncryptionStatus, NetworkEncryption, TunnelState,
    TunnelStatus,
};
pub use endpoint::{
    Endpoint, EndpointCreate, EndpointPatch, EndpointSpec, EndpointState, EndpointStatus, Labels,
    MoveRequest,
};
pub use flow::{
    Flow, FlowCause, FlowConnection, FlowEnd, FlowEntry, FlowFilter, FlowFilterError, FlowItem,
    FlowLosses, FlowVerdict, protocol_name, tcp_flag_letters,
};
pub use location::{LocationError, NodeLocation};
pub use mac::{MacAddress, MacError};
pub use name::{DeviceName, DeviceNameError, Name, NameError};
pub use network::{
    Network, NetworkChecksum, NetworkCreate, NetworkEnforce, NetworkEnforcement, NetworkOutbound,
    NetworkPatch, NetworkPeer, NetworkSpec, NetworkStatus, VXLAN_PORT, default_vxlan_port,
};
pub use node::{Node, NodeCreate, NodeError, NodeKind, NodeSpec, NodeStatus, Totals};
pub use policy::{
    ApplyRequest, AuditTotals, Policy, PolicyChecked, PolicyHistory, PolicyRevision, PolicySpec,
    PolicyState, PolicyStatus, PolicyText, RevisionReason, RollbackRequest, StagedPolicy,
    StagedRefusal, StagedSummary, Unconfirmed,
};
pub use problem::{Diagnostic, Problem, ProblemCode, Severity, Violation};
pub use public_key::{PublicKey, PublicKeyError};
pub use question::{CaptureItem, CaptureQuery, CapturedPacket, FlowQuery, Question, Telling};
pub use resource::{Deleted, Page, Resource};
pub use status::{
    CountTotals, Counters, DropTotals, LabelTotals, NamedTotals, NodeCounters, NodeProgress, Status,
};
pub use trace::{
    Trace, TraceEntry, TraceHop, TraceOutcome, TraceRequest, TraceRewrite, from_hex, to_hex,
};
pub use tunnel::{Tunnel, TunnelLiveness, TunnelProbes, TunnelRtt, TunnelTraffic, Tunnels};
pub use vni::{Vni, VniError};
pub use wire::{Wire, WireCreate, WireSpec, WireState, WireStatus};
