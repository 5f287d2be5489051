//! Whole labs in one machine, with the real binary, for what a small kernel lacks: WireGuard, and delay,
//! loss and reordering by netem.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

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

/// A test program, and what the names of its tests contain that are run.
pub(super) type Tests = (&'static str, &'static str);

/// The test programs and the binary that they start, built.
pub(super) struct Programs {
    suite: Suite,
    tests: &'static [Tests],
    /// The programs, and then the binary.
    kept: Kept,
}

impl Programs {
    /// Builds them.
    pub(super) fn build(suite: Suite, tests: &'static [Tests], folder: &Path) -> Result<Self> {
        build_ebpf::build(&setup::ensure()?)?;
        let names: Vec<&str> = tests.iter().map(|(name, _)| *name).collect();
        let listed = names.join(" and ");
        progress::step(&format!("build: the tests {listed}, and the binary"));
        let build = |arguments: &[&str]| {
            let mut command = process::cargo();
            command.args(arguments).current_dir(workspace::root());
            command.arg("--message-format=json-render-diagnostics");
            command.stderr(std::process::Stdio::inherit());
            process::output(&mut command)
        };
        let binary = ["build", "-p", "sunwire-cli", "--bin", BINARY];
        build(&binary)?;
        let mut arguments = vec!["test", "-p", "sunwire-netns-tests", "--no-run"];
        for name in &names {
            arguments.extend(["--test", name]);
        }
        let built = executables(&build(&arguments)?);
        let mut paths = Vec::new();
        for name in names {
            let is_it = |path: &&PathBuf| is_program(path, name);
            let path = built.iter().find(is_it);
            paths.push(
                path.with_context(|| format!("cargo built no test {name}"))?
                    .clone(),
            );
        }
        paths.push(workspace::target_dir()?.join("debug").join(BINARY));
        let kept = Kept::new(&paths, folder)?;
        Ok(Programs { suite, tests, kept })
    }

    fn script(&self, filter: Option<&str>) -> Result<String> {
        let (binary, programs) = self.kept.paths.split_last().context("it was kept")?;
        // The kernel asks for no module by the kind of a device that is made in another namespace
        // than its first.
        let mut script = format!(
            "modprobe -a veth vxlan bridge tun sch_ingress cls_bpf wireguard sch_netem\n\
             export SUNWIRE_BIN={} SUNWIRE_PATIENCE_FACTOR={PATIENCE_FACTOR}\n",
            quoted(binary)?,
        );
        for (program, (_, only)) in programs.iter().zip(self.tests) {
            let filter = quoted_text(filter.unwrap_or(only));
            script.push_str(&format!(
                "run {} --show-output --color=never --test-threads=1 {filter}\n",
                quoted(program)?
            ));
        }
        Ok(script)
    }
}

/// Whether a file is the test program of that name, behind which cargo puts a hash.
fn is_program(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|file| file.to_str());
    file.and_then(|file| file.rsplit_once('-'))
        .is_some_and(|(program, _)| program == name)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::is_program;

    #[test]
    fn a_test_program_is_told_from_one_whose_name_is_longer() {
        let path = Path::new("target/debug/deps/lab_wires-0a1b");
        assert!(is_program(path, "lab_wires"));
        assert!(!is_program(path, "lab"));
        assert!(!is_program(Path::new("lab_wires_more-0a1b"), "lab_wires"));
    }
}
