//! Bounded access to the bytes of a frame.
//!
//! Parsing is written against [`Bytes`], so the same code runs over a socket buffer in the kernel
//! (where every access must be visibly bounded to the verifier) and over a slice in user space.

/// A frame whose bytes can be read, with every read bounded.
pub trait Bytes {
    /// The `N` bytes that begin at `offset`, in place, or `None` when the frame ends before them.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;
}

impl Bytes for &[u8] {
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk::<N>()
    }
}

/// The 4 bytes at `at` as a word in memory order. An `at` beyond the end reads zero, which never
/// happens for the constant offsets this is used with.
#[inline(always)]
#[must_use]
pub fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    match bytes.get(at..) {
        Some([a, b, c, d, ..]) => u32::from_ne_bytes([*a, *b, *c, *d]),
        _ => 0,
    }
}

/// The 2 bytes at `at` as a half word in memory order; see [`word`].
#[inline(always)]
#[must_use]
pub fn half<const N: usize>(bytes: &[u8; N], at: usize) -> u16 {
    match bytes.get(at..) {
        Some([a, b, ..]) => u16::from_ne_bytes([*a, *b]),
        _ => 0,
    }
}
