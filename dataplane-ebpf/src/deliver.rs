//! From a verdict to the destination: owner, location, and the way there.

use sunwire_dataplane_common::{
    address::{Address, Mac},
    drop_reason::DropReason,
    entries::{AddressKey, LocationEntry, location as flags},
    flow::{Direction, has_flow},
    headers::{Family, Headers, Parsed},
    outbound::is_egress,
    tables::{Copied, OUT_ENDPOINT, OUT_OWNER, set},
    vxlan::Vxlan,
};

use crate::{
    Handled, flow,
    frame::{Skb, note},
    maps::{ENDPOINTS, LOCATIONS, NETWORKS, OWNERS},
    outbound, quoted, related, rewrite, routes, translate, tunnel,
};

/// Number of the endpoint that a copy goes to: a packet with these headers, before it is rewritten.
#[inline(always)]
pub(crate) fn number(copied: &Copied, headers: &Headers, network: u32) -> Result<u32, DropReason> {
    match copied.out {
        OUT_OWNER => match owner_of_destination(copied, headers, network) {
            0 => Err(DropReason::NoOwner),
            number => Ok(number),
        },
        OUT_ENDPOINT => Ok(copied.endpoint),
        _ => Err(DropReason::NotForwarded),
    }
}

/// Number of the endpoint that owns the destination of a copy, or zero.
// A function of its own: the key is large, and most packets need none.
#[inline(never)]
fn owner_of_destination(copied: &Copied, headers: &Headers, network: u32) -> u32 {
    let mut key = destination(headers, network);
    if copied.set & set::IP4_DST != 0 && key.family == 4 {
        key.address.0[0] = copied.ip4_dst;
    }
    if copied.set & set::IP6_DST != 0 && key.family == 6 {
        key.address = copied.ip6_dst;
    }
    if copied.set & set::ETH_DST != 0 && key.family == 0 {
        key = AddressKey::mac(network, copied.eth_dst);
    }
    match routes::owner(&mut key) {
        0 if copied.set & set::ETH_DST != 0 => owner_of_mac(network, &copied.eth_dst),
        0 => owner_of_mac(network, &headers.eth_dst),
        number => number,
    }
}

/// Number of the endpoint, of the network or of a peer of it, that a packet is for as it is; zero when
/// it is nobody's.
// A function of its own: the key is large.
#[inline(never)]
pub(crate) fn owner_of(headers: &Headers, network: u32) -> u32 {
    match routes::owner(&mut destination(headers, network)) {
        0 => owner_of_mac(network, &headers.eth_dst),
        number => number,
    }
}

/// Number of the endpoint that owns a MAC address in a network where that says whose a packet is, or
/// zero: one without subnet.
// A function of its own: the key is large.
#[inline(never)]
fn owner_of_mac(network: u32, mac: &Mac) -> u32 {
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let Some(entry) = (unsafe { NETWORKS.get(network) }) else {
        return 0;
    };
    if entry.gateway_v4 != Address::ZERO || entry.gateway_v6 != Address::ZERO {
        return 0;
    }
    owner(&AddressKey::mac(network, *mac)).unwrap_or(0)
}

/// Where a packet is on its way to, and from whom.
pub(crate) struct Way {
    /// VXLAN network identifier of the sender's network.
    pub(crate) network: u32,
    /// Number of the endpoint that sent it.
    pub(crate) from: u32,
    /// Number of the endpoint that gets it.
    pub(crate) to: u32,
    /// Number of this node.
    pub(crate) own_node: u32,
    /// Outer source port, network order.
    pub(crate) tunnel_port: u16,
    /// Source port that its packets get, host order; zero when they keep theirs.
    pub(crate) source_port: u16,
    /// The verdict has written the destination MAC address.
    pub(crate) keeps_mac: bool,
}

/// Sends a packet, already rewritten, to an endpoint.
#[inline(always)]
pub(crate) fn send(skb: &mut Skb, parsed: &mut Parsed, way: &Way) -> Result<Handled, DropReason> {
    skb.set_note::<{ note::DESTINATION }>(way.to);
    if is_egress(way.to) {
        return outbound::leave(skb, way);
    }
    let location = routes::location(way.to).ok_or(DropReason::NoOwner)?;
    if location.network != way.network {
        routes::cross(skb, parsed, way)?;
    }
    if !way.keeps_mac {
        skb.window_mut::<6>(0)?.set_mac::<0>(location.mac);
    }
    if location.ifindex != 0 {
        receive(skb, parsed, location.network, way.to, way.from)?;
        return Ok(Handled::Redirect(to_device(
            skb,
            parsed.headers.family,
            location,
        )));
    }
    let node = home(location, way.own_node)?;
    let header = Vxlan {
        vni: location.network,
        hops: 0,
        tag: 0,
    };
    tunnel::encapsulate(skb, node, header, location, way.tunnel_port).map(Handled::Redirect)
}

/// The other node to which packets for an endpoint go that is not here.
#[inline(always)]
pub(crate) fn home(location: &LocationEntry, own_node: u32) -> Result<u32, DropReason> {
    if location.node != own_node {
        Ok(location.node)
    } else if location.other != 0 {
        // Released here and on its way: what is sent now waits at the other end, if anywhere.
        Ok(location.other)
    } else {
        Err(DropReason::NotAttached)
    }
}

/// Notes in the flow of the endpoint that gets a packet that it came, and gives it back the
/// addresses that its receiver knows the other side by; and, when it speaks of another packet,
/// that one.
#[inline(always)]
pub(crate) fn receive(
    skb: &mut Skb,
    parsed: &mut Parsed,
    network: u32,
    to: u32,
    from: u32,
) -> Result<(), DropReason> {
    if is_egress(from) && !outbound::is_asked(skb, network, to) {
        return Err(DropReason::OutboundUnasked);
    }
    if related::is_error(&parsed.headers) {
        return match quoted::restore(skb.raw(), network, to) {
            0 => Ok(()),
            _ => Err(DropReason::Malformed),
        };
    }
    receive_flow(skb, parsed, network, to, from)
}

// A function of its own: it is called in two places, and has keys of two families on its stack.
#[inline(never)]
fn receive_flow(
    skb: &mut Skb,
    parsed: &mut Parsed,
    network: u32,
    to: u32,
    from: u32,
) -> Result<(), DropReason> {
    let headers = &parsed.headers;
    if !has_flow(headers) {
        return Ok(());
    }
    match flow::find(network, headers, Direction::Received) {
        Some(entry) if entry.local == to => {
            if entry.remote != from {
                let is_up = !entry.is_alias() && entry.remote != 0 && !entry.is_closed();
                if is_up && translate::is_taken(network, from, entry.remote) != 0 {
                    return Err(DropReason::TranslationTaken);
                }
                if !skb.is_traced() {
                    entry.remote = from;
                }
            }
            return receive_in(skb, parsed, network, entry);
        }
        // A copy for another endpoint than the address's owner is no connection of the owner's.
        Some(_) => {}
        None => {
            if !skb.is_traced() && is_owner(headers, network, to) {
                flow::remember_received(headers, network, to, from);
            }
        }
    }
    Ok(())
}

/// Whether an endpoint owns the destination of a packet.
#[inline(always)]
fn is_owner(headers: &Headers, network: u32, number: u32) -> bool {
    match owner(&destination(headers, network)) {
        Some(owner) => owner == number,
        None => owner_of_mac(network, &headers.eth_dst) == number,
    }
}

/// As [`receive`], of a packet whose flow was found.
#[inline(always)]
pub(crate) fn receive_in(
    skb: &mut Skb,
    parsed: &mut Parsed,
    network: u32,
    entry: flow::Entry,
) -> Result<(), DropReason> {
    if !skb.is_traced() {
        flow::note_received(entry, &parsed.headers);
    }
    if entry.is_alias() {
        rewrite::restore_source(skb, parsed, entry)?;
        let own = location(entry.local, network).and_then(|to| ENDPOINTS.get(to.ifindex));
        if let Some(own) = own {
            rewrite::restore_destination(skb, parsed, entry, own)?;
        }
        // The flow as the receiver knows it.
        if !skb.is_traced()
            && let Some(entry) = flow::find(network, &parsed.headers, Direction::Received)
        {
            flow::note_received(entry, &parsed.headers);
        }
    }
    Ok(())
}

/// Hands the packet to the endpoint behind a host-side device; `family` is what skb->protocol tells of.
#[inline(always)]
pub(crate) fn to_device(skb: &Skb, family: Family, location: &LocationEntry) -> i32 {
    // redirect_peer keeps skb->protocol, which is right only for IP; a TAP has no peer.
    if family == Family::None || location.flags & flags::TAP != 0 {
        skb.redirect(location.ifindex)
    } else {
        skb.redirect_peer(location.ifindex)
    }
}

/// The number of the endpoint that owns an address.
#[inline(always)]
pub(crate) fn owner(key: &AddressKey) -> Option<u32> {
    // SAFETY: values are plain numbers, replaced whole.
    unsafe { OWNERS.get(key) }.copied()
}

/// Where an endpoint is, if the network has it.
#[inline(always)]
pub(crate) fn location(number: u32, network: u32) -> Option<&'static LocationEntry> {
    LOCATIONS
        .get(number)
        .filter(|location| location.network == network)
}

/// The key of the destination's owner: by address, or by MAC address for a packet without.
#[inline(always)]
pub(crate) fn destination(headers: &Headers, network: u32) -> AddressKey {
    by_address(headers.family, headers.dst, network)
        .unwrap_or(AddressKey::mac(network, headers.eth_dst))
}

/// The key of an address's owner; `None` for a packet without addresses.
#[inline(always)]
pub(crate) fn by_address(family: Family, address: Address, network: u32) -> Option<AddressKey> {
    match family {
        Family::None => None,
        family => Some(AddressKey {
            network,
            family: family as u32,
            address,
        }),
    }
}
