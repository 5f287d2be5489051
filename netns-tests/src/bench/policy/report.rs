//! Figures beside their limits and those of others, as a table for people and as JSON for programs.
//!
//! Less is better in all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::peers::Peer;
use crate::bench::report::{Line, median};

/// One figure of Sunwire, with what it is compared to.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was done.
    pub case: String,
    /// What was measured of it; the unit is its end.
    pub metric: &'static str,
    /// The unit of the value.
    pub unit: &'static str,
    /// Median of the samples.
    pub value: f64,
    /// Number of samples.
    pub rounds: usize,
    /// The value that the project promises not to exceed.
    pub limit: Option<f64>,
    /// The same of others, not measured in this run.
    pub peers: Vec<(Peer, f64)>,
}

impl Figure {
    /// The figure that `samples` give, at least one.
    #[must_use]
    pub fn new(
        case: impl Into<String>,
        metric: &'static str,
        unit: &'static str,
        samples: Vec<f64>,
    ) -> Self {
        Figure {
            case: case.into(),
            metric,
            unit,
            rounds: samples.len(),
            value: median(samples),
            limit: None,
            peers: Vec::new(),
        }
    }

    /// With a limit.
    #[must_use]
    pub fn at_most(mut self, limit: f64) -> Self {
        self.limit = Some(self.limit.map_or(limit, |known| known.min(limit)));
        self
    }

    /// Beside the figures of others, the best of which is a limit.
    #[must_use]
    pub fn beside(mut self, peers: Vec<(Peer, f64)>) -> Self {
        let best = peers.iter().map(|(_, value)| *value).min_by(f64::total_cmp);
        self.peers = peers;
        match best {
            Some(best) => self.at_most(best),
            None => self,
        }
    }

    /// Whether the limit is kept; `None` when there is none.
    #[must_use]
    pub fn is_within(&self) -> Option<bool> {
        self.limit.map(|limit| self.value <= limit)
    }

    fn line<'a>(&'a self, system: &'a str, value: f64, rounds: usize) -> Line<'a> {
        Line {
            bench: "policy",
            case: &self.case,
            metric: self.metric,
            system,
            value,
            unit: self.unit,
            rounds,
        }
    }
}

/// Figures of one kind, under a heading.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// In the order measured.
    pub figures: Vec<Figure>,
    /// What was not measured, and why.
    pub notes: Vec<String>,
}

/// All figures of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order measured.
    pub sections: Vec<Section>,
}

impl Report {
    /// One JSON object a line: for every figure Sunwire's value, and then what it is compared to,
    /// with `rounds` 0 for what was not measured in this run.
    #[must_use]
    pub fn json_lines(&self) -> String {
        let mut text = String::new();
        for figure in self.figures() {
            let own = figure.line("sunwire", figure.value, figure.rounds);
            let limit = figure.limit.map(|limit| figure.line("limit", limit, 0));
            let peers = figure.peers.iter();
            let peers = peers.map(|(peer, value)| figure.line(peer.name(), *value, 0));
            for line in [own].into_iter().chain(peers).chain(limit) {
                text += &serde_json::to_string(&line).expect("strings and numbers");
                text.push('\n');
            }
        }
        text
    }

    /// A table for every section: Sunwire's medians, the limits, and the figures of others with
    /// Sunwire's ratio to them.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let _ = writeln!(
                text,
                "{:<34}{:<18}{:>14}{:>14}      others (sunwire / other)",
                section.title, "", "sunwire", "limit"
            );
            for figure in &section.figures {
                text += row(figure).trim_end();
                text.push('\n');
            }
            for note in &section.notes {
                let _ = writeln!(text, "  {note}");
            }
            text.push('\n');
        }
        let peers: BTreeSet<Peer> = self
            .figures()
            .flat_map(|figure| figure.peers.iter().map(|(peer, _)| *peer))
            .collect();
        for peer in peers {
            let _ = writeln!(text, "{}: {}", peer.name(), peer.citation());
        }
        let rounds = self.figures().map(|figure| figure.rounds).max();
        let over = self.figures().filter(|f| f.is_within() == Some(false));
        let limited = self.figures().filter(|f| f.limit.is_some());
        let _ = writeln!(
            text,
            "medians of {} rounds; less is better; {} of {} figures with a limit are over it",
            rounds.unwrap_or(0),
            over.count(),
            limited.count()
        );
        text
    }

    fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.sections.iter().flat_map(|section| &section.figures)
    }
}

fn row(figure: &Figure) -> String {
    let limit = figure.limit.map(|limit| show(limit, figure.unit));
    let verdict = match figure.is_within() {
        None => "",
        Some(true) => "ok",
        Some(false) => "OVER",
    };
    let mut text = format!(
        "{:<34}{:<18}{:>14}{:>14} {verdict:<5}",
        figure.case,
        figure.metric,
        show(figure.value, figure.unit),
        limit.unwrap_or_default()
    );
    for (nth, (peer, value)) in figure.peers.iter().enumerate() {
        let comma = if nth == 0 { "" } else { "," };
        let (name, ratio) = (peer.name(), figure.value / value);
        // Two digits that say something.
        let decimals = if ratio < 0.01 { 4 } else { 2 };
        let _ = write!(
            text,
            "{comma} {name} {} ({ratio:.decimals$})",
            show(*value, figure.unit)
        );
    }
    text
}

/// A value with as many decimals as its unit has use for.
fn show(value: f64, unit: &str) -> String {
    let decimals = match unit {
        "s" => 4,
        "ms" => 3,
        "MB" | "probes" => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let samples = vec![0.2, 9.0, 0.1];
        let peers = vec![(Peer::KatchOcaml, 0.4), (Peer::BitLevelRust, 0.8)];
        let figures = vec![
            Figure::new("a-network", "cpu_s", "s", samples)
                .at_most(0.5)
                .beside(peers),
            Figure::new("a-network", "peak_mb", "MB", vec![12.0]).at_most(10.0),
            Figure::new("a-change", "nodes", "nodes", vec![0.0]).at_most(0.0),
        ];
        let section = Section {
            title: "proofs",
            figures,
            notes: vec!["something is missing".to_owned()],
        };
        Report {
            sections: vec![section],
        }
    }

    fn row_of(table: &str, metric: &str) -> Vec<String> {
        let row = table.lines().find(|line| line.contains(metric)).unwrap();
        row.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_best_of_others_is_a_limit_unless_a_lower_one_is_promised() {
        let peers = || vec![(Peer::KatchOcaml, 0.4), (Peer::BitLevelRust, 0.8)];
        let figure = || Figure::new("a", "cpu_s", "s", vec![0.4]);
        assert_eq!(figure().beside(peers()).limit, Some(0.4));
        assert_eq!(figure().at_most(0.3).beside(peers()).limit, Some(0.3));
        assert_eq!(figure().beside(peers()).at_most(0.3).limit, Some(0.3));
        assert_eq!(figure().beside(Vec::new()).limit, None);
    }

    #[test]
    fn a_limit_is_kept_when_it_is_met_exactly() {
        let figure = Figure::new("a", "cpu_s", "s", vec![0.4]);
        assert_eq!(figure.is_within(), None);
        assert_eq!(figure.clone().at_most(0.4).is_within(), Some(true));
        assert_eq!(figure.at_most(0.399).is_within(), Some(false));
    }

    #[test]
    fn rows_say_whether_the_limit_is_kept_and_ratios_are_ours_over_theirs() {
        let table = report().table();
        let words = row_of(&table, "cpu_s").join(" ");
        assert_eq!(
            words,
            "a-network cpu_s 0.2000 s 0.4000 s ok katch-ocaml 0.4000 s (0.50), bit-level-rust \
             0.8000 s (0.25)"
        );
        let words = row_of(&table, "peak_mb").join(" ");
        assert_eq!(words, "a-network peak_mb 12.0 MB 10.0 MB OVER");
        assert_eq!(row_of(&table, "a-change").last().unwrap(), "ok");
    }

    #[test]
    fn the_table_names_what_is_missing_and_cites_others_once() {
        let table = report().table();
        assert!(table.contains("something is missing"));
        for peer in [Peer::KatchOcaml, Peer::BitLevelRust] {
            assert_eq!(table.matches(peer.citation()).count(), 1);
        }
        assert!(!table.contains(Peer::FreneticDecision.citation()));
        assert!(table.contains("1 of 3 figures with a limit are over it"));
    }

    #[test]
    fn every_figure_is_a_line_of_json_and_so_is_what_it_is_compared_to() {
        let text = report().json_lines();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4 + 2 + 2);
        assert_eq!(
            lines[0],
            r#"{"bench":"policy","case":"a-network","metric":"cpu_s","system":"sunwire","value":0.2,"unit":"s","rounds":3}"#
        );
        assert_eq!(
            lines[1],
            r#"{"bench":"policy","case":"a-network","metric":"cpu_s","system":"katch-ocaml","value":0.4,"unit":"s","rounds":0}"#
        );
        assert_eq!(
            lines[3],
            r#"{"bench":"policy","case":"a-network","metric":"cpu_s","system":"limit","value":0.4,"unit":"s","rounds":0}"#
        );
    }
}
