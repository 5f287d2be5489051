//! What packets cost Sunwire in larger clouds: with more endpoints, nodes, rules and flows, and with
//! connections when the table of flows is full.
//!
//! The programs' own time is what the kernel counts of each (`BPF_ENABLE_STATS`), under real traffic
//! from one workload to another on another node, so caches and tables are as they are at work. All
//! sizes of a part exist at the same time and take turns sample by sample.

mod counted;
mod report;

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::sys::{Stats, enable_stats};

use super::dataplane::own_bpf_file_system;
use super::rigs::{Rig, Size};
use super::traffic::{sample, send_flows_while, send_syns_while};
use super::{Case, Metric};
use counted::{Runs, map_bytes};
pub use report::{Figure, Report};

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Endpoints of the network.
    Endpoints,
    /// Nodes of the mesh.
    Nodes,
    /// Rules of the policy.
    Rules,
    /// Flows at the same time.
    Flows,
    /// Connections made while SYNs that lead nowhere fill the table of flows.
    SynLoad,
}

impl Part {
    /// All parts, in the order they are measured.
    pub const ALL: [Part; 5] = [
        Part::Endpoints,
        Part::Nodes,
        Part::Rules,
        Part::Flows,
        Part::SynLoad,
    ];

    /// The name on the command line and in results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Part::Endpoints => "endpoints",
            Part::Nodes => "nodes",
            Part::Rules => "rules",
            Part::Flows => "flows",
            Part::SynLoad => "syn-load",
        }
    }

    const fn sizes(self) -> &'static [u32] {
        match self {
            Part::Endpoints => &[10, 1_000, 10_000, 100_000],
            Part::Nodes => &[2, 10, 100, 1_000],
            Part::Rules => &[10, 100, 1_000, 10_000],
            Part::Flows => &[1, 1_000, 16_000, 100_000, 1_000_000],
            Part::SynLoad => &[],
        }
    }
}

const ROUNDS: usize = 7;
const ROUNDS_QUICK: usize = 3;
const WINDOW: Duration = Duration::from_millis(400);
/// Before anything is counted every flow has been sent this often, at this rate or more.
const WARM_UPS: u32 = 2;
const SLOWEST_PER_S: u32 = 200_000;
/// Room for flows under the load of SYNs, less than what these take within a second.
const ROOM: u32 = 1 << 14;

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fewer samples of the same workload.
    pub quick: bool,
    /// Samples of every figure, at least one; the default when `None`.
    pub rounds: Option<usize>,
    /// Only the part with this name; all when `None`.
    pub part: Option<String>,
}

/// Measures everything. Call it before the process has other threads: it takes a mount namespace
/// of its own. It ends, and everything with it, on the first signal that ends a process.
///
/// # Errors
/// When this process is not root, a cloud cannot be set up, or packets do not come through.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads eBPF: run it as root"
    );
    let default = if options.quick { ROUNDS_QUICK } else { ROUNDS };
    let rounds = options.rounds.unwrap_or(default);
    ensure!(rounds > 0, "at least one round is needed");
    let wanted = |part: &Part| {
        options
            .part
            .as_deref()
            .is_none_or(|name| name == part.name())
    };
    let parts: Vec<Part> = Part::ALL.into_iter().filter(wanted).collect();
    ensure!(!parts.is_empty(), "there is no such part");
    own_bpf_file_system()?;
    let counting: OwnedFd =
        enable_stats(Stats::RunTime).context("the kernel does not count the programs' time")?;
    let mut report = Report::default();
    for part in parts {
        eprintln!("{} ({rounds} rounds)", part.name());
        match part {
            Part::SynLoad => syn_load(rounds, &mut report)?,
            _ => grow(part, rounds, &mut report)?,
        }
    }
    drop(counting);
    Ok(report)
}

/// A cloud of one size.
struct Cloud {
    size: u32,
    flows: u32,
    rig: Rig,
    /// Nanoseconds of a run of the client's node's program, and of the server's node's.
    sends_ns: Vec<f64>,
    receives_ns: Vec<f64>,
    packets_per_s: Vec<f64>,
}

fn grow(part: Part, rounds: usize, report: &mut Report) -> Result<()> {
    let clouds = part.sizes().iter().map(|size| cloud(part, *size));
    let mut clouds = clouds.collect::<Result<Vec<Cloud>>>()?;
    for _ in 0..rounds {
        for cloud in &mut clouds {
            measure(cloud).with_context(|| format!("{} {}", cloud.size, part.name()))?;
        }
    }
    for cloud in clouds {
        let mut add = |metric, unit, samples: Vec<f64>| {
            report.add(Figure::new(part, cloud.size, metric, unit, samples));
        };
        add("endpoint_ingress_ns", "ns", cloud.sends_ns);
        add("underlay_ingress_ns", "ns", cloud.receives_ns);
        add("received_pps", "packets/s", cloud.packets_per_s);
        let bytes = map_bytes(cloud.rig.bpf_directory()?)?;
        add("maps_mb", "MB", vec![bytes as f64 / 1e6]);
    }
    Ok(())
}

fn cloud(part: Part, size: u32) -> Result<Cloud> {
    let mut shape = Size {
        any_port: true,
        ..Size::default()
    };
    let mut flows = 1;
    match part {
        Part::Endpoints => shape.endpoints = size,
        Part::Nodes => shape.nodes = size,
        Part::Rules => shape.rules = size as usize,
        Part::Flows => {
            flows = size;
            let room = size.saturating_mul(2).next_power_of_two();
            shape.flows = Some(room.max(ROOM));
        }
        Part::SynLoad => {}
    }
    Ok(Cloud {
        size,
        flows,
        rig: Rig::of_size(Case::SuperPacket, shape)?,
        sends_ns: Vec::new(),
        receives_ns: Vec::new(),
        packets_per_s: Vec::new(),
    })
}

fn measure(cloud: &mut Cloud) -> Result<()> {
    let programs = cloud.rig.programs()?;
    let read =
        || -> Result<[Runs; 2]> { Ok([Runs::read(&programs[0])?, Runs::read(&programs[1])?]) };
    let warm_up = Duration::from_secs(1) * (WARM_UPS * cloud.flows) / SLOWEST_PER_S;
    let before_all = cloud.rig.readings()?;
    let mut seen = None;
    send_flows_while(cloud.rig.client(), cloud.flows, || {
        thread::sleep(warm_up.max(Duration::from_millis(100)));
        let (began, before) = (Instant::now(), read()?);
        thread::sleep(WINDOW);
        let (elapsed, after) = (began.elapsed(), read()?);
        seen = Some((elapsed, after[0] - before[0], after[1] - before[1]));
        Ok(())
    })?;
    let (elapsed, sends, receives) = seen.context("nothing was seen")?;
    let lost = cloud.rig.dropped_since(before_all)?;
    ensure!(lost == 0, "Sunwire dropped {lost} packets");
    cloud
        .sends_ns
        .push(sends.mean_ns().context("no packet was sent")?);
    let mean = receives.mean_ns().context("no packet came through")?;
    cloud.receives_ns.push(mean);
    let rate = receives.count as f64 / elapsed.as_secs_f64();
    cloud.packets_per_s.push(rate);
    Ok(())
}

/// Connections per second, without other traffic and with the table of flows full of SYNs.
fn syn_load(rounds: usize, report: &mut Report) -> Result<()> {
    let shape = Size {
        flows: Some(ROOM),
        ..Size::default()
    };
    let rig = Rig::of_size(Case::SuperPacket, shape)?;
    let connect = || {
        let taken = sample(Metric::TcpCrr, rig.client(), rig.server(), WINDOW)?;
        Ok(taken.value)
    };
    let (mut quiet, mut loaded) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        quiet.push(connect()?);
        loaded.push(send_syns_while(rig.client(), || {
            // As many SYNs as there is room for, and more.
            thread::sleep(Duration::from_millis(500));
            connect()
        })?);
    }
    for (size, samples) in [(0, quiet), (64_000, loaded)] {
        let unit = "transactions/s";
        report.add(Figure::new(
            Part::SynLoad,
            size,
            "tcp_crr_per_s",
            unit,
            samples,
        ));
    }
    Ok(())
}
