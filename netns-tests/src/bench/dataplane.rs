//! Who is measured when: for every case and metric, round by round, the systems in turn.
//!
//! Systems alternate so that whatever else the machine does meets all of them alike; figures are
//! medians over the rounds.

use std::fs::{self, File};
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::report::{Figure, Report};
use super::rigs::{self, Rig};
use super::traffic::sample;
use super::{Case, Metric, System, profile};

/// Where the data planes keep their maps and links.
pub(super) const BPF_DIRECTORY: &str = "/sys/fs/bpf";

const ROUNDS_QUICK: usize = 3;
const WINDOW: Duration = Duration::from_millis(600);
const WINDOW_QUICK: Duration = Duration::from_millis(250);

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer and shorter samples of the same workload.
    pub quick: bool,
    /// Samples of every figure, at least one; the default when `None`.
    pub rounds: Option<usize>,
    /// Only cases with this name; all when `None`.
    pub case: Option<String>,
    /// Only metrics with these names; all when empty.
    pub metrics: Vec<String>,
    /// Only systems with these names; all when empty.
    pub systems: Vec<String>,
    /// Folder that gets every sample as a line of `dataplane.jsonl`.
    pub data: Option<PathBuf>,
}

/// Measures all systems. Call it before the process has other threads: it takes a mount namespace
/// of its own, with a BPF file system that nobody else sees. It ends, and everything with it, on
/// the first signal that ends a process.
///
/// # Errors
/// When this process is not root, when a system cannot be set up, or when traffic did not cross it
/// as it should have: there are no figures of a broken system.
pub fn run(options: &Options) -> Result<Report> {
    let plan = Plan::new(options)?;
    own_bpf_file_system()?;
    let mut log = SampleLog::open(options)?;
    let rounds: usize = plan.metrics.iter().map(|metric| plan.rounds(*metric)).sum();
    let progress = Progress::new(plan.cases.len() * rounds * plan.systems.len());
    let mut report = Report::default();
    for (system, what) in &plan.missing {
        report.note(format!("{} is not measured: {what}", system.name()));
    }
    let window = plan.window;
    for case in plan.cases.iter().copied() {
        progress.say(&format!("{}: setting up", case.name()));
        let rigs = set_up(&plan.systems, case)?;
        for metric in &plan.metrics {
            progress.say(&format!("{}: {}", case.name(), metric.name()));
            let rounds = plan.rounds(*metric);
            let mut values = vec![Vec::with_capacity(rounds); rigs.len()];
            for _ in 0..rounds {
                for (rig, values) in rigs.iter().zip(&mut values) {
                    let value = measure(rig, *metric, window)?;
                    values.push(value);
                    log.write(case, *metric, rig.system(), value)?;
                    progress.step();
                }
            }
            for (rig, values) in rigs.iter().zip(values) {
                report.add(Figure::new(case, *metric, rig.system(), values));
            }
        }
    }
    progress.end();
    Ok(report)
}

/// Records where the time of one figure goes, system by system; as [`run`] else.
///
/// # Errors
/// As [`run`], and when the options leave more than one case or metric, or there is no `perf`.
pub fn profile(options: &Options) -> Result<String> {
    let plan = Plan::new(options)?;
    let ([case], [metric]) = (&plan.cases[..], &plan.metrics[..]) else {
        bail!("a profile is of one figure: give --case and --metric");
    };
    own_bpf_file_system()?;
    let rigs = set_up(&plan.systems, *case)?;
    profile::run(&rigs, *case, *metric)
}

/// What the options ask for.
struct Plan {
    cases: Vec<Case>,
    metrics: Vec<Metric>,
    systems: Vec<System>,
    /// Systems that cannot be measured here, and why.
    missing: Vec<(System, String)>,
    /// For every metric, when given.
    rounds: Option<usize>,
    window: Duration,
}

impl Plan {
    fn new(options: &Options) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the benchmark makes network namespaces and loads eBPF: run it as root"
        );
        let rounds = options.rounds.or(options.quick.then_some(ROUNDS_QUICK));
        ensure!(rounds != Some(0), "at least one round is needed");
        let named =
            |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        let cases = Case::ALL.into_iter();
        let metrics = || Metric::ALL.into_iter();
        for name in &options.metrics {
            let known = metrics().any(|metric| metric.name() == name);
            ensure!(known, "there is no metric {name}");
        }
        let mut systems: Vec<System> = System::ALL.to_vec();
        if !options.systems.is_empty() {
            for name in &options.systems {
                let known = systems.iter().any(|system| system.name() == name);
                ensure!(known, "there is no system {name}");
            }
            systems.retain(|system| options.systems.iter().any(|name| name == system.name()));
        }
        let missing: Vec<_> = systems
            .iter()
            .filter_map(|system| Some((*system, rigs::missing(*system)?)))
            .collect();
        systems.retain(|system| !missing.iter().any(|(gone, _)| gone == system));
        let plan = Plan {
            cases: cases
                .filter(|case| named(&options.case, case.name()))
                .collect(),
            metrics: metrics()
                .filter(|metric| {
                    options.metrics.is_empty()
                        || options.metrics.iter().any(|name| name == metric.name())
                })
                .collect(),
            systems,
            missing,
            rounds,
            window: if options.quick { WINDOW_QUICK } else { WINDOW },
        };
        ensure!(!plan.cases.is_empty(), "there is no such case");
        ensure!(!plan.systems.is_empty(), "no system is left to measure");
        Ok(plan)
    }

    fn rounds(&self, metric: Metric) -> usize {
        self.rounds.unwrap_or(metric.rounds())
    }
}

fn set_up(systems: &[System], case: Case) -> Result<Vec<Rig>> {
    systems
        .iter()
        .map(|system| Rig::new(*system, case))
        .collect()
}

/// One sample, or why it says nothing.
fn measure(rig: &Rig, metric: Metric, window: Duration) -> Result<f64> {
    let before = rig.readings()?;
    let taken = sample(metric, rig.client(), rig.server(), window);
    let taken = taken.with_context(|| format!("{} by {}", metric.name(), rig.system().name()))?;
    rig.check(metric, taken.count, before, rig.readings()?)?;
    Ok(taken.value)
}

/// Mounts a BPF file system that only this process and its threads see.
pub(super) fn own_bpf_file_system() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .context("cannot keep mounts to this process")?;
    mount(
        Some("bpf"),
        BPF_DIRECTORY,
        Some("bpf"),
        MsFlags::empty(),
        Some("mode=0700"),
    )
    .with_context(|| format!("cannot mount a BPF file system on {BPF_DIRECTORY}"))
}

/// Every sample, for whoever wants more than medians.
struct SampleLog(Option<File>);

impl SampleLog {
    fn open(options: &Options) -> Result<Self> {
        let Some(folder) = &options.data else {
            return Ok(SampleLog(None));
        };
        let path = folder.join("dataplane.jsonl");
        let file = fs::create_dir_all(folder).and_then(|()| File::create(&path));
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(SampleLog(Some(file)))
    }

    fn write(&mut self, case: Case, metric: Metric, system: System, value: f64) -> Result<()> {
        let Some(file) = &mut self.0 else {
            return Ok(());
        };
        let line = json!({
            "case": case.name(),
            "metric": metric.name(),
            "system": system.name(),
            "value": value,
        });
        writeln!(file, "{line}").context("cannot write a sample")
    }
}

/// Progress on standard error: a bar on a terminal, else a line for every metric.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(samples: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let style = ProgressStyle::with_template("{msg:40} {wide_bar} {pos}/{len}, {eta} left")
            .expect("the template is well formed");
        Progress(Some(ProgressBar::new(samples as u64).with_style(style)))
    }

    fn say(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("{text}"),
        }
    }

    fn step(&self) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
