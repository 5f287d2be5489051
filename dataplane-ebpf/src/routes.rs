//! Between networks: whose an address is that is a peer's, and what becomes of a packet that crosses.
//!
//! ```text
//! ROUTES { network, subnet of a peer } -> network of the peer
//! OWNERS { network of the peer, address } -> the endpoint, and from there as within a network
//! ```
//!
//! The tables are composed of both networks' policies, so that the entry node has decided for both.
//! From here on the packet is one of its destination's network: its VNI, its flow there, its gateway
//! as the source.

use aya_ebpf::maps::lpm_trie::Key;
use sunwire_dataplane_common::{
    address::Address,
    drop_reason::DropReason,
    entries::{AddressKey, ClassKeyV4, ClassKeyV6, LocationEntry},
    headers::{Family, Headers, Parsed},
    wire::is_wired,
};

use crate::{
    classify,
    deliver::{self, Way},
    endpoint,
    frame::{Skb, note},
    maps::{LOCATIONS, NETWORKS, ROUTES_V4, ROUTES_V6},
    rewrite,
};

/// The endpoint that owns an address in the network of a key, or in one of its peers; zero when nobody
/// does. The key is of the owner's network afterwards.
#[inline(always)]
pub(crate) fn owner(key: &mut AddressKey) -> u32 {
    if let Some(number) = deliver::owner(key) {
        return number;
    }
    let network = peer(key.network, key.family, &key.address);
    if network == 0 {
        return 0;
    }
    key.network = network;
    deliver::owner(key).unwrap_or(0)
}

/// The peer of a network whose subnet an address is in, or zero.
#[inline(always)]
fn peer(network: u32, family: u32, address: &Address) -> u32 {
    // The keys of the question that was asked of the policy, if one was, are of no use any more.
    let Some((class_v4, class_v6)) = classify::keys() else {
        return 0;
    };
    let network = network.to_be();
    let found = match family {
        4 => {
            let address = address.0[0];
            *class_v4 = Key::new(64, ClassKeyV4 { network, address });
            ROUTES_V4.get(class_v4)
        }
        6 => {
            let address = *address;
            *class_v6 = Key::new(160, ClassKeyV6 { network, address });
            ROUTES_V6.get(class_v6)
        }
        _ => None,
    };
    found.copied().unwrap_or(0)
}

/// Whether an address is in a subnet of a network, or of one of its peers, as far as its packets may leave
/// the cloud: only then are its own subnets here.
#[inline(always)]
pub(crate) fn is_inside(network: u32, family: Family, address: &Address) -> bool {
    peer(network, family as u32, address) != 0
}

/// The endpoint of a peer that sent a packet which came into a network, or zero.
// A function of its own: the key is large.
#[inline(never)]
pub(crate) fn sender(headers: &Headers, network: u32) -> u32 {
    match deliver::by_address(headers.family, headers.src, network) {
        Some(mut key) => owner(&mut key),
        None => 0,
    }
}

/// Where an endpoint is, in whichever network; nowhere when it is an end of a wire.
#[inline(always)]
pub(crate) fn location(number: u32) -> Option<&'static LocationEntry> {
    LOCATIONS
        .get(number)
        .filter(|location| location.network != 0 && !is_wired(location.network))
}

/// Whether a packet may cross from a network to where it is sent.
///
/// # Errors
/// [`DropReason::NoOwner`] when the networks are no peers any more, [`DropReason::Expired`], and
/// [`DropReason::TooBig`] for the destination's network.
// A function of its own, like `cross`: the stack is short, and most packets stay.
#[inline(never)]
pub(crate) fn check(
    skb: &mut Skb,
    parsed: &Parsed,
    network: u32,
    location: &LocationEntry,
) -> Result<(), DropReason> {
    let headers = &parsed.headers;
    if peer(network, headers.family as u32, &headers.dst) != location.network {
        return Err(DropReason::NoOwner);
    }
    check_size(skb, parsed, location)
}

/// As [`check`], where a verdict is about to write another destination; packets that do not cross pass.
///
/// # Errors
/// As [`check`].
#[inline(never)]
pub(crate) fn check_way(skb: &mut Skb, parsed: &Parsed, way: &Way) -> Result<(), DropReason> {
    match location(way.to) {
        Some(location) if location.network != way.network => {
            skb.set_note::<{ note::DESTINATION }>(way.to);
            check_size(skb, parsed, location)
        }
        _ => Ok(()),
    }
}

#[inline(always)]
fn check_size(skb: &mut Skb, parsed: &Parsed, location: &LocationEntry) -> Result<(), DropReason> {
    if rewrite::hops_left(skb, parsed)? <= 1 {
        return Err(DropReason::Expired);
    }
    match endpoint::fits(skb, parsed, location.mtu)? {
        true => Ok(()),
        false => Err(DropReason::TooBig),
    }
}

/// Makes a packet one of the network that it crosses to.
///
/// # Errors
/// As [`check`].
#[inline(never)]
pub(crate) fn cross(skb: &mut Skb, parsed: &Parsed, way: &Way) -> Result<(), DropReason> {
    let location = location(way.to).ok_or(DropReason::NoOwner)?;
    check(skb, parsed, way.network, location)?;
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(location.network) }.ok_or(DropReason::UnknownNetwork)?;
    rewrite::count_hop(skb, parsed)?;
    skb.window_mut::<6>(6)?.set_mac::<0>(entry.gateway_mac);
    Ok(())
}
