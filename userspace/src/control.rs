//! The agent's local socket: one JSON object a line, for programs on the same node.
//!
//! Whoever moves an endpoint's device to another node asks for [`Request::Release`] first, on the
//! spot, so that the packets of the move need not wait for the controller's round trip.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

/// Name of the socket in the agent's state directory.
pub const SOCKET: &str = "agent.sock";

/// Bytes of a request; a longer one is refused.
const REQUEST_BYTES: u64 = 4096;

/// What a local program can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the agent has applied.
    Status,
    /// Take an endpoint that is moving away off its device; from then on its packets are
    /// forwarded to where it goes.
    Release {
        /// Name of the endpoint.
        endpoint: String,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status {
        /// Name of the node.
        node: String,
        /// Whether the controller's stream is open.
        connected: bool,
        /// Last revision applied.
        revision: u64,
        /// Generation of the flow tables in force.
        generation: u32,
        /// Names of the endpoints attached here.
        attached: Vec<String>,
    },
    /// To [`Request::Release`]: the device may be moved.
    Released,
    /// The request was not carried out.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A request with the way back for its answer.
pub(crate) type Asked = (Request, oneshot::Sender<Answer>);

/// Binds the socket, in place of one that an earlier agent left.
pub(crate) fn bind(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET);
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    UnixListener::bind(path)
}

/// Serves callers until the agent ends.
pub(crate) async fn serve(listener: UnixListener, requests: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, requests).await {
                        tracing::debug!(%error, "a local caller went away");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a local caller");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let length = (&mut read).take(REQUEST_BYTES).read_line(&mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str::<Request>(&line) {
            Ok(request) => ask(&requests, request).await,
            Err(error) => Answer::Refused {
                reason: format!("the request is not understood: {error}"),
            },
        };
        let mut text = serde_json::to_string(&answer).unwrap_or_default();
        text.push('\n');
        write.write_all(text.as_bytes()).await?;
        if length as u64 == REQUEST_BYTES {
            // The rest of an overlong line would be read as requests of its own.
            return Ok(());
        }
    }
}

async fn ask(requests: &mpsc::Sender<Asked>, request: Request) -> Answer {
    let (sender, receiver) = oneshot::channel();
    let gone = || Answer::Refused {
        reason: "the agent is shutting down".to_owned(),
    };
    if requests.send((request, sender)).await.is_err() {
        return gone();
    }
    receiver.await.unwrap_or_else(|_| gone())
}

/// Asks a running agent, from a program without an async runtime.
///
/// # Errors
/// When no agent listens in `directory`, or it goes away.
pub fn call(directory: &Path, request: &Request) -> io::Result<Answer> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(directory.join(SOCKET))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
