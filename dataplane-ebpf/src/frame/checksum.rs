//! Checksums of a packet that changes.

use aya_ebpf::helpers::{bpf_csum_update, bpf_l4_csum_replace};
use sunwire_dataplane_common::drop_reason::DropReason;

use super::Skb;

impl Skb {
    /// Corrects a transport checksum for a field that changes from `old` to `new`, both as they
    /// stand in the packet; understands checksums that are still to be completed by a device.
    #[inline(always)]
    pub(crate) fn correct_transport_checksum(
        &mut self,
        offset: usize,
        old: u32,
        new: u32,
        flags: u64,
    ) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        let status = unsafe {
            bpf_l4_csum_replace(
                self.raw,
                offset as u32,
                u64::from(old),
                u64::from(new),
                flags,
            )
        };
        if status == 0 {
            Ok(())
        } else {
            Err(DropReason::Malformed)
        }
    }

    /// Notes that four bytes of an IPv6 header, or two, have changed from `old` to `new`, as they stand in
    /// the packet.
    ///
    /// A device may have summed the whole packet up. That sum stays right by itself where a checksum in
    /// the packet makes good for what changes; `bpf_l4_csum_replace` takes the IP header's to do so of
    /// addresses, which IPv6 has not.
    #[inline(always)]
    pub(crate) fn note_uncovered(&mut self, old: u32, new: u32) {
        let (sum, is_over) = new.overflowing_add(!old);
        let sum = sum.wrapping_add(u32::from(is_over));
        // SAFETY: the context is valid. It fails of no packet that a device has summed up, and changes
        // no other.
        unsafe { bpf_csum_update(self.raw, sum) };
    }
}
