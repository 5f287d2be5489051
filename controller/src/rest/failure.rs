//! Problems as HTTP responses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sunwire_api::problem::PROBLEM_MEDIA_TYPE;
use sunwire_api::{Problem, ProblemCode};

use crate::refusal::Refusal;

/// A refused request.
#[derive(Debug)]
pub(crate) struct Failure(Box<Problem>);

impl Failure {
    pub(crate) fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Failure(Box::new(Problem::new(code, detail)))
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Failure(Box::new(problem))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Problem::from(refusal).into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).expect("every problem code has an HTTP status");
        let mut response = (status, axum::Json(*self.0)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(PROBLEM_MEDIA_TYPE),
        );
        response
    }
}
