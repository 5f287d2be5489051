//! Making a packet longer and shorter. Every earlier window on it ends.

use aya_ebpf::helpers::{
    bpf_csum_level, bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail,
};
use sunwire_dataplane_common::drop_reason::DropReason;

use super::Skb;

impl Skb {
    /// Grows (or shrinks) the packet behind its Ethernet header.
    #[inline(always)]
    pub(crate) fn adjust_room(&mut self, difference: i32, flags: u64) -> Result<(), DropReason> {
        const BPF_ADJ_ROOM_MAC: u32 = 1;
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_adjust_room(self.raw, difference, BPF_ADJ_ROOM_MAC, flags) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }

    /// Takes headers with one checksum, the outermost, away from behind the Ethernet header. What the
    /// device or the kernel has found right of those within stays known, as when the kernel takes off a
    /// tunnel itself, and nobody sums it up again.
    #[inline(always)]
    pub(crate) fn shed(&mut self, bytes: usize, flags: u64) -> Result<(), DropReason> {
        const BPF_F_ADJ_ROOM_NO_CSUM_RESET: u64 = 1 << 5;
        const BPF_CSUM_LEVEL_DEC: u64 = 2;
        self.adjust_room(-(bytes as i32), flags | BPF_F_ADJ_ROOM_NO_CSUM_RESET)?;
        // SAFETY: the context is valid. It fails of no packet whose checksum is known, and changes no
        // other.
        unsafe { bpf_csum_level(self.raw, BPF_CSUM_LEVEL_DEC) };
        Ok(())
    }

    /// Grows the packet in front of its Ethernet header. A super-packet stays what it is.
    #[inline(always)]
    pub(crate) fn push(&mut self, bytes: u32) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_change_head(self.raw, bytes, 0) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }

    /// Sets the packet's length in bytes by cutting or growing its tail.
    #[inline(always)]
    pub(crate) fn set_len(&mut self, bytes: u32) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_change_tail(self.raw, bytes, 0) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }
}
