//! The control socket: how another process asks a lab's owner.
//!
//! `/run/sunwire/lab/ID/control.sock` speaks JSON, one [`Request`] a line,
//! answered by one [`Response`] a line, as often as the client likes. Whatever
//! needs no answer of the owner ([`client::list`], [`client::exec`]) works on
//! the lab's record alone.

pub mod client;
pub(crate) mod server;

use serde::{Deserialize, Serialize};

use crate::emulator::EmulatorReport;
use crate::link::{LinkChange, LinkParams};
use crate::state::LabRecord;
use crate::workload::MoveTimes;

/// File name of the socket in the lab's directory.
pub(crate) const SOCKET: &str = "control.sock";
/// Longest request or response accepted, bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 64 << 20;

/// What a client asks; `{"request":"status"}` on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The lab's record.
    Status,
    /// The emulator's report.
    Report,
    /// Change the link from one node to another.
    SetLink {
        /// Source node.
        from: String,
        /// Destination node.
        to: String,
        /// Values to change.
        change: LinkChange,
    },
    /// Move a workload's host-side device to another node.
    MoveHostSide {
        /// The workload.
        workload: String,
        /// The node.
        to: String,
    },
}

/// What the owner answers; `{"response":"status",…}` on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", content = "value", rename_all = "snake_case")]
pub enum Response {
    /// To [`Request::Status`].
    Status(LabRecord),
    /// To [`Request::Report`].
    Report(EmulatorReport),
    /// To [`Request::SetLink`]: the parameters now in force.
    Link(LinkParams),
    /// To [`Request::MoveHostSide`]: when it moved.
    Moved(MoveTimes),
    /// The request failed; nothing has changed.
    Error(String),
}
