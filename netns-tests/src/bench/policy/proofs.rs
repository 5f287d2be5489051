//! Questions about the networks of the Internet Topology Zoo, and equivalences of programs, answered
//! by the command line.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::peers::{self, Peer};
use super::programs::{Programs, cpu, in_turns, peak};
use super::report::{Figure, Section};

/// Networks with questions, from small to large.
const NETWORKS: [&str; 10] = [
    "Layer42",
    "Compuserv",
    "Airtel",
    "Belnet",
    "Shentel",
    "Arpa",
    "Sanet",
    "Uunet",
    "Missouri",
    "Deltacom",
];

/// What is asked about a network.
#[derive(Clone, Copy, Debug)]
enum Question {
    /// That a packet reaches the other end.
    Reach,
    /// That it does not come to a switch that is not there.
    Unreach,
    /// That two slices together are as each apart.
    Slice,
}

impl Question {
    const ALL: [Question; 3] = [Question::Reach, Question::Unreach, Question::Slice];

    const fn name(self) -> &'static str {
        match self {
            Question::Reach => "reach",
            Question::Unreach => "unreach",
            Question::Slice => "slice",
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Question::Reach => "reachability",
            Question::Unreach => "unreachability",
            Question::Slice => "slicing",
        }
    }

    fn peers(self, network: &str) -> Vec<(Peer, f64)> {
        match self {
            Question::Reach => peers::reach(network),
            Question::Unreach => Vec::new(),
            Question::Slice => peers::slice(network),
        }
    }
}

/// The seconds that slicing of the largest network may take, whatever others take.
const DELTACOM_SLICE_S: f64 = 0.3;

/// Measures all questions of `data`.
///
/// # Errors
/// When a file is missing, or an answer is not as stated.
pub(super) fn run(programs: &Programs, data: &Path, rounds: usize) -> Result<Section> {
    let mut cases = Vec::new();
    let mut invocations = vec![programs.sunwire(["--version"])];
    for network in NETWORKS {
        for question in Question::ALL {
            let file = format!("netkat/checks/{network}_{}.nkpl", question.file());
            let file = data.join(file);
            ensure!(file.is_file(), "there is no {}", file.display());
            let arguments: [OsString; 3] = ["policy".into(), "verify".into(), file.into()];
            invocations.push(programs.sunwire(arguments));
            cases.push((network, question));
        }
    }
    let table = data.join("netkat/equivalence.tsv");
    ensure!(table.is_file(), "there is no {}", table.display());
    let arguments = ["policy", "equiv", "-o", "json", "--batch"];
    let arguments = arguments.map(OsString::from).into_iter();
    invocations.push(programs.sunwire(arguments.chain([table.into()])));

    let mut runs = in_turns(&invocations, rounds)?.into_iter();
    let mut figures = Vec::new();
    if let Some(runs) = runs.next() {
        figures.extend([cpu("process-start", &runs), peak("process-start", &runs)]);
    }
    for ((network, question), runs) in cases.into_iter().zip(runs.by_ref()) {
        figures.extend(answered(network, question, &runs));
    }
    let mut notes = vec!["process-start is in every figure: it is `sunwire --version`".to_owned()];
    if let Some(runs) = runs.next() {
        // The program has compared its answers with the table's, or it would have failed.
        let summary = runs.first().map_or("", |run| run.output.as_str());
        let summary: Value = serde_json::from_str(summary).context("the summary is no JSON")?;
        notes.push(format!(
            "equivalence: {} questions, {} answers as stated in two syntaxes",
            summary["questions"], summary["agreed"]
        ));
        figures.extend([cpu("equivalence", &runs), peak("equivalence", &runs)]);
    }
    Ok(Section {
        title: "questions about networks",
        figures,
        notes,
    })
}

fn answered(network: &str, question: Question, runs: &[super::measure::Run]) -> [Figure; 2] {
    let case = format!("{}-{}", network.to_lowercase(), question.name());
    let time = cpu(&case, runs).beside(question.peers(network));
    let time = match (network, question) {
        ("Deltacom", Question::Slice) => time.at_most(DELTACOM_SLICE_S),
        _ => time,
    };
    [time, peak(&case, runs)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::policy::measure::Run;

    #[test]
    fn limits_are_the_best_figure_of_others_or_what_is_promised_beyond() {
        let runs = [Run {
            cpu_s: 0.2,
            peak_mb: 50.0,
            output: String::new(),
        }];
        let limit = |network, question| answered(network, question, &runs)[0].limit;
        assert_eq!(limit("Deltacom", Question::Slice), Some(DELTACOM_SLICE_S));
        assert_eq!(limit("Deltacom", Question::Reach), Some(0.218));
        assert_eq!(limit("Sanet", Question::Slice), Some(29.2));
        assert_eq!(limit("Sanet", Question::Unreach), None);
        assert_eq!(limit("Belnet", Question::Reach), None);
    }
}
