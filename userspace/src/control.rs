//! The agent's local socket: one JSON object a line, for programs on the same node.
//!
//! A request has one answer; [`Request::Ask`] has a line for each thing that there is to tell, until
//! the caller hangs up, or the agent does because there is no more. Connections come in pieces, and then
//! a last answer.
//!
//! Whoever moves an endpoint's device to another node asks for [`Request::Release`] first, on the
//! spot, so that the packets of the move need not wait for the controller's round trip. The endpoint's
//! connections go with it: see [`mover`](crate::connections::mover).

use std::{io, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};
use sunwire_api::{Question, Telling, TunnelStatus};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
};

use crate::{
    connections::{Connections, listing::ListedConnection, parcel::Parcel, sweep::Usage},
    crypt::keeper::Backend,
    dataplane::chain,
    programs::Hook,
    telemetry::hub::{Hub, HubError},
};

/// Name of the socket in the agent's state directory.
pub const SOCKET: &str = "agent.sock";

/// Bytes of a request; a longer one is refused. The largest holds a parcel.
const REQUEST_BYTES: u64 = 1 << 18;
/// Connections on a line.
const LISTED: usize = 256;
/// Things told that may wait for a slow caller; what does not fit is lost, counted and told.
const TOLD: usize = 1024;

/// What a local program can ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// What the agent has applied.
    Status,
    /// Replace the node's key by a new one, as soon as all other nodes know it.
    RotateKey,
    /// Take an endpoint that is moving away off its device; from then on its packets are
    /// forwarded to where it goes.
    Release {
        /// Name of the endpoint.
        endpoint: String,
        /// The token of an export: only what has changed since is told then.
        #[serde(default)]
        since: Option<u64>,
    },
    /// Tell the connections of an endpoint, or of all on this node.
    Connections {
        /// Name of the endpoint.
        #[serde(default)]
        endpoint: Option<String>,
    },
    /// Tell the connections of an endpoint here in the form that they travel in.
    Export {
        /// Name of the endpoint.
        endpoint: String,
    },
    /// Take over connections of an endpoint that lives here or is moving here.
    Adopt {
        /// Name of the endpoint.
        endpoint: String,
        /// A parcel, in hexadecimal.
        parcel: String,
    },
    /// Tell of packets.
    Ask(Question),
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        /// Where in the kernel programs are attached.
        hook: Hook,
        /// Whose WireGuard encrypts; nobody's before anything had to be.
        #[serde(default)]
        wireguard: Option<Backend>,
        /// Names of the endpoints attached here.
        attached: Vec<String>,
        /// How many flows are remembered.
        flows: Usage,
        /// How the tunnels to other nodes are.
        #[serde(default)]
        tunnels: Vec<TunnelStatus>,
    },
    /// To [`Request::RotateKey`]: it will be done.
    Accepted,
    /// To [`Request::Release`], after the parcels of its connections: the device may be moved.
    Released,
    /// To [`Request::Ask`].
    Told(Telling),
    /// To [`Request::Export`] and [`Request::Release`]: some connections.
    Parcel {
        /// A parcel, in hexadecimal.
        parcel: String,
    },
    /// To [`Request::Export`], after the parcels.
    Exported {
        /// How many connections there were.
        connections: u64,
        /// By which [`Request::Release`] tells what has changed since.
        token: u64,
    },
    /// To [`Request::Adopt`].
    Adopted {
        /// How many connections there were.
        connections: u64,
    },
    /// To [`Request::Connections`]: some connections.
    Connections {
        /// In the order of their network, protocol and ends.
        connections: Vec<ListedConnection>,
        /// Whether there are no more.
        is_last: bool,
    },
    /// The request was not carried out.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// A request with the way back for its answers.
pub(crate) type Asked = (Request, oneshot::Sender<Vec<Answer>>);

/// Whom to ask.
#[derive(Clone)]
pub(crate) struct Asks {
    /// The agent's loop.
    pub(crate) requests: mpsc::Sender<Asked>,
    /// Of what becomes of packets.
    pub(crate) hub: Arc<Hub>,
    /// Of connections.
    pub(crate) connections: Arc<Connections>,
}

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
pub(crate) async fn serve(listener: UnixListener, asks: Asks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asks = asks.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, asks).await {
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

async fn converse(stream: UnixStream, asks: Asks) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut line = String::new();
        let length = (&mut read).take(REQUEST_BYTES).read_line(&mut line).await?;
        if length == 0 {
            return Ok(());
        }
        let request = serde_json::from_str::<Request>(&line);
        let is_question = matches!(request, Ok(Request::Ask(_)));
        let mut answers = match request {
            Ok(request) => answers(&asks, request).await,
            Err(error) => just(Answer::Refused {
                reason: format!("the request is not understood: {error}"),
            }),
        };
        let mut unread = [0; 1];
        loop {
            let answer = tokio::select! {
                answer = answers.recv() => answer,
                // Who hangs up wants no more; what comes meanwhile is out of turn.
                _ = read.read(&mut unread), if !answers.is_closed() => return Ok(()),
            };
            let Some(answer) = answer else { break };
            write_line(&mut write, &answer).await?;
        }
        if is_question {
            // It has any number of answers: that there are no more is told by the end alone.
            return Ok(());
        }
        if length as u64 == REQUEST_BYTES {
            // The rest of an overlong line would be read as requests of its own.
            return Ok(());
        }
    }
}

async fn write_line(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    answer: &Answer,
) -> io::Result<()> {
    let mut text = serde_json::to_string(answer)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

fn just<T>(answer: T) -> mpsc::Receiver<T> {
    all(vec![answer])
}

fn all<T>(answers: Vec<T>) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(answers.len().max(1));
    for answer in answers {
        // There is room for all, and the other end is here.
        let _ = sender.try_send(answer);
    }
    receiver
}

/// All answers to a request, which end with the channel; to drop it ends them, too.
async fn answers(asks: &Asks, request: Request) -> mpsc::Receiver<Answer> {
    match request {
        Request::Ask(question) => tell(&asks.requests, &asks.hub, question, Answer::Told).await,
        request
        @ (Request::Connections { .. } | Request::Export { .. } | Request::Adopt { .. }) => {
            // The kernel goes through all its flows meanwhile; nothing else waits for that.
            let connections = Arc::clone(&asks.connections);
            let answers =
                tokio::task::spawn_blocking(move || of_connections(&connections, request)).await;
            all(answers.unwrap_or_else(|_| vec![refused("the agent failed; its log says how")]))
        }
        request => all(ask(&asks.requests, request).await),
    }
}

/// All answers to a question, each made into what the caller understands.
pub(crate) async fn tell<T: Send + 'static>(
    requests: &mpsc::Sender<Asked>,
    hub: &Arc<Hub>,
    question: Question,
    made: fn(Telling) -> T,
) -> mpsc::Receiver<T> {
    match question {
        Question::Flows(query) => {
            let (items, told) = mpsc::channel(TOLD);
            let telling = Arc::clone(hub).tell(query, items);
            relay(
                telling,
                told,
                move |item| made(Telling::Flow { item }),
                made,
            )
        }
        Question::Capture(query) => {
            let (items, told) = mpsc::channel(TOLD);
            let telling = Arc::clone(hub).capture(query, items);
            relay(
                telling,
                told,
                move |item| made(Telling::Capture { item }),
                made,
            )
        }
        Question::Trace(entry) => {
            let mut answers = ask(requests, Request::Ask(Question::Trace(entry))).await;
            let told = match answers.pop() {
                Some(Answer::Told(told)) => told,
                Some(Answer::Refused { reason }) => Telling::Refused { reason },
                other => unreachable!("a trace is answered by hops: {other:?}"),
            };
            just(made(told))
        }
    }
}

/// Passes on what `telling` sends, then why it ended, if it did not end well.
fn relay<I: Send + 'static, T: Send + 'static>(
    telling: impl Future<Output = Result<(), HubError>> + Send + 'static,
    mut told: mpsc::Receiver<I>,
    item: impl Fn(I) -> T + Send + Sync + 'static,
    refused: fn(Telling) -> T,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let pass = async {
            while let Some(next) = told.recv().await {
                if sender.send(item(next)).await.is_err() {
                    return;
                }
            }
        };
        tokio::pin!(telling, pass);
        let ended = tokio::select! {
            ended = &mut telling => ended,
            () = &mut pass => return,
            () = sender.closed() => return,
        };
        // What was told before the end is still under way.
        pass.await;
        if let Err(error) = ended {
            let reason = error.to_string();
            let _ = sender.send(refused(Telling::Refused { reason })).await;
        }
    });
    receiver
}

fn refused(reason: impl ToString) -> Answer {
    Answer::Refused {
        reason: reason.to_string(),
    }
}

fn of_connections(connections: &Connections, request: Request) -> Vec<Answer> {
    let answers = match request {
        Request::Connections { endpoint } => connections.list(endpoint.as_deref()).map(|listed| {
            let count = listed.len().div_ceil(LISTED).max(1);
            let mut listed = listed.into_iter();
            let pieces = (1..=count).map(|piece| Answer::Connections {
                connections: listed.by_ref().take(LISTED).collect(),
                is_last: piece == count,
            });
            pieces.collect()
        }),
        Request::Export { endpoint } => connections.export(&endpoint).map(|export| {
            let mut answers = parcels(&export.parcels);
            answers.push(Answer::Exported {
                connections: export.connections,
                token: export.token,
            });
            answers
        }),
        Request::Adopt { endpoint, parcel } => {
            let Some(parcel) = unhex(&parcel) else {
                return vec![refused("the parcel is no hexadecimal number")];
            };
            let adopted = connections.adopt(&endpoint, &parcel);
            adopted.map(|connections| vec![Answer::Adopted { connections }])
        }
        _ => Ok(Vec::new()),
    };
    answers.unwrap_or_else(|error| vec![refused(chain(&error))])
}

/// Parcels on lines.
pub(crate) fn parcels(parcels: &[Parcel]) -> Vec<Answer> {
    let lines = parcels.iter().map(|parcel| Answer::Parcel {
        parcel: hex(&parcel.to_bytes()),
    });
    lines.collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4 | digit(*low)?) as u8),
            _ => None,
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

async fn ask(requests: &mpsc::Sender<Asked>, request: Request) -> Vec<Answer> {
    let (sender, receiver) = oneshot::channel();
    let gone = || vec![refused("the agent is shutting down")];
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
    let mut answers = listen(directory, request)?;
    answers
        .next()
        .unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))
}

/// Asks a running agent something that has many answers. They end when the agent has no more, or
/// goes away.
///
/// # Errors
/// When no agent listens in `directory`.
pub fn listen(
    directory: &Path,
    request: &Request,
) -> io::Result<impl Iterator<Item = io::Result<Answer>> + use<>> {
    use std::io::{BufRead as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(directory.join(SOCKET))?;
    let mut text = serde_json::to_string(request)?;
    text.push('\n');
    stream.write_all(text.as_bytes())?;
    let lines = std::io::BufReader::new(stream).lines();
    Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_text_and_other_text_is_refused() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        for bad in ["0", "0g", "é0", "+1"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_release_of_an_earlier_version_is_still_understood() {
        let request = r#"{"request":"release","endpoint":"web1"}"#;
        let expected = Request::Release {
            endpoint: "web1".to_owned(),
            since: None,
        };
        assert_eq!(serde_json::from_str::<Request>(request).unwrap(), expected);
    }
}
