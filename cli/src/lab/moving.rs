//! `sunwire lab move`: a whole move in a running lab, with connections.
//!
//! ```text
//! begin at the controller --> hand over between the agents --> attached --> published
//!   Ctrl-C: given up     |  Ctrl-C: seen through             |  the rest happens without us
//! ```
//! Until the source's agent is asked to let go the move can be given up, and an error or Ctrl-C does.
//! Afterwards it is seen through, because packets wait. Killed half-way, the same command takes the
//! move up again: where the device is says how far it had come.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use sunwire_api::client::{Client, ClientError, Guard};
use sunwire_api::{Endpoint, EndpointState, Name};
use sunwire_lab::topology::CONTROLLER;
use sunwire_lab::{
    Device, LabError, LabRecord, Namespace, Shutdown, WORKLOAD_DEVICE, client as labs,
};
use sunwire_userspace::connections::mover::{self, HandOverError};

use crate::exit::{Outcome, Usage};
use crate::output::{self, Format};
use crate::rest::REST_PORT;

/// How long a step may take that should be done at once, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the controller is asked to wait in one request; Ctrl-C is noticed in between.
const LONG_POLL: Duration = Duration::from_millis(500);
/// How often the device is looked at. The gap is measured to this.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a move did.
#[derive(Debug, Serialize)]
struct Moved {
    endpoint: Name,
    from: String,
    to: String,
    /// Connections that went along, those that changed on the way counted again.
    connections: u64,
    /// From the source's release until the workload had a link again: for as long packets waited or
    /// were lost. Absent when an earlier attempt had moved the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_ms: Option<f64>,
    /// From the release until every node sent straight to the destination.
    published_ms: f64,
}

/// A lab as a move needs it.
struct Surroundings<'a> {
    lab: &'a LabRecord,
    controller: Namespace,
    client: Client,
    shutdown: Shutdown,
}

pub(super) fn run(id: &str, name: &Name, to: &Name, format: Format) -> anyhow::Result<Outcome> {
    let lab = labs::status(id)?;
    let missing = |kind, name: &Name| LabError::NoSuchName {
        lab: id.to_owned(),
        kind,
        name: name.to_string(),
    };
    if to.as_str() == CONTROLLER {
        return Err(Usage(format!("`{CONTROLLER}` runs no agent: name another node")).into());
    }
    let mut nodes = lab.nodes.iter();
    if !nodes.any(|node| node.name == to.as_str()) {
        return Err(missing("node", to).into());
    }
    let mut workloads = lab.workloads.iter();
    let workload = workloads.find(|workload| workload.name == name.as_str());
    let from = workload.ok_or_else(|| missing("workload", name))?;
    let Some(controller) = lab.nodes.iter().find(|node| node.name == CONTROLLER) else {
        bail!("lab `{id}` has no controller: its topology has no [controller]");
    };
    let around = Surroundings {
        lab: &lab,
        controller: labs::namespace(id, CONTROLLER)?,
        client: Client::new(&format!("http://{}:{REST_PORT}", controller.address)),
        // From here on Ctrl-C is heard between steps.
        shutdown: Shutdown::on_signals()?,
    };
    let moved = around.carry_out(name, &from.node, to)?;
    output::tell(format, &moved, |moved| {
        let (name, from, to) = (&moved.endpoint, &moved.from, &moved.to);
        let gap = match moved.gap_ms {
            Some(gap) => format!("{gap:.1} ms gap"),
            None => "the device was there already".to_owned(),
        };
        let (connections, published) = (moved.connections, moved.published_ms);
        format!(
            "{name} moved from {from} to {to}: {gap}, {connections} connections went along, \
             every node knows after {published:.1} ms"
        )
    })?;
    Ok(Outcome::Done)
}

impl Surroundings<'_> {
    fn carry_out(&self, name: &Name, device_at: &str, to: &Name) -> anyhow::Result<Moved> {
        let endpoint = self.rest(|client| client.endpoint(name))?;
        let mut moved = Moved {
            endpoint: name.clone(),
            from: endpoint.status.node.to_string(),
            to: to.to_string(),
            connections: 0,
            gap_ms: None,
            published_ms: 0.0,
        };
        let is_begun = endpoint.status.moving_to.as_ref() == Some(to);
        let mut released_at = Instant::now();
        if device_at == to.as_str() {
            // An earlier attempt came as far as this, or the endpoint is there, which is refused.
            if !is_begun {
                self.rest(|client| client.move_endpoint(name, to, Guard::Any))?;
            }
        } else {
            if is_begun {
                // An earlier attempt may have released the device: back to where both agents know what
                // they have.
                self.give_up(name)?;
            }
            let begun = self.rest(|client| client.move_endpoint(name, to, Guard::Any))?;
            let outcome = self
                .wait_applied(begun.revision)
                .and_then(|()| self.hand_over(name, device_at, to));
            let handed_over = match outcome {
                Ok(handed_over) => handed_over,
                Err(error) => {
                    self.give_up(name).with_context(|| {
                        format!("{error:#}; and the move could not be given up: `sunwire endpoint abort-move {name} --lab {}`", self.lab.id)
                    })?;
                    return Err(error.context(format!(
                        "the move was given up, {name} stays on {device_at}"
                    )));
                }
            };
            released_at = handed_over.released_at;
            moved.connections = handed_over.connections;
            self.wait_up(&endpoint, to)?;
            moved.gap_ms = Some(milliseconds(released_at));
        }
        let arrived = self.wait_attached(name, to)?;
        self.wait_applied(arrived.revision)?;
        moved.published_ms = milliseconds(released_at);
        Ok(moved)
    }

    fn hand_over(&self, name: &Name, from: &str, to: &Name) -> anyhow::Result<mover::HandedOver> {
        if self.shutdown.is_requested() {
            bail!("interrupted");
        }
        let move_device =
            || labs::move_host_side(&self.lab.id, name.as_str(), to.as_str()).map(drop);
        let (from, to) = (
            self.lab.state_dir_of(from),
            self.lab.state_dir_of(to.as_str()),
        );
        mover::hand_over(&from, &to, name.as_str(), move_device).map_err(|error| match error {
            HandOverError::Before(error) => error.into(),
            HandOverError::Between(error) => anyhow::Error::new(error),
        })
    }

    /// Aborts the move. The source attaches a device that it had released; all know when this returns.
    fn give_up(&self, name: &Name) -> anyhow::Result<()> {
        let aborted = self.rest(|client| client.abort_move(name, Guard::Any))?;
        // In one wait, whatever Ctrl-C says: it is what Ctrl-C asked for.
        self.rest(|client| client.wait_revision(aborted.revision, PATIENCE))?;
        Ok(())
    }

    /// Waits until the device is up at its new node, which its agent sees to, and the workload has a
    /// link.
    fn wait_up(&self, endpoint: &Endpoint, to: &Name) -> anyhow::Result<()> {
        let namespace = labs::namespace(&self.lab.id, to.as_str())?;
        let device = endpoint.spec.device.to_string();
        let deadline = Instant::now() + PATIENCE;
        let own = labs::namespace(&self.lab.id, endpoint.name.as_str())?;
        while Instant::now() < deadline {
            // The workload's kernel notices a moment after the device is up.
            if Device::find(&namespace, &device)?.is_some_and(|device| device.up)
                && Device::find(&own, WORKLOAD_DEVICE)?.is_some_and(|device| device.running)
            {
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        bail!(
            "the agent on {to} has not set device {device} up within {} s: see its log and \
             `sunwire endpoint get {} --lab {}`",
            PATIENCE.as_secs(),
            endpoint.name,
            self.lab.id
        )
    }

    fn wait_attached(&self, name: &Name, to: &Name) -> anyhow::Result<Endpoint> {
        let deadline = Instant::now() + PATIENCE;
        let state = EndpointState::Attached;
        loop {
            let seen = self.rest(|client| client.wait_endpoint(name, state, LONG_POLL))?;
            if seen.status.state == state && seen.status.node == *to {
                return Ok(seen);
            }
            let (state, detail) = (seen.status.state, &seen.status.detail);
            if self.shutdown.is_requested() {
                bail!("interrupted: {name} is {state}; the agent on {to} finishes the move");
            }
            if Instant::now() > deadline {
                bail!("{name} is {state} and not attached on {to}: {detail}");
            }
        }
    }

    fn wait_applied(&self, revision: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.rest(|client| client.wait_revision(revision, LONG_POLL))?;
            let mut nodes = status.nodes.iter();
            if let Some((node, error)) =
                nodes.find_map(|node| Some((&node.name, node.error.as_ref()?)))
            {
                bail!("node {node} could not apply the move: {}", error.detail);
            }
            if !status.timed_out {
                return Ok(());
            }
            if self.shutdown.is_requested() {
                bail!("interrupted");
            }
            if Instant::now() > deadline {
                bail!(
                    "not every node knows of the move: see `sunwire status --lab {}`",
                    self.lab.id
                );
            }
        }
    }

    fn rest<T: Send>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> anyhow::Result<T> {
        Ok(self.controller.run(|| call(&self.client))??)
    }
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
