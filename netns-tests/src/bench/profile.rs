//! Where the time of one figure goes: `perf record` around one sample of each system.
//!
//! The processors' clock is what samples (`cpu-clock`): it is there in virtual machines too, which
//! seldom have hardware counters. All processors are recorded, because a packet's way goes on in
//! soft interrupts of whoever happens to run. Profiles of two systems are compared by the time that
//! a symbol takes *per unit of the metric* (a datagram, a transaction, 1,448 bytes of a stream), for
//! shares of a whole hide that the whole is smaller.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::rigs::Rig;
use super::traffic::sample_while;
use super::{Case, Metric, System};

/// Samples per second and processor.
const FREQUENCY_HZ: u32 = 5_000;
/// Times that every system is recorded, in turns, and for how long.
const ROUNDS: u32 = 3;
const SECONDS: u32 = 1;
/// Symbols that are shown of each list.
const SHOWN: usize = 30;

/// Records samples of every rig and says where the time went.
///
/// # Errors
/// When there is no `perf`, it fails, or the traffic does not cross.
pub(super) fn run(rigs: &[Rig], case: Case, metric: Metric) -> Result<String> {
    let folder = Folder::new()?;
    let own = std::fs::read_to_string("/proc/self/comm").context("this program has no name")?;
    let empty = |rig: &Rig| Profile {
        system: rig.system(),
        units: 0.0,
        samples: BTreeMap::new(),
    };
    let mut profiles: Vec<Profile> = rigs.iter().map(empty).collect();
    for round in 1..=ROUNDS {
        for (rig, profile) in rigs.iter().zip(&mut profiles) {
            eprintln!("profile of {} ({round}/{ROUNDS})", rig.system().name());
            let data = folder.0.join("perf.data");
            let before = rig.readings()?;
            let record = || record(&data);
            let taken = sample_while(metric, rig.client(), rig.server(), record)?;
            rig.check(metric, taken.count, before, rig.readings()?)?;
            profile.units += taken.value * metric.packets_per_unit() * f64::from(SECONDS);
            for (symbol, count) in read(&data, own.trim())? {
                *profile.samples.entry(symbol).or_default() += count;
            }
        }
    }
    Ok(table(&profiles, case, metric))
}

/// What was recorded of a system.
struct Profile {
    system: System,
    /// Packets or transactions meanwhile; recording costs a little.
    units: f64,
    /// Samples by symbol, on all processors.
    samples: BTreeMap<String, u64>,
}

impl Profile {
    /// Nanoseconds of a number of samples for each packet or transaction.
    fn ns(&self, samples: u64) -> f64 {
        samples as f64 * 1e9 / f64::from(FREQUENCY_HZ) / self.units
    }

    fn symbol_ns(&self, symbol: &str) -> f64 {
        self.ns(self.samples.get(symbol).copied().unwrap_or(0))
    }

    fn busy_ns(&self) -> f64 {
        let busy = self.samples.iter().filter(|(symbol, _)| !is_idle(symbol));
        self.ns(busy.map(|(_, samples)| samples).sum())
    }
}

/// A folder that goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("sunwire-bench-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(data: &Path) -> Result<()> {
    let mut perf = Command::new("perf");
    perf.args(["record", "--quiet", "--all-cpus", "--event", "cpu-clock"])
        .args(["--freq", &FREQUENCY_HZ.to_string(), "--output"])
        .arg(data)
        .args(["--", "sleep", &SECONDS.to_string()]);
    output(perf).map(drop)
}

/// Samples by symbol.
fn read(data: &Path, own: &str) -> Result<BTreeMap<String, u64>> {
    let mut perf = Command::new("perf");
    perf.args(["report", "--stdio", "--quiet", "--show-nr-samples"])
        .args([
            "--sort",
            "comm,symbol",
            "--field-separator",
            "\t",
            "--input",
        ])
        .arg(data);
    let samples = parse(&output(perf)?, own);
    ensure!(!samples.is_empty(), "perf recorded nothing");
    Ok(samples)
}

/// Lines of overhead, samples, thread and `[k] symbol`, parted by tabs. Threads count that have to do
/// with the traffic: those of this program, `own`, and the kernel's for soft interrupts. What meets other
/// programs is taken for theirs.
fn parse(text: &str, own: &str) -> BTreeMap<String, u64> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split('\t');
        let (Some(_), Some(count), Some(program), Some(symbol)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let program = program.trim();
        if program != own && program != "swapper" && !program.starts_with("ksoftirqd") {
            continue;
        }
        let Ok(count) = count.trim().parse::<u64>() else {
            continue;
        };
        // `[k]` is the kernel; of a program of ours, whatever it does is its own.
        let symbol = match symbol.trim().split_once(' ') {
            Some(("[k]", name)) => name.trim(),
            _ => "(user space)",
        };
        *samples.entry(symbol.to_owned()).or_default() += count;
    }
    samples
}

fn output(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .context("cannot start perf, which --profile needs")?;
    if !output.status.success() {
        bail!(
            "perf failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What processors do when they have nothing to do.
fn is_idle(symbol: &str) -> bool {
    [
        "default_idle",
        "pv_native_safe_halt",
        "native_safe_halt",
        "acpi_safe_halt",
        "mwait_idle",
    ]
    .contains(&symbol)
        || symbol.starts_with("acpi_idle")
        || symbol.starts_with("intel_idle")
}

fn table(profiles: &[Profile], case: Case, metric: Metric) -> String {
    let mut text = format!(
        "{} in {}: nanoseconds of processor time by {}\n{:<44}",
        metric.name(),
        case.name(),
        metric.packet_name(),
        ""
    );
    for profile in profiles {
        let _ = write!(text, "{:>18}", profile.system.name());
    }
    text.push('\n');
    let mut row = |name: &str, ns: &dyn Fn(&Profile) -> f64| {
        let _ = write!(text, "{name:<44}");
        for profile in profiles {
            let _ = write!(text, "{:>18.1}", ns(profile));
        }
        text.push('\n');
    };
    row("(all symbols)", &Profile::busy_ns);
    let most = |symbol: &str| {
        let all = profiles.iter().map(|profile| profile.symbol_ns(symbol));
        all.fold(0.0, f64::max)
    };
    for (symbol, _) in sorted(profiles, most) {
        row(symbol, &|profile| profile.symbol_ns(symbol));
    }
    let of = |system| profiles.iter().find(|profile| profile.system == system);
    for peer in [System::Veth, System::KernelVxlan] {
        if let (Some(own), Some(peer)) = (of(System::Sunwire), of(peer)) {
            let more = |symbol: &str| own.symbol_ns(symbol) - peer.symbol_ns(symbol);
            let all = own.busy_ns() - peer.busy_ns();
            let _ = writeln!(text, "\nmore than {}: {all:.1}", peer.system.name());
            for (symbol, ns) in sorted(profiles, more) {
                let _ = writeln!(text, "{symbol:<44}{ns:>18.1}");
            }
        }
    }
    text
}

/// The symbols with the largest positive values, largest first.
fn sorted(profiles: &[Profile], value: impl Fn(&str) -> f64) -> Vec<(&str, f64)> {
    let symbols = profiles.iter().flat_map(|profile| profile.samples.keys());
    let symbols: BTreeSet<&str> = symbols.map(String::as_str).collect();
    let busy = symbols.into_iter().filter(|symbol| !is_idle(symbol));
    let mut sorted: Vec<(&str, f64)> = busy.map(|symbol| (symbol, value(symbol))).collect();
    sorted.retain(|(_, value)| *value > 0.0);
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    sorted.truncate(SHOWN);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(system: System, samples: &[(&str, u64)]) -> Profile {
        Profile {
            system,
            units: 1e9 / f64::from(FREQUENCY_HZ),
            samples: samples
                .iter()
                .map(|(name, n)| ((*name).to_owned(), *n))
                .collect(),
        }
    }

    #[test]
    fn samples_are_added_up_by_symbol_and_other_programs_are_left_out() {
        let text = "# Overhead\tSamples\tCommand\tSymbol\n\
                    50.00%\t100\tbench\t[k] veth_xmit\n\
                    20.00%\t40\tksoftirqd/1\t[k] veth_xmit\n\
                    20.00%\t40\trustc\t[k] veth_xmit\n\
                    10.00%\t20\tbench\t[.] main\n\
                    5.00%\t10\tbench\t[.] read\nnothing\n";
        let samples = parse(text, "bench");
        assert_eq!(samples["veth_xmit"], 140);
        assert_eq!(samples["(user space)"], 30);
        assert_eq!(samples.len(), 2);
    }

    #[test]
    fn the_table_says_what_sunwire_adds_and_leaves_idling_out() {
        let profiles = [
            profile(System::Veth, &[("veth_xmit", 10), ("default_idle", 1000)]),
            profile(System::Sunwire, &[("veth_xmit", 14), ("htab_map_hash", 6)]),
        ];
        let table = table(&profiles, Case::SuperPacket, Metric::UdpRr);
        let (all, more) = table.split_once("\nmore than veth: 10.0\n").unwrap();
        assert!(!all.contains("default_idle"), "{all}");
        let more: Vec<_> = more
            .lines()
            .map(|line| line.split_ascii_whitespace())
            .collect();
        let more: Vec<Vec<_>> = more.into_iter().map(Iterator::collect).collect();
        assert_eq!(more, [["htab_map_hash", "6.0"], ["veth_xmit", "4.0"]]);
    }
}
