//! A short `bench dataplane` in a machine, beside Open vSwitch, which a small kernel lacks.
//!
//! Instructions are translated there, so that only ratios say something, and those roughly.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Prepared;
use super::kept::Kept;
use crate::test_output::Tally;
use crate::vmtest::Session;
use crate::vmtest::image::quoted;
use crate::vmtest::kernel::{self, Kernel, KernelFiles};
use crate::vmtest::machine::{Config, Machine};
use crate::{build_ebpf, process, progress, setup, workspace};

const BINARY: &str = "sunwire-bench";
const MEMORY_MIB: u32 = 3072;
/// On an idle machine.
const LIMIT: Duration = Duration::from_secs(30 * 60);
const SYSTEMS: [&str; 4] = ["veth", "kernel-vxlan", "ovs", "sunwire"];
const METRICS: [&str; 4] = ["tcp1_gbps", "udp_small_pps", "udp_rr_per_s", "tcp_rr_per_s"];
const ROUNDS: u32 = 7;

/// The benchmark, built as tests are: what is measured is the kernel's.
pub(super) struct Program(Kept);

impl Program {
    pub(super) fn build(folder: &Path) -> Result<Self> {
        build_ebpf::build(&setup::ensure()?)?;
        progress::step("build: the benchmark");
        let mut command = process::cargo();
        command
            .args(["build", "-p", "sunwire-netns-tests", "--bin", BINARY])
            .current_dir(workspace::root());
        process::run(&mut command)?;
        let built = workspace::target_dir()?.join("debug").join(BINARY);
        Ok(Program(Kept::new(&[built], folder)?))
    }
}

impl Prepared for Program {
    fn run(&self, session: &Session, kernel: Kernel, files: &KernelFiles) -> Result<Tally> {
        let switch = kernel::ensure_switch(&session.folder, session.mirror.as_deref(), false)
            .context("cannot get Open vSwitch")?;
        let folder = session.folder.join(format!("bench-{kernel}"));
        // Standard error has the table, and is to be no terminal, or a bar of progress is drawn over the lines.
        let script = format!(
            "modprobe -a veth vxlan bridge tun sch_ingress cls_bpf openvswitch\n\
             export SUNWIRE_OVS={}\n\
             run {} dataplane --json --quick --rounds {ROUNDS} --case super-packet --metric {} --system {} 2>&1 | cat\n",
            quoted(&switch)?,
            quoted(&self.0.paths[0])?,
            METRICS.join(","),
            SYSTEMS.join(",")
        );
        let machine = Machine::start(&Config {
            tools: &session.tools,
            kernel: files,
            folder: folder.clone(),
            memory_mib: MEMORY_MIB,
            script: &script,
            limit: LIMIT,
        })?;
        let mut log = File::create(folder.join("output.log")).context("cannot write the output")?;
        let mut measured = Vec::new();
        let followed = machine.follow(|line| {
            println!("{line}");
            // A log that cannot be written keeps nobody from the result.
            let _ = writeln!(log, "{line}");
            measured.extend(figure(line));
        });
        let mut tally = Tally::default();
        tally
            .failures
            .extend(followed.err().map(|ended| format!("{:#}", ended.error)));
        for system in SYSTEMS {
            for metric in METRICS {
                let is_there = measured.iter().any(|(s, m)| s == system && m == metric);
                match is_there {
                    true => tally.passed += 1,
                    false => tally
                        .failures
                        .push(format!("bench: no {metric} of {system}")),
                }
            }
        }
        Ok(tally)
    }
}

/// System and metric of a line of results.
fn figure(line: &str) -> Option<(String, String)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| Some(value.get(name)?.as_str()?.to_owned());
    Some((text("system")?, text("metric")?))
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn lines_of_results_are_told_from_others() {
        let line = r#"{"bench":"dataplane","metric":"tcp1_gbps","system":"ovs","value":1.0}"#;
        assert_eq!(figure(line), Some(("ovs".into(), "tcp1_gbps".into())));
        assert_eq!(figure("super-packet: setting up"), None);
        assert_eq!(figure("{}"), None);
    }
}
