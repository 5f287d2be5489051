//! Requests as they are, and answers checked to be what they claim.

use sunwire_api::client::Client;
use sunwire_api::{Problem, ProblemCode};
use ureq::http::{Request, Response};

use super::Running;

/// Sends a request as it is.
pub(crate) fn send(
    base: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .build()
        .into();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{base}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response: Response<ureq::Body> = if body.is_empty() {
        agent.run(request.body(()).unwrap()).unwrap()
    } else {
        agent.run(request.body(body).unwrap()).unwrap()
    };
    let (parts, mut body) = response.into_parts();
    let header = |name| {
        let value = parts.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    Answer {
        status: parts.status.as_u16(),
        media_type: header("content-type").unwrap_or_default(),
        etag: header("etag"),
        location: header("location"),
        allow: header("allow"),
        body: body.read_to_vec().unwrap(),
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) media_type: String,
    pub(crate) etag: Option<String>,
    pub(crate) location: Option<String>,
    pub(crate) allow: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The code of a problem that is one by the letter of RFC 9457.
    pub(crate) fn code(&self) -> ProblemCode {
        assert_eq!(self.media_type, "application/problem+json");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status);
        assert_eq!(problem.code.status(), self.status);
        assert_eq!(
            problem.kind,
            format!("urn:sunwire:problem:{}", problem.code)
        );
        assert!(!problem.title.is_empty() && !problem.detail.is_empty());
        problem.code
    }
}

/// What JSON bodies come with.
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// Runs a blocking test against a controller with the nodes `aws1` and `gcp1`.
pub(crate) async fn with_controller(test: impl FnOnce(&str, &Client) + Send + 'static) {
    let data = tempfile::tempdir().unwrap();
    let running = Running::start(data.path()).await;
    let (aws, _) = running.agent("aws1", 1).await;
    let (gcp, _) = running.agent("gcp1", 2).await;
    let base = running.rest.clone();
    running.call(move |client| test(&base, client)).await;
    drop((aws, gcp));
    running.stop().await;
}
