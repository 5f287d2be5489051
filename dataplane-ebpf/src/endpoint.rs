//! From an endpoint into the switch: who it is, what it may say, and what policy says to it.

use sunwire_dataplane_common::{
    address::Address,
    bytes::Window,
    drop_reason::DropReason,
    entries::{Control, EndpointEntry},
    event::notes,
    headers::{
        ETHER_ARP, ETHER_QINQ, ETHER_VLAN, ETHERNET_BYTES, Family, Headers, PROTOCOL_ICMPV6,
        PROTOCOL_TCP, PROTOCOL_UDP, Parsed,
    },
    tables::{MAX_COPIES, Verdict},
};

use crate::{
    Handled, audit, classify, counters, deliver,
    frame::Skb,
    maps::{CONTROL, ENDPOINTS, VERDICTS},
    neighbour, punt, rewrite,
};

/// Bytes that hold every header this program reads: Ethernet, IPv4 with options or IPv6, and the
/// fixed part of TCP.
const HEADER_BYTES: u32 = 94;

/// Marks a copy of a packet that enters again: the verdict was taken, only its slot and the copy's
/// number are left to act on. A workload cannot forge it: the mark is cleared when a packet crosses
/// a network namespace, and slots are bounded.
///
/// ```text
/// 31    28 27    26 25         20 19     0
/// | 0xa   | number | generation  | slot   |
/// ```
///
/// A copy waits in the device's backlog, outside of the grace period that protects slots; so one
/// that meets another generation is dropped.
const COPY_MARK: u32 = 0xa << 28;
const COPY_MARK_MASK: u32 = 0xf << 28;
const NUMBER_SHIFT: u32 = notes::COPY_NUMBER_SHIFT;
const NUMBER_MASK: u32 = 0x3;
const GENERATION_SHIFT: u32 = 20;
const GENERATION_MASK: u32 = 0x3f;
const SLOT_MASK: u32 = (1 << GENERATION_SHIFT) - 1;
const _: () = assert!(MAX_COPIES as u32 - 1 <= NUMBER_MASK);

/// A packet that comes in on the host-side device of an endpoint.
#[inline(always)]
pub(crate) fn ingress(skb: &mut Skb) -> Result<Handled, DropReason> {
    // The verifier of older kernels wants the key of an array look-up on the stack, unchanged.
    let ifindex = skb.ifindex();
    let endpoint = ENDPOINTS.get(ifindex).ok_or(DropReason::NotAttached)?;
    if endpoint.network == 0 {
        return Err(DropReason::NotAttached);
    }
    let control = *CONTROL.get(0).ok_or(DropReason::BadTables)?;
    if skb.is_tagged() {
        return Err(DropReason::Vlan);
    }
    skb.ensure_linear(HEADER_BYTES);
    let parsed = Headers::parse(&skb.view(0)).map_err(|_| DropReason::Malformed)?;
    let headers = &parsed.headers;

    if headers.eth_src != endpoint.mac {
        return Err(DropReason::SpoofedSource);
    }
    if let Some(served) = punt::serve(skb, &parsed, endpoint) {
        return served;
    }
    match headers.family {
        Family::V4 => {
            if headers.src != endpoint.ipv4 || headers.src == Address::ZERO {
                return Err(DropReason::SpoofedSource);
            }
        }
        Family::V6 => {
            if headers.protocol == PROTOCOL_ICMPV6 && neighbour::is_control(headers.icmp_type) {
                return neighbour::solicitation(skb, headers, endpoint);
            }
            if headers.src != endpoint.ipv6 || headers.src == Address::ZERO {
                // Multicast listener reports come from the link-local address, behind an extension
                // header (RFC 3810, 5): no forgery, and nobody here listens to them.
                let local = headers.src.is_link_local() || headers.src == Address::ZERO;
                let group = headers.eth_dst.is_group();
                let reason = if local && group {
                    DropReason::Multicast
                } else {
                    DropReason::SpoofedSource
                };
                return Err(reason);
            }
        }
        Family::None => match headers.ether_type {
            ETHER_ARP => return neighbour::arp(skb, endpoint),
            ETHER_VLAN | ETHER_QINQ => return Err(DropReason::Vlan),
            _ => {}
        },
    }
    if parsed.fragment {
        return Err(DropReason::Fragment);
    }
    if headers.eth_dst.is_group() {
        return Err(DropReason::Multicast);
    }
    check_size(skb, &parsed, endpoint)?;
    decide(skb, &parsed, endpoint, control)
}

#[inline(always)]
fn check_size(skb: &mut Skb, parsed: &Parsed, endpoint: &EndpointEntry) -> Result<(), DropReason> {
    let bytes = match skb.gso_size() {
        0 => skb.len() - ETHERNET_BYTES as u32,
        segment => {
            parsed.transport - ETHERNET_BYTES as u32 + transport_bytes(skb, parsed)? + segment
        }
    };
    if bytes > endpoint.mtu {
        Err(DropReason::TooBig)
    } else {
        Ok(())
    }
}

/// Length of the transport header that every segment of a super-packet repeats.
#[inline(always)]
fn transport_bytes(skb: &Skb, parsed: &Parsed) -> Result<u32, DropReason> {
    match parsed.headers.protocol {
        PROTOCOL_TCP => {
            let tcp = skb
                .window::<13>(parsed.transport as usize)
                .ok_or(DropReason::Malformed)?;
            // The data offset is in the upper 4 bits, in words (RFC 9293, 3.1).
            Ok(u32::from(tcp.byte::<12>() >> 4) * 4)
        }
        PROTOCOL_UDP => Ok(8),
        _ => Ok(0),
    }
}

#[inline(always)]
fn decide(
    skb: &mut Skb,
    parsed: &Parsed,
    endpoint: &EndpointEntry,
    control: Control,
) -> Result<Handled, DropReason> {
    let mark = skb.mark();
    let (verdict, number) = if mark & COPY_MARK_MASK == COPY_MARK {
        skb.set_mark(0);
        let verdict = VERDICTS
            .get(mark & SLOT_MASK)
            .ok_or(DropReason::BadTables)?;
        if mark >> GENERATION_SHIFT & GENERATION_MASK != control.generation & GENERATION_MASK {
            return Err(DropReason::Superseded);
        }
        (verdict, mark >> NUMBER_SHIFT & NUMBER_MASK)
    } else {
        let headers = &parsed.headers;
        let slot = classify::in_force(headers, endpoint, control.generation, control.node);
        audit::count(skb, headers, endpoint, &control, slot);
        if slot == classify::NO_POLICY {
            return Err(DropReason::NoPolicy);
        }
        let verdict = VERDICTS.get(slot).ok_or(DropReason::BadTables)?;
        counters::labelled(skb, verdict.label);
        if verdict.copies == 0 {
            return Err(DropReason::Policy);
        }
        fan_out(skb, verdict, slot, control.generation)?;
        (verdict, 0)
    };
    let copied = verdict
        .copied
        .get(number as usize % MAX_COPIES)
        .ok_or(DropReason::BadTables)?;
    rewrite::apply(skb, parsed, copied)?;
    deliver::copy(skb, parsed, copied, endpoint.network, control.node)
}

/// Lets a copy enter again for each copy of the verdict after the first.
#[inline(always)]
fn fan_out(skb: &mut Skb, verdict: &Verdict, slot: u32, generation: u32) -> Result<(), DropReason> {
    if verdict.copies <= 1 {
        return Ok(());
    }
    let mark = COPY_MARK | (generation & GENERATION_MASK) << GENERATION_SHIFT | (slot & SLOT_MASK);
    if skb.is_traced() {
        // Whoever asks runs the program again for each of them.
        skb.set_mark(mark);
        skb.flag(verdict.copies << notes::COPIES_SHIFT);
        return Ok(());
    }
    for number in 1..MAX_COPIES as u32 {
        if number >= verdict.copies {
            break;
        }
        skb.set_mark(mark | number << NUMBER_SHIFT);
        skb.reenter()?;
    }
    skb.set_mark(0);
    Ok(())
}
