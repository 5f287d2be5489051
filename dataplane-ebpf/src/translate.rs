//! Addresses that a policy gives to packets and takes back in what answers them: `dnat`, `snat`,
//! `balance`.
//!
//! ```text
//! flow of the endpoint   10.0.0.1:4000 <-> 10.0.0.100:443   generation, verdict, source port
//! alias beside it        10.0.0.1:4000 <-> 10.0.0.7:443     what answers look like -> 10.0.0.100:443
//! ```
//!
//! The alias has the key of the packets as they go out, so what comes back finds it, whichever way it
//! came. It is made before the first packet leaves. Where another flow of the endpoint has that key,
//! or another endpoint's behind the same `snat` address, the packets get another source port; when
//! none is free, the packet is dropped and counted.

use sunwire_dataplane_common::{
    address::Address,
    flow::{Direction, FlowEntry, has_flow, tag},
    headers::{Family, Headers, PROTOCOL_TCP, PROTOCOL_UDP},
    outbound::is_egress,
    tables::{Copied, OUT_OWNER, set},
};

use crate::{deliver, flow, frame, maps::VERDICTS, outbound, quoted, routes};

/// The packets keep their source port.
pub(crate) const KEPT: u32 = 0;
/// No port is free; greater than every port.
pub(crate) const TAKEN: u32 = 1 << 16;

/// Source ports that are tried, its own one first.
const ATTEMPTS: u32 = 8;
/// Others are taken from here on: those of connections that a workload begins (RFC 6335, 6).
const FIRST_PORT: u32 = 0x8000;

/// The flow is there already, so its alias may be too: a flag of [`alias`].
pub(crate) const IS_KNOWN: u32 = 1 << 0;
/// Nothing is to be remembered: a flag of [`alias`].
pub(crate) const IS_TRACED: u32 = 1 << 1;

/// Has what comes back to the packet at hand recognised, which goes out as the first copy of the
/// verdict in `slot` says. Returns the source port that packets of the flow get, [`KEPT`], or
/// [`TAKEN`].
///
/// A global function, which the verifier looks at once, and not anew for every way that leads here:
/// see `classify::walk_tables`.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn alias(network: u32, local: u32, slot: u32, flags: u32) -> u32 {
    let (Some(sent), Some(alias)) = (quoted::inner(), flow::scratch()) else {
        return TAKEN;
    };
    let (Some(parsed), Some(verdict)) = (frame::parsed(), VERDICTS.get(slot)) else {
        return TAKEN;
    };
    let (headers, copied) = (&parsed.headers, &verdict.copied[0]);
    as_sent(headers, copied, sent);
    alias.generation = 0;
    alias.local = local;
    alias.remote = 0;
    alias.seen = flow::now();
    alias.tag = tag::ALIAS;
    alias.sent = 0;
    alias.received = 0;
    alias.original_port = headers.dst_port;
    alias.set_original(headers.dst);
    alias.bucket = u32::from(headers.src_port);
    let own = sent.src_port;
    // What is tried after it depends on the flow alone, so that it is found again.
    let mut next = u32::from(own) ^ headers.dst.0[0] ^ headers.dst.0[3] ^ headers.src.0[0];
    let mut free = TAKEN;
    for attempt in 0..ATTEMPTS {
        if attempt != 0 {
            next = next.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
            sent.src_port = (FIRST_PORT | next >> 17) as u16;
        }
        match flow::find(network, sent, Direction::Sent) {
            Some(there) if is_same(there, alias) => return answer(sent.src_port, own),
            Some(_) => {}
            None if free == TAKEN => free = u32::from(sent.src_port),
            None => {}
        }
        // Nobody knows it yet: the first one that is free will do.
        if free != TAKEN && flags & IS_KNOWN == 0 {
            break;
        }
        if !matches!(sent.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            break;
        }
    }
    if free == TAKEN {
        return TAKEN;
    }
    sent.src_port = free as u16;
    let is_there = flags & IS_TRACED != 0 || flow::remember(network, sent, Direction::Sent);
    if is_there {
        answer(sent.src_port, own)
    } else {
        TAKEN
    }
}

/// What a copy writes that says where it goes.
const DESTINATION: u16 = set::IP4_DST | set::IP6_DST | set::ETH_DST;

/// Number of the endpoint that the first copy of the verdict in `slot` goes to, or zero. `asker` is who
/// sent what the packet at hand answers, or zero: where nobody owns the destination, it goes there.
///
/// A global function, as [`alias`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn location(network: u32, slot: u32, asker: u32) -> u32 {
    let (Some(parsed), Some(verdict)) = (frame::parsed(), VERDICTS.get(slot)) else {
        return 0;
    };
    let (headers, copied) = (&parsed.headers, &verdict.copied[0]);
    if let Ok(number) = deliver::number(copied, headers, network) {
        return number;
    }
    if let egress @ 1.. = outbound::egress(copied, headers, network, asker) {
        return egress;
    }
    if is_egress(asker) {
        return 0;
    }
    if asker == 0 || copied.out != OUT_OWNER || copied.set & DESTINATION != 0 {
        return 0;
    }
    if !is_here(asker, network) || !has_flow(headers) {
        // Its node knows.
        return asker;
    }
    if is_alias_of(asker, network, headers, Direction::Received) {
        asker
    } else {
        0
    }
}

/// Whether the packet at hand, which endpoint `from` sends by an address that nobody owns, would be
/// taken for one of endpoint `remote`, whose connection with these addresses is up.
///
/// A global function, as [`alias`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_taken(network: u32, from: u32, remote: u32) -> u32 {
    let Some(parsed) = frame::parsed() else {
        return 0;
    };
    let headers = &parsed.headers;
    if headers.family == Family::None
        || routes::sender(headers, network) != 0
        || deliver::location(remote, network).is_none()
    {
        return 0;
    }
    // Elsewhere, its node has made it an alias, or a policy rewrites without remembering.
    let is_translated =
        !is_here(from, network) || is_alias_of(from, network, headers, Direction::Sent);
    u32::from(is_translated)
}

#[inline(always)]
fn is_here(number: u32, network: u32) -> bool {
    deliver::location(number, network).is_some_and(|location| location.ifindex != 0)
}

/// Whether a packet has the key of an alias of an endpoint.
#[inline(always)]
fn is_alias_of(number: u32, network: u32, headers: &Headers, direction: Direction) -> bool {
    flow::find(network, headers, direction)
        .is_some_and(|entry| entry.is_alias() && entry.local == number)
}

#[inline(always)]
fn answer(port: u16, own: u16) -> u32 {
    if port == own { KEPT } else { u32::from(port) }
}

/// The headers as they go out: what a flow's key is made of.
#[inline(always)]
fn as_sent(headers: &Headers, copied: &Copied, sent: &mut Headers) {
    sent.family = headers.family;
    sent.protocol = headers.protocol;
    sent.icmp_id = headers.icmp_id;
    sent.src = headers.src;
    sent.dst = headers.dst;
    sent.src_port = headers.src_port;
    sent.dst_port = headers.dst_port;
    if copied.set & set::SRC_PORT != 0 {
        sent.src_port = copied.src_port;
    }
    if copied.set & set::DST_PORT != 0 {
        sent.dst_port = copied.dst_port;
    }
    match headers.family {
        Family::V4 => {
            if copied.set & set::IP4_SRC != 0 {
                sent.src = Address([copied.ip4_src, 0, 0, 0]);
            }
            if copied.set & set::IP4_DST != 0 {
                sent.dst = Address([copied.ip4_dst, 0, 0, 0]);
            }
        }
        Family::V6 => {
            if copied.set & set::IP6_SRC != 0 {
                sent.src = copied.ip6_src;
            }
            if copied.set & set::IP6_DST != 0 {
                sent.dst = copied.ip6_dst;
            }
        }
        Family::None => {}
    }
}

/// Whether an alias is of the same flow as another.
#[inline(always)]
fn is_same(there: &FlowEntry, alias: &FlowEntry) -> bool {
    there.is_alias()
        && there.local == alias.local
        && there.original_port == alias.original_port
        && there.bucket == alias.bucket
        && there.original() == alias.original()
}
