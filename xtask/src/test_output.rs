//! Reads what `cargo test` prints and counts it.
//!
//! A test that cannot run here says so by a line `SKIPPED name: what is missing` and returns; the
//! test harness then counts it as passed. Here it counts as skipped. With `--show-output` the
//! harness repeats such a line under the heading of its test, so that one test is one skip however
//! many lines it prints.

use std::collections::{BTreeMap, BTreeSet};

/// The outcome of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    /// Failed tests, each as `program: test`.
    pub(crate) failures: Vec<String>,
    /// Tests that did not run, each as `program: test: why`.
    pub(crate) skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.len() as u64
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.len() as u64
    }

    /// Tests that ran to a verdict.
    pub(crate) fn ran(&self) -> u64 {
        self.passed + self.failed()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        self.skipped.extend(other.skipped);
    }

    /// `N passed, N failed, N skipped`.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed(),
            self.skipped()
        )
    }
}

/// Reads the output line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    tally: Tally,
    program: String,
    /// Whether the program has begun and not yet given its result.
    running: bool,
    part: Part,
    /// Of the running program: failed tests, and skipped ones with the reason.
    failures: BTreeSet<String>,
    skipped: BTreeMap<String, String>,
}

/// Where in a program's output the reader is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Progress,
    /// Under `failures:`, where the names follow.
    FailureList,
    /// Under `---- name stdout ----`.
    OutputOf(String),
}

impl Reader {
    /// Takes one line, with or without colours.
    pub(crate) fn line(&mut self, line: &str) {
        let plain = without_colours(line);
        let line = plain.trim_end();
        let trimmed = line.trim_start();

        if let Some(program) = program(trimmed) {
            self.program_ended();
            self.program = program;
        } else if let Some(rest) = line.strip_prefix("running ")
            && (rest.ends_with(" tests") || rest.ends_with(" test"))
        {
            self.running = true;
            self.part = Part::Progress;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.result(counts);
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.part = Part::OutputOf(name.to_owned());
        } else if line == "failures:" {
            self.part = Part::FailureList;
        } else if line == "successes:" {
            self.part = Part::Progress;
        } else if let Some((name, reason)) = skip(trimmed) {
            let name = match &self.part {
                Part::OutputOf(test) => test.clone(),
                Part::Progress | Part::FailureList => name.to_owned(),
            };
            self.skipped.entry(name).or_insert(reason.to_owned());
        } else if let Some((name, reason)) = ignored(line) {
            self.skipped.insert(name.to_owned(), reason.to_owned());
        } else if self.part == Part::FailureList && line.starts_with("    ") {
            self.failures.insert(trimmed.to_owned());
        }
    }

    /// What was counted. A program that began and gave no result counts as one failure.
    pub(crate) fn finish(mut self) -> Tally {
        self.program_ended();
        self.tally
    }

    /// The counts are the authority; names are attached to them as far as they were seen.
    fn result(&mut self, counts: &str) {
        let count = |what: &str| {
            counts
                .split(['.', ';'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        let failed = count("failed");
        let ignored = count("ignored");
        for number in self.failures.len() as u64..failed {
            self.failures.insert(format!("failure {}", number + 1));
        }
        self.skipped.retain(|name, _| !self.failures.contains(name));
        // Of the skipped ones, the harness counted all but the ignored as passed.
        let returned_early = (self.skipped.len() as u64).saturating_sub(ignored);
        self.tally.passed += count("passed").saturating_sub(returned_early);
        self.running = false;
        self.program_ended();
    }

    fn program_ended(&mut self) {
        if self.running {
            self.failures.insert(String::from(
                "ended without a result (crashed or was killed)",
            ));
        }
        let program = &self.program;
        let failures = std::mem::take(&mut self.failures).into_iter();
        let skipped = std::mem::take(&mut self.skipped).into_iter();
        self.tally
            .failures
            .extend(failures.map(|test| format!("{program}: {test}")));
        self.tally
            .skipped
            .extend(skipped.map(|(test, reason)| format!("{program}: {test}: {reason}")));
        self.running = false;
        self.part = Part::Progress;
    }
}

/// The program in cargo's announcement: `Running tests/laws.rs (target/debug/deps/laws-0c…)`,
/// `Doc-tests sunwire_policy`.
fn program(line: &str) -> Option<String> {
    if let Some(package) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{package} (documentation)"));
    }
    let (_, file) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    let file = file.strip_suffix(')')?.rsplit('/').next()?;
    let (name, hash) = file.rsplit_once('-')?;
    hash.chars()
        .all(|c| c.is_ascii_hexdigit())
        .then(|| name.to_owned())
}

/// `SKIPPED name: reason`, also behind the harness' `test name ... ` without an end of line.
fn skip(line: &str) -> Option<(&str, &str)> {
    let rest = match line.strip_prefix("test ") {
        Some(test) => test.split_once(" ... ")?.1,
        None => line,
    };
    rest.strip_prefix("SKIPPED ")?.split_once(": ")
}

/// `test name ... ignored` or `test name ... ignored, reason`.
fn ignored(line: &str) -> Option<(&str, &str)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let reason = verdict.strip_prefix("ignored")?;
    Some((name, reason.strip_prefix(", ").unwrap_or("ignored")))
}

fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, escape)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        rest = escape
            .split_once(|c: char| c.is_ascii_alphabetic())
            .map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::{Reader, Tally};

    fn read(text: &str) -> Tally {
        let mut reader = Reader::default();
        for line in text.lines() {
            reader.line(line);
        }
        reader.finish()
    }

    const RUN: &str = "
   Compiling sunwire-policy v0.1.0
     Running unittests src/lib.rs (target/debug/deps/sunwire_policy-0123456789abcdef)

running 3 tests
test a ... ok
test b ... FAILED
test c ... ignored, needs a bigger machine

failures:

---- b stdout ----
assertion failed:
    left: 1

failures:
    b

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s

   Doc-tests sunwire_policy

running 1 test
test policy/src/lib.rs - (line 3) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s
";

    #[test]
    fn programs_are_summed_and_failures_named() {
        let tally = read(RUN);
        assert_eq!(tally.summary(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures, ["sunwire_policy: b"]);
        assert_eq!(tally.skipped, ["sunwire_policy: c: needs a bigger machine"]);
    }

    #[test]
    fn colours_change_nothing() {
        let coloured = RUN
            .replace("FAILED", "\x1b[31mFAILED\x1b[0m")
            .replace(" ok", " \x1b[32mok\x1b[0m")
            .replace("     Running", "\x1b[0m\x1b[1m\x1b[32m     Running\x1b[0m");
        let plain = read(RUN);
        let coloured = read(&coloured);
        assert_eq!(coloured.summary(), plain.summary());
        assert_eq!(coloured.failures, plain.failures);
    }

    #[test]
    fn a_test_that_skips_is_not_counted_as_passed() {
        let tally = read(
            "     Running tests/kernel_x.rs (target/debug/deps/kernel_x-00ff)
running 3 tests
test one ... ok
test two ... ok
test three ... ok

successes:

---- one stdout ----
SKIPPED one: no CAP_BPF
SKIPPED helper: again

---- three stdout ----
an ordinary line

successes:
    one
    three
    two

test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(tally.summary(), "2 passed, 0 failed, 1 skipped");
        assert_eq!(tally.skipped, ["kernel_x: one: no CAP_BPF"]);
    }

    #[test]
    fn a_skip_told_on_the_harness_line_is_seen() {
        let tally = read(
            "running 1 test
test lab_up ... SKIPPED lab_up: not root
ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(tally.summary(), "0 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_skips_and_then_fails_is_failed() {
        let tally = read(
            "running 2 tests

failures:

---- one stdout ----
SKIPPED one: no CAP_BPF
panicked

failures:
    one

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(tally.summary(), "1 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_crashed_program_is_a_failure() {
        let crash = "     Running tests/x.rs (target/debug/deps/x-00ff)
running 2 tests
test one ... ok
";
        let tally = read(&format!("{crash}{RUN}"));
        assert_eq!(tally.summary(), "2 passed, 2 failed, 1 skipped");
        assert!(tally.failures[0].starts_with("x: ended without a result"));
        assert_eq!(read(crash).failed(), 1);
    }

    #[test]
    fn failures_without_names_still_count() {
        let tally = read("test result: FAILED. 0 passed; 2 failed; 0 ignored; 0 measured\n");
        assert_eq!(tally.failed(), 2);
    }
}
