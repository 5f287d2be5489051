//! Demos: stories for a person to watch, each a list of claims that are measured.
//!
//! A claim holds or does not; its figures have their units in their names. A demo goes on after a
//! claim that does not hold, so that one look shows everything, and fails at the end.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::{Map, Value};

pub mod first_light;

/// What was measured for one claim.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// Stable name.
    pub name: &'static str,
    /// Whether it holds.
    pub held: bool,
    /// One sentence for people.
    #[serde(skip)]
    pub summary: String,
    /// Figures, units in their names.
    #[serde(flatten)]
    pub figures: Map<String, Value>,
}

/// Figures of a claim under construction.
#[derive(Default)]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// Adds a figure.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    /// Adds a figure in milliseconds, to the microsecond.
    pub fn set_ms(&mut self, name: &str, value: f64) {
        self.set(name, (value * 1e3).round() / 1e3);
    }

    /// The claim with these figures.
    #[must_use]
    pub fn claim(self, name: &'static str, held: bool, summary: String) -> Claim {
        Claim {
            name,
            held,
            summary,
            figures: self.0,
        }
    }
}

/// A demo's report as it is written.
#[derive(Serialize)]
struct Report<'a> {
    demo: &'a str,
    commit: String,
    claims: &'a [Claim],
}

/// Tells the story as it goes on, with the time since it began.
pub struct Narrator {
    began: Instant,
    claims: Vec<Claim>,
}

impl Default for Narrator {
    fn default() -> Self {
        Narrator {
            began: Instant::now(),
            claims: Vec::new(),
        }
    }
}

impl Narrator {
    /// Says what happens now.
    pub fn say(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.began.elapsed().as_secs_f64());
    }

    /// Measures a claim; an error is a claim that does not hold, with the reason as its summary.
    pub fn claim(&mut self, name: &'static str, measure: impl FnOnce(&Narrator) -> Result<Claim>) {
        self.say(&format!("claim {name}"));
        let claim = measure(self)
            .unwrap_or_else(|error| Figures::default().claim(name, false, format!("{error:#}")));
        self.say(&format!(
            "  {}: {}",
            if claim.held { "held" } else { "NOT HELD" },
            claim.summary
        ));
        self.claims.push(claim);
    }

    /// Prints the table, writes `target/demo/NAME.json`, and returns whether every claim held.
    ///
    /// # Errors
    /// When the report cannot be written.
    pub fn finish(self, demo: &str) -> Result<bool> {
        println!();
        for claim in &self.claims {
            let mark = if claim.held { "held" } else { "NOT HELD" };
            println!("{:<10} {:<9} {}", claim.name, mark, claim.summary);
            for (name, value) in &claim.figures {
                println!("{:<20} {name} = {value}", "");
            }
        }
        let path = report_path(demo);
        let report = Report {
            demo,
            commit: commit(),
            claims: &self.claims,
        };
        write(&path, &serde_json::to_string_pretty(&report)?)?;
        let held = self.claims.iter().filter(|claim| claim.held).count();
        println!(
            "\n{held} of {} claims held; report in {}",
            self.claims.len(),
            path.display()
        );
        Ok(held == self.claims.len())
    }
}

fn report_path(demo: &str) -> PathBuf {
    Path::new("target")
        .join("demo")
        .join(format!("{demo}.json"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().context("a report has a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn commit() -> String {
    std::env::var("SUNWIRE_COMMIT").unwrap_or_else(|_| "unknown".to_owned())
}
