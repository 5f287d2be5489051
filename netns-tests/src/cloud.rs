//! A whole cloud in a lab: the controller and the agents as processes of the real binary.
//!
//! Every process runs in its node's namespace and talks over the emulated underlay. REST calls are
//! made from inside the controller's namespace, because only there its addresses exist.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sunwire_api::{
    Cidr, DeviceName, EncryptionMode, EncryptionSpec, Endpoint, EndpointCreate, EndpointState,
    MacAddress, Name, NetworkCreate, Policy, TunnelState,
    client::{Client, ClientError, Guard},
};
use sunwire_lab::{
    Lab, NodeHandle, Topology, UNDERLAY_DEVICE, Workload, eventually_ok, monotonic_ns, patient,
};
use sunwire_userspace::{
    connections::mover,
    control::{self, Answer, Request},
};

/// Port of the REST API.
const REST_PORT: u16 = 7510;
/// Port for agents.
const AGENT_PORT: u16 = 7511;
/// How long anything may take that should happen at once, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the controller is asked to wait in one request.
const LONG_POLL: Duration = Duration::from_secs(10);

/// A lab with a controller and agents.
pub struct Cloud {
    /// Dropped first: processes end before their namespaces.
    processes: Processes,
    lab: Lab,
    controller: NodeHandle,
    client: Client,
    binary: PathBuf,
    /// What every agent is started with beside what it needs.
    agent_arguments: Vec<String>,
    /// Nodes that run no agent.
    without_agent: Vec<String>,
    /// What one agent is started with beside that, by its node.
    own_arguments: BTreeMap<String, Vec<String>>,
}

#[derive(Default)]
struct Processes {
    controller: Option<Child>,
    agents: Vec<(String, Child)>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, child) in &mut self.agents {
            stop(child, Signal::SIGTERM);
        }
        if let Some(child) = &mut self.controller {
            stop(child, Signal::SIGTERM);
        }
    }
}

/// Ends a child of ours and waits for it.
fn stop(child: &mut Child, signal: Signal) {
    // Not reaped yet, so the number is still this child's.
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
    let _ = child.wait();
}

/// The `sunwire` binary: `SUNWIRE_BIN`, or the one beside this program.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SUNWIRE_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("cannot find this program's own path")?;
    // A test binary is one directory further down.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|directory| directory.join("sunwire"))
        .find(|path| path.exists())
        .context("the sunwire binary is not built; `cargo build -p sunwire-cli` does, or set SUNWIRE_BIN")
}

impl Cloud {
    /// Brings a lab up and starts its controller and agents; returns once every agent is
    /// connected and tunnels are up: what crosses from cloud to cloud is encrypted, as everywhere
    /// where nobody says otherwise.
    ///
    /// # Errors
    /// When the lab, a process or a connection fails; the error names its log.
    pub fn up(topology: Topology) -> Result<Self> {
        Cloud::up_with(topology, &[])
    }

    /// As [`up`](Self::up), with further arguments for every agent.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_with(topology: Topology, agent_arguments: &[&str]) -> Result<Self> {
        Cloud::begin(topology, agent_arguments, &[], BTreeMap::new())
    }

    /// As [`up_with`](Self::up_with), without an agent on some nodes.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_beside(
        topology: Topology,
        agent_arguments: &[&str],
        without_agent: &[&str],
    ) -> Result<Self> {
        Cloud::begin(topology, agent_arguments, without_agent, BTreeMap::new())
    }

    /// As [`up`](Self::up), with further arguments for the agents of some nodes.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_with_each<const N: usize>(
        topology: Topology,
        each: &[(&str, [&str; N])],
    ) -> Result<Self> {
        let own_arguments = each.iter().map(|(node, arguments)| {
            let arguments = arguments.map(str::to_owned);
            ((*node).to_owned(), arguments.to_vec())
        });
        Cloud::begin(topology, &[], &[], own_arguments.collect())
    }

    /// As [`up`](Self::up), of nodes that do not all reach each other.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_without_tunnels(topology: Topology) -> Result<Self> {
        Cloud::connected(topology, &[], &[], BTreeMap::new())
    }

    fn begin(
        topology: Topology,
        agent_arguments: &[&str],
        without_agent: &[&str],
        own_arguments: BTreeMap<String, Vec<String>>,
    ) -> Result<Self> {
        let cloud = Cloud::connected(topology, agent_arguments, without_agent, own_arguments)?;
        cloud.wait_tunnels()?;
        Ok(cloud)
    }

    fn connected(
        topology: Topology,
        agent_arguments: &[&str],
        without_agent: &[&str],
        own_arguments: BTreeMap<String, Vec<String>>,
    ) -> Result<Self> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let lab = Lab::up(topology)?;
        let controller = lab
            .controller()
            .context("the topology has no controller")?
            .clone();
        let rest = SocketAddr::from((controller.underlay_address, REST_PORT));
        let client = Client::new(&format!("http://{rest}"));
        let processes = Processes::default();
        let mut cloud = Cloud {
            processes,
            lab,
            controller,
            client,
            binary: binary()?,
            agent_arguments: owned(agent_arguments),
            without_agent: owned(without_agent),
            own_arguments,
        };
        cloud.start_controller()?;
        for name in cloud.node_names() {
            cloud.start_agent(&name)?;
        }
        cloud.wait_connected()?;
        Ok(cloud)
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Names of the nodes that run agents.
    #[must_use]
    pub fn node_names(&self) -> Vec<String> {
        let nodes = self.lab.nodes().iter();
        nodes
            .filter(|node| !node.outside)
            .map(|node| node.name.clone())
            .filter(|name| *name != self.controller.name && !self.without_agent.contains(name))
            .collect()
    }

    /// Starts the controller's process and waits until it answers.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_controller(&mut self) -> Result<()> {
        let address = self.controller.underlay_address;
        let mut command = Command::new(&self.binary);
        command
            .args(["controller", "--rest", &format!("{address}:{REST_PORT}")])
            .args(["--agents", &format!("{address}:{AGENT_PORT}")])
            .arg("--data-dir")
            .arg(self.controller.state_dir.join("controller"));
        // Not in the terminal's foreground group: Ctrl-C ends the story, which ends these in order.
        command.process_group(0);
        self.processes.controller = Some(self.controller.spawn_logged("controller", command)?);
        eventually_ok("the controller to answer", PATIENCE, || {
            self.rest(|client| client.status())
        })
        .with_context(|| self.log_of(&self.controller.clone(), "controller"))?;
        Ok(())
    }

    /// Ends the controller's process with a signal.
    pub fn stop_controller(&mut self, signal: Signal) {
        if let Some(mut child) = self.processes.controller.take() {
            stop(&mut child, signal);
        }
    }

    /// Starts a node's agent.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start_agent(&mut self, node: &str) -> Result<()> {
        let handle = self.lab.node(node)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["agent", "--node", node, "--location", &handle.region])
            .args(["--underlay", UNDERLAY_DEVICE])
            .args(
                handle
                    .tunnel_addresses()
                    .flat_map(|address| ["--address".to_owned(), address.to_string()]),
            )
            .args([
                "--controller",
                &format!("http://{}:{AGENT_PORT}", self.controller.underlay_address),
            ])
            .arg("--bpf-dir")
            .arg(&handle.bpf_dir)
            .arg("--state-dir")
            .arg(&handle.state_dir)
            .args(&self.agent_arguments)
            .args(self.own_arguments.get(node).into_iter().flatten());
        command.process_group(0);
        let child = handle.spawn_logged("agent", command)?;
        self.processes.agents.push((node.to_owned(), child));
        Ok(())
    }

    /// Ends a node's agent with a signal.
    pub fn stop_agent(&mut self, node: &str, signal: Signal) {
        self.processes.agents.retain_mut(|(name, child)| {
            if name == node {
                stop(child, signal);
            }
            name != node
        });
    }

    /// Waits until every agent is connected.
    ///
    /// # Errors
    /// When one is not in time.
    pub fn wait_connected(&self) -> Result<()> {
        let names = self.node_names();
        eventually_ok("every agent to be connected", PATIENCE, || {
            let status = self.rest(|client| client.status())?;
            let connected = status.nodes.iter().filter(|node| node.connected).count();
            if connected < names.len() {
                bail!("{connected} of {} are", names.len());
            }
            Ok(())
        })
        .with_context(|| format!("the agents' logs are in {}", self.lab.log_dir().display()))?;
        Ok(())
    }

    /// Decides which tunnels are encrypted, and waits until they are as decided.
    ///
    /// # Errors
    /// When the controller refuses, or a tunnel does not come up.
    pub fn encrypt(&self, mode: EncryptionMode) -> Result<()> {
        self.decide_encryption(mode)?;
        self.wait_tunnels()
    }

    /// Decides which tunnels are encrypted, and waits until every node has heard.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn decide_encryption(&self, mode: EncryptionMode) -> Result<()> {
        let spec = EncryptionSpec { mode };
        let set = self.rest(|client| client.put_encryption(&spec, Guard::Any))?;
        self.wait_applied(set.revision)
    }

    /// Waits until every node has told how it reaches every other one, and reaches it, encrypted
    /// or in the clear as the setting in force says for their clouds.
    ///
    /// # Errors
    /// When a tunnel does not come up in time; the error has what its node says of it.
    pub fn wait_tunnels(&self) -> Result<()> {
        let names = self.node_names();
        let cloud_of = |name: &str| -> Result<String> {
            let region = &self.lab.node(name)?.region;
            Ok(region.split(':').next().unwrap_or_default().to_owned())
        };
        let mode = self.rest(|client| client.encryption())?.spec.mode;
        for name in &names {
            let node: Name = name.parse()?;
            eventually_ok("tunnels to be up", PATIENCE, || {
                let tunnels = self.rest(|client| client.node(&node))?.status.tunnels;
                for other in names.iter().filter(|other| *other != name) {
                    let mut found = tunnels.iter().filter(|t| t.node.as_str() == other);
                    let tunnel = found.next().context("nothing is told of a tunnel")?;
                    let is_encrypted = match mode {
                        EncryptionMode::Never => false,
                        EncryptionMode::BetweenClouds => cloud_of(name)? != cloud_of(other)?,
                        EncryptionMode::Always => true,
                    };
                    let is_so = match tunnel.state {
                        TunnelState::Down => false,
                        // A network may ask for more.
                        TunnelState::Encrypted => true,
                        TunnelState::Plaintext => !is_encrypted,
                    };
                    anyhow::ensure!(is_so, "{name}: {tunnel:?}");
                }
                Ok(())
            })
            .with_context(|| format!("the logs are in {}", self.lab.log_dir().display()))?;
        }
        Ok(())
    }

    /// Calls the REST API from inside the controller's namespace.
    ///
    /// # Errors
    /// What the call returns, or that the namespace cannot be entered.
    pub fn rest<T: Send>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> Result<T> {
        let outcome = self.in_controller(call);
        outcome.map_err(|error| match error.problem() {
            Some(problem) => anyhow::anyhow!("{problem:#?}"),
            None => error.into(),
        })
    }

    /// Calls the REST API as [`rest`](Self::rest) does, and returns a refusal as it is.
    ///
    /// # Errors
    /// What the call returns.
    ///
    /// # Panics
    /// When the controller's namespace cannot be entered.
    pub fn in_controller<T: Send>(
        &self,
        call: impl FnOnce(&Client) -> Result<T, ClientError> + Send,
    ) -> Result<T, ClientError> {
        let outcome = self.controller.namespace.run(|| call(&self.client));
        outcome.expect("the namespace is there as long as the lab")
    }

    /// Waits until every connected agent has applied a revision.
    ///
    /// # Errors
    /// When one has not in time, or could not.
    pub fn wait_applied(&self, revision: u64) -> Result<()> {
        let deadline = std::time::Instant::now() + patient(PATIENCE);
        loop {
            let status = self.rest(|client| client.wait_revision(revision, LONG_POLL))?;
            for node in &status.nodes {
                if let Some(error) = &node.error {
                    bail!("node {} could not apply: {error:?}", node.name);
                }
            }
            if !status.timed_out {
                return Ok(());
            }
            if std::time::Instant::now() > deadline {
                bail!(
                    "revision {revision} was not applied everywhere: {:?}",
                    status.nodes
                );
            }
        }
    }

    /// Ends a node's agent, starts it again, and waits until it has the whole state in force.
    ///
    /// # Errors
    /// When it does not start, or does not come that far.
    pub fn restart_agent(&mut self, node: &str, signal: Signal) -> Result<()> {
        self.stop_agent(node, signal);
        self.start_agent(node)?;
        self.wait_caught_up()
    }

    /// Waits until every agent is connected and has applied what there is.
    ///
    /// # Errors
    /// When one is not in time, or could not.
    pub fn wait_caught_up(&self) -> Result<()> {
        // The agents themselves are asked: the controller may not have noticed yet that one was killed.
        for name in self.node_names() {
            let node = self.lab.node(&name)?;
            eventually_ok(
                "an agent to have a state in force",
                PATIENCE,
                || match control::call(&node.state_dir, &Request::Status)? {
                    Answer::Status {
                        connected: true,
                        revision: 1..,
                        ..
                    } => Ok(()),
                    other => bail!("{name}: {other:?}"),
                },
            )
            .with_context(|| self.log_of(node, "agent"))?;
        }
        let revision = self.rest(|client| client.status())?.revision;
        self.wait_applied(revision)
    }

    /// Creates a network.
    ///
    /// # Errors
    /// When the controller refuses.
    pub fn create_network(&self, name: &str, subnets: &[&str]) -> Result<()> {
        let body = NetworkCreate {
            outbound: Default::default(),
            name: name.parse()?,
            vni: None,
            subnets: subnets
                .iter()
                .map(|text| text.parse::<Cidr>())
                .collect::<Result<_, _>>()?,
            mtu: None,
            encryption: Default::default(),
            relay: false,
            enforce: Default::default(),
            vxlan_port: None,
            checksum: Default::default(),
        };
        self.rest(|client| client.create_network(&body, Guard::Key(name)))?;
        Ok(())
    }

    /// Makes an endpoint of a workload and waits until its device is attached.
    ///
    /// # Errors
    /// When the controller refuses or the agent cannot attach.
    pub fn create_endpoint(&self, workload: &Workload) -> Result<Endpoint> {
        let spec = workload.spec();
        let name: Name = spec.name.parse()?;
        let body = EndpointCreate {
            name: name.clone(),
            network: spec.network.parse()?,
            node: workload.node().name.parse()?,
            device: Some(workload.host_device_name().parse::<DeviceName>()?),
            addresses: Some(spec.addresses.iter().map(|address| address.ip).collect()),
            mac: Some(spec.effective_mac().to_string().parse::<MacAddress>()?),
            labels: Default::default(),
        };
        self.rest(|client| client.create_endpoint(&body, Guard::Key(&spec.name)))?;
        let endpoint = self.wait_attached(&name)?;
        self.wait_applied(endpoint.revision)?;
        Ok(endpoint)
    }

    /// Waits until an endpoint's device is attached where it lives.
    ///
    /// # Errors
    /// When it is not in time; the error has what the agent says.
    pub fn wait_attached(&self, name: &Name) -> Result<Endpoint> {
        let state = EndpointState::Attached;
        let deadline = std::time::Instant::now() + patient(LONG_POLL);
        let mut endpoint = self.rest(|client| client.wait_endpoint(name, state, LONG_POLL))?;
        while endpoint.status.state != state && std::time::Instant::now() < deadline {
            endpoint = self.rest(|client| client.wait_endpoint(name, state, LONG_POLL))?;
        }
        if endpoint.status.state != state {
            bail!(
                "endpoint {name} is {}: {}",
                endpoint.status.state,
                endpoint.status.detail
            );
        }
        Ok(endpoint)
    }

    /// Puts a policy in force everywhere.
    ///
    /// # Errors
    /// When the controller refuses it or a node cannot install it.
    pub fn apply_policy(&self, name: &str, text: &str) -> Result<Policy> {
        let name: Name = name.parse()?;
        let policy = self.rest(|client| {
            let exists = client.policies()?.iter().any(|policy| policy.name == name);
            let guard = if exists { Guard::Any } else { Guard::None };
            client.put_policy(&name, text, guard)
        })?;
        self.wait_applied(policy.revision)?;
        Ok(policy)
    }

    /// Moves an endpoint with its workload's device and its connections to another node: announced to
    /// all nodes, released by the agent it leaves, moved, attached by the agent it comes to.
    ///
    /// # Errors
    /// When any of the steps fails.
    pub fn move_endpoint(&self, workload: &Workload, to: &str) -> Result<Moved> {
        let name: Name = workload.name().parse()?;
        let destination: Name = to.parse()?;
        let begun = self.rest(|client| client.move_endpoint(&name, &destination, Guard::Any))?;
        self.wait_applied(begun.revision)?;

        let from = workload.node();
        let to = self.lab.node(to)?.clone();
        let move_device = || self.lab.move_host_side(workload, &from, &to).map(drop);
        let handed_over =
            mover::hand_over(&from.state_dir, &to.state_dir, name.as_str(), move_device)?;
        let started = handed_over.released_at;
        eventually_ok("the moved device to be up", PATIENCE, || {
            match workload.host_device() {
                Ok(Some(device)) if device.up => Ok(()),
                Ok(_) => Err(anyhow::anyhow!("it is down")),
                Err(error) => Err(error.into()),
            }
        })?;
        let attached = started.elapsed();
        // The workload's kernel notices a moment later, and drops what is sent until then.
        eventually_ok(
            "the workload to have a link again",
            PATIENCE,
            || match workload.device() {
                Ok(Some(device)) if device.running => Ok(()),
                Ok(_) => Err(anyhow::anyhow!("it has none")),
                Err(error) => Err(error.into()),
            },
        )?;
        let running = started.elapsed();
        let running_ns = monotonic_ns();
        let endpoint = self.wait_attached(&name)?;
        if endpoint.status.node != destination {
            bail!(
                "endpoint {name} is on {}, not on {destination}",
                endpoint.status.node
            );
        }
        self.wait_applied(endpoint.revision)?;
        let published_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(Moved {
            released_ns: running_ns - running.as_nanos() as u64,
            running_ns,
            running_ms: running.as_secs_f64() * 1e3,
            attached_ms: attached.as_secs_f64() * 1e3,
            published_ms,
            connections: handed_over.connections,
        })
    }

    /// Packets counted under a label of a network, summed over all nodes, as last reported: agents
    /// report once a second.
    ///
    /// # Errors
    /// When the controller does not answer.
    pub fn label_packets(&self, label: &str) -> Result<u64> {
        let counters = self.rest(|client| client.counters())?;
        let of_label = counters.labels.iter().filter(|total| total.label == label);
        Ok(of_label.map(|total| total.totals.packets).sum())
    }

    /// Ends everything and removes the lab.
    ///
    /// # Errors
    /// When something of the lab cannot be removed.
    pub fn down(self) -> Result<()> {
        drop(self.processes);
        self.lab.down()?;
        Ok(())
    }

    fn log_of(&self, node: &NodeHandle, program: &str) -> String {
        let path = node.log_path(program);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(20)..].join("\n");
        format!("the last lines of {}:\n{tail}", path.display())
    }
}

/// How long the steps of a move took, from the release on.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// When the source was asked to let go, nanoseconds of `CLOCK_MONOTONIC`.
    pub released_ns: u64,
    /// When the workload was seen to have a link again.
    pub running_ns: u64,
    /// Until then, ms.
    pub running_ms: f64,
    /// Connections that went along, those that changed on the way counted again.
    pub connections: u64,
    /// Until the device was up at its new node, ms.
    pub attached_ms: f64,
    /// Until every node had applied the new place, ms.
    pub published_ms: f64,
}
