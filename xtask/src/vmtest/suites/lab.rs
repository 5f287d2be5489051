//! Whole labs in one machine, with the real binary, for what a small kernel lacks: WireGuard, and delay,
//! loss and reordering by netem.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};

use super::kept::Kept;
use super::kernel::executables;
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
    kept: Kept,
}

impl Programs {
    /// Builds the test program `name`.
    pub(super) fn build(suite: Suite, name: &str, folder: &Path) -> Result<Self> {
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
        if paths.len() != 2 {
            bail!("cargo built no test {name}");
        }
        let kept = Kept::new(&paths, folder)?;
        Ok(Programs { suite, kept })
    }

    fn script(&self, filter: Option<&str>) -> Result<String> {
        let filter = filter.map(quoted_text).unwrap_or_default();
        let (test, binary) = (&self.kept.paths[0], &self.kept.paths[1]);
        // The kernel asks for no module by the kind of a device that is made in another namespace
        // than its first.
        Ok(format!(
            "modprobe -a veth vxlan bridge tun sch_ingress cls_bpf wireguard sch_netem\n\
             export SUNWIRE_BIN={} SUNWIRE_PATIENCE_FACTOR={PATIENCE_FACTOR}\n\
             run {} --show-output --color=never --test-threads=1 {filter}\n",
            quoted(binary)?,
            quoted(test)?
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
