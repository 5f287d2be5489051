//! Wires.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use sunwire_api::{
    Deleted, Name, Page, Problem, Totals, Wire, WireCreate, WireSpec, WireState, WireStatus,
};
use utoipa::IntoParams;

use super::answer::{PageQuery, Tagged, Written};
use super::failure::Failure;
use super::request::{self, NoBody, Parameters, WireName, Write};
use super::wait;
use crate::command::Command;
use crate::handle::Handle;
use crate::owner::Cluster;
use crate::refusal::Refusal;

/// What to wait for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowQuery {
    /// Answer once the wire is in this state, or the time is over.
    wait_state: Option<WireState>,
    /// How long to wait, in milliseconds: at most 300000, 10000 when absent.
    timeout_ms: Option<u64>,
}

pub(super) fn view(cluster: &Cluster, name: &Name) -> Result<Wire, Refusal> {
    let state = &cluster.state;
    let record = state.wire(name)?;
    let (is_up, detail) = state.wire_state(name)?;
    let [mut from_a, mut from_b] = [Totals::default(); 2];
    for (_, counters) in cluster.sessions.counters() {
        for counter in counters.wires.iter().filter(|c| c.wire == record.number) {
            let from = if counter.from_b {
                &mut from_b
            } else {
                &mut from_a
            };
            *from += Totals {
                packets: counter.packets,
                bytes: counter.bytes,
            };
        }
    }
    Ok(Wire {
        name: name.clone(),
        spec: WireSpec {
            a: record.a.clone(),
            b: record.b.clone(),
        },
        status: WireStatus {
            number: record.number,
            network: state.endpoints()[&record.a].network.clone(),
            state: is_up,
            detail,
            from_a,
            from_b,
        },
        revision: record.revision,
    })
}

/// Lists wires.
#[utoipa::path(
    get, path = "/v1/wires", tag = "wires",
    params(PageQuery),
    responses((status = 200, body = Page<Wire>), (status = "4XX", body = Problem)),
)]
pub(crate) async fn list(
    State(handle): State<Handle>,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Wire>>, Failure> {
    let page = handle
        .read(move |cluster| query.page(cluster.state.wires(), |name, _| view(cluster, name)))
        .await??;
    Ok(Json(page))
}

/// Connects two endpoints: from now on what one sends comes out of the other, and nothing else.
#[utoipa::path(
    post, path = "/v1/wires", tag = "wires",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this request")),
    request_body = WireCreate,
    responses((status = 201, body = Wire), (status = "4XX", body = Problem)),
)]
pub(crate) async fn connect(
    State(handle): State<Handle>,
    write: Write<request::Json<WireCreate>>,
) -> Result<Written<Wire>, Failure> {
    let name = write.body.0.name.clone();
    let proposal = write.propose(|body| Command::ConnectWire(body.0));
    let resource = handle
        .propose(proposal, move |cluster, _| view(cluster, &name))
        .await?;
    Ok(Written {
        resource,
        created: true,
        collection: "/v1/wires",
    })
}

/// Shows a wire, at once or when it is as asked.
#[utoipa::path(
    get, path = "/v1/wires/{name}", tag = "wires",
    params(("name" = Name, Path, description = "Name of the wire"), ShowQuery),
    responses((status = 200, body = Wire), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    WireName(name): WireName,
    Parameters(query): Parameters<ShowQuery>,
) -> Result<Tagged<Wire>, Failure> {
    let timeout = wait::timeout(query.timeout_ms)?;
    let (wire, _) = handle
        .read_until(
            timeout,
            move |cluster| view(cluster, &name),
            |wire| {
                query
                    .wait_state
                    .is_none_or(|state| wire.status.state == state)
            },
        )
        .await?;
    Ok(Tagged(wire))
}

/// Disconnects the ends of a wire: from now on nothing passes between them.
#[utoipa::path(
    delete, path = "/v1/wires/{name}", tag = "wires",
    params(
        ("name" = Name, Path, description = "Name of the wire"),
        ("If-Match" = Option<String>, Header, description = "ETag of the wire, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem)),
)]
pub(crate) async fn disconnect(
    State(handle): State<Handle>,
    WireName(name): WireName,
    write: Write<NoBody>,
) -> Result<Json<Deleted>, Failure> {
    let proposal = write.propose(|NoBody| Command::DisconnectWire { name });
    let revision = handle
        .propose(proposal, |_, effects| Ok(effects.revision))
        .await?;
    Ok(Json(Deleted { revision }))
}
