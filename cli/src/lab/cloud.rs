//! A controller and agents as processes inside a lab: children of this program, and this program
//! itself started anew.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sunwire_api::client::{Client, ClientError};
use sunwire_lab::topology::CONTROLLER;
use sunwire_lab::{Lab, NodeHandle, Shutdown, UNDERLAY_DEVICE};

use crate::rest::REST_PORT;

/// Port for agents.
const AGENT_PORT: u16 = 7511;
/// How long anything may take that should happen at once, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nobody announces.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a process may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(10);
/// How many lines of a failed process's log an error shows.
const LOG_LINES: usize = 15;

/// The processes of a cloud. Dropping it ends them.
pub(super) struct Cloud<'l> {
    controller: &'l NodeHandle,
    client: Client,
    processes: Vec<Process<'l>>,
    shutdown: &'l Shutdown,
}

struct Process<'l> {
    program: &'static str,
    node: &'l NodeHandle,
    child: Child,
    /// Its end was told.
    has_ended: bool,
}

/// Ctrl-C came while something was waited for.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

impl<'l> Cloud<'l> {
    /// Starts a controller and, on every other node, an agent; returns once all are connected.
    pub(super) fn start(
        lab: &'l Lab,
        controller: &'l NodeHandle,
        shutdown: &'l Shutdown,
        say: &dyn Fn(&str),
    ) -> anyhow::Result<Self> {
        let address = controller.underlay_address;
        let mut cloud = Cloud {
            controller,
            client: Client::new(&format!("http://{address}:{REST_PORT}")),
            processes: Vec::new(),
            shutdown,
        };
        let mut command = this_program()?;
        command
            .args(["controller", "--rest", &format!("{address}:{REST_PORT}")])
            .args(["--agents", &format!("{address}:{AGENT_PORT}")])
            .arg("--data-dir")
            .arg(controller.state_dir.join("controller"));
        cloud.spawn("controller", controller, command)?;
        cloud.wait("the controller to answer", |client| match client.status() {
            Ok(_) => Ok(None),
            Err(error @ ClientError::Unanswered { .. }) => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        })?;
        say(&format!(
            "controller answers at http://{address}:{REST_PORT}"
        ));

        let nodes = || {
            let nodes = lab.nodes().iter();
            nodes.filter(|node| node.name != CONTROLLER && !node.outside)
        };
        for node in nodes() {
            let mut command = this_program()?;
            command
                .args(["agent", "--node", &node.name, "--location", &node.region])
                .args(["--underlay", UNDERLAY_DEVICE])
                .args(
                    node.tunnel_addresses()
                        .flat_map(|address| ["--address".to_owned(), address.to_string()]),
                )
                .args(["--controller", &format!("http://{address}:{AGENT_PORT}")])
                .arg("--bpf-dir")
                .arg(&node.bpf_dir)
                .arg("--state-dir")
                .arg(&node.state_dir);
            cloud.spawn("agent", node, command)?;
        }
        let count = nodes().count();
        cloud.wait("every agent to connect", |client| {
            let status = client.status()?;
            let connected = status.nodes.iter().filter(|node| node.connected).count();
            Ok((connected < count).then(|| format!("{connected} of {count} are connected")))
        })?;
        say(&format!("{count} agents are connected"));
        Ok(cloud)
    }

    /// Calls the controller from inside its namespace.
    pub(super) fn rest<T: Send>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> anyhow::Result<T> {
        Ok(self.controller.namespace.run(|| call(&self.client))??)
    }

    /// Waits until `missing` finds nothing missing any more.
    pub(super) fn wait(
        &mut self,
        what: &str,
        missing: impl Fn(&Client) -> Result<Option<String>, ClientError> + Send + Sync,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(missing) = self.rest(&missing)? else {
                return Ok(());
            };
            if let Some(ended) = self.ended() {
                bail!(ended);
            }
            if Instant::now() > deadline {
                bail!("waited {} s for {what}: {missing}", PATIENCE.as_secs());
            }
            if self.shutdown.wait_for(LOOK_EVERY) {
                return Err(Interrupted.into());
            }
        }
    }

    /// A process that has ended by itself, with the end of its log. Each is told once.
    pub(super) fn ended(&mut self) -> Option<String> {
        let mut processes = self
            .processes
            .iter_mut()
            .filter(|process| !process.has_ended);
        processes.find_map(|process| {
            let status = process.child.try_wait().ok()??;
            process.has_ended = true;
            let path = process.node.log_path(process.program);
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
            let (program, node, path) = (process.program, &process.node.name, path.display());
            Some(format!(
                "the {program} on {node} has ended ({status}); the end of {path}:\n    {tail}"
            ))
        })
    }

    fn spawn(
        &mut self,
        program: &'static str,
        node: &'l NodeHandle,
        mut command: Command,
    ) -> anyhow::Result<()> {
        // Not in the terminal's foreground group: Ctrl-C ends this program, which then ends these
        // in order.
        command.process_group(0);
        let child = node.spawn_logged(program, command)?;
        self.processes.push(Process {
            program,
            node,
            child,
            has_ended: false,
        });
        Ok(())
    }
}

impl Drop for Cloud<'_> {
    /// Agents first, so that none complains that the controller is gone.
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            let deadline = Instant::now() + END_WITHIN;
            // Not reaped unless it has ended, so the number is still this child's.
            while let Ok(None) = process.child.try_wait() {
                let number = Pid::from_raw(process.child.id().cast_signed());
                let signal = if Instant::now() < deadline {
                    Signal::SIGTERM
                } else {
                    Signal::SIGKILL
                };
                // It may have ended in between.
                let _ = kill(number, signal);
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

fn this_program() -> anyhow::Result<Command> {
    let path = std::env::current_exe().context("cannot find this program's own path")?;
    let mut command = Command::new(path);
    // Where people's commands go is none of the servers' business.
    command.env_remove("SUNWIRE_SERVER");
    Ok(command)
}
