//! What the kernel says of programs and maps, in the descriptions of their descriptors.

use std::fs;
use std::ops::Sub;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::MapData;

/// How often a program has run, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) ns: u64,
}

impl Sub for Runs {
    type Output = Runs;

    fn sub(self, earlier: Runs) -> Runs {
        Runs {
            count: self.count - earlier.count,
            ns: self.ns - earlier.ns,
        }
    }
}

impl Runs {
    pub(super) fn read(program: &impl AsFd) -> Result<Self> {
        let text = description(program)?;
        Ok(Runs {
            count: field(&text, "run_cnt").context("runs are not counted")?,
            ns: field(&text, "run_time_ns").context("the time of runs is not counted")?,
        })
    }

    /// Nanoseconds of one run; `None` when there was none.
    pub(super) fn mean_ns(self) -> Option<f64> {
        (self.count > 0).then(|| self.ns as f64 / self.count as f64)
    }
}

/// Bytes that the kernel holds for all maps pinned in a directory or below it.
pub(super) fn map_bytes(directory: &Path) -> Result<u64> {
    let cannot = || format!("cannot read {}", directory.display());
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        if entry.file_type().with_context(cannot)?.is_dir() {
            bytes += map_bytes(&entry.path())?;
        } else if let Ok(map) = MapData::from_pin(entry.path()) {
            let text = description(map.fd())?;
            // Links are pinned there, too.
            if field(&text, "map_type").is_none() {
                continue;
            }
            bytes += field(&text, "memlock").context("the size of a map is not told")?;
        }
    }
    Ok(bytes)
}

fn description(of: &impl AsFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", of.as_fd().as_raw_fd());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// A line is a name, a colon and a number.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then_some(value)
    })?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_number_behind_its_whole_name() {
        let text = "pos:\t0\nrun_time_ns:\t1234\nrun_cnt:\t5\n";
        assert_eq!(field(text, "run_time_ns"), Some(1234));
        assert_eq!(field(text, "run_cnt"), Some(5));
        assert_eq!(field(text, "run"), None);
    }

    #[test]
    fn the_mean_is_of_the_runs_between_two_readings() {
        let (before, after) = (Runs { count: 1, ns: 50 }, Runs { count: 5, ns: 450 });
        assert_eq!((after - before).mean_ns(), Some(100.0));
        assert_eq!((after - after).mean_ns(), None);
    }
}
