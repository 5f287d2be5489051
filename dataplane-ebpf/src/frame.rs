//! The only file that touches packet memory: a socket buffer whose reads and writes are bounded.
//!
//! Every access compares against `data_end` immediately before it, which is what the verifier
//! wants to see. Helpers that may move or change the packet take the buffer exclusively, so the
//! borrow checker ends every earlier window on it.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_clone_redirect, bpf_csum_diff, bpf_get_hash_recalc, bpf_l4_csum_replace, bpf_redirect,
        bpf_redirect_peer, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_pull_data,
    },
    programs::TcContext,
};
use sunwire_dataplane_common::{bytes::Bytes, drop_reason::DropReason};

/// Bytes that are pulled into the linear part when a header is not in it.
const PULL_BYTES: u32 = 128;

/// A socket buffer.
pub(crate) struct Skb {
    raw: *mut __sk_buff,
}

/// The bytes of a socket buffer from some offset on.
pub(crate) struct View<'a> {
    skb: &'a Skb,
    offset: usize,
}

impl Bytes for View<'_> {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.skb.window(self.offset + offset)
    }
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Skb { raw: ctx.skb.skb }
    }

    #[inline(always)]
    pub(crate) fn view(&self, offset: usize) -> View<'_> {
        View { skb: self, offset }
    }

    #[inline(always)]
    fn context(&self) -> &__sk_buff {
        // SAFETY: the kernel hands the program a valid context for as long as it runs.
        unsafe { &*self.raw }
    }

    /// Length in bytes, the part that is not linear included.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.context().len
    }

    /// ifindex of the device the packet came in on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.context().ifindex
    }

    /// Payload bytes of one segment of a super-packet; zero for an ordinary packet.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        self.context().gso_size
    }

    /// How many packets this is on a wire.
    #[inline(always)]
    pub(crate) fn segments(&self) -> u64 {
        let segments = u64::from(self.context().gso_segs);
        if segments != 0 {
            return segments;
        }
        // After a tunnel, and from a TAP, the count is not filled in, but the size is.
        match self.gso_size() {
            0 => 1,
            size => u64::from(self.len() / size) + 1,
        }
    }

    /// The packet carries a VLAN tag that the device has taken off.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.context().vlan_present != 0
    }

    #[inline(always)]
    pub(crate) fn mark(&self) -> u32 {
        self.context().mark
    }

    #[inline(always)]
    pub(crate) fn set_mark(&mut self, mark: u32) {
        // SAFETY: as for `context`; `mark` may be written by a TC program.
        unsafe { (*self.raw).mark = mark }
    }

    /// EtherType as the kernel sees it, host order.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u16 {
        u16::from_be(self.context().protocol as u16)
    }

    /// Hash of the flow.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u32 {
        // SAFETY: the context is valid.
        unsafe { bpf_get_hash_recalc(self.raw) }
    }

    /// Makes sure that `bytes` from the start can be read directly, as far as the packet has them.
    #[inline(always)]
    pub(crate) fn ensure_linear(&mut self, bytes: u32) {
        let context = self.context();
        if context.data as usize + bytes as usize <= context.data_end as usize {
            return;
        }
        let wanted = if self.len() < PULL_BYTES {
            self.len()
        } else {
            PULL_BYTES
        };
        // SAFETY: the context is valid. A failure leaves the packet as it is, and the reads that
        // follow find it too short.
        unsafe { bpf_skb_pull_data(self.raw, wanted) };
    }

    /// The `N` bytes at an offset, in place, or `None` when the linear part ends before them.
    #[inline(always)]
    pub(crate) fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let context = self.context();
        let start = context.data as usize + offset;
        if start + N > context.data_end as usize {
            return None;
        }
        // SAFETY: `start .. start + N` was just compared against the end of the linear part, and
        // nothing moves it while `self` is borrowed.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    /// The `N` bytes at an offset, to be written.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the linear part ends before them.
    #[inline(always)]
    pub(crate) fn window_mut<const N: usize>(
        &mut self,
        offset: usize,
    ) -> Result<&mut [u8; N], DropReason> {
        let context = self.context();
        let start = context.data as usize + offset;
        if start + N > context.data_end as usize {
            return Err(DropReason::Malformed);
        }
        // SAFETY: as for `window`; the kernel's prologue of a program that writes directly makes
        // the linear part writable, and `self` is borrowed exclusively.
        Ok(unsafe { &mut *(start as *mut [u8; N]) })
    }

    /// Writes bytes at an offset, or refuses when the packet ends before them.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(
        &mut self,
        offset: usize,
        bytes: &[u8; N],
    ) -> Result<(), DropReason> {
        *self.window_mut(offset)? = *bytes;
        Ok(())
    }

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

    /// Sets the packet's length in bytes by cutting or growing its tail.
    #[inline(always)]
    pub(crate) fn set_len(&mut self, bytes: u32) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_change_tail(self.raw, bytes, 0) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }

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

    /// Sends the packet out of a device.
    #[inline(always)]
    pub(crate) fn redirect(&self, ifindex: u32) -> i32 {
        // SAFETY: no pointers are passed.
        unsafe { bpf_redirect(ifindex, 0) as i32 }
    }

    /// Hands the packet to the other end of a veth pair without a queue in between.
    #[inline(always)]
    pub(crate) fn redirect_peer(&self, ifindex: u32) -> i32 {
        // SAFETY: no pointers are passed.
        unsafe { bpf_redirect_peer(ifindex, 0) as i32 }
    }

    /// Lets a copy of the packet enter again where this one came in.
    #[inline(always)]
    pub(crate) fn reenter(&mut self) -> Result<(), DropReason> {
        const BPF_F_INGRESS: u64 = 1;
        // SAFETY: the context is valid.
        match unsafe { bpf_clone_redirect(self.raw, self.ifindex(), BPF_F_INGRESS) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }
}

/// Ones' complement sum of words, not folded.
#[inline(always)]
pub(crate) fn checksum<const N: usize>(words: &[u32; N]) -> u32 {
    // SAFETY: the pointer and the length describe `words`; a null `from` of length zero is what
    // the helper takes for "sum only".
    unsafe {
        bpf_csum_diff(
            core::ptr::null_mut(),
            0,
            words.as_ptr().cast_mut(),
            (N * 4) as u32,
            0,
        ) as u32
    }
}
