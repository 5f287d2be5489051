//! A controller on loopback and agents that speak the real protocol with it.
#![allow(dead_code, reason = "every test program uses another part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub(crate) mod http;

use std::path::Path;
use std::time::Duration;

use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::agents_client::AgentsClient;
use sunwire_api::agent::controller_message::Message as Heard;
use sunwire_api::agent::{self, endpoint_report};
use sunwire_api::client::{Client, ClientError, Guard};
use sunwire_api::{Endpoint, EndpointCreate, Name, Network, NetworkCreate, ProblemCode};
use sunwire_controller::{Config, Controller};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// How long anything may take before a test gives up: far more than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A controller that runs.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) rest: String,
    pub(crate) grpc: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(data_dir: &Path) -> Running {
        let loopback = "127.0.0.1:0".parse().unwrap();
        let controller = Controller::open(&Config {
            rest: vec![loopback],
            grpc: vec![loopback],
            data_dir: data_dir.to_owned(),
        })
        .unwrap();
        let rest = format!("http://{}", controller.rest_addresses()[0]);
        let grpc = format!("http://{}", controller.grpc_addresses()[0]);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            controller.run(shutdown).await.unwrap();
        });
        Running {
            client: Client::new(&rest),
            rest,
            grpc,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        within(self.task).await.unwrap();
    }

    /// Runs calls of the blocking client.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> T + Send + 'static,
    ) -> T {
        let client = self.client.clone();
        within(tokio::task::spawn_blocking(move || call(&client)))
            .await
            .unwrap()
    }

    /// A connected agent, with the first snapshot it got.
    pub(crate) async fn agent(&self, node: &str, last_byte: u8) -> (Agent, agent::Snapshot) {
        let mut agent = self.hello(node, last_byte).await.unwrap();
        let Heard::Snapshot(snapshot) = agent.hear().await else {
            panic!("the first message is a snapshot");
        };
        (agent, snapshot)
    }

    pub(crate) async fn hello(&self, node: &str, last_byte: u8) -> Result<Agent, Status> {
        // Small windows: what an agent does not read soon stays with the controller.
        let channel = Channel::from_shared(self.grpc.clone())
            .unwrap()
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535)
            .connect()
            .await
            .unwrap();
        let (say, said) = mpsc::channel(64);
        let hello = agent::Hello {
            public_keys: Vec::new(),
            tunnel_port: 51820,
            node: node.to_owned(),
            location: "aws:us-east-1".to_owned(),
            underlay_address: vec![198, 18, 0, last_byte],
            underlay_address_v6: vec![],
            version: "test".to_owned(),
        };
        say.send(message(Said::Hello(hello))).await.unwrap();
        let mut client = AgentsClient::new(channel);
        let stream = within(client.connect(ReceiverStream::new(said))).await?;
        Ok(Agent {
            say,
            hear: stream.into_inner(),
        })
    }
}

/// An agent's end of a stream.
pub(crate) struct Agent {
    say: mpsc::Sender<agent::AgentMessage>,
    hear: Streaming<agent::ControllerMessage>,
}

impl Agent {
    pub(crate) async fn say(&self, said: Said) {
        self.say.send(message(said)).await.unwrap();
    }

    pub(crate) async fn acknowledge(&self, revision: u64) {
        let error = String::new();
        self.say(Said::Acknowledge(agent::Acknowledge { revision, error }))
            .await;
    }

    pub(crate) async fn report(&self, endpoint: &str, state: endpoint_report::State, epoch: u32) {
        self.say(Said::Endpoint(agent::EndpointReport {
            endpoint: endpoint.to_owned(),
            state: state.into(),
            epoch,
            detail: String::new(),
        }))
        .await;
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        let heard = within(self.hear.message()).await.unwrap();
        heard.expect("the stream goes on").message.unwrap()
    }

    pub(crate) async fn delta(&mut self) -> agent::Delta {
        match self.hear().await {
            Heard::Delta(delta) => delta,
            other => panic!("a delta was due, not {other:?}"),
        }
    }

    /// How the stream ended.
    pub(crate) async fn end(mut self) -> Result<(), Status> {
        loop {
            match within(self.hear.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(status) => return Err(status),
            }
        }
    }
}

fn message(message: Said) -> agent::AgentMessage {
    agent::AgentMessage {
        message: Some(message),
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens within a minute")
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn network(text: &str) -> NetworkCreate {
    NetworkCreate {
        outbound: Default::default(),
        name: name(text),
        vni: None,
        subnets: vec![
            "10.20.0.0/16".parse().unwrap(),
            "fd00:20::/64".parse().unwrap(),
        ],
        mtu: None,
        encryption: Default::default(),
        relay: false,
        enforce: Default::default(),
        vxlan_port: None,
        checksum: Default::default(),
    }
}

pub(crate) fn endpoint(text: &str, network: &str, node: &str) -> EndpointCreate {
    EndpointCreate {
        name: name(text),
        network: name(network),
        node: name(node),
        device: None,
        addresses: None,
        mac: None,
        labels: Default::default(),
    }
}

pub(crate) fn create_network(client: &Client, text: &str) -> Network {
    client.create_network(&network(text), Guard::None).unwrap()
}

pub(crate) fn create_endpoint(client: &Client, text: &str, network: &str, node: &str) -> Endpoint {
    let body = endpoint(text, network, node);
    client.create_endpoint(&body, Guard::None).unwrap()
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> ProblemCode {
    match outcome {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.status, problem.code.status());
            assert!(!problem.detail.is_empty());
            problem.code
        }
        other => panic!("a refusal was due, not {other:?}"),
    }
}
