//! Rates: how much passes of what a policy limits.
//!
//! ```text
//!  ROOTS { network, generation } -> rate      LIMIT_BUCKETS { network, key fields } -> full at
//! ```
//!
//! A bucket is one number, the time at which it will be full again: the generic cell rate algorithm
//! (ITU-T I.371, annex A). A bucket that is full is the same as none, so whoever finds one may forget
//! it. A packet moves the time by what it costs; it is admitted when the time is not further ahead
//! than the bucket is deep.

use crate::{
    address::Address,
    headers::{Family, Headers},
    tables::key,
};

/// Parts of a nanosecond that times are counted in: at 100 Gbit/s a small packet takes 5 ns, and a
/// machine may run for 36 years.
const PARTS: u64 = 16;
/// Parts of a second.
const SECOND: u64 = 1_000_000_000 * PARTS;
/// The greatest rate, in packets or bits per second.
pub const RATE_MAX: u64 = 1_000_000_000_000;
/// Packets that a bucket holds at least, unless that is more than passes in a second.
const PACKETS_MIN: u64 = 10;
/// Bits that a bucket holds at least, unless that is more than passes in a second: ten packets.
const BITS_MIN: u64 = 10 * 1_500 * 8;

/// What a sweep of the buckets that are full is asked for by.
pub const BUCKETS: u64 = 200;

/// A rate, as it stands in a root; zeroed for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Limit {
    /// Packets or bits per second, lower half first; zero when there is no rate.
    pub rate: [u32; 2],
    /// What has a bucket of its own, bits of [`key`], and [`BITS`].
    pub key: u32,
}

/// Bit of [`Limit::key`]: the rate is in bits, from the Ethernet header on.
pub const BITS: u32 = 1 << 31;

/// Key of `LIMIT_BUCKETS`: fields that the limit does not tell apart by are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct LimitKey {
    /// VXLAN network identifier.
    pub network: u32,
    /// As in [`Limit`].
    pub key: u32,
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port in the upper 16 bits, destination port in the lower.
    pub ports: u32,
    /// IP protocol.
    pub protocol: u32,
    /// Number of the endpoint that sends.
    pub endpoint: u32,
    /// As in [`Limit`]: what is owed at one rate is not owed at another.
    pub rate: [u32; 2],
}

const _: () = assert!(size_of::<Limit>() == 12);
const _: () = assert!(size_of::<LimitKey>() == 60);

impl LimitKey {
    /// Makes it the key of a packet.
    #[inline(always)]
    pub fn fill(&mut self, network: u32, endpoint: u32, limit: Limit, headers: &Headers) {
        let given = |bits: u32| limit.key & bits != 0;
        let (is_v4, is_v6) = (headers.family == Family::V4, headers.family == Family::V6);
        let address =
            |any: u32, v4: u32, v6: u32| given(any) || given(v4) && is_v4 || given(v6) && is_v6;
        self.network = network;
        self.key = limit.key;
        self.rate = limit.rate;
        self.src = Address::ZERO;
        if address(key::SRC, key::IP4_SRC, key::IP6_SRC) {
            self.src = headers.src;
        }
        self.dst = Address::ZERO;
        if address(key::DST, key::IP4_DST, key::IP6_DST) {
            self.dst = headers.dst;
        }
        self.ports = 0;
        if given(key::SRC_PORT) {
            self.ports |= u32::from(headers.src_port) << 16;
        }
        if given(key::DST_PORT) {
            self.ports |= u32::from(headers.dst_port);
        }
        self.protocol = 0;
        if given(key::PROTOCOL) {
            self.protocol = u32::from(headers.protocol);
        }
        self.endpoint = 0;
        if given(key::ENDPOINT) {
            self.endpoint = endpoint;
        }
    }
}

impl Limit {
    /// A rate.
    #[must_use]
    pub const fn new(rate: u64, key: u32) -> Self {
        Limit {
            rate: [rate as u32, (rate >> 32) as u32],
            key,
        }
    }

    /// Packets or bits per second; zero when there is no rate.
    #[inline(always)]
    #[must_use]
    pub const fn per_second(self) -> u64 {
        (self.rate[1] as u64) << 32 | self.rate[0] as u64
    }

    /// How far a packet moves the time at which a bucket is full; `packets` and `bytes` are those of
    /// a super-packet together. Rounded up, so that more than the rate never passes.
    #[inline(always)]
    #[must_use]
    pub const fn cost(self, packets: u64, bytes: u64) -> u64 {
        let amount = if self.key & BITS != 0 {
            bytes * 8
        } else {
            packets
        };
        // A rate is never zero where this is asked.
        (amount * SECOND).div_ceil(self.per_second())
    }

    /// How deep a bucket is: what passes in a tenth of a second, and ten packets at least, unless that
    /// is more than what passes in a second.
    #[inline(always)]
    #[must_use]
    pub const fn depth(self) -> u64 {
        let least = if self.key & BITS != 0 {
            BITS_MIN
        } else {
            PACKETS_MIN
        };
        let least = least * SECOND / self.per_second();
        if least > SECOND {
            SECOND
        } else if least < SECOND / 10 {
            SECOND / 10
        } else {
            least
        }
    }
}

/// The time as buckets count it.
#[inline(always)]
#[must_use]
pub const fn time(ns: u64) -> u64 {
    ns * PARTS
}

/// Takes a packet of this cost out of a bucket that is full at `full_at`: returns when it is full then,
/// or `None` when it does not hold that much. A bucket that is full lets through one packet that is
/// larger than itself, and then owes the rest.
#[inline(always)]
#[must_use]
pub const fn take(full_at: u64, now: u64, cost: u64, depth: u64) -> Option<u64> {
    let start = if full_at > now { full_at } else { now };
    let needed = if cost < depth { cost } else { depth };
    if start - now > depth - needed {
        return None;
    }
    Some(start + cost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets that pass of those that come at these nanoseconds.
    fn passing(limit: Limit, bytes: u64, times: impl Iterator<Item = u64>) -> u64 {
        let (mut full_at, mut passed) = (0, 0);
        for ns in times {
            if let Some(next) = take(full_at, time(ns), limit.cost(1, bytes), limit.depth()) {
                full_at = next;
                passed += 1;
            }
        }
        passed
    }

    const S: u64 = 1_000_000_000;

    #[test]
    fn what_passes_is_the_rate_and_the_bucket_and_never_more() {
        for rate in [1, 7, 10, 99, 1_000, 123_457, 10_000_000] {
            let limit = Limit::new(rate, 0);
            // Twice the rate for 10 seconds, or so many packets.
            let count = (20 * rate).min(200_000);
            let step = S / rate / 2;
            let passed = passing(limit, 64, (0..count).map(|n| S + n * step));
            let bucket = (rate / 10).max(rate.min(10));
            let most = bucket + (count * step).div_ceil(S / rate);
            assert!(passed <= most, "{rate}: {passed} of at most {most}");
            let least = (most * 99 / 100).saturating_sub(2).min(count);
            assert!(passed >= least, "{rate}: {passed} of at least {least}");
        }
    }

    #[test]
    fn what_comes_more_slowly_passes_whole() {
        for rate in [1, 10, 1_000, 1_000_000] {
            let step = S / rate + 1;
            let passed = passing(Limit::new(rate, 0), 64, (0..1000).map(|n| S + n * step));
            assert_eq!(passed, 1000, "{rate}");
        }
    }

    #[test]
    fn bits_are_counted_whole_also_of_packets_that_are_larger_than_the_bucket() {
        // 64 KiB every 10 ms at 1 Mbit/s, for 1,000 seconds; the bucket holds 15,000 bytes.
        let limit = Limit::new(1_000_000, BITS);
        let passed = passing(limit, 65_536, (0..100_000).map(|n| S + n * S / 100));
        let bits = passed * 65_536 * 8;
        assert!((980_000_000..=1_000_700_000).contains(&bits), "{bits}");
        // One bit a second: one packet, and then none for minutes.
        let limit = Limit::new(1, BITS);
        assert_eq!(passing(limit, 64, (0..100).map(|n| S + n * S)), 1);
    }

    #[test]
    fn nothing_overflows_at_the_ends() {
        for rate in [1, RATE_MAX] {
            for key in [0, BITS] {
                let limit = Limit::new(rate, key);
                let cost = limit.cost(64, 1 << 17);
                assert!(cost > 0);
                // Ten years after the machine has started.
                let now = time(315_360_000 * S);
                assert!(take(0, now, cost, limit.depth()).is_some());
            }
        }
        assert_eq!(Limit::new(u64::MAX, 0).per_second(), u64::MAX);
    }

    #[test]
    fn a_key_holds_what_is_told_apart_by_and_nothing_else() {
        let headers = Headers {
            family: Family::V4,
            protocol: 6,
            src: Address::v4([10, 0, 0, 1]),
            dst: Address::v4([10, 0, 0, 2]),
            src_port: 1,
            dst_port: 2,
            ..Headers::default()
        };
        let key_of = |bits: u32, headers: &Headers| {
            // What is left of the key before must not stay.
            let mut key = LimitKey {
                src: Address::v4([9, 9, 9, 9]),
                ports: 9,
                protocol: 9,
                endpoint: 9,
                ..LimitKey::default()
            };
            key.fill(5, 7, Limit::new(1, bits), headers);
            key
        };
        let bare = LimitKey {
            network: 5,
            rate: [1, 0],
            ..LimitKey::default()
        };
        assert_eq!(key_of(0, &headers), bare);
        let src = LimitKey {
            src: headers.src,
            ..bare
        };
        for bits in [key::SRC, key::IP4_SRC] {
            assert_eq!(key_of(bits, &headers), LimitKey { key: bits, ..src });
        }
        // `ip6Src` of an IPv4 packet is no address.
        let bits = key::IP6_SRC;
        assert_eq!(key_of(bits, &headers), LimitKey { key: bits, ..bare });
        let bits = key::DST_PORT | key::ENDPOINT | key::PROTOCOL | key::DST;
        let found = key_of(bits, &headers);
        let expected = LimitKey {
            key: bits,
            dst: headers.dst,
            ports: 2,
            protocol: 6,
            endpoint: 7,
            ..bare
        };
        assert_eq!(found, expected);
    }
}
