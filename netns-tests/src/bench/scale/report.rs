//! Figures of the parts, as a table for people and as JSON for programs.

use std::fmt::Write as _;

use super::Part;
use crate::bench::report::{Line, median};

/// One figure: a metric at a size.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What grows.
    pub part: Part,
    /// How much there is of it; for `syn-load`, SYNs per second.
    pub size: u32,
    /// What was measured.
    pub metric: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// Median of the samples.
    pub median: f64,
    /// Number of samples.
    pub rounds: usize,
}

impl Figure {
    /// The figure that `samples` give, at least one.
    #[must_use]
    pub fn new(
        part: Part,
        size: u32,
        metric: &'static str,
        unit: &'static str,
        samples: Vec<f64>,
    ) -> Self {
        Figure {
            part,
            size,
            metric,
            unit,
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

impl Report {
    /// Adds a figure.
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// One JSON object a line, in the order measured.
    #[must_use]
    pub fn json_lines(&self) -> String {
        let mut text = String::new();
        for figure in &self.figures {
            let line = Line {
                bench: "dataplane-scale",
                case: &format!("{}-{}", figure.part.name(), figure.size),
                metric: figure.metric,
                system: "sunwire",
                value: figure.median,
                unit: figure.unit,
                rounds: figure.rounds,
            };
            text += &serde_json::to_string(&line).expect("strings and numbers");
            text.push('\n');
        }
        text
    }

    /// A table for every part: a line for every size.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for part in Part::ALL {
            let figures: Vec<&Figure> = self.figures.iter().filter(|f| f.part == part).collect();
            let Some(first) = figures.first() else {
                continue;
            };
            let of_first = figures.iter().filter(|figure| figure.size == first.size);
            let metrics: Vec<&str> = of_first.map(|figure| figure.metric).collect();
            let head = if part == Part::SynLoad {
                "SYNs per s"
            } else {
                part.name()
            };
            let _ = write!(text, "{head:>12}");
            for metric in &metrics {
                let _ = write!(text, "{metric:>21}");
            }
            text.push('\n');
            for row in figures.chunks(metrics.len()) {
                let _ = write!(text, "{:>12}", row[0].size);
                for figure in row {
                    let decimals = if figure.median < 10_000.0 { 1 } else { 0 };
                    let _ = write!(text, "{:>21.decimals$}", figure.median);
                }
                text.push('\n');
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::default();
        for size in [10, 1_000] {
            for (metric, value) in [("a_ns", 5.0), ("b_ns", 50_000.0)] {
                let samples = vec![value, 1e9, 1.0];
                report.add(Figure::new(Part::Nodes, size, metric, "ns", samples));
            }
        }
        report
    }

    #[test]
    fn every_size_is_a_line_with_a_column_for_every_metric() {
        let table = report().table();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_ascii_whitespace().collect())
            .collect();
        assert_eq!(lines[0], ["nodes", "a_ns", "b_ns"]);
        assert_eq!(lines[1], ["10", "5.0", "50000"]);
        assert_eq!(lines[2], ["1000", "5.0", "50000"]);
    }

    #[test]
    fn a_figure_is_a_line_of_json_that_names_part_and_size() {
        let text = report().json_lines();
        assert_eq!(
            text.lines().next(),
            Some(
                r#"{"bench":"dataplane-scale","case":"nodes-10","metric":"a_ns","system":"sunwire","value":5.0,"unit":"ns","rounds":3}"#
            )
        );
    }
}
