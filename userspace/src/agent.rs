//! The agent's loop: listens to the controller, the kernel and local callers, and after each
//! applies the whole desired state.
//!
//! ```text
//!             Snapshot, Delta          devices, routes, neighbours        release
//! controller ----------------> agent <---------------------------- kernel, local callers
//!             <---------------- | ---------------------> kernel maps
//!             Acknowledge, EndpointReport, Counters
//! ```
//!
//! Without the controller nothing changes and forwarding goes on; without the agent, too. The
//! agent removes nothing before it has seen a whole snapshot; one that starts while the controller is away
//! goes by the state that is in force, which it finds on disk, until there is one.

mod checksum;
mod counters;
mod devices;
mod encryption;
mod foreign;
mod last_known;
mod listening;
mod local;
mod outbound;
mod place;
mod ports;
mod questions;
mod stream;
mod surroundings;
mod tunnels;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use sunwire_api::{
    PublicKey,
    agent::{self as wire, AgentMessage, agent_message, controller_message, endpoint_report},
};
use sunwire_dataplane_common::vxlan;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tonic::transport::Endpoint as Transport;

use stream::{Inbound, connect, join, next_message};

use crate::{
    connections::{Connections, sweep::Sweeping, tables::TablesError},
    control::{self, Asked, Asks},
    crypt::{self, keeper::Keeper, key::KeyError},
    dataplane::{Attachment, Dataplane, DataplaneError, Surroundings, chain},
    groups::listeners::Groups,
    last_known::{LastKnown, News},
    maps::Capacity,
    metrics::{self, Board},
    netlink::{self, NetlinkError},
    probes::Prober,
    programs::Hook,
    services::{Services, ServicesError},
    state::Desired,
    telemetry::{hub::Hub, names::Names},
};

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of the node, unique in the cloud.
    pub node: String,
    /// Where the node is: `aws:us-east-1`.
    pub location: String,
    /// The underlay device.
    pub underlay: String,
    /// The node's addresses on the underlay, at most one of each family; by default the first IPv4 and
    /// the first IPv6 address of the device, if it has them.
    pub addresses: Vec<IpAddr>,
    /// URL of the controller's agent port.
    pub controller: String,
    /// Where maps and links are pinned; in a BPF file system, the node's own.
    pub bpf_directory: PathBuf,
    /// Where the local socket is.
    pub state_directory: PathBuf,
    /// Resolvers that know all names but those of the networks; by default those of the node's
    /// own /etc/resolv.conf.
    pub upstream_dns: Vec<SocketAddr>,
    /// Sizes of the maps, used when they are made.
    pub capacity: Capacity,
    /// Where programs are attached; by default the best place that this kernel has.
    pub hook: Option<Hook>,
    /// How tunnels are encrypted.
    pub encryption: crypt::keeper::Settings,
    /// Where metrics are served; nowhere when absent.
    pub metrics: Option<SocketAddr>,
    /// Ports under which packets leave the cloud here; by default [`OutboundPorts::default`], if sockets
    /// of the node do not get them.
    pub outbound_ports: Option<OutboundPorts>,
}

/// Addresses by family; `None` when there are two of one.
fn by_family(addresses: &[IpAddr]) -> Option<(Option<Ipv4Addr>, Option<Ipv6Addr>)> {
    let (mut v4, mut v6) = (None, None);
    for address in addresses {
        let earlier = match address {
            IpAddr::V4(address) => v4.replace(*address).is_some(),
            IpAddr::V6(address) => v6.replace(*address).is_some(),
        };
        if earlier {
            return None;
        }
    }
    Some((v4, v6))
}

/// The agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Not allowed to.
    #[error("the agent needs root (CAP_BPF and CAP_NET_ADMIN) to load programs and make devices")]
    Privilege,
    /// netlink cannot be opened.
    #[error("cannot open netlink")]
    Netlink(#[source] io::Error),
    /// The addresses are not usable.
    #[error(
        "a node has one underlay address of each family: give --address once for IPv4, once for IPv6"
    )]
    Addresses,
    /// The underlay is not usable.
    #[error(transparent)]
    Underlay(#[from] NetlinkError),
    /// The kernel refuses the programs.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The kernel's flows cannot be used.
    #[error(transparent)]
    Connections(#[from] TablesError),
    /// Flows cannot be swept.
    #[error("cannot start a thread to sweep flows")]
    Sweep(#[source] io::Error),
    /// Workloads cannot be answered.
    #[error(transparent)]
    Services(#[from] ServicesError),
    /// The kernel's rings of events cannot be read.
    #[error("cannot read what the programs tell of packets")]
    Events(#[source] io::Error),
    /// Tunnels cannot be probed.
    #[error("cannot probe tunnels: a packet socket and a thread are needed")]
    Probes(#[source] io::Error),
    /// The local socket cannot be bound.
    #[error("cannot listen in {}", directory.display())]
    Socket {
        /// The state directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Metrics cannot be served.
    #[error("cannot serve metrics on {address}: choose another address with --metrics, or `none`")]
    Metrics {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The node's private keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The ports under which packets leave the cloud are the node's own.
    #[error(transparent)]
    Outbound(#[from] outbound::PortsError),
    /// The controller's URL is no URL.
    #[error("{url} is no URL of a controller (expected http://ADDRESS:PORT)")]
    Url {
        /// What was given.
        url: String,
    },
}

/// Name of the device that holds the tunnel port.
const TUNNEL_DEVICE: &str = "sw-tunnel";
/// Name of the bridge that gives workloads' packets room for the outer headers.
const HEADROOM_BRIDGE: &str = "sw-headroom";
/// How often counters go to the controller.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);
/// Longest pause between two attempts to reach the controller.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// First pause after a stream broke.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Messages to the controller, and requests of local callers, that may wait.
const QUEUE: usize = 256;

/// Runs an agent until `shutdown` resolves; forwarding goes on afterwards.
///
/// # Errors
/// When the agent cannot start. Once it runs it retries whatever fails, and says so.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(AgentError::Privilege);
    }
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Neigh,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, events) =
        new_multicast_connection(&groups).map_err(AgentError::Netlink)?;
    tokio::spawn(connection);

    let devices = netlink::devices(&handle).await?;
    let underlay = devices
        .get(&config.underlay)
        .ok_or_else(|| NetlinkError::NoDevice(config.underlay.clone()))?;
    let vteps = match &config.addresses[..] {
        [] => netlink::first_addresses(&handle, &config.underlay, underlay.ifindex).await?,
        given => by_family(given).ok_or(AgentError::Addresses)?,
    };
    let ports = outbound::ports(config.outbound_ports)?;
    let port_device = netlink::hold_tunnel_port(&handle, TUNNEL_DEVICE, vxlan::PORT).await?;
    let headroom = match netlink::make_headroom_bridge(&handle, HEADROOM_BRIDGE, TUNNEL_DEVICE)
        .await
    {
        Ok(bridge) => Some(bridge),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "packets are copied to make room for outer headers");
            None
        }
    };

    let around = Surroundings {
        outbound: ports.map(|ports| {
            let asks_by = headroom.map(|ifindex| (HEADROOM_BRIDGE, ifindex));
            outbound::way(underlay.ifindex, asks_by, ports)
        }),
        ..Surroundings::default()
    };

    let socket = |source| AgentError::Socket {
        directory: config.state_directory.clone(),
        source,
    };
    std::fs::create_dir_all(&config.state_directory).map_err(socket)?;
    let listener = control::bind(&config.state_directory).map_err(socket)?;
    let last_known = Arc::new(LastKnown::new(&config.state_directory, &config.node));
    let keeper = Keeper::open(&config.state_directory, config.encryption.clone())?;
    let mut dataplane = Dataplane::load_at(&config.bpf_directory, config.capacity, config.hook)?;
    let punts = dataplane.take_punts().expect("nobody took it before");
    let services = Services::start(punts, &config.upstream_dns)?;
    let mut listeners = listening::Listeners::default();
    listeners.known.told = dataplane.listeners();
    services.seed(listeners.known.told.clone());
    let rings = dataplane.take_events().expect("nobody has taken them");
    let hub = Hub::start(rings).map_err(AgentError::Events)?;
    let probes = dataplane.take_probes().expect("nobody has taken them");
    let prober = Prober::start(probes).map_err(AgentError::Probes)?;
    let connections = Connections::load(&config.bpf_directory, config.capacity)?;
    let sweeping = Sweeping::start(&connections).map_err(AgentError::Sweep)?;
    let (requests, asked) = mpsc::channel(QUEUE);
    let asks = Asks {
        requests,
        hub: Arc::clone(&hub),
        connections: Arc::clone(&connections),
    };
    let own_requests = asks.requests.clone();
    tokio::spawn(control::serve(listener, asks));
    let board = Board::default();
    if let Some(address) = config.metrics {
        let served = metrics::serve(address, board.clone()).await;
        served.map_err(|source| AgentError::Metrics { address, source })?;
    }
    let transport = Transport::from_shared(config.controller.clone())
        .map_err(|_| AgentError::Url {
            url: config.controller.clone(),
        })?
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        // A controller that vanished without a word is noticed.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        // While the kernel is being changed messages queue up unread; with the default window the
        // HTTP/2 library takes many small ones for an attack and ends the connection.
        .initial_connection_window_size(16 << 20);
    let (v4, v6) = (vteps.0.map(IpAddr::V4), vteps.1.map(IpAddr::V6));
    let addresses: Vec<String> = [v4, v6].iter().flatten().map(IpAddr::to_string).collect();
    let underlay = addresses.join(", ");
    tracing::info!(node = %config.node, %underlay, hook = %dataplane.hook(), "agent started");

    let agent = Agent {
        config,
        vteps,
        handle,
        dataplane,
        desired: None,
        revision: 0,
        around,
        managed: BTreeSet::new(),
        narrow: BTreeSet::new(),
        released: BTreeMap::new(),
        reported: BTreeMap::new(),
        attachments: BTreeMap::new(),
        stream: None,
        headroom,
        services,
        hub,
        own_requests,
        telling: BTreeMap::new(),
        keeper,
        tunnel: None,
        port_device,
        ports: BTreeMap::new(),
        foreign: None,
        kernel_tunnels: BTreeMap::new(),
        connections,
        listeners,
        is_in_place: false,
        board,
        prober,
        rates: Default::default(),
        tunnels: Vec::new(),
        last_known: Arc::clone(&last_known),
        writing: last_known::Writing::default(),
    };
    tokio::select! {
        () = agent.serve(transport, events, asked) => {}
        () = shutdown => {}
    }
    drop(sweeping);
    last_known::write(&last_known);
    Ok(())
}

pub use outbound::OutboundPorts;

struct Agent {
    config: Config,
    /// This node's addresses on the underlay: at least one.
    vteps: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    handle: Handle,
    dataplane: Dataplane,
    /// `None` until the first snapshot.
    desired: Option<Desired>,
    revision: u64,
    around: Surroundings,
    /// Next hops that the kernel was asked to keep resolved.
    managed: BTreeSet<(u32, IpAddr)>,
    /// Networks that do not fit devices, as was said.
    narrow: BTreeSet<surroundings::Narrow>,
    /// Endpoints released to a local caller, with their epoch.
    released: BTreeMap<u32, u32>,
    /// What the controller was told last.
    reported: BTreeMap<u32, (endpoint_report::State, u32)>,
    attachments: BTreeMap<u32, Attachment>,
    stream: Option<mpsc::Sender<AgentMessage>>,
    /// ifindex of the bridge that gives headroom.
    headroom: Option<u32>,
    /// What workloads ask of this node.
    services: Services,
    /// Tells what becomes of packets.
    hub: Arc<Hub>,
    /// Where the agent itself asks what local callers ask.
    own_requests: mpsc::Sender<Asked>,
    /// Questions of the controller that are being answered.
    telling: BTreeMap<u64, questions::BeingTold>,
    /// Keys, and the process that encrypts.
    keeper: Keeper,
    /// ifindex of the device that encrypts, once our program is attached to it.
    tunnel: Option<u32>,
    /// Name of the device that holds the tunnel's port.
    port_device: String,
    /// Names of the devices that hold networks' other ports.
    ports: BTreeMap<u16, String>,
    /// Ports and devices on which the program for packets of nodes without an agent is; `None` while it
    /// may be as an earlier agent left it.
    foreign: Option<BTreeMap<u16, String>>,
    /// ifindexes of the kernel's WireGuard devices by slot, once our program is attached to them.
    kernel_tunnels: BTreeMap<usize, u32>,
    /// What is remembered of flows.
    connections: Arc<Connections>,
    /// Who listens to multicast.
    listeners: listening::Listeners,
    /// Whether our programs are attached to the devices that other nodes' packets come from.
    is_in_place: bool,
    /// What is told of this node to who scrapes.
    board: Board,
    /// Asks other nodes how tunnels are.
    prober: Prober,
    /// What goes through tunnels.
    rates: tunnels::Rates,
    /// How tunnels are, as they were last looked at.
    tunnels: Vec<wire::Tunnel>,
    /// What is in force, for an agent that starts without the controller.
    last_known: Arc<LastKnown>,
    /// Who writes it.
    writing: last_known::Writing,
}

impl Agent {
    async fn serve(
        mut self,
        transport: Transport,
        mut events: impl Stream + Unpin,
        mut asked: mpsc::Receiver<Asked>,
    ) {
        let mut inbound: Option<Inbound> = None;
        let mut retry = RETRY_MIN;
        let mut next_attempt = Instant::now();
        let mut counters = tokio::time::interval(COUNTERS_EVERY);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connecting: Option<tokio::task::JoinHandle<_>> = None;
        let mut heard = self.services.heard();
        let mut hear_until: Option<Instant> = None;
        self.recall().await;
        loop {
            tokio::select! {
                // Local callers hold a device still while they wait, so they go first.
                biased;
                Some((request, reply)) = asked.recv() => {
                    let answers = self.answer(request).await;
                    // A caller that went away needs no answer.
                    let _ = reply.send(answers);
                }
                Some(_) = events.next() => {
                    while events.next().now_or_never().flatten().is_some() {}
                    self.look_around().await;
                    self.apply().await;
                }
                message = next_message(&mut inbound), if inbound.is_some() => match message {
                    Some(message) => self.receive(message).await,
                    None => {
                        tracing::warn!("the controller's stream ended; forwarding goes on");
                        inbound = None;
                        self.stream = None;
                        self.telling.clear();
                        self.forget_telling().await;
                        next_attempt = Instant::now() + retry;
                    }
                },
                outcome = join(&mut connecting), if connecting.is_some() => {
                    connecting = None;
                    match outcome {
                        Some((stream, sender)) => {
                            inbound = Some(stream);
                            self.stream = Some(sender);
                            self.reported.clear();
                            self.report_listeners().await;
                            retry = RETRY_MIN;
                        }
                        None => {
                            next_attempt = Instant::now() + retry;
                            retry = (retry * 2).min(RETRY_MAX);
                        }
                    }
                }
                () = tokio::time::sleep_until(next_attempt), if inbound.is_none() && connecting.is_none() => {
                    connecting = Some(tokio::spawn(connect(transport.clone(), self.hello())));
                }
                Ok(()) = heard.changed(), if hear_until.is_none() => {
                    let groups = Groups::clone(&heard.borrow_and_update());
                    self.hear_listeners(groups).await;
                    hear_until = Some(Instant::now() + listening::HEAR_FOR);
                }
                () = tokio::time::sleep_until(hear_until.unwrap_or(next_attempt)), if hear_until.is_some() => {
                    hear_until = None;
                }
                _ = counters.tick() => {
                    self.keep_keys().await;
                    self.keep_state();
                    self.retire_checksum().await;
                    self.read_counters().await;
                }
            }
        }
    }

    fn hello(&self) -> AgentMessage {
        message(agent_message::Message::Hello(wire::Hello {
            node: self.config.node.clone(),
            location: self.config.location.clone(),
            underlay_address: self.vteps.0.map_or(vec![], |v4| v4.octets().to_vec()),
            underlay_address_v6: self.vteps.1.map_or(vec![], |v6| v6.octets().to_vec()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            public_keys: as_bytes(&self.keeper.public_keys()),
            tunnel_port: u32::from(self.keeper.port()),
        }))
    }

    async fn receive(&mut self, message: controller_message::Message) {
        let (revision, news, parsed) = match message {
            controller_message::Message::Question(question) => return self.tell(question),
            controller_message::Message::Withdrawal(withdrawal) => {
                self.telling.remove(&withdrawal.question);
                return;
            }
            controller_message::Message::Listening(listening) => {
                return self.learn_listeners(listening).await;
            }
            controller_message::Message::Snapshot(snapshot) => {
                let news = News::whole(&snapshot);
                let desired = Desired::from_snapshot(snapshot.state.unwrap_or_default());
                (snapshot.revision, news, desired)
            }
            controller_message::Message::Delta(delta) => {
                let (revision, news) = (delta.revision, News::part(&delta));
                let mut desired = self.desired.clone().unwrap_or_default();
                (revision, news, desired.apply(delta).map(|()| desired))
            }
        };
        let error = match parsed {
            Ok(mut desired) => {
                desired.forget_unreachable();
                self.desired = Some(desired);
                self.last_known.note(news);
                self.look_around().await;
                self.apply().await
            }
            Err(error) => Some(error.to_string()),
        };
        if error.is_none() {
            self.revision = revision;
            self.last_known.in_force(self.dataplane.generation());
        }
        let error = error.unwrap_or_default();
        self.send(agent_message::Message::Acknowledge(wire::Acknowledge {
            revision,
            error,
        }))
        .await;
    }

    /// Applies the desired state; returns what went wrong, for the controller.
    async fn apply(&mut self) -> Option<String> {
        let desired = self.desired.as_ref()?;
        let Some(own) = own_number(desired, &self.config.node) else {
            return Some(format!(
                "the controller does not know node {}",
                self.config.node
            ));
        };
        self.forget_released(own);
        self.ready_tunnel(own).await;
        let ports = self.ready_ports().await;
        let failed = self.ready_checksum().await.or(ports);
        self.ready_foreign();
        self.warn_of_mtu();
        let desired = self.desired.as_ref()?;
        let mut around = self.around.clone();
        around.at_work = self.listeners.known.telling.clone();
        for number in self.released.keys() {
            if let Some(endpoint) = desired.endpoints.get(number) {
                // Still in this namespace, but no longer ours.
                around.devices.remove(&endpoint.device);
            }
        }
        let vtep = self.called(own);
        let outcome = self.dataplane.apply(desired, own, vtep, &around);
        let listened = self.dataplane.listen(&self.listeners.known, desired, own);
        let outcome = outcome.and_then(|attachments| listened.map(|()| attachments));
        let labels = self.dataplane.label_slots();
        self.hub
            .rename(Names::new(&self.config.node, desired, labels));
        let in_place = self.take_place();
        if let Err(error) = self.keeper.set_up(&self.handle).await {
            tracing::error!(error = %chain(&error), "what has to be encrypted is not sent");
        }
        self.aim_probes();
        match outcome.and_then(|attachments| in_place.map(|()| attachments)) {
            Ok(attachments) => {
                self.attachments = attachments;
                self.set_devices_up().await;
                self.publish();
                self.publish_connections(own);
                self.report().await;
                failed
            }
            Err(error) => {
                let text = chain(&error);
                tracing::error!(error = %text, "cannot apply the desired state");
                Some(text)
            }
        }
    }

    /// Lets workloads be answered by the desired state.
    fn publish(&self) {
        let Some(desired) = &self.desired else { return };
        let here = self.attachments.iter();
        let here = here.filter_map(|(number, attachment)| match attachment {
            Attachment::Attached { ifindex } => Some((*ifindex, *number)),
            _ => None,
        });
        self.services.publish(desired, here.collect());
    }

    /// A release ends with the move it was for, or when the device has gone.
    fn forget_released(&mut self, own: u32) {
        let Some(desired) = &self.desired else { return };
        let devices = &self.around.devices;
        self.released.retain(|number, epoch| {
            desired.endpoints.get(number).is_some_and(|endpoint| {
                endpoint.moving
                    && endpoint.node == own
                    && endpoint.epoch == *epoch
                    && devices.contains_key(&endpoint.device)
            })
        });
    }

    /// Tells the controller what became of endpoints, where it does not know yet.
    async fn report(&mut self) {
        let Some(desired) = &self.desired else { return };
        let mut messages = Vec::new();
        for (number, attachment) in &self.attachments {
            let Some(endpoint) = desired.endpoints.get(number) else {
                continue;
            };
            let (state, detail) = match attachment {
                Attachment::Attached { .. } => (endpoint_report::State::Attached, String::new()),
                Attachment::Absent => (endpoint_report::State::Absent, String::new()),
                Attachment::Failed(detail) => (endpoint_report::State::Failed, detail.clone()),
            };
            let entry = (state, endpoint.epoch);
            if self.stream.is_some() && self.reported.get(number) != Some(&entry) {
                self.reported.insert(*number, entry);
                messages.push(wire::EndpointReport {
                    endpoint: endpoint.name.clone(),
                    state: state.into(),
                    epoch: endpoint.epoch,
                    detail,
                });
            }
        }
        for report in messages {
            self.send(agent_message::Message::Endpoint(report)).await;
        }
    }

    async fn send(&mut self, body: agent_message::Message) {
        if let Some(stream) = &self.stream
            && stream.send(message(body)).await.is_err()
        {
            // The reading side notices too and connects again.
            self.stream = None;
        }
    }
}

fn own_number(desired: &Desired, name: &str) -> Option<u32> {
    desired
        .nodes
        .iter()
        .find(|(_, node)| node.name == name)
        .map(|(number, _)| *number)
}

fn as_bytes(keys: &[PublicKey]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.0.to_vec()).collect()
}

fn message(body: agent_message::Message) -> AgentMessage {
    AgentMessage {
        message: Some(body),
    }
}
