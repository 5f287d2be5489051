//! What becomes of packets, of all nodes together: flows and captures as streams of server-sent
//! events, traces hop by hop.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use serde::{Deserialize, Serialize};
use sunwire_api::{
    CaptureItem, CaptureQuery, FlowFilter, FlowItem, FlowLosses, FlowQuery, Name, NodeKind,
    Problem, ProblemCode, Question, Telling, Trace, TraceEntry, TraceHop, TraceOutcome,
    TraceRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::IntoParams;

use super::failure::Failure;
use super::request::{Json as JsonBody, Parameters, Write};
use crate::handle::Handle;
use crate::questions::Answered;
use crate::refusal::Refusal;

/// Items that wait for a slow client before its agents' queues fill up.
const QUEUE: usize = 256;
/// Hops that a trace follows at most; more would be a circle.
const HOPS_MAX: usize = 32;
/// Steps that a trace lists at most: a packet for several has one for each copy.
const STEPS_MAX: usize = 4096;
/// How long a node may take for its hop.
const HOP_WITHIN: Duration = Duration::from_secs(5);
/// Flows that happened before, of each node at most.
const LAST_MAX: usize = 10_000;

/// Which flows.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlowsQuery {
    /// A filter such as `from web1 and port 443 and not drop`; all flows when absent.
    filter: String,
    /// How many of those that happened before, of each node: 20 when absent, 10000 at most.
    last: Option<usize>,
    /// Go on with what happens from now on.
    follow: bool,
    /// While following, also one of so many packets at random; none when absent or 0.
    sample: u32,
}

/// What is captured.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct CapturesQuery {
    /// Name of the endpoint; all packets when absent.
    endpoint: Option<String>,
    /// A filter such as `port 443 and drop`; all packets when absent.
    filter: String,
    /// Bytes of each frame at most: 256 when absent.
    bytes: Option<u32>,
}

type Events = Sse<axum::response::sse::KeepAliveStream<ReceiverStream<Result<Event, Infallible>>>>;

/// Streams what becomes of packets at all nodes, as server-sent events: one `FlowItem` each.
#[utoipa::path(
    get, path = "/v1/flows", tag = "telemetry",
    params(FlowsQuery),
    responses(
        (status = 200, body = FlowItem, content_type = "text/event-stream"),
        (status = "4XX", body = Problem),
    ),
)]
pub(crate) async fn flows(
    State(handle): State<Handle>,
    Parameters(query): Parameters<FlowsQuery>,
) -> Result<Events, Failure> {
    check(&query.filter)?;
    let last = query.last.unwrap_or(20);
    if last > LAST_MAX {
        let detail = format!("last is {last}: ask for at most {LAST_MAX}");
        return Err(Failure::new(ProblemCode::InvalidQuery, detail));
    }
    let follow = query.follow;
    let question = Question::Flows(FlowQuery {
        filter: query.filter,
        last,
        follow,
        sample: query.sample,
    });
    let item = |node: &Name, heard: Heard| {
        let node = node.to_string();
        let item = match heard {
            Heard::Telling(Telling::Flow { item }) => item,
            Heard::Telling(_) => return None,
            Heard::Lost(count) => FlowItem::Lost {
                node,
                losses: FlowLosses {
                    listener_slow: count,
                    ..FlowLosses::default()
                },
            },
            Heard::Silence => FlowItem::Silent { node },
        };
        Some(event(&item))
    };
    Ok(stream(handle, question, follow, item))
}

/// Streams packets of an endpoint, dropped ones included, as server-sent events: one `CaptureItem`
/// each.
#[utoipa::path(
    get, path = "/v1/capture", tag = "telemetry",
    params(CapturesQuery),
    responses(
        (status = 200, body = CaptureItem, content_type = "text/event-stream"),
        (status = "4XX", body = Problem),
    ),
)]
pub(crate) async fn capture(
    State(handle): State<Handle>,
    Parameters(query): Parameters<CapturesQuery>,
) -> Result<Events, Failure> {
    check(&query.filter)?;
    if let Some(endpoint) = &query.endpoint {
        let missing = || {
            let detail = format!("there is no endpoint {endpoint}");
            Failure::new(ProblemCode::EndpointNotFound, detail)
        };
        let name: Name = endpoint.parse().map_err(|_| missing())?;
        let found = handle.read(move |cluster| cluster.state.endpoints().contains_key(&name));
        if !found.await? {
            return Err(missing());
        }
    }
    let question = Question::Capture(CaptureQuery {
        endpoint: query.endpoint,
        filter: query.filter,
        bytes: query.bytes.unwrap_or(256),
    });
    let item = |node: &Name, heard: Heard| {
        let node = node.to_string();
        let item = match heard {
            Heard::Telling(Telling::Capture { item }) => item,
            Heard::Telling(_) => return None,
            Heard::Lost(packets) => CaptureItem::Lost { node, packets },
            Heard::Silence => CaptureItem::Silent { node },
        };
        Some(event(&item))
    };
    Ok(stream(handle, question, true, item))
}

fn check(filter: &str) -> Result<(), Failure> {
    let parsed = filter.parse::<FlowFilter>();
    parsed
        .map(|_| ())
        .map_err(|error| Failure::new(ProblemCode::InvalidQuery, error.to_string()))
}

fn event<T: Serialize>(item: &T) -> Event {
    let text = serde_json::to_string(item).expect("items are plain JSON");
    Event::default().data(text)
}

/// What is heard of a node.
enum Heard {
    Telling(Telling),
    Lost(u64),
    Silence,
}

/// Asks all nodes, those that connect later too while following, and streams what they tell.
fn stream(
    handle: Handle,
    question: Question,
    follow: bool,
    item: impl Fn(&Name, Heard) -> Option<Event> + Copy + Send + 'static,
) -> Events {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let mut asked = BTreeSet::new();
        let mut ticks = handle.ticks();
        loop {
            let stopping = ticks.borrow_and_update().stopping;
            let names = handle.read(|cluster| {
                // Nodes without an agent have nothing to tell, and are not silent either.
                let nodes = cluster.state.nodes().iter();
                let with_agent = nodes.filter(|(_, node)| node.kind == NodeKind::Agent);
                with_agent
                    .map(|(name, _)| name.clone())
                    .collect::<Vec<Name>>()
            });
            let (false, Ok(names)) = (stopping, names.await) else {
                return;
            };
            for name in names {
                if asked.insert(name.clone()) {
                    let (handle, question) = (handle.clone(), question.clone());
                    let sender = sender.clone();
                    tokio::spawn(hear(handle, name, question, follow, item, sender));
                }
            }
            if !follow {
                // The stream ends with the last node's answers.
                return;
            }
            tokio::select! {
                changed = ticks.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    Sse::new(ReceiverStream::new(receiver)).keep_alive(KeepAlive::default())
}

/// Passes on what one node tells; asks again when it connects again, while following.
async fn hear(
    handle: Handle,
    node: Name,
    question: Question,
    follow: bool,
    item: impl Fn(&Name, Heard) -> Option<Event> + Copy + Send + 'static,
    sender: mpsc::Sender<Result<Event, Infallible>>,
) {
    let mut ticks = handle.ticks();
    let mut silent = false;
    loop {
        if ticks.borrow_and_update().stopping {
            return;
        }
        if let Ok(Some(mut answers)) = handle.ask(&node, &question).await {
            silent = false;
            loop {
                let answer = tokio::select! {
                    answer = answers.next() => answer,
                    () = sender.closed() => return,
                    _ = ticks.wait_for(|tick| tick.stopping) => return,
                };
                let heard = match answer {
                    Some(Answered::Told(telling)) => Heard::Telling(telling),
                    Some(Answered::Lost(count)) => Heard::Lost(count),
                    None => break,
                };
                if let Some(event) = item(&node, heard)
                    && sender.send(Ok(event)).await.is_err()
                {
                    return;
                }
            }
            if !follow {
                return;
            }
        }
        if !silent {
            silent = true;
            if let Some(event) = item(&node, Heard::Silence)
                && sender.send(Ok(event)).await.is_err()
            {
                return;
            }
        }
        if !follow {
            return;
        }
        tokio::select! {
            changed = ticks.changed() => if changed.is_err() { return },
            () = sender.closed() => return,
        }
    }
}

/// Says where a packet would go, hop by hop: each node's own programs are asked, and nothing is
/// sent or counted.
#[utoipa::path(
    post, path = "/v1/trace", tag = "telemetry",
    request_body = TraceRequest,
    responses((status = 200, body = Trace), (status = "4XX", body = Problem)),
)]
pub(crate) async fn trace(
    State(handle): State<Handle>,
    write: Write<JsonBody<TraceRequest>>,
) -> Result<Json<Trace>, Failure> {
    let JsonBody(request) = write.body;
    let from = request.from.clone();
    let entry = handle.read(move |cluster| {
        let endpoint = cluster.state.endpoints().get(&from);
        let endpoint = endpoint.ok_or_else(|| {
            let detail = format!("there is no endpoint {from}");
            Refusal::new(ProblemCode::EndpointNotFound, detail)
        })?;
        Ok::<Name, Refusal>(endpoint.node.clone())
    });
    let node = entry.await??;
    let mut trace = Trace {
        outcome: TraceOutcome::Lost,
        hops: Vec::new(),
        unfinished: None,
    };
    let mut ahead = VecDeque::from([(node, TraceEntry::Endpoint(request), None, 1)]);
    while let Some((node, entry, after, hop_count)) = ahead.pop_front() {
        let first = after.is_none();
        if hop_count > HOPS_MAX {
            trace.unfinished = Some(format!("there are more than {HOPS_MAX} hops"));
            break;
        }
        let hops = match hops(&handle, &node, entry).await {
            Ok(hops) => hops,
            // What is wrong with the packet, or with its way into the switch.
            Err(why) if first => {
                return Err(Failure::new(ProblemCode::NotTraceable, why));
            }
            Err(why) => {
                trace.unfinished = Some(why);
                continue;
            }
        };
        for mut hop in hops {
            hop.after = after;
            let next: Option<Name> = hop
                .flow
                .next_node
                .as_ref()
                .and_then(|name| name.parse().ok());
            if let Some(next) = next {
                let entry = TraceEntry::Tunnel {
                    frame: hop.frame.clone(),
                };
                ahead.push_back((next, entry, Some(trace.hops.len()), hop_count + 1));
            }
            trace.hops.push(hop);
        }
        if trace.hops.len() > STEPS_MAX {
            trace.unfinished = Some(format!("there are more than {STEPS_MAX} copies"));
            break;
        }
    }
    trace.outcome = TraceOutcome::of(&trace.hops);
    Ok(Json(trace))
}

/// One node's hops, or why there are none.
async fn hops(handle: &Handle, node: &Name, entry: TraceEntry) -> Result<Vec<TraceHop>, String> {
    let asked = handle.ask(node, &Question::Trace(entry)).await;
    let Ok(Some(mut answers)) = asked else {
        let name = node.clone();
        let kind = handle.read(move |cluster| Some(cluster.state.nodes().get(&name)?.kind));
        return Err(match kind.await {
            Ok(Some(NodeKind::Vxlan)) => {
                format!("node {node} runs no agent, and what it does is not known here")
            }
            _ => format!("node {node} is not connected"),
        });
    };
    match tokio::time::timeout(HOP_WITHIN, answers.next()).await {
        Ok(Some(Answered::Told(Telling::Traced { hops }))) => Ok(hops),
        Ok(Some(Answered::Told(Telling::Refused { reason }))) => {
            Err(format!("node {node}: {reason}"))
        }
        Ok(Some(_)) => Err(format!("node {node} answers something else")),
        Ok(None) => Err(format!("node {node} went away")),
        Err(_) => Err(format!("node {node} does not answer in time")),
    }
}
