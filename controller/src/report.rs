//! What an agent says of an endpoint, as a command.

use sunwire_api::{Name, agent};

use crate::command::{Command, Condition};
use crate::state::State;

/// What a report calls for: nothing when it is late, or of something that is gone.
pub(crate) fn command(
    state: &State,
    node: &Name,
    report: &agent::EndpointReport,
) -> Option<Command> {
    let endpoint: Name = report.endpoint.parse().ok()?;
    let condition = match report.state() {
        agent::endpoint_report::State::Unspecified => return None,
        agent::endpoint_report::State::Attached => Condition::Attached,
        agent::endpoint_report::State::Absent => Condition::Absent,
        agent::endpoint_report::State::Failed => Condition::Failed,
    };
    state.command_for_report(node, &endpoint, report.epoch, condition, &report.detail)
}
