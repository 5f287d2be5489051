//! What is run in virtual machines: one file per suite.
//!
//! A suite builds what it runs once and then runs it under each kernel. How many machines it starts
//! for that, and with what, is its own affair.

mod bench;
mod kept;
mod kernel;
mod lab;

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use super::Session;
use super::kernel::{Kernel, KernelFiles};
use super::machine::{Config, Ended, Machine};
use crate::progress;
use crate::test_output::{Reader, Tally};

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Suite {
    /// The tests of the kernel programs, `kernel_*`
    Kernel,
    /// Tunnels by the kernel's WireGuard, in a lab with netem
    Wireguard,
    /// A lab whose network delays, loses and reorders by the kernel's netem
    Netem,
    /// Sunwire beside peers that only these kernels have; run only when it is named
    Bench,
}

/// Its own tests, and of those of wires the one whose tunnels are encrypted: what is no IP packet takes another
/// way into the kernel's tunnel than into the process's.
const WIREGUARD: [lab::Tests; 2] = [
    ("lab_wireguard", ""),
    ("lab_wires", "between_clouds_encrypted"),
];
const NETEM: [lab::Tests; 1] = [("lab_netem", "")];

/// A suite whose programs are built.
pub(super) trait Prepared {
    /// Runs it under one kernel.
    ///
    /// # Errors
    /// When a machine cannot be started, dies or takes too long.
    fn run(&self, session: &Session, kernel: Kernel, files: &KernelFiles) -> Result<Tally>;
}

/// How often a machine is started that dies before it is up. QEMU 7.2 sometimes runs an instruction
/// that another of the guest's processors has replaced meanwhile (`Oops: int3` while Linux patches itself).
const STARTS: u32 = 4;

/// Runs test programs in a machine, shows what they say and keeps it as `output.log` in the machine's
/// folder. A machine that dies or takes too long is a failure beside theirs; one that does not come up
/// is started again.
///
/// # Errors
/// When the machine cannot be started, or the log not be made.
fn tests_in(config: &Config<'_>) -> Result<Tally> {
    let mut starts = 1;
    loop {
        let (mut tally, ended) = tests_once(config)?;
        match ended {
            Some(ended) if !ended.was_up && starts < STARTS => {
                progress::error(&ended.error);
                progress::step("the machine did not come up: starting it again");
                starts += 1;
            }
            ended => {
                let failure = ended.map(|ended| format!("{:#}", ended.error));
                tally.failures.extend(failure);
                return Ok(tally);
            }
        }
    }
}

/// Runs them in one machine, and says how that ended if not by itself.
fn tests_once(config: &Config<'_>) -> Result<(Tally, Option<Ended>)> {
    let machine = Machine::start(config)?;
    let path = config.folder.join("output.log");
    let mut log =
        File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut reader = Reader::default();
    let followed = machine.follow(|line| {
        println!("{line}");
        // A log that cannot be written keeps nobody from the result.
        let _ = writeln!(log, "{line}");
        reader.line(line);
    });
    Ok((reader.finish(), followed.err()))
}

impl Suite {
    /// Those that run when none is named: the tests.
    pub(super) const ALL: &[Suite] = &[Suite::Kernel, Suite::Wireguard, Suite::Netem];

    /// For people, what it tests.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Suite::Kernel => "the kernel programs, run on packets given as data",
            Suite::Wireguard => "tunnels by the kernel's WireGuard, in a lab with netem",
            Suite::Netem => "a lab whose network delays, loses and reorders by the kernel's netem",
            Suite::Bench => "Sunwire beside peers, Open vSwitch among them",
        }
    }

    /// Builds what it runs, and keeps it in a folder until it is dropped.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn prepare(self, folder: &Path) -> Result<Box<dyn Prepared>> {
        match self {
            Suite::Kernel => Ok(Box::new(kernel::Programs::build(folder)?)),
            Suite::Wireguard => Ok(Box::new(lab::Programs::build(self, &WIREGUARD, folder)?)),
            Suite::Netem => Ok(Box::new(lab::Programs::build(self, &NETEM, folder)?)),
            Suite::Bench => Ok(Box::new(bench::Program::build(folder)?)),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is hidden");
        f.pad(value.get_name())
    }
}
