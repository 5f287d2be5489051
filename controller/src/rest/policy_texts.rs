//! The texts of a policy: applied, confirmed, rolled back, and kept.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use serde::Deserialize;
use sunwire_api::{
    ApplyRequest, Name, Policy, PolicyHistory, PolicyRevision, Problem, ProblemCode,
    RollbackRequest,
};
use utoipa::IntoParams;

use super::answer::Written;
use super::failure::Failure;
use super::policies::{check_name, written};
use super::request::{NoBody, OptionalJson, Parameters, PolicyName, Write};
use crate::command::{Command, Note};
use crate::confirmations::now_unix_ms;
use crate::handle::Handle;

/// Texts on a page when the client does not say, and at most.
const PAGE_MAX: usize = 100;
/// Longest trial, in seconds.
const CONFIRM_SECONDS_MAX: u32 = 86_400;
/// Longest name of an author and longest comment, in characters.
const AUTHOR_CHARS_MAX: usize = 256;
const COMMENT_CHARS_MAX: usize = 4096;

/// Puts a text in force, or the staged candidate; on trial when it has to be confirmed.
#[utoipa::path(
    post, path = "/v1/policies/{name}/apply", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("If-None-Match" = Option<String>, Header, description = "* to create only"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = Option<ApplyRequest>,
    responses(
        (status = 200, body = Policy),
        (status = 201, body = Policy),
        (status = "4XX", body = Problem),
    ),
)]
pub(crate) async fn apply(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<OptionalJson<ApplyRequest>>,
) -> Result<Written<Policy>, Failure> {
    check_name(&name)?;
    let body = &write.body.0;
    let note = note(&body.author, &body.comment)?;
    let confirm_by_unix_ms = deadline(body.confirm_within_seconds)?;
    let force = body.force;
    let proposal = write.propose_with_force(force, |OptionalJson(body)| match body.text {
        Some(text) => Command::PutPolicy {
            name: name.clone(),
            text: text.into(),
            note,
            confirm_by_unix_ms,
        },
        None => Command::ApplyStaged {
            name: name.clone(),
            note,
            confirm_by_unix_ms,
        },
    });
    written(&handle, proposal, name).await
}

/// Keeps the text in force for good.
#[utoipa::path(
    post, path = "/v1/policies/{name}/confirm", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Policy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn confirm(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<NoBody>,
) -> Result<Written<Policy>, Failure> {
    let proposal = write.propose(|NoBody| Command::ConfirmPolicy { name: name.clone() });
    written(&handle, proposal, name).await
}

/// Brings back an earlier text, resolved anew.
#[utoipa::path(
    post, path = "/v1/policies/{name}/rollback", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("If-Match" = Option<String>, Header, description = "ETag of the policy, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = Option<RollbackRequest>,
    responses((status = 200, body = Policy), (status = "4XX", body = Problem)),
)]
pub(crate) async fn rollback(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    write: Write<OptionalJson<RollbackRequest>>,
) -> Result<Written<Policy>, Failure> {
    let body = &write.body.0;
    let note = note(&body.author, &body.comment)?;
    let confirm_by_unix_ms = deadline(body.confirm_within_seconds)?;
    let force = body.force;
    let proposal = write.propose_with_force(force, |OptionalJson(body)| Command::RollbackPolicy {
        name: name.clone(),
        to: body.to,
        note,
        confirm_by_unix_ms,
    });
    written(&handle, proposal, name).await
}

/// Which page of a history.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// `next_page_token` of the page before.
    page_token: Option<String>,
    /// Texts on the page at most: 1 to 100, 100 when absent.
    limit: Option<usize>,
}

/// The texts that a policy had, oldest first.
#[utoipa::path(
    get, path = "/v1/policies/{name}/history", tag = "policies",
    params(("name" = Name, Path, description = "Name of the policy"), HistoryQuery),
    responses((status = 200, body = PolicyHistory), (status = "4XX", body = Problem)),
)]
pub(crate) async fn history(
    State(handle): State<Handle>,
    PolicyName(name): PolicyName,
    Parameters(query): Parameters<HistoryQuery>,
) -> Result<Json<PolicyHistory>, Failure> {
    let wrong = |detail: String| Failure::new(ProblemCode::InvalidQuery, detail);
    let limit = query.limit.unwrap_or(PAGE_MAX);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(wrong(format!(
            "limit is {limit}: write a number from 1 to {PAGE_MAX}"
        )));
    }
    let after = match &query.page_token {
        None => 0,
        Some(token) => read_token(token).ok_or_else(|| {
            wrong("page_token is none that a list gave: leave it out to begin anew".to_owned())
        })?,
    };
    let (items, more) = handle
        .read(move |cluster| cluster.state.policy_history(&name, after, limit))
        .await??;
    let last = items.last().filter(|_| more);
    let next_page_token = last.map(|last| write_token(last.revision));
    Ok(Json(PolicyHistory {
        items,
        next_page_token,
    }))
}

/// A text that a policy had.
#[utoipa::path(
    get, path = "/v1/policies/{name}/history/{revision}", tag = "policies",
    params(
        ("name" = Name, Path, description = "Name of the policy"),
        ("revision" = u64, Path, description = "Revision of the text"),
    ),
    responses((status = 200, body = PolicyRevision), (status = "4XX", body = Problem)),
)]
pub(crate) async fn revision(
    State(handle): State<Handle>,
    RevisionInPath(name, revision): RevisionInPath,
) -> Result<Json<PolicyRevision>, Failure> {
    let text = handle
        .read(move |cluster| cluster.state.policy_revision_view(&name, revision))
        .await??;
    Ok(Json(text))
}

/// Name of a policy and a revision of it: what is none names nothing.
pub(crate) struct RevisionInPath(Name, u64);

impl<S: Send + Sync> FromRequestParts<S> for RevisionInPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let path: Result<Path<(String, String)>, PathRejection> =
            Path::from_request_parts(parts, &()).await;
        let Path((name, revision)) =
            path.map_err(|error| Failure::new(ProblemCode::PolicyNotFound, error.body_text()))?;
        let name = name
            .parse()
            .map_err(|error| Failure::new(ProblemCode::PolicyNotFound, format!("{error}")))?;
        let revision = revision.parse().map_err(|_| {
            Failure::new(
                ProblemCode::RevisionNotFound,
                format!("{revision} is no revision: they are numbers"),
            )
        })?;
        Ok(RevisionInPath(name, revision))
    }
}

/// What goes into the history, with the time of this request.
fn note(author: &Option<String>, comment: &Option<String>) -> Result<Note, Failure> {
    let within = |what: &str, text: &Option<String>, most: usize| match text {
        Some(text) if text.chars().count() > most => Err(Failure::new(
            ProblemCode::InvalidBody,
            format!("the {what} is longer than {most} characters: write less"),
        )),
        _ => Ok(text.clone()),
    };
    Ok(Note {
        at_unix_ms: Some(now_unix_ms()),
        author: within("author", author, AUTHOR_CHARS_MAX)?,
        comment: within("comment", comment, COMMENT_CHARS_MAX)?,
    })
}

/// Until when a text is on trial.
fn deadline(confirm_within_seconds: Option<u32>) -> Result<Option<u64>, Failure> {
    match confirm_within_seconds {
        None => Ok(None),
        Some(seconds) if (1..=CONFIRM_SECONDS_MAX).contains(&seconds) => Ok(Some(
            now_unix_ms().saturating_add(u64::from(seconds) * 1000),
        )),
        Some(seconds) => Err(Failure::new(
            ProblemCode::InvalidBody,
            format!(
                "confirm_within_seconds is {seconds}: write a number from 1 to \
                 {CONFIRM_SECONDS_MAX}"
            ),
        )),
    }
}

/// The token of the page after a revision: a version, then the revision in hexadecimal.
fn write_token(revision: u64) -> String {
    format!("1{revision:016x}")
}

fn read_token(token: &str) -> Option<u64> {
    let digits = token.strip_prefix('1').filter(|rest| rest.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
