//! Endpoints, and their moves.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use sunwire_api::{
    Deleted, Endpoint, EndpointCreate, EndpointPatch, EndpointState, MoveRequest, Name, Page,
    Problem,
};
use utoipa::IntoParams;

use super::answer::{PageQuery, Tagged, Written};
use super::failure::Failure;
use super::request::{self, EndpointName, MergePatch, NoBody, Parameters, Write, WriteQuery};
use super::wait;
use crate::command::{Command, Proposal};
use crate::handle::Handle;

/// What to wait for.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ShowQuery {
    /// Answer once the endpoint is in this state, or the time is over.
    wait_state: Option<EndpointState>,
    /// Answer once it is on this node, not moving, as well.
    wait_node: Option<Name>,
    /// How long to wait, in milliseconds: at most 300000, 10000 when absent.
    timeout_ms: Option<u64>,
}

/// Lists endpoints.
#[utoipa::path(
    get, path = "/v1/endpoints", tag = "endpoints",
    params(PageQuery),
    responses((status = 200, body = Page<Endpoint>), (status = "4XX", body = Problem)),
)]
pub(crate) async fn list(
    State(handle): State<Handle>,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Endpoint>>, Failure> {
    let page = handle
        .read(move |cluster| {
            let state = &cluster.state;
            query.page(state.endpoints(), |name, _| state.endpoint_view(name))
        })
        .await??;
    Ok(Json(page))
}

/// Creates an endpoint.
#[utoipa::path(
    post, path = "/v1/endpoints", tag = "endpoints",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
        WriteQuery,
    ),
    request_body = EndpointCreate,
    responses((status = 201, body = Endpoint), (status = "4XX", body = Problem)),
)]
pub(crate) async fn create(
    State(handle): State<Handle>,
    write: Write<request::Json<EndpointCreate>>,
) -> Result<Written<Endpoint>, Failure> {
    let name = write.body.0.name.clone();
    let proposal = write.propose(|body| Command::CreateEndpoint(body.0));
    Ok(Written {
        resource: changed(&handle, proposal, name).await?,
        created: true,
        collection: "/v1/endpoints",
    })
}

/// Shows an endpoint, at once or when it is as asked.
#[utoipa::path(
    get, path = "/v1/endpoints/{name}", tag = "endpoints",
    params(("name" = Name, Path, description = "Name of the endpoint"), ShowQuery),
    responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    EndpointName(name): EndpointName,
    Parameters(query): Parameters<ShowQuery>,
) -> Result<Tagged<Endpoint>, Failure> {
    let timeout = wait::timeout(query.timeout_ms)?;
    let (endpoint, _) = handle
        .read_until(
            timeout,
            move |cluster| cluster.state.endpoint_view(&name),
            |endpoint| {
                let status = &endpoint.status;
                let there = |node: &Name| status.node == *node && status.moving_to.is_none();
                query.wait_state.is_none_or(|state| status.state == state)
                    && query.wait_node.as_ref().is_none_or(there)
            },
        )
        .await?;
    Ok(Tagged(endpoint))
}

/// Changes an endpoint's labels.
#[utoipa::path(
    patch, path = "/v1/endpoints/{name}", tag = "endpoints",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("If-Match" = Option<String>, Header, description = "ETag of the endpoint, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
        WriteQuery,
    ),
    request_body(content = EndpointPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)),
)]
pub(crate) async fn update(
    State(handle): State<Handle>,
    EndpointName(name): EndpointName,
    write: Write<MergePatch<EndpointPatch>>,
) -> Result<Tagged<Endpoint>, Failure> {
    let proposal = write.propose(|body| Command::UpdateEndpoint {
        name: name.clone(),
        labels: body.0.labels,
    });
    changed(&handle, proposal, name).await.map(Tagged)
}

/// Deletes an endpoint.
#[utoipa::path(
    delete, path = "/v1/endpoints/{name}", tag = "endpoints",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("If-Match" = Option<String>, Header, description = "ETag of the endpoint, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
        WriteQuery,
    ),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem)),
)]
pub(crate) async fn delete(
    State(handle): State<Handle>,
    EndpointName(name): EndpointName,
    write: Write<NoBody>,
) -> Result<Json<Deleted>, Failure> {
    let proposal = write.propose(|NoBody| Command::DeleteEndpoint { name });
    let revision = handle
        .propose(proposal, |_, effects| Ok(effects.revision))
        .await?;
    Ok(Json(Deleted { revision }))
}

/// Begins to move an endpoint: from here on its device may appear on the other node.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/move", tag = "endpoints",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("If-Match" = Option<String>, Header, description = "ETag of the endpoint, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = MoveRequest,
    responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)),
)]
pub(crate) async fn begin_move(
    State(handle): State<Handle>,
    EndpointName(name): EndpointName,
    write: Write<request::Json<MoveRequest>>,
) -> Result<Tagged<Endpoint>, Failure> {
    let proposal = write.propose(|body| Command::BeginMove {
        endpoint: name.clone(),
        node: body.0.node,
    });
    changed(&handle, proposal, name).await.map(Tagged)
}

/// Gives up a move that is under way.
#[utoipa::path(
    post, path = "/v1/endpoints/{name}/move/abort", tag = "endpoints",
    params(
        ("name" = Name, Path, description = "Name of the endpoint"),
        ("If-Match" = Option<String>, Header, description = "ETag of the endpoint, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Endpoint), (status = "4XX", body = Problem)),
)]
pub(crate) async fn abort_move(
    State(handle): State<Handle>,
    EndpointName(name): EndpointName,
    write: Write<NoBody>,
) -> Result<Tagged<Endpoint>, Failure> {
    let proposal = write.propose(|NoBody| Command::AbortMove {
        endpoint: name.clone(),
    });
    changed(&handle, proposal, name).await.map(Tagged)
}

/// Proposes a change of an endpoint, and shows it after that.
async fn changed(handle: &Handle, proposal: Proposal, name: Name) -> Result<Endpoint, Failure> {
    let endpoint = handle
        .propose(proposal, move |cluster, _| {
            cluster.state.endpoint_view(&name)
        })
        .await?;
    Ok(endpoint)
}
