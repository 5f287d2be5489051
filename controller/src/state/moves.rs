//! Moves of endpoints, and what agents report of their devices.
//!
//! ```text
//!             BeginMove                     destination reports ATTACHED
//!   at rest ------------> moving, node = source ------------------> at rest, node = destination
//!      ^                        |              FinishMove           epoch + 1
//!      +------------------------+
//!              AbortMove
//! ```
//! Until FinishMove the endpoint is at its source for everybody, and the source forwards to the
//! destination what reaches it after the device has left. A report speaks of an epoch: one that
//! is late by a whole move is ignored. During a move the source's reports still count, so that an
//! aborted move leaves the endpoint in the condition that it has there.

use sunwire_api::{Name, ProblemCode};

use super::State;
use crate::command::{Command, Condition};
use crate::effects::Effects;
use crate::refusal::Refusal;

/// How much of an agent's words is kept, in characters.
const DETAIL_CHARS_MAX: usize = 500;

impl State {
    /// What an agent's report calls for, if anything.
    #[must_use]
    pub fn command_for_report(
        &self,
        node: &Name,
        endpoint: &Name,
        epoch: u32,
        condition: Condition,
        detail: &str,
    ) -> Option<Command> {
        let record = self.endpoints.get(endpoint)?;
        if record.epoch != epoch {
            return None;
        }
        let here = record.node == *node;
        let destination = record.moving_to.as_ref() == Some(node);
        if destination && condition == Condition::Attached {
            return Some(Command::FinishMove {
                endpoint: endpoint.clone(),
                node: node.clone(),
                epoch,
            });
        }
        // That the device is not at the destination yet says nothing new.
        let relevant = here || (destination && condition == Condition::Failed);
        relevant.then(|| Command::ReportEndpoint {
            endpoint: endpoint.clone(),
            node: node.clone(),
            epoch,
            condition,
            detail: detail.chars().take(DETAIL_CHARS_MAX).collect(),
        })
    }

    pub(super) fn begin_move(
        &mut self,
        name: &Name,
        node: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let record = self.endpoint(name)?;
        self.known_node(node)?;
        if let Some(destination) = &record.moving_to {
            return Err(Refusal::new(
                ProblemCode::AlreadyMoving,
                format!(
                    "endpoint {name} moves to node {destination} already: wait until it is there, \
                     or abort that move"
                ),
            ));
        }
        if record.node == *node {
            return Err(Refusal::new(
                ProblemCode::AlreadyThere,
                format!("endpoint {name} is on node {node} already"),
            ));
        }
        if let Some(other) = [node, &record.node]
            .into_iter()
            .find(|node| self.is_foreign(node))
        {
            return Err(Refusal::new(
                ProblemCode::NodeWithoutAgent,
                format!(
                    "node {other} runs no agent that could let endpoint {name} go or take it over: \
                     delete the endpoint and create it where it is"
                ),
            ));
        }
        self.free_device(&record.device, node)?;
        let record = self.endpoint_mut(name);
        record.moving_to = Some(node.clone());
        record.detail.clear();
        record.revision = effects.revision;
        effects.endpoints.insert(name.clone());
        Ok(())
    }

    pub(super) fn abort_move(&mut self, name: &Name, effects: &mut Effects) -> Result<(), Refusal> {
        if self.endpoint(name)?.moving_to.is_none() {
            return Err(Refusal::new(
                ProblemCode::NotMoving,
                format!("endpoint {name} does not move: there is nothing to abort"),
            ));
        }
        let record = self.endpoint_mut(name);
        record.moving_to = None;
        record.detail.clear();
        record.revision = effects.revision;
        effects.endpoints.insert(name.clone());
        Ok(())
    }

    pub(super) fn finish_move(
        &mut self,
        name: &Name,
        node: &Name,
        epoch: u32,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let record = self.endpoint(name)?;
        if record.epoch != epoch || record.moving_to.as_ref() != Some(node) {
            return Err(Refusal::Unchanged);
        }
        let record = self.endpoint_mut(name);
        record.previous = Some(std::mem::replace(&mut record.node, node.clone()));
        record.moving_to = None;
        record.epoch += 1;
        record.condition = Condition::Attached;
        record.detail.clear();
        record.revision = effects.revision;
        effects.endpoints.insert(name.clone());
        Ok(())
    }

    pub(super) fn report_endpoint(
        &mut self,
        name: &Name,
        node: &Name,
        epoch: u32,
        condition: Condition,
        detail: &str,
        revision: u64,
    ) -> Result<(), Refusal> {
        let record = self.endpoint(name)?;
        let here = record.node == *node;
        let same_condition = !here || record.condition == condition;
        if record.epoch != epoch || (same_condition && record.detail == detail) {
            return Err(Refusal::Unchanged);
        }
        // Agents need not hear what they said: nothing they act on has changed.
        let record = self.endpoint_mut(name);
        if here {
            record.condition = condition;
        }
        record.detail = detail.to_owned();
        record.revision = revision;
        Ok(())
    }

    fn endpoint_mut(&mut self, name: &Name) -> &mut super::EndpointRecord {
        self.endpoints
            .get_mut(name)
            .expect("the caller has looked the endpoint up")
    }
}
