//! A blocking REST client: one method per route, problems as values.
//!
//! ```no_run
//! use sunwire_api::client::{Client, Guard};
//!
//! let client = Client::new("http://127.0.0.1:7510");
//! let web1 = client.endpoint(&"web1".parse()?)?;
//! client.move_endpoint(&web1.name, &"gcp1".parse()?, Guard::Revision(web1.revision))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, BufRead as _, BufReader, Lines};
use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::BodyReader;
use ureq::http::{Method, Request, Uri};

use crate::{
    ApplyRequest, CaptureItem, CaptureQuery, Counters, Deleted, Encryption, EncryptionSpec,
    Endpoint, EndpointCreate, EndpointPatch, EndpointState, ExplainRequest, FlowItem, FlowQuery,
    MoveRequest, Name, Network, NetworkCreate, NetworkEnforce, NetworkEnforcement, NetworkPatch,
    NetworkPeer, Node, NodeCreate, Page, Policy, PolicyChecked, PolicyExplanation, PolicyHistory,
    PolicyPlan, PolicyRevision, PolicyText, PolicyVerification, Problem, RollbackRequest,
    StagedPolicy, Status, Trace, TraceRequest, Tunnels, Wire, WireCreate, WireState,
};

/// Longest answer that is read, in bytes: a history holds many texts.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Talks to one controller.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
    force: bool,
}

/// Items of a stream of server-sent events. It ends when the controller has no more, or stops.
pub struct Stream<T> {
    lines: Lines<BufReader<BodyReader<'static>>>,
    items: PhantomData<T>,
}

impl<T: DeserializeOwned> Iterator for Stream<T> {
    type Item = io::Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            // Comments keep the connection alive; our items have one line of data each.
            if let Some(data) = line.strip_prefix("data:") {
                return Some(serde_json::from_str(data.trim_start()).map_err(io::Error::from));
            }
        }
    }
}

/// A text as a value in a query (RFC 3986, 2.1).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// What protects a write from crossing another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard<'a> {
    /// Nothing: enough to create something, refused for what exists.
    None,
    /// Whatever the revision is.
    Any,
    /// Only when the resource is still at this revision.
    Revision(u64),
    /// At most once for this key.
    Key(&'a str),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The controller refused the request: nothing changed.
    #[error(transparent)]
    Refused(Box<Problem>),
    /// No answer. A write may have happened or not.
    #[error("no answer from the controller at {base}")]
    Unanswered {
        /// Where it was sought.
        base: String,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer is none that a controller gives.
    #[error("{base} answered with status {status} and a body that is none of a controller's")]
    Strange {
        /// Who answered.
        base: String,
        /// HTTP status.
        status: u16,
        /// What is wrong with the body.
        #[source]
        source: serde_json::Error,
    },
}

impl ClientError {
    /// The problem, when the controller refused.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

type Answer<T> = Result<T, ClientError>;

impl Client {
    /// A client of the controller at `base`, like `http://127.0.0.1:7510`. Connects when asked.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .build();
        Client {
            agent: config.into(),
            base: base.trim_end_matches('/').to_owned(),
            force: false,
        }
    }

    /// Whether `base` is the URL of something that can be asked: http, a host, and maybe a port.
    #[must_use]
    pub fn can_ask(base: &str) -> bool {
        base.trim_end_matches('/').parse::<Uri>().is_ok_and(|uri| {
            uri.scheme_str() == Some("http")
                && uri.host().is_some_and(|host| !host.is_empty())
                && matches!(uri.path(), "" | "/")
                && uri.query().is_none()
        })
    }

    /// The same, whose writes are made although a claim of a policy will not hold.
    #[must_use]
    pub fn forcing(&self) -> Self {
        Client {
            force: true,
            ..self.clone()
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> Answer<Vec<Node>> {
        self.list("/v1/nodes")
    }

    /// A node.
    pub fn node(&self, name: &Name) -> Answer<Node> {
        self.get(&format!("/v1/nodes/{name}"))
    }

    /// Declares a node without an agent.
    pub fn create_node(&self, body: &NodeCreate, guard: Guard<'_>) -> Answer<Node> {
        self.write(Method::POST, "/v1/nodes", guard, Some(body))
    }

    /// Forgets a node.
    pub fn delete_node(&self, name: &Name, guard: Guard<'_>) -> Answer<Deleted> {
        self.delete(&format!("/v1/nodes/{name}"), guard)
    }

    /// All networks.
    pub fn networks(&self) -> Answer<Vec<Network>> {
        self.list("/v1/networks")
    }

    /// A network.
    pub fn network(&self, name: &Name) -> Answer<Network> {
        self.get(&format!("/v1/networks/{name}"))
    }

    /// Creates a network.
    pub fn create_network(&self, body: &NetworkCreate, guard: Guard<'_>) -> Answer<Network> {
        self.write(Method::POST, "/v1/networks", guard, Some(body))
    }

    /// Has packets routed between a network and another one.
    pub fn peer_networks(&self, name: &Name, peer: &Name, guard: Guard<'_>) -> Answer<Network> {
        let body = NetworkPeer { peer: peer.clone() };
        let path = format!("/v1/networks/{name}/peer");
        self.write(Method::POST, &path, guard, Some(&body))
    }

    /// Ends that.
    pub fn unpeer_networks(&self, name: &Name, peer: &Name, guard: Guard<'_>) -> Answer<Network> {
        let body = NetworkPeer { peer: peer.clone() };
        let path = format!("/v1/networks/{name}/unpeer");
        self.write(Method::POST, &path, guard, Some(&body))
    }

    /// Says who decides about a network's packets.
    pub fn enforce_network(
        &self,
        name: &Name,
        enforce: NetworkEnforcement,
        guard: Guard<'_>,
    ) -> Answer<Network> {
        let body = NetworkEnforce { enforce };
        let path = format!("/v1/networks/{name}/enforce");
        self.write(Method::POST, &path, guard, Some(&body))
    }

    /// Deletes a network.
    pub fn delete_network(&self, name: &Name, guard: Guard<'_>) -> Answer<Deleted> {
        self.delete(&format!("/v1/networks/{name}"), guard)
    }

    /// All endpoints.
    pub fn endpoints(&self) -> Answer<Vec<Endpoint>> {
        self.list("/v1/endpoints")
    }

    /// An endpoint.
    pub fn endpoint(&self, name: &Name) -> Answer<Endpoint> {
        self.get(&format!("/v1/endpoints/{name}"))
    }

    /// An endpoint, once it is in `state` or `timeout` is over, whichever comes first.
    pub fn wait_endpoint(
        &self,
        name: &Name,
        state: EndpointState,
        timeout: Duration,
    ) -> Answer<Endpoint> {
        let timeout_ms = timeout.as_millis();
        self.get(&format!(
            "/v1/endpoints/{name}?wait_state={state}&timeout_ms={timeout_ms}"
        ))
    }

    /// Creates an endpoint.
    pub fn create_endpoint(&self, body: &EndpointCreate, guard: Guard<'_>) -> Answer<Endpoint> {
        self.write(Method::POST, "/v1/endpoints", guard, Some(body))
    }

    /// Changes an endpoint's labels.
    pub fn patch_endpoint(
        &self,
        name: &Name,
        patch: &EndpointPatch,
        guard: Guard<'_>,
    ) -> Answer<Endpoint> {
        let path = format!("/v1/endpoints/{name}");
        self.write(Method::PATCH, &path, guard, Some(patch))
    }

    /// Changes a network.
    pub fn patch_network(
        &self,
        name: &Name,
        patch: &NetworkPatch,
        guard: Guard<'_>,
    ) -> Answer<Network> {
        let path = format!("/v1/networks/{name}");
        self.write(Method::PATCH, &path, guard, Some(patch))
    }

    /// Deletes an endpoint.
    pub fn delete_endpoint(&self, name: &Name, guard: Guard<'_>) -> Answer<Deleted> {
        self.delete(&format!("/v1/endpoints/{name}"), guard)
    }

    /// Begins to move an endpoint.
    pub fn move_endpoint(&self, name: &Name, node: &Name, guard: Guard<'_>) -> Answer<Endpoint> {
        let body = MoveRequest { node: node.clone() };
        let path = format!("/v1/endpoints/{name}/move");
        self.write(Method::POST, &path, guard, Some(&body))
    }

    /// Gives up a move that is under way.
    pub fn abort_move(&self, name: &Name, guard: Guard<'_>) -> Answer<Endpoint> {
        let path = format!("/v1/endpoints/{name}/move/abort");
        self.write(Method::POST, &path, guard, None::<&()>)
    }

    /// All wires.
    pub fn wires(&self) -> Answer<Vec<Wire>> {
        self.list("/v1/wires")
    }

    /// A wire.
    pub fn wire(&self, name: &Name) -> Answer<Wire> {
        self.get(&format!("/v1/wires/{name}"))
    }

    /// A wire, once it is in `state` or `timeout` is over, whichever comes first.
    pub fn wait_wire(&self, name: &Name, state: WireState, timeout: Duration) -> Answer<Wire> {
        let timeout_ms = timeout.as_millis();
        self.get(&format!(
            "/v1/wires/{name}?wait_state={state}&timeout_ms={timeout_ms}"
        ))
    }

    /// Connects two endpoints.
    pub fn connect_wire(&self, body: &WireCreate, guard: Guard<'_>) -> Answer<Wire> {
        self.write(Method::POST, "/v1/wires", guard, Some(body))
    }

    /// Disconnects the ends of a wire.
    pub fn disconnect_wire(&self, name: &Name, guard: Guard<'_>) -> Answer<Deleted> {
        self.delete(&format!("/v1/wires/{name}"), guard)
    }

    /// Which tunnels are encrypted.
    pub fn encryption(&self) -> Answer<Encryption> {
        self.get("/v1/encryption")
    }

    /// Decides which tunnels are encrypted.
    pub fn put_encryption(&self, spec: &EncryptionSpec, guard: Guard<'_>) -> Answer<Encryption> {
        self.write(Method::PUT, "/v1/encryption", guard, Some(spec))
    }

    /// All policies.
    pub fn policies(&self) -> Answer<Vec<Policy>> {
        self.list("/v1/policies")
    }

    /// A policy.
    pub fn policy(&self, name: &Name) -> Answer<Policy> {
        self.get(&format!("/v1/policies/{name}"))
    }

    /// Creates or replaces a policy.
    pub fn put_policy(&self, name: &Name, text: &str, guard: Guard<'_>) -> Answer<Policy> {
        let body = PolicyText {
            text: text.to_owned(),
        };
        let path = format!("/v1/policies/{name}");
        self.write(Method::PUT, &path, guard, Some(&body))
    }

    /// Compiles a policy and changes nothing.
    pub fn check_policy(&self, text: &str) -> Answer<PolicyChecked> {
        let body = PolicyText {
            text: text.to_owned(),
        };
        self.write(Method::POST, "/v1/policies/check", Guard::None, Some(&body))
    }

    /// Puts a text in force, or the staged candidate when there is no text.
    pub fn apply_policy(
        &self,
        name: &Name,
        body: &ApplyRequest,
        guard: Guard<'_>,
    ) -> Answer<Policy> {
        let path = format!("/v1/policies/{name}/apply");
        self.write(Method::POST, &path, guard, Some(body))
    }

    /// Keeps the text in force for good.
    pub fn confirm_policy(&self, name: &Name, guard: Guard<'_>) -> Answer<Policy> {
        let path = format!("/v1/policies/{name}/confirm");
        self.write(Method::POST, &path, guard, None::<&()>)
    }

    /// All texts that a policy had and that are kept.
    pub fn policy_history(&self, name: &Name) -> Answer<PolicyHistory> {
        let path = format!("/v1/policies/{name}/history");
        let mut all: PolicyHistory = self.get(&path)?;
        while let Some(token) = all.next_page_token.take() {
            let page: PolicyHistory = self.get(&format!("{path}?page_token={token}"))?;
            all.items.extend(page.items);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    /// A text that a policy had.
    pub fn policy_revision(&self, name: &Name, revision: u64) -> Answer<PolicyRevision> {
        self.get(&format!("/v1/policies/{name}/history/{revision}"))
    }

    /// Brings back the text of revision `to`, or of the one before the present one.
    pub fn rollback_policy(
        &self,
        name: &Name,
        to: Option<u64>,
        guard: Guard<'_>,
    ) -> Answer<Policy> {
        let body = RollbackRequest {
            to,
            ..RollbackRequest::default()
        };
        self.rollback_policy_with(name, &body, guard)
    }

    /// The same, with everything that can be said about it.
    pub fn rollback_policy_with(
        &self,
        name: &Name,
        body: &RollbackRequest,
        guard: Guard<'_>,
    ) -> Answer<Policy> {
        let path = format!("/v1/policies/{name}/rollback");
        self.write(Method::POST, &path, guard, Some(body))
    }

    /// Stages a candidate beside the text in force.
    pub fn stage_policy(&self, name: &Name, text: &str, guard: Guard<'_>) -> Answer<Policy> {
        let body = PolicyText {
            text: text.to_owned(),
        };
        let path = format!("/v1/policies/{name}/stage");
        self.write(Method::PUT, &path, guard, Some(&body))
    }

    /// Says what would change if a text came into force.
    pub fn plan_policy(&self, name: &Name, text: &str) -> Answer<PolicyPlan> {
        let body = PolicyText {
            text: text.to_owned(),
        };
        let path = format!("/v1/policies/{name}/plan");
        self.write(Method::POST, &path, Guard::None, Some(&body))
    }

    /// Proves the assertions and runs the tests of the text in force, or of another one.
    pub fn verify_policy(&self, name: &Name, text: Option<&str>) -> Answer<PolicyVerification> {
        let body = text.map(|text| PolicyText {
            text: text.to_owned(),
        });
        let path = format!("/v1/policies/{name}/verify");
        self.write(Method::POST, &path, Guard::None, body.as_ref())
    }

    /// Says which clause decides about a packet.
    pub fn explain_policy(&self, name: &Name, body: &ExplainRequest) -> Answer<PolicyExplanation> {
        let path = format!("/v1/policies/{name}/explain");
        self.write(Method::POST, &path, Guard::None, Some(body))
    }

    /// The candidate, and what it would have done so far.
    pub fn staged_policy(&self, name: &Name) -> Answer<StagedPolicy> {
        self.get(&format!("/v1/policies/{name}/stage"))
    }

    /// Takes the candidate away.
    pub fn unstage_policy(&self, name: &Name, guard: Guard<'_>) -> Answer<Policy> {
        let path = format!("/v1/policies/{name}/stage");
        self.write(Method::DELETE, &path, guard, None::<&()>)
    }

    /// Deletes a policy: everything in its network is dropped from then on.
    pub fn delete_policy(&self, name: &Name, guard: Guard<'_>) -> Answer<Deleted> {
        self.delete(&format!("/v1/policies/{name}"), guard)
    }

    /// How far the controller and its nodes are.
    pub fn status(&self) -> Answer<Status> {
        self.get("/v1/status")
    }

    /// The same, once every connected node has answered `revision` or `timeout` is over.
    pub fn wait_revision(&self, revision: u64, timeout: Duration) -> Answer<Status> {
        let timeout_ms = timeout.as_millis();
        self.get(&format!(
            "/v1/status?wait_revision={revision}&timeout_ms={timeout_ms}"
        ))
    }

    /// How the tunnels between all nodes are.
    pub fn tunnels(&self) -> Answer<Tunnels> {
        self.get("/v1/tunnels")
    }

    /// Counters of all nodes.
    pub fn counters(&self) -> Answer<Counters> {
        self.get("/v1/counters")
    }

    fn list<T: DeserializeOwned>(&self, path: &str) -> Answer<Vec<T>> {
        let mut items = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page: Page<T> = match &token {
                None => self.get(path)?,
                Some(token) => self.get(&format!("{path}?page_token={token}"))?,
            };
            items.extend(page.items);
            token = page.next_page_token;
            if token.is_none() {
                return Ok(items);
            }
        }
    }

    /// What becomes of packets, one item after the other, as they come; the controller's other end
    /// goes on for as long as the iterator is held.
    pub fn flows(&self, query: &FlowQuery) -> Answer<Stream<FlowItem>> {
        self.stream(&format!(
            "/v1/flows?filter={}&last={}&follow={}&sample={}",
            escaped(&query.filter),
            query.last,
            query.follow,
            query.sample
        ))
    }

    /// Packets as they are captured, likewise.
    pub fn capture(&self, query: &CaptureQuery) -> Answer<Stream<CaptureItem>> {
        let endpoint = match &query.endpoint {
            Some(endpoint) => format!("&endpoint={}", escaped(endpoint)),
            None => String::new(),
        };
        self.stream(&format!(
            "/v1/capture?filter={}&bytes={}{endpoint}",
            escaped(&query.filter),
            query.bytes
        ))
    }

    /// Where a packet goes.
    pub fn trace(&self, request: &TraceRequest) -> Answer<Trace> {
        self.write(Method::POST, "/v1/trace", Guard::None, Some(request))
    }

    /// Asks for server-sent events.
    fn stream<T: DeserializeOwned>(&self, path: &str) -> Answer<Stream<T>> {
        let unanswered = |source| self.unanswered(source);
        let url = format!("{}{path}", self.base);
        let mut response = self.agent.get(&url).call().map_err(unanswered)?;
        let status = response.status();
        if status.is_success() {
            let lines = BufReader::new(response.into_body().into_reader());
            return Ok(Stream {
                lines: lines.lines(),
                items: PhantomData,
            });
        }
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        let bytes = body.read_to_vec().map_err(unanswered)?;
        let problem: Problem =
            serde_json::from_slice(&bytes).map_err(|source| ClientError::Strange {
                base: self.base.clone(),
                status: status.as_u16(),
                source,
            })?;
        Err(ClientError::Refused(Box::new(problem)))
    }

    fn unanswered(&self, source: ureq::Error) -> ClientError {
        ClientError::Unanswered {
            base: self.base.clone(),
            // What the kernel said is the cause itself.
            source: match source {
                ureq::Error::Io(error) => error.into(),
                other => other.into(),
            },
        }
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Answer<T> {
        self.write(Method::GET, path, Guard::None, None::<&()>)
    }

    fn delete(&self, path: &str, guard: Guard<'_>) -> Answer<Deleted> {
        self.write(Method::DELETE, path, guard, None::<&()>)
    }

    fn write<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        guard: Guard<'_>,
        body: Option<&impl Serialize>,
    ) -> Answer<T> {
        let unanswered = |source| self.unanswered(source);
        let query = match self.force && method != Method::GET {
            true => "?force=true",
            false => "",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}{query}", self.base));
        request = match guard {
            Guard::None => request,
            Guard::Any => request.header("if-match", "*"),
            Guard::Revision(revision) => request.header("if-match", format!("\"{revision}\"")),
            Guard::Key(key) => request.header("idempotency-key", key),
        };
        let sent = match body {
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            Some(body) => {
                let text = serde_json::to_string(body).expect("REST types are plain JSON");
                request
                    .header("content-type", "application/json")
                    .body(text)
                    .map_err(ureq::Error::from)
                    .and_then(|request| self.agent.run(request))
            }
        };
        let mut response = sent.map_err(unanswered)?;
        let status = response.status();
        let bytes = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(unanswered)?;
        let strange = |source| ClientError::Strange {
            base: self.base.clone(),
            status: status.as_u16(),
            source,
        };
        if status.is_success() {
            serde_json::from_slice(&bytes).map_err(strange)
        } else {
            let problem: Problem = serde_json::from_slice(&bytes).map_err(strange)?;
            Err(ClientError::Refused(Box::new(problem)))
        }
    }
}
