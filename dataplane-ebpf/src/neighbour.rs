//! ARP and neighbour discovery, answered on the node: a question never leaves it.
//!
//! Every address of a network is answered with its owner's MAC address, the gateway's with the
//! anycast gateway's, the same on every node; so a neighbour entry stays true after a move.

use sunwire_dataplane_common::{
    address::{Address, Mac},
    bytes::{half, word},
    drop_reason::DropReason,
    entries::{AddressKey, EndpointEntry},
    headers::{ETHERNET_BYTES, Headers, IPV6_BYTES, PROTOCOL_ICMPV6},
    vxlan::fold_checksum,
};

use crate::{
    Handled, deliver,
    frame::{Skb, checksum},
    maps::NETWORKS,
};

const ARP_BYTES: usize = 28;
const ARP_REQUEST: u16 = 1;
/// Ethernet and IPv4, then the reply operation (RFC 826).
const ARP_REPLY_HEAD: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];

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
    let arp = skb
        .window::<ARP_BYTES>(ETHERNET_BYTES)
        .ok_or(DropReason::Malformed)?;
    if word(arp, 0) != word(&ARP_REPLY_HEAD, 0) || half(arp, 4) != half(&ARP_REPLY_HEAD, 4) {
        return Err(DropReason::Malformed);
    }
    let operation = u16::from_be(half(arp, 6));
    let sender = word(arp, 14);
    let target = word(arp, 24);
    let own = endpoint.ipv4.0[0];
    if Mac::read(arp, 8) != endpoint.mac || (sender != own && sender != 0) {
        return Err(DropReason::SpoofedSource);
    }
    // Announcements, and probes for the endpoint's own address (RFC 5227): silence means free.
    if operation != ARP_REQUEST || target == own {
        return Ok(Handled::Consumed);
    }
    let key = AddressKey {
        network: endpoint.network,
        family: 4,
        address: Address([target, 0, 0, 0]),
    };
    let mac = mac_of(&key, endpoint.network).ok_or(DropReason::NeighbourUnknown)?;

    let own_mac = endpoint.mac.to_bytes();
    let mac = mac.to_bytes();
    skb.write(0, &own_mac)?;
    skb.write(6, &mac)?;
    skb.write(ETHERNET_BYTES, &ARP_REPLY_HEAD)?;
    skb.write(ETHERNET_BYTES + 8, &mac)?;
    skb.write(ETHERNET_BYTES + 14, &target.to_ne_bytes())?;
    skb.write(ETHERNET_BYTES + 18, &own_mac)?;
    skb.write(ETHERNET_BYTES + 24, &sender.to_ne_bytes())?;
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
    let target = skb.window::<16>(ICMPV6 + 8).ok_or(DropReason::Malformed)?;
    let target = Address::read(target, 0);
    // Duplicate address detection: silence means free (RFC 4862, 5.4).
    if unspecified || target == endpoint.ipv6 {
        return Ok(Handled::Consumed);
    }
    let key = AddressKey {
        network: endpoint.network,
        family: 6,
        address: target,
    };
    let mac = mac_of(&key, endpoint.network).ok_or(DropReason::NeighbourUnknown)?;

    let source = headers.src;
    skb.set_len((ICMPV6 + ADVERTISEMENT_BYTES) as u32)?;
    let frame = skb.window_mut::<{ ICMPV6 + ADVERTISEMENT_BYTES }>(0)?;
    put(frame, 0, &endpoint.mac.to_bytes());
    put(frame, 6, &mac.to_bytes());
    put(frame, ETHERNET_BYTES, &IPV6_HEAD);
    put_address(frame, ETHERNET_BYTES + 8, target);
    put_address(frame, ETHERNET_BYTES + 24, source);
    put(
        frame,
        ICMPV6,
        &[ADVERTISEMENT, 0, 0, 0, SOLICITED_OVERRIDE, 0, 0, 0],
    );
    put_address(frame, ICMPV6 + 8, target);
    put(frame, ICMPV6 + 24, &TARGET_LINK_LAYER);
    put(frame, ICMPV6 + 26, &mac.to_bytes());
    put(
        frame,
        ICMPV6 + 2,
        &advertisement_checksum(source, target, mac).to_be_bytes(),
    );
    Ok(Handled::Redirect(skb.redirect(skb.ifindex())))
}

#[inline(always)]
fn put<const N: usize, const M: usize>(frame: &mut [u8; N], at: usize, bytes: &[u8; M]) {
    // Offsets are constants within the frame; the test only satisfies the compiler.
    if let Some(target) = frame.get_mut(at..at + M) {
        target.copy_from_slice(bytes);
    }
}

#[inline(always)]
fn put_address<const N: usize>(frame: &mut [u8; N], at: usize, address: Address) {
    put(frame, at, &address.0[0].to_ne_bytes());
    put(frame, at + 4, &address.0[1].to_ne_bytes());
    put(frame, at + 8, &address.0[2].to_ne_bytes());
    put(frame, at + 12, &address.0[3].to_ne_bytes());
}

/// The ICMPv6 checksum of the advertisement, over the pseudo header of RFC 8200, 8.1.
#[inline(always)]
fn advertisement_checksum(destination: Address, target: Address, mac: Mac) -> u16 {
    let mac = mac.to_bytes();
    let words = [
        // The pseudo header: source (the target itself), destination, length, protocol.
        target.0[0],
        target.0[1],
        target.0[2],
        target.0[3],
        destination.0[0],
        destination.0[1],
        destination.0[2],
        destination.0[3],
        (ADVERTISEMENT_BYTES as u32).to_be(),
        u32::from(PROTOCOL_ICMPV6).to_be(),
        // The message.
        u32::from_ne_bytes([ADVERTISEMENT, 0, 0, 0]),
        u32::from_ne_bytes([SOLICITED_OVERRIDE, 0, 0, 0]),
        target.0[0],
        target.0[1],
        target.0[2],
        target.0[3],
        u32::from_ne_bytes([TARGET_LINK_LAYER[0], TARGET_LINK_LAYER[1], mac[0], mac[1]]),
        u32::from_ne_bytes([mac[2], mac[3], mac[4], mac[5]]),
    ];
    // The sum is of words in memory order, so its halves are swapped back at the end.
    fold_checksum(checksum(&words)).swap_bytes()
}

/// The MAC address that answers for an address: its owner's, or the gateway's.
#[inline(always)]
fn mac_of(key: &AddressKey, network: u32) -> Option<Mac> {
    if let Some(number) = deliver::owner(key) {
        return deliver::location(number, network).map(|location| location.mac);
    }
    // SAFETY: a network is replaced whole and freed only after a grace period.
    let entry = unsafe { NETWORKS.get(network) }?;
    let gateway = if key.family == 4 {
        entry.gateway_v4
    } else {
        entry.gateway_v6
    };
    let is_gateway = key.address == gateway && gateway != Address::ZERO;
    is_gateway.then_some(entry.gateway_mac)
}
