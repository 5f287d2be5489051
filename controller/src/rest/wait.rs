//! How long a request may wait for something to happen.

use std::time::Duration;

use sunwire_api::ProblemCode;

use super::failure::Failure;

/// How long to wait when the client does not say, in milliseconds.
const TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// How long to wait at most, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 300_000;

/// The time that a client grants.
pub(crate) fn timeout(timeout_ms: Option<u64>) -> Result<Duration, Failure> {
    let timeout_ms = timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT);
    if timeout_ms > TIMEOUT_MS_MAX {
        return Err(Failure::new(
            ProblemCode::InvalidQuery,
            format!("timeout_ms is {timeout_ms}: wait at most {TIMEOUT_MS_MAX}, and ask again"),
        ));
    }
    Ok(Duration::from_millis(timeout_ms))
}
