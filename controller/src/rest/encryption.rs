//! Which tunnels are encrypted: one resource.

use axum::extract::State;
use sunwire_api::{Encryption, EncryptionSpec, Problem};

use super::answer::Tagged;
use super::failure::Failure;
use super::request::{self, Write};
use crate::command::Command;
use crate::handle::Handle;

/// Shows which tunnels are encrypted.
#[utoipa::path(
    get, path = "/v1/encryption", tag = "encryption",
    responses((status = 200, body = Encryption), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(State(handle): State<Handle>) -> Result<Tagged<Encryption>, Failure> {
    let encryption = handle
        .read(|cluster| cluster.state.encryption_view())
        .await?;
    Ok(Tagged(encryption))
}

/// Decides which tunnels are encrypted.
#[utoipa::path(
    put, path = "/v1/encryption", tag = "encryption",
    params(
        ("If-Match" = Option<String>, Header, description = "ETag of the setting, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = EncryptionSpec,
    responses((status = 200, body = Encryption), (status = "4XX", body = Problem)),
)]
pub(crate) async fn put(
    State(handle): State<Handle>,
    write: Write<request::Json<EncryptionSpec>>,
) -> Result<Tagged<Encryption>, Failure> {
    let proposal = write.propose(|body| Command::SetEncryption { mode: body.0.mode });
    let encryption = handle
        .propose(proposal, |cluster, _| Ok(cluster.state.encryption_view()))
        .await?;
    Ok(Tagged(encryption))
}
