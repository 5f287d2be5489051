//! What is run in virtual machines: one file per suite.
//!
//! A suite builds what it runs once and then runs it under each kernel. How many machines it starts
//! for that, and with what, is its own affair.

mod kernel;
mod wireguard;

use std::fmt;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use super::Session;
use super::kernel::{Kernel, KernelFiles};
use super::machine::{Config, Machine};
use crate::test_output::{Reader, Tally};

/// A suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Suite {
    /// The tests of the kernel programs, `kernel_*`
    Kernel,
    /// Tunnels by the kernel's WireGuard, in a lab with netem
    Wireguard,
}

/// A suite whose programs are built.
pub(super) trait Prepared {
    /// Runs it under one kernel.
    ///
    /// # Errors
    /// When a machine cannot be started, dies or takes too long.
    fn run(&self, session: &Session, kernel: Kernel, files: &KernelFiles) -> Result<Tally>;
}

/// Runs test programs in a machine, shows what they say and keeps it as `output.log` in the machine's
/// folder. A machine that dies or takes too long is a failure beside theirs.
///
/// # Errors
/// When the machine cannot be started, or the log not be made.
fn tests_in(config: &Config<'_>) -> Result<Tally> {
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
    let mut tally = reader.finish();
    if let Err(error) = followed {
        tally.failures.push(format!("{error:#}"));
    }
    Ok(tally)
}

impl Suite {
    pub(super) const ALL: &[Suite] = &[Suite::Kernel, Suite::Wireguard];

    /// For people, what it tests.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Suite::Kernel => "the kernel programs, run on packets given as data",
            Suite::Wireguard => "tunnels by the kernel's WireGuard, in a lab with netem",
        }
    }

    /// Builds what it runs.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn prepare(self) -> Result<Box<dyn Prepared>> {
        match self {
            Suite::Kernel => Ok(Box::new(kernel::Programs::build()?)),
            Suite::Wireguard => Ok(Box::new(wireguard::Programs::build()?)),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value().expect("none is hidden");
        f.pad(value.get_name())
    }
}
