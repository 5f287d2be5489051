//! What a person sees while the tasks run: one line per step with the seconds since the start,
//! one line per thing found or installed, one line per error.
//!
//! All of it goes to standard error.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static START: OnceLock<Instant> = OnceLock::new();

/// Time since the first step was announced.
pub(crate) fn elapsed() -> Duration {
    START.get_or_init(Instant::now).elapsed()
}

/// Announces a step.
pub(crate) fn step(what: &str) {
    eprintln!("[{:6.1} s] {what}", elapsed().as_secs_f64());
}

/// Reports one thing with its state, for example `ok          bpf-linker 0.13.0`.
pub(crate) fn item(state: &str, what: &str) {
    eprintln!("  {state:<11} {what}");
}

/// Reports an error and its causes in one line.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}
