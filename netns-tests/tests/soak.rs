//! Everything at once, for half a minute: what may not be lost is not. `cargo xtask soak` is the long
//! form.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::time::Duration;

use common::can_run;
use sunwire_netns_tests::soak::{self, Options, plan::Event};

fn soaks(seed: u64, seconds: u64, is_encrypted: bool) {
    let options = Options {
        seed,
        duration: Duration::from_secs(seconds),
        is_encrypted,
        is_told: false,
    };
    let report = soak::run(options, None).unwrap();
    eprintln!("{}", report.text());
    assert!(report.held, "{:#?}", report.findings);
    // It was no idle time that was survived.
    let moves = report
        .events
        .iter()
        .filter(|event| event.blackout_ms.is_some());
    assert!(moves.count() >= 2, "{:#?}", report.events);
    let restarted = |event: &Event| matches!(event, Event::RestartAgent { .. });
    assert!(report.events.iter().any(|event| restarted(&event.event)));
    assert!(report.arrived > 1_000 && report.dropped_by_emulator > 0);
    assert!(report.requests.answered > 0);
}

#[test]
fn lab_soak_loses_nothing_that_need_not_be_lost() {
    if can_run("lab_soak_loses_nothing_that_need_not_be_lost") {
        soaks(1, 25, false);
    }
}

#[test]
fn lab_soak_with_encryption_loses_nothing_that_need_not_be_lost() {
    if can_run("lab_soak_with_encryption_loses_nothing_that_need_not_be_lost") {
        soaks(5, 20, true);
    }
}
