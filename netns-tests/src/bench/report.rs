//! Medians and ratios, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

use super::targets::{Target, target};
use super::{Case, Metric, System};

/// One figure: a metric of a system in a case.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Under what conditions.
    pub case: Case,
    /// What was measured.
    pub metric: Metric,
    /// Of whom.
    pub system: System,
    /// Median of the samples, in the metric's unit.
    pub median: f64,
    /// Number of samples.
    pub rounds: usize,
}

impl Figure {
    /// The figure that `samples` give, at least one.
    #[must_use]
    pub fn new(case: Case, metric: Metric, system: System, samples: Vec<f64>) -> Self {
        Figure {
            case,
            metric,
            system,
            rounds: samples.len(),
            median: median(samples),
        }
    }
}

/// All figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// A line of JSON output, the same for all benchmarks.
#[derive(Serialize)]
pub(super) struct Line<'a> {
    pub(super) bench: &'static str,
    pub(super) case: &'a str,
    pub(super) metric: &'a str,
    pub(super) system: &'a str,
    pub(super) value: f64,
    pub(super) unit: &'a str,
    pub(super) rounds: usize,
}

impl Report {
    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Adds a line that stands below the tables.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// The median of a metric; `None` when it was not measured.
    #[must_use]
    pub fn median(&self, case: Case, metric: Metric, system: System) -> Option<f64> {
        let mut figures = self.figures.iter();
        figures
            .find(|f| f.case == case && f.metric == metric && f.system == system)
            .map(|figure| figure.median)
    }

    /// One JSON object a line, in the order measured.
    #[must_use]
    pub fn json_lines(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let line = Line {
                bench: "dataplane",
                case: figure.case.name(),
                metric: figure.metric.name(),
                system: figure.system.name(),
                value: figure.median,
                unit: figure.metric.unit(),
                rounds: figure.rounds,
            };
            text += &serde_json::to_string(&line).expect("strings and numbers");
            text.push('\n');
        }
        text
    }

    /// A table for every case: the systems' medians, and Sunwire's ratios to its peers beside what they
    /// have to be.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for case in Case::ALL {
            let measured = |f: &&Figure| f.case == case;
            let figures: Vec<&Figure> = self.figures.iter().filter(measured).collect();
            let has = |system: &System| figures.iter().any(|figure| figure.system == *system);
            // Sunwire first, and the peers from the slowest to the upper bound.
            let systems: Vec<System> = System::ALL.into_iter().rev().filter(has).collect();
            if systems.is_empty() {
                continue;
            }
            let _ = writeln!(text, "{} (inner MTU {})", case.name(), case.inner_mtu());
            let _ = write!(text, "{:<19}", "");
            for system in &systems {
                let _ = write!(text, "{:>17}", system.name());
            }
            text.push('\n');
            for metric in Metric::ALL {
                text += &self.row(case, metric, &systems);
            }
            text += &self.ratios(case, &systems);
            text.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        let rounds = || self.figures.iter().map(|figure| figure.rounds);
        let _ = match (rounds().min(), rounds().max()) {
            (Some(least), Some(most)) if least != most => {
                writeln!(text, "medians of {least} to {most} rounds; more is better")
            }
            (_, most) => writeln!(
                text,
                "medians of {} rounds; more is better",
                most.unwrap_or(0)
            ),
        };
        text
    }

    fn row(&self, case: Case, metric: Metric, systems: &[System]) -> String {
        let figure = |system: &System| self.median(case, metric, *system);
        if !systems.iter().any(|system| figure(system).is_some()) {
            return String::new();
        }
        // Gigabits need decimals; counts by the second do not.
        let decimals = if metric.unit() == "Gbit/s" { 2 } else { 0 };
        let mut row = format!("{:<19}", metric.name());
        for system in systems {
            let _ = match figure(system) {
                Some(value) => write!(row, "{value:>17.decimals$}"),
                None => write!(row, "{:>17}", "-"),
            };
        }
        row.push('\n');
        row
    }

    /// Sunwire's medians as multiples of each peer's, beside the targets.
    fn ratios(&self, case: Case, systems: &[System]) -> String {
        let peers = || systems.iter().filter(|system| **system != System::Sunwire);
        let mut rows = String::new();
        for metric in Metric::ALL {
            let Some(own) = self.median(case, metric, System::Sunwire) else {
                continue;
            };
            let mut row = format!("{:<19}{:>17}", metric.name(), "");
            for peer in peers() {
                let cell = match self.median(case, metric, *peer) {
                    Some(value) => cell(own / value, target(case, metric, *peer)),
                    None => "-".to_owned(),
                };
                let _ = write!(row, "{cell:>17}");
            }
            rows += row.trim_end();
            rows.push('\n');
        }
        if rows.is_empty() || peers().next().is_none() {
            return String::new();
        }
        format!("sunwire as multiples of each, and what is promised:\n{rows}")
    }
}

/// A ratio, whether it is what was promised, and the promise.
fn cell(ratio: f64, target: Option<Target>) -> String {
    match target {
        Some(target) => {
            let verdict = target.judge(ratio);
            format!("{ratio:.2} {verdict} {:.2}", target.at_least)
        }
        None => format!("{ratio:.2}"),
    }
}

/// The middle value, or the mean of the two middle ones.
pub(super) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    if samples.len().is_multiple_of(2) {
        (samples[middle - 1] + samples[middle]) / 2.0
    } else {
        samples[middle]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        for (system, value) in [
            (System::Veth, 40.0),
            (System::KernelVxlan, 10.0),
            (System::Sunwire, 20.0),
        ] {
            let samples = vec![value, 1000.0, 1.0];
            report.add(Figure::new(
                Case::WireLike1500,
                Metric::Tcp1,
                system,
                samples,
            ));
        }
        report
    }

    #[test]
    fn median_is_the_middle_and_the_mean_of_two_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn every_figure_is_a_line_of_json_with_all_its_fields() {
        let text = report().json_lines();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(
            text.lines().last(),
            Some(
                r#"{"bench":"dataplane","case":"wire-like-1500","metric":"tcp1_gbps","system":"sunwire","value":20.0,"unit":"Gbit/s","rounds":3}"#
            )
        );
    }

    #[test]
    fn ratios_are_sunwires_median_over_each_peers_beside_what_was_promised() {
        let table = report().table();
        let mut rows = table.lines().filter(|line| line.starts_with("tcp1_gbps"));
        let words = |row: Option<&str>| -> Vec<String> {
            let row = row.unwrap().split_ascii_whitespace();
            row.map(str::to_owned).collect()
        };
        assert_eq!(words(rows.next()), ["tcp1_gbps", "20.00", "10.00", "40.00"]);
        assert_eq!(
            words(rows.next()),
            ["tcp1_gbps", "2.00", "ok+", "1.05", "0.50"]
        );
    }

    #[test]
    fn what_is_below_the_promise_says_so() {
        let mut report = Report::default();
        for (system, value) in [(System::KernelVxlanNft, 100.0), (System::Sunwire, 159.0)] {
            let figure = Figure::new(Case::SuperPacket, Metric::UdpRr, system, vec![value]);
            report.add(figure);
        }
        report.note("open-vswitch is not measured".to_owned());
        let table = report.table();
        assert!(table.contains("1.59 MISSED 1.60"), "{table}");
        assert!(
            table.contains("\nopen-vswitch is not measured\n"),
            "{table}"
        );
    }

    #[test]
    fn a_run_of_one_system_has_no_ratios() {
        let mut report = Report::default();
        let figure = Figure::new(Case::SuperPacket, Metric::Tcp1, System::Sunwire, vec![1.0]);
        report.add(figure);
        let table = report.table();
        assert!(!table.contains("multiples"), "{table}");
    }
}
