//! Seeded randomness for loss and jitter: the same seed and the same frames
//! give the same losses.
//!
//! SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
//! generators, OOPSLA 2014): small, fast and good enough for impairments;
//! nothing here is a secret.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one ordered pair of the lab with this seed: pairs draw
    /// independently, so traffic on one does not disturb another's losses.
    pub(crate) fn for_pair(seed: u64, from: usize, to: usize) -> Self {
        let mut random =
            Self(seed ^ ((from as u64) << 32 | to as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        // 53 bits fill a double's mantissa: uniform in [0, 1).
        (self.next() >> 11) as f64 / ((1_u64 << 53) as f64) < probability
    }

    /// Uniform in `0..=limit`.
    pub(crate) fn up_to(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(limit) + 1)) >> 64) as u64
    }
}
