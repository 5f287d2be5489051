//! What is wrapped already, out of this node: by the underlay device, by the one that encrypts, or where
//! outer checksums are written (`checksum`).

use sunwire_dataplane_common::{
    bytes::Window,
    drop_reason::DropReason,
    entries::{LocationEntry, PeerEntry, direction, location, peer},
    headers::UDP_BYTES,
    vxlan::{OUTER_BYTES, OUTER_BYTES_V6, UDP_OFFSET_V6},
};

use super::{
    destination_port, has_checksum, outer_bytes, reachable, vxlan_offset, wish, write_ipv6,
    write_until_udp,
};
use crate::{
    counters,
    frame::{Skb, note},
    maps::{CONTROL, PEERS_V6},
};

/// Sends a wrapped packet out; `summed` if its network has outer checksums. What is encrypted has none:
/// nobody reads it on the way, and what comes out of there has been proved whole.
#[inline(always)]
pub(crate) fn send_out(skb: &mut Skb, peer: &PeerEntry, summed: bool) -> Result<i32, DropReason> {
    if !summed || peer.flags & peer::ENCRYPTED != 0 {
        return Ok(skb.redirect(peer.ifindex));
    }
    let device = checksum_device()?;
    // A traced packet's mark says which copies there are of it.
    if !skb.is_traced() {
        skb.set_mark(peer.ifindex);
    }
    Ok(skb.redirect(device))
}

/// As [`send_out`], a copy; returns whether there is the device.
#[inline(always)]
pub(super) fn send_copy_out(
    skb: &mut Skb,
    peer: &PeerEntry,
    summed: bool,
) -> Result<bool, DropReason> {
    if !summed || peer.flags & peer::ENCRYPTED != 0 {
        return Ok(skb.send_copy(peer.ifindex));
    }
    let device = checksum_device()?;
    skb.set_mark(peer.ifindex);
    let sent = skb.send_copy(device);
    skb.set_mark(0);
    Ok(sent)
}

/// ifindex of the device behind which checksums are written.
#[inline(always)]
fn checksum_device() -> Result<u32, DropReason> {
    let device = CONTROL.get(0).map(|control| control.checksum);
    device
        .filter(|device| *device != 0)
        .ok_or(DropReason::NoChecksum)
}

/// Whether a packet that came with outer headers goes on with a checksum in them: where its network has
/// them, and where it came with one. That may be part of what the kernel knows of a super-packet, and
/// cannot be left away.
#[inline(always)]
fn is_summed<const V6: bool>(skb: &Skb, location: &LocationEntry) -> Result<bool, DropReason> {
    let udp = skb.window::<8>(vxlan_offset(V6) - UDP_BYTES);
    let has_one = udp.ok_or(DropReason::Malformed)?.half::<6>() != 0;
    Ok(has_one || has_checksum(location))
}

/// Sends a tunnelled packet on to another node, which is reached over the same family, as it is but for
/// the outer addresses and the last word of its VXLAN or wire header.
#[inline(always)]
pub(crate) fn forward<const V6: bool>(
    skb: &mut Skb,
    node: u32,
    last_word: u32,
    location: &LocationEntry,
) -> Result<i32, DropReason> {
    skb.set_note::<{ note::NODE }>(node);
    let peer = reachable(node, wish(location))?;
    readdress::<V6>(skb, node, peer)?;
    let summed = is_summed::<V6>(skb, location)?;
    let mut udp = skb.window_mut::<16>(vxlan_offset(V6) - UDP_BYTES)?;
    udp.set_half::<2>(destination_port(peer, location.port));
    udp.set_half::<6>(0);
    udp.set_word::<{ UDP_BYTES + 4 }>(last_word);
    counters::tunnelled(skb, node, direction::SENT, outer_bytes(V6));
    send_out(skb, peer, summed)
}

/// Sends a packet back to the node that it came from, as it is but for the outer addresses; `encrypted`
/// if it came so.
#[inline(always)]
pub(crate) fn send_back<const V6: bool>(
    skb: &mut Skb,
    node: u32,
    encrypted: bool,
) -> Result<i32, DropReason> {
    // What came in the clear goes back as the node is reached in any case.
    let wish = match encrypted {
        true => location::ENCRYPTED,
        false => 0,
    };
    let peer = reachable(node, wish)?;
    if (peer.flags & peer::OVER_IPV6 != 0) != V6 {
        // A node is asked the way that it is reached, and of two each finds the same.
        return Err(DropReason::NoRoute);
    }
    readdress::<V6>(skb, node, peer)?;
    Ok(skb.redirect(peer.ifindex))
}

/// Writes the outer Ethernet and IP headers of a tunnelled packet anew, for a node that is reached over
/// the same family.
#[inline(always)]
pub(super) fn readdress<const V6: bool>(
    skb: &mut Skb,
    node: u32,
    peer: &PeerEntry,
) -> Result<(), DropReason> {
    let length = skb.len();
    if V6 {
        let entry = PEERS_V6.get(node).ok_or(DropReason::NoRoute)?;
        let port = skb.window::<2>(UDP_OFFSET_V6);
        let port = port.ok_or(DropReason::Malformed)?.half::<0>();
        let mut outer = skb.window_mut::<OUTER_BYTES_V6>(0)?;
        write_ipv6(&mut outer, entry, length, port);
    } else {
        let mut outer = skb.window_mut::<OUTER_BYTES>(0)?;
        write_until_udp(&mut outer, peer, length);
    }
    Ok(())
}
