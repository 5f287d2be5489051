//! From the underlay into the switch: check who sent it, then deliver or forward.

use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::{AddressKey, LocationEntry},
    headers::{ETHER_IPV4, ETHERNET_BYTES, Family, Headers, PROTOCOL_UDP},
    vxlan::{self, IPV4_OFFSET, MAX_HOPS, OUTER_BYTES, UDP_OFFSET, VXLAN_OFFSET, Vxlan},
};

use crate::{
    Handled, deliver,
    frame::{Skb, note},
    maps::{CONTROL, NETWORKS, PEER_ADDRESSES},
    tunnel,
};

/// Bytes that hold the outer headers and every inner header this program reads.
const HEADER_BYTES: u32 = OUTER_BYTES as u32 + 62;

/// A packet that comes in on the underlay device.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb) -> Result<Handled, DropReason> {
    if skb.protocol() != ETHER_IPV4 {
        return Ok(Handled::Pass);
    }
    skb.ensure_linear(HEADER_BYTES);
    let Some(ip) = skb.window::<20>(IPV4_OFFSET) else {
        return Ok(Handled::Pass);
    };
    let control = CONTROL.get(0).ok_or(DropReason::BadTables)?;
    let source = ip.word::<12>();
    // A tunnelled packet of ours never has IPv4 options; one that has is the stack's to refuse.
    if ip.byte::<0>() != 0x45
        || ip.byte::<9>() != PROTOCOL_UDP
        || ip.word::<16>() != control.vtep.0[0]
    {
        return Ok(Handled::Pass);
    }
    // Of a fragmented datagram only the first fragment has a port: the stack takes them all, and
    // the idle tunnel device behind it drops them.
    if u16::from_be(ip.half::<6>()) & 0x3fff != 0 {
        return Ok(Handled::Pass);
    }
    let Some(udp) = skb.window::<8>(UDP_OFFSET) else {
        return Ok(Handled::Pass);
    };
    if u16::from_be(udp.half::<2>()) != vxlan::PORT {
        return Ok(Handled::Pass);
    }
    let header = skb.window::<8>(VXLAN_OFFSET).and_then(Vxlan::parse);
    let header = header.ok_or(DropReason::BadTunnel)?;
    skb.set_note::<{ note::NETWORK }>(header.vni);

    let address = Address([source, 0, 0, 0]);
    // SAFETY: values are plain numbers, replaced whole.
    let peer = *unsafe { PEER_ADDRESSES.get(address) }.ok_or(DropReason::UnknownPeer)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let network = unsafe { NETWORKS.get(header.vni) }.ok_or(DropReason::UnknownNetwork)?;
    let inner = Headers::parse(&skb.view(OUTER_BYTES))
        .map_err(|_| DropReason::Malformed)?
        .headers;

    // The entry node decided and put the destination's MAC address; deliver to whom it says, even
    // where a policy sends a packet to another endpoint than the owner of its address.
    let number =
        deliver::owner(&AddressKey::mac(header.vni, inner.eth_dst)).ok_or(DropReason::NotHere)?;
    skb.set_note::<{ note::DESTINATION }>(number);
    let location = deliver::location(number, header.vni).ok_or(DropReason::NotHere)?;
    check_source(&inner, header, peer, location)?;

    if location.ifindex != 0 {
        let bytes = skb.len() - (OUTER_BYTES + ETHERNET_BYTES) as u32;
        if skb.gso_size() == 0 && bytes > network.mtu {
            // redirect_peer would drop it without a word.
            return Err(DropReason::TooBig);
        }
        tunnel::decapsulate(skb, inner.family == Family::V6)?;
        return Ok(Handled::Redirect(deliver::to_device(
            skb,
            inner.family,
            location.ifindex,
        )));
    }
    let node = next_home(location, control.node, header.hops)?;
    if header.hops >= MAX_HOPS {
        return Err(DropReason::HopLimit);
    }
    tunnel::forward(
        skb,
        node,
        Vxlan {
            hops: header.hops + 1,
            ..header
        },
    )
    .map(Handled::Redirect)
}

/// The inner source lives at the peer (or is moving to or from it), or the peer forwards for a
/// destination that lived there.
#[inline(always)]
fn check_source(
    inner: &Headers,
    header: Vxlan,
    peer: u32,
    destination: &LocationEntry,
) -> Result<(), DropReason> {
    if header.hops > 0 && lives_at(destination, peer) {
        return Ok(());
    }
    let by_address = match inner.family {
        Family::None => None,
        family => deliver::owner(&AddressKey {
            network: header.vni,
            family: family as u32,
            address: inner.src,
        }),
    };
    // A policy may rewrite the source address to one that nobody owns; the MAC address is left.
    let number = match by_address {
        Some(number) => Some(number),
        None => deliver::owner(&AddressKey::mac(header.vni, inner.eth_src)),
    };
    number
        .and_then(|number| deliver::location(number, header.vni))
        .filter(|source| lives_at(source, peer))
        .map(|_| ())
        .ok_or(DropReason::SourceNotThere)
}

#[inline(always)]
fn lives_at(location: &LocationEntry, node: u32) -> bool {
    location.node == node || location.other == node
}

/// Where a packet goes on to whose destination has no device here.
#[inline(always)]
fn next_home(location: &LocationEntry, own_node: u32, hops: u8) -> Result<u32, DropReason> {
    if location.node == own_node {
        // Released here, on its way to the other node.
        return if location.other != 0 {
            Ok(location.other)
        } else {
            Err(DropReason::NotAttached)
        };
    }
    if location.other != own_node {
        return Err(DropReason::NotHere);
    }
    if hops > 0 {
        // The node it leaves has sent this here already, and the device has not arrived yet.
        return Err(DropReason::InTransit);
    }
    Ok(location.node)
}
