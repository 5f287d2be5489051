//! What programs on the same node ask of the agent's loop, and what the loop lets be known to those
//! parts of the agent that are asked without it.

use std::sync::Arc;

use sunwire_api::{Question, Telling};

use super::{Agent, own_number};
use crate::{
    control::{self, Answer, Request},
    dataplane::{Attachment, chain},
    telemetry::names::Names,
};

impl Agent {
    pub(super) async fn answer(&mut self, request: Request) -> Vec<Answer> {
        let refused = |reason| vec![Answer::Refused { reason }];
        match request {
            Request::Status => vec![Answer::Status {
                node: self.config.node.clone(),
                connected: self.stream.is_some(),
                revision: self.revision,
                generation: self.dataplane.generation(),
                hook: self.dataplane.hook(),
                wireguard: self.keeper.backend(),
                attached: self.attached_names(),
                flows: self.connections.usage(),
                tunnels: self.named_tunnels(),
            }],
            Request::RotateKey => {
                self.keeper.rotate();
                vec![Answer::Accepted]
            }
            Request::Release { endpoint, since } => match self.release(&endpoint, since) {
                Ok(answers) => answers,
                Err(reason) => refused(reason),
            },
            Request::Ask(Question::Trace(entry)) => match self.trace(&entry) {
                Ok(hops) => vec![Answer::Told(Telling::Traced { hops })],
                Err(reason) => refused(reason),
            },
            // Answered without this loop.
            Request::Ask(Question::Flows(_) | Question::Capture(_))
            | Request::Connections { .. }
            | Request::Export { .. }
            | Request::Adopt { .. } => refused("this is told, not asked".to_owned()),
        }
    }

    fn attached_names(&self) -> Vec<String> {
        let attached = |attachment: &Attachment| matches!(attachment, Attachment::Attached { .. });
        self.attachments
            .iter()
            .filter(|(_, attachment)| attached(attachment))
            .filter_map(|(number, _)| self.desired.as_ref()?.endpoints.get(number))
            .map(|endpoint| endpoint.name.clone())
            .collect()
    }

    /// Lets an endpoint go, and returns the last word on its connections.
    fn release(&mut self, name: &str, since: Option<u64>) -> Result<Vec<Answer>, String> {
        let desired = self
            .desired
            .as_ref()
            .ok_or("the controller has not been reached yet")?;
        let own = own_number(desired, &self.config.node).unwrap_or(0);
        let (number, endpoint) = desired
            .endpoints
            .iter()
            .find(|(_, endpoint)| endpoint.name == name)
            .ok_or_else(|| format!("there is no endpoint {name}"))?;
        if endpoint.node != own {
            return Err(format!("endpoint {name} is not on this node"));
        }
        if !endpoint.moving {
            return Err(format!(
                "endpoint {name} is not moving; begin the move at the controller"
            ));
        }
        let (number, epoch) = (*number, endpoint.epoch);
        self.dataplane
            .release(number)
            .map_err(|error| chain(&error))?;
        self.released.insert(number, epoch);
        self.attachments.remove(&number);
        self.reported.remove(&number);
        self.publish();
        self.publish_connections(own);
        // The device is released whatever becomes of the connections.
        let rest = self.connections.rest(number, since);
        let mut answers = rest.map_or_else(
            |error| {
                tracing::error!(endpoint = name, error = %chain(&error), "connections stay behind");
                Vec::new()
            },
            |parcels| control::parcels(&parcels),
        );
        answers.push(Answer::Released);
        Ok(answers)
    }

    /// Lets connections be known by the desired state.
    pub(super) fn publish_connections(&self, own: u32) {
        let Some(desired) = &self.desired else { return };
        let labels = self.dataplane.label_slots();
        self.connections.publish(
            desired,
            own,
            &self.attachments,
            Arc::new(Names::new(&self.config.node, desired, labels)),
            self.dataplane.generation(),
        );
    }
}
