//! Nodes.

use axum::Json;
use axum::extract::State;
use sunwire_api::{
    Deleted, Name, Node, NodeCreate, NodeSpec, Page, Problem, ProblemCode, Tunnel, Tunnels,
};

use super::answer::{PageQuery, Tagged, Written};
use super::failure::Failure;
use super::request::{self, NoBody, NodeName, Parameters, Write, WriteQuery};
use crate::command::Command;
use crate::handle::Handle;
use crate::owner::Cluster;
use crate::refusal::Refusal;

pub(crate) fn view(cluster: &Cluster, name: &Name) -> Result<Node, Refusal> {
    let record = cluster.state.nodes().get(name).ok_or_else(|| {
        Refusal::new(
            ProblemCode::NodeNotFound,
            format!("there is no node {name}: a node appears when its agent connects"),
        )
    })?;
    Ok(Node {
        name: name.clone(),
        spec: NodeSpec {
            location: record.location.clone(),
            underlay_addresses: record.addresses().collect(),
            public_keys: record.public_keys.clone(),
            tunnel_port: record.tunnel_port,
            kind: record.kind,
            plaintext: record.plaintext,
        },
        status: cluster.sessions.status(name, record, &cluster.state),
        revision: record.revision,
    })
}

/// Lists nodes.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "nodes",
    params(PageQuery),
    responses((status = 200, body = Page<Node>), (status = "4XX", body = Problem)),
)]
pub(crate) async fn list(
    State(handle): State<Handle>,
    Parameters(query): Parameters<PageQuery>,
) -> Result<Json<Page<Node>>, Failure> {
    let page = handle
        .read(move |cluster| query.page(cluster.state.nodes(), |name, _| view(cluster, name)))
        .await??;
    Ok(Json(page))
}

/// Declares a node without an agent: a plain VXLAN peer.
#[utoipa::path(
    post, path = "/v1/nodes", tag = "nodes",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
        WriteQuery,
    ),
    request_body = NodeCreate,
    responses((status = 201, body = Node), (status = "4XX", body = Problem)),
)]
pub(crate) async fn create(
    State(handle): State<Handle>,
    write: Write<request::Json<NodeCreate>>,
) -> Result<Written<Node>, Failure> {
    let name = write.body.0.name.clone();
    let proposal = write.propose(|body| Command::CreateNode(body.0));
    let resource = handle
        .propose(proposal, move |cluster, _| view(cluster, &name))
        .await?;
    Ok(Written {
        resource,
        created: true,
        collection: "/v1/nodes",
    })
}

/// Shows a node.
#[utoipa::path(
    get, path = "/v1/nodes/{name}", tag = "nodes",
    params(("name" = Name, Path, description = "Name of the node")),
    responses((status = 200, body = Node), (status = "4XX", body = Problem)),
)]
pub(crate) async fn show(
    State(handle): State<Handle>,
    NodeName(name): NodeName,
) -> Result<Tagged<Node>, Failure> {
    let node = handle.read(move |cluster| view(cluster, &name)).await??;
    Ok(Tagged(node))
}

/// Shows how tunnels between all nodes are.
///
/// Agents tell once a second; a tunnel is told of by each of its ends.
#[utoipa::path(
    get, path = "/v1/tunnels", tag = "nodes",
    responses((status = 200, body = Tunnels), (status = "4XX", body = Problem)),
)]
pub(crate) async fn tunnels(State(handle): State<Handle>) -> Result<Json<Tunnels>, Failure> {
    Ok(Json(handle.read(all_tunnels).await?))
}

pub(super) fn all_tunnels(cluster: &Cluster) -> Tunnels {
    let nodes = cluster.state.nodes().iter();
    let tunnels = nodes.flat_map(|(from, record)| {
        let status = cluster.sessions.status(from, record, &cluster.state);
        let is_current = status.connected;
        status.tunnels.into_iter().map(move |status| Tunnel {
            from: from.clone(),
            to: status.node.clone(),
            is_current,
            status,
        })
    });
    Tunnels {
        tunnels: tunnels.collect(),
    }
}

/// Forgets a node whose agent is gone and where no endpoint is.
#[utoipa::path(
    delete, path = "/v1/nodes/{name}", tag = "nodes",
    params(
        ("name" = Name, Path, description = "Name of the node"),
        ("If-Match" = Option<String>, Header, description = "ETag of the node, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "Names this request"),
    ),
    responses((status = 200, body = Deleted), (status = "4XX", body = Problem)),
)]
pub(crate) async fn delete(
    State(handle): State<Handle>,
    NodeName(name): NodeName,
    write: Write<NoBody>,
) -> Result<Json<Deleted>, Failure> {
    let proposal = write.propose(|NoBody| Command::DeleteNode { name });
    let revision = handle
        .propose(proposal, |_, effects| Ok(effects.revision))
        .await?;
    Ok(Json(Deleted { revision }))
}
