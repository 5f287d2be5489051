//! `cargo xtask ci`: what continuous integration runs, exactly `cargo xtask test` and then
//! `cargo xtask lint`. Both run, whatever the first one finds.

use std::process::ExitCode;
use std::time::Instant;

use crate::{lint, progress, test};

/// Runs the subcommand; the last line is that of `cargo xtask test`.
pub(crate) fn run() -> ExitCode {
    let start = Instant::now();
    let tally = test::execute(false);
    let test_time = start.elapsed();

    let start = Instant::now();
    let linted = lint::run();
    let lint_time = start.elapsed();

    println!();
    for (step, time, passed) in [
        ("test", test_time, tally.failed() == 0),
        ("lint", lint_time, linted.is_ok()),
    ] {
        println!(
            "{step:<8} {:>9.1} s  {}",
            time.as_secs_f64(),
            if passed { "ok" } else { "FAILED" }
        );
    }
    if let Err(error) = &linted {
        progress::error(error);
    }
    println!("{}", tally.summary());
    if linted.is_err() {
        return ExitCode::FAILURE;
    }
    test::exit_code(&tally)
}
