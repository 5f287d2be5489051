//! What devices in external mode have instead of tunnels of their own: each packet says which one.

use aya_ebpf::{
    bindings::bpf_tunnel_key,
    helpers::{bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use sunwire_dataplane_common::drop_reason::DropReason;

use super::Skb;

impl Skb {
    /// The tunnel that a device in external mode has taken the packet out of: its VNI, and who sent
    /// it, in memory order. `None` for a packet that came by no tunnel, or by one over IPv6.
    #[inline(always)]
    pub(crate) fn came_by_tunnel(&self) -> Option<(u32, u32)> {
        // SAFETY: plain numbers.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        let bytes = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the context is valid, and at most so many bytes are written.
        if unsafe { bpf_skb_get_tunnel_key(self.raw, &mut key, bytes, 0) } != 0 {
            return None;
        }
        // SAFETY: all bytes of the union were written.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
        Some((key.tunnel_id, remote.to_be()))
    }

    /// Lets a device in external mode put the packet into a tunnel; addresses in memory order.
    #[inline(always)]
    pub(crate) fn set_tunnel(
        &mut self,
        vni: u32,
        source: u32,
        destination: u32,
    ) -> Result<(), DropReason> {
        // No checksum: the inner packet has its own (RFC 7348, 5).
        const BPF_F_ZERO_CSUM_TX: u64 = 1 << 1;
        const BPF_F_DONT_FRAGMENT: u64 = 1 << 2;
        // SAFETY: plain numbers.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        key.tunnel_ttl = 64;
        key.__bindgen_anon_1.remote_ipv4 = u32::from_be(destination);
        key.__bindgen_anon_3.local_ipv4 = u32::from_be(source);
        let bytes = size_of::<bpf_tunnel_key>() as u32;
        let flags = BPF_F_ZERO_CSUM_TX | BPF_F_DONT_FRAGMENT;
        // SAFETY: the context is valid, and the pointer and length describe `key`.
        match unsafe { bpf_skb_set_tunnel_key(self.raw, &mut key, bytes, flags) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }
}
