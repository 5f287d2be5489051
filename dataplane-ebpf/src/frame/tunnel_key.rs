//! What devices in external mode have instead of tunnels of their own: each packet says which one.

use aya_ebpf::{
    bindings::bpf_tunnel_key,
    helpers::{bpf_skb_get_tunnel_key, bpf_skb_set_tunnel_key},
};
use sunwire_dataplane_common::{address::Address, drop_reason::DropReason};

use super::Skb;

/// The tunnel is one over IPv6.
const BPF_F_TUNINFO_IPV6: u64 = 1;

impl Skb {
    /// The tunnel that a device in external mode has taken the packet out of: its VNI, and who sent
    /// it. `None` for a packet that came by no tunnel.
    #[inline(always)]
    pub(crate) fn came_by_tunnel(&self) -> Option<(u32, Address)> {
        // SAFETY: plain numbers.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        let bytes = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the context is valid, and at most so many bytes are written.
        if unsafe { bpf_skb_get_tunnel_key(self.raw, &mut key, bytes, 0) } == 0 {
            // SAFETY: all bytes of the union were written.
            let remote = unsafe { key.__bindgen_anon_1.remote_ipv4 };
            return Some((key.tunnel_id, Address([remote.to_be(), 0, 0, 0])));
        }
        // One over IPv6 is told only who asks for such a one.
        // SAFETY: as above.
        let status =
            unsafe { bpf_skb_get_tunnel_key(self.raw, &mut key, bytes, BPF_F_TUNINFO_IPV6) };
        if status != 0 {
            return None;
        }
        // SAFETY: all bytes of the union were written.
        let remote = unsafe { key.__bindgen_anon_1.remote_ipv6 };
        Some((key.tunnel_id, Address(remote)))
    }

    /// Lets a device in external mode put the packet into a tunnel, from and to addresses of the family
    /// that `v6` says; `summed` if over IPv4, too, they get an outer UDP checksum.
    #[inline(always)]
    pub(crate) fn set_tunnel(
        &mut self,
        vni: u32,
        v6: bool,
        summed: bool,
        source: &Address,
        destination: &Address,
    ) -> Result<(), DropReason> {
        // No checksum, usually: the inner packet has its own (RFC 7348, 5).
        const BPF_F_ZERO_CSUM_TX: u64 = 1 << 1;
        const BPF_F_DONT_FRAGMENT: u64 = 1 << 2;
        // SAFETY: plain numbers.
        let mut key: bpf_tunnel_key = unsafe { core::mem::zeroed() };
        key.tunnel_id = vni;
        key.tunnel_ttl = 64;
        let mut flags = BPF_F_DONT_FRAGMENT;
        if !summed {
            flags |= BPF_F_ZERO_CSUM_TX;
        }
        if v6 {
            // Whoever takes such packets may want a checksum (RFC 6935): Linux does, unless told
            // otherwise.
            flags = BPF_F_TUNINFO_IPV6 | BPF_F_DONT_FRAGMENT;
            key.__bindgen_anon_1.remote_ipv6 = destination.0;
            key.__bindgen_anon_3.local_ipv6 = source.0;
        } else {
            key.__bindgen_anon_1.remote_ipv4 = u32::from_be(destination.0[0]);
            key.__bindgen_anon_3.local_ipv4 = u32::from_be(source.0[0]);
        }
        let bytes = size_of::<bpf_tunnel_key>() as u32;
        // SAFETY: the context is valid, and the pointer and length describe `key`.
        match unsafe { bpf_skb_set_tunnel_key(self.raw, &mut key, bytes, flags) } {
            0 => Ok(()),
            _ => Err(DropReason::Resize),
        }
    }
}
