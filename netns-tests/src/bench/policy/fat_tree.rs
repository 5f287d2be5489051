//! Compiling the routing of fat trees: every switch by itself, and the whole network at once.

use anyhow::Result;

use super::measure::Run;
use super::peers;
use super::programs::{Programs, cpu, in_turns, numbers, peak, told};
use super::report::{Figure, Section};

/// Pods, and the seconds that compiling switch by switch may take.
const TREES: [(u32, f64); 3] = [(16, 0.05), (24, 0.3), (32, 1.5)];
/// How packets find their way up; the first is the policy that others have figures for.
const UPLINKS: [&str; 2] = ["pairs", "paths"];
/// What compiling all at once may take of the sum over the switches.
const WHOLE_AT_MOST: f64 = 3.0;

/// Measures all trees.
///
/// # Errors
/// When a program fails.
pub(super) fn run(programs: &Programs, rounds: usize) -> Result<Section> {
    let mut invocations = Vec::new();
    for (pods, _) in TREES {
        for uplinks in UPLINKS {
            for which in ["switches", "network"] {
                let arguments = [&pods.to_string(), uplinks, which];
                invocations.push(programs.example("fat_tree", arguments)?);
            }
        }
    }
    let mut runs = in_turns(&invocations, rounds)?.into_iter();
    let mut figures = Vec::new();
    for (pods, limit) in TREES {
        for uplinks in UPLINKS {
            let (Some(switches), Some(network)) = (runs.next(), runs.next()) else {
                continue;
            };
            figures.extend(compiled(pods, uplinks, limit, &switches, &network)?);
        }
    }
    Ok(Section {
        title: "fat trees",
        figures,
        notes: vec![
            "compile_s is from the resolved policy to tables; cpu_s is the whole process"
                .to_owned(),
        ],
    })
}

fn compiled(
    pods: u32,
    uplinks: &str,
    limit: f64,
    switches: &[Run],
    network: &[Run],
) -> Result<Vec<Figure>> {
    let case = |which| format!("fat-tree-{pods}-{uplinks}-{which}");
    let (one, all) = (case("switches"), case("network"));
    let is_theirs = uplinks == UPLINKS[0];
    let rules = numbers(&told(switches, Some("switches"))?, "rules")?;
    let mut by_switch = compile(&one, switches, "switches")?.at_most(limit);
    let mut whole = compile(&all, network, "network")?.at_most(WHOLE_AT_MOST * by_switch.value);
    if is_theirs {
        by_switch = by_switch.beside(peers::fat_tree_switches(pods));
        whole = whole.beside(peers::fat_tree_network(pods));
    }
    Ok(vec![
        Figure::new(&one, "rules", "rules", rules),
        by_switch,
        cpu(&one, switches),
        peak(&one, switches),
        whole,
        cpu(&all, network),
        peak(&all, network),
    ])
}

fn compile(case: &str, runs: &[Run], which: &str) -> Result<Figure> {
    let objects = told(runs, Some(which))?;
    let lowered = numbers(&objects, "lower_s")?;
    let samples = numbers(&objects, "compile_s")?.into_iter().zip(lowered);
    let samples = samples.map(|(compile, lower)| compile + lower).collect();
    Ok(Figure::new(case, "compile_s", "s", samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(which: &str, compile: f64) -> Run {
        Run {
            cpu_s: 1.0,
            peak_mb: 50.0,
            output: format!(
                "{{\"case\":\"{which}\",\"rules\":8064,\"compile_s\":{compile},\"lower_s\":0.01}}\n"
            ),
        }
    }

    #[test]
    fn the_whole_network_is_held_against_the_sum_over_its_switches() {
        let (switches, network) = ([run("switches", 0.03)], [run("network", 0.2)]);
        let figures = compiled(16, "pairs", 0.05, &switches, &network).unwrap();
        let times: Vec<_> = figures.iter().filter(|f| f.metric == "compile_s").collect();
        assert_eq!(times[0].is_within(), Some(true));
        assert!((times[1].limit.unwrap() - 0.12).abs() < 1e-9);
        assert_eq!(times[1].is_within(), Some(false));
        assert_eq!(times[1].peers.len(), 1);
        assert_eq!(figures[0].value, 8064.0);
    }

    #[test]
    fn others_have_no_figures_for_another_policy() {
        let (switches, network) = ([run("switches", 0.03)], [run("network", 0.2)]);
        let figures = compiled(16, "paths", 0.05, &switches, &network).unwrap();
        assert!(figures.iter().all(|figure| figure.peers.is_empty()));
    }
}
