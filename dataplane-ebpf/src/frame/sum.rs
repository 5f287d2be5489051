//! Sums of what a packet has, for checksums.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::helpers::{bpf_csum_diff, bpf_skb_load_bytes};

use super::{Skb, at_least_one};

/// Words that are summed up at a time. They are copied: the helper takes no more than 512 bytes, and a
/// copy may begin anywhere.
const PIECE_WORDS: usize = 64;
const PIECE: u32 = PIECE_WORDS as u32 * 4;

impl Skb {
    /// Adds `bytes` bytes from an offset on to a ones' complement sum of halves in memory order (RFC 1071).
    /// A last odd byte is one of a half whose other byte is zero. `None` when the packet has not as many, or
    /// there are more than in any packet.
    #[inline(always)]
    pub(crate) fn add_to_sum(&self, offset: u32, bytes: u32, sum: u32) -> Option<u32> {
        const PIECES_MAX: u32 = (1 << 16) / PIECE;
        let (mut at, mut left, mut sum) = (offset, bytes, sum);
        for _ in 0..PIECES_MAX {
            if left < PIECE {
                break;
            }
            let mut words = MaybeUninit::<[u32; PIECE_WORDS]>::uninit();
            // SAFETY: the context is valid, and the pointer and length describe `words`.
            if unsafe { bpf_skb_load_bytes(self.raw.cast(), at, words.as_mut_ptr().cast(), PIECE) }
                != 0
            {
                return None;
            }
            // SAFETY: all of it was written.
            sum = unsafe { add(words.as_mut_ptr().cast(), sum) }?;
            at += PIECE;
            left -= PIECE;
        }
        if left == 0 {
            return Some(sum);
        }
        if left >= PIECE {
            return None;
        }
        let mut words = [0; PIECE_WORDS];
        let left = at_least_one::<{ PIECE as usize }>(left);
        // SAFETY: the context is valid, and at most as many bytes are written as `words` has.
        if unsafe { bpf_skb_load_bytes(self.raw.cast(), at, words.as_mut_ptr().cast(), left) } != 0
        {
            return None;
        }
        // SAFETY: an array of as many words.
        unsafe { add(words.as_mut_ptr(), sum) }
    }
}

/// Adds words to a sum.
///
/// # Safety
/// There are [`PIECE_WORDS`] at `words`.
#[inline(always)]
unsafe fn add(words: *mut u32, sum: u32) -> Option<u32> {
    // SAFETY: the caller's promise; the helper reads them, and none from where there are none.
    let sum = unsafe { bpf_csum_diff(ptr::null_mut(), 0, words, PIECE, sum) };
    (sum >= 0).then_some(sum as u32)
}
