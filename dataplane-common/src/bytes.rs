//! Bounded access to the bytes of a frame.
//!
//! Parsing is written against [`Bytes`], so the same code runs over a socket buffer in the kernel
//! (where every access must be visibly bounded to the verifier) and over a slice in user space.
//! A field is read with one load of its own width: a header read byte by byte would fill the
//! registers and the 512 bytes of stack that a program has.

/// A frame whose bytes can be read, with every read bounded.
pub trait Bytes {
    /// Some bytes in a row of the frame.
    type Window<'a, const N: usize>: Window<N>
    where
        Self: 'a;

    /// The `N` bytes that begin at `offset`, or `None` when the frame ends before them.
    fn window<const N: usize>(&self, offset: usize) -> Option<Self::Window<'_, N>>;
}

/// `N` bytes in a row. Reading beyond them does not compile.
pub trait Window<const N: usize>: Copy {
    /// The byte at `AT`.
    fn byte<const AT: usize>(self) -> u8;
    /// The 2 bytes at `AT`, in memory order.
    fn half<const AT: usize>(self) -> u16;
    /// The 4 bytes at `AT`, in memory order.
    fn word<const AT: usize>(self) -> u32;
}

impl Bytes for &[u8] {
    type Window<'a, const N: usize>
        = &'a [u8; N]
    where
        Self: 'a;

    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk::<N>()
    }
}

impl<const N: usize> Window<N> for &[u8; N] {
    #[inline(always)]
    fn byte<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        self[AT]
    }

    #[inline(always)]
    fn half<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        u16::from_ne_bytes([self[AT], self[AT + 1]])
    }

    #[inline(always)]
    fn word<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        u32::from_ne_bytes([self[AT], self[AT + 1], self[AT + 2], self[AT + 3]])
    }
}
