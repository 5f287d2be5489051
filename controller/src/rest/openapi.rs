//! The description of the REST interface, in OpenAPI 3.1, made of the handlers themselves.

use axum::Json;
use utoipa::OpenApi;

use super::{
    encryption, endpoints, networks, nodes, policies, policy_analysis, policy_stage, policy_texts,
    status, telemetry, wires,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sunwire controller",
        description = "Nodes, networks, endpoints, wires and policies of one private cloud over \
                       many public ones."
    ),
    paths(
        nodes::list,
        nodes::create,
        nodes::show,
        nodes::tunnels,
        nodes::delete,
        networks::list,
        networks::create,
        networks::show,
        networks::update,
        networks::delete,
        networks::peer,
        networks::unpeer,
        networks::enforce,
        endpoints::list,
        endpoints::create,
        endpoints::show,
        endpoints::update,
        endpoints::delete,
        endpoints::begin_move,
        endpoints::abort_move,
        wires::list,
        wires::connect,
        wires::show,
        wires::disconnect,
        policies::list,
        policies::show,
        policies::text,
        policies::put,
        policies::delete,
        policy_analysis::check,
        policy_analysis::check_stored,
        policy_analysis::plan,
        policy_analysis::verify,
        policy_analysis::explain,
        policy_texts::apply,
        policy_texts::confirm,
        policy_texts::rollback,
        policy_texts::history,
        policy_texts::revision,
        policy_stage::show,
        policy_stage::put,
        policy_stage::delete,
        encryption::show,
        encryption::put,
        status::status,
        status::counters,
        telemetry::flows,
        telemetry::capture,
        telemetry::trace,
    )
)]
struct Description;

/// The description.
pub(crate) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}
