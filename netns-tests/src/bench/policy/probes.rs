//! The walk of the flow tables in the kernel, as figures.

use anyhow::Result;

use super::report::{Figure, Section};
use super::walk::{self, Effort, Walk};

/// Measures policies of all sizes. Call it before the process has other threads.
///
/// # Errors
/// As [`walk::run`].
pub(super) fn run(rounds: usize) -> Result<Section> {
    let effort = Effort {
        rounds,
        ..Effort::default()
    };
    let walks = walk::run(&walk::RULES, effort)?;
    Ok(Section {
        title: "the walk in the kernel",
        figures: figures(&walks, rounds),
        notes: vec![
            "the whole way of a packet up to its verdict; a policy's probes may not be more than \
             those of the smallest"
                .to_owned(),
        ],
    })
}

fn figures(walks: &[Walk], rounds: usize) -> Vec<Figure> {
    let least = walks.first().map(|walk| walk.probes_max);
    let mut figures = Vec::new();
    for walk in walks {
        let case = format!("walk-{}", walk.rules);
        // What was taken apart already is one value here, of so many rounds.
        let figure = |metric, unit, value, rounds| Figure {
            rounds,
            ..Figure::new(&case, metric, unit, vec![value])
        };
        let probes = figure("probes_max", "probes", f64::from(walk.probes_max), 1);
        figures.extend([
            figure("table_nodes", "nodes", walk.table_nodes as f64, 1),
            figure("table_edges", "edges", walk.table_edges as f64, 1),
            figure("probes_mean", "probes", walk.probes_mean, 1),
            match least {
                Some(least) => probes.at_most(f64::from(least)),
                None => probes,
            },
            figure("hot_ns", "ns", walk.hot_ns, rounds),
            figure("random_ns", "ns", walk.random_ns, rounds),
        ]);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(rules: usize, probes_max: u32) -> Walk {
        Walk {
            rules,
            table_nodes: 1,
            table_edges: 1,
            compile_ms: 1.0,
            install_ms: 1.0,
            probes_mean: 3.0,
            probes_max,
            hot_ns: 100.0,
            random_ns: 200.0,
        }
    }

    #[test]
    fn more_probes_for_more_rules_are_over_the_limit() {
        let figures = figures(&[walk(10, 4), walk(1_000, 4), walk(100_000, 5)], 7);
        let probes = figures.iter().filter(|f| f.metric == "probes_max");
        let within: Vec<_> = probes.map(Figure::is_within).collect();
        assert_eq!(within, [Some(true), Some(true), Some(false)]);
        let times = figures.iter().find(|f| f.metric == "hot_ns");
        assert_eq!(times.map(|figure| figure.rounds), Some(7));
    }
}
