//! Addresses as words in memory order.
//!
//! The programs compare, copy and hash addresses and never do arithmetic on them, so they are kept
//! as the words they are loaded in: byte arrays would be split into single bytes by the compiler
//! and fill the 512 bytes of stack that a program has.

use crate::bytes::Window;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Mac {
    /// First 4 bytes, memory order.
    pub first: u32,
    /// Last 2 bytes, memory order.
    pub last: u16,
    /// Keeps the size a multiple of 4; zero.
    pub padding: u16,
}

/// An IP address of either family, or a MAC address as a key; a shorter one fills the first words
/// and the rest is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Address(pub [u32; 4]);

const _: () = assert!(size_of::<Mac>() == 8);
const _: () = assert!(size_of::<Address>() == 16);

impl Mac {
    /// The address with these bytes.
    #[inline(always)]
    #[must_use]
    pub fn new(bytes: [u8; 6]) -> Self {
        Mac {
            first: (&bytes).word::<0>(),
            last: (&bytes).half::<4>(),
            padding: 0,
        }
    }

    /// Its bytes.
    #[inline(always)]
    #[must_use]
    pub fn to_bytes(self) -> [u8; 6] {
        let [a, b, c, d] = self.first.to_ne_bytes();
        let [e, f] = self.last.to_ne_bytes();
        [a, b, c, d, e, f]
    }

    /// The group bit: multicast or broadcast (IEEE 802).
    #[inline(always)]
    #[must_use]
    pub fn is_group(self) -> bool {
        self.first.to_ne_bytes()[0] & 1 != 0
    }

    /// First 2 and last 4 bytes as numbers: what flow tables test.
    #[inline(always)]
    #[must_use]
    pub fn split(self) -> (u32, u32) {
        let first = u32::from_be(self.first);
        (
            first >> 16,
            first << 16 | u32::from(u16::from_be(self.last)),
        )
    }
}

impl Address {
    /// All bits zero: no address.
    pub const ZERO: Address = Address([0; 4]);

    /// An IPv4 address.
    #[inline(always)]
    #[must_use]
    pub fn v4(bytes: [u8; 4]) -> Self {
        Address([u32::from_ne_bytes(bytes), 0, 0, 0])
    }

    /// An IPv6 address.
    #[inline(always)]
    #[must_use]
    pub fn v6(bytes: [u8; 16]) -> Self {
        let bytes = &bytes;
        Address([
            bytes.word::<0>(),
            bytes.word::<4>(),
            bytes.word::<8>(),
            bytes.word::<12>(),
        ])
    }

    /// The 16 bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (chunk, word) in bytes.chunks_exact_mut(4).zip(self.0) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// An IPv6 link-local unicast address, fe80::/10 (RFC 4291, 2.5.6).
    #[inline(always)]
    #[must_use]
    pub fn is_link_local(self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_survives_its_words() {
        let mac = Mac::new([0x02, 0x53, 0x57, 0xaa, 0xbb, 0xcc]);
        assert_eq!(mac.to_bytes(), [0x02, 0x53, 0x57, 0xaa, 0xbb, 0xcc]);
        assert_eq!(mac.split(), (0x0253, 0x57aa_bbcc));
        assert!(!mac.is_group());
        assert!(Mac::new([1, 0, 0x5e, 0, 0, 1]).is_group());
    }

    #[test]
    fn link_local_is_ten_bits() {
        let mut bytes = [0; 16];
        bytes[0] = 0xfe;
        bytes[1] = 0x80;
        assert!(Address::v6(bytes).is_link_local());
        bytes[1] = 0xbf;
        assert!(Address::v6(bytes).is_link_local());
        bytes[1] = 0xc0;
        assert!(!Address::v6(bytes).is_link_local());
        assert_eq!(Address::v6(bytes).to_bytes(), bytes);
    }
}
