//! The programs that are measured, and their runs round by round.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::measure::{self, Run};
use super::report::Figure;
use crate::cloud;

/// Where the programs are.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    sunwire: PathBuf,
}

/// A program with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Programs {
    /// The `sunwire` binary, and the examples of the same build.
    ///
    /// # Errors
    /// When the binary is not built.
    pub(super) fn find() -> Result<Self> {
        Ok(Programs {
            sunwire: cloud::binary()?,
        })
    }

    /// `sunwire` with arguments.
    pub(super) fn sunwire<A: Into<OsString>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Invocation {
        Invocation {
            program: self.sunwire.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
        }
    }

    /// An example of the policy crate with arguments.
    ///
    /// # Errors
    /// When it is not built.
    pub(super) fn example<A: Into<OsString>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Invocation> {
        let program = self.sunwire.with_file_name("examples").join(name);
        ensure!(
            program.is_file(),
            "the example {name} is not built beside {}: `cargo build --release -p sunwire-policy \
             --example {name}` does",
            self.sunwire.display()
        );
        Ok(Invocation {
            program,
            arguments: arguments.into_iter().map(Into::into).collect(),
        })
    }
}

impl Invocation {
    fn run(&self) -> Result<Run> {
        measure::cold(&self.program, &self.arguments)
    }
}

/// Runs each of several programs once a round, in turns, so that whatever else the machine does
/// meets all of them. Returns each one's runs.
///
/// # Errors
/// When one of them fails.
pub(super) fn in_turns(invocations: &[Invocation], rounds: usize) -> Result<Vec<Vec<Run>>> {
    let mut runs = vec![Vec::with_capacity(rounds); invocations.len()];
    for _ in 0..rounds {
        for (invocation, runs) in invocations.iter().zip(&mut runs) {
            runs.push(invocation.run()?);
        }
    }
    Ok(runs)
}

/// CPU time of whole processes.
pub(super) fn cpu(case: &str, runs: &[Run]) -> Figure {
    let samples = runs.iter().map(|run| run.cpu_s).collect();
    Figure::new(case, "cpu_s", "s", samples)
}

/// Peak memory of whole processes.
pub(super) fn peak(case: &str, runs: &[Run]) -> Figure {
    let samples = runs.iter().map(|run| run.peak_mb).collect();
    Figure::new(case, "peak_mb", "MB", samples)
}

/// The objects that programs wrote, of each run those in which `case` is the case, or the only one.
///
/// # Errors
/// When a run wrote no such object.
pub(super) fn told(runs: &[Run], case: Option<&str>) -> Result<Vec<Value>> {
    let of_run = |run: &Run| {
        let lines = run.output.lines();
        let objects = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut wanted = objects.filter(|object| case.is_none_or(|case| object["case"] == case));
        wanted
            .next()
            .with_context(|| format!("a program told nothing of {}", case.unwrap_or("itself")))
    };
    runs.iter().map(of_run).collect()
}

/// A number by its name, of every object.
///
/// # Errors
/// When an object lacks it.
pub(super) fn numbers(objects: &[Value], name: &str) -> Result<Vec<f64>> {
    let number = |object: &Value| {
        let number = object[name].as_f64();
        number.with_context(|| format!("a program did not tell `{name}`"))
    };
    objects.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(output: &str) -> Run {
        Run {
            cpu_s: 0.5,
            peak_mb: 10.0,
            output: output.to_owned(),
        }
    }

    #[test]
    fn numbers_are_those_of_the_case_in_every_run() {
        let runs = [
            run("{\"case\":\"a\",\"s\":1.5}\n{\"case\":\"b\",\"s\":2}\n"),
            run("words\n{\"case\":\"b\",\"s\":3}\n"),
        ];
        let objects = told(&runs, Some("b")).unwrap();
        assert_eq!(numbers(&objects, "s").unwrap(), [2.0, 3.0]);
        assert!(numbers(&objects, "other").is_err());
        assert!(told(&runs, Some("a")).is_err());
    }

    #[test]
    fn figures_of_processes_are_their_medians() {
        let runs = [run(""), run(""), run("")];
        assert_eq!(cpu("a", &runs).value, 0.5);
        assert_eq!((peak("a", &runs).value, peak("a", &runs).rounds), (10.0, 3));
    }
}
