//! Medians and ratios, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;

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

    /// A table for every case: the systems' medians and Sunwire's ratios to its peers.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for case in Case::ALL {
            let mut rows = Metric::ALL
                .into_iter()
                .filter_map(|m| self.row(case, m))
                .peekable();
            if rows.peek().is_none() {
                continue;
            }
            let _ = writeln!(
                text,
                "{} (inner MTU {})\n{:<16}{:>12}{:>14}{:>12}{:>16}{:>9}",
                case.name(),
                case.inner_mtu(),
                "",
                "sunwire",
                "kernel-vxlan",
                "veth",
                "/kernel-vxlan",
                "/veth"
            );
            for row in rows {
                text += &row;
            }
            text.push('\n');
        }
        let rounds = self.figures.iter().map(|figure| figure.rounds).max();
        let _ = writeln!(
            text,
            "medians of {} rounds; more is better",
            rounds.unwrap_or(0)
        );
        text
    }

    fn row(&self, case: Case, metric: Metric) -> Option<String> {
        let sunwire = self.median(case, metric, System::Sunwire)?;
        let vxlan = self.median(case, metric, System::KernelVxlan)?;
        let veth = self.median(case, metric, System::Veth)?;
        // Gigabits need decimals; counts by the second do not.
        let decimals = if metric.unit() == "Gbit/s" { 2 } else { 0 };
        Some(format!(
            "{:<16}{sunwire:>12.decimals$}{vxlan:>14.decimals$}{veth:>12.decimals$}\
             {:>15.2}x{:>8.2}x\n",
            metric.name(),
            sunwire / vxlan,
            sunwire / veth
        ))
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
    fn ratios_are_sunwires_median_over_each_peers() {
        let table = report().table();
        let row = table.lines().find(|line| line.starts_with("tcp1_gbps"));
        let words: Vec<&str> = row.unwrap().split_ascii_whitespace().collect();
        assert_eq!(
            words,
            ["tcp1_gbps", "20.00", "10.00", "40.00", "2.00x", "0.50x"]
        );
    }
}
