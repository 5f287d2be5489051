//! What is found of a policy's text without changing anything: check, plan, verify, explain.

use axum::Json;
use axum::extract::State;
use sunwire_api::{
    ExplainRequest, Name, PolicyChecked, PolicyExplanation, PolicyPlan, PolicyText,
    PolicyVerification, Problem, ProblemCode,
};
use sunwire_policy::environment::Environment;

use super::failure::Failure;
use super::request::{self, OptionalPolicySource, PolicyName, PolicySource, Write};
use crate::analyze::{self, Present};
use crate::compile::{Compiled, network_of};
use crate::handle::Handle;
use crate::owner::Cluster;
use crate::refusal::Refusal;
use crate::state::{self, Source};

/// Compiles a text against the networks, endpoints and nodes as they are, and changes nothing.
#[utoipa::path(
    post, path = "/v1/policies/check", tag = "policies",
    request_body(content(
        (PolicyText = "application/json"), (String = "text/plain"),
    )),
    responses((status = 200, body = PolicyChecked), (status = "4XX", body = Problem)),
)]
pub(crate) async fn check(
    State(handle): State<Handle>,
    write: Write<PolicySource>,
) -> Result<Json<PolicyChecked>, Failure> {
    let text = write.body.0;
    let environment = handle.read(|cluster| cluster.state.environment()).await?;
    compile(&handle, text.into(), environment).await
}

/// Compiles the text in force, or another one, against what there is now, and changes nothing.
#[utoipa::path(
    post, path = "/v1/policies/{name}/check", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    request_body(content(
        (Option<PolicyText> = "application/json"), (String = "text/plain"),
    )),
    responses((status = 200, body = PolicyChecked), (status = "4XX", body = Problem)),
)]
pub(crate) async fn check_stored(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<OptionalPolicySource>,
) -> Result<Json<PolicyChecked>, Failure> {
    let (text, environment) = text_of(&handle, name, write.body.0).await?;
    compile(&handle, text, environment).await
}

async fn compile(
    handle: &Handle,
    text: Source,
    environment: Environment,
) -> Result<Json<PolicyChecked>, Failure> {
    let compiled = handle
        .beside()
        .run(move |_| state::check(text.as_str(), &environment))
        .await?;
    let Compiled {
        network,
        tables,
        warnings,
        ..
    } = compiled?;
    Ok(Json(PolicyChecked {
        network,
        table_nodes: tables.nodes.len() as u64,
        leaves: tables.leaves.len() as u64,
        address_prefixes: tables.classes.len() as u64,
        warnings,
    }))
}

/// Says what would change if a text came into force: which packets, and who could reach whom.
#[utoipa::path(
    post, path = "/v1/policies/{name}/plan", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy, which need not exist")),
    request_body(content(
        (PolicyText = "application/json"), (String = "text/plain"),
    )),
    responses((status = 200, body = PolicyPlan), (status = "4XX", body = Problem)),
)]
pub(crate) async fn plan(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<PolicySource>,
) -> Result<Json<PolicyPlan>, Failure> {
    let text = write.body.0;
    let network = network_of(&text);
    let asked = name.clone();
    let (present, environment) = handle
        .read(move |cluster| {
            let present = network.and_then(|network| present(cluster, &network));
            match present {
                Some((other, _)) if other != asked => Err(Refusal::new(
                    ProblemCode::PolicyNetworkTaken,
                    format!("policy {other} governs the network: plan a change of that one"),
                )),
                present => Ok((
                    present.map(|(_, present)| present),
                    cluster.state.environment(),
                )),
            }
        })
        .await??;
    let plan = handle
        .beside()
        .run(move |options| analyze::planned(&name, present, &text, &environment, options))
        .await??;
    Ok(Json(plan))
}

/// The policy of a network, and its text.
fn present(cluster: &Cluster, network: &Name) -> Option<(Name, Present)> {
    let mut policies = cluster.state.policies().iter();
    let (name, policy) = policies.find(|(_, policy)| policy.network == *network)?;
    let present = Present {
        revision: policy.present().revision,
        text: policy.text().clone(),
    };
    Some((name.clone(), present))
}

/// Proves the assertions and runs the tests of the text in force, or of another one.
#[utoipa::path(
    post, path = "/v1/policies/{name}/verify", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    request_body(content(
        (Option<PolicyText> = "application/json"), (String = "text/plain"),
    )),
    responses((status = 200, body = PolicyVerification), (status = "4XX", body = Problem)),
)]
pub(crate) async fn verify(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<OptionalPolicySource>,
) -> Result<Json<PolicyVerification>, Failure> {
    let (text, environment) = text_of(&handle, name, write.body.0).await?;
    let verification = handle
        .beside()
        .run(move |options| analyze::verified(text.as_str(), &environment, options))
        .await??;
    Ok(Json(verification))
}

/// Says which clause of the text in force, or of another one, decides about a packet.
#[utoipa::path(
    post, path = "/v1/policies/{name}/explain", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy")),
    request_body = ExplainRequest,
    responses((status = 200, body = PolicyExplanation), (status = "4XX", body = Problem)),
)]
pub(crate) async fn explain(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<request::Json<ExplainRequest>>,
) -> Result<Json<PolicyExplanation>, Failure> {
    let ExplainRequest { packet, text } = write.body.0;
    let (text, environment) = text_of(&handle, name, text).await?;
    let explanation = handle
        .beside()
        .run(move |_| analyze::explained(text.as_str(), &packet, &environment))
        .await??;
    Ok(Json(explanation))
}

/// The text that was sent, else the one in force; and what its names can mean.
async fn text_of(
    handle: &Handle,
    name: Name,
    sent: Option<String>,
) -> Result<(Source, Environment), Failure> {
    let found = handle.read(move |cluster| {
        let text = match sent {
            Some(text) => text.into(),
            None => cluster.state.text_in_force(&name)?.clone(),
        };
        Ok::<_, Refusal>((text, cluster.state.environment()))
    });
    Ok(found.await??)
}
