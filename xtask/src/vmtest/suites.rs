//! What is run in virtual machines: one file per suite.
//!
//! A suite builds what it runs once and then runs it under each kernel. How many machines it starts
//! for that, and with what, is its own affair.

mod kernel;
mod wireguard;

use std::fmt;

use anyhow::Result;
use clap::ValueEnum as _;

use super::Session;
use super::kernel::{Kernel, KernelFiles};
use crate::test_output::Tally;

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
