//! From a verdict to the destination: owner, location, and the way there.

use sunwire_dataplane_common::{
    drop_reason::DropReason,
    entries::{AddressKey, LocationEntry},
    headers::{Family, Headers, Parsed},
    tables::{Copied, OUT_ENDPOINT, OUT_OWNER, set},
};

use crate::{
    Handled,
    frame::{Skb, note},
    maps::{LOCATIONS, OWNERS},
    tunnel,
};

/// Sends one copy of a packet, already rewritten, to where the verdict says.
#[inline(always)]
pub(crate) fn copy(
    skb: &mut Skb,
    parsed: &Parsed,
    copied: &Copied,
    network: u32,
    own_node: u32,
) -> Result<Handled, DropReason> {
    let number = match copied.out {
        OUT_OWNER => {
            let mut key = destination(&parsed.headers, network);
            if copied.set & set::IP4_DST != 0 && key.family == 4 {
                key.address.0[0] = copied.ip4_dst;
            }
            if copied.set & set::ETH_DST != 0 && key.family == 0 {
                key = AddressKey::mac(network, copied.eth_dst);
            }
            owner(&key).ok_or(DropReason::NoOwner)?
        }
        OUT_ENDPOINT => copied.endpoint,
        _ => return Err(DropReason::NotForwarded),
    };
    skb.set_note::<{ note::DESTINATION }>(number);
    let location = location(number, network).ok_or(DropReason::NoOwner)?;
    if copied.set & set::ETH_DST == 0 {
        skb.window_mut::<6>(0)?.set_mac::<0>(location.mac);
    }
    if location.ifindex != 0 {
        return Ok(Handled::Redirect(to_device(
            skb,
            parsed.headers.family,
            location.ifindex,
        )));
    }
    let node = if location.node != own_node {
        location.node
    } else if location.other != 0 {
        // Released here and on its way: what is sent now waits at the other end, if anywhere.
        location.other
    } else {
        return Err(DropReason::NotAttached);
    };
    tunnel::encapsulate(skb, node, network).map(Handled::Redirect)
}

/// Hands the packet to the endpoint behind a host-side device.
#[inline(always)]
pub(crate) fn to_device(skb: &Skb, family: Family, ifindex: u32) -> i32 {
    match family {
        // redirect_peer keeps skb->protocol, which is right only for IP.
        Family::None => skb.redirect(ifindex),
        _ => skb.redirect_peer(ifindex),
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
    match headers.family {
        Family::None => AddressKey::mac(network, headers.eth_dst),
        family => AddressKey {
            network,
            family: family as u32,
            address: headers.dst,
        },
    }
}
