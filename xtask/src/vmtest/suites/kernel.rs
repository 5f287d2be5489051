//! The tests of tier `kernel`, the same programs that `cargo xtask test` runs, in one machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::kept::Kept;
use super::{Prepared, tests_in};
use crate::test_output::Tally;
use crate::tiers::{self, Tier};
use crate::vmtest::Session;
use crate::vmtest::image::{quoted, quoted_text};
use crate::vmtest::kernel::{Kernel, KernelFiles};
use crate::vmtest::machine::Config;
use crate::{build_ebpf, process, progress, setup, test, workspace};

/// The tier whose tests these are.
const TIER: &str = "kernel";
const MEMORY_MIB: u32 = 2048;
/// For all of them on an idle machine, where they take about fifteen minutes, most of it in the verifier; and
/// for a machine that is held for a while.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The test programs, built.
pub(super) struct Programs {
    tier: Tier,
    kept: Kept,
}

impl Programs {
    pub(super) fn build(folder: &Path) -> Result<Self> {
        build_ebpf::build(&setup::ensure()?)?;
        let tests = tiers::integration_tests(&workspace::metadata()?);
        let tier = tiers::assign(test::TABLE, &tests)?
            .into_iter()
            .find(|tier| tier.name == TIER)
            .context("tiers.json has no tier of kernel tests")?;
        progress::step("build: tests of the kernel programs");
        let mut command = test::host_cargo("test");
        command.args(["--no-run", "--message-format=json-render-diagnostics"]);
        for test in &tier.tests {
            command.args(["--test", test]);
        }
        command.stderr(std::process::Stdio::inherit());
        let paths = executables(&process::output(&mut command)?);
        if paths.len() != tier.tests.len() {
            bail!("cargo built {} of {} tests", paths.len(), tier.tests.len());
        }
        let kept = Kept::new(&paths, folder)?;
        Ok(Programs { tier, kept })
    }

    fn script(&self, filter: Option<&str>) -> Result<String> {
        // For the devices of the tests; the kernel asks for no module by the kind of a device that
        // is made in another namespace than its first.
        let mut script = String::from("modprobe -a veth vxlan bridge tun sch_ingress cls_bpf\n");
        for path in &self.kept.paths {
            let filter = filter.map(quoted_text).unwrap_or_default();
            script.push_str(&format!(
                "run {} --show-output --color=never {filter}\n",
                quoted(path)?
            ));
        }
        Ok(script)
    }
}

impl Prepared for Programs {
    fn run(&self, session: &Session, kernel: Kernel, files: &KernelFiles) -> Result<Tally> {
        let filter = session.filter.as_deref();
        let folder = session.folder.join(format!("{TIER}-{kernel}"));
        let mut tally = tests_in(&Config {
            tools: &session.tools,
            kernel: files,
            folder,
            memory_mib: MEMORY_MIB,
            script: &self.script(filter)?,
            limit: LIMIT,
        })?;
        if filter.is_none() && tally.ran() < self.tier.minimum {
            tally.failures.push(format!(
                "{} tests ran, fewer than the minimum of {} ({} skipped)",
                tally.ran(),
                self.tier.minimum,
                tally.skipped()
            ));
        }
        Ok(tally)
    }
}

/// The programs that cargo names in its messages.
pub(super) fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .filter(|path| path.components().any(|part| part.as_os_str() == "deps"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::executables;

    #[test]
    fn of_what_cargo_made_only_test_programs_are_run() {
        let messages = r#"{"reason":"compiler-artifact","executable":null}
{"reason":"compiler-artifact","executable":"/t/debug/sunwire"}
{"reason":"compiler-artifact","executable":"/t/debug/deps/kernel_packets-0a1b"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("kernel_packets-0a1b"));
    }
}
