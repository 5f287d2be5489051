//! The REST side of the controller, under `/v1`.
//!
//! Handlers parse, propose or read, and show; what may change is decided by the state alone.

mod answer;
mod encryption;
mod endpoints;
mod failure;
mod metrics;
mod networks;
mod nodes;
mod openapi;
mod policies;
mod policy_analysis;
mod policy_stage;
mod policy_texts;
mod request;
mod status;
mod telemetry;
mod wait;
mod wires;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use sunwire_api::ProblemCode;

use crate::handle::Handle;
use failure::Failure;

/// Every route.
pub(crate) fn router(handle: Handle) -> Router {
    Router::new()
        .route("/v1/nodes", get(nodes::list).post(nodes::create))
        .route("/v1/nodes/{name}", get(nodes::show).delete(nodes::delete))
        .route("/v1/networks", get(networks::list).post(networks::create))
        .route(
            "/v1/networks/{name}",
            get(networks::show)
                .patch(networks::update)
                .delete(networks::delete),
        )
        .route("/v1/networks/{name}/peer", post(networks::peer))
        .route("/v1/networks/{name}/unpeer", post(networks::unpeer))
        .route("/v1/networks/{name}/enforce", post(networks::enforce))
        .route(
            "/v1/endpoints",
            get(endpoints::list).post(endpoints::create),
        )
        .route(
            "/v1/endpoints/{name}",
            get(endpoints::show)
                .patch(endpoints::update)
                .delete(endpoints::delete),
        )
        .route("/v1/endpoints/{name}/move", post(endpoints::begin_move))
        .route(
            "/v1/endpoints/{name}/move/abort",
            post(endpoints::abort_move),
        )
        .route("/v1/wires", get(wires::list).post(wires::connect))
        .route(
            "/v1/wires/{name}",
            get(wires::show).delete(wires::disconnect),
        )
        .route("/v1/policies", get(policies::list))
        // A policy cannot be named `check`: the path is the compiler's.
        .route("/v1/policies/check", post(policy_analysis::check))
        .route(
            "/v1/policies/{name}",
            get(policies::show)
                .put(policies::put)
                .delete(policies::delete),
        )
        .route("/v1/policies/{name}/text", get(policies::text))
        .route(
            "/v1/policies/{name}/check",
            post(policy_analysis::check_stored),
        )
        .route("/v1/policies/{name}/plan", post(policy_analysis::plan))
        .route("/v1/policies/{name}/verify", post(policy_analysis::verify))
        .route(
            "/v1/policies/{name}/explain",
            post(policy_analysis::explain),
        )
        .route("/v1/policies/{name}/apply", post(policy_texts::apply))
        .route("/v1/policies/{name}/confirm", post(policy_texts::confirm))
        .route("/v1/policies/{name}/rollback", post(policy_texts::rollback))
        .route("/v1/policies/{name}/history", get(policy_texts::history))
        .route(
            "/v1/policies/{name}/history/{revision}",
            get(policy_texts::revision),
        )
        .route(
            "/v1/policies/{name}/stage",
            get(policy_stage::show)
                .put(policy_stage::put)
                .delete(policy_stage::delete),
        )
        .route("/v1/tunnels", get(nodes::tunnels))
        .route("/v1/encryption", get(encryption::show).put(encryption::put))
        .route("/v1/status", get(status::status))
        .route("/v1/counters", get(status::counters))
        .route("/v1/flows", get(telemetry::flows))
        .route("/v1/capture", get(telemetry::capture))
        .route("/v1/trace", post(telemetry::trace))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/metrics", get(metrics::show))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(handle)
}

async fn no_route(uri: Uri) -> Failure {
    Failure::new(
        ProblemCode::RouteNotFound,
        format!(
            "there is no {}: GET /v1/openapi.json lists every path",
            uri.path()
        ),
    )
}

async fn no_method(method: Method, uri: Uri) -> Failure {
    Failure::new(
        ProblemCode::MethodNotAllowed,
        format!(
            "{} does not take {method}: the Allow header says what it takes",
            uri.path()
        ),
    )
}
