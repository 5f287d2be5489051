//! Proving beside compiling: that tables do what the policy says, and that assertions hold.

use anyhow::Result;

use super::measure::Run;
use super::programs::{Programs, cpu, in_turns, numbers, peak, told};
use super::report::{Figure, Section};

const RULES: [u32; 2] = [1_000, 10_000];
const ENDPOINTS: &str = "10000";
const GROUPS: &str = "100";

/// Measures policies of all sizes.
///
/// # Errors
/// When a program fails, or something is not proved.
pub(super) fn run(programs: &Programs, rounds: usize) -> Result<Section> {
    let invocations = RULES.map(|rules| {
        let rules = rules.to_string();
        programs.example("validate", [ENDPOINTS, GROUPS, &rules])
    });
    let invocations = invocations.into_iter().collect::<Result<Vec<_>>>()?;
    let runs = in_turns(&invocations, rounds)?;
    let mut figures = Vec::new();
    for (rules, runs) in RULES.into_iter().zip(&runs) {
        figures.extend(validated(rules, runs)?);
    }
    Ok(Section {
        title: "proofs about policies",
        figures,
        notes: vec![
            "validate_s: that the tables do what the policy says; prove_s: the assertions"
                .to_owned(),
        ],
    })
}

fn validated(rules: u32, runs: &[Run]) -> Result<Vec<Figure>> {
    let case = format!("rules-{rules}");
    let objects = told(runs, None)?;
    let mut figures = Vec::new();
    for metric in ["read_s", "compile_s", "validate_s"] {
        figures.push(Figure::new(&case, metric, "s", numbers(&objects, metric)?));
    }
    // With many rules no two groups are apart, and nothing is asserted.
    let assertions = Figure::new(
        &case,
        "assertions",
        "assertions",
        numbers(&objects, "assertions")?,
    );
    if assertions.value > 0.0 {
        let proved = numbers(&objects, "prove_s")?;
        figures.extend([assertions, Figure::new(&case, "prove_s", "s", proved)]);
    }
    figures.extend([cpu(&case, runs), peak(&case, runs)]);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(assertions: u32) -> Vec<&'static str> {
        let run = Run {
            cpu_s: 1.0,
            peak_mb: 60.0,
            output: format!(
                "{{\"read_s\":0.1,\"compile_s\":0.2,\"validate_s\":0.3,\"assertions\":{assertions},\
                 \"prove_s\":0.4}}\n"
            ),
        };
        let figures = validated(1_000, &[run]).unwrap();
        figures.iter().map(|figure| figure.metric).collect()
    }

    #[test]
    fn time_of_proofs_is_told_only_where_something_is_asserted() {
        assert!(metrics(10).contains(&"prove_s"));
        assert!(!metrics(0).contains(&"prove_s"));
    }
}
