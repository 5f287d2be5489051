//! Candidates of policies: staged beside the text in force, audited on live flows, taken away.

use axum::Json;
use axum::extract::State;
use sunwire_api::{Name, Policy, PolicyText, Problem, StagedPolicy};

use super::answer::Written;
use super::failure::Failure;
use super::policies::written;
use super::request::{NoBody, PolicyName, PolicySource, Write};
use crate::command::Command;
use crate::handle::Handle;
use crate::owner::Cluster;
use crate::refusal::Refusal;

/// Shows the candidate, and what it would have done to the packets that came by since its tables
/// are as they are.
#[utoipa::path(
    get, path = "/v1/policies/{name}/stage", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    responses((status = 200, body = StagedPolicy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
) -> Result<Json<StagedPolicy>, Failure> {
    Ok(Json(
        handle.read(move |cluster| view(cluster, &name)).await??,
    ))
}

fn view(cluster: &Cluster, name: &Name) -> Result<StagedPolicy, Refusal> {
    let mut staged = cluster.state.staged_view(name)?;
    if let Some(policy) = cluster.state.policies().get(name) {
        let sum = cluster.audit.sum(&policy.network, staged.tables_revision);
        staged.audit = sum.totals;
        staged.reporting_nodes = sum.reporting;
        staged.refusing_nodes = sum.refusing;
    }
    Ok(staged)
}

/// Stages a candidate: it is compiled, asked on live flows, and drops nothing.
#[utoipa::path(
    put, path = "/v1/policies/{name}/stage", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body(content(
        (PolicyText = "application/json"), (String = "text/plain"),
    )),
    responses((status = 200, body = Policy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn put(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<PolicySource>,
) -> Result<Written<Policy>, Failure> {
    let proposal = write.propose(|body| Command::StagePolicy {
        name: name.clone(),
        text: body.0.into(),
    });
    written(&handle, proposal, name).await
}

/// Takes the candidate away.
#[utoipa::path(
    delete, path = "/v1/policies/{name}/stage", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Policy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn delete(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<NoBody>,
) -> Result<Written<Policy>, Failure> {
    let proposal = write.propose(|NoBody| Command::UnstagePolicy { name: name.clone() });
    written(&handle, proposal, name).await
}
