//! Bounded access to the bytes of a frame.
//!
//! Parsing is written against [`Bytes`], so the same code runs over a socket buffer in the kernel
//! (where every access must be visibly bounded to the verifier) and over a slice in user space.

/// A frame whose bytes can be read, with every read bounded.
pub trait Bytes {
    /// The `N` bytes that begin at `offset`, or `None` when the frame ends before them.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Bytes for &[u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk::<N>().copied()
    }
}
