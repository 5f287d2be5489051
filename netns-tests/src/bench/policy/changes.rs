//! A large policy between labelled groups: compiled from its text, and after changes.

use anyhow::Result;

use super::measure::Run;
use super::programs::{Programs, cpu, in_turns, numbers, peak, told};
use super::report::{Figure, Section};

const ENDPOINTS: &str = "10000";
const GROUPS: &str = "100";
const RULES: &str = "1000";

/// Seconds from the text to tables.
const COMPILE_S: f64 = 1.0;
/// Milliseconds until the tables follow a change of one label.
const LABEL_MS: f64 = 5.0;
/// Addresses of an endpoint; each is a class entry.
const ADDRESSES: f64 = 2.0;

/// What the tables have, as the program tells it.
const SIZES: [(&str, &str); 4] = [
    ("prefixes", "entries"),
    ("nodes", "nodes"),
    ("edges", "edges"),
    ("leaves", "leaves"),
];
/// What a change makes of them.
const COUNTS: [(&str, &str); 5] = [
    ("prefixes", "entries"),
    ("nodes_added", "nodes"),
    ("nodes_removed", "nodes"),
    ("leaves_added", "leaves"),
    ("leaves_removed", "leaves"),
];

/// A change, as the program names it.
struct Change {
    /// In the program's output.
    told: &'static str,
    /// In results.
    case: &'static str,
    limits: Limits,
}

/// What a change may cost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limits {
    /// Nothing is promised.
    None,
    /// No table differs.
    NoTable,
    /// Class entries of one endpoint differ, and it is quick.
    OneEndpoint,
    /// The same, and no node differs.
    OldClass,
}

const CHANGES: [Change; 8] = [
    // Tables do not say where endpoints are: the cost is that of finding nothing changed.
    Change {
        told: "nothing",
        case: "groups-move",
        limits: Limits::NoTable,
    },
    Change {
        told: "label",
        case: "groups-label",
        limits: Limits::OldClass,
    },
    Change {
        told: "unlabelled",
        case: "groups-unlabelled",
        limits: Limits::OneEndpoint,
    },
    Change {
        told: "come",
        case: "groups-endpoint-comes",
        limits: Limits::None,
    },
    Change {
        told: "go",
        case: "groups-endpoint-goes",
        limits: Limits::None,
    },
    Change {
        told: "rule",
        case: "groups-rule",
        limits: Limits::None,
    },
    Change {
        told: "rule's label",
        case: "groups-rule-label",
        limits: Limits::None,
    },
    Change {
        told: "rule added",
        case: "groups-rule-added",
        limits: Limits::None,
    },
];

/// Measures the changes.
///
/// # Errors
/// When the program fails.
pub(super) fn run(programs: &Programs, rounds: usize) -> Result<Section> {
    let program = programs.example("session", [ENDPOINTS, GROUPS, RULES])?;
    let runs = in_turns(&[program], rounds)?.concat();
    Ok(Section {
        title: "10,000 endpoints, 1,000 rules",
        figures: figures(&runs)?,
        notes: vec!["each change is the first of its kind in its process".to_owned()],
    })
}

fn figures(runs: &[Run]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let compiled = told(runs, Some("full"))?;
    let case = "groups-compile";
    let taken = numbers(&compiled, "seconds")?;
    figures.push(Figure::new(case, "compile_s", "s", taken).at_most(COMPILE_S));
    for (name, unit) in SIZES {
        figures.push(Figure::new(case, name, unit, numbers(&compiled, name)?));
    }
    for Change {
        told: name,
        case,
        limits,
    } in &CHANGES
    {
        let objects = told(runs, Some(name))?;
        let seconds = numbers(&objects, "seconds")?.into_iter();
        let taken = Figure::new(*case, "cpu_ms", "ms", seconds.map(|s| s * 1e3).collect());
        figures.push(match limits {
            Limits::OneEndpoint | Limits::OldClass => taken.at_most(LABEL_MS),
            Limits::None | Limits::NoTable => taken,
        });
        for (name, unit) in COUNTS {
            let count = Figure::new(*case, name, unit, numbers(&objects, name)?);
            figures.push(match (limits, name) {
                (Limits::None, _) => count,
                (Limits::NoTable, _) => count.at_most(0.0),
                (_, "prefixes") => count.at_most(ADDRESSES),
                (Limits::OldClass, _) => count.at_most(0.0),
                (Limits::OneEndpoint, _) => count,
            });
        }
    }
    figures.extend([cpu("groups-all", runs), peak("groups-all", runs)]);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_touches_more_than_it_must_is_over_its_limit() {
        let mut output =
            "{\"case\":\"full\",\"seconds\":0.04,\"nodes\":9,\"edges\":9,\"leaves\":9,\
                          \"prefixes\":20000,\"depth\":3}\n"
                .to_owned();
        for change in CHANGES {
            output += &format!(
                "{{\"case\":\"{}\",\"seconds\":0.006,\"prefixes\":2,\"nodes_added\":3,\
                 \"nodes_removed\":0,\"leaves_added\":0,\"leaves_removed\":0}}\n",
                change.told
            );
        }
        let run = Run {
            cpu_s: 1.0,
            peak_mb: 60.0,
            output,
        };
        let figures = figures(&[run]).unwrap();
        let over = figures.iter().filter(|f| f.is_within() == Some(false));
        let over: Vec<_> = over.map(|f| (f.case.as_str(), f.metric)).collect();
        assert_eq!(
            over,
            [
                ("groups-move", "prefixes"),
                ("groups-move", "nodes_added"),
                ("groups-label", "cpu_ms"),
                ("groups-label", "nodes_added"),
                ("groups-unlabelled", "cpu_ms"),
            ]
        );
    }
}
