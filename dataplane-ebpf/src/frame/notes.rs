//! What a program notes of a packet, in the packet's own control block.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::bindings::__sk_buff;

use super::{Skb, note};

impl Skb {
    // The verifier wants every access to the context at a constant offset from its own pointer, so
    // those to the control block are written out: the compiler would add the offset first.

    /// Forgets all notes: an earlier user of the control block may have left anything in it.
    #[inline(always)]
    pub(crate) fn clear_notes(&mut self) {
        // SAFETY: as for `context`; a TC program may write the control block, these 20 bytes.
        unsafe {
            asm!(
                "*(u64 *)({context} + {at}) = {zero}",
                "*(u64 *)({context} + {at} + 8) = {zero}",
                "*(u32 *)({context} + {at} + 16) = {zero}",
                context = in(reg) self.raw,
                zero = in(reg) 0u64,
                at = const offset_of!(__sk_buff, cb),
                options(nostack, preserves_flags),
            );
        }
    }

    /// Notes a value in one of the words of [`note`], for `event`.
    #[inline(always)]
    pub(crate) fn set_note<const WORD: usize>(&mut self, value: u32) {
        const { assert!(WORD < 5) };
        // SAFETY: as for `clear_notes`.
        unsafe {
            asm!(
                "*(u32 *)({context} + {at}) = {value}",
                context = in(reg) self.raw,
                value = in(reg) u64::from(value),
                at = const offset_of!(__sk_buff, cb) + 4 * WORD,
                options(nostack, preserves_flags),
            );
        }
    }

    /// What was noted.
    #[inline(always)]
    pub(crate) fn note<const WORD: usize>(&self) -> u32 {
        const { assert!(WORD < 5) };
        let value: u64;
        // SAFETY: as for `clear_notes`.
        unsafe {
            asm!(
                "{value} = *(u32 *)({context} + {at})",
                value = out(reg) value,
                context = in(reg) self.raw,
                at = const offset_of!(__sk_buff, cb) + 4 * WORD,
                options(readonly, nostack, preserves_flags),
            );
        }
        value as u32
    }

    /// Adds bits to the flags of [`note`].
    #[inline(always)]
    pub(crate) fn flag(&mut self, bits: u32) {
        self.set_note::<{ note::FLAGS }>(self.note::<{ note::FLAGS }>() | bits);
    }
}
