//! The stream from the controller: how it is opened, and what comes in.

use sunwire_api::agent::{
    AgentMessage, ControllerMessage, agents_client::AgentsClient, controller_message,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Endpoint as Transport};

use super::{QUEUE, chain};

pub(super) type Inbound = Streaming<ControllerMessage>;

/// Opens a stream whose first message is `hello`.
pub(super) async fn connect(
    transport: Transport,
    hello: AgentMessage,
) -> Option<(Inbound, mpsc::Sender<AgentMessage>)> {
    let uri = transport.uri().clone();
    let channel = match transport.connect().await {
        Ok(channel) => channel,
        Err(error) => {
            tracing::info!(controller = %uri, error = %chain(&error), "the controller is not reached");
            return None;
        }
    };
    let (sender, receiver) = mpsc::channel(QUEUE);
    sender.send(hello).await.ok()?;
    // A snapshot holds every table of every network; its size is the controller's to bound.
    let mut client = AgentsClient::new(channel).max_decoding_message_size(usize::MAX);
    match client.connect(ReceiverStream::new(receiver)).await {
        Ok(response) => Some((response.into_inner(), sender)),
        Err(status) => {
            tracing::warn!(controller = %uri, %status, "the controller refuses this node");
            None
        }
    }
}

/// The next message, or `None` when the stream ended. Pending while there is no stream.
pub(super) async fn next_message(
    inbound: &mut Option<Inbound>,
) -> Option<controller_message::Message> {
    let stream = inbound.as_mut()?;
    loop {
        match stream.message().await {
            Ok(Some(ControllerMessage {
                message: Some(message),
            })) => return Some(message),
            // A message kind of a newer controller.
            Ok(Some(ControllerMessage { message: None })) => {}
            Ok(None) => return None,
            Err(status) => {
                tracing::warn!(%status, "the controller's stream broke");
                return None;
            }
        }
    }
}

/// What a task returned, once it has ended; `None` when it found nothing, or could not go on.
pub(super) async fn join<T>(task: &mut Option<tokio::task::JoinHandle<Option<T>>>) -> Option<T> {
    task.as_mut()?.await.ok().flatten()
}
