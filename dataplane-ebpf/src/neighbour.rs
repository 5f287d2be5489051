//! ARP and neighbour discovery, answered on the node: a question never leaves it.
//!
//! Every address of a network is answered with its owner's MAC address, the gateway's with the
//! anycast gateway's, the same on every node; so a neighbour entry stays true after a move.

use sunwire_dataplane_common::{
    address::{Address, Mac},
    bytes::Window,
    drop_reason::DropReason,
    entries::{AddressKey, EndpointEntry, location},
    headers::{ETHERNET_BYTES, Headers, IPV6_BYTES, PROTOCOL_ICMPV6},
    punt::link_local,
    vxlan::fold_checksum,
};

use crate::{Handled, deliver, frame::Skb, maps::NETWORKS};

/// Ethernet and IPv4 with their address lengths, then the operation (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ARP_REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];

const ICMPV6: usize = ETHERNET_BYTES + IPV6_BYTES;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// An advertisement with its target link-layer address option (RFC 4861, 4.4).
const ADVERTISEMENT_BYTES: usize = 32;
const SOLICITED_OVERRIDE: u8 = 0x60;
/// The option's type and its length in units of 8 bytes (RFC 4861, 4.6.1).
const TARGET_LINK_LAYER: [u8; 2] = [2, 1];
/// Version, payload length, protocol and the hop limit that proves a neighbour sent it.
const IPV6_HEAD: [u8; 8] = [
    0x60,
    0,
    0,
    0,
    0,
    ADVERTISEMENT_BYTES as u8,
    PROTOCOL_ICMPV6,
    255,
];

/// Answers an ARP request from the endpoint.
// A function of its own, like `solicitation`: rare, and its stack is then not the common path's.
#[inline(never)]
pub(crate) fn arp(skb: &mut Skb, endpoint: &EndpointEntry) -> Result<Handled, DropReason> {
    // Through the helper, in words: rare packets need no speed, and the stack is short.
    let [kinds, operation] = skb
        .load_words(ETHERNET_BYTES)
        .ok_or(DropReason::Malformed)?;
    let [first, last] = skb
        .load_words(ETHERNET_BYTES + 8)
        .ok_or(DropReason::Malformed)?;
    let [sender] = skb
        .load_words(ETHERNET_BYTES + 14)
        .ok_or(DropReason::Malformed)?;
    let [target] = skb
        .load_words(ETHERNET_BYTES + 24)
        .ok_or(DropReason::Malformed)?;
    let own = endpoint.ipv4.0[0];
    let is_request = operation == (&ARP_REQUEST).word::<4>();
    if kinds != (&ARP_REQUEST).word::<0>() || (!is_request && operation != (&ARP_REPLY).word::<4>())
    {
        return Err(DropReason::Malformed);
    }
    let sender_mac = Mac {
        first,
        last: first_half(last),
        padding: 0,
    };
    if sender_mac != endpoint.mac || (sender != own && sender != 0) {
        return Err(DropReason::SpoofedSource);
    }
    // Announcements, and probes for the endpoint's own address (RFC 5227): silence means free.
    if !is_request || target == own {
        return Ok(Handled::Consumed);
    }
    let key = AddressKey {
        network: endpoint.network,
        family: 4,
        address: Address([target, 0, 0, 0]),
    };
    let Some(mac) = mac_of(&key, endpoint)? else {
        return Ok(Handled::Consumed);
    };

    skb.store(0, &endpoint.mac.to_bytes())?;
    skb.store(6, &mac.to_bytes())?;
    skb.store(ETHERNET_BYTES, &ARP_REPLY)?;
    skb.store(ETHERNET_BYTES + 8, &mac.to_bytes())?;
    skb.store(ETHERNET_BYTES + 14, &target.to_ne_bytes())?;
    skb.store(ETHERNET_BYTES + 18, &endpoint.mac.to_bytes())?;
    skb.store(ETHERNET_BYTES + 24, &sender.to_ne_bytes())?;
    Ok(Handled::Redirect(skb.redirect(skb.ifindex())))
}

/// Whether an ICMPv6 type is link-local control: it is handled here and never forwarded.
/// Multicast listener (RFC 2710, 3810) and neighbour discovery messages (RFC 4861).
#[inline(always)]
pub(crate) fn is_control(icmp_type: u8) -> bool {
    matches!(icmp_type, 130..=137 | 143)
}

/// Answers a neighbour solicitation from the endpoint.
#[inline(never)]
pub(crate) fn solicitation(
    skb: &mut Skb,
    headers: &Headers,
    endpoint: &EndpointEntry,
) -> Result<Handled, DropReason> {
    if headers.icmp_type != SOLICITATION {
        return Err(DropReason::Unsolicited);
    }
    let unspecified = headers.src == Address::ZERO;
    if headers.src != endpoint.ipv6 && !headers.src.is_link_local() && !unspecified {
        return Err(DropReason::SpoofedSource);
    }
    let target = Address(skb.load_words(ICMPV6 + 8).ok_or(DropReason::Malformed)?);
    // Duplicate address detection: silence means free (RFC 4862, 5.4).
    if unspecified || target == endpoint.ipv6 {
        return Ok(Handled::Consumed);
    }
    let key = AddressKey {
        network: endpoint.network,
        family: 6,
        address: target,
    };
    let Some(mac) = mac_of(&key, endpoint)? else {
        return Ok(Handled::Consumed);
    };

    let source = headers.src;
    let checksum = advertisement_checksum(source, target, mac);
    skb.set_len((ICMPV6 + ADVERTISEMENT_BYTES) as u32)?;
    skb.store(0, &endpoint.mac.to_bytes())?;
    skb.store(6, &mac.to_bytes())?;
    skb.store(ETHERNET_BYTES, &IPV6_HEAD)?;
    skb.store_words(ETHERNET_BYTES + 8, &target.0)?;
    skb.store_words(ETHERNET_BYTES + 24, &source.0)?;
    let checksum = checksum.to_be_bytes();
    let head = [
        ADVERTISEMENT,
        0,
        checksum[0],
        checksum[1],
        SOLICITED_OVERRIDE,
        0,
        0,
        0,
    ];
    skb.store(ICMPV6, &head)?;
    skb.store_words(ICMPV6 + 8, &target.0)?;
    skb.store(ICMPV6 + 24, &TARGET_LINK_LAYER)?;
    skb.store(ICMPV6 + 26, &mac.to_bytes())?;
    Ok(Handled::Redirect(skb.redirect(skb.ifindex())))
}

/// The first two bytes in memory of a word.
#[inline(always)]
fn first_half(word: u32) -> u16 {
    let [first, second, ..] = word.to_ne_bytes();
    u16::from_ne_bytes([first, second])
}

/// The ICMPv6 checksum of the advertisement, over the pseudo header of RFC 8200, 8.1.
///
/// Words are added in memory order, so the halves of the sum are swapped back at the end.
#[inline(always)]
fn advertisement_checksum(destination: Address, target: Address, mac: Mac) -> u16 {
    let mac = mac.to_bytes();
    let address = |address: Address| -> u64 {
        u64::from(address.0[0])
            + u64::from(address.0[1])
            + u64::from(address.0[2])
            + u64::from(address.0[3])
    };
    let word = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
    // The pseudo header: source (the target itself), destination, length, protocol.
    let pseudo = address(target)
        + address(destination)
        + word([0, 0, 0, ADVERTISEMENT_BYTES as u8])
        + word([0, 0, 0, PROTOCOL_ICMPV6]);
    let message = word([ADVERTISEMENT, 0, 0, 0])
        + word([SOLICITED_OVERRIDE, 0, 0, 0])
        + address(target)
        + word([TARGET_LINK_LAYER[0], TARGET_LINK_LAYER[1], mac[0], mac[1]])
        + word([mac[2], mac[3], mac[4], mac[5]]);
    let sum = pseudo + message;
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    fold_checksum(sum as u32).swap_bytes()
}

/// The MAC address that answers for an address: its owner's, or the gateway's, which also answers for
/// addresses that a policy may give to somebody. None where the owner answers itself: it is at the same
/// node without an agent as who asks, and an answer of ours would let the switch there look for it here.
#[inline(always)]
fn mac_of(key: &AddressKey, asker: &EndpointEntry) -> Result<Option<Mac>, DropReason> {
    if let Some(number) = deliver::owner(key) {
        let location = deliver::location(number, asker.network);
        let location = location.ok_or(DropReason::NeighbourUnknown)?;
        let is_beside = location.flags & location::FOREIGN != 0 && location.node == asker.node;
        return Ok((!is_beside).then_some(location.mac));
    }
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(asker.network) }.ok_or(DropReason::NeighbourUnknown)?;
    let gateway = if key.family == 4 {
        entry.gateway_v4
    } else {
        entry.gateway_v6
    };
    if gateway == Address::ZERO {
        return Err(DropReason::NeighbourUnknown);
    }
    // Routers are known by their link-local address (RFC 4861, 6.1.2).
    let is_gateway =
        key.address == gateway || (key.family == 6 && key.address == link_local(entry.gateway_mac));
    // A policy that translates may take any address for another one, link-local ones aside: those are
    // tried out by duplicate address detection.
    let is_translated = entry.translates != 0 && !(key.family == 6 && key.address.is_link_local());
    if is_gateway || is_translated {
        Ok(Some(entry.gateway_mac))
    } else {
        Err(DropReason::NeighbourUnknown)
    }
}
