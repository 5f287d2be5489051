//! Round-trip times between public cloud regions, built in.
//!
//! Measured values (see `data/NOTICE`). A round trip has no direction but some
//! measurements do, the lower being shorter than light in fibre allows, so the
//! larger of both directions' minima counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

/// Round-trip time between two nodes of one region: typical within and between
/// the zones of a region.
pub const RTT_WITHIN_REGION: Duration = Duration::from_micros(500);

const CSV: &str = include_str!("../data/cloud-rtt.csv");

/// Minimum round-trip time between two regions, in either order; `None` when
/// one of them is not built in.
#[must_use]
pub fn rtt(a: &str, b: &str) -> Option<Duration> {
    if a == b {
        return Some(RTT_WITHIN_REGION);
    }
    table().get(&ordered(a, b)).copied()
}

/// The regions that the matrix knows, sorted.
#[must_use]
pub fn regions() -> Vec<&'static str> {
    let names: BTreeSet<_> = table().keys().flat_map(|(a, b)| [*a, *b]).collect();
    names.into_iter().collect()
}

fn ordered<'a>(a: &'a str, b: &'a str) -> (&'a str, &'a str) {
    if a < b { (a, b) } else { (b, a) }
}

fn table() -> &'static BTreeMap<(&'static str, &'static str), Duration> {
    static TABLE: OnceLock<BTreeMap<(&str, &str), Duration>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = BTreeMap::new();
        for line in CSV.lines().skip(1) {
            let (source, destination, rtt) = row(line);
            let entry = table.entry(ordered(source, destination)).or_default();
            *entry = rtt.max(*entry);
        }
        table
    })
}

fn row(line: &'static str) -> (&'static str, &'static str, Duration) {
    let mut fields = line.split(',');
    let mut next = || {
        fields
            .next()
            .expect("the built-in matrix has three columns")
    };
    let (source, destination, ms) = (next(), next(), next());
    let ms: f64 = ms.parse().expect("the built-in matrix holds numbers");
    (source, destination, Duration::from_secs_f64(ms / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_direction_counts() {
        let rtt = rtt("gcp:asia-northeast1-a", "aws:us-east-1").unwrap();
        assert_eq!(rtt, Duration::from_micros(153_346));
    }

    #[test]
    fn every_pair_of_known_regions_has_a_time_and_no_direction() {
        let regions = regions();
        assert_eq!(regions.len(), 13);
        for a in &regions {
            for b in &regions {
                assert_eq!(rtt(a, b), rtt(b, a));
                assert!(rtt(a, b).unwrap() >= RTT_WITHIN_REGION);
            }
        }
    }

    #[test]
    fn unknown_region_has_no_time() {
        assert_eq!(rtt("aws:us-east-1", "moon:near-side"), None);
    }
}
