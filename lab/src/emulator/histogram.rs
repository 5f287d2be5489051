//! A fixed-size log-linear histogram of nanoseconds.
//!
//! Sixteen buckets per power of two: a percentile is reported as its bucket's
//! upper edge, so it is never flattering and at most 6.25 % too high.

const SUB_BITS: u32 = 4;
const SUB: u64 = 1 << SUB_BITS;
/// Values from 2^36 ns (69 s) on share the last bucket.
const TOP_BIT: u32 = 36;
const BUCKETS: usize = ((TOP_BIT - SUB_BITS + 1) as usize) * SUB as usize + 1;

/// Counts of durations.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: Box::new([0; BUCKETS]),
            count: 0,
            max: 0,
        }
    }
}

impl Histogram {
    pub(crate) fn record(&mut self, value: u64) {
        self.buckets[index(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The smallest bucket edge that at least this share of the values do not
    /// exceed; zero when there are none.
    pub(crate) fn percentile(&self, percent: f64) -> u64 {
        let rank = ((self.count as f64) * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper_edge(index).min(self.max);
            }
        }
        self.max
    }
}

fn index(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let top = 63 - value.leading_zeros();
    if top >= TOP_BIT {
        return BUCKETS - 1;
    }
    let sub = (value >> (top - SUB_BITS)) & (SUB - 1);
    ((top - SUB_BITS + 1) as u64 * SUB + sub) as usize
}

fn upper_edge(index: usize) -> u64 {
    let index = index as u64;
    if index < SUB {
        return index;
    }
    let shift = index / SUB - 1;
    ((SUB + index % SUB + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn edge_is_at_or_above_the_value_and_close(value in 0_u64..(1 << 36)) {
            let edge = upper_edge(index(value));
            prop_assert!(edge >= value);
            prop_assert!(edge as f64 <= value as f64 * 1.0626 + 1.0);
        }

        #[test]
        fn percentile_bounds_its_share(values in prop::collection::vec(0_u64..10_000_000, 1..200), percent in 1.0_f64..100.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|v| histogram.record(*v));
            let bound = histogram.percentile(percent);
            let within = values.iter().filter(|v| **v <= bound).count();
            prop_assert!(within as f64 >= values.len() as f64 * percent / 100.0);
            prop_assert!(bound <= histogram.max());
        }
    }
}
