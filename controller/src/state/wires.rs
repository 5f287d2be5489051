//! Wires: which two endpoints are the ends of each.
//!
//! An endpoint is an end of at most one wire, and while it is, of nothing else: what it sends goes
//! to the other end, whatever the policy of its network says.

use serde::{Deserialize, Serialize};
use sunwire_api::{EndpointState, Name, ProblemCode, WireCreate, WireState};

use super::nodes::next_number;
use super::{EndpointRecord, State};
use crate::effects::Effects;
use crate::refusal::Refusal;

/// Greatest number of a wire: frames between nodes have 24 bits for it.
const NUMBER_MAX: u32 = (1 << 24) - 1;

/// A wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireRecord {
    /// Dense, from 1, never reused.
    pub number: u32,
    /// One end.
    pub a: Name,
    /// The other end.
    pub b: Name,
    /// Revision of its last change.
    pub revision: u64,
}

impl State {
    pub(super) fn connect_wire(
        &mut self,
        create: &WireCreate,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let name = &create.name;
        if self.wires.contains_key(name) {
            return Err(Refusal::new(
                ProblemCode::NameTaken,
                format!("there is a wire {name}: take another name, or disconnect it first"),
            ));
        }
        let (a, b) = (self.end(&create.a)?, self.end(&create.b)?);
        let invalid = |detail| Err(Refusal::new(ProblemCode::WireInvalid, detail));
        if create.a == create.b {
            return invalid(format!("both ends are {}: name two endpoints", create.a));
        }
        // One MTU, one rule about encryption, one tenant.
        if a.network != b.network {
            return invalid(format!(
                "{} is in network {} and {} in network {}: the ends of a wire are in one network",
                create.a, a.network, create.b, b.network
            ));
        }
        let number = next_number(self.last_wire_number, "wire")?;
        if number > NUMBER_MAX {
            return Err(Refusal::new(
                ProblemCode::NumbersExhausted,
                "every number of a wire was used",
            ));
        }
        let record = WireRecord {
            number,
            a: create.a.clone(),
            b: create.b.clone(),
            revision: effects.revision,
        };
        self.wires.insert(name.clone(), record);
        self.last_wire_number = number;
        effects.created = true;
        effects.wires.insert(name.clone());
        Ok(())
    }

    pub(super) fn disconnect_wire(
        &mut self,
        name: &Name,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        let number = self.wire(name)?.number;
        self.wires.remove(name);
        effects.removed_wires.push(number);
        Ok(())
    }

    /// A wire.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn wire(&self, name: &Name) -> Result<&WireRecord, Refusal> {
        self.wires.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::WireNotFound,
                format!("there is no wire {name}: GET /v1/wires lists all"),
            )
        })
    }

    /// Whether a wire's ends have their devices, and what is wrong or under way in words.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn wire_state(&self, name: &Name) -> Result<(WireState, String), Refusal> {
        let wire = self.wire(name)?;
        let mut state = WireState::Up;
        let mut details = Vec::new();
        for (end, which) in [(&wire.a, 'a'), (&wire.b, 'b')] {
            let record = self.endpoint(end)?;
            let (is_there, detail) = describe(record);
            if !is_there {
                state = WireState::Down;
            }
            details.extend(detail.map(|detail| format!("end {which} ({end}) {detail}")));
        }
        Ok((state, details.join("; ")))
    }

    /// The wire that an endpoint is an end of.
    pub(super) fn wire_of(&self, endpoint: &Name) -> Option<&Name> {
        let mut wires = self.wires.iter();
        let found = wires.find(|(_, wire)| wire.a == *endpoint || wire.b == *endpoint);
        found.map(|(name, _)| name)
    }

    /// An endpoint that can be an end of a wire.
    fn end(&self, name: &Name) -> Result<&EndpointRecord, Refusal> {
        let endpoint = self.endpoints.get(name).ok_or_else(|| {
            Refusal::new(
                ProblemCode::UnknownEndpoint,
                format!("there is no endpoint {name}: name one that GET /v1/endpoints lists"),
            )
        })?;
        let network = self.network(&endpoint.network)?;
        if !network.subnets.is_empty() {
            return Err(Refusal::new(
                ProblemCode::WireInvalid,
                format!(
                    "endpoint {name} is in network {}, which has a subnet: the ends of a wire are \
                     endpoints of a network without one",
                    endpoint.network
                ),
            ));
        }
        if self.is_foreign(&endpoint.node) {
            return Err(Refusal::new(
                ProblemCode::WireInvalid,
                format!(
                    "endpoint {name} is at node {}, which runs no agent: wires are between nodes that do",
                    endpoint.node
                ),
            ));
        }
        match self.wire_of(name) {
            None => Ok(endpoint),
            Some(wire) => Err(Refusal::new(
                ProblemCode::EndpointWired,
                format!(
                    "endpoint {name} is an end of wire {wire}: disconnect that, or take another \
                     endpoint"
                ),
            )),
        }
    }
}

/// Whether an endpoint can send and receive, and what is to be said of it.
fn describe(record: &EndpointRecord) -> (bool, Option<String>) {
    match record.state() {
        EndpointState::Attached => (true, None),
        EndpointState::Moving => {
            let to = record.moving_to.as_ref();
            let to = to.map_or_else(String::new, |to| format!(" to {to}"));
            (true, Some(format!("moves from {}{to}", record.node)))
        }
        EndpointState::Pending => (
            false,
            Some(format!(
                "is not attached: device {} has not been seen on node {}",
                record.device, record.node
            )),
        ),
        EndpointState::Failed => (
            false,
            Some(format!(
                "cannot be attached on node {}: {}",
                record.node, record.detail
            )),
        ),
    }
}
