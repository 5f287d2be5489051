//! What a test or a story expects of a lab, with errors a person can read.

use std::error::Error;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::LabError;
use crate::netns::Namespace;
use crate::traffic::ping::{PingOptions, PingReport, ping};

/// Requests that [`expect_ping`] sends at most before it gives up.
const ATTEMPTS: u32 = 5;
/// Pause between two looks of [`eventually`].
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Succeeds as soon as one of five echo requests is answered within two seconds.
///
/// # Errors
/// [`LabError::Reachability`] when none is.
pub fn expect_ping(from: impl AsRef<Namespace>, to: IpAddr) -> Result<PingReport, LabError> {
    let from = from.as_ref();
    let mut refused = 0;
    for _ in 0..ATTEMPTS {
        let report = ping(from, to, one_request(Duration::from_secs(2)))?;
        if report.received() > 0 {
            return Ok(report);
        }
        refused += report.refused;
    }
    let found = match refused {
        0 => format!("{ATTEMPTS} echo requests stayed unanswered"),
        refused => format!("the kernel refused {refused} of {ATTEMPTS} echo requests (no route?)"),
    };
    Err(reachability(from, "should reach", to, found))
}

/// Succeeds when no echo request of three is answered within `patience`, each.
/// Choose a patience well above the round-trip time.
///
/// # Errors
/// [`LabError::Reachability`] when one is answered.
pub fn expect_no_ping(
    from: impl AsRef<Namespace>,
    to: IpAddr,
    patience: Duration,
) -> Result<(), LabError> {
    let from = from.as_ref();
    let options = PingOptions {
        count: 3,
        ..one_request(patience)
    };
    let report = ping(from, to, options)?;
    match report.min_ms() {
        None => Ok(()),
        Some(rtt) => {
            let found = format!("{} of 3 were answered, in {rtt:.3} ms", report.received());
            Err(reachability(from, "should not reach", to, found))
        }
    }
}

/// How long to wait on this machine for what takes `timeout` at most on the usual one: the variable
/// `SUNWIRE_PATIENCE_FACTOR` says how many times slower it is.
#[must_use]
pub fn patient(timeout: Duration) -> Duration {
    let factor = std::env::var("SUNWIRE_PATIENCE_FACTOR").ok();
    timeout
        * factor
            .and_then(|text| text.parse().ok())
            .unwrap_or(1)
            .max(1)
}

/// Looks until `condition` holds, every 20 ms; `what` names it in the error.
///
/// # Errors
/// [`LabError::TimedOut`] when it does not within `timeout`.
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), LabError> {
    eventually_ok(what, timeout, || condition().then_some(()).ok_or(""))
}

/// Tries until `attempt` succeeds, every 20 ms, and returns its value; the last
/// failure goes into the error.
///
/// # Errors
/// [`LabError::TimedOut`] when none does within `timeout`.
pub fn eventually_ok<T, E: Into<Box<dyn Error>>>(
    what: &str,
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    let timeout = patient(timeout);
    let deadline = Instant::now() + timeout;
    loop {
        let failure = match attempt() {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        if Instant::now() >= deadline {
            let last = failure.into().to_string();
            return Err(LabError::TimedOut {
                what: what.to_owned(),
                seconds: timeout.as_secs_f64(),
                last: if last.is_empty() {
                    last
                } else {
                    format!(": {last}")
                },
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

fn one_request(timeout: Duration) -> PingOptions {
    PingOptions {
        count: 1,
        timeout,
        ..PingOptions::default()
    }
}

fn reachability(from: &Namespace, expected: &'static str, to: IpAddr, found: String) -> LabError {
    LabError::Reachability {
        from: from.name().to_owned(),
        expected,
        to,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_the_condition_and_the_last_failure() {
        let error = eventually_ok("agreement", Duration::ZERO, || Err::<(), _>("two of three"));
        assert_eq!(
            error.unwrap_err().to_string(),
            "agreement did not happen within 0 s: two of three"
        );
    }

    #[test]
    fn condition_that_holds_late_is_enough() {
        let mut looks = 0;
        let held = eventually("the third look", Duration::from_secs(60), || {
            looks += 1;
            looks == 3
        });
        assert!(held.is_ok());
    }
}
