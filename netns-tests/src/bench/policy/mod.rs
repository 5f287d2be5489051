//! What policies cost: to answer questions about them, to compile them, to follow changes, and where
//! packets meet them.
//!
//! ```text
//! proofs.rs        questions about networks, and equivalences, by the command line
//! generated.rs     questions about a network of 80,000 nodes
//! fat_tree.rs      compiling the routing of fat trees
//! changes.rs       a large policy compiled, and changed
//! validation.rs    proofs beside compiling
//! moves.rs         an endpoint moves: what changes in a kernel
//! probes.rs        the walk in the kernel, as figures
//!   walk.rs        … as it is measured
//!   rules.rs       … of policies of any number of rules
//! programs.rs      the programs that are measured, and their runs
//! measure.rs       what one run costs
//! peers.rs         figures of others
//! report.rs        all of it as a table and as JSON
//! ```
//!
//! Whatever a policy costs off the packets' way is measured on processes of their own, cold: what was
//! remembered by an earlier question helps no later one.

mod changes;
mod fat_tree;
mod generated;
pub mod measure;
mod moves;
mod peers;
mod probes;
mod programs;
mod proofs;
mod report;
mod rules;
mod validation;
pub mod walk;

use std::path::PathBuf;

use anyhow::{Result, ensure};

pub use peers::Peer;
use programs::Programs;
pub use report::{Figure, Report, Section};

const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Questions about networks and equivalences; needs the data.
    Proofs,
    /// Questions about a network of 80,000 nodes.
    Generated,
    /// Compiling the routing of fat trees.
    FatTree,
    /// A large policy, compiled and changed.
    Changes,
    /// Proofs beside compiling.
    Validation,
    /// An endpoint moves; needs root.
    Moves,
    /// The walk in the kernel; needs root.
    Walk,
}

impl Part {
    /// All parts, in the order they are measured. The last two make namespaces, which no program that
    /// is measured should inherit.
    pub const ALL: [Part; 7] = [
        Part::Proofs,
        Part::Generated,
        Part::FatTree,
        Part::Changes,
        Part::Validation,
        Part::Moves,
        Part::Walk,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Part::Proofs => "proofs",
            Part::Generated => "generated",
            Part::FatTree => "fat-tree",
            Part::Changes => "changes",
            Part::Validation => "validation",
            Part::Moves => "moves",
            Part::Walk => "walk",
        }
    }

    /// Whether it changes something in the kernel.
    const fn needs_root(self) -> bool {
        matches!(self, Part::Moves | Part::Walk)
    }
}

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer samples of the same workload.
    pub quick: bool,
    /// Samples of every figure, at least one; the default when `None`.
    pub rounds: Option<usize>,
    /// Only the part with this name; all when `None`.
    pub part: Option<String>,
    /// Folder with the networks and equivalences that questions are asked about.
    pub data: Option<PathBuf>,
}

/// Measures everything. Call it before the process has other threads. It ends on the first signal
/// that ends a process.
///
/// # Errors
/// When a program is missing or fails, or an answer is wrong: there are no figures of those.
pub fn run(options: &Options) -> Result<Report> {
    let rounds = match options.rounds {
        Some(rounds) => rounds,
        None if options.quick => ROUNDS_QUICK,
        None => ROUNDS,
    };
    ensure!(rounds > 0, "at least one round is needed");
    let named = |part: &Part| {
        let wanted = options.part.as_deref();
        wanted.is_none_or(|wanted| wanted == part.name())
    };
    let parts: Vec<Part> = Part::ALL.into_iter().filter(named).collect();
    ensure!(!parts.is_empty(), "there is no such part");
    ensure!(
        !parts.iter().any(|part| part.needs_root()) || nix::unistd::geteuid().is_root(),
        "what is measured in the kernel makes network namespaces and loads eBPF: run it as root"
    );
    let programs = Programs::find()?;
    let mut report = Report::default();
    for part in parts {
        eprintln!("{} ({rounds} rounds)", part.name());
        let section = match (part, &options.data) {
            (Part::Proofs, Some(data)) => proofs::run(&programs, data, rounds)?,
            (Part::Proofs, None) => Section {
                title: "questions about networks",
                figures: Vec::new(),
                notes: vec!["not measured: --data names no folder with the networks".to_owned()],
            },
            (Part::Generated, _) => generated::run(&programs, rounds)?,
            (Part::FatTree, _) => fat_tree::run(&programs, rounds)?,
            (Part::Changes, _) => changes::run(&programs, rounds)?,
            (Part::Validation, _) => validation::run(&programs, rounds)?,
            (Part::Moves, _) => moves::run(rounds)?,
            (Part::Walk, _) => probes::run(rounds)?,
        };
        report.sections.push(section);
    }
    Ok(report)
}
