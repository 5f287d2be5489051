//! Virtual networks.

use axum::Json;
use axum::extract::State;
use sunwire_api::{
    Deleted, Name, Network, NetworkCreate, NetworkEnforce, NetworkPatch, NetworkPeer, Page, Problem,
};

use super::answer::{PageQuery, Tagged, Written};
use super::failure::Failure;
use super::request::{self, MergePatch, NetworkName, NoBody, Parameters, Write};
use crate::command::{Command, Proposal};
use crate::handle::Handle;

/// Lists networks.
#[utoipa::path(
    get, path = "/v1/networks", tag = "networks",
    params(PageQuery),
    responses((status = 200, body = Page<Network>), (status = "4XX", body = Problem)),
)]
pub(crate) async fn list(
    State(handle): State<Handle>,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Network>>, Failure> {
    let page = handle
        .read(move |cluster| {
            let state = &cluster.state;
            query.page(state.networks(), |name, _| state.network_view(name))
        })
        .await??;
    Ok(Json(page))
}

/// Creates a network.
#[utoipa::path(
    post, path = "/v1/networks", tag = "networks",
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this request")),
    request_body = NetworkCreate,
    responses((status = 201, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn create(
    State(handle): State<Handle>,
    write: Write<request::Json<NetworkCreate>>,
) -> Result<Written<Network>, Failure> {
    let name = write.body.0.name.clone();
    let proposal = write.propose(|body| Command::CreateNetwork(body.0));
    Ok(Written {
        resource: changed(&handle, proposal, name).await?,
        created: true,
        collection: "/v1/networks",
    })
}

/// Shows a network.
#[utoipa::path(
    get, path = "/v1/networks/{name}", tag = "networks",
    params(("name" = Name, Path, description = "Name of the network")),
    responses((status = 200, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
) -> Result<Tagged<Network>, Failure> {
    let network = handle
        .read(move |cluster| cluster.state.network_view(&name))
        .await??;
    Ok(Tagged(network))
}

/// Changes where packets of a network leave the cloud, their outer checksums, or whether they are encrypted.
#[utoipa::path(
    patch, path = "/v1/networks/{name}", tag = "networks",
    params(
        ("name" = Name, Path, description = "Name of the network"),
        ("If-Match" = Option<String>, Header, description = "ETag of the network, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body(content = NetworkPatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn update(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
    write: Write<MergePatch<NetworkPatch>>,
) -> Result<Tagged<Network>, Failure> {
    let shown = name.clone();
    let proposal = write.propose(|body| Command::UpdateNetwork {
        name,
        outbound: body.0.outbound,
        checksum: body.0.checksum,
        encryption: body.0.encryption,
    });
    Ok(Tagged(changed(&handle, proposal, shown).await?))
}

/// Deletes a network without endpoints and policy.
#[utoipa::path(
    delete, path = "/v1/networks/{name}", tag = "networks",
    params(
        ("name" = Name, Path, description = "Name of the network"),
        ("If-Match" = Option<String>, Header, description = "ETag of the network, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem)),
)]
pub(crate) async fn delete(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
    write: Write<NoBody>,
) -> Result<Json<Deleted>, Failure> {
    let proposal = write.propose(|NoBody| Command::DeleteNetwork { name });
    let revision = handle
        .propose(proposal, |_, effects| Ok(effects.revision))
        .await?;
    Ok(Json(Deleted { revision }))
}

/// Has packets routed between a network and another one, as far as both policies let them.
#[utoipa::path(
    post, path = "/v1/networks/{name}/peer", tag = "networks",
    params(
        ("name" = Name, Path, description = "Name of the network"),
        ("force" = Option<bool>, Query, description = "Although an assertion will not hold"),
        ("If-Match" = Option<String>, Header, description = "ETag of the network, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = NetworkPeer,
    responses((status = 200, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn peer(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
    write: Write<request::Json<NetworkPeer>>,
) -> Result<Tagged<Network>, Failure> {
    let shown = name.clone();
    let proposal = write.propose(|body| Command::PeerNetworks {
        name,
        peer: body.0.peer,
    });
    Ok(Tagged(changed(&handle, proposal, shown).await?))
}

/// Has no packets routed between a network and another one any more.
#[utoipa::path(
    post, path = "/v1/networks/{name}/unpeer", tag = "networks",
    params(
        ("name" = Name, Path, description = "Name of the network"),
        ("force" = Option<bool>, Query, description = "Although an assertion will not hold"),
        ("If-Match" = Option<String>, Header, description = "ETag of the network, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = NetworkPeer,
    responses((status = 200, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn unpeer(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
    write: Write<request::Json<NetworkPeer>>,
) -> Result<Tagged<Network>, Failure> {
    let shown = name.clone();
    let proposal = write.propose(|body| Command::UnpeerNetworks {
        name,
        peer: body.0.peer,
    });
    Ok(Tagged(changed(&handle, proposal, shown).await?))
}

/// Says who decides about a network's packets: the node where they enter, or the one that they are for,
/// too.
#[utoipa::path(
    post, path = "/v1/networks/{name}/enforce", tag = "networks",
    params(
        ("name" = Name, Path, description = "Name of the network"),
        ("If-Match" = Option<String>, Header, description = "ETag of the network, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    request_body = NetworkEnforce,
    responses((status = 200, body = Network), (status = "4XX", body = Problem)),
)]
pub(crate) async fn enforce(
    State(handle): State<Handle>,
    NetworkName(name): NetworkName,
    write: Write<request::Json<NetworkEnforce>>,
) -> Result<Tagged<Network>, Failure> {
    let shown = name.clone();
    let proposal = write.propose(|body| Command::EnforceNetwork {
        name,
        enforce: body.0.enforce,
    });
    Ok(Tagged(changed(&handle, proposal, shown).await?))
}

/// Has a change made, and shows the network as it is then.
async fn changed(handle: &Handle, proposal: Proposal, name: Name) -> Result<Network, Failure> {
    let network = handle
        .propose(proposal, move |cluster, _| {
            cluster.state.network_view(&name)
        })
        .await?;
    Ok(network)
}
