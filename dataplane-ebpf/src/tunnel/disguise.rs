//! Frames that are no IP packets, made such ones to the kernel, which makes tunnels of those alone.
//!
//! The kernel notes what a packet is when it arrives, and no helper says otherwise. But when it takes a tag out of
//! a frame it reads what is behind the tag, and that a program may write. Of two tags it keeps the last beside
//! the frame and puts the other into it, and takes it out again when the one beside is gone:
//!
//! ```text
//! to from ARP ...            kernel: ARP
//! to from VLAN tag ARP ...   kernel: VLAN    two tags pushed, one of them beside the frame
//! to from VLAN tag IPv4 ...                  what is behind the tag is written
//! to from IPv4 ...           kernel: IPv4    both tags popped
//! ```
//!
//! The frame's own EtherType has to be written where it belongs, behind the outer headers.

use aya_ebpf::bindings::__sk_buff;
use sunwire_dataplane_common::{
    drop_reason::DropReason,
    headers::{ETHER_IPV4, ETHER_VLAN, ETHERNET_BYTES},
};

use crate::frame::Skb;

/// Where what is behind a tag stands.
const BEHIND_TAG: usize = ETHERNET_BYTES + 2;

/// Has the kernel take a frame without tags for an IPv4 packet. Every window on it ends.
#[inline(always)]
pub(super) fn pass_for_ipv4(skb: &mut Skb) -> Result<(), DropReason> {
    match disguise(skb.raw()) {
        0 => Err(DropReason::Resize),
        _ => Ok(()),
    }
}

/// Returns zero when the kernel refuses.
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn disguise(context: *mut __sk_buff) -> u32 {
    let mut skb = Skb::from_raw(context, false);
    u32::from(change(&mut skb).is_ok())
}

#[inline(always)]
fn change(skb: &mut Skb) -> Result<(), DropReason> {
    if skb.is_tagged() {
        return Err(DropReason::Vlan);
    }
    let tag = u32::from(ETHER_VLAN.to_be());
    skb.push_tag(tag)?;
    skb.push_tag(tag)?;
    skb.window_mut::<{ BEHIND_TAG + 2 }>(0)?
        .set_half::<BEHIND_TAG>(ETHER_IPV4.to_be());
    skb.pop_tag()?;
    skb.pop_tag()
}
