//! Questions of the controller, and traces: answered beside everything else the agent does.

use std::sync::Arc;

use sunwire_api::{
    Question, Telling, TraceEntry, TraceHop,
    agent::{self as wire, agent_message},
};

use super::{Agent, message};
use crate::{control, dataplane::Attachment, telemetry::trace};

/// A task that ends when nobody holds it.
pub(super) struct BeingTold(tokio::task::JoinHandle<()>);

impl Drop for BeingTold {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Answers a question beside everything else, for as long as the controller wants it.
    pub(super) fn tell(&mut self, asked: wire::Question) {
        let Some(stream) = self.stream.clone() else {
            return;
        };
        let number = asked.number;
        let (requests, hub) = (self.own_requests.clone(), Arc::clone(&self.hub));
        let telling = async move {
            let answer = |telling: Vec<u8>, last| {
                message(agent_message::Message::Answer(wire::Answer {
                    question: number,
                    telling,
                    last,
                }))
            };
            let refused = |error: serde_json::Error| Telling::Refused {
                reason: format!("the question is not understood: {error}"),
            };
            let json = |telling: &Telling| serde_json::to_vec(telling).unwrap_or_default();
            match serde_json::from_slice::<Question>(&asked.question) {
                Ok(question) => {
                    let same = std::convert::identity::<Telling>;
                    let mut answers = control::tell(&requests, &hub, question, same).await;
                    while let Some(telling) = answers.recv().await {
                        if stream.send(answer(json(&telling), false)).await.is_err() {
                            return;
                        }
                    }
                }
                Err(error) => {
                    let _ = stream.send(answer(json(&refused(error)), false)).await;
                }
            }
            let _ = stream.send(answer(Vec::new(), true)).await;
        };
        // What was answered to the end needs no withdrawal.
        self.telling.retain(|_, telling| !telling.0.is_finished());
        let task = tokio::spawn(telling);
        self.telling.insert(number, BeingTold(task));
    }

    /// Where a packet goes, by the node's own programs.
    pub(super) fn trace(&mut self, entry: &TraceEntry) -> Result<Vec<TraceHop>, String> {
        let desired = self
            .desired
            .as_ref()
            .ok_or("the controller has not been reached yet")?;
        let underlay = self.around.devices.get(&self.config.underlay);
        let underlay =
            underlay.ok_or_else(|| format!("there is no device {}", self.config.underlay))?;
        let own = super::own_number(desired, &self.config.node);
        let own = own.ok_or("the controller does not know this node")?;
        let attachments = &self.attachments;
        let around = trace::Around {
            desired,
            names: &self.hub.names(),
            underlay: underlay.ifindex,
            tunnel: self
                .around
                .tunnel
                .or(self.kernel_tunnels.values().next().copied()),
            address: self.called(own),
            attached: &|number| match attachments.get(&number) {
                Some(Attachment::Attached { ifindex }) => Some(*ifindex),
                _ => None,
            },
        };
        let mut hops = trace::hops(&mut self.dataplane, &around, entry)?;
        for hop in &mut hops {
            self.hub.tell_round_trip(&mut hop.flow);
        }
        Ok(hops)
    }
}
