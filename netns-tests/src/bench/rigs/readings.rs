//! Counters of devices, from `/proc/net/dev` of a namespace.

use std::fs;
use std::ops::Sub;

use anyhow::{Context as _, Result};

use crate::bench::namespace::Namespace;

/// What went through a device, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crossed {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Sub for Crossed {
    type Output = Crossed;

    fn sub(self, earlier: Crossed) -> Crossed {
        Crossed {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl Crossed {
    pub(super) fn read(namespace: &Namespace, device: &str) -> Result<Self> {
        namespace.run(|| {
            let text = fs::read_to_string("/proc/thread-self/net/dev")
                .context("cannot read the counters of devices")?;
            parse(&text, device).with_context(|| format!("device {device} has no counters"))
        })
    }
}

/// Bytes that went through a device, both directions together.
pub(super) fn device_bytes(namespace: &Namespace, device: &str) -> Result<u64> {
    Ok(Crossed::read(namespace, device)?.bytes)
}

/// Eight columns of what was received, bytes and packets first, then as many of what was sent.
fn parse(text: &str, device: &str) -> Option<Crossed> {
    let line = text.lines().find_map(|line| {
        let (name, counters) = line.split_once(':')?;
        (name.trim() == device).then_some(counters)
    })?;
    let counters: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    Some(Crossed {
        packets: counters.get(1)? + counters.get(9)?,
        bytes: counters.first()? + counters.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo
    lo:       9       9    0    0    0     0          0         0        9       9    0    0    0
 wire0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0
";

    #[test]
    fn both_directions_of_the_named_device_are_added() {
        let expected = Crossed {
            packets: 30,
            bytes: 3000,
        };
        assert_eq!(parse(TEXT, "wire0"), Some(expected));
        assert_eq!(parse(TEXT, "wire"), None);
    }
}
