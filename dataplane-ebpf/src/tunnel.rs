//! Into the tunnel and on through it: VXLAN over IPv4, with super-packets kept whole.

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::PeerEntry,
    vxlan::{
        IPV4_OFFSET, OUTER_BYTES, SOURCE_PORT_BASE, SOURCE_PORT_MASK, UDP_OFFSET, VXLAN_OFFSET,
        Vxlan, fold_checksum,
    },
};

use crate::{frame::Skb, maps::PEERS};

const BPF_F_ADJ_ROOM_FIXED_GSO: u64 = 1 << 0;
const BPF_F_ADJ_ROOM_ENCAP_L3_IPV4: u64 = 1 << 1;
const BPF_F_ADJ_ROOM_ENCAP_L4_UDP: u64 = 1 << 4;
const BPF_F_ADJ_ROOM_ENCAP_L2_ETH: u64 = 1 << 6;
const BPF_F_ADJ_ROOM_DECAP_L3_IPV4: u64 = 1 << 7;
const BPF_F_ADJ_ROOM_DECAP_L3_IPV6: u64 = 1 << 8;
/// The inner Ethernet header, so that segmentation knows where the inner IP header is.
const INNER_L2_BYTES: u64 = 14;
const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH
    | INNER_L2_BYTES << 56;

/// Wraps the packet for a node and sends it out of the underlay device.
#[inline(always)]
pub(crate) fn encapsulate(skb: &mut Skb, node: u32, network: u32) -> Result<i32, DropReason> {
    let peer = reachable(node)?;
    // The inner flow spreads over the underlay's paths by the outer source port (RFC 7348, 5).
    let port = SOURCE_PORT_BASE | (skb.hash() & SOURCE_PORT_MASK) as u16;
    let inner = *skb.window::<14>(0).ok_or(DropReason::Malformed)?;
    skb.adjust_room(OUTER_BYTES as i32, ENCAP_FLAGS)?;

    let length = skb.len();
    skb.write(0, &peer.template)?;
    skb.write(OUTER_BYTES, &inner)?;
    write_ipv4_length(skb, peer, length)?;
    skb.write(UDP_OFFSET, &port.to_be_bytes())?;
    skb.write(
        UDP_OFFSET + 4,
        &((length - UDP_OFFSET as u32) as u16).to_be_bytes(),
    )?;
    skb.write(
        VXLAN_OFFSET,
        &Vxlan {
            vni: network,
            hops: 0,
        }
        .to_bytes(),
    )?;
    Ok(skb.redirect(peer.ifindex))
}

/// Sends a tunnelled packet on to another node, as it is but for the outer addresses.
#[inline(always)]
pub(crate) fn forward(skb: &mut Skb, node: u32, header: Vxlan) -> Result<i32, DropReason> {
    let peer = reachable(node)?;
    let outer: &[u8; UDP_OFFSET] = peer.template.first_chunk().ok_or(DropReason::BadTables)?;
    skb.write(0, outer)?;
    let length = skb.len();
    write_ipv4_length(skb, peer, length)?;
    skb.write(VXLAN_OFFSET, &header.to_bytes())?;
    Ok(skb.redirect(peer.ifindex))
}

/// Takes the outer headers off; the inner Ethernet header takes their place.
#[inline(always)]
pub(crate) fn decapsulate(skb: &mut Skb, is_ipv6: bool) -> Result<(), DropReason> {
    let inner = *skb.window::<14>(OUTER_BYTES).ok_or(DropReason::Malformed)?;
    // Without the flag skb->protocol would stay IPv4 and the stack would drop the packet.
    let family = if is_ipv6 {
        BPF_F_ADJ_ROOM_DECAP_L3_IPV6
    } else {
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4
    };
    skb.adjust_room(-(OUTER_BYTES as i32), BPF_F_ADJ_ROOM_FIXED_GSO | family)?;
    skb.write(0, &inner)
}

#[inline(always)]
fn reachable(node: u32) -> Result<&'static PeerEntry, DropReason> {
    PEERS
        .get(node)
        .filter(|peer| peer.ifindex != 0)
        .ok_or(DropReason::NoRoute)
}

/// Completes the template's IPv4 header. A super-packet's length may not fit; segmentation sets
/// it anew for each segment.
#[inline(always)]
fn write_ipv4_length(skb: &mut Skb, peer: &PeerEntry, length: u32) -> Result<(), DropReason> {
    let total = (length - IPV4_OFFSET as u32) as u16;
    skb.write(IPV4_OFFSET + 2, &total.to_be_bytes())?;
    let checksum = fold_checksum(peer.checksum + u32::from(total));
    skb.write(IPV4_OFFSET + 10, &checksum.to_be_bytes())
}
