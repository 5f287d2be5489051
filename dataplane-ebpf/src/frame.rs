//! The only file that touches packet memory: a socket buffer whose reads and writes are bounded.
//!
//! Every access compares against `data_end` immediately before it, which is what the verifier
//! wants to see. Helpers that may move or change the packet take the buffer exclusively, so the
//! borrow checker ends every earlier window on it.

use core::{arch::asm, ffi::c_void, marker::PhantomData, mem::offset_of};

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_clone_redirect, bpf_get_hash_recalc, bpf_redirect, bpf_redirect_peer,
        bpf_ringbuf_output, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
        bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
    maps::RingBuf,
    programs::TcContext,
};
use sunwire_dataplane_common::{
    address::Mac,
    bytes::{Bytes, Window},
    drop_reason::DropReason,
    headers::{
        ETHER_IPV4, ETHER_IPV6, ETHERNET_BYTES, FRAGMENT_BYTES, IPV6_BYTES, PROTOCOL_IPV6_FRAGMENT,
        PROTOCOL_TCP, Parsed, TCP_BYTES, UDP_BYTES,
    },
    punt::{FRAME_BYTES, HEADER_BYTES, PuntHeader, PuntRecord},
    vxlan::OUTER_BYTES,
};

mod checksum;
mod notes;
mod room;
mod sum;
mod tunnel_key;

use crate::maps::PACKET;

/// Bytes that are pulled into the linear part when a header is not in it.
const PULL_BYTES: u32 = 160;
/// Bytes of the longest headers that are read: Ethernet, IPv4 with all options, and TCP without.
const LONGEST_HEADERS: u32 = 14 + 60 + 20;

/// Words of a packet's control block, which nobody else uses while our program has the packet.
pub(crate) mod note {
    /// Slot of the label that decided, plus 1.
    pub(crate) const LABEL: usize = 0;
    /// Number of the endpoint that the packet goes to.
    pub(crate) const DESTINATION: usize = 1;
    /// Number of the node that it is sent to.
    pub(crate) const NODE: usize = 2;
    /// VNI of its network, where the device does not say it.
    pub(crate) const NETWORK: usize = 3;
    /// What `event` keeps, and [`OUTER`].
    pub(crate) const FLAGS: usize = 4;
    /// In [`FLAGS`]: the frame begins with the headers of a tunnel.
    pub(crate) use sunwire_dataplane_common::event::notes::OUTER;
    /// In [`FLAGS`]: the frame goes by a wire.
    pub(crate) use sunwire_dataplane_common::event::notes::WIRE;
}

/// Bytes in front of the payload of a tunnelled TCP packet over IPv6 with timestamps.
const USUAL_HEADERS: u32 = (OUTER_BYTES + ETHERNET_BYTES + IPV6_BYTES) as u32 + 32;

/// A socket buffer.
pub(crate) struct Skb {
    raw: *mut __sk_buff,
    /// Known when compiled: the programs that trace are compiled of the same source.
    traced: bool,
}

/// The bytes of a socket buffer from some offset on.
pub(crate) struct View<'a> {
    skb: &'a Skb,
    offset: usize,
}

/// `N` bytes of the linear part, to be read.
#[derive(Clone, Copy)]
pub(crate) struct PacketWindow<'a, const N: usize> {
    start: *const u8,
    borrow: PhantomData<&'a Skb>,
}

/// `N` bytes of the linear part, to be written.
pub(crate) struct PacketWindowMut<'a, const N: usize> {
    start: *mut u8,
    borrow: PhantomData<&'a mut Skb>,
}

/// Memory of this CPU for the headers of the packet at hand: the stack is short.
#[inline(always)]
pub(crate) fn parsed() -> Option<&'static mut Parsed> {
    let parsed = PACKET.get_ptr_mut(0)?;
    // SAFETY: a program runs to its end on one CPU before another one of ours starts there, and
    // calls this once.
    Some(unsafe { &mut *parsed })
}

impl Bytes for View<'_> {
    type Window<'a, const N: usize>
        = PacketWindow<'a, N>
    where
        Self: 'a;

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<PacketWindow<'_, N>> {
        self.skb.window(self.offset + offset)
    }
}

// Fields of headers lie at any address. Rust has no unaligned load that this target does not split
// into bytes (its feature for that would also misalign stack accesses, which the verifier refuses),
// so the loads and stores are written out.
macro_rules! load {
    ($self:ident, $at:ident, $instruction:literal) => {{
        let value: u64;
        // SAFETY: the caller asserted `AT` plus the width to be within `N`; the window was compared
        // against the end of the linear part when it was made, and nothing moves the packet while
        // it is borrowed.
        unsafe {
            asm!(
                $instruction,
                value = out(reg) value,
                start = in(reg) $self.start,
                at = const $at,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        value
    }};
}

macro_rules! store {
    ($self:ident, $at:ident, $value:ident, $instruction:literal) => {
        // SAFETY: as for `load`; the kernel's prologue of a program that writes directly makes the
        // linear part writable, and the packet is borrowed exclusively.
        unsafe {
            asm!(
                $instruction,
                value = in(reg) u64::from($value),
                start = in(reg) $self.start,
                at = const $at,
                options(nostack, preserves_flags),
            );
        }
    };
}

impl<const N: usize> Window<N> for PacketWindow<'_, N> {
    #[inline(always)]
    fn byte<const AT: usize>(self) -> u8 {
        const { assert!(AT < N) };
        load!(self, AT, "{value} = *(u8 *)({start} + {at})") as u8
    }

    #[inline(always)]
    fn half<const AT: usize>(self) -> u16 {
        const { assert!(AT + 2 <= N) };
        load!(self, AT, "{value} = *(u16 *)({start} + {at})") as u16
    }

    #[inline(always)]
    fn word<const AT: usize>(self) -> u32 {
        const { assert!(AT + 4 <= N) };
        load!(self, AT, "{value} = *(u32 *)({start} + {at})") as u32
    }
}

impl<const N: usize> PacketWindowMut<'_, N> {
    /// Writes 2 bytes, given in memory order.
    #[inline(always)]
    pub(crate) fn set_half<const AT: usize>(&mut self, value: u16) {
        const { assert!(AT + 2 <= N) };
        store!(self, AT, value, "*(u16 *)({start} + {at}) = {value}");
    }

    /// Writes 4 bytes, given in memory order.
    #[inline(always)]
    pub(crate) fn set_word<const AT: usize>(&mut self, value: u32) {
        const { assert!(AT + 4 <= N) };
        store!(self, AT, value, "*(u32 *)({start} + {at}) = {value}");
    }

    /// Writes a MAC address.
    #[inline(always)]
    pub(crate) fn set_mac<const AT: usize>(&mut self, mac: Mac) {
        const { assert!(AT + 6 <= N) };
        let (first, last) = (mac.first, mac.last);
        store!(self, AT, first, "*(u32 *)({start} + {at}) = {value}");
        store!(self, AT, last, "*(u16 *)({start} + {at} + 4) = {value}");
    }
}

/// A length from 1 to `N`, in a form that shows the verifier both bounds: kernels before 6.8 learn
/// nothing from a comparison with zero. In assembly, because the compiler knows the bounds and would
/// leave the rest out.
#[inline(always)]
fn at_least_one<const N: usize>(length: u32) -> u32 {
    const { assert!(N.is_power_of_two()) };
    let mut length = u64::from(length);
    // SAFETY: arithmetic on a register.
    unsafe {
        asm!(
            "{length} += -1",
            "{length} &= {mask}",
            "{length} += 1",
            length = inout(reg) length,
            mask = const N - 1,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    length as u32
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Skb {
            raw: ctx.skb.skb,
            traced: false,
        }
    }

    /// A packet that is asked about: whatever is decided, nothing but the packet may change.
    #[inline(always)]
    pub(crate) fn traced(ctx: &TcContext) -> Self {
        Skb {
            raw: ctx.skb.skb,
            traced: true,
        }
    }

    /// The packet of a program, handed to a function that the verifier looks at by itself.
    #[inline(always)]
    pub(crate) fn from_raw(raw: *mut __sk_buff, traced: bool) -> Self {
        Skb { raw, traced }
    }

    /// What [`Skb::from_raw`] takes.
    #[inline(always)]
    pub(crate) fn raw(&mut self) -> *mut __sk_buff {
        self.raw
    }

    /// The context, for a helper that changes nothing of the packet.
    #[inline(always)]
    pub(crate) fn context_for_helper(&self) -> *mut c_void {
        self.raw.cast()
    }

    /// Whether the packet is only asked about: then nothing is counted, kept or sent.
    #[inline(always)]
    pub(crate) fn is_traced(&self) -> bool {
        self.traced
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
        let value: u64;
        // Written out, as the accesses to the control block are, and for the same reason.
        // SAFETY: as for `context`.
        unsafe {
            asm!(
                "{value} = *(u32 *)({context} + {at})",
                value = out(reg) value,
                context = in(reg) self.raw,
                at = const offset_of!(__sk_buff, gso_size),
                options(readonly, nostack, preserves_flags),
            );
        }
        value as u32
    }

    /// How many packets this is on a wire.
    #[inline(always)]
    pub(crate) fn segments(&self) -> u64 {
        let segments = u64::from(self.context().gso_segs);
        if segments != 0 {
            return segments;
        }
        // After a tunnel, and from a TAP, the count is not filled in, but the size is. Where the
        // payload begins is not looked for: counting as if it were behind the longest usual headers is
        // one too few only when the last segment has but a few bytes.
        match self.gso_size() {
            0 => 1,
            _ if self.len() <= USUAL_HEADERS => 1,
            size => u64::from((self.len() - USUAL_HEADERS - 1) / size) + 1,
        }
    }

    /// The packet carries a VLAN tag that the device has taken off.
    #[inline(always)]
    pub(crate) fn is_tagged(&self) -> bool {
        self.context().vlan_present != 0
    }

    /// The tag that the device has taken off, as it stands in a frame: a word in memory order.
    #[inline(always)]
    pub(crate) fn tag(&self) -> u32 {
        let protocol = self.context().vlan_proto as u16;
        let control = (self.context().vlan_tci as u16).to_be();
        u32::from(control) << 16 | u32::from(protocol)
    }

    /// Takes a tag off: the one that the device has taken off, then the next one takes its place.
    #[inline(always)]
    pub(crate) fn pop_tag(&mut self) -> Result<(), DropReason> {
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_vlan_pop(self.raw) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }

    /// Puts a tag, as [`Skb::tag`] gives it, in front of the others.
    #[inline(always)]
    pub(crate) fn push_tag(&mut self, tag: u32) -> Result<(), DropReason> {
        let control = u16::from_be((tag >> 16) as u16);
        // SAFETY: the context is valid.
        match unsafe { bpf_skb_vlan_push(self.raw, tag as u16, control) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
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

    #[inline(always)]
    pub(crate) fn priority(&self) -> u32 {
        self.context().priority
    }

    #[inline(always)]
    pub(crate) fn set_priority(&mut self, priority: u32) {
        // SAFETY: as for `context`; `priority` may be written by a TC program.
        unsafe { (*self.raw).priority = priority }
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

    /// Makes sure that the headers of the frame that starts at `offset` can be read directly, as far
    /// as the packet has them.
    ///
    /// Nothing beyond them is asked for: a TCP packet that a workload sends has its headers in the
    /// linear part and its payload outside of it, and moving payload would copy the packet's head.
    #[inline(always)]
    pub(crate) fn ensure_headers(&mut self, offset: usize) {
        let context = self.context();
        let linear = context.data_end - context.data;
        if linear == context.len || linear >= offset as u32 + LONGEST_HEADERS {
            return;
        }
        let needed = self.header_bytes(offset);
        if linear >= needed {
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

    /// Makes sure that the first bytes can be read directly.
    #[inline(always)]
    pub(crate) fn ensure_bytes(&mut self, bytes: u32) {
        if self.context().data_end - self.context().data < bytes {
            // SAFETY: as in `ensure_headers`.
            unsafe { bpf_skb_pull_data(self.raw, bytes) };
        }
    }

    /// Bytes until the end of the transport header, as far as what is linear tells.
    #[inline(always)]
    fn header_bytes(&self, offset: usize) -> u32 {
        let Some(start) = self.window::<34>(offset) else {
            return u32::MAX;
        };
        let (ip, protocol) = match u16::from_be(start.half::<12>()) {
            ETHER_IPV4 => (u32::from(start.byte::<14>() & 0xf) * 4, start.byte::<23>()),
            ETHER_IPV6 => (IPV6_BYTES as u32, start.byte::<20>()),
            _ => return u32::MAX,
        };
        let transport = match protocol {
            PROTOCOL_TCP => TCP_BYTES,
            // As long as the longest of the others, and as a fragment header with what follows.
            PROTOCOL_IPV6_FRAGMENT => FRAGMENT_BYTES + TCP_BYTES,
            _ => UDP_BYTES,
        };
        (offset + ETHERNET_BYTES + transport) as u32 + ip
    }

    /// Where the linear part begins and ends.
    ///
    /// In assembly: the kernel makes pointers of these 32-bit fields when they are loaded, and the
    /// compiler may move a field that it has loaded from one register to another by its 32 bits, which
    /// makes a number of a pointer.
    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        let (data, end): (u64, u64);
        // SAFETY: the context is valid, and has both fields.
        unsafe {
            asm!(
                "{data} = *(u32 *)({context} + {data_at})",
                "{end} = *(u32 *)({context} + {end_at})",
                data = out(reg) data,
                end = lateout(reg) end,
                context = in(reg) self.raw,
                data_at = const offset_of!(__sk_buff, data),
                end_at = const offset_of!(__sk_buff, data_end),
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        (data as usize, end as usize)
    }

    /// The `N` bytes at an offset, or `None` when the linear part ends before them.
    #[inline(always)]
    pub(crate) fn window<const N: usize>(&self, offset: usize) -> Option<PacketWindow<'_, N>> {
        let (data, end) = self.linear();
        let start = data + offset;
        if start + N > end {
            return None;
        }
        Some(PacketWindow {
            start: start as *const u8,
            borrow: PhantomData,
        })
    }

    /// The `N` bytes at an offset, to be written.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] when the linear part ends before them.
    #[inline(always)]
    pub(crate) fn window_mut<const N: usize>(
        &mut self,
        offset: usize,
    ) -> Result<PacketWindowMut<'_, N>, DropReason> {
        let (data, end) = self.linear();
        let start = data + offset;
        if start + N > end {
            return Err(DropReason::Malformed);
        }
        Ok(PacketWindowMut {
            start: start as *mut u8,
            borrow: PhantomData,
        })
    }

    /// Bytes from an offset on, copied by a helper: the offset may be any number.
    #[inline(always)]
    pub(crate) fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0u8; N];
        // SAFETY: the context is valid, and the pointer and length describe `bytes`.
        let status = unsafe {
            bpf_skb_load_bytes(
                self.raw.cast(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        (status == 0).then_some(bytes)
    }

    /// Words from an offset on, in memory order, copied by a helper.
    #[inline(always)]
    pub(crate) fn load_words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let mut words = [0u32; N];
        // SAFETY: the context is valid, and the pointer and length describe `words`.
        let status = unsafe {
            bpf_skb_load_bytes(
                self.raw.cast(),
                offset as u32,
                words.as_mut_ptr().cast(),
                (N * 4) as u32,
            )
        };
        (status == 0).then_some(words)
    }

    /// Copies bytes from the start, as many as both `wanted` and `into` have; returns how many.
    #[inline(always)]
    pub(crate) fn load_into<const N: usize>(&self, into: &mut [u8; N], wanted: u32) -> u32 {
        const { assert!(N.is_power_of_two()) };
        let length = if wanted < N as u32 { wanted } else { N as u32 };
        if length == 0 {
            return 0;
        }
        let length = at_least_one::<N>(length);
        let to: *mut c_void = into.as_mut_ptr().cast();
        // SAFETY: the context is valid, and at most `N` bytes are written.
        match unsafe { bpf_skb_load_bytes(self.raw.cast(), 0, to, length) } {
            0 => length,
            _ => 0,
        }
    }

    /// Appends the packet, behind a header, to a ring buffer; `scratch` is where the two are put
    /// together.
    #[inline(always)]
    pub(crate) fn output(
        &self,
        ring: &RingBuf,
        scratch: *mut PuntRecord,
        header: PuntHeader,
    ) -> Result<(), DropReason> {
        let length = header.length;
        if length == 0 || length > FRAME_BYTES as u32 {
            return Err(DropReason::TooBig);
        }
        let length = at_least_one::<FRAME_BYTES>(length);
        // SAFETY: the scratch record is a map's, this processor's own, and no other program of ours
        // runs on it meanwhile; the length was bounded by the frame's.
        let status = unsafe {
            (*scratch).header = header;
            let frame = (&raw mut (*scratch).frame).cast();
            bpf_skb_load_bytes(self.raw.cast(), 0, frame, length)
        };
        if status != 0 {
            return Err(DropReason::Malformed);
        }
        // SAFETY: as before; what is appended was written above.
        let status = unsafe {
            let map = (&raw const *ring).cast_mut().cast();
            let bytes = HEADER_BYTES as u64 + u64::from(length);
            bpf_ringbuf_output(map, scratch.cast(), bytes, 0)
        };
        if status == 0 {
            Ok(())
        } else {
            Err(DropReason::PuntFull)
        }
    }

    /// Writes bytes at an offset, copied by a helper.
    #[inline(always)]
    pub(crate) fn store<const N: usize>(
        &mut self,
        offset: usize,
        bytes: &[u8; N],
    ) -> Result<(), DropReason> {
        self.store_raw(offset, bytes.as_ptr().cast(), N)
    }

    /// Writes words in memory order at an offset, copied by a helper.
    #[inline(always)]
    pub(crate) fn store_words<const N: usize>(
        &mut self,
        offset: usize,
        words: &[u32; N],
    ) -> Result<(), DropReason> {
        self.store_raw(offset, words.as_ptr().cast(), N * 4)
    }

    #[inline(always)]
    fn store_raw(
        &mut self,
        offset: usize,
        from: *const c_void,
        length: usize,
    ) -> Result<(), DropReason> {
        // SAFETY: the context is valid, and both callers pass pointer and length of one array.
        let status =
            unsafe { bpf_skb_store_bytes(self.raw.cast(), offset as u32, from, length as u32, 0) };
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

    /// Sends a copy of the packet out of a device; the packet itself stays.
    #[inline(always)]
    pub(crate) fn send_copy(&mut self, ifindex: u32) -> bool {
        // SAFETY: the context is valid.
        unsafe { bpf_clone_redirect(self.raw, ifindex, 0) == 0 }
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
