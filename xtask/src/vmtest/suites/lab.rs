//! Whole labs in one machine, with the real binary, for what a small kernel lacks: WireGuard, and delay,
//! loss and reordering by netem.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::kernel::{executables, kept};
use super::{Prepared, Suite, tests_in};
use crate::test_output::Tally;
use crate::vmtest::Session;
use crate::vmtest::image::{quoted, quoted_text};
use crate::vmtest::kernel::{Kernel, KernelFiles};
use crate::vmtest::machine::Config;
use crate::{build_ebpf, process, progress, setup, workspace};

const BINARY: &str = "sunwire";
const MEMORY_MIB: u32 = 3072;
/// For all of them on an idle machine.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// How many times slower the machine is than this one.
const PATIENCE_FACTOR: u32 = 10;

/// The test program and the binary that it starts, built.
pub(super) struct Programs {
    suite: Suite,
    test: PathBuf,
    binary: PathBuf,
}

impl Programs {
    /// Builds the test program `name`.
    pub(super) fn build(suite: Suite, name: &str) -> Result<Self> {
        build_ebpf::build(&setup::ensure()?)?;
        progress::step(&format!("build: the tests {name}, and the binary"));
        let build = |arguments: &[&str]| {
            let mut command = process::cargo();
            command.args(arguments).current_dir(workspace::root());
            command.arg("--message-format=json-render-diagnostics");
            command.stderr(std::process::Stdio::inherit());
            process::output(&mut command)
        };
        let binary = ["build", "-p", "sunwire-cli", "--bin", BINARY];
        build(&binary)?;
        let test = [
            "test",
            "-p",
            "sunwire-netns-tests",
            "--no-run",
            "--test",
            name,
        ];
        let mut paths = executables(&build(&test)?);
        paths.push(workspace::target_dir()?.join("debug").join(BINARY));
        let folder = workspace::target_dir()?.join(format!("vmtest/programs-{suite}"));
        let paths = kept(&paths, &folder)?;
        let [test, binary] = paths.try_into().ok().context("cargo built no such test")?;
        Ok(Programs {
            suite,
            test,
            binary,
        })
    }

    fn script(&self, filter: Option<&str>) -> Result<String> {
        let filter = filter.map(quoted_text).unwrap_or_default();
        // The kernel asks for no module by the kind of a device that is made in another namespace
        // than its first.
        Ok(format!(
            "modprobe -a veth vxlan bridge tun sch_ingress cls_bpf wireguard sch_netem\n\
             export SUNWIRE_BIN={} SUNWIRE_PATIENCE_FACTOR={PATIENCE_FACTOR}\n\
             run {} --show-output --color=never --test-threads=1 {filter}\n",
            quoted(&self.binary)?,
            quoted(&self.test)?
        ))
    }
}

impl Prepared for Programs {
    fn run(&self, session: &Session, kernel: Kernel, files: &KernelFiles) -> Result<Tally> {
        let folder = session.folder.join(format!("{}-{kernel}", self.suite));
        let mut tally = tests_in(&Config {
            tools: &session.tools,
            kernel: files,
            folder,
            memory_mib: MEMORY_MIB,
            script: &self.script(session.filter.as_deref())?,
            limit: LIMIT,
        })?;
        // There a kernel that has it is started for them.
        for test in &tally.skipped {
            tally
                .failures
                .push(format!("{test} was skipped where it should run"));
        }
        Ok(tally)
    }
}
