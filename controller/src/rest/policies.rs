//! Policies as resources: list, show, put, delete.

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use sunwire_api::{Deleted, Name, Page, Policy, PolicyText, Problem, ProblemCode};

use super::answer::{PageQuery, Tagged, Written};
use super::failure::Failure;
use super::request::{NoBody, Parameters, PolicyName, PolicySource, Write, WriteQuery};
use crate::command::{Command, Note, Proposal};
use crate::confirmations::now_unix_ms;
use crate::handle::Handle;

/// Lists policies.
#[utoipa::path(
    get, path = "/v1/policies", tag = "policies",
    params(PageQuery),
    responses((status = 200, body = Page<Policy>), (status = "4XX", body = Problem)),
)]
pub(crate) async fn list(
    State(handle): State<Handle>,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Policy>>, Failure> {
    let page = handle
        .read(move |cluster| {
            let state = &cluster.state;
            query.page(state.policies(), |name, _| state.policy_view(name))
        })
        .await??;
    Ok(Json(page))
}

/// Shows a policy.
#[utoipa::path(
    get, path = "/v1/policies/{name}", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    responses((status = 200, body = Policy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
) -> Result<Tagged<Policy>, Failure> {
    let policy = handle
        .read(move |cluster| cluster.state.policy_view(&name))
        .await??;
    Ok(Tagged(policy))
}

/// The text in force, byte for byte.
#[utoipa::path(
    get, path = "/v1/policies/{name}/text", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "4XX", body = Problem),
    ),
)]
pub(crate) async fn text(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
) -> Result<impl IntoResponse, Failure> {
    let policy = handle
        .read(move |cluster| cluster.state.policy_view(&name))
        .await??;
    let tag = format!("\"{}\"", policy.revision);
    let media_type = "text/plain; charset=utf-8".to_owned();
    let headers = [(header::ETAG, tag), (header::CONTENT_TYPE, media_type)];
    Ok((headers, policy.spec.text))
}

/// Creates a policy, or replaces its text.
#[utoipa::path(
    put, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("If-None-Match" = Option<String>, Header, description = "* to create only"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
        WriteQuery,
    ),
    request_body(content(
        (PolicyText = "application/json"), (String = "text/plain"),
    )),
    responses(
        (status = 200, body = Policy),
        (status = 201, body = Policy),
        (status = "4XX", body = Problem),
    ),
)]
pub(crate) async fn put(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<PolicySource>,
) -> Result<Written<Policy>, Failure> {
    check_name(&name)?;
    let proposal = write.propose(|body| Command::PutPolicy {
        name: name.clone(),
        text: body.0.into(),
        note: Note {
            at_unix_ms: Some(now_unix_ms()),
            ..Note::default()
        },
        confirm_by_unix_ms: None,
    });
    written(&handle, proposal, name).await
}

/// Refuses a name that is the compiler's path.
pub(super) fn check_name(name: &Name) -> Result<(), Failure> {
    if name.as_str() == "check" {
        return Err(Failure::new(
            ProblemCode::MethodNotAllowed,
            "a policy cannot be named check: POST /v1/policies/check compiles; take another name",
        ));
    }
    Ok(())
}

/// Proposes a change of a policy, and shows it after that.
pub(super) async fn written(
    handle: &Handle,
    proposal: Proposal,
    name: Name,
) -> Result<Written<Policy>, Failure> {
    let (resource, created) = handle
        .propose(proposal, move |cluster, effects| {
            Ok((cluster.state.policy_view(&name)?, effects.created))
        })
        .await?;
    Ok(Written {
        resource,
        created,
        collection: "/v1/policies",
    })
}

/// Deletes a policy: everything in its network is dropped from then on.
#[utoipa::path(
    delete, path = "/v1/policies/{name}", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem)),
)]
pub(crate) async fn delete(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<NoBody>,
) -> Result<Json<Deleted>, Failure> {
    let proposal = write.propose(|NoBody| Command::DeletePolicy { name });
    let revision = handle
        .propose(proposal, |_, effects| Ok(effects.revision))
        .await?;
    Ok(Json(Deleted { revision }))
}
