//! The agents' side of the controller: one stream for each node.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::time::Duration;

use sunwire_api::agent::agent_message::Message as Said;
use sunwire_api::agent::agents_server::Agents;
use sunwire_api::{Name, NodeLocation, Problem, ProblemCode, PublicKey, agent};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::command::{Command, Proposal};
use crate::handle::Handle;
use crate::owner::{Hello, Message};
use crate::sessions::{QUEUE_MAX, Way};

/// How long a client may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The service.
pub(crate) struct AgentService {
    handle: Handle,
}

impl AgentService {
    pub(crate) fn new(handle: Handle) -> Self {
        AgentService { handle }
    }
}

#[tonic::async_trait]
impl Agents for AgentService {
    type ConnectStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<agent::ControllerMessage, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<agent::AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let mut stream = request.into_inner();
        let first = tokio::time::timeout(HELLO_WITHIN, stream.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no Hello came"))??;
        let Some(Said::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::invalid_argument(
                "the first message of a stream has to be Hello",
            ));
        };
        let (node, register) = parse(&hello)?;
        let (feed, fed) = mpsc::channel(QUEUE_MAX);
        let (reader, closed) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let register = Proposal::internal(register);
        let way = feed.downgrade();
        let hello = Hello {
            prepared: self.handle.prepare(&register).await.map_err(refused)?,
            register,
            node: node.clone(),
            version: hello.version,
            feed,
            reader,
            answer,
        };
        self.handle
            .send(Message::Hello(hello))
            .await
            .map_err(refused)?;
        let session = answered
            .await
            .map_err(|_| Status::unavailable("the controller is stopping"))?
            .map_err(|refusal| refused(refusal.into()))?;
        tracing::info!(%node, "agent connected");
        let way = (session, way);
        tokio::spawn(listen(self.handle.clone(), node, way, stream, closed));
        Ok(Response::new(Box::pin(ReceiverStream::new(fed))))
    }
}

/// Passes on what an agent says, until the stream ends or is closed.
async fn listen(
    handle: Handle,
    node: Name,
    (session, feed): Way,
    mut stream: Streaming<agent::AgentMessage>,
    mut closed: oneshot::Receiver<()>,
) {
    loop {
        let said = tokio::select! {
            _ = &mut closed => break,
            said = stream.message() => said,
        };
        match said {
            Ok(Some(agent::AgentMessage {
                message: Some(Said::Answer(answer)),
            })) => {
                // Past the owner of the state, which has more important things to do.
                let questions = handle.questions();
                let unwanted = questions.answered(&node, session, answer);
                if let (Some(withdrawal), Some(feed)) = (unwanted, feed.upgrade()) {
                    // When there is no room, the next answer brings another one.
                    let _ = feed.try_send(Ok(withdrawal));
                }
            }
            Ok(Some(said)) => {
                let said = Message::Said(node.clone(), session, said);
                if handle.send(said).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%node, %status, "stream failed");
                break;
            }
        }
    }
    tracing::info!(%node, "agent gone");
    handle.questions().gone(&node, session);
    // When the owner is gone too, there is nobody left to tell.
    let _ = handle.send(Message::Gone(node, session)).await;
}

fn parse(hello: &agent::Hello) -> Result<(Name, Command), Status> {
    let wrong = |what: &str, error: &dyn std::fmt::Display| {
        Status::invalid_argument(format!("{what}: {error}"))
    };
    let name: Name = hello
        .node
        .parse()
        .map_err(|error| wrong("name of the node", &error))?;
    let location: NodeLocation = hello
        .location
        .parse()
        .map_err(|error| wrong("location of the node", &error))?;
    let underlay = |detail: &str| wrong("underlay address of the node", &detail);
    let v4 = match hello.underlay_address.as_slice() {
        [] => None,
        bytes => {
            let bytes = <[u8; 4]>::try_from(bytes);
            Some(bytes.map_err(|_| underlay("one of IPv4 has to have 4 bytes"))?)
        }
    };
    let v6 = match hello.underlay_address_v6.as_slice() {
        [] => None,
        bytes => {
            let bytes = <[u8; 16]>::try_from(bytes);
            Some(bytes.map_err(|_| underlay("one of IPv6 has to have 16 bytes"))?)
        }
    };
    if v4.is_none() && v6.is_none() {
        return Err(underlay("there has to be one"));
    }
    let register = Command::RegisterNode {
        name: name.clone(),
        location,
        underlay_address: v4.map(Ipv4Addr::from),
        underlay_address_v6: v6.map(Ipv6Addr::from),
        public_keys: public_keys(&hello.public_keys)
            .map_err(|error| wrong("public keys of the node", &error))?,
        tunnel_port: u16::try_from(hello.tunnel_port)
            .map_err(|error| wrong("tunnel port of the node", &error))?,
    };
    Ok((name, register))
}

/// Public keys as they travel.
pub(crate) fn public_keys(keys: &[Vec<u8>]) -> Result<Vec<PublicKey>, &'static str> {
    let keys = keys.iter().map(|key| <[u8; 32]>::try_from(key.as_slice()));
    keys.map(|key| key.map(PublicKey).map_err(|_| "a key has to have 32 bytes"))
        .collect()
}

/// A problem as gRPC has it.
fn refused(problem: Problem) -> Status {
    match problem.code {
        ProblemCode::Stopping => Status::unavailable(problem.detail),
        ProblemCode::NodeConnected | ProblemCode::UnderlayAddressTaken => {
            Status::already_exists(problem.detail)
        }
        ProblemCode::AddressInvalid | ProblemCode::PublicKeyInvalid => {
            Status::invalid_argument(problem.detail)
        }
        ProblemCode::PolicyBroken => Status::failed_precondition(problem.detail),
        _ => Status::internal(problem.detail),
    }
}
