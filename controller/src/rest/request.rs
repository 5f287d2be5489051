//! What a request says, parsed once: its body, its preconditions, its query, its path.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use sunwire_api::{Name, PolicyText, ProblemCode};
use tokio_stream::StreamExt;
use utoipa::IntoParams;

use super::failure::Failure;
use crate::command::{Command, IdempotencyKey, Precondition, Proposal};

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 4 << 20;
/// How much of a body that is too long is read before the answer, in bytes.
const DISCARDED_BYTES_MAX: usize = 64 << 20;
/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 128;
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request that changes something: its body, and what protects it.
pub(crate) struct Write<B> {
    pub(crate) body: B,
    precondition: Precondition,
    key: Option<IdempotencyKey>,
    force: bool,
}

/// What the query of every write may say.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WriteQuery {
    /// Make the change although an assertion of a policy will not hold.
    #[serde(default)]
    force: bool,
}

impl<B> Write<B> {
    /// The proposal that the request makes, with `command` out of its body.
    pub(crate) fn propose(self, command: impl FnOnce(B) -> Command) -> Proposal {
        Proposal {
            command: command(self.body),
            precondition: self.precondition,
            key: self.key,
            force: self.force,
        }
    }

    /// The same, of a body that may ask for force itself.
    pub(crate) fn propose_with_force(
        mut self,
        force: bool,
        command: impl FnOnce(B) -> Command,
    ) -> Proposal {
        self.force |= force;
        self.propose(command)
    }
}

/// A body that can be parsed.
pub(crate) trait Body: Sized {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure>;
}

/// No body.
pub(crate) struct NoBody;

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

/// A JSON merge patch (RFC 7396), under its own media type or JSON's.
pub(crate) struct MergePatch<T>(pub(crate) T);

/// A policy's text: in JSON, or as it is.
pub(crate) struct PolicySource(pub(crate) String);

/// The same, and it may be left out.
pub(crate) struct OptionalPolicySource(pub(crate) Option<String>);

/// A JSON body that may be left out.
pub(crate) struct OptionalJson<T>(pub(crate) T);

impl Body for NoBody {
    fn parse(_: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.is_empty() {
            Ok(NoBody)
        } else {
            Err(Failure::new(
                ProblemCode::InvalidBody,
                "this request takes no body: send none",
            ))
        }
    }
}

impl<T: DeserializeOwned> Body for Json<T> {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        expect_media_type(media_type, &["application/json"])?;
        parse_json(bytes).map(Json)
    }
}

impl<T: DeserializeOwned> Body for MergePatch<T> {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        expect_media_type(
            media_type,
            &["application/merge-patch+json", "application/json"],
        )?;
        parse_json(bytes).map(MergePatch)
    }
}

impl Body for PolicySource {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        expect_media_type(media_type, &["application/json", "text/plain"])?;
        if media_type == Some("application/json") {
            return parse_json::<PolicyText>(bytes).map(|body| PolicySource(body.text));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(PolicySource(text.to_owned())),
            Err(error) => Err(Failure::new(
                ProblemCode::InvalidBody,
                format!("the text is not UTF-8: {error}"),
            )),
        }
    }
}

impl Body for OptionalPolicySource {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.is_empty() {
            return Ok(OptionalPolicySource(None));
        }
        let PolicySource(text) = PolicySource::parse(media_type, bytes)?;
        Ok(OptionalPolicySource(Some(text)))
    }
}

impl<T: DeserializeOwned + Default> Body for OptionalJson<T> {
    fn parse(media_type: Option<&str>, bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.is_empty() {
            return Ok(OptionalJson(T::default()));
        }
        Json::parse(media_type, bytes).map(|Json(body)| OptionalJson(body))
    }
}

fn expect_media_type(found: Option<&str>, taken: &[&str]) -> Result<(), Failure> {
    if found.is_some_and(|found| taken.contains(&found)) {
        return Ok(());
    }
    let found = found.unwrap_or("nothing");
    Err(Failure::new(
        ProblemCode::UnsupportedMediaType,
        format!(
            "the Content-Type is {found}: send the body as {}",
            taken.join(" or ")
        ),
    ))
}

fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => Failure::new(
            ProblemCode::InvalidBody,
            format!("the body is JSON, but {error}"),
        ),
        Category::Syntax | Category::Eof | Category::Io => Failure::new(
            ProblemCode::MalformedJson,
            format!("the body is not JSON: {error}"),
        ),
    })
}

impl<B: Body, S: Send + Sync> FromRequest<S> for Write<B> {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let (parts, body) = request.into_parts();
        let Parameters(query) = parameters::<WriteQuery>(&parts)?;
        let precondition = precondition(&parts.headers)?;
        let key = text_of(&parts.headers, &IDEMPOTENCY_KEY)?;
        let bytes = read_body(&parts, body).await?;
        let key = key
            .map(|key| name_request(key, &parts, &bytes))
            .transpose()?;
        let media_type = text_of(&parts.headers, &header::CONTENT_TYPE)?.map(|value| {
            let essence = value.split(';').next().unwrap_or_default();
            essence.trim().to_ascii_lowercase()
        });
        Ok(Write {
            body: B::parse(media_type.as_deref(), &bytes)?,
            precondition,
            key,
            force: query.force,
        })
    }
}

/// Reads a body. One that is too long is read to its end, within reason, because many clients hear
/// no answer while they are still sending.
async fn read_body(parts: &Parts, body: axum::body::Body) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        Failure::new(
            ProblemCode::BodyTooLarge,
            format!("the body is longer than {BODY_BYTES_MAX} bytes: send less"),
        )
    };
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > DISCARDED_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut discarded = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        // A client that went away hears no answer, whatever it is.
        let chunk = chunk.map_err(|error| {
            Failure::new(
                ProblemCode::MalformedJson,
                format!("the body was cut off: {error}"),
            )
        })?;
        if discarded > 0 || bytes.len() + chunk.len() > BODY_BYTES_MAX {
            bytes = Vec::new();
            discarded += chunk.len();
            if discarded > DISCARDED_BYTES_MAX {
                break;
            }
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if discarded > 0 {
        return Err(too_large());
    }
    Ok(bytes)
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Failure> {
    let wrong = |detail: String| Failure::new(ProblemCode::InvalidHeader, detail);
    let none_match = text_of(headers, &header::IF_NONE_MATCH)?;
    match (text_of(headers, &header::IF_MATCH)?, none_match) {
        (None, None) => Ok(Precondition::None),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some("*"), None) => Ok(Precondition::Any),
        (Some(tag), None) => {
            let revision = tag
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .and_then(|number| number.parse().ok());
            revision.map(Precondition::Revision).ok_or_else(|| {
                wrong(format!(
                    "If-Match is {tag}: send one ETag as it came, with its quotes, or *"
                ))
            })
        }
        (None, Some(tag)) => Err(wrong(format!(
            "If-None-Match is {tag}: only * means something here"
        ))),
        (Some(_), Some(_)) => Err(wrong(
            "If-Match and If-None-Match contradict each other: send one".to_owned(),
        )),
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let wrong = |what| Failure::new(ProblemCode::InvalidHeader, format!("{name} {what}"));
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(wrong("stands there more than once: send it once"));
    }
    first
        .map(|value| value.to_str().map_err(|_| wrong("has to be ASCII")))
        .transpose()
}

/// The key with a digest of everything that makes the request what it is.
fn name_request(key: &str, parts: &Parts, body: &[u8]) -> Result<IdempotencyKey, Failure> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Failure::new(
            ProblemCode::InvalidHeader,
            format!("Idempotency-Key has to have 1 to {KEY_BYTES_MAX} characters"),
        ));
    }
    let mut hasher = blake3::Hasher::new();
    let path_and_query = parts.uri.path_and_query();
    let path_and_query = path_and_query.map_or(parts.uri.path(), |both| both.as_str());
    for part in [parts.method.as_str(), path_and_query] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    hasher.update(body);
    Ok(IdempotencyKey {
        key: key.to_owned(),
        fingerprint: hasher.finalize().to_hex().to_string(),
    })
}

/// Query parameters.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parameters(parts)
    }
}

fn parameters<T: DeserializeOwned>(parts: &Parts) -> Result<Parameters<T>, Failure> {
    match Query::try_from_uri(&parts.uri) {
        Ok(Query(parameters)) => Ok(Parameters(parameters)),
        Err(error) => Err(Failure::new(ProblemCode::InvalidQuery, error.body_text())),
    }
}

/// The resource's name out of the path: what is no name names nothing.
pub(crate) async fn name_in_path(
    parts: &mut Parts,
    not_found: ProblemCode,
) -> Result<Name, Failure> {
    let missing = |detail: String| Failure::new(not_found, detail);
    let Path(text) = Path::<String>::from_request_parts(parts, &())
        .await
        .map_err(|error| missing(error.body_text()))?;
    text.parse().map_err(|error| missing(format!("{error}")))
}

macro_rules! names_in_paths {
    ($($(#[$doc:meta])* $extractor:ident: $not_found:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $extractor(pub(crate) Name);

            impl<S: Send + Sync> FromRequestParts<S> for $extractor {
                type Rejection = Failure;

                async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
                    name_in_path(parts, ProblemCode::$not_found).await.map($extractor)
                }
            }
        )*
    };
}

names_in_paths! {
    /// Name of a node.
    NodeName: NodeNotFound;
    /// Name of a network.
    NetworkName: NetworkNotFound;
    /// Name of an endpoint.
    EndpointName: EndpointNotFound;
    /// Name of a wire.
    WireName: WireNotFound;
    /// Name of a policy.
    PolicyName: PolicyNotFound;
}
