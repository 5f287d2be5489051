//! The two hash tables beneath all diagrams: where each node is, and what operations gave.
//!
//! Both are open: a power of two of places, a multiplicative hash, no pointers.

/// A place without an id.
const VACANT: u32 = u32::MAX;

/// Multipliers with their bits well spread (from the fractional parts of square roots of primes).
const FACTORS: [u64; 3] = [
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
];

/// Hash of three words; the upper half is the better one.
#[inline]
pub(super) fn hash3(a: u64, b: u64, c: u64) -> u64 {
    let mixed = (a ^ FACTORS[0]).wrapping_mul(FACTORS[1]);
    let mixed = (mixed ^ mixed >> 32 ^ b).wrapping_mul(FACTORS[2]);
    (mixed ^ mixed >> 29 ^ c).wrapping_mul(FACTORS[1])
}

/// As a power of two: places for what is expected, neither very few nor very many before anything
/// is there.
fn bits_for(expected: usize) -> u32 {
    (usize::BITS - expected.leading_zeros()).clamp(9, 18)
}

/// Which id each distinct node has. The nodes themselves stand in a vector of the owner.
pub(super) struct Unique {
    places: Vec<u32>,
    /// The hash's upper bits choose the place.
    shift: u32,
    used: usize,
}

impl Unique {
    /// Empty, with places for about so many ids.
    pub(super) fn new(expected: usize) -> Self {
        let bits = bits_for(expected);
        Unique {
            places: vec![VACANT; 1 << bits],
            shift: 64 - bits,
            used: 0,
        }
    }

    /// The id of the node with this hash that `equals` accepts, or else where to put it.
    #[inline]
    pub(super) fn find(&self, hash: u64, equals: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let mask = self.places.len() - 1;
        let mut place = (hash >> self.shift) as usize;
        loop {
            let id = self.places[place & mask];
            if id == VACANT {
                return Err(place & mask);
            }
            if equals(id) {
                return Ok(id);
            }
            place += 1;
        }
    }

    /// Puts a new id where [`Unique::find`] said.
    #[inline]
    pub(super) fn insert(&mut self, place: usize, id: u32, hash_of: impl Fn(u32) -> u64) {
        self.places[place] = id;
        self.used += 1;
        if self.used * 4 > self.places.len() * 3 {
            self.grow(hash_of);
        }
    }

    #[cold]
    fn grow(&mut self, hash_of: impl Fn(u32) -> u64) {
        let bits = 64 - self.shift + 1;
        let old = std::mem::replace(&mut self.places, vec![VACANT; 1 << bits]);
        self.shift = 64 - bits;
        let mask = self.places.len() - 1;
        for id in old {
            if id == VACANT {
                continue;
            }
            let mut place = (hash_of(id) >> self.shift) as usize;
            while self.places[place & mask] != VACANT {
                place += 1;
            }
            self.places[place & mask] = id;
        }
    }
}

#[derive(Clone, Copy)]
struct Remembered {
    /// 0 when there is nothing.
    operation: u32,
    left: u32,
    right: u32,
    result: u32,
}

const NOTHING: Remembered = Remembered {
    operation: 0,
    left: 0,
    right: 0,
    result: 0,
};

/// Grows no further than this: 256 MiB. Beyond, results are forgotten, never wrong.
const MOST_BITS: u32 = 24;

/// Results of operations. One result per place: a newer one replaces an older one, and the table
/// grows with what is put in, so that this is rare.
pub(super) struct Memo {
    places: Vec<Remembered>,
    shift: u32,
    used: usize,
}

impl Memo {
    /// Empty, with places for about so many results.
    pub(super) fn new(expected: usize) -> Self {
        let bits = bits_for(expected);
        Memo {
            places: vec![NOTHING; 1 << bits],
            shift: 64 - bits,
            used: 0,
        }
    }

    #[inline]
    fn place(&self, operation: u32, left: u32, right: u32) -> usize {
        let pair = u64::from(left) << 32 | u64::from(right);
        let mixed = (pair ^ u64::from(operation).wrapping_mul(FACTORS[0])).wrapping_mul(FACTORS[1]);
        ((mixed ^ mixed >> 32).wrapping_mul(FACTORS[2]) >> self.shift) as usize
    }

    #[inline]
    pub(super) fn get(&self, operation: u32, left: u32, right: u32) -> Option<u32> {
        let found = self.places[self.place(operation, left, right)];
        (found.operation == operation && found.left == left && found.right == right)
            .then_some(found.result)
    }

    /// Remembers a result; `operation` is not 0.
    #[inline]
    pub(super) fn put(&mut self, operation: u32, left: u32, right: u32, result: u32) {
        let place = self.place(operation, left, right);
        let there = &mut self.places[place];
        let vacant = there.operation == 0;
        *there = Remembered {
            operation,
            left,
            right,
            result,
        };
        if vacant {
            self.used += 1;
            if self.used * 2 > self.places.len() && 64 - self.shift < MOST_BITS {
                self.grow();
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let bits = 64 - self.shift + 1;
        let old = std::mem::replace(&mut self.places, vec![NOTHING; 1 << bits]);
        self.shift = 64 - bits;
        self.used = 0;
        for entry in old {
            if entry.operation != 0 {
                let place = self.place(entry.operation, entry.left, entry.right);
                self.used += usize::from(self.places[place].operation == 0);
                self.places[place] = entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_found_again_after_growth() {
        let mut unique = Unique::new(0);
        let hash = |id: u32| hash3(u64::from(id) / 3, 1, 2);
        for id in 0..10_000 {
            let place = unique.find(hash(id), |known| known == id).unwrap_err();
            unique.insert(place, id, hash);
        }
        for id in 0..10_000 {
            assert_eq!(unique.find(hash(id), |known| known == id), Ok(id));
        }
    }

    #[test]
    fn a_remembered_result_is_that_of_the_same_operation_and_operands() {
        let mut memo = Memo::new(0);
        for n in 0..100_000u32 {
            memo.put(1 + n % 3, n, n / 7, n * 2);
        }
        let mut found = 0;
        for n in 0..100_000u32 {
            if let Some(result) = memo.get(1 + n % 3, n, n / 7) {
                assert_eq!(result, n * 2);
                found += 1;
            }
            assert_eq!(memo.get(4, n, n / 7), None);
        }
        assert!(found > 50_000, "most are kept: {found}");
    }
}
